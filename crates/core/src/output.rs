//! What goes into the node from the network, and what comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::vec;

use overlay_wire::offload::VirtioHeader;

use crate::peers::PeerId;
use crate::{Instant, PathMtu, PeerKey};

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

/// All that waits to be carried away, in order; [`Output::Timeout`] is the last. Their bytes are lent together, so that
/// many can go out with one system call. What is not taken is lost.
pub struct Outputs<'a> {
    arena: &'a [u8],
    parts: &'a [Range<usize>],
    entries: vec::Drain<'a, Entry>,
    timeout: Option<Option<Instant>>,
}

impl<'a> Iterator for Outputs<'a> {
    type Item = Output<'a>;

    fn next(&mut self) -> Option<Output<'a>> {
        let Some(entry) = self.entries.next() else { return self.timeout.take().map(Output::Timeout) };
        Some(match entry {
            Entry::Transmit { destination, via, range, segment_size, traffic_class, whole_for, call_for } => {
                Output::Transmit(Transmit {
                    destination,
                    via,
                    contents: &self.arena[range],
                    segment_size,
                    traffic_class,
                    whole_for,
                    call_for,
                })
            }
            Entry::Packet { header, parts } => {
                Output::Packet(PacketOut { header, arena: self.arena, parts: &self.parts[parts] })
            }
            Entry::Event(event) => Output::Event(event),
        })
    }
}

/// Names a peer to the node that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerTag(pub(crate) PeerId);

impl PeerTag {
    /// As a number, for where only numbers go.
    pub fn to_bits(self) -> u32 {
        self.0.0
    }

    /// What [`PeerTag::to_bits`] gave.
    pub fn from_bits(bits: u32) -> Self {
        Self(PeerId(bits))
    }
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
    /// `Some`: nobody may fragment it, no path MTU that the kernel has heard of counts, and this names the peer to
    /// [`crate::Node::handle_refused`] where the device carries less.
    pub whole_for: Option<PeerTag>,
    /// `Some`: it is one initiation. Where this host cannot send it, [`crate::Node::handle_unsent`] wants to know.
    pub call_for: Option<PeerTag>,
}

/// A packet to write to TUN behind its virtio header, in pieces for one `writev`.
#[derive(Debug)]
pub struct PacketOut<'a> {
    /// Says whether the packet is a super-packet and whose checksum is missing.
    pub header: VirtioHeader,
    arena: &'a [u8],
    parts: &'a [Range<usize>],
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

/// A fact for control. Events about one peer may be merged by the shell: only the last one of a kind counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A handshake with the peer was completed at this instant.
    HandshakeCompleted(PeerKey, Instant),
    /// Datagrams to the peer go to this outer address from now on: it was authenticated from there, or there was none and
    /// its name has this one.
    EndpointChanged(PeerKey, SocketAddr),
    /// Whether the peer answers what it has to answer. False: data went unanswered for 15 s, or an initiation for 5 s, and
    /// its address may have moved. True: it was silent, and was heard again.
    Answering(PeerKey, bool),
    /// Handshakes with the peer went unanswered for 90 s; its endpoint may be stale.
    HandshakeFailed(PeerKey),
    /// What is known of the path's MTU changed.
    PathMtu(PeerKey, PathMtu),
}

/// Everything that waits to be carried away. Bytes lie in one arena that is reused once it was drained.
#[derive(Default)]
pub(crate) struct Outbox {
    arena: Vec<u8>,
    used: usize,
    /// The pieces of all packets.
    parts: Vec<Range<usize>>,
    entries: Vec<Entry>,
}

/// The most datagrams that join one train, and the most bytes: what one UDP_SEGMENT send takes on every kernel.
const TRAIN_DATAGRAMS: usize = 64;
const TRAIN_LEN: usize = 65_507;

/// A packet that waits in the outbox; valid until the next output is taken.
#[derive(Clone, Copy)]
pub(crate) struct PacketId(usize);

enum Entry {
    Transmit {
        destination: SocketAddr,
        via: Via,
        range: Range<usize>,
        segment_size: usize,
        traffic_class: u8,
        whole_for: Option<PeerTag>,
        call_for: Option<PeerTag>,
    },
    Packet {
        header: VirtioHeader,
        parts: Range<usize>,
    },
    Event(Event),
}

