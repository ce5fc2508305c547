//! A different host that runs with the same identity: a copied disk, or a copy of a virtual machine.
//!
//! Two hosts with one identity take each other's connection to the rendezvous and each other's tunnels away, so one of them must
//! stop. An agent signs a new record at each start. It stops when it is shown a record that it has not made: newer than its
//! own, with its own signature, after the rendezvous has taken its own since the start. So the host that was started last
//! goes on. Somebody else must hold the key to sign such a record. A rendezvous does not, and can silence nobody.
//!
//! Before the first registration a newer record is no sign of a twin. It is what is left of this agent's own past: see
//! [`super::events`].

use overlay_rendezvous::client::Event;
use overlay_wire::signed::{Record, Signed};

use super::request::AgentRequest;
use super::time::now;
use super::{Agent, At, Changed, NOTHING, PEERS};
use crate::failure::{ExitKind, Failure};
use crate::warnings::StatusWarning;

/// The code of all that is said about it.
pub(crate) const KEY_CLONE: &str = "key_clone";
const WHAT: &str = "a different host runs with the identity of this agent";
const FIX: &str = "give one of the two an identity of its own: overlay init";

/// What is known of a twin.
#[derive(Debug, Default)]
pub(super) struct Twin {
    is_found: bool,
}

impl Twin {
    /// Whether this agent has stopped, because a twin runs.
    pub(super) fn is_found(&self) -> bool {
        self.is_found
    }
}

impl Agent {
    /// Whether an event shows a record of ours that this agent has not made.
    pub(super) fn shows_twin(&self, at: &At, event: &Event) -> bool {
        let (Event::Online { record, .. } | Event::TooOld { record }) = event else { return false };
        let is_foreign = |record: &Signed<Record>| {
            let is_other = record.sequence == self.record.sequence && record.bytes() != self.record.bytes();
            record.sequence > self.record.sequence || is_other
        };
        self.meetings.has_registered(at) && record.as_deref().is_some_and(is_foreign)
    }

    /// This process was copied while it ran, so there may be a twin, with the same connection. A new connection and a new
    /// record show which of the two goes on.
    pub(crate) fn on_copied(&mut self) -> Changed {
        if self.twin.is_found() {
            return NOTHING;
        }
        if let Err(failure) = self.meetings.renew(now()) {
            tracing::error!("{failure}");
        }
        self.hear_anew();
        self.drain()
    }

    /// Stops: no connection, no tunnel.
    pub(super) fn stop_for_twin(&mut self) -> Changed {
        self.twin.is_found = true;
        self.refuse_held(KEY_CLONE);
        self.meetings.stop(KEY_CLONE, format!("{KEY_CLONE}: {WHAT}; {FIX}"), now());
        PEERS
    }

    /// The warning in `overlay status`, which is also logged.
    pub(crate) fn twin_warning(&self) -> Option<StatusWarning> {
        self.twin.is_found.then(|| StatusWarning::new(KEY_CLONE, format!("{WHAT}, so this one has stopped"), FIX))
    }

    /// Refuses what would change something that a twin has, too.
    pub(super) fn refuse_for_twin(&self, request: &AgentRequest) -> Result<(), Failure> {
        let changes = match request {
            AgentRequest::Handshake(_)
            | AgentRequest::Approve(_)
            | AgentRequest::Reject(_)
            | AgentRequest::Untrust(_)
            | AgentRequest::Trust(_)
            | AgentRequest::Confirm
            | AgentRequest::RotateKey(_)
            | AgentRequest::Join(_) => true,
            AgentRequest::Pending
            | AgentRequest::Peers
            | AgentRequest::Ask(_)
            | AgentRequest::Find(_)
            | AgentRequest::Whois(_) => false,
        };
        if self.twin.is_found && changes {
            return Err(Failure::new(ExitKind::Refused, format!("{KEY_CLONE}: {WHAT}")).with_hint(FIX));
        }
        Ok(())
    }
}
