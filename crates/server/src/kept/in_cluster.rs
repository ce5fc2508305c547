//! The registry in a cluster, opened. What this host has kept in a file before goes into a cluster that has none of the network.

use std::sync::Arc;

use overlay_rendezvous::registry::{Config, Registry};
use overlay_rendezvous::store::{Expected, Operation, Store as _};
use overlay_wire::signed::{Network, Signed};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};

use super::{Ending, Following, Kept, no_thread};
use crate::access::Access;
use crate::clock::now;
use crate::etcd::{Cluster, EtcdError, EtcdStore, Follower, Keeper, Presences};
use crate::failure::{Kind, ServeError};
use crate::handover::RELEASE_PATIENCE;
use crate::redb_store::Writer;
use crate::snapshots::Snapshots as _;
use crate::state::State;
use crate::store_at::{Members, StoreAt};
use crate::store_health::Health;

/// How many entries go into the cluster with one operation.
const AT_ONCE: usize = 32;

/// A cluster that answers.
pub(super) struct Reached {
    cluster: Cluster,
    abandon: watch::Sender<bool>,
}

impl Reached {
    pub(super) async fn connect(
        (members, access, network): (&Members, &Access, &str),
        health: Arc<Health>,
    ) -> Result<Self, ServeError> {
        let (abandon, ending) = watch::channel(false);
        let cluster = Cluster::connect(members, access, network, (health, ending)).await?;
        Ok(Self { cluster, abandon })
    }

    /// The network object that a process has left there.
    pub(super) async fn network(&self) -> Result<Option<Signed<Network>>, ServeError> {
        Ok(self.cluster.network().await?)
    }

    /// Opens the registry. `said` is what other processes may know of this one.
    pub(super) async fn open(
        self,
        (state, at): (&State, &StoreAt),
        config: Config,
        said: String,
    ) -> Result<Kept, ServeError> {
        let Self { cluster, abandon } = self;
        let network = config.network.clone();
        let process = number()?;
        let mut store = EtcdStore::new(cluster.clone(), process, Handle::current());
        if state.has_registry()? && !cluster.has_registry().await? {
            store = fill(state, store).await?;
        }
        cluster.claim(&network.network, &config.key.public()).await?;
        cluster.publish(&network).await?;
        // From now on the cluster's counts.
        state.set_registry_aside()?;
        let mut registry = Registry::new(config);
        registry.share(process);
        let (follower, everything, changes) = Follower::begin(cluster.clone()).await?;
        for change in everything {
            registry.follow(change, now());
        }
        let presences = Presences::default();
        let keeper = Keeper::begin(cluster.clone(), process, said, presences.clone()).await?;
        let mut beside = JoinSet::new();
        beside.spawn(async { tell(follower.run().await) });
        beside.spawn(async { tell(keeper.run().await) });
        let (tell_outdated, outdated) = oneshot::channel();
        let watched = cluster.clone();
        beside.spawn(async move {
            match watched.newer_network(&network).await {
                Ok(()) => _ = tell_outdated.send(()),
                Err(error) => tell(Err(error)),
            }
        });
        let (writer, submitter) = Writer::start(store).map_err(no_thread)?;
        Ok(Kept {
            at: at.clone(),
            registry,
            submitter,
            snapshots: Arc::new(cluster),
            following: Some(Following {
                changes,
                show: Box::new(move |agent, is_present| presences.show(agent, is_present)),
            }),
            outdated: Some(outdated),
            ending: Ending {
                join: Box::new(move || writer.join().map(drop).map_err(|error| error.to_string())),
                abandon: Box::new(move || _ = abandon.send(true)),
                beside,
            },
        })
    }
}

/// A number that names this process among those that share the cluster.
fn number() -> Result<u64, ServeError> {
    let mut bytes = [0; 8];
    overlay_os::random::fill(&mut bytes)
        .map_err(|error| ServeError::new(Kind::Other, "the kernel gives no randomness").with_cause(error))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Writes the entries of this host's file into the cluster. If it is interrupted, the next start does it again.
async fn fill(state: &State, mut store: EtcdStore) -> Result<EtcdStore, ServeError> {
    let file = state.store_within(RELEASE_PATIENCE).await?;
    let filled = spawn_blocking(move || {
        let (mut operations, mut count) = (vec![Operation::default()], 0);
        file.snapshots().each(&mut |key, value| {
            if operations.last().is_none_or(|last| last.writes.len() == AT_ONCE) {
                operations.push(Operation::default());
            }
            if let Some(last) = operations.last_mut() {
                last.push(key.to_vec(), Expected::Any, Some(value.to_vec()));
            }
            count += 1;
            Ok(())
        })?;
        store.commit(&operations).map_err(std::io::Error::other)?;
        tracing::info!(count, "the registry was moved from its file into the etcd cluster");
        Ok::<_, std::io::Error>(store)
    });
    let failed = |cause: String| {
        ServeError::new(Kind::Other, "the registry cannot be moved into the etcd cluster").with_cause(cause)
    };
    filled.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn tell(ended: Result<(), EtcdError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the etcd cluster cannot be used any longer");
    }
}
