//! How an agent is bound: a hello costs the relay nothing, and a bind is looked at once its cookie is right.

use std::time::Duration;

use overlay_wire::relay::{Bound, Reason, Reply};
use overlay_wire::signed::{PublicKey, RelayBind, Signed};
use rand_core::RngCore as _;

use super::bindings::{Binding, Party};
use super::prefixes::Admission;
use super::{BOUND_FOR, Leg, Members, Relay};
use crate::now::Now;
use crate::registry::MAX_AHEAD;

/// After this time a full table may have room.
const WHEN_FULL: Duration = Duration::from_secs(30);
/// After this time a network may bind again.
const WHEN_OFTEN: Duration = Duration::from_secs(1);
/// For good: something has to change first.
const NEVER: Duration = Duration::ZERO;

impl Relay {
    /// Answers a hello. Nothing is kept.
    pub(super) fn challenge(&mut self, (identity, nonce): (PublicKey, [u8; 16]), from: Leg, now: Now) {
        self.stats.challenges += 1;
        let cookie = self.cookies.make(from.remote, &identity, &nonce, now.monotonic);
        self.reply(&Reply::Challenge { nonce, cookie }, from);
    }

    pub(super) fn bind(
        &mut self,
        (identity, nonce, cookie): (PublicKey, [u8; 16], [u8; 16]),
        envelope: &[u8],
        from: Leg,
        now: Now,
    ) {
        if !self.cookies.check(&cookie, from.remote, (&identity, &nonce), now.monotonic) {
            self.stats.dropped_bad_cookie += 1;
            return;
        }
        let bound = match self.prefixes.admit(from.remote.ip(), now.monotonic) {
            Admission::Yes => self
                .verified((identity, nonce, cookie), envelope, now)
                .map_err(|reason| (reason, NEVER))
                .and_then(|(said, until)| self.take_in(said, from, until, now)),
            Admission::TooOften => Err((Reason::TooOften, WHEN_OFTEN)),
            Admission::Full => Err((Reason::Full, WHEN_FULL)),
        };
        match bound {
            Ok(slot) => self.tell_bound(slot, nonce, now),
            Err(refused) => self.refuse(nonce, refused, from),
        }
    }

    /// What an agent has signed, and until when that binds it.
    fn verified(
        &self,
        (identity, nonce, cookie): (PublicKey, [u8; 16], [u8; 16]),
        envelope: &[u8],
        now: Now,
    ) -> Result<(RelayBind, Duration), Reason> {
        let mut said = Signed::<RelayBind>::open(envelope).map_err(|_| Reason::BadObject)?.into_value();
        if (said.identity, said.nonce, said.cookie) != (identity, nonce, cookie) {
            return Err(Reason::BadObject);
        }
        if said.relay != self.config.key {
            return Err(Reason::WrongRelay);
        }
        let mut until = now.monotonic + BOUND_FOR;
        if let Members::VouchedBy(rendezvous) = &self.config.members {
            let membership = said.verified_membership().ok_or(Reason::NotAMember)?;
            if !rendezvous.contains(&membership.rendezvous) {
                return Err(Reason::NotAMember);
            }
            if membership.issued > now.unix.saturating_add(MAX_AHEAD) || membership.expires <= now.unix {
                return Err(Reason::Expired);
            }
            until = until.min(now.until(membership.expires));
        }
        // It was checked, and nobody asks for it again.
        said.membership = None;
        Ok((said, until))
    }

    /// Binds an agent, or renews its binding, and returns its slot.
    fn take_in(&mut self, said: RelayBind, from: Leg, until: Duration, now: Now) -> Result<usize, (Reason, Duration)> {
        let party = Party { network: said.network, identity: said.identity };
        let known = self.bindings.slot(&party);
        let known = known.and_then(|slot| Some((slot, self.bindings.at(slot)?)));
        if let Some((slot, binding)) = known
            && binding.until > now.monotonic
        {
            if said.epoch < binding.epoch {
                return Err((Reason::OldEpoch, NEVER));
            }
            if said.epoch == binding.epoch {
                // Our answer was lost, and it asks again. Anything else with the same epoch is an old datagram, or a copy.
                let is_same = said.nonce == binding.nonce && from.remote == binding.leg.remote;
                return if is_same { Ok(slot) } else { Err((Reason::OldEpoch, NEVER)) };
            }
            return self.renew(slot, said, from, until).map(|()| slot);
        }
        let lapsed = known.map(|(slot, _)| slot);
        if let Some(slot) = lapsed {
            self.unbind(slot);
            self.stats.lapsed += 1;
        }
        self.check_room(from)?;
        let token = self.free_token();
        self.prefixes.on_bound(from.remote.ip());
        self.stats.bound += 1;
        Ok(self.bindings.insert(Binding::new(said, from, until, token)))
    }

    fn check_room(&self, from: Leg) -> Result<(), (Reason, Duration)> {
        let limits = &self.config.limits;
        let is_crowded = self.config.members == Members::Everybody
            && self.prefixes.bindings(from.remote.ip()) >= limits.bindings_of_prefix;
        if is_crowded || self.bindings.len() >= limits.bindings { Err((Reason::Full, WHEN_FULL)) } else { Ok(()) }
    }

    /// A newer bind: a new address, and permits that are not valid any more.
    fn renew(&mut self, slot: usize, said: RelayBind, from: Leg, until: Duration) -> Result<(), (Reason, Duration)> {
        let Some(binding) = self.bindings.at_mut(slot) else { return Ok(()) };
        let old = std::mem::replace(&mut binding.leg, from);
        (binding.epoch, binding.nonce, binding.until, binding.said) = (said.epoch, said.nonce, until, said);
        self.stats.renewed += 1;
        if old.remote != from.remote {
            self.stats.moved += 1;
            self.prefixes.on_unbound(old.remote.ip());
            self.prefixes.on_bound(from.remote.ip());
        }
        self.withdraw(slot);
        Ok(())
    }

    fn free_token(&mut self) -> [u8; 8] {
        let mut token = [0; 8];
        loop {
            self.rng.fill_bytes(&mut token);
            if !self.bindings.has_token(&token) {
                return token;
            }
        }
    }

    fn tell_bound(&mut self, slot: usize, nonce: [u8; 16], now: Now) {
        let Some(binding) = self.bindings.at(slot) else { return };
        let (leg, party) = (binding.leg, binding.party);
        let limits = &self.config.limits;
        let bound = Bound {
            nonce,
            token: binding.token,
            observed: leg.remote,
            lifetime: binding.until.saturating_sub(now.monotonic),
            rate: limits.rate.map_or(0, Into::into),
            daily: limits.daily.map_or(0, Into::into),
            daily_left: limits.daily.map_or(0, |daily| self.usage.left(&party.identity, daily, now.unix)),
        };
        self.reply(&Reply::Bound(bound), leg);
    }
}
