//! Converts a wg-quick config into one of ours: the same keys, addresses and peers, with secrets in separate files.
//!
//! What `wg` and wg-quick accept is accepted with the same meaning, and what they reject is rejected. Each line is
//! either carried over, or reported with its meaning here and what to write instead. The result is parsed by our own
//! parser before it is returned, so that any objection is raised now and not at the next `up`.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use ipnet::IpNet;
use overlay_core::PeerKey;
use zeroize::Zeroizing;

use crate::config::{Config, KeyFiles, Problem, interface_name_of, parse_endpoint};
use crate::keys::{self, KeyError, PrivateKey};

mod hooks;
/// Valid and distinct names.
pub mod names;
mod peers;
mod surroundings;
mod wg_quick;

pub use surroundings::Surroundings;

use names::toml_string;
use wg_quick::{Entry, Part};

/// The result of converting a wg-quick config.
pub struct Imported {
    /// The name of the interface. The config file is named after it, with the extension `.toml`.
    pub name: String,
    /// Our config. It refers to `files` relative to its own folder.
    pub toml: String,
    /// The name and content of each key file, to be written with mode 0600.
    pub files: Vec<(String, Zeroizing<String>)>,
    /// What was not carried over or was changed, each with its line and what to do about it.
    pub warnings: Vec<String>,
    /// How many of `warnings` are about something that does not work until the user acts. 0 if all is well.
    pub losses: usize,
}

/// Why a wg-quick config could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The line, from 1, or 0 if no particular line is at fault.
    pub line: usize,
    /// What is wrong with it. Never contains a secret.
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

/// Converts the text of a wg-quick config. `name` is the name of the interface: the file name without `.conf`.
///
/// # Errors
/// The first line that wg-quick would reject too, or that cannot have the same meaning here.
pub fn import(wg_conf: &str, name: &str, surroundings: &Surroundings) -> Result<Imported, ImportError> {
    let document = wg_quick::parse(wg_conf)?;
    let mut import = Import {
        surroundings,
        files: Vec::new(),
        warnings: document.warnings,
        losses: 0,
        given: 0,
        preshared_keys: HashMap::new(),
    };
    let name = import.interface_name(name);
    let mut toml = "# Written by `overlay import` from a config of wg-quick.\n".to_owned();
    import.interface(&document.interface, &name, document.peers.len(), &mut toml)?;
    import.peers(&document.peers, &name, &mut toml)?;
    import.read_back(&toml, &name);
    let Import { files, warnings, losses, .. } = import;
    Ok(Imported { name, toml, files, warnings, losses })
}

struct Import<'a> {
    surroundings: &'a Surroundings,
    files: Vec<(String, Zeroizing<String>)>,
    warnings: Vec<String>,
    losses: usize,
    /// How many prefixes were given to peers so far.
    given: usize,
    /// The files of preshared keys that commands in [Interface] assign to peers.
    preshared_keys: HashMap<PeerKey, String>,
}

