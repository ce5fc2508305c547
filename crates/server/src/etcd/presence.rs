//! Entries that say which agents are connected to this process. They end with it.
//!
//! All of them hang on one lease, which is renewed while the process runs. If the cluster was out of reach for longer, they are
//! gone. Then they are written again, but for agents that a different process has shown meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use overlay_rendezvous::registry::presence_key;
use overlay_wire::signed::PublicKey;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Cluster, EtcdError, Pauses, Trouble};

/// How long the entries outlive the process. Agents of one that was killed are connected to a different one by then.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// How often the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(8);
/// How long changes are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(100);
/// The most entries of one request.
const AT_ONCE: usize = 100;

/// What is to be shown. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Presences(Arc<Shown>);

#[derive(Default)]
struct Shown {
    agents: Mutex<Agents>,
    changed: Notify,
}

#[derive(Default)]
struct Agents {
    present: BTreeSet<PublicKey>,
    /// Those whose entry is to be written or deleted.
    changed: BTreeSet<PublicKey>,
}

impl Presences {
    /// An agent is connected to this process, or no longer.
    pub(crate) fn show(&self, agent: PublicKey, is_present: bool) {
        let mut agents = self.agents();
        if is_present {
            agents.present.insert(agent);
        } else {
            agents.present.remove(&agent);
        }
        agents.changed.insert(agent);
        drop(agents);
        self.0.changed.notify_one();
    }

    fn agents(&self) -> MutexGuard<'_, Agents> {
        self.0.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some agents whose entry is to be changed, each with whether it is present.
    fn take(&self) -> Vec<(PublicKey, bool)> {
        let mut agents = self.agents();
        let taken: Vec<_> = agents.changed.iter().take(AT_ONCE).copied().collect();
        for agent in &taken {
            agents.changed.remove(agent);
        }
        taken.into_iter().map(|agent| (agent, agents.present.contains(&agent))).collect()
    }

    /// What was taken has not been written. What has changed since is in the queue already.
    fn put_back(&self, taken: &[(PublicKey, bool)]) {
        self.agents().changed.extend(taken.iter().map(|(agent, _)| *agent));
    }
}

/// Writes the entries, and keeps the lease.
pub(crate) struct Keeper {
    cluster: Cluster,
    process: u64,
    /// What others may know of the process.
    said: String,
    presences: Presences,
    lease: i64,
    renewal: Instant,
}

impl Keeper {
    /// Gets a lease, and shows the process.
    pub(crate) async fn begin(
        cluster: Cluster,
        process: u64,
        said: String,
        presences: Presences,
    ) -> Result<Self, EtcdError> {
        let mut keeper = Self { cluster, process, said, presences, lease: 0, renewal: Instant::now() };
        keeper.lease = keeper.granted().await?;
        Ok(keeper)
    }

    #[cfg(test)]
    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    /// Keeps them to the end of the process.
    ///
    /// # Errors
    /// What waiting does not cure.
    pub(crate) async fn run(mut self) -> Result<(), EtcdError> {
        let mut pauses = Pauses::new(&self.cluster);
        loop {
            let done = tokio::select! {
                () = sleep_until(self.renewal) => self.renew().await,
                () = self.presences.0.changed.notified() => {
                    sleep(GATHER).await;
                    self.write().await
                }
            };
            match done {
                Ok(()) => pauses = Pauses::new(&self.cluster),
                Err(Trouble::Passing(why)) => {
                    pauses.pass(why).await?;
                    self.presences.0.changed.notify_one();
                }
                Err(Trouble::Lasting(error)) => return Err(error),
            }
        }
    }

    /// Gets a new lease, and shows the process under it.
    async fn granted(&mut self) -> Result<i64, EtcdError> {
        let cluster = &self.cluster;
        let granted = cluster
            .insist(|| {
                let mut leases = cluster.client.lease_client();
                async move { leases.grant(LEASE.as_secs().cast_signed(), None).await }
            })
            .await?;
        let (lease, key) = (granted.id(), cluster.key(&format!("process/{:016x}", self.process)));
        cluster
            .insist(|| {
                let (mut kv, key, said) = (cluster.kv(), key.clone(), self.said.clone());
                async move { kv.put(key, said, Some(PutOptions::new().with_lease(lease))).await }
            })
            .await?;
        self.renewal = Instant::now() + RENEWAL;
        Ok(lease)
    }

    /// Renews the lease with a stream of its own, because one that is kept open may have died unseen.
    async fn renew(&mut self) -> Result<(), Trouble> {
        let lease = self.lease;
        let mut leases = self.cluster.client.lease_client();
        let is_over = match self.cluster.attempt(leases.keep_alive(lease)).await {
            Ok(_) => false,
            Err(trouble) if trouble.is_lease_over() => true,
            Err(trouble) => return Err(trouble),
        };
        self.renewal = Instant::now() + RENEWAL;
        if is_over { self.show_again().await.map_err(Trouble::Lasting) } else { Ok(()) }
    }

    /// The lease has ended: writes everything again under a new one, but for agents that somebody else shows.
    async fn show_again(&mut self) -> Result<(), EtcdError> {
        tracing::warn!("etcd has not heard of this process for {} s; who is connected is shown again", LEASE.as_secs());
        self.lease = self.granted().await?;
        let present: Vec<_> = self.presences.agents().present.iter().copied().collect();
        for agents in present.chunks(AT_ONCE) {
            self.cluster
                .insist(|| {
                    let unless_shown = agents.iter().map(|agent| {
                        let key = self.key(agent);
                        let is_free = Compare::create_revision(&*key, CompareOp::Equal, 0);
                        TxnOp::txn(Txn::new().when([is_free]).and_then([self.put(agent)]))
                    });
                    let (mut kv, all) = (self.cluster.kv(), Txn::new().and_then(unless_shown.collect::<Vec<_>>()));
                    async move { kv.txn(all).await }
                })
                .await?;
        }
        Ok(())
    }

    /// Writes what has changed.
    async fn write(&mut self) -> Result<(), Trouble> {
        loop {
            let taken = self.presences.take();
            if taken.is_empty() {
                return Ok(());
            }
            let changes = taken.iter().map(|(agent, is_present)| match is_present {
                true => self.put(agent),
                // A different process may have shown the agent meanwhile.
                false => {
                    let key = self.key(agent);
                    let is_ours = Compare::value(&*key, CompareOp::Equal, self.process.to_be_bytes());
                    TxnOp::txn(Txn::new().when([is_ours]).and_then([TxnOp::delete(&*key, None)]))
                }
            });
            let all = Txn::new().and_then(changes.collect::<Vec<_>>());
            match self.cluster.attempt(self.cluster.kv().txn(all)).await {
                Ok(_) => {}
                Err(trouble) if trouble.is_lease_over() => {
                    self.presences.put_back(&taken);
                    self.show_again().await.map_err(Trouble::Lasting)?;
                }
                Err(trouble) => {
                    self.presences.put_back(&taken);
                    return Err(trouble);
                }
            }
        }
    }

    fn put(&self, agent: &PublicKey) -> TxnOp {
        let lease = PutOptions::new().with_lease(self.lease);
        TxnOp::put(self.key(agent), self.process.to_be_bytes(), Some(lease))
    }

    fn key(&self, agent: &PublicKey) -> Vec<u8> {
        [self.cluster.registry(), presence_key(agent)].concat()
    }
}
