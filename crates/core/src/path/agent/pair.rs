//! One pair: an address of ours, and one at which the peer may be. Its life:
//!
//! ```text
//! idle -> probing (0, 50, 100, 200, 400 ms, then every second; 5 s) -> proven
//!                                                                   -> failed, until the next round
//! ```
//!
//! A pair is *proven* by a reply to a probe of ours, and by nothing else: hearing the peer says nothing about our direction.
//! What was proven goes back to idle when it does not answer any more, and has to be better for longer before it is used again.

use std::collections::VecDeque;
use std::time::Duration;

use super::loss::Loss;
use super::rank::Quality;
use super::rtt::RoundTrip;
use crate::path::candidate::is_private;
use crate::path::endpoint::Endpoint;
use crate::{Instant, Method};

/// When probes go out, counted from the first one. Then one a second.
const PROBES: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
const LATER_PROBES: Duration = Duration::from_secs(1);
/// How long a pair is probed without an answer.
pub(super) const BURST: Duration = Duration::from_secs(5);
/// The most probes of one pair that wait for an answer. Further ones take the place of the oldest.
const MAX_ASKED: usize = 16;
/// How many proofs, over how long, a path needs before packets move to it.
const PROOFS: u32 = 3;
const PROOF_TIME: Duration = Duration::from_secs(2);
/// The same after packets had to leave it: nine of ten probes must be answered meanwhile. The time is doubled with each
/// failure, up to the last one.
const REGAINED_PROOFS: u32 = 20;
const REGAINED: Duration = Duration::from_secs(10);
const MAX_DOUBLINGS: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not tried in this round.
    Idle,
    /// Probes go out: how many did, since when, and when the next one does.
    Probing { sent: u32, since: Instant, next: Instant },
    /// A reply arrived.
    Proven,
    /// Nothing answered in this round.
    Failed,
}

/// A probe that waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    id: u32,
    at: Instant,
    /// How many datagrams had been sent over the pair.
    sent: u32,
}

/// A pair, and what is known of it.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Names the pair in probes.
    pub(crate) number: u8,
    pub(crate) endpoint: Endpoint,
    pub(crate) state: State,
    pub(crate) trip: RoundTrip,
    /// Loss towards the peer, and from it.
    pub(crate) outbound: Loss,
    pub(crate) inbound: Loss,
    /// Datagrams sent and received over the pair.
    pub(crate) sent: u32,
    pub(crate) received: u32,
    /// Probes that wait for an answer.
    asked: VecDeque<Asked>,
    /// Probes since the last proof.
    unanswered: u32,
    pub(crate) proofs: u32,
    /// Probes sent and answered.
    tally: (u64, u64),
    /// Probes since it is proven.
    probes: u32,
    pub(crate) proven_since: Instant,
    pub(crate) last_proof: Option<Instant>,
    pub(crate) last_asked: Option<Instant>,
    /// How often it failed while packets went over it, and when it last did.
    failures: u32,
    failed_at: Option<Instant>,
    /// Whether the peer, or its control, has named the address. Otherwise the peer was heard from there.
    pub(crate) is_named: bool,
    /// How much was sent without an answer, of what is limited for each address.
    pub(crate) charged: u32,
    /// Attempts to prove it, and those that succeeded, that were not counted yet.
    attempts: (u64, u64),
}

impl Pair {
    pub(crate) fn new(number: u8, endpoint: Endpoint, is_named: bool, now: Instant) -> Self {
        Self {
            number,
            endpoint,
            state: State::Idle,
            trip: RoundTrip::default(),
            outbound: Loss::default(),
            inbound: Loss::default(),
            sent: 0,
            received: 0,
            asked: VecDeque::new(),
            unanswered: 0,
            proofs: 0,
            tally: (0, 0),
            probes: 0,
            proven_since: now,
            last_proof: None,
            last_asked: None,
            failures: 0,
            failed_at: None,
            is_named,
            charged: 0,
            attempts: (0, 0),
        }
    }

    pub(crate) fn is_relayed(&self) -> bool {
        self.endpoint.via.channel.is_some()
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.state == State::Proven
    }

    /// Whether a reply has arrived since `at`.
    pub(crate) fn is_proven_since(&self, at: Instant) -> bool {
        self.is_proven() && self.last_proof.is_some_and(|proof| proof >= at)
    }

    /// Begins to probe, unless the pair is proven or is being probed.
    pub(crate) fn probe(&mut self, now: Instant) {
        if !matches!(self.state, State::Probing { .. } | State::Proven) {
            self.state = State::Probing { sent: 0, since: now, next: now };
            self.attempts.0 += 1;
        }
    }

