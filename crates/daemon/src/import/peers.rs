//! The [Peer] sections, with the meaning that `wg setconf` gives them.
//!
//! Sections with the same key are one peer. A later section replaces what an earlier one set, including all its allowed
//! IPs. A prefix belongs to the peer that it was given to last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use ipnet::IpNet;
use overlay_core::PeerKey;
use zeroize::Zeroizing;

use super::names::{self, toml_string};
use super::wg_quick::{Entry, Part};
use super::{Import, ImportError, bad_key, parse_endpoint, quoted_list, unknown};
use crate::keys;

/// The combined content of all sections with one key.
#[derive(Default)]
struct Peer<'a> {
    key: Option<PeerKey>,
    name: Option<&'a str>,
    preshared_key: Option<Zeroizing<[u8; 32]>>,
    endpoint: Option<String>,
    persistent_keepalive: Option<u32>,
}

impl Import<'_> {
    pub(super) fn peers(&mut self, parts: &[Part<'_>], interface: &str, toml: &mut String) -> Result<(), ImportError> {
        let mut peers: Vec<Peer<'_>> = Vec::new();
        let mut by_key: HashMap<PeerKey, usize> = HashMap::new();
        // Each prefix with its owner and a sequence number. Within a peer, prefixes keep the order of the file.
        let mut owners: HashMap<IpNet, (usize, usize)> = HashMap::new();
        for part in parts {
            let key = key_of(part)?;
            let index = match by_key.get(&key) {
                Some(index) => {
                    self.warnings.push(format!(
                        "line {}: an earlier [Peer] has the same PublicKey; WireGuard makes them one, with the AllowedIPs \
                         of the last",
                        part.line
                    ));
                    *index
                }
                None => {
                    by_key.insert(key, peers.len());
                    peers.push(Peer { key: Some(key), ..Peer::default() });
                    peers.len() - 1
                }
            };
            owners.retain(|_, (owner, _)| *owner != index);
            peers[index].name = peers[index].name.or(part.name);
            for entry in &part.entries {
                self.entry(entry, index, &mut peers[index], &mut owners)?;
            }
        }
        let mut prefixes: BTreeMap<usize, Vec<(usize, IpNet)>> = BTreeMap::new();
        for (prefix, (owner, order)) in owners {
            prefixes.entry(owner).or_default().push((order, prefix));
        }
        let mut taken = HashSet::new();
        // Names that peers really have take precedence over the numbered names of files.
        let chosen: Vec<_> = peers.iter().map(|peer| peer.name.map(|name| names::peer(name, &mut taken))).collect();
        for (index, (peer, name)) in peers.iter().zip(chosen).enumerate() {
            let mut allowed_ips = prefixes.remove(&index).unwrap_or_default();
            allowed_ips.sort_unstable_by_key(|(order, _)| *order);
            toml.push_str(&self.write(peer, index, name.as_deref(), interface, &allowed_ips, &mut taken));
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: &Entry,
        index: usize,
        peer: &mut Peer<'_>,
        owners: &mut HashMap<IpNet, (usize, usize)>,
    ) -> Result<(), ImportError> {
        let value = entry.value.as_str();
        match entry.key.as_str() {
            // Parsed before all other keys.
            "publickey" => {}
            "presharedkey" => {
                let secret = keys::decode_preshared(value).map_err(|error| bad_key(entry, error))?;
                peer.preshared_key = Some(secret).filter(|secret| **secret != [0; 32]);
            }
            "endpoint" => peer.endpoint = Some(self.endpoint(entry, value)?),
            "allowedips" => {
                for text in entry.list() {
                    // The newest `wg` accepts a sign: the prefix is added to the others, or removed.
                    let (is_removed, text) = match text.strip_prefix('-') {
                        Some(text) => (true, text),
                        None => (false, text.strip_prefix('+').unwrap_or(text)),
                    };
                    let written = entry.prefix(text)?;
                    let prefix = written.trunc();
                    if prefix != written {
                        self.warnings
                            .push(format!("line {}: {written} became {prefix}, which is what it means", entry.line));
                    }
                    if is_removed {
                        owners.remove(&prefix);
                        continue;
                    }
                    self.given += 1;
                    match owners.get(&prefix) {
                        Some((owner, _)) if *owner == index => {}
                        before => {
                            if before.is_some() {
                                self.warnings.push(format!(
                                    "line {}: {prefix} belongs to this peer alone: an earlier [Peer] has it too, \
                                     and WireGuard gives it to the last",
                                    entry.line
                                ));
                            }
                            owners.insert(prefix, (index, self.given));
                        }
                    }
                }
            }
            "persistentkeepalive" if value.eq_ignore_ascii_case("off") => peer.persistent_keepalive = None,
            "persistentkeepalive" => {
                peer.persistent_keepalive = Some(entry.number(0..=65535)?).filter(|seconds| *seconds != 0);
            }
            _ => return Err(unknown(entry)),
        }
        Ok(())
    }

    /// Converts an endpoint to our notation. `wg` also accepts names of services and interfaces and unneeded brackets,
    /// and it accepts endpoints without brackets where ours require them.
    fn endpoint(&self, entry: &Entry, text: &str) -> Result<String, ImportError> {
        let wrong = |problem: crate::config::Problem| {
            ImportError::new(entry.line, format!("{}; {}", problem.message, problem.hint.unwrap_or_default()))
        };
        let Some((host, port)) = text.rsplit_once(':') else {
            return parse_endpoint(text).map(|endpoint| endpoint.to_string()).map_err(wrong);
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = self.surroundings.service(port).map_or_else(|| port.to_owned(), |port| port.to_string());
        let usual = match bare.split_once('%') {
            Some((address, zone)) => match self.surroundings.link(zone) {
                Some(index) => format!("[{address}%{index}]:{port}"),
                None => format!("[{bare}]:{port}"),
            },
            None if bare.contains(':') => format!("[{bare}]:{port}"),
            None => format!("{bare}:{port}"),
        };
        parse_endpoint(&usual).map(|endpoint| endpoint.to_string()).map_err(wrong)
    }

    fn write(
        &mut self,
        peer: &Peer<'_>,
        index: usize,
        name: Option<&str>,
        interface: &str,
        allowed_ips: &[(usize, IpNet)],
        taken: &mut HashSet<String>,
    ) -> String {
        let Some(key) = peer.key else { return String::new() };
        let mut toml = "\n[[peer]]\n".to_owned();
        if let Some(name) = name {
            let _ = writeln!(toml, "name = \"{name}\"");
        }
        let _ = writeln!(toml, "public_key = \"{}\"", keys::encode_public(&key));
        if let Some(file) = self.preshared_keys.remove(&key) {
            let _ = writeln!(toml, "preshared_key_file = {}", toml_string(&file));
        } else if let Some(secret) = &peer.preshared_key {
            let label = name.map_or_else(|| names::peer(&format!("peer{}", index + 1), taken), str::to_owned);
            let file = format!("{interface}-{label}.psk");
            let _ = writeln!(toml, "preshared_key_file = \"{file}\"");
            self.files.push((file, keys::encode_secret(secret)));
        }
        if let Some(endpoint) = &peer.endpoint {
            let _ = writeln!(toml, "endpoint = \"{endpoint}\"");
        }
        if let Some(seconds) = peer.persistent_keepalive {
            let _ = writeln!(toml, "persistent_keepalive = {seconds}");
        }
        let _ = writeln!(toml, "allowed_ips = [{}]", quoted_list(allowed_ips.iter().map(|(_, prefix)| prefix)));
        toml
    }
}

/// Returns the PublicKey of a section. The last one counts, as in `wg`.
fn key_of(part: &Part<'_>) -> Result<PeerKey, ImportError> {
    let mut key = None;
    for entry in part.entries.iter().filter(|entry| entry.key == "publickey") {
        key = Some(keys::decode_public(&entry.value).map_err(|error| bad_key(entry, error))?);
    }
    key.ok_or_else(|| ImportError::new(part.line, "this [Peer] has no PublicKey"))
}
