//! The note that this state is older than what the agent has said since.
//!
//! It is written when the rendezvous shows a newer record of ours, before our next record hides that one. What it says does
//! not matter: a damaged note is a note.

use super::*;

const RESTORED: &str = "restored";

impl State {
    /// Whether this state was found to be an old one, and nothing has ended that.
    pub(crate) fn is_restored(&self) -> bool {
        self.has(RESTORED)
    }

    pub(crate) fn set_restored(&self) -> Result<(), Failure> {
        self.replace(RESTORED, b"what this state has granted is held: see `overlay agents`\n")
    }

    pub(crate) fn forget_restored(&self) -> Result<(), Failure> {
        let path = self.folder.path_of(RESTORED);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(&path, error)),
            _ => Ok(()),
        }
    }
}
