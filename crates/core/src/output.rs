//! What goes into the node from the network, and what comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use overlay_wire::offload::VirtioHeader;

use crate::{Event, Instant, PathTag, PeerTag};

/// The local end of an outer path: which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// The address the datagram came to, with the index of the interface it came in by, 0 for whichever: answers leave from
    /// there (sticky source). `None`: the kernel chooses.
    pub local: Option<(IpAddr, u32)>,
}

impl Via {
    /// The kernel chooses the source.
    pub const ANY: Self = Self { local: None };

    /// For an answer at once, and to anybody. Where it leaves from is not compared with the routing table, which a crowd
    /// of strangers could keep busy; a link-local address means nothing without its interface.
    pub(crate) fn at_once(self) -> Self {
        let local = self.local.map(|(address, interface)| (address, if address.is_ipv4() { 0 } else { interface }));
        Self { local }
    }
}

/// A datagram train as UDP GRO delivers it: one source, one buffer, equal datagrams of `stride` bytes, the last one
/// possibly shorter.
pub struct UdpTrain<'a> {
    /// All datagrams, back to back.
    pub contents: &'a [u8],
    /// Length of each datagram but the last; at least 1. At or above `contents.len()`: a single one.
    pub stride: usize,
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it came to.
    pub via: Via,
    /// The two ECN bits of the outer header.
    pub ecn: u8,
}

/// What the shell carries away.
#[derive(Debug)]
pub enum Output<'a> {
    /// Send to the network.
    Transmit(Transmit<'a>),
    /// Write to TUN.
    Packet(PacketOut<'a>),
    /// Tell control.
    Event(Event),
    /// Nothing more. Call [`crate::Node::handle_timeout`] at this instant, or never for `None`.
    Timeout(Option<Instant>),
}

/// A datagram train to send with UDP_SEGMENT.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The peer's endpoint.
    pub destination: SocketAddr,
    /// From which local address.
    pub via: Via,
    /// All datagrams, back to back.
    pub contents: &'a [u8],
    /// Length of each datagram but the last.
    pub segment_size: usize,
    /// The traffic class of the outer header, whose lower two bits are ECN.
    pub traffic_class: u8,
    /// `Some`: nobody may fragment it, no path MTU that the kernel has heard of counts, and this names the path to
    /// [`crate::Node::handle_refused`] where the device carries less.
    pub whole_for: Option<PathTag>,
    /// `Some`: it is one initiation. Where this host cannot send it, [`crate::Node::handle_unsent`] wants to know.
    pub call_for: Option<PeerTag>,
}

/// A packet to write to TUN behind its virtio header, in pieces for one `writev`.
#[derive(Debug)]
pub struct PacketOut<'a> {
    /// Says whether the packet is a super-packet and whose checksum is missing.
    pub header: VirtioHeader,
    pub(crate) arena: &'a [u8],
    pub(crate) parts: &'a [Range<usize>],
}

impl<'a> PacketOut<'a> {
    /// The most pieces a packet comes in.
    pub const MAX_PARTS: usize = 128;

    /// The packet, piece by piece.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let arena = self.arena;
        self.parts.iter().map(|part| &arena[part.clone()])
    }
}
