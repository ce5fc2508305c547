//! The embedded store: one redb file, which one process opens.
//!
//! A [`RedbStore`] commits a batch with one transaction that is synced before it returns. A [`Writer`] owns the store on
//! a thread of its own and gathers what many connections want written: at most `MAX_BATCH` operations, or what arrives
//! within `GATHER` of the first. All of them are on disk before the first is told, in the order in which they came.
//!
//! Commits are made in two phases, because agents choose what is written: the checksums of a single phase are not
//! made against somebody who picks the contents. They also save the allocator's state, so a start after a crash does
//! not walk through the whole file.

mod writer;

#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use overlay_rendezvous::store::{Conflict, Entry, Operation, Revision, Store};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use crate::snapshots::{self, Take};

pub use writer::{GATHER, MAX_WAITING, NotTaken, Reply, Submitter, Writer};

/// The entries. A value is the revision in 8 bytes, big-endian, and the bytes of the entry.
const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// Numbers about the store itself, by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The revision of the last operation.
const REVISION: &str = "revision";
/// The version of the format, which [`RedbStore::open`] refuses if it does not know it.
const FORMAT: &str = "format";
/// The version of the format that this program writes. 1 had no bans, and of a token the number of its uses alone; it is read.
const FORMAT_VERSION: u64 = 2;
/// The length of a revision in front of a value.
const REVISION_LEN: usize = 8;

/// Why the store fails.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed.
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// An entry is too short to hold its revision.
    #[error("the store holds an entry without a revision")]
    Damaged,
    /// A newer program wrote the store.
    #[error("the store has format {found}; this program reads format {FORMAT_VERSION}")]
    Format {
        /// The version that was found.
        found: u64,
    },
}

impl StoreError {
    /// Whether a different process has the store open.
    pub(crate) fn is_open_elsewhere(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(**error, redb::Error::DatabaseAlreadyOpen))
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// A store in one redb file.
#[derive(Debug)]
pub struct RedbStore {
    database: Arc<Database>,
}

/// Reads the store while somebody else writes to it.
#[derive(Clone, Debug)]
pub struct Snapshots {
    database: Arc<Database>,
}

impl snapshots::Snapshots for Snapshots {
    fn each(&self, take: &mut Take<'_>) -> io::Result<()> {
        let failed = |error: StoreError| io::Error::other(error);
        let reading = self.database.begin_read().map_err(|error| failed(error.into()))?;
        let entries = reading.open_table(ENTRIES).map_err(|error| failed(error.into()))?;
        for next in entries.iter().map_err(|error| failed(error.into()))? {
            let (key, value) = next.map_err(|error| failed(error.into()))?;
            take(key.value(), &entry(value.value()).map_err(failed)?.value)?;
        }
        Ok(())
    }
}

impl RedbStore {
    /// Opens the file, and makes it if it does not exist.
    ///
    /// # Errors
    /// The file cannot be opened, a different process has it open, or a newer program wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::prepare(Database::builder().create(path)?)
    }

    /// Opens a store on a backend, which tests use to cut the power.
    #[cfg(test)]
    fn on(backend: impl redb::StorageBackend) -> Result<Self, StoreError> {
        Self::prepare(Database::builder().create_with_backend(backend)?)
    }

    /// A reader that works beside the writer.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots { database: self.database.clone() }
    }

    /// Makes the tables, so that readers always find them.
    fn prepare(database: Database) -> Result<Self, StoreError> {
        let transaction = database.begin_write()?;
        {
            transaction.open_table(ENTRIES)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            let found = numbers.get(FORMAT)?.map_or(FORMAT_VERSION, |found| found.value());
            if found > FORMAT_VERSION {
                return Err(StoreError::Format { found });
            }
            numbers.insert(FORMAT, FORMAT_VERSION)?;
        }
        transaction.commit()?;
        Ok(Self { database: Arc::new(database) })
    }
}

impl Store for RedbStore {
    type Error = StoreError;

    fn commit(&mut self, operations: &[Operation]) -> Result<Vec<Result<Revision, Conflict>>, StoreError> {
        if operations.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let outcomes = {
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            let mut revision = numbers.get(REVISION)?.map_or(0, |revision| revision.value());
            let mut outcomes = Vec::with_capacity(operations.len());
            for operation in operations {
                outcomes.push(apply(&mut entries, operation, Revision(revision + 1))?);
                revision += u64::from(outcomes.last().is_some_and(Result::is_ok));
            }
            numbers.insert(REVISION, revision)?;
            outcomes
        };
        if outcomes.iter().any(Result::is_ok) {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(outcomes)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        entries.get(key)?.map(|value| entry(value.value())).transpose()
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, StoreError> {
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        for next in entries.range::<&[u8]>((start, Bound::Unbounded))?.take(limit) {
            let (key, value) = next?;
            if !key.value().starts_with(prefix) {
                break;
            }
            found.push((key.value().to_vec(), entry(value.value())?));
        }
        Ok(found)
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        let numbers = self.database.begin_read()?.open_table(NUMBERS)?;
        Ok(Revision(numbers.get(REVISION)?.map_or(0, |revision| revision.value())))
    }
}

/// Applies one operation inside the transaction of its batch. Every condition is checked before the first write.
fn apply(
    entries: &mut Table<'_, &'static [u8], &'static [u8]>,
    operation: &Operation,
    revision: Revision,
) -> Result<Result<Revision, Conflict>, StoreError> {
    if !operation.is_well_formed() {
        return Ok(Err(Conflict));
    }
    for write in &operation.writes {
        let found = entries.get(&*write.key)?.map(|value| entry(value.value())).transpose()?;
        if !write.expected.is_met_by(found.map(|entry| entry.revision)) {
            return Ok(Err(Conflict));
        }
    }
    for write in &operation.writes {
        match &write.value {
            Some(value) => {
                let stored = [&revision.0.to_be_bytes(), &value[..]].concat();
                entries.insert(&*write.key, &*stored)?;
            }
            None => drop(entries.remove(&*write.key)?),
        }
    }
    Ok(Ok(revision))
}

fn entry(stored: &[u8]) -> Result<Entry, StoreError> {
    let (revision, value) = stored.split_first_chunk::<REVISION_LEN>().ok_or(StoreError::Damaged)?;
    Ok(Entry { revision: Revision(u64::from_be_bytes(*revision)), value: value.to_vec() })
}
