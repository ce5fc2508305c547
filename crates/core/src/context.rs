//! The shared state that every action for one peer needs, beside the peer. Each plane adds its own methods.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use crate::NodeStats;
use crate::data::budget::Budget;
use crate::data::coalesce::Coalescer;
use crate::local::Local;
use crate::outbox::Outbox;
use crate::path::endpoints::Endpoints;
use crate::path::probing::Probing;
use crate::session::indices::Indices;

pub(crate) struct Context {
    pub(crate) local: Local,
    pub(crate) indices: Indices,
    pub(crate) outbox: Outbox,
    pub(crate) coalescer: Coalescer,
    pub(crate) stats: Arc<NodeStats>,
    pub(crate) rng: ChaCha8Rng,
    /// How much all peers together may keep of packets that wait for a session, in bytes.
    pub(crate) staging: Budget,
    /// How many flows all peers together may have beside those that each peer always has.
    pub(crate) flows: Budget,
    /// Memory for the control frame or echo that is sent next.
    pub(crate) frame: Vec<u8>,
    /// The endpoints of all peers.
    pub(crate) endpoints: Endpoints,
    /// What was sent to addresses that have not answered.
    pub(crate) probing: Probing,
}
