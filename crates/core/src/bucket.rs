//! A token bucket for handshake messages: the limit of one source, one endpoint or one peer while the node is under load.

use std::time::Duration;

use crate::Instant;

/// How many handshakes a second one party may start.
const PACKETS_PER_SECOND: u32 = 20;
/// How many handshakes one party may start at once.
const BURST: u32 = 5;
const COST: Duration = Duration::from_millis(1_000 / PACKETS_PER_SECOND as u64);

/// A token bucket for 20 handshakes a second, 5 at once.
#[derive(Clone, Copy)]
pub(crate) struct Bucket {
    tokens: Duration,
    last: Instant,
}

impl Bucket {
    pub(crate) const FULL: Self = Self {
        tokens: Duration::from_millis(COST.as_millis() as u64 * BURST as u64),
        last: Instant::from_start(Duration::ZERO),
    };

    /// A full bucket, last used at `now`.
    pub(crate) fn full(now: Instant) -> Self {
        Self { last: now, ..Self::FULL }
    }

    /// When the bucket was last used.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// Takes one token. Returns whether there was one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.tokens = (self.tokens + now.since(self.last)).min(COST * BURST);
        self.last = now;
        let allowed = self.tokens >= COST;
        if allowed {
            self.tokens -= COST;
        }
        allowed
    }
}
