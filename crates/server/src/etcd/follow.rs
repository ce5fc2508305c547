//! Changes of the registry's entries, by any process.
//!
//! The follower lists everything at one revision, and watches from the next one. A watch breaks without a word: its connection
//! dies, its member is cut off from the others, or it simply says nothing more. So it is asked whether it is alive, and begun
//! anew behind the last change that it told. What was compacted away meanwhile cannot be told any more. Then everything is
//! listed again, and what differs from what was told before is told.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse};
use overlay_rendezvous::store::{Change, Revision};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::listing::{Listing, end_of};
use super::{Cluster, EtcdError, MAX_MESSAGE, Pauses, Trouble};

/// How long a watch may say nothing before it is asked, and how long the answer may take.
const SILENCE: Duration = Duration::from_secs(5);
/// Changes that wait for the registry, in groups that belong together.
const MAX_WAITING: usize = 256;

/// Follows the entries of the registry.
pub(crate) struct Follower {
    cluster: Cluster,
    /// What was told: all entries, and which operation wrote them.
    told: BTreeMap<Vec<u8>, Revision>,
    /// Up to which revision.
    at: Revision,
    changes: mpsc::Sender<Vec<Change>>,
}

/// Why a watch has ended.
enum End {
    /// The changes that come next are compacted away.
    Compacted,
    /// It is to begin anew.
    Broken(String),
    /// Nobody listens any more.
    Unwanted,
}

impl Follower {
    /// Lists everything. What changes from there on comes out of the queue.
    pub(crate) async fn begin(cluster: Cluster) -> Result<(Self, Vec<Change>, mpsc::Receiver<Vec<Change>>), EtcdError> {
        let (changes, queue) = mpsc::channel(MAX_WAITING);
        let listing = cluster.list().await?;
        let mut follower = Self { cluster, told: BTreeMap::new(), at: Revision(0), changes };
        let everything = follower.compare(listing);
        Ok((follower, everything, queue))
    }

    /// Follows until nobody listens any more.
    ///
    /// # Errors
    /// What waiting does not cure.
    pub(crate) async fn run(mut self) -> Result<(), EtcdError> {
        let mut pauses = Pauses::new(&self.cluster);
        loop {
            let before = self.at;
            match self.watch().await? {
                End::Unwanted => return Ok(()),
                End::Compacted => {
                    tracing::warn!("etcd has compacted changes away that were not told yet; everything is read again");
                    let listing = self.cluster.list().await?;
                    let differences = self.compare(listing);
                    if self.changes.send(differences).await.is_err() {
                        return Ok(());
                    }
                }
                End::Broken(why) => {
                    tracing::debug!(why, "the watch of etcd begins anew");
                    if before != self.at {
                        pauses = Pauses::new(&self.cluster);
                    }
                    pauses.pass(why).await?;
                }
            }
        }
    }

    /// Tells changes until the watch ends.
    async fn watch(&mut self) -> Result<End, EtcdError> {
        let root = self.cluster.registry();
        let from = i64::try_from(self.at.0).unwrap_or(i64::MAX).saturating_add(1);
        let options = WatchOptions::new().with_range(end_of(&root)).with_start_revision(from);
        let mut client = self.cluster.client.watch_client().max_decoding_message_size(MAX_MESSAGE);
        let mut stream = match self.cluster.attempt(client.watch(root.clone(), Some(options))).await {
            Ok(stream) => stream,
            Err(Trouble::Passing(why)) => return Ok(End::Broken(why)),
            Err(Trouble::Lasting(error)) => return Err(error),
        };
        let mut is_asked = false;
        loop {
            let message = tokio::select! {
                message = timeout(SILENCE, stream.message()) => message,
                () = self.changes.closed() => return Ok(End::Unwanted),
            };
            let response = match message {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => return Ok(End::Broken("etcd has ended the watch".to_owned())),
                Ok(Err(error)) => match Trouble::from(error) {
                    Trouble::Passing(why) => return Ok(End::Broken(why)),
                    Trouble::Lasting(error) => return Err(error),
                },
                Err(_) if is_asked => return Ok(End::Broken("the watch says nothing".to_owned())),
                Err(_) => {
                    if stream.request_progress().await.is_err() {
                        return Ok(End::Broken("the watch is closed".to_owned()));
                    }
                    is_asked = true;
                    continue;
                }
            };
            is_asked = false;
            if response.compact_revision() > 0 {
                return Ok(End::Compacted);
            }
            if response.canceled() {
                return Ok(End::Broken(response.cancel_reason().to_owned()));
            }
            let changes = self.changes_of(&response, root.len());
            if !changes.is_empty() && self.changes.send(changes).await.is_err() {
                return Ok(End::Unwanted);
            }
        }
    }

    /// The changes that an answer tells. Only they say how far we are: what etcd says of its progress may be ahead of them.
    fn changes_of(&mut self, response: &WatchResponse, root: usize) -> Vec<Change> {
        let mut changes = Vec::with_capacity(response.events().len());
        for event in response.events() {
            let Some(found) = event.kv() else { continue };
            let (key, revision) = (found.key()[root..].to_vec(), Revision(found.mod_revision().unsigned_abs()));
            let value = match event.event_type() {
                EventType::Put => {
                    self.told.insert(key.clone(), revision);
                    Some(found.value().to_vec())
                }
                EventType::Delete => {
                    self.told.remove(&key);
                    None
                }
            };
            self.at = self.at.max(revision);
            changes.push(Change { key, revision, value });
        }
        changes
    }

    /// The changes that lead from what was told to what is there now.
    fn compare(&mut self, listing: Listing) -> Vec<Change> {
        let mut former = std::mem::take(&mut self.told);
        let mut changes = Vec::new();
        for (key, entry) in listing.entries {
            if former.remove(&key) != Some(entry.revision) {
                changes.push(Change { key: key.clone(), revision: entry.revision, value: Some(entry.value) });
            }
            self.told.insert(key, entry.revision);
        }
        let gone = former.into_keys().map(|key| Change { key, revision: listing.revision, value: None });
        changes.extend(gone);
        changes.sort_by_key(|change| change.revision);
        self.at = listing.revision;
        changes
    }
}
