//! All entries of the registry at one revision.

use std::io;

use etcd_client::{GetOptions, KeyValue};
use overlay_rendezvous::registry::is_presence_key;
use overlay_rendezvous::store::{Entry, Revision};
use tokio::runtime::Handle;

use super::{Cluster, EtcdError, Pauses, READING, Trouble};
use crate::snapshots::{Snapshots, Take};

/// How many entries one request reads.
const PAGE: i64 = 512;

/// All entries at one revision.
pub(super) struct Listing {
    pub(super) revision: Revision,
    pub(super) entries: Vec<(Vec<u8>, Entry)>,
}

impl Cluster {
    /// Reads all entries. If the revision is compacted away meanwhile, it begins again.
    pub(super) async fn list(&self) -> Result<Listing, EtcdError> {
        let mut pauses = Pauses::new(self);
        loop {
            match self.list_once().await {
                Ok(listing) => return Ok(listing),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => pauses.pass(why).await?,
            }
        }
    }

    async fn list_once(&self) -> Result<Listing, Trouble> {
        let root = self.registry();
        let (mut start, mut revision, mut entries) = (root.clone(), 0, Vec::new());
        loop {
            let options = GetOptions::new().with_range(end_of(&root)).with_limit(PAGE).with_revision(revision);
            let page = self.attempt_within(READING, self.kv().get(start, Some(options))).await?;
            if revision == 0 {
                revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            entries.extend(page.kvs().iter().map(|found| (found.key()[root.len()..].to_vec(), entry(found))));
            match page.kvs().last() {
                Some(last) if page.more() => start = [last.key(), &[0]].concat(),
                _ => return Ok(Listing { revision: Revision(revision.unsigned_abs()), entries }),
            }
        }
    }
}

impl Snapshots for Cluster {
    fn each(&self, take: &mut Take<'_>) -> io::Result<()> {
        let listing = Handle::current().block_on(self.list()).map_err(io::Error::other)?;
        // A backup is not for the connections of the moment.
        let kept = listing.entries.iter().filter(|(key, _)| !is_presence_key(key));
        kept.into_iter().try_for_each(|(key, entry)| take(key, &entry.value))
    }
}

/// The entry that etcd has told.
pub(super) fn entry(found: &KeyValue) -> Entry {
    Entry { revision: Revision(found.mod_revision().unsigned_abs()), value: found.value().to_vec() }
}

/// The first key behind all that begin with a prefix.
pub(super) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}
