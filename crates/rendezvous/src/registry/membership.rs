//! Proof of membership, for those who serve members and are not the rendezvous: relays.
//!
//! An agent that leaves or is banned keeps the proof that it has until that ends, seven days at most.

use overlay_wire::signed::{MAX_MEMBERSHIP, Membership, PublicKey, Signed};

use super::{Refusal, Registry};
use crate::now::Now;
use crate::protocol::{Code, Reply};

impl Registry {
    /// Signs that the caller is a member. In an open network, everybody is who is registered.
    pub(super) fn vouch_for(&mut self, caller: PublicKey, now: Now) -> Result<Reply, Refusal> {
        if !self.agents.is_registered(&caller) {
            return Err(Code::Unregistered.into());
        }
        let membership = Membership {
            network: self.network.network,
            rendezvous: self.key.public(),
            identity: caller,
            issued: now.unix,
            expires: now.unix.saturating_add(MAX_MEMBERSHIP),
        };
        let signed = Signed::sign(membership, &self.key).map_err(|refused| self.bad_object(refused))?;
        Ok(Reply::Membership { membership: signed.bytes().to_vec().into() })
    }
}
