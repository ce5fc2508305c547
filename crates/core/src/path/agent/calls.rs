//! Where the initiation of one attempt goes: to every relay and to the last direct path that worked, at once, and to the relays
//! a few times more. After two seconds, or at once if no relay is there or expected, it goes to the candidates one after
//! another (RFC 8305).
//!
//! A peer that no path leads to any more is called everywhere at once, since no relay has answered for it. So is one that control
//! wants called because others have looked for it in vain.
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
    waiting: VecDeque<Call>,
    /// When the present initiation began, and the relays that it goes to.
    began: Option<Instant>,
    relays: Vec<Endpoint>,
    /// Whether the candidates wait for no relay.
    is_urgent: bool,
}

/// One copy of the present initiation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    at: Instant,
    pub(crate) to: Endpoint,
    /// It has gone there already.
    pub(crate) is_repeated: bool,
}

impl Calls {
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn on_session(&mut self) {
        *self = Self::default();
    }

    /// Adds a place that the initiation has not gone to. Returns false if it goes there anyway.
    fn add(&mut self, to: Endpoint, at: Instant) -> bool {
        let is_new = !self.waiting.iter().any(|call| call.to == to);
        if is_new {
            self.waiting.push_back(Call { at, to, is_repeated: false });
        }
        is_new
    }
}

impl Agent {
    /// Begins an attempt with a new initiation.
    pub(crate) fn begin_call(&mut self, now: Instant) {
        self.calls.began = None;
        self.call_on(now);
    }

    /// From now until a session, the candidates wait for no relay.
    pub(crate) fn call_at_once(&mut self, now: Instant) {
        self.calls.is_urgent = true;
        if self.calls.began.is_some() {
            self.call_on(now);
        }
    }

    /// Control expects a channel of a relay soon, or no longer: then it has told how relays see us, too.
    pub(crate) fn await_relay(&mut self, awaits_relay: bool, now: Instant) {
        if std::mem::replace(&mut self.awaits_relay, awaits_relay) && !awaits_relay {
            self.round.release(now);
            self.wake(now);
        }
    }

    /// A session has come from there. Over a relay of which control has not told yet, it comes too early for a round.
    pub(super) fn hold_round(&mut self, from: Endpoint, now: Instant) {
        if self.awaits_relay && from.via.channel.is_some() {
            self.round.hold(now);
        }
    }

    /// Sets where the present initiation has yet to go, because it is new or there are new places. A relay that it has not gone to
    /// gets all the time again.
    pub(crate) fn call_on(&mut self, now: Instant) {
        let relayed: Vec<_> = self.pairs.iter().filter(|pair| pair.is_relayed()).map(|pair| pair.endpoint).collect();
        let is_known = relayed.iter().all(|relay| self.calls.relays.contains(relay));
        if !is_known && self.calls.began.is_some() {
            self.calls.is_urgent = false;
        }
        let began = self.calls.began.filter(|_| is_known);
        let since = *self.calls.began.insert(began.unwrap_or(now));
        self.calls.relays.clone_from(&relayed);
        self.calls.clear();
        let worked = self.pairs.iter().filter(|pair| !pair.is_relayed() && pair.last_proof.is_some());
        let last = worked.max_by_key(|pair| pair.last_proof).map(|pair| pair.endpoint);
        let primary = self.primary().map(|pair| pair.endpoint);
        let relays_now = relayed.iter().copied().filter(|_| began.is_none());
        for endpoint in relays_now.chain(last).chain(primary) {
            self.calls.add(endpoint, now);
        }
        for at in RELAYS_AGAIN.map(|later| since + later).into_iter().filter(|at| *at > now) {
            let again = |relay: &Endpoint| Call { at, to: *relay, is_repeated: true };
            self.calls.waiting.extend(relayed.iter().map(again));
        }
        // A relay that has not answered for as long as it takes to lose a path will not answer this either.
        let is_vain = self.is_lost() || self.calls.is_urgent;
        let hopes = !is_vain && (!relayed.is_empty() || self.awaits_relay);
        let mut at = match (!hopes, self.calls.waiting.is_empty()) {
            (true, true) => now,
            (true, false) => now + APART,
            (false, _) => now.max(since + RELAYS_FIRST),
        };
        let direct = self.pairs.iter().filter(|pair| !pair.is_relayed()).map(|pair| pair.endpoint);
        for endpoint in direct.take(MAX_CANDIDATES) {
            if self.calls.add(endpoint, at) {
                at = at + APART;
            }
        }
        self.calls.waiting.make_contiguous().sort_by_key(|call| call.at);
    }

    /// Where the present initiation goes now.
    pub(crate) fn poll_call(&mut self, now: Instant) -> Option<Call> {
        if self.call_due()? > now {
            return None;
        }
        self.calls.waiting.pop_front()
    }

    /// When the present initiation goes to the next address.
    pub(crate) fn call_due(&self) -> Option<Instant> {
        self.calls.waiting.front().map(|call| call.at)
    }

    /// A peer under load wants a new initiation, so further copies of this one would be lost on it. A relay can forge that, so
    /// the candidates are called all the same.
    pub(crate) fn on_cookie(&mut self) {
        self.calls.waiting.retain(|call| call.to.via.channel.is_none());
    }

    /// Ends the attempt: it was answered, or an answer would no longer help.
    pub(crate) fn end_call(&mut self) {
        self.calls.clear();
    }

