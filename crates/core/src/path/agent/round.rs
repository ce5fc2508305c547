//! One round of trying direct pairs, which both ends go through together. Its life:
//!
//! ```text
//! resting -> opening (2 openers, 20 ms apart) -> announced (until the peer has opened, too) -> probing (5 s) -> resting
//! ```
//!
//! An *opener* is a datagram with a TTL too small to arrive. It makes our own routers expect the peer. Without it, a probe of
//! the peer that arrives first would make a Linux router take the flow for one of its own, and give ours a different port,
//! for as long as the peer goes on. So nobody probes before the other end has said that its openers are out
//! ([`Frame::Candidates`](overlay_wire::control::Frame), `seen`).
//!
//! A round that finds nothing is followed by a rest in which such a wrong entry expires: 35 s, then longer.
//!
//! Where the routers of both are neighbours, openers do arrive, and make such an entry in each round. So in the first rest one
//! end sends openers that die at its own router (*keepers*): they renew what its router expects, and nothing else. In the next
//! round it sends no others. By then the other router has forgotten, and its openers are let in. The end that began the session
//! is the first, since its openers are out before the peer's. In the second rest the ends change places, in case that the
//! first router was the one with the wrong entry.

use std::time::Duration;

use super::pair::BURST;
use crate::Instant;
use crate::instant::earlier;

/// How far openers go, in hops, and how far apart they are: they have to leave our own routers and must not reach the
/// peer's.
const OPENER_TTLS: [u8; 2] = [2, 4];
const OPENERS_APART: Duration = Duration::from_millis(20);
/// How far keepers go, how far apart they are, and in how many rests one end or the other sends them. Most routers keep what
/// was not answered for 30 s.
pub(crate) const KEEPER_TTL: u8 = 1;
const KEEPERS_APART: Duration = Duration::from_secs(10);
const KEPT_RESTS: usize = 2;
/// How often, and how far apart, our list is told until the peer answers.
const TELL_EVERY: Duration = Duration::from_millis(250);
const MAX_TOLD: u8 = 12;
/// How often a list that the peer repeats is answered in one round.
const MAX_ANSWERS: u8 = 3;
/// How long a round waits until it is known how relays see us.
const HOLD: Duration = Duration::from_secs(1);
/// How far behind the newest list one may be that was overtaken on the way. Otherwise the peer has begun anew.
const REORDERED: i32 = 16;
/// How long to rest after a round. A Linux router forgets a flow that was not answered after 30 s, and the port that it chose
/// for it up to a minute later.
const RESTS: [Duration; 4] =
    [Duration::from_secs(35), Duration::from_secs(120), Duration::from_secs(300), Duration::from_secs(900)];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until then, or until there is a session.
    Resting { until: Option<Instant> },
    /// Openers go out: how many did, and when the next one does.
    Opening { sent: usize, next: Instant },
    /// The peer was told so: how often, and when it is told again.
    Announced { told: u8, next: Instant },
    /// Pairs are probed.
    Probing { until: Instant },
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send an opener with this TTL on each pair.
    Open(u8),
    /// Tell the peer our list.
    Tell,
    /// Probe each pair.
    Probe,
}

/// The rounds with one peer, and what both ends have told each other.
#[derive(Debug)]
pub(crate) struct Round {
    phase: Phase,
    /// The number of our list, and of the newest one of the peer. 0: none yet.
    ours: u32,
    theirs: u32,
    /// The newest list of the peer whose addresses got openers, and the newest of ours whose addresses the peer has sent
    /// openers to.
    opened: u32,
    seen: u32,
    /// Whether the peer waits for our list, and how often that was so in this round.
    owes: bool,
    answers: u8,
    /// Rounds in a row that ended without a direct path.
    failures: usize,
    /// Whether this end began the session. Then it sends keepers in the first rest, and otherwise in the second.
    is_first: bool,
    /// When the next keeper goes out in this rest.
    keeper: Option<Instant>,
    /// Whether our routers still expect the peer, so that this round needs no openers.
    is_kept: bool,
    /// No opener goes out before.
    held_until: Instant,
}

impl Round {
    /// `first`: a random number for the first list.
    pub(crate) fn new(first: u32) -> Self {
        Self {
            phase: Phase::Resting { until: None },
            ours: first.max(1),
            theirs: 0,
            opened: 0,
            seen: 0,
            owes: false,
            answers: 0,
            failures: 0,
            is_first: false,
            keeper: None,
            is_kept: false,
            held_until: Instant::default(),
        }
    }

