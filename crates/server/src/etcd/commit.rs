//! Operations of the registry as transactions, each applied exactly once.
//!
//! Operations that share no entry go into one transaction, up to etcd's bound. If a condition of one is not met, etcd applies
//! nothing and says how the entries are. Then the operations with such a condition are conflicts, and the others go on in a
//! new transaction.
//!
//! A request without an answer may have been carried out. So each transaction of a process also writes an entry of that process,
//! its marker, on the condition that the marker is as the one before has left it. Made again, it either finds the marker so, and
//! nothing has happened, or it finds its own number there, and all has. A conflict that is found while an earlier request is in
//! doubt is told only after the marker was moved: that request can do nothing any more.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use overlay_rendezvous::store::{Conflict, Entry, Expected, MAX_OPERATION_LEN, Operation, Revision, Store, Write};
use tokio::runtime::Handle;

use super::listing::{end_of, entry};
use super::{Cluster, EtcdError, Pauses, Trouble};

/// The most writes of one transaction beside the marker. etcd takes 128 unless it is told otherwise.
const MAX_TOGETHER: usize = 127;
/// The most bytes of one transaction. etcd takes 1.5 MiB unless it is told otherwise.
const MAX_BYTES: usize = MAX_OPERATION_LEN;

/// The store. It belongs to one thread, which is not one of the runtime's.
pub(crate) struct EtcdStore {
    cluster: Cluster,
    runtime: Handle,
    marker: Vec<u8>,
    /// The revision of the marker. 0: it does not exist.
    moved: i64,
    /// The number of the last transaction.
    number: u64,
}

/// What came of a transaction.
enum Outcome {
    Applied(Revision),
    /// A condition was not met. The revisions of all entries with a condition, at one moment. Those that are missing do not exist.
    Refused(BTreeMap<Vec<u8>, Revision>),
}

/// What a transaction found that was not applied.
struct Found {
    entries: BTreeMap<Vec<u8>, Revision>,
    /// The number of the transaction that has moved the marker meanwhile, and its revision.
    other: Option<(u64, i64)>,
}

impl EtcdStore {
    /// A store in which `process` writes.
    pub(crate) fn new(cluster: Cluster, process: u64, runtime: Handle) -> Self {
        let marker = cluster.key(&format!("writer/{process:016x}"));
        Self { cluster, runtime, marker, moved: 0, number: 0 }
    }

    async fn commit_all(&mut self, operations: &[Operation]) -> Result<Vec<Result<Revision, Conflict>>, EtcdError> {
        let mut outcomes = vec![Err(Conflict); operations.len()];
        for together in groups(operations) {
            let mut open = together;
            while !open.is_empty() {
                let writes: Vec<_> = open.iter().flat_map(|at| &operations[*at].writes).collect();
                match self.transact(&writes).await? {
                    Outcome::Applied(revision) => {
                        open.drain(..).for_each(|at| outcomes[at] = Ok(revision));
                    }
                    Outcome::Refused(found) => {
                        let is_met = |write: &Write| write.expected.is_met_by(found.get(&write.key).copied());
                        let before = open.len();
                        open.retain(|at| operations[*at].writes.iter().all(is_met));
                        if open.len() == before {
                            return Err(EtcdError::Foreign);
                        }
                    }
                }
            }
        }
        Ok(outcomes)
    }

    /// Makes a transaction until its outcome is known.
    async fn transact(&mut self, writes: &[&Write]) -> Result<Outcome, EtcdError> {
        self.number += 1;
        let number = self.number;
        let (mut pauses, mut is_in_doubt) = (Pauses::new(&self.cluster), false);
        loop {
            let transaction = self.transaction(writes, number);
            let response = match self.cluster.attempt(self.cluster.kv().txn(transaction)).await {
                Ok(response) => response,
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => {
                    is_in_doubt = true;
                    pauses.pass(why).await?;
                    continue;
                }
            };
            if response.succeeded() {
                return Ok(Outcome::Applied(self.moves(revision_of(&response))));
            }
            let found = self.found(&response)?;
            match found.other {
                Some((other, at)) if other == number => return Ok(Outcome::Applied(self.moves(at))),
                Some(_) => return Err(EtcdError::Foreign),
                None => {}
            }
            if is_in_doubt && let Some(applied) = self.fence(number).await? {
                return Ok(Outcome::Applied(applied));
            }
            return Ok(Outcome::Refused(found.entries));
        }
    }

    /// Moves the marker, so that no request of transaction `doubtful` is carried out any more. Returns its revision if one was.
    async fn fence(&mut self, doubtful: u64) -> Result<Option<Revision>, EtcdError> {
        self.number += 1;
        let number = self.number;
        let mut pauses = Pauses::new(&self.cluster);
        loop {
            let transaction = self.transaction(&[], number);
            let response = match self.cluster.attempt(self.cluster.kv().txn(transaction)).await {
                Ok(response) => response,
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => {
                    pauses.pass(why).await?;
                    continue;
                }
            };
            if response.succeeded() {
                self.moves(revision_of(&response));
                return Ok(None);
            }
            return match self.found(&response)?.other {
                Some((other, at)) if other == number => {
                    self.moves(at);
                    Ok(None)
                }
                Some((other, at)) if other == doubtful => Ok(Some(self.moves(at))),
                _ => Err(EtcdError::Foreign),
            };
        }
    }

