//! What a test says of a relay: what it may do to the datagrams that it sends.

use std::net::SocketAddr;
use std::time::Duration;

/// A datagram that a relay is about to send: one that it forwards, or an answer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passing {
    /// The source of what it comes from, as the relay sees it. `None` if that was queued, so that nobody knows any more.
    pub from: Option<SocketAddr>,
    /// Where it goes.
    pub to: SocketAddr,
    /// What it carries.
    pub bytes: Vec<u8>,
    /// How long the relay holds it.
    pub held: Duration,
}

/// What a hostile relay does: it says what is sent instead of a datagram.
pub(crate) type Tamper = Box<dyn FnMut(Passing) -> Vec<Passing>>;
