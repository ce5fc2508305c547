//! What comes in from sockets, and what goes out to them.

use std::net::{IpAddr, SocketAddr};

/// The outer addresses of both ends: where an agent's datagrams come from, and where they arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The agent's address, as the relay sees it.
    pub remote: SocketAddr,
    /// The address that it sent to, and the index of the incoming interface. Answers leave from there.
    pub local: Option<(IpAddr, u32)>,
}

impl From<SocketAddr> for Leg {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// Datagrams that came in together from one address.
#[derive(Clone, Copy, Debug)]
pub struct Train<'a> {
    /// All datagrams, back to back.
    pub contents: &'a [u8],
    /// Length of each datagram except the last, in bytes. The last may be shorter.
    pub stride: usize,
    /// The two ECN bits of the outer header.
    pub ecn: u8,
}

impl<'a> Train<'a> {
    /// A train of one datagram without ECN.
    pub fn single(datagram: &'a [u8]) -> Self {
        Self { contents: datagram, stride: datagram.len(), ecn: 0 }
    }
}

/// Datagrams to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub leg: Leg,
    /// All datagrams, back to back.
    pub contents: Vec<u8>,
    /// Length of each datagram except the last, in bytes. The last may be shorter.
    pub stride: usize,
    /// The two ECN bits of the outer header.
    pub ecn: u8,
}

impl Transmit {
    /// How many datagrams it is.
    pub fn datagrams(&self) -> usize {
        self.contents.len().div_ceil(self.stride.max(1))
    }
}
