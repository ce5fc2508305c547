//! The channels of an agent at one relay: those that it wants, those that are there, and those that it closes.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_wire::relay::Channel;
use overlay_wire::signed::{PublicKey, RelayPermit, Signed};

/// The most agents to which channels are wanted.
pub(super) const MAX_WANTED: usize = 1_024;
/// The most channels that are known, ours and those of others.
pub(super) const MAX_KNOWN: usize = 4_096;
/// The most channels that are being closed.
pub(super) const MAX_CLOSING: usize = 256;
/// When an open or a close is repeated for the first time, and the longest time between two.
const FIRST_REPEAT: Duration = Duration::from_millis(500);
const LONGEST_REPEAT: Duration = Duration::from_secs(30);
/// The longest time between two opens that a relay refuses for the time being, as those to a peer that is not there. What the
/// relay says is doubled with each.
const LONGEST_REFUSAL: Duration = Duration::from_secs(600);
/// How often a close is said. The channel ends by itself with the binding of either end.
const MAX_CLOSES: u32 = 4;

/// A message that is repeated until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    sent: u32,
    next: Duration,
}

impl Repeated {
    fn at(next: Duration) -> Self {
        Self { sent: 0, next }
    }

    fn on_sent(&mut self, now: Duration) {
        self.next = now + FIRST_REPEAT.saturating_mul(1 << self.sent.min(8)).min(LONGEST_REPEAT);
        self.sent += 1;
    }
}

/// A channel that we want, to the agent that signed the permit.
#[derive(Debug)]
pub(super) struct Wanted {
    permit: Signed<RelayPermit>,
    /// The channel, as far as we know.
    channel: Option<Channel>,
    /// The open that is out or due, with the number that its answer repeats.
    opening: Option<([u8; 8], Repeated)>,
    /// How often it was refused for the time being.
    refusals: u32,
}

/// A channel that is there, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) peer: PublicKey,
    /// Whether we opened it.
    pub(super) is_ours: bool,
    /// When the relay last hinted that it is gone.
    pub(super) doubted: Option<Duration>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Channels {
    wanted: BTreeMap<PublicKey, Wanted>,
    known: BTreeMap<Channel, Known>,
    closing: BTreeMap<Channel, Repeated>,
}

impl Channels {
    pub(super) fn known(&self, channel: Channel) -> Option<&Known> {
        self.known.get(&channel)
    }

    /// The channel that we opened to an agent.
    pub(super) fn to(&self, peer: &PublicKey) -> Option<Channel> {
        self.wanted.get(peer)?.channel
    }

    /// Wants a channel, unless there is one with this or a newer permit. `false`: there is no room.
    pub(super) fn want(&mut self, permit: Signed<RelayPermit>, request: [u8; 8], now: Duration) -> bool {
        let peer = permit.issuer;
        let opening = Some((request, Repeated::at(now)));
        if let Some(wanted) = self.wanted.get_mut(&peer) {
            if wanted.permit.sequence < permit.sequence {
                (wanted.permit, wanted.opening, wanted.refusals) = (permit, opening, 0);
            }
            return true;
        }
        let has_room = self.wanted.len() < MAX_WANTED;
        if has_room {
            self.wanted.insert(peer, Wanted { permit, channel: None, opening, refusals: 0 });
        }
        has_room
    }

    /// Does not want a channel any more. Returns the one there is.
    pub(super) fn forget(&mut self, peer: &PublicKey) -> Option<Channel> {
        let channel = self.wanted.remove(peer)?.channel;
        channel.filter(|channel| self.known.remove(channel).is_some())
    }

    /// Closes a channel.
    pub(super) fn close(&mut self, channel: Channel, now: Duration) {
        if let Some(Known { peer, is_ours: true, .. }) = self.known.remove(&channel) {
            self.wanted.remove(&peer);
        }
        if self.closing.len() < MAX_CLOSING {
            self.closing.insert(channel, Repeated::at(now));
        }
    }

    /// The relay has answered an open. Returns what is new: whether there is a channel that was not known, and one that is
    /// gone. `None`: it answers no open of ours.
    pub(super) fn on_opened(
        &mut self,
        request: &[u8; 8],
        peer: PublicKey,
        channel: Channel,
    ) -> Option<(bool, Option<Channel>)> {
        let wanted = self.wanted.get_mut(&peer)?;
        if wanted.opening.is_none_or(|(asked, _)| asked != *request) {
            return None;
        }
        (wanted.opening, wanted.refusals) = (None, 0);
        let gone = wanted.channel.replace(channel).filter(|old| *old != channel);
        let gone = gone.filter(|old| self.known.remove(old).is_some());
        let is_new = self.known.insert(channel, Known { peer, is_ours: true, doubted: None }).is_none();
        Some((is_new, gone))
    }

