//! The path agent of one peer: finds the pairs of addresses that work, chooses the one that packets take, and leaves it as
//! soon as it is in doubt. The reasons are in docs/paths.md.
//!
//! * **A path is proven only by a reply that was sent after our packet.** Sessions begin through a relay, which always works;
//!   then every direct pair is probed by control frames inside the session ([`round`], [`pair`]).
//! * **Suspect, mirror, switch** ([`doubt`]). While a path is in doubt, every train goes out a second time over a different
//!   one. The replay window drops the double, so the decision can take its time.
//! * **A planned move changes the session** ([`better`]): the handshake goes over the new path, and so does everything in the
//!   new session. Otherwise the difference of two round trips could exceed the replay window. What overtakes the stream before
//!   the move waits for it ([`early`]).
//!
//! A peer with which nothing was exchanged for a minute *sleeps*: the agent sends it nothing.
//!
//! Facts go in through `on_*` and `set_*`. [`Agent::poll`] returns what to do, and [`Agent::deadline`] says when to ask again.

mod age;
mod better;
mod calls;
mod doubt;
mod early;
mod loss;
pub(crate) mod pair;
mod pairs;
mod rank;
mod round;
mod rtt;
mod search;
mod sought;
mod volume;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use self::age::Ages;
use self::better::Move;
use self::calls::Calls;
use self::doubt::Doubt;
use self::early::Early;
pub(crate) use self::early::Place;
use self::pair::Pair;
use self::pairs::{Pairs, is_same};
pub(crate) use self::round::KEEPER_TTL;
use self::round::{Due, Round};
use self::search::{Search, Searches};
use self::sought::Sought;
use self::volume::Volume;
use crate::instant::earlier;
use crate::path::endpoint::Endpoint;
use crate::path::probing::Share;
use crate::{Base, Instant, Method, Remote};

/// How long after the last packet of an application a peer sleeps.
const ACTIVE: Duration = Duration::from_secs(60);
/// How often the path in use is proven while there is traffic.
const PROOF_EVERY: Duration = Duration::from_millis(200);
/// How often at least, while the peer does not sleep, so that the mappings of routers stay.
const KEPT_EVERY: Duration = Duration::from_secs(15);
/// How often a warm path is proven, and how often one that may become better.
const WARM_EVERY: Duration = Duration::from_secs(5);
const SETTLING_EVERY: Duration = Duration::from_millis(700);
/// How often a relay that did not answer is tried.
const RELAY_RETRY: Duration = Duration::from_secs(2);
/// How many paths beside the one in use are kept warm.
const MAX_WARM: usize = 2;
/// How many other paths what must not be lost is sent over.
const MAX_OTHERS: usize = 8;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send an opener.
    Open { to: Endpoint, ttl: u8 },
    /// Send a probe of this pair.
    Probe { to: Endpoint, pair: u8, id: u32, sent: u32 },
    /// Tell the peer our list of candidates, with these numbers, over the path in use.
    Tell { number: u32, opened: u32 },
    /// Send an initiation to this pair alone, so that packets move there with the new session.
    Rekey { to: Endpoint },
}

/// The paths to one peer, and what is done about them.
#[derive(Debug)]
pub(crate) struct Agent {
    pairs: Pairs,
    /// The number of the pair that packets take.
    primary: Option<u8>,
    /// The pair that the peer was heard from although nobody had named it, while the path in use is in doubt.
    heard: Option<u8>,
    /// The pair that is mirrored to while the path in use is in doubt.
    second: Option<u8>,
    since: Option<Instant>,
    round: Round,
    search: Search,
    doubt: Doubt,
    ages: Ages,
    moving: Move,
    calls: Calls,
    sought: Sought,
    /// Whether control expects a channel of a relay soon.
    awaits_relay: bool,
    /// When an application last sent or received, and when something was last sent for one.
    traffic: Option<Instant>,
    sent: Option<Instant>,
    /// Bytes sent for applications in the last seconds, and their datagrams at this moment: sent and received.
    volume: Volume,
    sending: Volume,
    receiving: Volume,
    early: Early,
    steps: VecDeque<Step>,
    next: Option<Instant>,
    /// What is sent because of this peer to addresses that may be a victim's.
    pub(crate) share: Share,
    /// Counted for control: see [`Tally`].
    pub(crate) tally: Tally,
}

/// What has happened on the paths to one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) switches: u64,
    pub(crate) suspicions: u64,
}

