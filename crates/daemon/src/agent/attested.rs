//! Approval by a tag for which the network's operator vouches.
//!
//! An attestation shows which tags a token gives to an identity. It does not show when it was made, so a person who has kept the
//! text of a token could make one long after its end. The rendezvous knows better: it registers a record with a token only
//! while the token counts. So an agent is approved by a tag if both its request and its registered record show the tag.
//! A rendezvous without the network's key cannot make up a tag. While it does not answer, the request waits. Requests that wait
//! are asked about again at each look around, a few at a time, so that a break or a restart is made good.

use overlay_rendezvous::protocol::Find as By;
use overlay_wire::signed::{PublicKey, Record, Signed};
use tokio::sync::oneshot;

use super::letters::chance;
use super::questions::Goal;
use super::{Agent, Changed, NOTHING};
use crate::config::Approved;

/// The most questions of this kind at once, so that people's questions find room beside them.
const MAX_CONFIRMING: usize = 16;

impl Agent {
    /// Asks the rendezvous about an agent whose request waits, if its record shows a tag that approves it.
    pub(super) fn confirm_tags(&mut self, peer: PublicKey) -> Changed {
        let now = self.moment();
        let relation = self.book.relation(&peer).filter(|relation| !relation.is_barred);
        let Some(pending) = relation.and_then(|relation| relation.pending(now)) else { return NOTHING };
        let is_meant = self.config.auto_approves(&peer, &pending.record.attested_tags());
        let confirming = self.confirming();
        if !is_meant || confirming.len() >= MAX_CONFIRMING || confirming.contains(&peer) {
            return NOTHING;
        }
        // Nobody waits for the answer.
        let (reply, _) = oneshot::channel();
        self.ask_rendezvous(peer.to_string(), (By::Key(peer), None), Goal::Attested(peer), reply)
    }

    /// Asks about requests that wait, in turn.
    pub(super) fn confirm_waiting(&mut self) -> Changed {
        if !self.config.auto_approve.iter().any(|approved| matches!(approved, Approved::Tag(_))) {
            return NOTHING;
        }
        let mut waiting: Vec<_> = self.book.pending(self.moment()).map(|pending| pending.request.from).collect();
        let turn = waiting.partition_point(|peer| Some(*peer) <= self.confirmed_last);
        waiting.rotate_left(turn);
        let mut changed = NOTHING;
        for peer in waiting {
            if self.confirming().len() >= MAX_CONFIRMING {
                break;
            }
            changed = changed.and(self.confirm_tags(peer));
            self.confirmed_last = Some(peer);
        }
        changed
    }

    /// The rendezvous shows these records for an agent whose tag is to be confirmed.
    pub(super) fn on_tags_shown(&mut self, peer: &PublicKey, records: &[Signed<Record>]) -> Changed {
        let registered = records.iter().find(|record| record.identity == *peer);
        let tags = registered.map(|record| record.attested_tags()).unwrap_or_default();
        if !self.config.auto_approves(peer, &tags) {
            tracing::debug!(%peer, "the registered record does not show the tag: the request waits");
            return NOTHING;
        }
        let most = self.config.allow.clone();
        match self.book.approve_within(peer, &self.record, most, self.moment(), chance()) {
            Ok(effects) => self.carry_out(effects),
            Err(error) => {
                tracing::debug!(%peer, ?error, "a request was not approved by its tag");
                NOTHING
            }
        }
    }
}
