//! Where the registry's entries are kept, opened: what the desk needs of it, whatever kind of store it is.

#[cfg(feature = "etcd")]
mod in_cluster;

use std::io;
use std::sync::Arc;

use overlay_rendezvous::registry::{Config, Registry};
use overlay_rendezvous::store::Change;
use overlay_wire::signed::{Network, PublicKey, Signed};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::clock::now;
use crate::failure::{Kind, ServeError};
use crate::handover::RELEASE_PATIENCE;
use crate::redb_store::{Submitter, Writer};
use crate::snapshots::Snapshots;
use crate::state::State;
use crate::store_at::StoreAt;
use crate::store_health::Health;

/// A store that answers. Nothing of the registry has been read.
pub(crate) struct Reached {
    at: StoreAt,
    #[cfg(feature = "etcd")]
    cluster: Option<in_cluster::Reached>,
}

/// A store that is open, with the registry that it holds.
pub(crate) struct Kept {
    pub(crate) at: StoreAt,
    pub(crate) registry: Registry,
    pub(crate) submitter: Submitter,
    pub(crate) snapshots: Arc<dyn Snapshots>,
    /// `None`: this process alone uses it.
    pub(crate) following: Option<Following>,
    /// Completes once a different process has a newer network object. `None`: no other process uses the store.
    pub(crate) outdated: Option<oneshot::Receiver<()>>,
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

/// Reaches the store that the operator names, for this network.
pub(crate) async fn reach(
    (store, access): (Option<&StoreAt>, &Access),
    network: &str,
    state: &State,
    health: &Arc<Health>,
) -> Result<Reached, ServeError> {
    let at = state.store_at(store)?;
    #[cfg(feature = "etcd")]
    {
        let cluster = match &at {
            StoreAt::File => None,
            StoreAt::Etcd(members) => {
                Some(in_cluster::Reached::connect((members, access, network), Arc::clone(health)).await?)
            }
        };
        Ok(Reached { at, cluster })
    }
    #[cfg(not(feature = "etcd"))]
    {
        let _ = (access, network, health);
        match &at {
            StoreAt::File => Ok(Reached { at }),
            StoreAt::Etcd(_) => {
                let failure = ServeError::new(Kind::Config, "this build has no etcd client");
                Err(failure.with_hint(
                    "install protobuf-compiler and libprotobuf-dev, then: cargo build --release --features etcd",
                ))
            }
        }
    }
}

impl Reached {
    /// The network object that a process has left there for the others.
    pub(crate) async fn network(&self) -> Result<Option<Signed<Network>>, ServeError> {
        #[cfg(feature = "etcd")]
        if let Some(cluster) = &self.cluster {
            return cluster.network().await;
        }
        Ok(None)
    }

    /// Opens the store. `said` is what other processes may know of this one.
    pub(crate) async fn open(self, state: &State, config: Config, said: String) -> Result<Kept, ServeError> {
        #[cfg(feature = "etcd")]
        let kept = match self.cluster {
            None => in_file(state, config).await,
            Some(cluster) => cluster.open((state, &self.at), config, said).await,
        }?;
        #[cfg(not(feature = "etcd"))]
        let kept = {
            drop(said);
            in_file(state, config).await?
        };
        state.keep_store_at(&self.at)?;
        Ok(kept)
    }
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
    Ok(Kept { registry, submitter, snapshots, at: StoreAt::File, following: None, outdated: None, ending })
}

fn no_thread(error: io::Error) -> ServeError {
    ServeError::new(Kind::Other, "cannot start the thread of the store").with_cause(error)
}
