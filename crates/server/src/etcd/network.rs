//! The network object that all processes serve: the newest that one of them has been given or has signed. The key that signed it
//! is the network's, so a cluster can withhold a newer one, and change nothing.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use overlay_wire::signed::{Network, Signed};
use tokio::time::sleep;

use super::{Cluster, EtcdError, Pauses, Trouble};

/// How often a process looks for a newer one.
const LOOK: Duration = Duration::from_secs(5);

impl Cluster {
    /// The object in the cluster.
    pub(crate) async fn network(&self) -> Result<Option<Signed<Network>>, EtcdError> {
        Ok(self.network_entry().await?.0)
    }

    /// Leaves an object for the other processes, unless the cluster's is as new.
    pub(crate) async fn publish(&self, object: &Signed<Network>) -> Result<(), EtcdError> {
        let key = self.key("network");
        let mut pauses = Pauses::new(self);
        loop {
            let (known, revision) = self.network_entry().await?;
            if known.is_some_and(|known| known.network == object.network && known.sequence >= object.sequence) {
                return Ok(());
            }
            let put = Txn::new()
                .when([Compare::mod_revision(&*key, CompareOp::Equal, revision)])
                .and_then([TxnOp::put(&*key, object.bytes(), None)]);
            match self.attempt(self.kv().txn(put)).await {
                Ok(response) if response.succeeded() => return Ok(()),
                // A different process was faster.
                Ok(_) => {}
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => pauses.pass(why).await?,
            }
        }
    }

    /// Waits until the cluster has a newer object than this one.
    pub(crate) async fn newer_network(&self, known: &Network) -> Result<(), EtcdError> {
        loop {
            sleep(LOOK).await;
            let newest = self.network().await?;
            if newest.is_some_and(|newest| newest.network == known.network && newest.sequence > known.sequence) {
                return Ok(());
            }
        }
    }

    /// The object, and the revision of its entry, which is 0 if it has none.
    async fn network_entry(&self) -> Result<(Option<Signed<Network>>, i64), EtcdError> {
        let key = self.key("network");
        let answer = self
            .insist(|| {
                let (mut kv, key) = (self.kv(), key.clone());
                async move { kv.get(key, None).await }
            })
            .await?;
        let Some(entry) = answer.kvs().first() else { return Ok((None, 0)) };
        let object = Signed::open(entry.value());
        if let Err(refused) = &object {
            tracing::warn!(%refused, "the network object in the etcd cluster cannot be used");
        }
        Ok((object.ok(), entry.mod_revision()))
    }
}
