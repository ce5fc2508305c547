//! Which channels there are, and who is at their ends.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_wire::relay::Channel;

/// A channel. Its ends are slots of bindings, and it ends with either of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// The agent that opened it.
    pub(super) from: usize,
    /// The agent whose permit it is.
    pub(super) to: usize,
    /// The sequence of that permit.
    pub(super) sequence: u64,
    /// Until when the permit is valid.
    pub(super) until: Duration,
}

/// All channels. From one agent to a different one there is at most one.
#[derive(Debug, Default)]
pub(super) struct Channels {
    ends: BTreeMap<Channel, Ends>,
    by_ends: BTreeMap<(usize, usize), Channel>,
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    pub(super) fn at(&self, channel: Channel) -> Option<&Ends> {
        self.ends.get(&channel)
    }

    /// The channel that `from` has opened to `to`.
    pub(super) fn between(&self, from: usize, to: usize) -> Option<Channel> {
        self.by_ends.get(&(from, to)).copied()
    }

    /// Puts a channel there, or a newer permit under one that is there.
    pub(super) fn set(&mut self, channel: Channel, ends: Ends) {
        self.ends.insert(channel, ends);
        self.by_ends.insert((ends.from, ends.to), channel);
    }

    pub(super) fn remove(&mut self, channel: Channel) -> Option<Ends> {
        let ends = self.ends.remove(&channel)?;
        self.by_ends.remove(&(ends.from, ends.to));
        Some(ends)
    }

    /// Channels whose permit is over.
    pub(super) fn expired(&self, now: Duration) -> Vec<Channel> {
        self.ends.iter().filter(|(_, ends)| ends.until <= now).map(|(channel, _)| *channel).collect()
    }
}
