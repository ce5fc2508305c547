//! The sessions that were made under one set of keys, with timestamps of one era of the wall clock.
//!
//! A `Tunn` mixes the keys that it was made with into all of its handshakes, and stamps them by the wall clock of that
//! moment. So a new key, or a wall clock that was set, requires a new `Tunn` with its own index. The former one makes no
//! more handshakes and keeps its sessions until they end.

use std::sync::Arc;

use boringtun::noise::Tunn;
use boringtun::x25519::PublicKey;

use super::clock::set_clock_to;
use super::local_key::LocalKey;
use super::preshared::Mixed;
use super::ring::Ring;
use crate::PeerKey;
use crate::wall_clock::Origin;

pub(super) struct Generation {
    pub(super) tunn: Tunn,
    pub(super) ring: Ring,
    /// See [`Mixed::number`].
    pub(super) key_number: Option<u32>,
}

/// The keys that the handshakes with one peer use.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// Our own key.
    pub(crate) local: &'a LocalKey,
    /// The peer's public key.
    pub(crate) peer: PeerKey,
    /// The preshared key.
    pub(crate) preshared: Mixed<'a>,
}

impl Generation {
    /// See [`super::seam::Session::new`].
    pub(super) fn new(keys: Keys<'_>, index: u32, origin: Origin) -> Box<Self> {
        // `Tunn` counts its handshake timestamps from the wall clock at this moment plus the clock it is lent.
        set_clock_to(origin);
        let tunn = Tunn::new(
            keys.local.private.clone(),
            PublicKey::from(keys.peer.0),
            keys.preshared.key.copied(),
            None,
            index,
            Some(Arc::clone(&keys.local.never_limits)),
        );
        Box::new(Self { tunn, ring: Ring::default(), key_number: keys.preshared.number })
    }
}
