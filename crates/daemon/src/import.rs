//! Turns a wg-quick config into one of ours: the same keys, addresses and peers, the keys in files of their own.
//!
//! What overlay has no word for is left out and named with its line. The result is read by our own parser before it
//! is handed out, so that what it would object to is said at once and not at the next `up`.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::path::Path;

use ipnet::IpNet;
use overlay_core::PeerKey;
use zeroize::Zeroizing;

use crate::config::{Config, KeyFiles, interface_name_of, parse_endpoint};
use crate::keys::{self, KeyError, PrivateKey};

mod wg_quick;

use wg_quick::{Entry, Part};

/// What became of a wg-quick config.
pub struct Imported {
    /// Our config. It names `files` relative to its own folder.
    pub toml: String,
    /// Name and content of each key file, to be written with mode 0600.
    pub files: Vec<(String, Zeroizing<String>)>,
    /// What was not carried over or was changed, each with the line it stood in.
    pub warnings: Vec<String>,
}

/// Why a wg-quick config could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// From 1; 0 when it is about no line in particular.
    pub line: usize,
    /// What is wrong with it. Never holds a secret.
    pub message: String,
}

impl ImportError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "line {line}: {}", self.message),
        }
    }
}

impl std::error::Error for ImportError {}

/// Converts the text of a wg-quick config. `name` is that of the interface: the file's own without `.conf`.
///
/// # Errors
/// The first line that wg-quick would not take either.
pub fn import(wg_conf: &str, name: &str) -> Result<Imported, ImportError> {
    let document = wg_quick::parse(wg_conf)?;
    let mut import = Import { files: Vec::new(), warnings: document.warnings, taken: HashSet::new() };
    let name = import.interface_name(name);
    let mut toml = "# Written by `overlay import` from a config of wg-quick.\n".to_owned();
    import.interface(&document.interface, &name, &mut toml)?;
    let owned = last_owners(&document.peers)?;
    let mut keys = HashSet::new();
    for (index, part) in document.peers.iter().enumerate() {
        import.peer(part, index, &name, &owned, &mut keys, &mut toml)?;
    }
    import.read_back(&toml, &name);
    Ok(Imported { toml, files: import.files, warnings: import.warnings })
}

struct Import {
    files: Vec<(String, Zeroizing<String>)>,
    warnings: Vec<String>,
    /// Names of peers so far, in lower case.
    taken: HashSet<String>,
}

impl Import {
    fn interface_name(&mut self, name: &str) -> String {
        match interface_name_of(&Path::new(name).with_added_extension("toml")) {
            Some(name) => name,
            None => {
                self.warnings
                    .push(format!("the interface is named overlay0, since {name:?} cannot be an interface's name"));
                "overlay0".to_owned()
            }
        }
    }

    fn interface(&mut self, part: &Part<'_>, name: &str, toml: &mut String) -> Result<(), ImportError> {
        let mut addresses = Vec::new();
        let mut settings = String::new();
        let mut port = 0;
        let mut key = None;
        for entry in &part.entries {
            let value = entry.value;
            match entry.key.as_str() {
                "privatekey" => key = Some(PrivateKey::from_base64(value).map_err(|error| bad_key(entry, error))?),
                "address" => {
                    addresses.extend(entry.list().map(|address| entry.prefix(address)).collect::<Result<Vec<_>, _>>()?)
                }
                "listenport" => port = entry.number(0..=65535)?,
                "mtu" => match entry.number(0..=65535)? {
                    bytes @ 576.. => settings.push_str(&format!("mtu = {bytes}\n")),
                    0 => {}
                    bytes => self.skip(entry, &format!("an MTU of {bytes} is below 576")),
                },
                "fwmark" if value.eq_ignore_ascii_case("off") => {}
                "fwmark" => match entry.number(0..=u32::MAX)? {
                    0 => {}
                    mark => settings.push_str(&format!("fwmark = {mark:#x}\n")),
                },
                "table" if value == "auto" => {}
                "table" if value == "off" => settings.push_str("table = \"off\"\n"),
                "table" => match entry.number(0..=u32::MAX) {
                    Ok(number @ 1..) => settings.push_str(&format!("table = {number}\n")),
                    _ => self.skip(entry, "a routing table is written as its number"),
                },
                "dns" => self.skip(entry, "overlay does not change this host's DNS servers"),
                "preup" | "postup" | "predown" | "postdown" => self.skip(entry, "overlay runs no commands"),
                "saveconfig" => self.skip(entry, "overlay never rewrites its config"),
                _ => self.skip(entry, "overlay does not know it"),
            }
        }
        let key = key.ok_or_else(|| ImportError::new(part.line, "[Interface] has no PrivateKey"))?;
        if addresses.is_empty() {
            return Err(ImportError::new(
                part.line,
                "[Interface] has no Address; overlay needs this host's virtual IP",
            ));
        }
        let key_file = format!("{name}.key");
        let _ = write!(
            toml,
            "\n[interface]\nname = \"{name}\"\nprivate_key_file = \"{key_file}\"\n\
             addresses = [{}]\nlisten_port = {port}{}\n{settings}",
            quoted_list(&addresses),
            if port == 0 { "   # 0: the kernel chooses, as there was no ListenPort" } else { "" },
        );
        self.files.push((key_file, key.to_base64()));
        Ok(())
    }

