//! What an agent keeps on disk, in `STATE/NETWORK/`.
//!
//! | file | content |
//! |---|---|
//! | `identity.key` | the Ed25519 secret of the identity, base64 |
//! | `tunnel.key` | the X25519 secret of the tunnel, base64 as `wg` has it, and the one before it while it is answered |
//! | `mailbox.key` | the secrets of the mailbox, base64, and those before them while letters may be sealed for them |
//! | `rotation` | the agents that have used the present tunnel key while the one before it is answered, too |
//! | `attestation` | the join token that was bound to this identity, without its secret, if there is one |
//! | `network` | the network's signed object |
//! | `record` | the agent's own signed record, as registered last |
//! | `time` | the latest time that this agent has reached, in milliseconds since 1970 |
//! | `machine` | a hash of the id of the machine that runs the agent |
//! | `outside` | how this host is seen from outside, and its own addresses then |
//! | `registered` | the sequence of the last record that each rendezvous was given |
//! | `memberships` | until when each rendezvous vouches for this agent: signed objects, base64, one a line |
//! | `restored` | there while this state is known to be older than what the agent has said since |
//! | `version` | the version of this format |
//! | `lock` | empty; the daemon that runs the agent holds a lock on it |
//! | `peers/IDENTITY` | what is known of one peer: see [`Relation`] |
//!
//! Every file is replaced as a whole: written under a temporary name, synced, renamed, and the folder synced. So a file is
//! the old one or the new one. A file that cannot be read is refused by name. It is never made anew in silence, because an
//! agent with a new identity is a different agent. Only `network` and `record` are taken as missing when they are damaged,
//! with a warning: they are signed, and the rendezvous has both. An `attestation` can only be had from the operator again.

mod attestation;
mod begin;
mod key_file;
mod machine;
mod membership;
mod relation;
mod restored;
mod version;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_core::PeerKey;
use overlay_os::folder::{Access, Folder, TrustError};
use overlay_rendezvous::sealed::{MailboxKeys, SECRET_LEN};
use overlay_wire::signed::{MAX_ENVELOPE_LEN, Network, Object, PublicKey, Record, SecretKey, Signed};
use zeroize::Zeroizing;

pub(crate) use self::begin::Beginning;
use self::key_file::KeyFile;
use super::outside::Outside;
use super::trust::Relation;
use crate::config;
use crate::failure::{ExitKind, Failure};
use crate::keys::{PrivateKey, encode_public};

/// Where the state of all networks is, unless `--state-dir` says otherwise.
pub const STATE_DIR: &str = "/var/lib/overlay";

const IDENTITY: &str = "identity.key";
const TUNNEL: &str = "tunnel.key";
const MAILBOX: &str = "mailbox.key";
const ATTESTATION: &str = "attestation";
const NETWORK: &str = "network";
const RECORD: &str = "record";
const PEERS: &str = "peers";
const LOCK: &str = "lock";
pub(super) const TIME: &str = "time";
const ROTATION: &str = "rotation";
const OUTSIDE: &str = "outside";
/// The name under which a file is written before it replaces the one before it.
const TEMPORARY: &str = ".new";
/// The longest file, in bytes: a relation with eight envelopes.
const MAX_LEN: u64 = 8 * MAX_ENVELOPE_LEN as u64;
/// The longest list of agents that have used a key, in bytes: 65,000 of them.
const MAX_USERS_LEN: u64 = 65_000 * 53;

/// The keys of an agent.
pub(crate) struct Keys {
    pub(crate) identity: SecretKey,
    pub(crate) tunnel: PrivateKey,
    /// The tunnel key before it, while that one is still answered.
    pub(crate) former_tunnel: Option<FormerKey>,
    pub(crate) mailbox: MailboxKeys,
    /// The mailbox keys before those, while letters may be sealed for them.
    pub(crate) former_mailbox: Option<MailboxKeys>,
    /// When the present mailbox keys were made, in milliseconds since 1970. `None`: by a version that did not note it.
    pub(crate) mailbox_since: Option<u64>,
}

/// A tunnel key that was replaced.
#[derive(Clone)]
pub(crate) struct FormerKey {
    pub(crate) key: PrivateKey,
    /// When it was replaced, in milliseconds since 1970.
    pub(crate) replaced: u64,
}

/// The state folder of one network.
pub(crate) struct State {
    folder: Folder,
    peers: Folder,
    /// Held by the one daemon that runs this agent.
    lock: Option<File>,
}

