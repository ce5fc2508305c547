//! The beginning of a state folder: new keys, in an order that leaves either a complete state or none.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;

use overlay_wire::signed::JoinToken;

use super::*;

/// The state folder, and those above it that may be new, too: with the default, `/var/lib/overlay` and `/var/lib`.
const NEW_FOLDERS: usize = 3;

/// What a new state begins with, besides random keys.
#[derive(Debug, Default)]
pub(crate) struct Beginning<'a> {
    /// The identity. `None`: a new one.
    pub(crate) identity: Option<SecretKey>,
    /// The join token that is bound to the identity.
    pub(crate) token: Option<&'a JoinToken>,
}

impl State {
    /// Makes the state of a network with new keys. An existing identity is never replaced.
    pub(crate) fn create(state_dir: &Path, network: &str, beginning: Beginning<'_>) -> Result<Self, Failure> {
        let path = state_dir.join(network);
        // Daemons of different users may have their folders side by side, so others may pass through.
        for (folder, mode) in [(state_dir, 0o711), (&path, 0o700), (&path.join(PEERS), 0o700)] {
            DirBuilder::new().recursive(true).mode(mode).create(folder).map_err(|error| cannot_write(folder, error))?;
        }
        // The names of the new folders, too, must survive a power loss.
        for folder in path.ancestors().take(NEW_FOLDERS).filter(|folder| !folder.as_os_str().is_empty()) {
            match File::open(folder).and_then(|folder| folder.sync_all()) {
                // One that we may not read is not one that we have made.
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    return Err(cannot_write(folder, error));
                }
                _ => {}
            }
        }
        let state = Self { folder: trusted(&path)?, peers: trusted(&path.join(PEERS))?, lock: None };
        if state.has(IDENTITY) {
            return Err(cannot_write(&state.folder.path_of(IDENTITY), io::ErrorKind::AlreadyExists.into()));
        }
        if state.was_in_use()? {
            return Err(state.damaged(IDENTITY));
        }
        let identity = match beginning.identity {
            Some(identity) => identity,
            None => SecretKey::from_bytes(&*random::<32>()?),
        };
        // The identity comes last: with it, the state is complete. Without it, the other files are what an interrupted
        // attempt has left.
        state.upgrade()?;
        state.replace(MAILBOX, &in_line(&in_base64(&random::<SECRET_LEN>()?[..])))?;
        state.replace(TUNNEL, &in_line(&PrivateKey::generate().to_base64()))?;
        match beginning.token {
            Some(token) => state.join(token, &identity.public())?,
            None => state.forget_attestation()?,
        }
        state.write_new(IDENTITY, &in_base64(&identity.to_bytes()[..]))?;
        Ok(state)
    }

    /// Whether an identity was registered or met anybody, so that others may know it.
    fn was_in_use(&self) -> Result<bool, Failure> {
        let path = self.peers.path();
        let has_peers = fs::read_dir(path).map_err(|error| cannot_read(path, error))?.next().is_some();
        Ok(has_peers || self.has(NETWORK) || self.has(RECORD))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.folder.path_of(name).symlink_metadata().is_ok()
    }

    fn write_new(&self, name: &str, text: &str) -> Result<(), Failure> {
        self.folder
            .write_new(OsStr::new(name), OsStr::new(TEMPORARY), &in_line(text), 0o600)
            .map_err(|error| cannot_write(&self.folder.path_of(name), error))
    }
}

/// Random bytes for a key.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let mut bytes = Zeroizing::new([0; N]);
    overlay_os::random::fill(&mut bytes[..])
        .map_err(|error| Failure::new(ExitKind::Other, "cannot get randomness from the kernel").with_cause(error))?;
    Ok(bytes)
}