impl Agent {
    pub(crate) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self {
            pairs: Pairs::default(),
            primary: None,
            heard: None,
            second: None,
            since: None,
            round: Round::new(rng.next_u32()),
            search: Search::default(),
            doubt: Doubt::None,
            ages: Ages::default(),
            moving: Move::default(),
            calls: Calls::default(),
            sought: Sought::default(),
            awaits_relay: false,
            traffic: None,
            sent: None,
            volume: Volume::over(doubt::SPAN),
            sending: Volume::over(early::RATE_SPAN),
            receiving: Volume::over(early::RATE_SPAN),
            early: Early::default(),
            steps: VecDeque::new(),
            next: None,
            share: Share::default(),
            tally: Tally::default(),
        }
    }

    /// Sets where the peer may be reached, as control knows, and from which addresses of ours.
    pub(crate) fn set_remote(&mut self, remote: &Remote, bases: &[Base], now: Instant) {
        self.await_relay(remote.awaits_relay, now);
        let has_new = self.pairs.set_remote(remote, bases, self.primary, now);
        self.on_pairs_changed(has_new, now);
    }

    /// Handles a change of our own addresses. Nothing that was proven counts any more, but packets go on as before.
    pub(crate) fn on_network_change(&mut self, bases: &[Base], now: Instant) {
        self.pairs.set_bases(bases, self.primary, now);
        self.pairs.forget(self.primary);
        if self.is_active(now) && self.primary.is_some() {
            self.suspect(now);
        }
        self.renew(now);
    }

    /// Begins a round, because what our list says has changed.
    pub(crate) fn renew(&mut self, now: Instant) {
        self.round.renew(now);
        self.wake(now);
    }

    fn on_pairs_changed(&mut self, has_new: bool, now: Instant) {
        if self.primary().is_none() {
            self.primary = None;
        }
        if has_new {
            self.round.on_new_pairs();
        }
        if has_new && self.round.is_under_way() {
            self.round.renew(now);
        }
        self.wake(now);
    }

    /// Handles the peer's list of candidates.
    pub(crate) fn on_list(&mut self, number: u32, seen: u32, addresses: &[SocketAddr], bases: &[Base], now: Instant) {
        if self.round.on_list(number, seen, now) && self.pairs.set_told(addresses, bases, self.primary, now) {
            self.round.on_new_pairs();
        }
        self.wake(now);
    }

    /// Handles a new session, whose first message came from `from`. As the initiator we have got an answer there. Otherwise
    /// the peer has got ours. Returns how much was sent there without an answer.
    pub(crate) fn on_session(&mut self, from: Endpoint, is_initiator: bool, now: Instant) -> Option<u32> {
        self.calls.on_session();
        self.sought = Sought::default();
        self.traffic = self.traffic.max(Some(now));
        self.hold_round(from, now);
        self.round.on_session(is_initiator, now);
        self.wake(now);
        let number = self.pairs.ensure(from, now)?;
        let pair = self.pairs.get_mut(number)?;
        pair.on_proof(now);
        let charged = std::mem::take(&mut pair.charged);
        self.settle_session(number, is_initiator, now);
        Some(charged)
    }

    /// Takes a probe that came from there. Returns how many datagrams of the pair have arrived, for the reply. `None`: the probe
    /// is of a former session, and a reply in the present one would come too late.
    pub(crate) fn on_probe(&mut self, from: Endpoint, sent: u32, is_former: bool, now: Instant) -> Option<u32> {
        let Some(number) = self.pairs.ensure(from, now) else { return Some(0) };
        let Some(pair) = self.pairs.get_mut(number) else { return Some(0) };
        // What came before it is counted already, and it is counted later.
        let received = pair.received.wrapping_add(1);
        pair.inbound.on_sample(sent, received, now);
        if !pair.is_proven() {
            // The peer reaches us there, so our own routers let it in: that may be a mapping nobody could name.
            pair.probe(now);
            self.wake(now);
        }
        let is_late = is_former && self.pairs.get(number).is_some_and(|pair| self.is_too_late(pair, now));
        (!is_late).then_some(received)
    }

    /// Takes the reply to a probe of ours. Returns where the probe was sent, and how much was sent there without an answer.
    /// `None`: it answers no probe, or it came over a different pair than `from` and proves neither (RFC 8445 section
    /// 7.2.5.2.1).
    pub(crate) fn on_reply(
        &mut self,
        (id, arrived): (u32, u32),
        from: Endpoint,
        waited: Duration,
        now: Instant,
    ) -> Option<(SocketAddr, u32)> {
        let answers = |pair: &mut Pair| is_same(pair.endpoint, from) && pair.on_reply((id, arrived), waited, now);
        let pair = self.pairs.iter_mut().find_map(|pair| answers(pair).then_some(pair))?;
        let (number, is_direct) = (pair.number, !pair.is_relayed());
        let answered = (pair.endpoint.address, std::mem::take(&mut pair.charged));
        self.pairs.settle_base(number, from.via, self.primary);
        if is_direct {
            self.round.on_found();
        }
        if Some(number) == self.primary {
            self.doubt.on_proof();
            self.heard = None;
        }
        self.wake(now);
        Some(answered)
    }

    /// Whether a probe with this id waits for its reply.
    pub(crate) fn awaits_reply(&self, id: u32) -> bool {
        self.pairs.iter().any(|pair| pair.has_asked(id))
    }

    /// Records that datagrams came from there, and the place of the latest one. `is_traffic`: an application sent one of them.
    pub(crate) fn on_received(&mut self, from: Endpoint, count: u32, latest: Place, is_traffic: bool, now: Instant) {
        if is_traffic {
            self.traffic = Some(now);
            self.receiving.add(count as usize, now);
            if self.early.on_stream(from, latest, now) {
                self.wake(now);
            }
        }
        if let Some(pair) = self.pairs.at_mut(from) {
            pair.received = pair.received.wrapping_add(count);
        } else if self.primary.is_some() {
            self.on_heard_elsewhere(from, count, now);
        }
    }

    /// Records that an application is about to send `count` packets, `bytes` long together.
    pub(crate) fn on_sending(&mut self, count: usize, bytes: usize, now: Instant) {
        let before = self.sent.replace(now);
        self.traffic = Some(now);
        self.volume.add(bytes, now);
        self.sending.add(count, now);
        self.doubt.on_bytes(bytes, now);
        if before.is_none_or(|before| now.since(before) >= doubt::IDLE) {
            self.on_waking(now);
        }
        // The proof that is due next.
        if let Some(primary) = self.primary.and_then(|number| self.pairs.get(number)) {
            self.next = earlier(self.next, primary.last_proof.map(|at| at + PROOF_EVERY));
        }
    }

    /// Records that datagrams were sent over the path in use. What was mirrored counts for no path: of both copies, the peer
    /// counts the one that came first.
    pub(crate) fn on_sent(&mut self, count: u32, is_mirrored: bool) {
        if !is_mirrored && let Some(pair) = self.primary.and_then(|number| self.pairs.get_mut(number)) {
            pair.sent = pair.sent.wrapping_add(count);
        }
    }

    /// The pair of this endpoint.
    pub(crate) fn pair_at(&mut self, endpoint: Endpoint) -> Option<&mut Pair> {
        self.pairs.at_mut(endpoint)
    }

    /// Where packets go.
    pub(crate) fn primary(&self) -> Option<&Pair> {
        self.primary.and_then(|number| self.pairs.get(number))
    }

    /// The other paths that work. What arrives on one that nobody has proven may do harm: before the openers of the peer, and in
    /// the silence after a round.
    pub(crate) fn others(&self) -> Vec<Endpoint> {
        let others = self.pairs.iter().filter(|pair| Some(pair.number) != self.primary && pair.is_proven());
        others.take(MAX_OTHERS).map(|pair| pair.endpoint).collect()
    }

    /// All pairs.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter()
    }

    /// Whether a relay that the peer is bound to can be used, now or soon.
    pub(crate) fn has_relay(&self) -> bool {
        self.awaits_relay || self.pairs.iter().any(|pair| pair.is_named && pair.is_relayed())
    }

    /// Whether a direct pair is proven.
    fn has_direct(&self) -> bool {
        self.pairs.iter().any(|pair| pair.is_proven() && !pair.is_relayed())
    }

    /// The searches for a direct path since the last call, for control to count.
    pub(crate) fn take_searches(&mut self) -> Option<Searches> {
        self.search.take()
    }

    /// Attempts to prove pairs since the last call, for control to count: how many were made, and how many succeeded.
    pub(crate) fn take_attempts(&mut self) -> impl Iterator<Item = (Method, (u64, u64))> {
        self.pairs.iter_mut().map(Pair::take_attempts).filter(|(_, attempts)| *attempts != (0, 0))
    }

    /// Whether an application has used the peer lately.
    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.traffic.is_some_and(|at| now.since(at) < ACTIVE)
    }

    /// Whether direct pairs are being tried. If not, when they are tried again.
    pub(crate) fn round_state(&self) -> (bool, Option<Instant>) {
        (self.round.is_under_way(), self.round.rests_until())
    }

    /// Whether the peer has told its addresses in the session.
    pub(crate) fn has_heard_list(&self) -> bool {
        self.round.has_heard()
    }

    /// Since when packets take the path in use.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When to poll.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    fn wake(&mut self, now: Instant) {
        self.wake_at(now);
    }

    fn wake_at(&mut self, at: Instant) {
        self.next = earlier(self.next, Some(at));
    }

    /// Returns what to do now. Call it until it returns `None`. There must be a session.
    pub(crate) fn poll(&mut self, rng: &mut ChaCha8Rng, now: Instant) -> Option<Step> {
        if self.steps.is_empty() && self.next.is_some_and(|at| at <= now) {
            self.next = None;
            if self.is_active(now) {
                self.advance(rng, now);
                self.next = self.due(now);
            } else {
                // A search that goes to sleep is over.
                self.search.look(false, self.has_direct(), now);
            }
        }
        self.steps.pop_front()
    }

    fn advance(&mut self, rng: &mut ChaCha8Rng, now: Instant) {
        while let Some(due) = self.round.poll(rng.next_u32(), now) {
            self.on_round(due, now);
        }
        self.search.look(self.round.is_under_way(), self.has_direct(), now);
        for pair in self.pairs.iter_mut().filter(|pair| pair.is_relayed()) {
            if pair.last_asked.is_none_or(|at| now.since(at) >= RELAY_RETRY) {
                pair.probe(now);
            }
        }
        self.watch(rng, now);
        self.keep_warm(rng, now);
        for number in self.pairs.numbers() {
            if self.pairs.get_mut(number).is_some_and(|pair| pair.poll(now)) {
                self.ask(number, rng, now);
            }
        }
        self.improve(now);
        self.choose_second();
    }

    fn on_round(&mut self, due: Due, now: Instant) {
        let is_open = |pair: &&Pair| !pair.is_relayed() && !pair.is_proven();
        match due {
            Due::Open(ttl) => {
                let steps = self.pairs.iter().filter(is_open).map(|pair| Step::Open { to: pair.endpoint, ttl });
                self.steps.extend(steps);
            }
            Due::Tell => {
                let (number, opened) = self.round.numbers();
                self.steps.push_back(Step::Tell { number, opened });
            }
            Due::Probe => {
                for pair in self.pairs.iter_mut().filter(|pair| is_open(&&**pair)) {
                    pair.probe(now);
                }
            }
        }
    }

    /// Proves the paths beside the one in use: those that may become better, and the warm ones.
    fn keep_warm(&mut self, rng: &mut ChaCha8Rng, now: Instant) {
        for number in self.pairs.numbers() {
            if self.warm_due(number, now).is_some_and(|at| at <= now) {
                if self.pairs.get(number).is_some_and(|pair| pair.overdue(None, now) >= 3) {
                    if let Some(pair) = self.pairs.get_mut(number) {
                        pair.on_failed(false, now);
                    }
                    continue;
                }
                self.ask(number, rng, now);
            }
        }
    }

    fn warm_due(&self, number: u8, now: Instant) -> Option<Instant> {
        let pair = self.pairs.get(number).filter(|pair| pair.is_proven() && Some(number) != self.primary)?;
        let is_settled = pair.is_settled(now);
        if is_settled && !self.warm().contains(&number) || self.is_too_late(pair, now) {
            return None;
        }
        let every = if is_settled { WARM_EVERY } else { SETTLING_EVERY };
        Some(pair.last_asked.max(pair.last_proof).map_or(now, |at| at + every))
    }

    /// The paths that are kept warm: the best ones beside the one in use, a relayed one among them.
    fn warm(&self) -> Vec<u8> {
        let mut proven: Vec<_> =
            self.pairs.iter().filter(|pair| pair.is_proven() && Some(pair.number) != self.primary).collect();
        proven.sort_by(|one, other| one.quality().order(other.quality()));
        if let Some(relayed) = proven.iter().position(|pair| pair.is_relayed())
            && relayed >= MAX_WARM
        {
            proven.swap(relayed, MAX_WARM - 1);
        }
        proven.iter().take(MAX_WARM).map(|pair| pair.number).collect()
    }

    /// Sends a probe.
    fn ask(&mut self, number: u8, rng: &mut ChaCha8Rng, now: Instant) {
        let Some(pair) = self.pairs.get_mut(number) else { return };
        let id = rng.next_u32();
        pair.sent = pair.sent.wrapping_add(1);
        pair.on_asked(id, now);
        self.steps.push_back(Step::Probe { to: pair.endpoint, pair: number, id, sent: pair.sent });
    }

    /// When something is due next.
    fn due(&self, now: Instant) -> Option<Instant> {
        let mut next = earlier(earlier(self.round.due(), self.watch_due()), self.early.due());
        next = earlier(earlier(next, self.moving.due()), self.end_due());
        for pair in self.pairs.iter() {
            next = earlier(next, pair.due());
            next = earlier(next, self.warm_due(pair.number, now));
            if pair.is_proven() && pair.settles_at() > now {
                next = earlier(next, Some(pair.settles_at()));
            }
            if pair.is_relayed() && !pair.is_proven() && pair.due().is_none() {
                next = earlier(next, Some(pair.last_asked.map_or(now, |at| at + RELAY_RETRY)));
            }
        }
        next
    }
}
