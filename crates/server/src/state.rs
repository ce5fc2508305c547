//! The state folder of a rendezvous: its keys and the network object.
//!
//! ```text
//! STATE-DIR/rendezvous/NETWORK/     0700
//!   lock                            held while a rendezvous runs
//!   network.key, rendezvous.key     0600; the network key may be kept elsewhere after the first start
//!   relay.key                       0600; made when it relays for the first time
//!   network                         the signed network object
//!   url                             where agents find it, if the operator has said
//!   registry.redb                   who is registered, and what waits for whom, unless a cluster keeps that
//!   store                           the cluster that keeps it
//!   certificate.pem, .key           unless the operator has one
//!   operator.sock                   0600; where the operator's verbs reach the rendezvous that runs
//!   audit.log                       what the operator ordered
//! ```
//!
//! Everything is made at the first start, the network object last. From then on a file that is missing, empty or damaged is
//! refused by name: a rendezvous never takes a new identity in silence.

mod identity;
mod keys;
mod pool;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use overlay_os::folder::{Access, Folder, TrustError};
use overlay_wire::signed::{PublicKey, SecretKey, check_name};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::failure::{Kind, ServeError};
use crate::redb_store::RedbStore;
use crate::store_at::StoreAt;

pub(crate) use identity::{Identity, Wanted};
pub(crate) use pool::random_pool;

const LOCK: &str = "lock";
pub(crate) const NETWORK: &str = "network";
pub(crate) const NETWORK_KEY: &str = "network.key";
pub(crate) const RENDEZVOUS_KEY: &str = "rendezvous.key";
pub(crate) const RELAY_KEY: &str = "relay.key";
pub(crate) const URL: &str = "url";
pub(crate) const REGISTRY: &str = "registry.redb";
const STORE: &str = "store";
/// The folder of all rendezvous below the state folder.
const RENDEZVOUS: &str = "rendezvous";
/// The largest file that is read: a certificate chain.
const MAX_FILE: u64 = 64 * 1024;

/// How often a lock is tried that somebody is about to release.
const RETRY: Duration = Duration::from_millis(20);

/// An open state folder. No other rendezvous can open it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) folder: Arc<Folder>,
    _lock: Option<File>,
}

impl State {
    /// Opens the folder of a network, and makes it if it is missing.
    pub(crate) fn open(state_dir: &Path, network: &str) -> Result<Self, ServeError> {
        let Self { folder, .. } = Self::look(state_dir, network)?;
        let lock = lock(&folder, || format!("a rendezvous of the network `{network}` is running"));
        let lock = lock.map_err(|error| match error.kind {
            Kind::Conflict => error.with_hint("`--replace` takes its place, and nobody is refused meanwhile"),
            _ => error,
        })?;
        Ok(Self { folder, _lock: Some(lock) })
    }

    /// Like [`State::open`], but waits until a different rendezvous has released the folder.
    pub(crate) async fn open_within(patience: Duration, state_dir: &Path, network: &str) -> Result<Self, ServeError> {
        retry(patience, || Self::open(state_dir, network)).await
    }

    /// Opens the folder of a network without a lock, to look at what is there. A rendezvous may be running.
    pub(crate) fn look(state_dir: &Path, network: &str) -> Result<Self, ServeError> {
        Ok(Self { folder: Arc::new(private_folder(state_dir, RENDEZVOUS, network)?), _lock: None })
    }

    /// Opens the store of the registry, and makes it if it is missing.
    pub(crate) fn store(&self) -> Result<RedbStore, ServeError> {
        let path = self.folder.path_of(REGISTRY);
        // Nobody else can look into the folder. The file gets its mode before anything is in it all the same.
        self.folder.open(REGISTRY, Access::Own).map_err(|error| ServeError::of_trust("use", &path, error))?;
        RedbStore::open(&path).map_err(|error| {
            let (kind, hint) = match error.is_open_elsewhere() {
                true => (Kind::Conflict, "end the process that has it open: fuser shows which one"),
                false => (Kind::Other, "restore it from a backup"),
            };
            ServeError::new(kind, format!("{} cannot be used", self.shown(REGISTRY))).with_cause(error).with_hint(hint)
        })
    }

