//! The data path: which end a train comes from, and so where it goes.

use overlay_wire::relay::{DATA_HEAD_LEN, open_data};

use super::{Leg, Relay};
use crate::now::Now;

/// How many bytes at the front of `contents` are datagrams of one channel: their heads are the same.
pub(super) fn run_len(contents: &[u8], stride: usize) -> usize {
    let head = contents.get(..DATA_HEAD_LEN);
    let datagrams = contents.chunks(stride).take_while(|datagram| datagram.get(..DATA_HEAD_LEN) == head);
    datagrams.map(<[u8]>::len).sum::<usize>().max(stride.min(contents.len()))
}

impl Relay {
    /// Queues datagrams of one channel for its other end. `false`: there is no such channel for their sender.
    pub(super) fn forward(&mut self, (run, stride, ecn): (&[u8], usize, u8), from: Leg, now: Now) -> bool {
        let Some((channel, _)) = open_data(run) else { return false };
        let Some(ends) = self.channels.at(channel).filter(|ends| ends.until > now.monotonic) else { return false };
        let (Some(opener), Some(issuer)) = (self.bindings.at(ends.from), self.bindings.at(ends.to)) else {
            return false;
        };
        let (slot, sender, receiver) = match from.remote {
            remote if remote == opener.leg.remote => (ends.from, opener, issuer),
            remote if remote == issuer.leg.remote => (ends.to, issuer, opener),
            _ => return false,
        };
        if sender.until <= now.monotonic || receiver.until <= now.monotonic {
            return false;
        }
        if let Some(daily) = self.config.limits.daily
            && !self.usage.spend(&sender.party.identity, run.len() as u64, daily, now.unix)
        {
            self.stats.dropped_over_daily += run.len().div_ceil(stride) as u64;
            return true;
        }
        self.stats.trains += 1;
        let stride = stride.min(run.len());
        self.fair.push(slot, receiver.leg, (run, stride, ecn), now.monotonic, &mut self.stats);
        true
    }
}
