//! Doubt about the path in use. Its life:
//!
//! ```text
//! none -> suspect (two probes overdue: mirror, probe every path) -> none (a proof) | left (three more overdue, another proven)
//! none -> waking (the first packet after 25 s: mirror)           -> none (a proof) | suspect
//! none -> ending (as old as those before it became: mirror)      -> none (a second)  | suspect
//! ```

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::pair::Pair;
use super::{Agent, KEPT_EVERY, PROOF_EVERY, earlier};
use crate::Instant;
use crate::path::endpoint::Endpoint;

/// How long nothing is sent before the first packet is mirrored.
pub(super) const IDLE: Duration = Duration::from_secs(25);
/// The time between probes while a proof is missing.
const AGAIN: Duration = Duration::from_millis(50);
/// How many overdue probes make a path suspect, and how many more let it go.
const SUSPECT_AT: usize = 2;
const LEAVE_AT: usize = 3;
/// How long packets are mirrored, and which share of what was sent in the last [`SPAN`].
const MIRROR: Duration = Duration::from_secs(1);
const MIRRORED_SHARE: u64 = 10;
pub(super) const SPAN: Duration = Duration::from_secs(10);
/// What may be mirrored in any case, in bytes.
const MIRRORED_FREELY: u64 = 256 * 1024;
/// How long all proven paths are in doubt before every pair is tried anew.
const LOST: Duration = Duration::from_millis(1_500);
/// The time between probes of a path that stays in doubt.
const LATER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum Doubt {
    None,
    /// The first packet after a rest was sent. Mappings of routers may be gone.
    Waking {
        since: Instant,
        mirrored: u64,
    },
    /// The path has the age at which those before it ended. See [`super::age`].
    Ending {
        since: Instant,
        mirrored: u64,
    },
    /// Probes were not answered in time, or the peer was heard from a new address. `is_lost`: every pair is being tried anew.
    Suspect {
        since: Instant,
        mirrored: u64,
        is_lost: bool,
    },
}

impl Doubt {
    fn mirroring(self) -> Option<(Instant, u64)> {
        match self {
            Self::None => None,
            Self::Waking { since, mirrored }
            | Self::Ending { since, mirrored }
            | Self::Suspect { since, mirrored, .. } => Some((since, mirrored)),
        }
    }

    /// Ends the doubt that a proof of the path in use ends.
    pub(super) fn on_proof(&mut self) {
        if !matches!(self, Self::Ending { .. }) {
            *self = Self::None;
        }
    }

    /// Counts what is sent meanwhile.
    pub(super) fn on_bytes(&mut self, bytes: usize, now: Instant) {
        if let Self::Waking { since, mirrored }
        | Self::Ending { since, mirrored }
        | Self::Suspect { since, mirrored, .. } = self
            && now.since(*since) < MIRROR
        {
            *mirrored += bytes as u64;
        }
    }
}

impl Agent {
    /// Where every train goes a second time.
    pub(crate) fn mirror(&self, now: Instant) -> Option<Endpoint> {
        let (since, mirrored) = self.doubt.mirroring()?;
        if now.since(since) >= MIRROR || mirrored > MIRRORED_FREELY.max(self.volume.recent(now) / MIRRORED_SHARE) {
            return None;
        }
        self.second.and_then(|number| self.pairs.get(number)).map(|pair| pair.endpoint)
    }

    /// Chooses where packets go a second time: where the peer was just heard, or else the best proven path, or else a relay.
    /// When a mapping ends, other direct paths end with it. Trains only read the choice.
    pub(super) fn choose_second(&mut self) {
        let heard = self.heard.filter(|number| self.pairs.get(*number).is_some());
        let is_ending = matches!(self.doubt, Doubt::Ending { .. });
        let mut others = self.pairs.iter().filter(|pair| Some(pair.number) != self.primary);
        let relayed = others.find(|pair| pair.is_relayed()).map(|pair| pair.number);
        let warm = || self.warm().first().copied();
        self.second = heard.or(relayed.filter(|_| is_ending)).or_else(warm).or(relayed);
    }

    /// Handles the first packet after a rest.
    pub(super) fn on_waking(&mut self, now: Instant) {
        if self.primary.is_some() && matches!(self.doubt, Doubt::None) {
            self.doubt = Doubt::Waking { since: now, mirrored: 0 };
            self.choose_second();
        }
        self.wake(now);
    }

    /// Handles datagrams of the peer from an address that is new. Its router may have given it a different one, and then ours do
    /// not reach it any more where they go.
    pub(super) fn on_heard_elsewhere(&mut self, from: Endpoint, count: u32, now: Instant) {
        let Some(number) = self.pairs.ensure(from, now) else { return };
        if let Some(pair) = self.pairs.get_mut(number) {
            pair.received = count;
            pair.probe(now);
        }
        if matches!(self.doubt, Doubt::None | Doubt::Ending { .. }) {
            self.on_end(now);
        }
        self.heard = Some(number);
        self.choose_second();
        self.wake(now);
    }

    /// Doubts the path in use, which does not carry any more what it carried. Other reasons to doubt it say nothing of its age.
    fn on_end(&mut self, now: Instant) {
        if self.primary().is_some_and(|pair| !pair.is_relayed()) {
            self.ages.on_end(now);
        }
        self.suspect(now);
    }

    /// Whether the path in use is in doubt.
    pub(crate) fn is_suspect(&self) -> bool {
        matches!(self.doubt, Doubt::Suspect { .. })
    }

