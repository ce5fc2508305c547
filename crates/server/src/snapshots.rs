//! Reading a whole store, for a backup.

use std::io;

/// Reads a store while somebody else writes to it.
pub(crate) trait Snapshots: Send + Sync {
    /// Calls `take` with the key and the value of every entry, as they are at one moment. It blocks.
    fn each(&self, take: &mut Take<'_>) -> io::Result<()>;
}

/// Takes the key and the value of an entry.
pub(crate) type Take<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<()> + 'a;
