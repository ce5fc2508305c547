//! Our own tunnel key, and the gate before everything that is asked of it.

use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::clock::set_clock;
use crate::{Instant, PeerKey};

/// Our tunnel key, and what is derived from it once for all peers.
pub(crate) struct LocalKey {
    pub(super) private: StaticSecret,
    public: PublicKey,
    /// Checks mac1 of every handshake message, and mac2 when there are many.
    gate: RateLimiter,
    /// What each `Tunn` is given: never limits, since `gate` has counted already.
    pub(super) never_limits: Arc<RateLimiter>,
}

/// What the gate says of a handshake message.
pub(crate) enum Gate {
    /// mac1 is right, and mac2 where it was asked for.
    Pass,
    /// Under load and without a valid mac2: this many bytes of cookie reply were written.
    Cookie(usize),
    /// mac1 was not made for our key.
    Refuse,
}

impl LocalKey {
    /// `limit`: handshake messages a second above which senders must prove their address.
    pub(crate) fn new(private: &[u8; 32], limit: u64, now: Instant) -> Self {
        set_clock(now);
        let private = StaticSecret::from(*private);
        let public = PublicKey::from(&private);
        Self {
            gate: RateLimiter::new(&public, limit),
            never_limits: Arc::new(RateLimiter::new(&public, u64::MAX)),
            private,
            public,
        }
    }

    pub(crate) fn public(&self) -> PeerKey {
        PeerKey(self.public.to_bytes())
    }

    /// Starts a new second of counting.
    pub(crate) fn reset_count(&self, now: Instant) {
        set_clock(now);
        self.gate.reset_count();
    }

    /// Checks the MACs of a handshake message that came from `source`.
    pub(crate) fn verify(&self, source: IpAddr, message: &[u8], cookie: &mut [u8], now: Instant) -> Gate {
        set_clock(now);
        match self.gate.verify_packet(Some(source), message, cookie) {
            Ok(_) => Gate::Pass,
            Err(TunnResult::WriteToNetwork(reply)) => Gate::Cookie(reply.len()),
            Err(_) => Gate::Refuse,
        }
    }

    /// The static key inside an initiation. One Diffie-Hellman: ask only after [`LocalKey::verify`]. Anyone can name
    /// anyone here; only [`super::Session::handle_initiation`] authenticates.
    pub(crate) fn initiator(&self, message: &[u8]) -> Option<PeerKey> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(message) else {
            return None;
        };
        let half = parse_handshake_anon(&self.private, &self.public, &initiation).ok()?;
        Some(PeerKey(half.peer_static_public))
    }
}