impl Import<'_> {
    fn interface_name(&mut self, name: &str) -> String {
        match interface_name_of(&Path::new(name).with_added_extension("toml")) {
            Some(name) => name,
            None => {
                let fitting = names::interface(name);
                self.warnings
                    .push(format!("the interface is named {fitting}, because {name:?} cannot be an interface's name"));
                fitting
            }
        }
    }

    fn interface(&mut self, part: &Part<'_>, name: &str, peers: usize, toml: &mut String) -> Result<(), ImportError> {
        let mut addresses = Vec::new();
        let (mut mtu, mut mark, mut table) = (None, None, None);
        let mut port = 0;
        let (mut key, mut key_file) = (None, None);
        let mut forwarding = None;
        for entry in &part.entries {
            let value = entry.value.as_str();
            match entry.key.as_str() {
                "privatekey" => key = Some(PrivateKey::from_base64(value).map_err(|error| bad_key(entry, error))?),
                "address" => {
                    addresses.extend(entry.list().map(|address| entry.prefix(address)).collect::<Result<Vec<_>, _>>()?)
                }
                "listenport" => port = self.port(entry, value)?,
                "mtu" => match entry.number(0..=65535)? {
                    bytes @ 576.. => mtu = Some(bytes),
                    0 => {}
                    bytes => self.lose(entry, &format!("an MTU of {bytes} is below 576; write `mtu` in [interface]")),
                },
                "fwmark" if value.eq_ignore_ascii_case("off") => mark = None,
                "fwmark" => mark = Some(entry.number(0..=u32::MAX)?).filter(|mark| *mark != 0),
                "table" => table = self.table(entry)?,
                "dns" => self.dns(entry, name),
                "preup" | "postup" => {
                    let hook = hooks::read(value, name);
                    if hook.forwards {
                        forwarding = Some(entry.line);
                    }
                    key_file = hook.private_key.clone().or(key_file);
                    for (peer, file) in &hook.preshared_keys {
                        let peer = keys::decode_public(peer).map_err(|error| bad_key(entry, error))?;
                        self.preshared_keys.insert(peer, file.clone());
                    }
                    if !hook.rest.is_empty() {
                        let when = if entry.key == "preup" { "ExecStartPre" } else { "ExecStartPost" };
                        self.lose(
                            entry,
                            &format!(
                                "overlay runs no commands; with systemd, write the line as {when}=+/bin/sh -c '...' \
                                 by: sudo systemctl edit overlay@{name}"
                            ),
                        );
                    }
                }
                "predown" | "postdown" => {
                    self.skip(entry, "overlay runs no commands, and removes what it added by itself")
                }
                "saveconfig" if value.eq_ignore_ascii_case("true") => self
                    .skip(entry, "overlay never rewrites its config; what `wg set` changes lasts until the next start"),
                "saveconfig" if value.eq_ignore_ascii_case("false") => {}
                "saveconfig" => return Err(ImportError::new(entry.line, "`SaveConfig` must be true or false")),
                _ => return Err(unknown(entry)),
            }
        }
        let key_line = match (&key, &key_file) {
            (_, Some(file)) => format!("private_key_file = {}\n", toml_string(file)),
            (Some(_), None) => format!("private_key_file = \"{name}.key\"\n"),
            (None, None) => {
                return Err(ImportError::new(
                    part.line,
                    format!(
                        "[Interface] has no PrivateKey, and no `PostUp = wg set %i private-key FILE` says where it is; \
                         write PrivateKey, or PostUp = wg set %i private-key /etc/wireguard/{name}.key"
                    ),
                ));
            }
        };
        if addresses.is_empty() {
            return Err(ImportError::new(
                part.line,
                "[Interface] has no Address; overlay needs this host's virtual IP",
            ));
        }
        let _ = write!(
            toml,
            "\n[interface]\nname = \"{name}\"\n{key_line}addresses = [{}]\nlisten_port = {port}{}\n",
            quoted_list(&addresses),
            if port == 0 { "   # 0: the kernel chooses, because there was no ListenPort" } else { "" },
        );
        toml.extend(mark.map(|mark| format!("fwmark = {mark:#x}\n")));
        toml.extend(mtu.map(|mtu| format!("mtu = {mtu}\n")));
        toml.extend(table);
        self.forward(forwarding, peers, toml);
        if let (Some(key), None) = (key, key_file) {
            self.files.push((format!("{name}.key"), key.to_base64()));
        }
        Ok(())
    }

    /// Writes `forward = true` where it is due. wg-quick has no such key: forwarding follows from the host's setting or
    /// from commands.
    fn forward(&mut self, commanded: Option<usize>, peers: usize, toml: &mut String) {
        match (commanded, self.surroundings.forwards) {
            (None, false) if peers > 1 => self.warnings.push(
                "this host does not forward packets between its peers, and overlay will not either: to forward them, write \
                 forward = true in [interface], and net.ipv4.ip_forward = 1 into a file in /etc/sysctl.d"
                    .to_owned(),
            ),
            (None, false) => {}
            (_, true) => {
                toml.push_str("forward = true\n");
                self.warnings.push(
                    "forward = true: this host forwards packets (net.ipv4.ip_forward), so peers reach each other and the \
                     networks behind this host, as before; without the line they reach only this host"
                        .to_owned(),
                );
            }
            (Some(line), false) => {
                toml.push_str("forward = true\n");
                self.losses += 1;
                self.warnings.push(format!(
                    "line {line}: forward = true, because the command is about forwarding, but this host does not forward: \
                     sudo sysctl -w net.ipv4.ip_forward=1, and write it into a file in /etc/sysctl.d"
                ));
            }
        }
    }

    /// Returns the line that sets a routing table, if one must be set.
    fn table(&self, entry: &Entry) -> Result<Option<String>, ImportError> {
        let value = entry.value.as_str();
        let number = match value.to_ascii_lowercase().as_str() {
            "" | "auto" => return Ok(None),
            "off" => return Ok(Some("table = \"off\"\n".to_owned())),
            "main" | "0" => Some(254),
            "local" => Some(255),
            "default" => Some(253),
            _ => wg_quick::number(value).or_else(|| self.surroundings.table(value)),
        };
        match number {
            Some(number) => Ok(Some(format!("table = {number}\n"))),
            None => Err(ImportError::new(
                entry.line,
                format!(
                    "this host has no routing table `{value}`, and a different table would send the traffic elsewhere; \
                     write its number, or add it to /etc/iproute2/rt_tables"
                ),
            )),
        }
    }

    fn dns(&mut self, entry: &Entry, name: &str) {
        let (servers, domains): (Vec<_>, Vec<_>) = entry
            .list()
            .partition(|word| word.contains(':') || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        let mut fix = Vec::new();
        if !servers.is_empty() {
            fix.push(format!("sudo resolvectl dns {name} {}", servers.join(" ")));
        }
        if !domains.is_empty() {
            fix.push(format!("sudo resolvectl domain {name} {}", domains.join(" ")));
        }
        self.lose(
            entry,
            &format!("overlay does not change this host's DNS servers; after each `overlay up`: {}", fix.join(" && ")),
        );
    }

    /// Parses a port given by number or by service name, as getaddrinfo does.
    fn port(&self, entry: &Entry, text: &str) -> Result<u16, ImportError> {
        let number = text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let port = match number {
            Some(number) => u16::try_from(number).ok(),
            None => self.surroundings.service(text),
        };
        port.ok_or_else(|| {
            let message = format!("`{}` must be a number from 0 to 65535", entry.written);
            ImportError::new(entry.line, message)
        })
    }

    /// Warns about something that is different here and requires no action.
    fn skip(&mut self, entry: &Entry, reason: &str) {
        self.warnings.push(format!("line {}: `{}` is not carried over: {reason}", entry.line, entry.written));
    }

    /// Warns about something that does not work until the user acts.
    fn lose(&mut self, entry: &Entry, reason: &str) {
        self.losses += 1;
        self.skip(entry, reason);
    }

    /// Parses the result with our own parser. An error here is something that wg-quick accepts and overlay does not.
    fn read_back(&mut self, toml: &str, name: &str) {
        let path = Path::new(name).with_added_extension("toml");
        let say = |what: &str, problem: &Problem| {
            let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{what} line {} of {}: {}{hint}", problem.line, path.display(), problem.message)
        };
        match Config::parse_with(toml, &path, &KeyFiles::Memory(&self.files)) {
            Ok(config) => self.warnings.extend(config.warnings().iter().map(|warning| say("in", warning.problem()))),
            Err(error) => {
                self.losses += error.problems().len();
                self.warnings.extend(error.problems().iter().map(|problem| say("to be corrected in", problem)));
            }
        }
    }
}

