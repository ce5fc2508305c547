//! Whose registry a cluster holds. Two rendezvous of different keys would give the same names to different agents, so the second
//! is refused.

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};
use overlay_wire::signed::PublicKey;

use super::{Cluster, EtcdError, Pauses, Trouble};
use crate::failure::{Kind, ServeError};

impl Cluster {
    /// Whether the cluster has a registry of this network's name.
    pub(crate) async fn has_registry(&self) -> Result<bool, EtcdError> {
        let key = self.key("identity");
        let answer = self
            .insist(|| {
                let (mut kv, key) = (self.kv(), key.clone());
                async move { kv.get(key, None).await }
            })
            .await?;
        Ok(!answer.kvs().is_empty())
    }

    /// Writes whose registry it is, or compares it with what is written.
    pub(crate) async fn claim(&self, network: &PublicKey, rendezvous: &PublicKey) -> Result<(), ServeError> {
        let wanted = format!("{network} {rendezvous}");
        let found = self.identity(&wanted).await.map_err(ServeError::from)?;
        if found == wanted {
            return Ok(());
        }
        let failure = ServeError::new(Kind::Conflict, "the etcd cluster holds the registry of a different rendezvous");
        let (their_network, their_rendezvous) = found.split_once(' ').unwrap_or((&found, ""));
        Err(match their_network == network.to_string() {
            true => failure
                .with_cause(format!("it has the key {their_rendezvous}, and this one {rendezvous}"))
                .with_hint("processes that share a cluster are one rendezvous: `rendezvous backup` there, `restore --shared` here"),
            false => failure
                .with_cause(format!("it is of the network {their_network}, and this one is {network}"))
                .with_hint("give the networks different names, or each a cluster of its own"),
        })
    }

    /// What is written, once something is.
    async fn identity(&self, wanted: &str) -> Result<String, EtcdError> {
        let key = self.key("identity");
        let mut pauses = Pauses::new(self);
        loop {
            let claim = Txn::new()
                .when([Compare::create_revision(&*key, CompareOp::Equal, 0)])
                .and_then([TxnOp::put(&*key, wanted, None)])
                .or_else([TxnOp::get(&*key, None)]);
            match self.attempt(self.kv().txn(claim)).await {
                Ok(response) if response.succeeded() => return Ok(wanted.to_owned()),
                Ok(response) => {
                    let found = response.op_responses().into_iter().find_map(|looked| match looked {
                        TxnOpResponse::Get(looked) => Some(looked.kvs().first()?.value().to_vec()),
                        _ => None,
                    });
                    return Ok(String::from_utf8_lossy(&found.unwrap_or_default()).into_owned());
                }
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => pauses.pass(why).await?,
            }
        }
    }
}

impl From<EtcdError> for ServeError {
    fn from(error: EtcdError) -> Self {
        ServeError::new(Kind::Other, "the etcd cluster cannot be used").with_cause(error)
    }
}