    /// What kind of address of the peer it leads to.
    fn method(&self) -> Method {
        match self.endpoint.address.ip() {
            _ if self.is_relayed() => Method::Relay,
            _ if !self.is_named => Method::PeerReflexive,
            ip if is_private(ip) => Method::Private,
            _ => Method::Public,
        }
    }

    /// The attempts, and those that succeeded, since the last call.
    pub(crate) fn take_attempts(&mut self) -> (Method, (u64, u64)) {
        (self.method(), std::mem::take(&mut self.attempts))
    }

    /// When the pair itself wants to send a probe, or to give up.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Probing { next, .. } => Some(next),
            State::Idle | State::Proven | State::Failed => None,
        }
    }

    /// Whether a probe of a burst is due now. Ends the burst when its time is over.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        let State::Probing { sent, since, next } = self.state else { return false };
        if next > now {
            return false;
        }
        if now.since(since) >= BURST {
            self.state = State::Failed;
            return false;
        }
        let sent = sent + 1;
        let next = PROBES.get(sent as usize).map_or(now + LATER_PROBES, |offset| (since + *offset).max(now));
        self.state = State::Probing { sent, since, next };
        true
    }

    /// Records that a probe goes out.
    pub(crate) fn on_asked(&mut self, id: u32, now: Instant) {
        if self.asked.len() == MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { id, at: now, sent: self.sent });
        self.unanswered += 1;
        self.tally.0 += 1;
        self.probes = self.probes.saturating_add(1);
        self.last_asked = Some(now);
    }

    /// Whether a probe with this id waits for its reply.
    pub(crate) fn has_asked(&self, id: u32) -> bool {
        self.asked.iter().any(|asked| asked.id == id)
    }

    /// Takes a reply. Returns whether it answers a probe of this pair. `arrived`: how many of our datagrams the peer has seen.
    /// `waited`: how long it was held back here.
    pub(crate) fn on_reply(&mut self, (id, arrived): (u32, u32), waited: Duration, now: Instant) -> bool {
        let Some(at) = self.asked.iter().position(|asked| asked.id == id) else { return false };
        let asked = self.asked[at];
        // Earlier probes were lost, or their replies are late and prove nothing new.
        self.asked.drain(..=at);
        self.unanswered = self.asked.len() as u32;
        self.tally.1 += 1;
        self.trip.on_sample(now.since(asked.at).saturating_sub(waited));
        self.outbound.on_sample(asked.sent, arrived, now);
        self.on_proof(now);
        true
    }

    /// Records that the peer has answered something of ours over this pair.
    pub(crate) fn on_proof(&mut self, now: Instant) {
        if self.state != State::Proven {
            // What proves it may be a session, before any probe.
            self.attempts.0 += u64::from(!matches!(self.state, State::Probing { .. }));
            self.attempts.1 += 1;
            self.state = State::Proven;
            (self.proofs, self.probes) = (0, 1);
            self.proven_since = now;
        }
        self.proofs = self.proofs.saturating_add(1);
        self.last_proof = Some(now);
    }

    /// How many probes were sent and answered.
    pub(crate) fn tally(&self) -> (u64, u64) {
        self.tally
    }

    /// How many probes since the last proof are older than the answer may take.
    pub(crate) fn overdue(&self, since: Option<Instant>, now: Instant) -> usize {
        let patience = self.trip.patience();
        let counts = |at: Instant| since.is_none_or(|since| at >= since) && now.since(at) >= patience;
        self.asked.iter().filter(|asked| counts(asked.at)).count()
    }

    /// The probes since the last proof: how many, and when the latest of them went out.
    pub(crate) fn unanswered(&self) -> (u32, Option<Instant>) {
        (self.unanswered, self.asked.back().map(|asked| asked.at))
    }

    /// Records that the pair no longer carries anything. `was_used`: packets went over it.
    pub(crate) fn on_failed(&mut self, was_used: bool, now: Instant) {
        self.forget();
        self.state = State::Failed;
        if was_used {
            self.on_left(now);
        }
    }

    /// Records that packets left the pair because it was bad. It has to work for longer before they come back.
    pub(crate) fn on_left(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
    }

    /// Forgets what was proven: the network has changed.
    pub(crate) fn forget(&mut self) {
        self.state = State::Idle;
        self.asked.clear();
        self.unanswered = 0;
        self.proofs = 0;
        // What was lost while nothing arrived says nothing of a path that works again.
        self.outbound.clear();
        self.inbound.clear();
    }

    /// Whether packets may move here from a path that works.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        let is_trusted_again = self.failures == 0 || {
            let needed = REGAINED * (1 << (self.failures - 1).min(MAX_DOUBLINGS));
            self.has_regained(REGAINED_PROOFS) && self.failed_at.is_none_or(|at| now.since(at) >= needed)
        };
        self.is_proven()
            && self.proofs >= PROOFS
            && now.since(self.proven_since) >= PROOF_TIME
            && is_trusted_again
            && self.overdue(None, now) == 0
    }

    /// Whether packets may follow the peer here, which has moved. It has waited for as long as it takes, and its probes prove
    /// both directions as ours do.
    pub(crate) fn is_good_enough(&self, now: Instant) -> bool {
        let is_trusted_again = self.failures == 0 || self.has_regained(REGAINED_PROOFS / 2);
        self.is_proven() && self.proofs > 1 && is_trusted_again && self.overdue(None, now) == 0
    }

    fn has_regained(&self, proofs: u32) -> bool {
        self.proofs >= proofs && self.proofs * 10 >= self.probes * 9
    }

    /// When [`Pair::is_settled`] may become true.
    pub(crate) fn settles_at(&self) -> Instant {
        self.proven_since + PROOF_TIME
    }

    /// What it is judged by.
    pub(crate) fn quality(&self) -> Quality {
        Quality {
            endpoint: self.endpoint,
            loss: self.outbound.share().unwrap_or_default(),
            round_trip: self.trip.smooth().unwrap_or(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn pair(state: State) -> Pair {
        let endpoint = Endpoint::configured("192.0.2.1:1".parse().unwrap());
        Pair { state, ..Pair::new(0, endpoint, true, at(0)) }
    }

    #[test]
    fn the_transition_table() {
        let probing = |sent| State::Probing { sent, since: at(0), next: at(0) };
        type Fact = fn(&mut Pair);
        let facts: [(&str, Fact); 5] = [
            ("wanted", |pair| pair.probe(at(0))),
            ("a proof", |pair| pair.on_proof(at(9))),
            ("5 s are over", |pair| {
                pair.poll(at(5_000));
            }),
            ("failed", |pair| pair.on_failed(true, at(9))),
            ("the network changed", |pair| pair.forget()),
        ];
        let (idle, proven, failed) = (State::Idle, State::Proven, State::Failed);
        let table = [
            // wanted, a proof, 5 s are over, failed, the network changed
            (idle, [probing(0), proven, idle, failed, idle]),
            (probing(0), [probing(0), proven, failed, failed, idle]),
            (proven, [proven, proven, proven, failed, idle]),
            (failed, [probing(0), proven, failed, failed, idle]),
        ];
        for (before, expected) in table {
            for ((name, fact), after) in facts.iter().zip(expected) {
                let mut pair = pair(before);
                fact(&mut pair);
                assert_eq!(pair.state, after, "{before:?}, {name}");
            }
        }
    }

    #[test]
    fn a_burst_is_nine_probes_in_five_seconds() {
        let mut pair = pair(State::Idle);
        pair.probe(at(100));
        let mut sent = Vec::new();
        for millis in 100..7_000 {
            if pair.due().is_some_and(|due| due <= at(millis)) && pair.poll(at(millis)) {
                sent.push(millis - 100);
            }
        }
        assert_eq!(sent, [0, 50, 100, 200, 400, 1_400, 2_400, 3_400, 4_400]);
        assert_eq!((pair.state, pair.due()), (State::Failed, None));
    }

    #[test]
    fn only_a_reply_to_an_own_probe_proves() {
        let mut pair = pair(State::Idle);
        pair.probe(at(0));
        pair.on_asked(1, at(0));
        pair.on_asked(2, at(50));
        assert!(!pair.on_reply((3, 1), Duration::ZERO, at(60)));
        assert!(pair.on_reply((2, 1), Duration::from_millis(20), at(80)));
        assert_eq!((pair.trip.smooth(), pair.unanswered().0), (Some(Duration::from_millis(10)), 0));
        assert!(!pair.on_reply((1, 1), Duration::ZERO, at(90)), "late, and it proves nothing new");
        for id in 0..1_000 {
            pair.on_asked(id, at(100));
        }
        assert_eq!(pair.asked.len(), MAX_ASKED);
    }

    #[test]
    fn what_failed_in_use_has_to_work_for_longer_each_time() {
        let mut pair = pair(State::Idle);
        let mut millis = 0;
        let mut settles_after = || {
            let from = millis;
            loop {
                pair.on_proof(at(millis));
                if pair.is_settled(at(millis)) {
                    pair.on_failed(true, at(millis));
                    return millis - from;
                }
                millis += 500;
            }
        };
        let waits: Vec<_> = (0..9).map(|_| settles_after() / 1_000).collect();
        assert_eq!(waits, [2, 10, 20, 40, 80, 160, 320, 640, 640]);
    }
}
