//! The sessions that were made under one preshared key, with timestamps of one era of the wall clock.
//!
//! A `Tunn` mixes the preshared key that it was made with into all of its handshakes, and stamps them by the wall clock of
//! that moment. So another key, or a clock that was set, takes another `Tunn`, with an index of its own; the one before
//! makes no more handshakes and carries on what it holds.

use std::sync::Arc;

use boringtun::noise::Tunn;
use boringtun::x25519::PublicKey;

use super::LocalKey;
use super::clock::set_clock_to;
use super::ring::Ring;
use crate::PeerKey;
use crate::wall_clock::Origin;

pub(super) struct Generation {
    pub(super) tunn: Tunn,
    pub(super) ring: Ring,
}

impl Generation {
    /// See [`super::Session::new`].
    pub(super) fn new(
        local: &LocalKey,
        peer: PeerKey,
        preshared_key: Option<&[u8; 32]>,
        index: u32,
        origin: Origin,
    ) -> Box<Self> {
        // `Tunn` counts its handshake timestamps from the wall clock at this moment plus the clock it is lent.
        set_clock_to(origin);
        let tunn = Tunn::new(
            local.private.clone(),
            PublicKey::from(peer.0),
            preshared_key.copied(),
            None,
            index,
            Some(Arc::clone(&local.never_limits)),
        );
        Box::new(Self { tunn, ring: Ring::default() })
    }
}
