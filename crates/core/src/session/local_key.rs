//! Our own tunnel keys, and the checks that are made with them.
//!
//! One is the present key. Former keys may still be answered, for peers that do not know the present one yet.

use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::clock::set_clock;
use crate::{Instant, PeerKey};

/// Our tunnel key, and what is derived from it once for all peers.
pub(crate) struct LocalKey {
    pub(super) private: StaticSecret,
    public: PublicKey,
    /// Checks mac1 of every handshake message, and mac2 when there are many.
    gate: RateLimiter,
    /// The limiter that each `Tunn` gets. It never limits, because `gate` has already counted.
    pub(super) never_limits: Arc<RateLimiter>,
}

/// The keys under which handshakes are answered: the present key first, then former ones.
#[derive(Default)]
pub(crate) struct LocalKeys(Vec<LocalKey>);

/// The result of checking the MACs of a handshake message.
pub(crate) enum Macs {
    /// mac1 is valid for this key of ours, and so is mac2 if it was required.
    Good(PeerKey),
    /// The node is under load and mac2 is not valid. A cookie reply of this many bytes was written.
    Cookie(usize),
    /// mac1 is not valid for any of our keys.
    Bad,
}

impl LocalKeys {
    /// Holds the `present` key and the `former` keys that are still answered. See [`LocalKey::new`].
    pub(crate) fn new(present: Option<&[u8; 32]>, former: &[Zeroizing<[u8; 32]>], limit: u64, now: Instant) -> Self {
        let former = former.iter().map(|key| &**key).filter(|_| present.is_some());
        Self(present.into_iter().chain(former).map(|key| LocalKey::new(key, limit, now)).collect())
    }

    /// The key that we speak as.
    pub(crate) fn present(&self) -> Option<&LocalKey> {
        self.0.first()
    }

    /// The key of ours with this public key, if it is still answered.
    pub(crate) fn find(&self, public: PeerKey) -> Option<&LocalKey> {
        self.0.iter().find(|key| key.public() == public)
    }

    /// Like [`LocalKeys::find`], but falls back to the present key.
    pub(crate) fn find_or_present(&self, public: Option<PeerKey>) -> Option<&LocalKey> {
        public.and_then(|public| self.find(public)).or_else(|| self.present())
    }

    /// Whether former keys are answered, too.
    pub(crate) fn has_former(&self) -> bool {
        self.0.len() > 1
    }

    /// The key that comes after this one, in a circle. The present key if this one is not ours, or `None`.
    pub(crate) fn after(&self, public: Option<PeerKey>) -> Option<&LocalKey> {
        let place = public.and_then(|public| self.0.iter().position(|key| key.public() == public));
        place.and_then(|place| self.0.get(place + 1)).or_else(|| self.present())
    }

    /// The public keys, the present one first.
    pub(crate) fn publics(&self) -> impl Iterator<Item = PeerKey> {
        self.0.iter().map(LocalKey::public)
    }

    /// Forgets the secrets of cookies. Cookies that were given out are void.
    pub(crate) fn forget_cookies(&mut self, limit: u64, now: Instant) {
        set_clock(now);
        self.0.iter_mut().for_each(|key| key.gate = RateLimiter::new(&key.public, limit));
    }

    /// Starts a new second of counting.
    pub(crate) fn reset_count(&self, now: Instant) {
        self.0.iter().for_each(|key| key.reset_count(now));
    }

    /// Checks the MACs of a handshake message that came from `source`.
    pub(crate) fn verify(&self, source: IpAddr, message: &[u8], cookie: &mut [u8], now: Instant) -> Macs {
        let verdicts = self.0.iter().map(|key| key.verify(source, message, cookie, now));
        verdicts.into_iter().find(|macs| !matches!(macs, Macs::Bad)).unwrap_or(Macs::Bad)
    }
}

impl LocalKey {
    /// `limit`: handshake messages a second above which senders must prove their address.
    fn new(private: &[u8; 32], limit: u64, now: Instant) -> Self {
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

    fn reset_count(&self, now: Instant) {
        set_clock(now);
        self.gate.reset_count();
    }

    fn verify(&self, source: IpAddr, message: &[u8], cookie: &mut [u8], now: Instant) -> Macs {
        set_clock(now);
        match self.gate.verify_packet(Some(source), message, cookie) {
            Ok(_) => Macs::Good(self.public()),
            Err(TunnResult::WriteToNetwork(reply)) => Macs::Cookie(reply.len()),
            Err(_) => Macs::Bad,
        }
    }

    /// The static key inside an initiation. This costs one Diffie-Hellman, so call [`LocalKey::verify`] first. The result
    /// is not authenticated: a sender can name any key. Only
    /// [`super::seam::Session::handle_initiation`] authenticates.
    pub(crate) fn initiator(&self, message: &[u8]) -> Option<PeerKey> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(message) else {
            return None;
        };
        let half = parse_handshake_anon(&self.private, &self.public, &initiation).ok()?;
        Some(PeerKey(half.peer_static_public))
    }
}
