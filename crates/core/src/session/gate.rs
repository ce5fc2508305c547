//! The gate before handshakes: the checks that come before any Diffie-Hellman.
//!
//! One stranger can slow handshakes for everyone. While he sends more than [`LOAD_LIMIT`] messages a second with a valid
//! mac1, each sender's first message is answered with a cookie, and the second one, five seconds later, passes. Existing
//! sessions are not affected.

use std::time::Duration;

use overlay_wire::wireguard::COOKIE_REPLY_LEN;

use crate::context::Context;
use crate::origin::Origin;
use crate::outbox::Heading;
use crate::session::local_key::Macs;
use crate::session::source_limit::SourceLimit;
use crate::{DropReason, Instant, PeerKey};

/// Handshake messages a second above which senders must prove their address.
pub(crate) const LOAD_LIMIT: u64 = 256;
/// The count restarts after this long.
const LOAD_PERIOD: Duration = Duration::from_secs(1);

/// Counts recent handshake messages, in total and by source.
pub(crate) struct HandshakeGate {
    count: u64,
    counting_since: Instant,
    sources: SourceLimit,
}

/// A message whose MACs are right.
pub(crate) enum Passed {
    /// It was made for this key of ours.
    Free(PeerKey),
    /// It was made for this key of ours, but the node is under load and the source has sent more than its share.
    OverLimit(PeerKey),
}

impl HandshakeGate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { count: 0, counting_since: now, sources: SourceLimit::default() }
    }

    /// Checks the MACs of a handshake message and how much its source has sent. A sender that must prove its address gets a
    /// cookie.
    pub(crate) fn check(
        &mut self,
        message: &[u8],
        origin: Origin,
        context: &mut Context,
        now: Instant,
    ) -> Result<Passed, DropReason> {
        let keys = &context.local.keys;
        if keys.present().is_none() {
            return Err(DropReason::HandshakeNoKey);
        }
        if now.since(self.counting_since) >= LOAD_PERIOD {
            self.counting_since = now;
            self.count = 0;
            keys.reset_count(now);
        }
        match keys.verify(origin.address(), message, context.outbox.room(COOKIE_REPLY_LEN), now) {
            Macs::Bad => Err(DropReason::HandshakeMac),
            Macs::Cookie(len) => {
                self.count += 1;
                let reply = context.outbox.draft(len);
                let (destination, via) = (origin.source, origin.via.at_once());
                context.outbox.send(reply, Heading { destination, via, traffic_class: 0, whole_for: None, ttl: None });
                context.stats.cookies_sent.add(1);
                Err(DropReason::HandshakeCookie)
            }
            Macs::Good(key) => {
                self.count += 1;
                let is_free = self.count <= LOAD_LIMIT || self.sources.allows(origin.address(), now);
                Ok(if is_free { Passed::Free(key) } else { Passed::OverLimit(key) })
            }
        }
    }
}
