//! Moving to a better path: by a new session over it, so that no session is spread over two paths.

use std::time::Duration;

use super::pair::Pair;
use super::rank::Better;
use super::{Agent, PROOF_EVERY, Step};
use crate::Instant;

/// How long the handshake of a move may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The shortest time between two such handshakes.
const APART: Duration = Duration::from_secs(2);
/// A path whose last proof is older than this gives way to one that a handshake has just used.
const FRESH: Duration = Duration::from_secs(3);

/// The move that is under way, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Move {
    to: Option<u8>,
    asked: Option<Instant>,
}

impl Move {
    /// When it is given up.
    pub(super) fn due(self) -> Option<Instant> {
        let (_, asked) = (self.to?, self.asked?);
        Some(asked + PATIENCE)
    }
}

impl Agent {
    /// Begins a move if a different path has been better for long enough.
    pub(super) fn improve(&mut self, now: Instant) {
        if self.moving.due().is_some_and(|at| at <= now) {
            self.moving.to = None;
        }
        if self.moving.to.is_some() || self.moving.asked.is_some_and(|at| now.since(at) < APART) {
            return;
        }
        let Some(best) = self.better(now) else { return };
        if let Some(pair) = self.pairs.get(best) {
            self.steps.push_back(Step::Rekey { to: pair.endpoint });
            self.moving = Move { to: Some(best), asked: Some(now) };
        }
    }

    /// The best pair that it pays to move to.
    fn better(&self, now: Instant) -> Option<u8> {
        let present = self.primary()?.quality();
        let settled = self.pairs.iter().filter(|pair| Some(pair.number) != self.primary && pair.is_settled(now));
        let better = settled.filter(|pair| pair.quality().better_than(present) != Better::No);
        better.min_by(|one, other| one.quality().order(other.quality())).map(|pair| pair.number)
    }

    /// Whether a peer that calls over this pair moves there, but hears us on the path in use as well: probes have proven both, and
    /// the path in use as lately as they do while there is traffic.
    fn is_moving_here(&self, number: u8, now: Instant) -> bool {
        let is_late = |pair: &Pair, at| now.since(at) > PROOF_EVERY * 2 + pair.trip.patience();
        let is_used = self.primary().is_some_and(|pair| pair.last_proof.is_some_and(|at| !is_late(pair, at)));
        // One of the proofs is the session itself.
        is_used && self.pairs.get(number).is_some_and(|pair| pair.proofs > 1)
    }

    /// Decides whether packets go over the pair that a new session was made over.
    pub(super) fn settle_session(&mut self, number: u8, is_initiator: bool, now: Instant) {
        let is_move = self.moving.to == Some(number);
        if is_initiator {
            self.moving.to = None;
        }
        let is_stale = self.primary().is_none_or(|pair| pair.last_proof.is_none_or(|at| now.since(at) >= FRESH));
        let is_better = || {
            let (Some(pair), Some(primary)) = (self.pairs.get(number), self.primary()) else { return true };
            pair.quality().better_than(primary.quality()) != Better::No
        };
        // The peer moves here by its own handshake. One new session is enough for both.
        let follows =
            !is_initiator && is_better() && self.pairs.get(number).is_some_and(|pair| pair.is_good_enough(now));
        if self.primary != Some(number) && (is_move || is_stale || follows) {
            if let Some(left) = self.primary.and_then(|number| self.pairs.get_mut(number))
                && left.quality().is_lossy()
            {
                left.on_left(now);
            }
            self.take(number, now);
        } else if self.primary != Some(number) && !is_initiator && !self.is_moving_here(number, now) {
            // The peer may have been started anew, and hear us only where it has called.
            self.heard = Some(number);
            self.suspect(now);
        }
    }
}
