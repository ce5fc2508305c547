//! A token bucket for handshake messages: the limit of one source, one endpoint or one peer while the node is under load.

use std::time::Duration;

use crate::Instant;

/// Handshakes a second from one party.
const PACKETS_PER_SECOND: u32 = 20;
/// Handshakes at once from one party.
const BURST: u32 = 5;
const COST: Duration = Duration::from_millis(1_000 / PACKETS_PER_SECOND as u64);

/// 20 handshakes a second, 5 at once.
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

    /// A full bucket that was used last now.
    pub(crate) fn full(now: Instant) -> Self {
        Self { last: now, ..Self::FULL }
    }

    /// When it was last asked.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// Whether one more is within the limit.
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