    fn moves(&mut self, revision: i64) -> Revision {
        self.moved = revision;
        Revision(revision.unsigned_abs())
    }

    fn transaction(&self, writes: &[&Write], number: u64) -> Txn {
        let root = self.cluster.registry();
        let key = |write: &Write| [&*root, &*write.key].concat();
        let mut conditions = vec![Compare::mod_revision(&*self.marker, CompareOp::Equal, self.moved)];
        let mut looks = vec![TxnOp::get(&*self.marker, None)];
        let mut puts = vec![TxnOp::put(&*self.marker, number.to_be_bytes(), None::<PutOptions>)];
        for write in writes {
            if let Some(revision) = match write.expected {
                Expected::Any => None,
                Expected::Absent => Some(0),
                // Nothing has a revision that is not one of etcd's.
                Expected::At(Revision(revision)) => Some(i64::try_from(revision).unwrap_or(i64::MAX).max(1)),
            } {
                conditions.push(Compare::mod_revision(key(write), CompareOp::Equal, revision));
                looks.push(TxnOp::get(key(write), Some(GetOptions::new().with_keys_only())));
            }
            puts.push(match &write.value {
                Some(value) => TxnOp::put(key(write), &**value, None),
                None => TxnOp::delete(key(write), None),
            });
        }
        Txn::new().when(conditions).and_then(puts).or_else(looks)
    }

    /// What a transaction says that was not applied.
    fn found(&self, response: &TxnResponse) -> Result<Found, EtcdError> {
        let root = self.cluster.registry();
        let (mut entries, mut marker) = (BTreeMap::new(), None);
        for looked in response.op_responses() {
            let TxnOpResponse::Get(looked) = looked else { continue };
            for found in looked.kvs() {
                if found.key() == self.marker {
                    marker = Some((found.value().try_into().map(u64::from_be_bytes), found.mod_revision()));
                } else if let Some(key) = found.key().strip_prefix(&*root) {
                    entries.insert(key.to_vec(), Revision(found.mod_revision().unsigned_abs()));
                }
            }
        }
        let other = match marker {
            Some((_, at)) if at == self.moved => None,
            Some((Ok(number), at)) => Some((number, at)),
            Some((Err(_), _)) => return Err(EtcdError::Foreign),
            None if self.moved == 0 => None,
            None => return Err(EtcdError::Lost),
        };
        Ok(Found { entries, other })
    }
}

/// Operations that may be applied together: no entry twice, and not more than etcd takes. Each is named by its place, and what is
/// malformed by none.
fn groups(operations: &[Operation]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
    let (mut keys, mut bytes) = (BTreeSet::new(), 0);
    for (at, operation) in operations.iter().enumerate().filter(|(_, operation)| operation.is_well_formed()) {
        let size = |write: &Write| write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        let more = operation.writes.iter().map(size).sum::<usize>();
        let fits = keys.len() + operation.writes.len() <= MAX_TOGETHER
            && bytes + more <= MAX_BYTES
            && operation.writes.iter().all(|write| !keys.contains(&write.key));
        if !fits {
            groups.push(Vec::new());
            keys.clear();
            bytes = 0;
        }
        keys.extend(operation.writes.iter().map(|write| &write.key));
        bytes += more;
        if let Some(group) = groups.last_mut() {
            group.push(at);
        }
    }
    groups
}

/// The revision of a transaction that was applied.
fn revision_of(response: &TxnResponse) -> i64 {
    response.header().map_or(0, etcd_client::ResponseHeader::revision)
}

impl Store for EtcdStore {
    type Error = EtcdError;

    fn commit(&mut self, operations: &[Operation]) -> Result<Vec<Result<Revision, Conflict>>, EtcdError> {
        self.runtime.clone().block_on(self.commit_all(operations))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Entry>, EtcdError> {
        let key = [&*self.cluster.registry(), key].concat();
        let answer = self.runtime.block_on(self.cluster.insist(|| {
            let (mut kv, key) = (self.cluster.kv(), key.clone());
            async move { kv.get(key, None).await }
        }))?;
        Ok(answer.kvs().first().map(entry))
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, EtcdError> {
        let root = self.cluster.registry();
        let whole = [&*root, prefix].concat();
        let start = match after {
            Some(after) if after >= prefix => [&*root, after, &[0]].concat(),
            _ => whole.clone(),
        };
        let end = end_of(&whole);
        if limit == 0 || start >= end {
            return Ok(Vec::new());
        }
        let answer = self.runtime.block_on(self.cluster.insist(|| {
            let options = GetOptions::new().with_range(&*end).with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
            let (mut kv, start) = (self.cluster.kv(), start.clone());
            async move { kv.get(start, Some(options)).await }
        }))?;
        let named = answer.kvs().iter().map(|found| (found.key()[root.len()..].to_vec(), entry(found)));
        Ok(named.collect())
    }

    fn revision(&self) -> Result<Revision, EtcdError> {
        let key = self.cluster.key("identity");
        let answer = self.runtime.block_on(self.cluster.insist(|| {
            let (mut kv, key) = (self.cluster.kv(), key.clone());
            async move { kv.get(key, Some(GetOptions::new().with_keys_only())).await }
        }))?;
        Ok(Revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision).unsigned_abs()))
    }
}
