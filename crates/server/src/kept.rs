//! Where the registry's entries are kept, opened: what the desk needs of it, whatever kind of store it is.

#[cfg(feature = "etcd")]
mod in_cluster;

use std::io;
use std::sync::Arc;

use overlay_rendezvous::registry::{Config, Registry};
use overlay_rendezvous::store::Change;
use overlay_wire::signed::PublicKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::now;
use crate::failure::{Kind, ServeError};
use crate::handover::RELEASE_PATIENCE;
use crate::redb_store::{Submitter, Writer};
use crate::serve::Options;
use crate::state::State;
use crate::store_at::StoreAt;
use crate::store_health::Health;

/// Reads a store while somebody else writes to it.
pub(crate) trait Snapshots: Send + Sync {
    /// Calls `take` with the key and the value of every entry, as they are at one moment. It blocks.
    fn each(&self, take: &mut Take<'_>) -> io::Result<()>;
}

/// Takes the key and the value of an entry.
pub(crate) type Take<'a> = dyn FnMut(&[u8], &[u8]) -> io::Result<()> + 'a;

/// A store that is open, with the registry that it holds.
pub(crate) struct Kept {
    pub(crate) registry: Registry,
    pub(crate) submitter: Submitter,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    /// `None`: this process alone uses it.
    pub(crate) following: Option<Following>,
    pub(crate) ending: Ending,
}

/// What a store that several processes share tells, and is told.
pub(crate) struct Following {
    /// What others have written, in groups. It ends if the store fails for good.
    pub(crate) changes: mpsc::Receiver<Vec<Change>>,
    /// Shows that an agent is connected to this process, or no longer.
    pub(crate) show: Box<dyn Fn(PublicKey, bool) + Send>,
}

/// Ends a store.
pub(crate) struct Ending {
    /// Waits until everything that waits is committed. It blocks.
    join: Box<dyn FnOnce() -> Result<(), String> + Send>,
    /// Told that nobody waits for the store any longer.
    abandon: Box<dyn FnOnce() + Send>,
    beside: JoinSet<()>,
}

impl Ending {
    /// Waits until the last operation is committed, which blocks. Why the store has failed, if it has.
    pub(crate) fn join(self) -> Result<(), String> {
        let Self { join, abandon, beside } = self;
        abandon();
        drop(beside);
        join()
    }
}

/// Opens the store that the options name. `said` is what other processes may know of this one.
pub(crate) async fn open(
    (options, state): (&Options, &State),
    (config, said): (Config, String),
    health: &Arc<Health>,
) -> Result<Kept, ServeError> {
    let store = state.store_at(options.store.as_ref())?;
    let kept = match &store {
        StoreAt::File => in_file(state, config).await,
        #[cfg(feature = "etcd")]
        StoreAt::Etcd(members) => {
            in_cluster::open((state, members, &options.access), (config, said), Arc::clone(health)).await
        }
        #[cfg(not(feature = "etcd"))]
        StoreAt::Etcd(_) => {
            drop((said, health));
            let failure = ServeError::new(Kind::Config, "this build has no etcd client");
            Err(failure.with_hint(
                "install protobuf-compiler and libprotobuf-dev, then: cargo build --release --features etcd",
            ))
        }
    }?;
    state.keep_store_at(&store)?;
    Ok(kept)
}

/// Opens the store of the state folder.
async fn in_file(state: &State, config: Config) -> Result<Kept, ServeError> {
    let store = state.store_within(RELEASE_PATIENCE).await?;
    let snapshots = Arc::new(store.snapshots());
    let registry = Registry::open(config, &store, now())
        .map_err(|error| ServeError::new(Kind::Other, "the registry cannot be read").with_cause(error))?;
    let (writer, submitter) = Writer::start(store).map_err(no_thread)?;
    let join = move || writer.join().map(drop).map_err(|error| error.to_string());
    let ending = Ending { join: Box::new(join), abandon: Box::new(|| {}), beside: JoinSet::new() };
    Ok(Kept { registry, submitter, snapshots, following: None, ending })
}

fn no_thread(error: io::Error) -> ServeError {
    ServeError::new(Kind::Other, "cannot start the thread of the store").with_cause(error)
}