impl State {
    /// Opens the state of the agent that a config names.
    pub(crate) fn of(config: &config::Agent, state_dir: &Path) -> Result<Self, Failure> {
        let name = config.network.as_deref().ok_or_else(|| {
            Failure::new(ExitKind::Config, "[agent] names no network")
                .with_hint("write network = \"NAME\"; `overlay init` writes it")
        })?;
        Self::open(state_dir, name)?.ok_or_else(|| {
            Failure::new(ExitKind::NotFound, format!("there is no identity in {}", state_dir.join(name).display()))
                .with_hint("make one with `overlay init`, or name the folder with --state-dir")
        })
    }

    /// Opens the state of a network. `None` if it does not exist.
    pub(crate) fn open(state_dir: &Path, network: &str) -> Result<Option<Self>, Failure> {
        let path = state_dir.join(network);
        match Folder::trusted(&path, &[]) {
            Ok(folder) => {
                let peers = match Folder::trusted(&path.join(PEERS), &[]) {
                    Ok(peers) => peers,
                    Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                        return Err(no_peers(&path.join(PEERS)));
                    }
                    Err(error) => return Err(untrusted(&path.join(PEERS), error)),
                };
                let state = Self { folder, peers, lock: None };
                state.check_version()?;
                Ok(Some(state))
            }
            Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(untrusted(&path, error)),
        }
    }

    /// Keeps every other daemon from running this agent while this value lives. The folder gets this release's format.
    pub(crate) fn lock(&mut self) -> Result<(), Failure> {
        let path = self.folder.path_of(LOCK);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(|error| cannot_write(&path, error))?;
        match file.try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(ExitKind::Conflict, format!("{} is in use", self.path().display()))
                    .with_cause("a different daemon runs this agent")
                    .with_hint(
                        "overlay status shows what runs; give each agent a folder of its own with --state-dir",
                    ));
            }
            Err(TryLockError::Error(error)) => return Err(cannot_write(&path, error)),
        }
        self.upgrade()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Reads the agent's keys.
    pub(crate) fn keys(&self) -> Result<Keys, Failure> {
        let identity: Zeroizing<[u8; 32]> = self.secret(IDENTITY)?;
        let tunnel: KeyFile<32> = self.key_file(TUNNEL)?;
        let mailbox: KeyFile<SECRET_LEN> = self.key_file(MAILBOX)?;
        let tunnel_key = |key| PrivateKey::from_bytes(key).ok_or_else(|| self.damaged(TUNNEL));
        let mailbox_keys =
            |secret: &[u8; SECRET_LEN]| MailboxKeys::from_secret(secret).map_err(|_| self.damaged(MAILBOX));
        let former_tunnel = match (tunnel.former, tunnel.since) {
            (Some(key), Some(replaced)) => Some(FormerKey { key: tunnel_key(key)?, replaced }),
            (Some(_), None) => return Err(self.damaged(TUNNEL)),
            (None, _) => None,
        };
        Ok(Keys {
            identity: SecretKey::from_bytes(&identity),
            tunnel: tunnel_key(tunnel.key)?,
            former_tunnel,
            mailbox: mailbox_keys(&mailbox.key)?,
            former_mailbox: mailbox.former.map(|secret| mailbox_keys(&secret)).transpose()?,
            mailbox_since: mailbox.since,
        })
    }

    /// Replaces the tunnel keys.
    pub(crate) fn set_tunnel_keys(&self, key: &PrivateKey, former: Option<&FormerKey>) -> Result<(), Failure> {
        let since = former.map(|former| former.replaced);
        let file = KeyFile { key: key.to_bytes(), since, former: former.map(|former| former.key.to_bytes()) };
        self.replace(TUNNEL, &file.write())
    }

    /// Replaces the mailbox keys.
    pub(crate) fn set_mailbox_keys(
        &self,
        keys: &MailboxKeys,
        since: u64,
        former: Option<&MailboxKeys>,
    ) -> Result<(), Failure> {
        let secret = |keys: &MailboxKeys| Zeroizing::new(*keys.secret());
        let file = KeyFile { key: secret(keys), since: Some(since), former: former.map(secret) };
        self.replace(MAILBOX, &file.write())
    }

    /// The agents that have used the tunnel key with this public key. Nobody, if the file is about a different key.
    pub(crate) fn users_of(&self, tunnel_key: &PeerKey) -> Result<BTreeSet<PublicKey>, Failure> {
        let path = self.folder.path_of(ROTATION);
        let mut text = String::new();
        match self.folder.open(ROTATION, Access::Read) {
            Ok(file) => {
                let read = file.take(MAX_USERS_LEN).read_to_string(&mut text);
                read.map_err(|error| cannot_read(&path, error))?;
            }
            Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(untrusted(&path, error)),
        }
        let mut lines = text.lines();
        if lines.next() != Some(&encode_public(tunnel_key)) {
            return Ok(BTreeSet::new());
        }
        Ok(lines.filter_map(|line| line.parse().ok()).collect())
    }

    /// Notes which agents have used the tunnel key with this public key.
    pub(crate) fn set_users_of(&self, tunnel_key: &PeerKey, users: &BTreeSet<PublicKey>) -> Result<(), Failure> {
        let users: String = users.iter().map(|user| format!("{user}\n")).collect();
        self.replace(ROTATION, format!("{}\n{users}", encode_public(tunnel_key)).as_bytes())
    }

    /// The network's signed object, once it was seen.
    pub(crate) fn network(&self) -> Result<Option<Signed<Network>>, Failure> {
        self.object(NETWORK)
    }

    pub(crate) fn set_network(&self, network: &Signed<Network>) -> Result<(), Failure> {
        self.replace(NETWORK, network.bytes())
    }

    /// The agent's own record, once it was registered.
    pub(crate) fn record(&self) -> Result<Option<Signed<Record>>, Failure> {
        self.object(RECORD)
    }

    /// Writes the agent's own record. A rendezvous can make us register as often as it likes, so what is there already is
    /// not written again.
    pub(crate) fn set_record(&self, record: &Signed<Record>) -> Result<(), Failure> {
        match read(&self.folder, OsStr::new(RECORD)) {
            Ok(Some(known)) if known[..] == *record.bytes() => Ok(()),
            _ => self.replace(RECORD, record.bytes()),
        }
    }

    /// The latest time that this agent has reached, in milliseconds since 1970.
    pub(crate) fn time(&self) -> Result<Option<u64>, Failure> {
        let Some(bytes) = read(&self.folder, OsStr::new(TIME))? else { return Ok(None) };
        // The end of the line shows that the number is whole.
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let time = text.and_then(|text| text.trim_ascii().parse().ok());
        time.map(Some).ok_or_else(|| damaged_time(&self.folder.path_of(TIME)))
    }

    pub(crate) fn set_time(&self, time: u64) -> Result<(), Failure> {
        self.replace(TIME, &in_line(&time.to_string()))
    }

    /// How this host was seen from outside. Nothing, if that cannot be read.
    pub(super) fn outside(&self) -> Outside {
        let bytes = read(&self.folder, OsStr::new(OUTSIDE)).ok().flatten();
        bytes.map_or_else(Outside::default, |bytes| Outside::read(&String::from_utf8_lossy(&bytes)))
    }

    pub(super) fn set_outside(&self, outside: &Outside) -> Result<(), Failure> {
        self.replace(OUTSIDE, outside.write().as_bytes())
    }

    /// What is known of all peers.
    pub(crate) fn relations(&self) -> Result<Vec<Relation>, Failure> {
        let path = self.peers.path();
        let mut relations = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| cannot_read(path, error))? {
            let name = entry.map_err(|error| cannot_read(path, error))?.file_name();
            // A file that was not complete when the power failed has no name of a key.
            let Some(identity) = name.to_str().and_then(|name| name.parse::<PublicKey>().ok()) else { continue };
            relations.extend(self.relation(&identity)?);
        }
        Ok(relations)
    }

    /// Writes what is known of one peer. It is on disk when this returns.
    pub(crate) fn set_relation(&self, relation: &Relation) -> Result<(), Failure> {
        let name = relation.identity.to_string();
        let bytes = Zeroizing::new(relation::write(relation));
        self.peers
            .replace(OsStr::new(&name), OsStr::new(TEMPORARY), &bytes, 0o600)
            .map_err(|error| cannot_write(&self.peers.path_of(&name), error))
    }

    /// What is known of one peer.
    pub(crate) fn relation(&self, peer: &PublicKey) -> Result<Option<Relation>, Failure> {
        let name = peer.to_string();
        let Some(bytes) = read(&self.peers, OsStr::new(&name))? else { return Ok(None) };
        if self.peers.is_open_to_others(&name) {
            return Err(open_to_others(&self.peers.path_of(&name)));
        }
        let relation = relation::read(&bytes).filter(|relation| relation.identity == *peer);
        relation.map(Some).ok_or_else(|| damaged_peer(&self.peers.path_of(&name)))
    }

    /// Deletes what is known of one peer.
    pub(crate) fn forget_relation(&self, peer: &PublicKey) -> Result<(), Failure> {
        let path = self.peers.path_of(peer.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(&path, error)),
            _ => Ok(()),
        }
    }

    /// Reads a signed object that the rendezvous has, too. `None` if it is missing or damaged.
    fn object<T: Object>(&self, name: &str) -> Result<Option<Signed<T>>, Failure> {
        let Some(bytes) = read(&self.folder, OsStr::new(name))? else { return Ok(None) };
        let object = Signed::open(&bytes);
        if object.is_err() {
            let path = self.folder.path_of(name);
            tracing::warn!("{} is damaged: it is replaced once the rendezvous answers", path.display());
        }
        Ok(object.ok())
    }

    fn secret<const N: usize>(&self, name: &str) -> Result<Zeroizing<[u8; N]>, Failure> {
        let file = self.key_file(name)?;
        if file.since.is_some() || file.former.is_some() { Err(self.damaged(name)) } else { Ok(file.key) }
    }

    fn key_file<const N: usize>(&self, name: &str) -> Result<KeyFile<N>, Failure> {
        let text = read(&self.folder, OsStr::new(name))?.ok_or_else(|| self.damaged(name))?;
        if self.folder.is_open_to_others(name) {
            return Err(open_to_others(&self.folder.path_of(name)));
        }
        KeyFile::read(&text).ok_or_else(|| self.damaged(name))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        self.folder
            .replace(OsStr::new(name), OsStr::new(TEMPORARY), bytes, 0o600)
            .map_err(|error| cannot_write(&self.folder.path_of(name), error))
    }

    fn damaged(&self, name: &str) -> Failure {
        damaged(&self.folder.path_of(name))
    }
}