    /// What our list says of both ends: its number, and that of the peer's list whose addresses got openers.
    pub(crate) fn numbers(&self) -> (u32, u32) {
        (self.ours, self.opened)
    }

    /// When pairs are tried again, if they are not being tried now.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Resting { until } => until,
            Phase::Opening { .. } | Phase::Announced { .. } | Phase::Probing { .. } => None,
        }
    }

    /// Whether the peer has told a list.
    pub(crate) fn has_heard(&self) -> bool {
        self.theirs != 0
    }

    /// Whether pairs are being tried.
    pub(crate) fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Resting { .. })
    }

    /// Whether pairs are probed now: both ends have sent openers.
    #[cfg(test)]
    fn is_probing(&self) -> bool {
        matches!(self.phase, Phase::Probing { .. })
    }

    /// Begins a round with a list of a new number, because something has changed. The rests are short again.
    pub(crate) fn renew(&mut self, now: Instant) {
        self.failures = 0;
        self.is_kept = false;
        self.begin(now);
    }

    /// There are new pairs, to which nothing was sent yet.
    pub(crate) fn on_new_pairs(&mut self) {
        self.is_kept = false;
    }

    fn begin(&mut self, now: Instant) {
        self.ours = self.ours.wrapping_add(1).max(1);
        self.open(now);
    }

    fn open(&mut self, now: Instant) {
        self.answers = 0;
        // A peer that has slept through its rest has sent none.
        self.is_kept &= self.keeper.take().is_none_or(|next| now <= next + KEEPERS_APART);
        let sent = if self.is_kept { OPENER_TTLS.len() } else { 0 };
        self.phase = Phase::Opening { sent, next: now.max(self.held_until) };
    }

    /// A relay has brought the session before control could say how that relay sees us. What we send to the peer may leave our router
    /// from that address, and the peer cannot open its router for one that our list lacks. So rounds wait until
    /// [`Round::release`], a second at most.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.held_until = now + HOLD;
    }

    /// Our list is complete.
    pub(crate) fn release(&mut self, now: Instant) {
        self.held_until = now;
        if let Phase::Opening { sent: 0, next } = &mut self.phase {
            *next = (*next).min(now);
        }
    }

    /// Records that there is a session. The peer may have been started since, and have forgotten our list.
    pub(crate) fn on_session(&mut self, is_initiator: bool, now: Instant) {
        self.is_first = is_initiator;
        match self.phase {
            Phase::Resting { until: None } => self.open(now),
            Phase::Announced { .. } => self.phase = Phase::Announced { told: 0, next: now },
            Phase::Resting { .. } | Phase::Opening { .. } | Phase::Probing { .. } => {}
        }
    }

    /// Records that a direct path was found. The other pairs can wait.
    pub(crate) fn on_found(&mut self) {
        self.failures = RESTS.len();
    }

    /// Takes the number of a list of the peer, and the newest of ours that it has sent openers to. Returns whether the list is
    /// a new one.
    pub(crate) fn on_list(&mut self, number: u32, seen: u32, now: Instant) -> bool {
        let ahead = number.wrapping_sub(self.theirs) as i32;
        if self.theirs != 0 && (-REORDERED..0).contains(&ahead) {
            return false;
        }
        let is_new = number != self.theirs;
        let is_repeated = !is_new && seen == self.seen;
        (self.theirs, self.seen) = (number, seen);
        if is_new {
            self.open(now);
        } else if let Phase::Announced { told, .. } = self.phase {
            self.phase = Phase::Announced { told, next: now };
        } else if is_repeated && self.answers < MAX_ANSWERS && !matches!(self.phase, Phase::Opening { .. }) {
            // Our answer was lost.
            self.answers += 1;
            self.owes = true;
        }
        is_new
    }

    /// Whether both ends have sent openers to all that the other has named.
    fn is_agreed(&self) -> bool {
        self.theirs != 0 && self.seen == self.ours && self.opened == self.theirs
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        if self.owes {
            return Some(Instant::default());
        }
        match self.phase {
            Phase::Resting { until } => earlier(until, self.keeper),
            Phase::Opening { next, .. } | Phase::Announced { next, .. } => Some(next),
            Phase::Probing { until } => Some(until),
        }
    }

    /// Returns what is due by `now`. Call it until it returns `None`. `random` spreads the rests of many peers.
    pub(crate) fn poll(&mut self, random: u32, now: Instant) -> Option<Due> {
        if std::mem::take(&mut self.owes) {
            return Some(Due::Tell);
        }
        if self.due()? > now {
            return None;
        }
        match self.phase {
            Phase::Resting { until: Some(until) } if now < until => {
                self.keeper = Some(now + KEEPERS_APART);
                Some(Due::Open(KEEPER_TTL))
            }
            Phase::Resting { .. } => {
                self.begin(now);
                self.poll(random, now)
            }
            Phase::Opening { sent, .. } => match OPENER_TTLS.get(sent) {
                Some(ttl) => {
                    self.phase = Phase::Opening { sent: sent + 1, next: now + OPENERS_APART };
                    Some(Due::Open(*ttl))
                }
                None => {
                    self.opened = self.theirs;
                    self.phase = Phase::Announced { told: 0, next: now };
                    self.poll(random, now)
                }
            },
            Phase::Announced { told, .. } if told > 0 && self.is_agreed() => {
                self.phase = Phase::Probing { until: now + BURST };
                Some(Due::Probe)
            }
            Phase::Announced { told, .. } if told < MAX_TOLD => {
                let next = if self.is_agreed() { now } else { now + TELL_EVERY };
                self.phase = Phase::Announced { told: told + 1, next };
                Some(Due::Tell)
            }
            Phase::Announced { .. } | Phase::Probing { .. } => {
                self.rest(random, now);
                None
            }
        }
    }

    fn rest(&mut self, random: u32, now: Instant) {
        let rest = RESTS[self.failures.min(RESTS.len() - 1)];
        self.is_kept = self.failures < KEPT_RESTS && (self.failures == 0) == self.is_first;
        self.keeper = self.is_kept.then_some(now + KEEPERS_APART);
        self.failures += 1;
        let jitter = rest / 8 * (random % 256) / 256;
        self.phase = Phase::Resting { until: Some(now + rest + jitter) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    /// Everything that is due until then, with its time.
    fn due(round: &mut Round, until: u64) -> Vec<(u64, Due)> {
        let mut all = Vec::new();
        while let Some(at) = round.due().filter(|due| *due <= at(until)) {
            while let Some(due) = round.poll(0, at) {
                all.push((at.millis(), due));
            }
        }
        all
    }

    #[test]
    fn the_transition_table() {
        let rest = Phase::Resting { until: Some(at(60_000)) };
        let opening = Phase::Opening { sent: 1, next: at(100) };
        let announced = Phase::Announced { told: 1, next: at(100) };
        let probing = Phase::Probing { until: at(100) };
        let (opens, tells) = (Phase::Opening { sent: 0, next: at(9) }, Phase::Announced { told: 1, next: at(9) });
        let table = [
            // a session, a new list, the same list once more, a change
            (Phase::Resting { until: None }, [opens, opens, Phase::Resting { until: None }, opens]),
            (rest, [rest, opens, rest, opens]),
            (opening, [opening, opens, opening, opens]),
            (announced, [Phase::Announced { told: 0, next: at(9) }, opens, tells, opens]),
            (probing, [probing, opens, probing, opens]),
        ];
        for (before, expected) in table {
            for (fact, after) in expected.into_iter().enumerate() {
                let mut round = Round { phase: before, theirs: 5, ..Round::new(7) };
                match fact {
                    0 => round.on_session(false, at(9)),
                    1 => assert!(round.on_list(6, 0, at(9))),
                    2 => assert!(!round.on_list(5, 0, at(9))),
                    _ => round.renew(at(9)),
                }
                assert_eq!(round.phase, after, "{before:?}, {fact}");
            }
        }
    }

    #[test]
    fn a_round_waits_until_it_is_known_how_relays_see_us() {
        let held = || {
            let mut round = Round::new(100);
            round.hold(at(0));
            round.on_session(false, at(0));
            assert!(round.on_list(200, 0, at(5)), "the peer's list changes nothing about that");
            assert_eq!(due(&mut round, 300), []);
            round
        };
        let mut round = held();
        // A complete list has a number of its own.
        round.renew(at(300));
        assert_eq!(due(&mut round, 310), []);
        round.release(at(310));
        assert_eq!(due(&mut round, 350), [(310, Due::Open(2)), (330, Due::Open(4)), (350, Due::Tell)]);
        assert_eq!(round.numbers(), (101, 200));
        round.renew(at(400));
        assert_eq!(due(&mut round, 400), [(400, Due::Open(2))], "later rounds do not wait");
        assert_eq!(due(&mut held(), 1_000), [(1_000, Due::Open(2))], "a relay that never leads there holds nothing up");
    }

    #[test]
    fn nobody_probes_before_both_ends_have_opened() {
        let (mut alice, mut bob) = (Round::new(100), Round::new(200));
        alice.on_session(true, at(0));
        let opened = [(0, Due::Open(2)), (20, Due::Open(4)), (40, Due::Tell)];
        assert_eq!(due(&mut alice, 40), opened);
        let (number, seen) = alice.numbers();
        assert_eq!((number, seen), (100, 0));

        assert!(bob.on_list(number, seen, at(50)));
        assert_eq!(due(&mut bob, 90), [(50, Due::Open(2)), (70, Due::Open(4)), (90, Due::Tell)]);
        let (number, seen) = bob.numbers();
        assert_eq!((number, seen), (200, 100));

        assert!(alice.on_list(number, seen, at(100)));
        let ready = [(100, Due::Open(2)), (120, Due::Open(4)), (140, Due::Tell), (140, Due::Probe)];
        assert_eq!(due(&mut alice, 140), ready, "it opens what the list named");
        let (number, seen) = alice.numbers();
        assert!(!bob.on_list(number, seen, at(150)));
        assert_eq!(due(&mut bob, 150), [(150, Due::Probe)]);
    }

    #[test]
    fn a_lost_answer_is_given_again_a_few_times() {
        let mut bob = Round::new(200);
        bob.on_list(100, 200, at(0));
        due(&mut bob, 1_000);
        assert!(bob.is_probing());
        let mut answers = 0;
        for _ in 0..10 {
            bob.on_list(100, 200, at(1_100));
            answers += due(&mut bob, 1_100).len();
        }
        assert_eq!(answers, usize::from(MAX_ANSWERS));
    }

    #[test]
    fn a_peer_that_says_nothing_is_told_twelve_times_and_rests_grow() {
        let mut round = Round::new(1);
        round.on_session(true, at(0));
        let told = due(&mut round, 10_000);
        assert_eq!(told.iter().filter(|(_, due)| *due == Due::Tell).count(), usize::from(MAX_TOLD));
        let told: Vec<_> = due(&mut round, 3_000_000)
            .into_iter()
            .filter(|(_, due)| *due == Due::Tell)
            .map(|(millis, _)| millis / 1_000)
            .collect();
        let begins: Vec<_> = told.chunks(MAX_TOLD.into()).map(|round| round[0]).collect();
        assert_eq!(
            begins,
            [38, 161, 464, 1_367, 2_270],
            "35 s, 2, 5 and 15 minutes after the round before, which took 3 s"
        );
    }

    #[test]
    fn the_ends_take_turns_in_keeping_what_their_routers_expect() {
        for (is_first, expected) in [
            (true, [(13, 1), (23, 1), (33, 1), (161, 2), (161, 4), (464, 2), (464, 4)].to_vec()),
            (false, [(38, 2), (38, 4)].into_iter().chain((51..=151).step_by(10).map(|second| (second, 1))).collect()),
        ] {
            let mut round = Round::new(1);
            round.on_session(is_first, at(0));
            due(&mut round, 10_000);
            let opened = due(&mut round, 500_000).into_iter().filter_map(|(millis, due)| match due {
                Due::Open(ttl) => Some((millis / 1_000, ttl)),
                Due::Tell | Due::Probe => None,
            });
            let opened: Vec<_> = opened.take(expected.len()).collect();
            assert_eq!(opened, expected, "is first: {is_first}");
        }
    }

    #[test]
    fn after_a_rest_without_keepers_there_are_openers() {
        let mut round = Round::new(1);
        round.on_session(true, at(0));
        due(&mut round, 10_000);
        assert_eq!(round.poll(0, at(100_000)), Some(Due::Open(2)));
    }

    #[test]
    fn pairs_that_are_new_get_openers_in_any_round() {
        let mut round = Round::new(1);
        round.on_session(true, at(0));
        due(&mut round, 37_000);
        round.on_new_pairs();
        round.on_list(9, 1, at(37_000));
        let openers: Vec<_> = due(&mut round, 37_100).into_iter().map(|(_, due)| due).collect();
        assert_eq!(openers[..2], [Due::Open(2), Due::Open(4)]);
    }

    #[test]
    fn a_list_that_was_overtaken_on_the_way_counts_for_nothing() {
        let mut round = Round::new(1);
        assert!(round.on_list(10, 0, at(0)));
        assert!(!round.on_list(9, 1, at(1)));
        assert_eq!((round.theirs, round.seen), (10, 0));
        assert!(round.on_list(4_000_000_000, 0, at(2)), "the peer has begun anew");
    }
}
