//! Where the initiation of one attempt goes: to every relay and to the last direct path that worked, at once, and to the relays
//! a few times more. After two seconds, or at once if there is no relay to be expected, it goes to the candidates one after
//! another (RFC 8305).
//!
//! An initiation that reaches the peer's router before the peer's opener left does harm there ([`super::round`]). So the
//! candidates wait until the relays have had every chance: a relay may lose the first copy, or hold the peer's old address
//! where the peer was started anew, and a peer that is not to begin calls after one second.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Agent, earlier};
use crate::Instant;
use crate::path::endpoint::Endpoint;

/// How long the relays get, and when the same initiation goes to them again.
const RELAYS_FIRST: Duration = Duration::from_secs(2);
const RELAYS_AGAIN: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1_000)];
/// The time between two candidates (RFC 8305 section 5).
const APART: Duration = Duration::from_millis(250);
/// The most candidates that one initiation goes to.
const MAX_CANDIDATES: usize = 8;

/// Where the present initiation has yet to go.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: VecDeque<(Instant, Endpoint)>,
}

impl Calls {
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Agent {
    /// Begins an attempt with a new initiation.
    pub(crate) fn begin_call(&mut self, now: Instant) {
        self.calls.clear();
        let relayed: Vec<_> = self.pairs.iter().filter(|pair| pair.is_relayed()).map(|pair| pair.endpoint).collect();
        let worked = self.pairs.iter().filter(|pair| !pair.is_relayed() && pair.last_proof.is_some());
        let last = worked.max_by_key(|pair| pair.last_proof).map(|pair| pair.endpoint);
        let primary = self.primary().map(|pair| pair.endpoint);
        for endpoint in relayed.iter().copied().chain(last).chain(primary) {
            if !self.calls.waiting.iter().any(|(_, waiting)| *waiting == endpoint) {
                self.calls.waiting.push_back((now, endpoint));
            }
        }
        for later in RELAYS_AGAIN {
            self.calls.waiting.extend(relayed.iter().map(|relay| (now + later, *relay)));
        }
        let is_alone = relayed.is_empty() && self.calls.waiting.is_empty() && !self.awaits_relay;
        let mut at = if is_alone { now } else { now + RELAYS_FIRST };
        let direct = self.pairs.iter().filter(|pair| !pair.is_relayed()).map(|pair| pair.endpoint);
        for endpoint in direct.take(MAX_CANDIDATES) {
            if !self.calls.waiting.iter().any(|(_, waiting)| *waiting == endpoint) {
                self.calls.waiting.push_back((at, endpoint));
                at = at + APART;
            }
        }
    }

    /// Where the present initiation goes now.
    pub(crate) fn poll_call(&mut self, now: Instant) -> Option<Endpoint> {
        let (at, _) = self.calls.waiting.front()?;
        if *at > now {
            return None;
        }
        self.calls.waiting.pop_front().map(|(_, endpoint)| endpoint)
    }

    /// When the present initiation goes to the next address.
    pub(crate) fn call_due(&self) -> Option<Instant> {
        self.calls.waiting.front().map(|(at, _)| *at)
    }

    /// A peer under load wants a new initiation, so further copies of this one would be lost on it. A relay can forge that, so
    /// the candidates are called all the same.
    pub(crate) fn on_cookie(&mut self) {
        self.calls.waiting.retain(|(_, endpoint)| endpoint.via.channel.is_none());
    }

    /// Ends the attempt: it was answered, or an answer would no longer help.
    pub(crate) fn end_call(&mut self) {
        self.calls.clear();
    }

    /// The earlier of what is due for paths and for calls.
    pub(crate) fn any_due(&self, is_alive: bool) -> Option<Instant> {
        earlier(self.call_due(), self.deadline().filter(|_| is_alive))
    }
}