    /// Where the registry is to be kept: where the operator says, and else in a file. A registry that is kept elsewhere already is
    /// never left behind in silence.
    pub(crate) fn store_at(&self, wanted: Option<&StoreAt>) -> Result<StoreAt, ServeError> {
        let known = match read(&self.folder, STORE)? {
            Some(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
            None => StoreAt::File.to_string(),
        };
        let Some(wanted) = wanted else {
            if known == StoreAt::File.to_string() {
                return Ok(StoreAt::File);
            }
            let failure = ServeError::new(Kind::Config, "this rendezvous keeps its registry in a cluster");
            return Err(failure.with_cause(format!("{} names {known}", self.shown(STORE))).with_hint(format!(
                "name it again: --store {known}; `--store file` begins without the agents that are registered there"
            )));
        };
        Ok(wanted.clone())
    }

    /// Writes where the registry is kept.
    pub(crate) fn keep_store_at(&self, store: &StoreAt) -> Result<(), ServeError> {
        let path = self.folder.path_of(STORE);
        match store {
            StoreAt::File => match self.folder.remove(STORE) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(ServeError::of_file("remove", &path, &error))
                }
                _ => Ok(()),
            },
            StoreAt::Etcd(_) => self
                .folder
                .replace(OsStr::new(STORE), &temporary(STORE), format!("{store}\n").as_bytes(), 0o600)
                .map_err(|error| ServeError::of_file("write", &path, &error)),
        }
    }

    /// Like [`State::store`], but waits until a different rendezvous has closed it.
    pub(crate) async fn store_within(&self, patience: Duration) -> Result<RedbStore, ServeError> {
        retry(patience, || self.store()).await
    }

    /// Whether a file here holds a registry.
    #[cfg(feature = "etcd")]
    pub(crate) fn has_registry(&self) -> Result<bool, ServeError> {
        self.has(REGISTRY)
    }

    /// A cluster holds the registry now: nothing is to be read from the file by mistake.
    #[cfg(feature = "etcd")]
    pub(crate) fn set_registry_aside(&self) -> Result<(), ServeError> {
        let aside = format!("{REGISTRY}.before-etcd");
        match self.folder.rename(REGISTRY, &aside) {
            Ok(()) => {
                tracing::info!("{} is kept as {} and no longer used", self.shown(REGISTRY), self.shown(&aside));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ServeError::of_file("rename", &self.folder.path_of(REGISTRY), &error)),
        }
    }

    /// Whether nothing was ever made here.
    pub(crate) fn is_new(&self) -> Result<bool, ServeError> {
        // A restore makes the registry first. What is left of one that was interrupted is not a beginning.
        for name in [NETWORK, NETWORK_KEY, RENDEZVOUS_KEY, REGISTRY] {
            if self.has(name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the network's key is here.
    pub(crate) fn can_sign(&self) -> Result<bool, ServeError> {
        self.has(NETWORK_KEY)
    }

    fn has(&self, name: &str) -> Result<bool, ServeError> {
        match self.folder.open(name, Access::Read) {
            Ok(_) => Ok(true),
            Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(ServeError::of_trust("read", &self.folder.path_of(name), error)),
        }
    }

    /// The key of the rendezvous. `None`: it was not made yet.
    pub(crate) fn known_rendezvous_key(&self) -> Result<Option<PublicKey>, ServeError> {
        Ok(self.key(RENDEZVOUS_KEY)?.map(|key| key.public()))
    }

    /// The key of the rendezvous, which is made if it does not exist.
    pub(crate) fn rendezvous_key(&self) -> Result<PublicKey, ServeError> {
        match self.known_rendezvous_key()? {
            Some(known) => Ok(known),
            None => Ok(make_key(&self.folder, RENDEZVOUS_KEY)?.public()),
        }
    }

    fn key(&self, name: &str) -> Result<Option<SecretKey>, ServeError> {
        key_in(&self.folder, name, |problem| self.damaged(name, problem))
    }

    fn missing(&self, name: &str) -> ServeError {
        self.damaged(name, "it is missing, but other files of this rendezvous are there")
    }

    fn damaged(&self, name: &str, problem: &str) -> ServeError {
        let failure = ServeError::new(Kind::Other, format!("{} cannot be used", self.shown(name)));
        let folder = self.folder.path().display();
        failure.with_cause(problem).with_hint(format!(
            "restore it from a backup; `mv {folder} {folder}.old` makes a new network, which no agent knows"
        ))
    }

    fn shown(&self, name: &str) -> String {
        format!("`{}`", self.folder.path_of(name).display())
    }
}

/// Tries again while somebody else has it.
async fn retry<T>(patience: Duration, attempt: impl Fn() -> Result<T, ServeError>) -> Result<T, ServeError> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(error) if error.kind == Kind::Conflict && Instant::now() < deadline => sleep(RETRY).await,
            done => return done,
        }
    }
}