    /// Whether every path that was proven has failed.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.doubt, Doubt::Suspect { is_lost: true, .. })
    }

    pub(super) fn suspect(&mut self, now: Instant) {
        self.tally.suspicions += 1;
        let mirrored = self.doubt.mirroring().map_or(0, |(_, mirrored)| mirrored);
        self.doubt = Doubt::Suspect { since: now, mirrored, is_lost: false };
        self.choose_second();
        self.wake(now);
    }

    /// Proves the path in use, doubts it, and leaves it.
    pub(super) fn watch(&mut self, rng: &mut ChaCha8Rng, now: Instant) {
        let Some(number) = self.primary else {
            // The channel in use has ended.
            if let Some(best) = self.warm().first().copied() {
                self.take(best, now);
            }
            return;
        };
        self.await_end(now);
        let was_suspect = matches!(self.doubt, Doubt::Suspect { .. });
        if !was_suspect && self.primary().is_some_and(|pair| pair.overdue(None, now) >= SUSPECT_AT) {
            self.on_end(now);
            for other in self.pairs.numbers() {
                let may_work = |pair: &Pair| pair.is_proven() || pair.is_relayed();
                if other != number && self.pairs.get(other).is_some_and(may_work) {
                    self.ask(other, rng, now);
                }
            }
        }
        if self.watch_due().is_some_and(|at| at <= now) {
            self.ask(number, rng, now);
        }
        if let Doubt::Suspect { since, is_lost, mirrored } = self.doubt {
            if self.primary().is_some_and(|pair| pair.overdue(Some(since), now) >= LEAVE_AT) && self.leave(since, now) {
                return;
            }
            if !is_lost && now.since(since) >= LOST {
                self.doubt = Doubt::Suspect { since, mirrored, is_lost: true };
                self.round.renew(now);
            }
            if self.is_lost() {
                self.sought.on_lost(now);
            }
        }
    }

    /// Mirrors while the path in use is expected to end.
    fn await_end(&mut self, now: Instant) {
        match self.doubt {
            Doubt::None if self.end_due().is_some_and(|at| at <= now) => {
                self.ages.on_doubted();
                self.doubt = Doubt::Ending { since: now, mirrored: 0 };
                self.choose_second();
            }
            Doubt::Ending { since, .. } if now.since(since) >= MIRROR => self.doubt = Doubt::None,
            Doubt::None | Doubt::Waking { .. } | Doubt::Ending { .. } | Doubt::Suspect { .. } => {}
        }
    }

    /// When to begin or to stop to expect the end of the path in use.
    pub(super) fn end_due(&self) -> Option<Instant> {
        match self.doubt {
            Doubt::Ending { since, .. } => Some(since + MIRROR),
            Doubt::None => self.ages.doubted_at().filter(|_| self.primary().is_some_and(|pair| !pair.is_relayed())),
            Doubt::Waking { .. } | Doubt::Suspect { .. } => None,
        }
    }

    /// When the path in use is probed next.
    pub(super) fn watch_due(&self) -> Option<Instant> {
        let pair = self.primary()?;
        let (unanswered, last) = pair.unanswered();
        let overdue = last.map(|at| at + pair.trip.patience());
        let probe = match (self.doubt, unanswered, last) {
            (Doubt::Suspect { since, .. }, _, Some(last)) => {
                Some(if last < since + MIRROR { last + AGAIN.max(pair.trip.patience() / 4) } else { last + LATER })
            }
            (Doubt::Suspect { since, .. }, _, None) => Some(since),
            (Doubt::Waking { since, .. }, 0, _) => Some(since),
            (Doubt::Ending { .. }, 0, _) => pair.last_asked.map(|at| at + AGAIN),
            (_, 0, _) => {
                // Often while there is traffic, then more and more rarely. A peer that only receives must notice, too, that it hears
                // nothing any more: only what it sends opens its own routers again.
                let proof = pair.last_proof.max(pair.last_asked);
                let rest = self.traffic.zip(proof).map_or(Duration::ZERO, |(traffic, proof)| proof.since(traffic));
                Some(proof.map_or(Instant::default(), |at| at + rest.clamp(PROOF_EVERY, KEPT_EVERY)))
            }
            (_, 1, Some(last)) => Some(last + AGAIN),
            (_, _, _) => overdue,
        };
        earlier(probe, overdue.filter(|_| matches!(self.doubt, Doubt::Suspect { .. })))
    }

    /// Leaves the path in use for the best one that was proven since. Returns false if no path was.
    fn leave(&mut self, since: Instant, now: Instant) -> bool {
        let proven = self.pairs.iter().filter(|pair| Some(pair.number) != self.primary && pair.is_proven_since(since));
        let best = proven.min_by(|one, other| one.quality().order(other.quality())).map(|pair| pair.number);
        let Some(best) = best else { return false };
        if let Some(left) = self.primary.and_then(|number| self.pairs.get_mut(number)) {
            // A mapping that ends at its age says nothing against the path.
            left.on_failed(!self.ages.are_regular(), now);
        }
        self.take(best, now);
        // What made the old path fail may have opened others.
        self.round.renew(now);
        true
    }

    /// Sends packets over this pair from now on.
    pub(super) fn take(&mut self, number: u8, now: Instant) {
        self.since = Some(now);
        self.tally.switches += u64::from(self.primary.is_some());
        self.primary = Some(number);
        self.doubt = Doubt::None;
        self.heard = None;
    }
}