impl Outbox {
    /// Room for `len` bytes after those in use. It is kept only by [`Outbox::transmit`] or [`Outbox::packet`].
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.arena.len() < end {
            self.arena.resize(end, 0);
        }
        &mut self.arena[self.used..end]
    }

    /// Sends the first `len` bytes of the room as datagrams of `segment_size` bytes. They join the train before them
    /// where they are of its kind: packets too small or too few for a super-packet travel together all the same.
    pub(crate) fn transmit(
        &mut self,
        destination: SocketAddr,
        via: Via,
        len: usize,
        segment_size: usize,
        traffic_class: u8,
        whole_for: Option<PeerTag>,
    ) {
        let range = self.take(len);
        if let Some(Entry::Transmit {
            destination: to,
            via: by,
            range: train,
            segment_size: stride,
            traffic_class: class,
            whole_for: whole,
            call_for: None,
        }) = self.entries.last_mut()
            && (*to, *by, *stride, *class, *whole) == (destination, via, segment_size, traffic_class, whole_for)
            && train.end == range.start
            && train.len() % segment_size == 0
            && train.len() + len <= TRAIN_LEN.min(TRAIN_DATAGRAMS * segment_size)
        {
            train.end = range.end;
            return;
        }
        let call_for = None;
        self.entries.push(Entry::Transmit {
            destination,
            via,
            range,
            segment_size,
            traffic_class,
            whole_for,
            call_for,
        });
    }

    /// Sends the first `len` bytes of the room as one datagram by itself, an initiation to this peer.
    pub(crate) fn call(&mut self, destination: SocketAddr, via: Via, len: usize, traffic_class: u8, peer: PeerTag) {
        let range = self.take(len);
        let (whole_for, call_for) = (None, Some(peer));
        self.entries.push(Entry::Transmit {
            destination,
            via,
            range,
            segment_size: len,
            traffic_class,
            whole_for,
            call_for,
        });
    }

    /// Writes the first `len` bytes of the room to TUN. The answer names the packet for [`Outbox::extend`].
    pub(crate) fn packet(&mut self, header: VirtioHeader, len: usize) -> PacketId {
        if self.used == 0 {
            // What was there was carried away with the arena.
            self.parts.clear();
        }
        let range = self.take(len);
        let first = self.parts.len();
        self.parts.push(range);
        self.entries.push(Entry::Packet { header, parts: first..first + 1 });
        PacketId(self.entries.len() - 1)
    }

    /// The first piece of a packet, and the first `len` bytes of the room.
    pub(crate) fn packet_and_room(&mut self, id: PacketId, len: usize) -> Option<(&[u8], &[u8])> {
        let Some(Entry::Packet { parts, .. }) = self.entries.get(id.0) else { return None };
        let first = self.parts.get(parts.start)?.clone();
        let room = self.used..self.used + len;
        Some((&self.arena[first], &self.arena[room]))
    }

    /// Adds what the room holds from `skip` to `len` to a packet. False when that packet is full, or not the last one.
    pub(crate) fn extend(&mut self, id: PacketId, skip: usize, len: usize) -> bool {
        let start = self.used + skip;
        let end = self.parts.len();
        match self.entries.get_mut(id.0) {
            Some(Entry::Packet { parts, .. }) if parts.end == end && parts.len() < PacketOut::MAX_PARTS => {
                parts.end += 1;
            }
            _ => return false,
        }
        self.used += len;
        self.parts.push(start..self.used);
        true
    }

    /// Gives a packet its final headers: the virtio header, and whatever `finish` changes in its first piece.
    pub(crate) fn complete(&mut self, id: PacketId, finish: impl FnOnce(&mut [u8]) -> VirtioHeader) {
        if let Some(Entry::Packet { header, parts }) = self.entries.get_mut(id.0)
            && let Some(first) = self.parts.get(parts.start)
        {
            *header = finish(&mut self.arena[first.clone()]);
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.entries.push(Entry::Event(event));
    }

    /// All that waits, and `timeout`. The arena is empty again after it.
    pub(crate) fn outputs(&mut self, timeout: Option<Instant>) -> Outputs<'_> {
        self.used = 0;
        let entries = self.entries.drain(..);
        Outputs { arena: &self.arena, parts: &self.parts, entries, timeout: Some(timeout) }
    }

    fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.used;
        self.used = start + len;
        start..self.used
    }
}

#[cfg(test)]
mod tests;
