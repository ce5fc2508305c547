//! The data path: which end a train comes from, and so where it goes.

use overlay_wire::relay::{DATA_HEAD_LEN, open_data};

use super::bindings::Binding;
use super::{Leg, Relay, Train};
use crate::now::Now;

/// How many bytes at the front of `contents` are datagrams of one channel: their heads are the same.
pub(super) fn run_len(contents: &[u8], stride: usize) -> usize {
    let head = contents.get(..DATA_HEAD_LEN);
    let datagrams = contents.chunks(stride).take_while(|datagram| datagram.get(..DATA_HEAD_LEN) == head);
    datagrams.map(<[u8]>::len).sum::<usize>().max(stride.min(contents.len()))
}

/// The ends of a channel, as a train goes through it.
struct Ends<'a> {
    /// The slot of the sender.
    slot: usize,
    sender: &'a Binding,
    receiver: &'a Binding,
}

impl Relay {
    /// Where a train may go at once, without a copy: all of it is for one channel, its length is nobody's limit, and nothing
    /// waits. The caller either sends it and says so ([`Self::on_forwarded`]), or puts it in ([`Self::handle_datagrams`]).
    pub fn way_of(&self, train: Train<'_>, from: Leg, now: Now) -> Option<Leg> {
        let Train { contents, stride, .. } = train;
        let limits = &self.config.limits;
        let is_free = self.fair.bytes() == 0 && limits.rate.is_none() && limits.daily.is_none();
        if !is_free || run_len(contents, stride.max(1)) != contents.len() {
            return None;
        }
        let Ends { receiver, .. } = self.ends_of(contents, from, now)?;
        self.narrow.longest(receiver.leg.remote.ip(), now.monotonic).is_none().then_some(receiver.leg)
    }

    /// A train has gone the way that [`Self::way_of`] said.
    pub fn on_forwarded(&mut self, train: Train<'_>) {
        self.stats.trains += 1;
        self.stats.forwarded += train.contents.len().div_ceil(train.stride.max(1)) as u64;
        self.stats.forwarded_bytes += train.contents.len() as u64;
    }

    /// The kernel says that datagrams of this length do not fit the way to an agent.
    pub fn on_too_long(&mut self, to: Leg, len: usize, now: Now) {
        self.narrow.on_too_long(to.remote.ip(), len, now.monotonic);
    }

    /// Queues datagrams of one channel for its other end. `false`: there is no such channel for their sender.
    pub(super) fn forward(&mut self, (run, stride, ecn): (&[u8], usize, u8), from: Leg, now: Now) -> bool {
        let Some(Ends { slot, sender, receiver }) = self.ends_of(run, from, now) else { return false };
        let (identity, to) = (sender.party.identity, receiver.leg);
        let (fitting, too_long) = self.narrow.fitting(run, stride, to.remote.ip(), now.monotonic);
        self.stats.dropped_too_long += too_long;
        if fitting.is_empty() {
            return true;
        }
        if let Some(daily) = self.config.limits.daily
            && !self.usage.spend(&identity, fitting.len() as u64, daily, now.unix)
        {
            self.stats.dropped_over_daily += fitting.len().div_ceil(stride) as u64;
            return true;
        }
        self.stats.trains += 1;
        let stride = stride.min(fitting.len());
        self.fair.push(slot, to, (fitting, stride, ecn), now.monotonic, &mut self.stats);
        true
    }

    /// The ends of the channel that a datagram names, if it comes from one of them and both are bound.
    fn ends_of(&self, datagram: &[u8], from: Leg, now: Now) -> Option<Ends<'_>> {
        let (channel, _) = open_data(datagram)?;
        let ends = self.channels.at(channel).filter(|ends| ends.until > now.monotonic)?;
        let (opener, issuer) = (self.bindings.at(ends.from)?, self.bindings.at(ends.to)?);
        let ends = match from.remote {
            remote if remote == opener.leg.remote => Ends { slot: ends.from, sender: opener, receiver: issuer },
            remote if remote == issuer.leg.remote => Ends { slot: ends.to, sender: issuer, receiver: opener },
            _ => return None,
        };
        (ends.sender.until > now.monotonic && ends.receiver.until > now.monotonic).then_some(ends)
    }
}