    /// The relay has said that an agent opened a channel to us. Returns whether it was not known.
    pub(super) fn on_noticed(&mut self, peer: PublicKey, channel: Channel) -> bool {
        let is_known = self.known.contains_key(&channel);
        if self.closing.contains_key(&channel) || (!is_known && self.known.len() >= MAX_KNOWN) {
            return false;
        }
        self.known.insert(channel, Known { peer, is_ours: false, doubted: None });
        !is_known
    }

    /// An open is refused. `wait`: when to ask again, or `None` if only a newer permit helps. Then it is not wanted any more.
    /// Returns whom it was for, and the channel that is gone.
    pub(super) fn on_refused(
        &mut self,
        request: &[u8],
        wait: Option<Duration>,
        now: Duration,
    ) -> Option<(PublicKey, Option<Channel>)> {
        let is_asked = |wanted: &Wanted| wanted.opening.is_some_and(|(asked, _)| asked[..] == *request);
        let (peer, wanted) = self.wanted.iter_mut().find(|(_, wanted)| is_asked(wanted))?;
        let peer = *peer;
        let Some(wait) = wait else { return Some((peer, self.forget(&peer))) };
        if let Some((_, repeated)) = &mut wanted.opening {
            repeated.next = now + wait.saturating_mul(1 << wanted.refusals.min(16)).min(LONGEST_REFUSAL.max(wait));
            wanted.refusals += 1;
        }
        Some((peer, None))
    }

    /// There is a reason why a channel to this agent may open now.
    pub(super) fn hurry(&mut self, peer: &PublicKey, now: Duration) {
        let Some(wanted) = self.wanted.get_mut(peer).filter(|wanted| wanted.refusals > 0) else { return };
        wanted.refusals = 0;
        if let Some((_, repeated)) = &mut wanted.opening {
            repeated.next = now;
        }
    }

    /// The relay hints that a channel is gone: one of ours is opened again, with this number. One of somebody else's was
    /// doubted before and bound since (`bound`), so it is gone: it is returned.
    pub(super) fn on_doubted(
        &mut self,
        channel: Channel,
        request: [u8; 8],
        bound: Duration,
        now: Duration,
    ) -> Option<PublicKey> {
        let known = self.known.get_mut(&channel)?;
        let peer = known.peer;
        let was_doubted = known.doubted.replace(now);
        if known.is_ours {
            if let Some(wanted) = self.wanted.get_mut(&peer) {
                wanted.opening = Some((request, Repeated::at(now)));
            }
            return None;
        }
        let is_gone = was_doubted.is_some_and(|doubted| doubted <= bound);
        if is_gone { self.known.remove(&channel).map(|known| known.peer) } else { None }
    }

    /// A close was answered. Returns whether one was out.
    pub(super) fn on_closed(&mut self, channel: Channel) -> bool {
        self.closing.remove(&channel).is_some()
    }

    /// The relay knows none of our channels any more: ours are opened again, with a number from `fresh` for each. Returns
    /// what was there.
    pub(super) fn on_lost(&mut self, mut fresh: impl FnMut() -> [u8; 8], now: Duration) -> Vec<(Channel, PublicKey)> {
        self.closing.clear();
        for wanted in self.wanted.values_mut() {
            (wanted.channel, wanted.opening) = (None, Some((fresh(), Repeated::at(now))));
        }
        std::mem::take(&mut self.known).into_iter().map(|(channel, known)| (channel, known.peer)).collect()
    }

    /// Opens that are due: their numbers and their permits.
    pub(super) fn opens(&mut self, now: Duration) -> Vec<([u8; 8], Vec<u8>)> {
        let due = self.wanted.values_mut().filter_map(|wanted| {
            let (request, repeated) = wanted.opening.as_mut().filter(|(_, repeated)| repeated.next <= now)?;
            repeated.on_sent(now);
            Some((*request, wanted.permit.bytes().to_vec()))
        });
        due.collect()
    }

    /// Closes that are due.
    pub(super) fn closes(&mut self, now: Duration) -> Vec<Channel> {
        self.closing.retain(|_, repeated| repeated.sent < MAX_CLOSES || repeated.next > now);
        let due = self.closing.iter_mut().filter(|(_, repeated)| repeated.next <= now);
        due.map(|(channel, repeated)| {
            repeated.on_sent(now);
            *channel
        })
        .collect()
    }

    /// When an open or a close is due.
    pub(super) fn due(&self) -> Option<Duration> {
        let opens = self.wanted.values().filter_map(|wanted| wanted.opening).map(|(_, repeated)| repeated.next);
        opens.chain(self.closing.values().map(|repeated| repeated.next)).min()
    }
}