    fn peer(
        &mut self,
        part: &Part<'_>,
        index: usize,
        interface: &str,
        owned: &[(IpNet, usize)],
        keys: &mut HashSet<PeerKey>,
        toml: &mut String,
    ) -> Result<(), ImportError> {
        let name = part.name.as_ref().filter(|name| self.taken.insert(name.to_ascii_lowercase()));
        let mut allowed_ips: Vec<IpNet> = Vec::new();
        let mut settings = String::new();
        let mut key = None;
        for entry in &part.entries {
            let value = entry.value;
            match entry.key.as_str() {
                "publickey" => {
                    let public = keys::decode_public(value).map_err(|error| bad_key(entry, error))?;
                    if !keys.insert(public) {
                        return Err(ImportError::new(entry.line, "an earlier [Peer] has the same PublicKey"));
                    }
                    key = Some(public);
                }
                "presharedkey" => {
                    let secret = keys::decode_preshared(value).map_err(|error| bad_key(entry, error))?;
                    if *secret != [0; 32] {
                        let label = name.map_or_else(|| format!("peer{}", index + 1), |name| name.to_string());
                        let file = format!("{interface}-{label}.psk");
                        settings.push_str(&format!("preshared_key_file = \"{file}\"\n"));
                        self.files.push((file, keys::encode_secret(&secret)));
                    }
                }
                "endpoint" => {
                    let endpoint = parse_endpoint(value).map_err(|problem| {
                        ImportError::new(
                            entry.line,
                            format!("{}; {}", problem.message, problem.hint.unwrap_or_default()),
                        )
                    })?;
                    settings.push_str(&format!("endpoint = \"{endpoint}\"\n"));
                }
                "allowedips" => {
                    for text in entry.list() {
                        let written = entry.prefix(text)?;
                        let prefix = written.trunc();
                        if prefix != written {
                            self.warnings.push(format!(
                                "line {}: {written} became {prefix}, which is what it means",
                                entry.line
                            ));
                        }
                        if owned.iter().any(|(known, owner)| *known == prefix && *owner != index) {
                            self.warnings.push(format!(
                                "line {}: {prefix} is left out here: \
                                 a later [Peer] has it too, and WireGuard gives it to that",
                                entry.line
                            ));
                        } else if !allowed_ips.contains(&prefix) {
                            allowed_ips.push(prefix);
                        }
                    }
                }
                "persistentkeepalive" if value.eq_ignore_ascii_case("off") => {}
                "persistentkeepalive" => match entry.number(0..=65535)? {
                    0 => {}
                    seconds => settings.push_str(&format!("persistent_keepalive = {seconds}\n")),
                },
                _ => self.skip(entry, "overlay does not know it"),
            }
        }
        let key = key.ok_or_else(|| ImportError::new(part.line, "this [Peer] has no PublicKey"))?;
        toml.push_str("\n[[peer]]\n");
        if let Some(name) = name {
            let _ = writeln!(toml, "name = \"{name}\"");
        }
        let _ = writeln!(toml, "public_key = \"{}\"", keys::encode_public(&key));
        toml.push_str(&settings);
        let _ = writeln!(toml, "allowed_ips = [{}]", quoted_list(&allowed_ips));
        Ok(())
    }

    fn skip(&mut self, entry: &Entry<'_>, reason: &str) {
        self.warnings.push(format!("line {}: `{}` is not carried over: {reason}", entry.line, entry.written));
    }

    /// What our own parser says to the result: a mistake there is one that wg-quick takes and overlay does not.
    fn read_back(&mut self, toml: &str, name: &str) {
        let path = Path::new(name).with_added_extension("toml");
        if let Err(error) = Config::parse_with(toml, &path, &KeyFiles::Memory(&self.files)) {
            self.warnings.extend(error.problems().iter().map(|problem| {
                let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                format!("to be corrected in line {} of {}: {}{hint}", problem.line, path.display(), problem.message)
            }));
        }
    }
}

/// Each prefix with the last peer that claims it: for WireGuard, its owner.
fn last_owners(peers: &[Part<'_>]) -> Result<Vec<(IpNet, usize)>, ImportError> {
    let mut owners: std::collections::HashMap<IpNet, usize> = std::collections::HashMap::new();
    for (index, part) in peers.iter().enumerate() {
        for entry in part.entries.iter().filter(|entry| entry.key == "allowedips") {
            for text in entry.list() {
                owners.insert(entry.prefix(text)?.trunc(), index);
            }
        }
    }
    Ok(owners.into_iter().collect())
}

fn bad_key(entry: &Entry<'_>, error: KeyError) -> ImportError {
    ImportError::new(entry.line, format!("this {} {error}", entry.written))
}

fn quoted_list(prefixes: &[IpNet]) -> String {
    prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
