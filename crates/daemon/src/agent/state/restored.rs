//! The note that this state is older than what the agent has said since, and what shows that it is.
//!
//! It is written when the rendezvous shows a newer record of ours, before our next record hides that one. What it says does
//! not matter: a damaged note is a note.

use std::collections::BTreeMap;

use super::*;

const RESTORED: &str = "restored";
const REGISTERED: &str = "registered";

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

    /// The sequence of the last record that each rendezvous was given. Empty if that was never noted, or cannot be read.
    pub(crate) fn registered(&self) -> BTreeMap<PublicKey, u64> {
        let bytes = read(&self.folder, OsStr::new(REGISTERED)).ok().flatten().unwrap_or_default();
        let line = |line: &str| {
            let (key, sequence) = line.split_once(' ')?;
            Some((key.parse().ok()?, sequence.parse().ok()?))
        };
        std::str::from_utf8(&bytes).unwrap_or_default().lines().filter_map(line).collect()
    }

    pub(crate) fn set_registered(&self, registered: &BTreeMap<PublicKey, u64>) -> Result<(), Failure> {
        let lines: String = registered.iter().map(|(key, sequence)| format!("{key} {sequence}\n")).collect();
        self.replace(REGISTERED, lines.as_bytes())
    }
}