    /// The earliest of what is due for paths, for calls, and for control.
    pub(crate) fn any_due(&self, is_alive: bool) -> Option<Instant> {
        let own = if is_alive { self.deadline() } else { self.sought.due() };
        earlier(self.call_due(), own)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use overlay_wire::relay::Channel;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::Remote;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn address(host: u8) -> SocketAddr {
        ([192, 0, 2, host], 51820).into()
    }

    /// An agent whose peer has the candidates 1 and 2, and a channel at each of these relays.
    fn agent(relays: &[u8], awaits_relay: bool) -> Agent {
        let mut agent = Agent::new(&mut ChaCha8Rng::from_seed([1; 32]));
        let channel = Channel::new(7).expect("24 bits");
        let relayed = relays.iter().map(|relay| (address(*relay), channel)).collect();
        let candidates = vec![address(1), address(2)];
        agent.set_remote(&Remote { candidates, relayed, awaits_relay }, &[], at(0));
        agent
    }

    /// The hosts that the present initiation goes to, each with its time.
    fn calls(agent: &mut Agent) -> Vec<(u64, u8)> {
        let mut all = Vec::new();
        while let Some(due) = agent.call_due() {
            assert!(agent.poll_call(due - Duration::from_millis(1)).is_none(), "none is early");
            let call = agent.poll_call(due).expect("it is due");
            let SocketAddr::V4(v4) = call.to.address else { panic!("{call:?}") };
            let host = v4.ip().octets()[3];
            assert_eq!(call.is_repeated, all.iter().any(|(_, called)| *called == host), "{call:?}");
            all.push((due.millis(), host));
        }
        all
    }

    #[test]
    fn relays_are_called_four_times_before_the_candidates() {
        let mut agent = agent(&[8, 9], false);
        agent.begin_call(at(100));
        let relays = [100, 350, 600, 1_100].map(|millis| [(millis, 8), (millis, 9)]).concat();
        assert_eq!(calls(&mut agent), [relays, vec![(2_100, 1), (2_350, 2)]].concat());
    }

    #[test]
    fn candidates_wait_for_a_relay_that_is_expected_and_for_no_other() {
        for (awaits_relay, first) in [(true, 2_100), (false, 100)] {
            let mut agent = agent(&[], awaits_relay);
            agent.begin_call(at(100));
            assert_eq!(calls(&mut agent), [(first, 1), (first + 250, 2)], "expected: {awaits_relay}");
        }
    }

    #[test]
    fn the_last_path_that_worked_is_called_at_once_and_the_others_wait_for_no_relay() {
        let mut agent = agent(&[], false);
        agent.pair_at(Endpoint::configured(address(2))).expect("a candidate").on_proof(at(50));
        agent.begin_call(at(100));
        assert_eq!(calls(&mut agent), [(100, 2), (350, 1)]);
    }

    #[test]
    fn new_places_get_the_initiation_that_is_out_and_what_waits_for_relays_waits_no_longer_for_it() {
        let mut agent = agent(&[8], false);
        let (relay, channel) = (address(8), Channel::new(7).expect("24 bits"));
        let remote = |candidates: &[u8], relays: &[u8]| Remote {
            candidates: candidates.iter().copied().map(address).collect(),
            relayed: relays.iter().map(|relay| (address(*relay), channel)).collect(),
            awaits_relay: false,
        };
        agent.begin_call(at(100));
        assert_eq!(agent.poll_call(at(100)).expect("the first call").to.address, relay);
        agent.set_remote(&remote(&[3], &[8]), &[], at(700));
        agent.call_on(at(700));
        let due = [
            agent.poll_call(at(1_100)).expect("the relay").to.address,
            agent.poll_call(at(2_100)).expect("it").to.address,
        ];
        assert_eq!(due, [relay, address(3)]);
        agent.set_remote(&remote(&[4], &[8]), &[], at(3_000));
        agent.call_on(at(3_000));
        assert_eq!(calls(&mut agent), [(3_000, 4)]);
        agent.set_remote(&remote(&[4], &[9]), &[], at(3_500));
        agent.call_on(at(3_500));
        assert_eq!(calls(&mut agent), [(3_500, 9), (3_750, 9), (4_000, 9), (4_500, 9), (5_500, 4)]);
    }

    #[test]
    fn a_peer_that_others_look_for_is_called_at_once_until_there_is_a_session() {
        let mut agent = agent(&[8], false);
        agent.call_at_once(at(50));
        assert_eq!(agent.call_due(), None, "there is no initiation");
        agent.begin_call(at(100));
        assert_eq!(calls(&mut agent)[..3], [(100, 8), (350, 8), (350, 1)]);
        agent.call_at_once(at(1_500));
        assert_eq!(calls(&mut agent), [(1_500, 1), (1_750, 2)]);
        agent.begin_call(at(5_000));
        let relay = [5_000, 5_250, 5_500, 6_000].map(|at| (at, 8));
        let mut all = calls(&mut agent);
        assert_eq!(all.extract_if(.., |(_, host)| *host != 8).collect::<Vec<_>>(), [(5_250, 1), (5_500, 2)]);
        assert_eq!(all, relay);
        agent.on_session(Endpoint::configured(address(1)), true, at(5_300));
        agent.begin_call(at(200_000));
        assert_eq!(calls(&mut agent).pop(), Some((202_000, 2)));
    }

    #[test]
    fn a_cookie_ends_the_calls_over_relays_alone() {
        let mut agent = agent(&[8], false);
        agent.begin_call(at(100));
        agent.poll_call(at(100)).expect("the first call");
        agent.on_cookie();
        assert_eq!(calls(&mut agent), [(2_100, 1), (2_350, 2)]);
    }
}
