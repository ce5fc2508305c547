//! Where the registry keeps what must survive: an ordered map of bytes with revisions.
//!
//! A store takes [`Operation`]s in batches. An operation is all or nothing: it writes several entries, and each write may
//! demand that the entry has not changed since it was read. That compare-and-set is the only condition there is. Every
//! operation that succeeds gets a [`Revision`], and a batch is on disk before any of its revisions is told.
//!
//! A claim of a name, an address and an identity is one operation, so it never happens in part.
//!
//! Several processes may share a store. It tells each of them every [`Change`], in the order of revisions, and each writes
//! entries of its own that end with the process. How it does that is left to the shell.

pub mod conformance;
mod memory;

pub use memory::MemoryStore;

/// The longest key in bytes.
pub const MAX_KEY_LEN: usize = 256;
/// The longest value in bytes.
pub const MAX_VALUE_LEN: usize = 16_384;
/// The longest keys and values of one operation together.
pub const MAX_OPERATION_LEN: usize = 1024 * 1024;
/// The most writes of one operation.
pub const MAX_WRITES: usize = 120;
/// The most operations of one batch.
pub const MAX_BATCH: usize = 512;

/// The number of the operation that wrote an entry. Numbers ascend. Those that a store applies together may have the same one,
/// unless they write the same entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What a write demands of the entry as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Any,
    /// It does not exist.
    Absent,
    /// This operation wrote it last.
    At(Revision),
}

/// One write of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The entry.
    pub key: Vec<u8>,
    /// What must be true of it.
    pub expected: Expected,
    /// The value. `None` deletes the entry, which need not exist unless `expected` says so.
    pub value: Option<Vec<u8>>,
}

/// Writes that happen together or not at all. Each of them names a different entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// At most [`MAX_WRITES`].
    pub writes: Vec<Write>,
}

/// The error for an operation whose conditions were not met. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// An entry as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The operation that wrote it.
    pub revision: Revision,
    /// Its value.
    pub value: Vec<u8>,
}

/// A change of one entry, as a store that several processes share tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The entry.
    pub key: Vec<u8>,
    /// The operation that changed it.
    pub revision: Revision,
    /// What it is now. `None`: it was deleted.
    pub value: Option<Vec<u8>>,
}

/// An ordered map of bytes that survives.
pub trait Store {
    /// Why a store fails: a full disk, a broken file.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Applies at most [`MAX_BATCH`] operations, one after the other, and returns when all that succeeded are on disk. An
    /// operation sees what the ones before it in the batch wrote.
    ///
    /// # Errors
    /// Nothing is known of the batch then: it may be on disk or not.
    fn commit(&mut self, operations: &[Operation]) -> Result<Vec<Result<Revision, Conflict>>, Self::Error>;

    /// The entry with this key.
    ///
    /// # Errors
    /// The store cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Self::Error>;

    /// The entries whose keys begin with `prefix` and come after `after`, in the order of their keys, at most `limit`.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Self::Error>;

    /// The revision of the last operation that succeeded.
    ///
    /// # Errors
    /// The store cannot be read.
    fn revision(&self) -> Result<Revision, Self::Error>;
}

impl Operation {
    /// Adds a write.
    pub fn push(&mut self, key: Vec<u8>, expected: Expected, value: Option<Vec<u8>>) {
        self.writes.push(Write { key, expected, value });
    }

    /// Whether every store takes it: not too many writes, neither one nor all of them too long, and no entry written twice.
    pub fn is_well_formed(&self) -> bool {
        let fits = |write: &Write| {
            (1..=MAX_KEY_LEN).contains(&write.key.len())
                && write.value.as_ref().is_none_or(|value| value.len() <= MAX_VALUE_LEN)
        };
        let mut keys: Vec<_> = self.writes.iter().map(|write| &write.key).collect();
        keys.sort_unstable();
        let len = |write: &Write| write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        self.writes.len() <= MAX_WRITES
            && self.writes.iter().map(len).sum::<usize>() <= MAX_OPERATION_LEN
            && self.writes.iter().all(fits)
            && keys.windows(2).all(|pair| pair[0] != pair[1])
    }
}

impl Expected {
    /// Whether an entry with this revision, or its absence, is what the write demands.
    pub fn is_met_by(self, revision: Option<Revision>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => revision.is_none(),
            Self::At(expected) => revision == Some(expected),
        }
    }
}
