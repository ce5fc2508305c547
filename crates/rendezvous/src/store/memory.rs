//! A store in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use super::{Conflict, Entry, Operation, Revision, Store};

/// A store that is lost with the value.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    entries: BTreeMap<Vec<u8>, Entry>,
    revision: Revision,
}

impl MemoryStore {
    fn apply(&mut self, operation: &Operation) -> Result<Revision, Conflict> {
        let is_met = operation.is_well_formed()
            && operation
                .writes
                .iter()
                .all(|write| write.expected.is_met_by(self.entries.get(&write.key).map(|entry| entry.revision)));
        if !is_met {
            return Err(Conflict);
        }
        self.revision.0 += 1;
        for write in &operation.writes {
            match &write.value {
                Some(value) => {
                    let entry = Entry { revision: self.revision, value: value.clone() };
                    self.entries.insert(write.key.clone(), entry);
                }
                None => drop(self.entries.remove(&write.key)),
            }
        }
        Ok(self.revision)
    }
}

impl Store for MemoryStore {
    type Error = Infallible;

    fn commit(&mut self, operations: &[Operation]) -> Result<Vec<Result<Revision, Conflict>>, Infallible> {
        Ok(operations.iter().map(|operation| self.apply(operation)).collect())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, Infallible> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, Infallible> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let found = self.entries.range::<[u8], _>((start, Bound::Unbounded));
        let found = found.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(found.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn revision(&self) -> Result<Revision, Infallible> {
        Ok(self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn the_store_in_memory_conforms() {
        conformance::check(MemoryStore::default);
    }
}