fn in_line(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([text, "\n"].concat().into_bytes())
}

fn in_base64(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes))
}

/// Reads a file. `None` if it does not exist.
fn read(folder: &Folder, name: &OsStr) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let path = folder.path_of(name);
    let file = match folder.open(name, Access::Read) {
        Ok(file) => file,
        Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(untrusted_file(&path, error)),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_LEN).read_to_end(&mut bytes).map_err(|error| cannot_read(&path, error))?;
    Ok(Some(bytes))
}

fn trusted(path: &Path) -> Result<Folder, Failure> {
    Folder::trusted(path, &[]).map_err(|error| untrusted(path, error))
}

fn untrusted(path: &Path, error: TrustError) -> Failure {
    let fix = error.fix();
    let failure = Failure::new(ExitKind::Permission, format!("cannot use {}", path.display())).with_cause(error);
    match fix {
        Some(fix) => failure.with_hint(fix),
        None => failure,
    }
}

/// A file of the state is never to be removed: what is in it may be the only copy.
fn untrusted_file(path: &Path, error: TrustError) -> Failure {
    let hint = match &error {
        TrustError::Owner { .. } => Some(format!("if nobody has changed it: sudo chown root:root {}", path.display())),
        TrustError::Writable { .. } => Some(format!("if nobody has changed it: sudo chmod 600 {}", path.display())),
        TrustError::Kind { .. } => Some("restore it from a backup".to_owned()),
        TrustError::Io(_) => None,
    };
    let failure = Failure::new(ExitKind::Permission, format!("cannot use {}", path.display())).with_cause(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn open_to_others(path: &Path) -> Failure {
    Failure::new(ExitKind::Permission, format!("others than its owner may open {}", path.display()))
        .with_cause("it holds a secret key")
        .with_hint(format!("sudo chmod 600 {}", path.display()))
}

fn no_peers(path: &Path) -> Failure {
    Failure::new(ExitKind::Config, format!("{} is missing", path.display()))
        .with_cause("it has what is known of each peer, and what was granted to it")
        .with_hint(format!(
            "restore it from a backup; without one, ask each peer for trust again after: sudo mkdir -m 700 {}",
            path.display()
        ))
}

fn damaged(path: &Path) -> Failure {
    Failure::new(ExitKind::Config, format!("{} is damaged", path.display()))
        .with_cause("it is empty, cut off, or was changed by hand")
        .with_hint("restore it from a backup; without one, only a new identity helps: see docs/agents.md")
}

fn damaged_peer(path: &Path) -> Failure {
    Failure::new(ExitKind::Config, format!("{} is damaged", path.display()))
        .with_cause("it is empty, cut off, or was changed by hand")
        .with_hint("restore it from a backup, or move it away and ask that peer for trust again: overlay handshake")
}

fn damaged_time(path: &Path) -> Failure {
    Failure::new(ExitKind::Config, format!("{} is damaged", path.display()))
        .with_cause("it is empty, cut off, or was changed by hand")
        .with_hint("check the clock of this host and remove the file: without it, grants end by the clock alone")
}

fn cannot_read(path: &Path, error: io::Error) -> Failure {
    Failure::new(ExitKind::Other, format!("cannot read {}", path.display())).with_cause(error)
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Failure::new(ExitKind::Conflict, format!("{} exists already", path.display()))
            .with_cause("this host has an identity in this network")
            .with_hint("use it: overlay up; or choose a different folder with --state-dir");
    }
    Failure::new(ExitKind::Other, format!("cannot write {}", path.display())).with_cause(error)
}

#[cfg(test)]
mod tests;
