//! The datagram trains that go into the node from the network, and everything that comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use overlay_wire::offload::VirtioHeader;
use overlay_wire::relay::{Channel, DATA_HEAD_LEN};

use crate::{Event, Instant, PathTag, PeerTag};

/// How datagrams of an outer path travel: the address of ours that it uses, and the channel of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via {
    /// The address that the datagram came to, with the index of the interface it came in through, or 0 for any. Answers
    /// leave from there (sticky source). `None`: the kernel chooses.
    pub local: Option<(IpAddr, u32)>,
    /// It leaves through that interface, even where the routing table prefers a different uplink.
    pub is_pinned: bool,
    /// `Some`: the other end is a relay, and four bytes in front of each datagram name this channel. The node writes and reads
    /// them.
    pub channel: Option<Channel>,
}

impl Via {
    /// The kernel chooses the source.
    pub const ANY: Self = Self { local: None, is_pinned: false, channel: None };

    /// A datagram that came to this address.
    pub const fn to(address: IpAddr, interface: u32) -> Self {
        Self { local: Some((address, interface)), ..Self::ANY }
    }

    /// How many bytes stand in front of each datagram.
    pub(crate) fn lead(self) -> usize {
        if self.channel.is_some() { DATA_HEAD_LEN } else { 0 }
    }

    /// The local end for an immediate answer to any sender. Its address is not compared with the routing table, because
    /// many strangers could keep that comparison busy. A link-local address keeps its interface, because it means nothing
    /// without one.
    pub(crate) fn at_once(self) -> Self {
        let local = self.local.map(|(address, interface)| (address, if address.is_ipv4() { 0 } else { interface }));
        Self { local, ..self }
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

/// One output for the shell to carry away.
#[derive(Debug)]
pub enum Output<'a> {
    /// Send to the network.
    Transmit(Transmit<'a>),
    /// Write to TUN.
    Packet(PacketOut<'a>),
    /// Tell control of a datagram that belongs to no peer.
    Foreign(Foreign<'a>),
    /// Tell control.
    Event(Event),
    /// Marks the end of the outputs. Call [`crate::Node::handle_timeout`] at this instant, or never if `None`.
    Timeout(Option<Instant>),
}

/// A datagram train to send with UDP_SEGMENT.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The peer's endpoint.
    pub destination: SocketAddr,
    /// The local address to send from.
    pub via: Via,
    /// All datagrams, back to back, each with what a relay needs in front of it.
    pub contents: &'a [u8],
    /// Length of each datagram but the last.
    pub segment_size: usize,
    /// The traffic class of the outer header. Its lower two bits are ECN.
    pub traffic_class: u8,
    /// `Some`: how many hops the datagrams live (TTL, or hop limit). `None`: the kernel's default.
    pub ttl: Option<u8>,
    /// `Some`: it must not be fragmented, whatever path MTU the kernel has heard of. If the device carries less,
    /// [`crate::Node::handle_refused`] takes this name of the path.
    pub whole_for: Option<PathTag>,
    /// `Some`: it is a single initiation. If this host cannot send it, call [`crate::Node::handle_unsent`].
    pub call_for: Option<PeerTag>,
}

/// A datagram from the address of a relay of ours that belongs to no peer: an answer of STUN, or what the relay itself says. Its
/// source address may be forged.
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a> {
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it came to.
    pub via: Via,
    /// The whole datagram.
    pub contents: &'a [u8],
}

/// A packet to write to TUN behind its virtio header, in pieces for one `writev`.
#[derive(Debug)]
pub struct PacketOut<'a> {
    /// Whether the packet is a super-packet, and which checksum is missing.
    pub header: VirtioHeader,
    pub(crate) arena: &'a [u8],
    pub(crate) parts: &'a [Range<usize>],
}

impl<'a> PacketOut<'a> {
    /// The most pieces that a packet has.
    pub const MAX_PARTS: usize = 128;

    /// The packet, piece by piece.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let arena = self.arena;
        self.parts.iter().map(|part| &arena[part.clone()])
    }
}