/// The folder of a network's rendezvous.
pub(crate) fn folder_of(state_dir: &Path, network: &str) -> PathBuf {
    state_dir.join(RENDEZVOUS).join(network)
}

/// Refuses a name that no network can have.
pub(crate) fn check_network(name: &str) -> Result<(), ServeError> {
    check_name(name).map_err(|reason| {
        ServeError::new(Kind::Config, format!("`{name}` is not a valid name of a network")).with_cause(reason)
    })
}

/// Keeps every other process from this folder while the file is open. `running` says that there is one.
pub(crate) fn lock(folder: &Folder, running: impl FnOnce() -> String) -> Result<File, ServeError> {
    let refused = |error| ServeError::of_trust("use the state folder", folder.path(), error);
    let lock = folder.open(LOCK, Access::Own).map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(ServeError::new(Kind::Conflict, running())
            .with_cause(format!("it holds {}", folder.path_of(LOCK).display()))),
        Err(TryLockError::Error(error)) => Err(refused(error.into())),
    }
}

/// Opens `STATE-DIR/KIND/NETWORK`, which only its owner may look into, and makes it if it is missing.
pub(crate) fn private_folder(state_dir: &Path, kind: &str, network: &str) -> Result<Folder, ServeError> {
    let above = state_dir.join(kind);
    let path = above.join(network);
    let refused = |error| ServeError::of_trust("use the state folder", &path, error);
    Folder::make_trusted(&above, &[]).map_err(refused)?;
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refused(error.into())),
        _ => {}
    }
    let folder = Folder::trusted(&path, &[]).map_err(refused)?;
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
        let failure =
            ServeError::new(Kind::Permission, format!("others than its owner may look into {}", path.display()));
        return Err(failure.with_hint(format!("chmod 700 {}", path.display())));
    }
    Ok(folder)
}

/// Reads a key of a folder. `None` if there is no such file. `damaged` makes a failure of what is wrong with it.
pub(crate) fn key_in(
    folder: &Folder,
    name: &str,
    damaged: impl FnOnce(&str) -> ServeError,
) -> Result<Option<SecretKey>, ServeError> {
    let Some(bytes) = read(folder, name)? else { return Ok(None) };
    if folder.is_open_to_others(name) {
        let path = folder.path_of(name);
        let failure = ServeError::new(Kind::Permission, format!("others than its owner may open `{}`", path.display()));
        return Err(failure.with_hint(format!("chmod 600 {}", path.display())));
    }
    keys::parse(&bytes).map(Some).map_err(damaged)
}

/// The key of a relay in this folder, which is made if it does not exist.
pub(crate) fn relay_key(folder: &Folder) -> Result<PublicKey, ServeError> {
    let path = folder.path_of(RELAY_KEY);
    let damaged = |problem: &str| {
        let failure = ServeError::new(Kind::Other, format!("`{}` cannot be used", path.display())).with_cause(problem);
        failure.with_hint(format!("restore it from a backup, or rm {}: agents need the new key then", path.display()))
    };
    match key_in(folder, RELAY_KEY, damaged)? {
        Some(key) => Ok(key.public()),
        None => Ok(make_key(folder, RELAY_KEY)?.public()),
    }
}

/// Makes a key in a folder. One that exists is not replaced.
pub(crate) fn make_key(folder: &Folder, name: &str) -> Result<SecretKey, ServeError> {
    let failed = |error| ServeError::of_file("write", &folder.path_of(name), &error);
    let mut secret = Zeroizing::new([0; 32]);
    overlay_os::random::fill(&mut *secret).map_err(failed)?;
    let key = SecretKey::from_bytes(&secret);
    let text = keys::text(&key);
    folder.write_new(OsStr::new(name), &temporary(name), text.as_bytes(), 0o600).map_err(failed)?;
    Ok(key)
}

/// Reads a file of the folder whole. `None` if it does not exist.
pub(crate) fn read(folder: &Folder, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ServeError> {
    let file = match folder.open(name, Access::Read) {
        Ok(file) => file,
        Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ServeError::of_trust("read", &folder.path_of(name), error)),
    };
    let mut content = Zeroizing::new(Vec::with_capacity(4_096));
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .map_err(|error| ServeError::of_file("read", &folder.path_of(name), &error))?;
    Ok(Some(content))
}

/// The name under which a file is written before it gets its own. The lock keeps a second writer away.
pub(crate) fn temporary(name: &str) -> OsString {
    format!(".{name}.new").into()
}
