//! Proof that this agent is a member, signed by each rendezvous, for those who serve members alone: relays.
//!
//! It is valid for a week, is renewed once half of that is over, and lies on disk. So it serves while no rendezvous answers.

use std::time::Duration;

use overlay_rendezvous::now::Now;
use overlay_wire::signed::{Membership, Signed};

use super::{At, Meetings};
use crate::agent::Agent;
use crate::agent::time::{now, unix_now};

/// A rendezvous that refuses it, or has a clock that is far behind, is not asked again sooner.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// The proof of one rendezvous.
#[derive(Default)]
pub(super) struct Proof {
    known: Option<Signed<Membership>>,
    /// When it was asked for last, by the monotonic clock.
    asked: Option<Duration>,
}

impl Proof {
    /// Until when it is valid, in milliseconds since 1970.
    pub(super) fn until(&self) -> Option<u64> {
        self.known.as_ref().map(|membership| membership.expires)
    }

    /// Whether it is to be asked for now. If so, that is noted.
    pub(super) fn take_turn(&mut self, now: Now) -> bool {
        let is_due = self.is_due(now);
        if is_due {
            self.asked = Some(now.monotonic);
        }
        is_due
    }

    fn is_due(&self, now: Now) -> bool {
        let is_old = |membership: &Membership| {
            let half = (membership.expires - membership.issued) / 2;
            now.unix.saturating_add(half) >= membership.expires
        };
        let was_asked = self.asked.is_some_and(|asked| now.monotonic < asked + ASK_AGAIN);
        !was_asked && self.known.as_deref().is_none_or(is_old)
    }
}

impl Meetings {
    /// Takes what an earlier start has kept.
    pub(in crate::agent) fn set_memberships(&mut self, memberships: Vec<Signed<Membership>>) {
        let (network, identity) = (self.network, self.identity.public());
        for membership in memberships.into_iter().filter(|it| (it.network, it.identity) == (network, identity)) {
            if let Some(meeting) = self.at(&membership.rendezvous) {
                meeting.proof.known = Some(membership);
            }
        }
    }

    /// The proofs that are known.
    pub(in crate::agent) fn memberships(&self) -> impl Iterator<Item = &Signed<Membership>> {
        self.all.iter().filter_map(|meeting| meeting.proof.known.as_ref())
    }
}

impl Agent {
    /// Asks this rendezvous for a new proof if the old one is half over or missing.
    pub(in crate::agent) fn renew_membership(&mut self, at: &At) {
        if let Some(meeting) = self.meetings.at(at) {
            meeting.renew_membership(now());
        }
    }

    /// Keeps a proof, which the client has checked.
    pub(in crate::agent) fn on_membership(&mut self, membership: Signed<Membership>) {
        if membership.expires <= unix_now() {
            tracing::debug!("the rendezvous vouches for this agent until a time that is over: a clock is wrong");
        }
        let Some(meeting) = self.meetings.at(&membership.rendezvous) else { return };
        meeting.proof.known = Some(membership);
        if let Err(failure) = self.state.set_memberships(self.meetings.memberships()) {
            tracing::error!("{failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::{MAX_MEMBERSHIP, PublicKey, SecretKey};

    use super::*;

    const START: u64 = 1_800_000_000_000;

    fn membership(identity: PublicKey, rendezvous: &SecretKey) -> Signed<Membership> {
        let membership = Membership {
            network: SecretKey::from_bytes(&[1; 32]).public(),
            rendezvous: rendezvous.public(),
            identity,
            issued: START,
            expires: START + MAX_MEMBERSHIP,
        };
        Signed::sign(membership, rendezvous).expect("a good membership")
    }

    #[test]
    fn it_is_renewed_at_half_time_and_never_asked_for_without_pause() {
        let known = membership(SecretKey::from_bytes(&[2; 32]).public(), &SecretKey::from_bytes(&[3; 32]));
        let at = |unix, seconds| Now { unix, monotonic: Duration::from_secs(seconds) };
        let mut proof = Proof::default();
        assert!(proof.is_due(at(START, 1)), "it was never asked for");
        proof.asked = Some(Duration::from_secs(1));
        assert!(!proof.is_due(at(START, 600)));
        assert!(proof.is_due(at(START, 601)));
        proof.known = Some(known);
        assert!(!proof.is_due(at(START + MAX_MEMBERSHIP / 2 - 1, 10_000)));
        assert!(proof.is_due(at(START + MAX_MEMBERSHIP / 2, 10_000)));
        assert!(!proof.is_due(at(START - 1, 10_000)), "a clock that is behind asks for nothing");
    }
}