/// Describes a key that `wg` rejects too, or that belongs to a dialect of it.
fn unknown(entry: &Entry) -> ImportError {
    const AMNEZIA: [&str; 17] =
        ["jc", "jmin", "jmax", "s1", "s2", "s3", "s4", "h1", "h2", "h3", "h4", "i1", "i2", "i3", "i4", "i5", "itime"];
    let message = match entry.key.as_str() {
        key if AMNEZIA.contains(&key) => format!(
            "`{}` belongs to AmneziaWG, a different protocol: overlay speaks WireGuard; \
             take its lines out, here and at the peers, or ask for a config of WireGuard",
            entry.written
        ),
        "includedapplications" | "excludedapplications" | "allowedapps" | "disallowedapps" => format!(
            "`{}` picks programs on a phone or on Windows, which overlay cannot; take the line out",
            entry.written
        ),
        _ => format!(
            "`{}` is not a key of [{}]: `wg` does not take it either; take the line out or correct it",
            entry.written, entry.section
        ),
    };
    ImportError::new(entry.line, message)
}

fn bad_key(entry: &Entry, error: KeyError) -> ImportError {
    ImportError::new(entry.line, format!("this {} {error}", entry.written))
}

fn quoted_list<'p>(prefixes: impl IntoIterator<Item = &'p IpNet>) -> String {
    prefixes.into_iter().map(|prefix| format!("\"{prefix}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
