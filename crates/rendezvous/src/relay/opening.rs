//! How a channel begins and ends.

use std::time::Duration;

use overlay_wire::relay::{Channel, Reason, Reply};
use overlay_wire::signed::{RelayPermit, Signed};
use rand_core::RngCore as _;

use super::Relay;
use super::bindings::{OPENS, Party};
use super::channels::Ends;
use crate::now::Now;
use crate::registry::MAX_AHEAD;

/// After this time an agent that opens too often is heard again.
const WHEN_OFTEN: Duration = Duration::from_secs(1);
/// After this time the other end may be there, or the table may have room.
const WHEN_ABSENT: Duration = Duration::from_secs(5);
const WHEN_FULL: Duration = Duration::from_secs(30);
/// For good: a newer permit is needed.
const NEVER: Duration = Duration::ZERO;

impl Relay {
    /// Answers an open of the agent in `slot`, and tells the other end.
    pub(super) fn open(&mut self, slot: usize, request: [u8; 8], permit: &[u8], now: Now) {
        let Some(binding) = self.bindings.at(slot) else { return };
        let leg = binding.leg;
        match self.opened(slot, permit, now) {
            Ok((channel, ends)) => {
                let (Some(opener), Some(issuer)) = (self.bindings.at(ends.from), self.bindings.at(ends.to)) else {
                    return;
                };
                let valid_for = ends.until.saturating_sub(now.monotonic);
                let opened = |request, peer| Reply::Opened { request, channel, peer, valid_for };
                let answer = (opened(request, issuer.party.identity), opener.leg);
                let notice = (opened(issuer.token, opener.party.identity), issuer.leg);
                for (reply, leg) in [answer, notice] {
                    self.reply(&reply, leg);
                }
            }
            Err(refused) => {
                let mut answers = [0; 16];
                answers[8..].copy_from_slice(&request);
                self.refuse(answers, refused, leg);
            }
        }
    }

    /// The channel that a permit stands for, which is there from now on.
    fn opened(&mut self, slot: usize, permit: &[u8], now: Now) -> Result<(Channel, Ends), (Reason, Duration)> {
        let limits = self.config.limits;
        let never = |reason| Err((reason, NEVER));
        let Some(binding) = self.bindings.at_mut(slot) else { return never(Reason::NotHere) };
        let (party, opened) = (binding.party, binding.opened);
        if !binding.opens.take(OPENS, now.monotonic) {
            return Err((Reason::TooOften, WHEN_OFTEN));
        }
        let permit = Signed::<RelayPermit>::open(permit).map_err(|_| (Reason::BadObject, NEVER))?;
        if permit.relay != self.config.key {
            return never(Reason::WrongRelay);
        }
        if permit.subject != party.identity || permit.network != party.network {
            return never(Reason::NotYours);
        }
        if permit.issued > now.unix.saturating_add(MAX_AHEAD) || permit.expires <= now.unix {
            return never(Reason::Expired);
        }
        let issuer = Party { network: permit.network, identity: permit.issuer };
        let issuer = self.bindings.slot(&issuer).and_then(|to| Some((to, self.bindings.at(to)?)));
        let Some((to, issuer)) = issuer.filter(|(_, issuer)| issuer.until > now.monotonic) else {
            return Err((Reason::NotHere, WHEN_ABSENT));
        };
        if permit.sequence < issuer.lowest_for(&party.identity) {
            return never(Reason::TakenBack);
        }
        let mut ends = Ends { from: slot, to, sequence: permit.sequence, until: now.until(permit.expires) };
        if let Some(channel) = self.channels.between(slot, to)
            && let Some(known) = self.channels.at(channel)
        {
            // The newer permit counts, in whatever order they come.
            if known.sequence > ends.sequence {
                ends = *known;
            }
            self.channels.set(channel, ends);
            return Ok((channel, ends));
        }
        if opened >= limits.channels_of_agent || self.channels.len() >= limits.channels {
            return Err((Reason::Full, WHEN_FULL));
        }
        let channel = self.free_channel();
        self.channels.set(channel, ends);
        for end in [slot, to] {
            if let Some(binding) = self.bindings.at_mut(end) {
                binding.channels.insert(channel);
                binding.opened += usize::from(end == slot);
            }
        }
        self.stats.opened += 1;
        Ok((channel, ends))
    }

    /// Closes a channel, if the agent in `slot` is at one of its ends. What its issuer closes stays closed.
    pub(super) fn close(&mut self, slot: usize, channel: Channel) {
        let Some(ends) = self.channels.at(channel).copied().filter(|ends| [ends.from, ends.to].contains(&slot)) else {
            return;
        };
        let subject = self.bindings.at(ends.from).map(|opener| opener.party.identity);
        if slot == ends.to
            && let Some(subject) = subject
            && let Some(issuer) = self.bindings.at_mut(slot)
        {
            issuer.on_closed(subject, ends.sequence);
        }
        self.remove_channel(channel);
        self.stats.closed += 1;
    }

    /// Ends the channels to the agent in `slot` whose permits it has taken back.
    pub(super) fn withdraw(&mut self, slot: usize) {
        let Some(issuer) = self.bindings.at(slot) else { return };
        let is_taken_back = |channel: &Channel| {
            let Some(ends) = self.channels.at(*channel).filter(|ends| ends.to == slot) else { return false };
            let Some(opener) = self.bindings.at(ends.from) else { return true };
            ends.sequence < issuer.lowest_for(&opener.party.identity)
        };
        let over: Vec<_> = issuer.channels.iter().copied().filter(is_taken_back).collect();
        for channel in over {
            self.remove_channel(channel);
            self.stats.withdrawn += 1;
        }
    }

    /// A number that no channel has. They are drawn, so that nobody guesses one from outside.
    fn free_channel(&mut self) -> Channel {
        loop {
            let drawn = Channel::new(self.rng.next_u32() >> 8);
            if let Some(channel) = drawn.filter(|channel| self.channels.at(*channel).is_none()) {
                return channel;
            }
        }
    }
}
