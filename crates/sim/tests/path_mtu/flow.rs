//! A sender that behaves like TCP: it sends continuously, accepts an ICMP "too big" that quotes one of its packets, and
//! then sends smaller packets at once.

use std::net::IpAddr;
use std::time::Duration;

use overlay_core::Instant;
use overlay_sim::packet::{Ends, udp_payload};
use overlay_sim::{HostId, World, millis};
use overlay_wire::checksum;
use overlay_wire::ip::{Header, ICMP, ICMPV6, Packet, Version};

/// The time between two packets.
const PAUSE: Duration = millis(20);
/// The destination port of all packets.
const PORT: u16 = 9;

/// One flow and its results.
pub(crate) struct Flow {
    from: HostId,
    to: HostId,
    ends: Ends,
    port: u16,
    /// Length of its packets in bytes.
    pub(crate) size: usize,
    /// All errors about this flow, oldest first.
    pub(crate) errors: Vec<TooBig>,
    /// How many packets have been inspected on each side.
    looked_at: (usize, usize),
    last_arrival: Instant,
    /// The longest time without an arrival.
    pub(crate) longest_gap: Duration,
}

/// An ICMP "too big".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooBig {
    pub(crate) at: Instant,
    pub(crate) source: IpAddr,
    pub(crate) mtu: usize,
    /// Source and destination of the quoted packet, and its source port.
    pub(crate) quoted: (IpAddr, IpAddr, u16),
}

impl Flow {
    /// A flow between two hosts. Its port distinguishes it from other flows.
    pub(crate) fn new(world: &World, from: HostId, to: HostId, ends: Ends, port: u16, size: usize) -> Self {
        Self {
            from,
            to,
            ends,
            port,
            size,
            errors: Vec::new(),
            looked_at: (world.received(from).len(), world.received(to).len()),
            last_arrival: world.now(),
            longest_gap: Duration::ZERO,
        }
    }

    fn send(&self, world: &mut World) {
        let headers_len = if self.ends.source.is_ipv4() { 28 } else { 48 };
        let packet = self.ends.udp_between(self.port, PORT, &vec![0x5a; self.size - headers_len]);
        assert_eq!(packet.len(), self.size);
        world.send(self.from, packet);
    }

    /// Inspects new packets. Returns whether an error asked for smaller packets.
    fn look(&mut self, world: &World) -> bool {
        let before = self.size;
        for received in &world.received(self.from)[self.looked_at.0..] {
            let Some(error) = TooBig::of(received.at, &received.packet) else { continue };
            if error.quoted == (self.ends.source, self.ends.destination, self.port) {
                self.size = self.size.min(error.mtu);
                self.errors.push(error);
            }
        }
        for received in &world.received(self.to)[self.looked_at.1..] {
            if port_of(&received.packet) == Some(self.port) && udp_payload(&received.packet).is_some() {
                self.longest_gap = self.longest_gap.max(received.at.since(self.last_arrival));
                self.last_arrival = received.at;
            }
        }
        self.looked_at = (world.received(self.from).len(), world.received(self.to).len());
        self.size < before
    }
}

/// Runs the flows for `span`.
pub(crate) fn run(world: &mut World, flows: &mut [Flow], span: Duration) {
    let end = world.now() + span;
    while world.now() < end {
        for flow in &mut *flows {
            flow.send(world);
            if flow.look(world) {
                flow.send(world);
            }
        }
        world.run_for(PAUSE);
    }
    for flow in flows {
        flow.look(world);
        flow.longest_gap = flow.longest_gap.max(world.now().since(flow.last_arrival));
    }
}

impl TooBig {
    /// Parses an error, whose checksum must be valid. `None` for any other packet.
    pub(crate) fn of(at: Instant, bytes: &[u8]) -> Option<Self> {
        let packet = Packet::parse(bytes).ok()?;
        let message = &packet.bytes()[packet.header_len()..];
        let (is_v4, pseudo) = match (packet.source(), packet.destination()) {
            (IpAddr::V4(_), IpAddr::V4(_)) if packet.protocol() == ICMP && message[..2] == [3, 4] => (true, 0),
            (IpAddr::V6(source), IpAddr::V6(destination)) if packet.protocol() == ICMPV6 && message[..2] == [2, 0] => {
                (false, checksum::pseudo_v6(source, destination, ICMPV6, message.len()))
            }
            _ => return None,
        };
        assert_eq!(checksum::fold(pseudo + checksum::sum(message)), 0xffff, "its checksum");
        if is_v4 {
            let header = &packet.bytes()[..packet.header_len()];
            assert_eq!(checksum::fold(checksum::sum(header)), 0xffff, "that of its header");
        }
        let mtu = usize::from(u16::from_be_bytes([message[6], message[7]]));
        let quote = Packet::parse_start(&message[8..]).expect("a packet is quoted");
        assert_eq!(packet.destination(), quote.source(), "it goes to who sent it");
        let ports = &quote.bytes()[quote.header_len()..];
        let port = u16::from_be_bytes([ports[0], ports[1]]);
        Some(Self { at, source: packet.source(), mtu, quoted: (quote.source(), quote.destination(), port) })
    }
}

/// All such errors that a host received.
pub(crate) fn errors(world: &World, host: HostId) -> Vec<TooBig> {
    world.received(host).iter().filter_map(|received| TooBig::of(received.at, &received.packet)).collect()
}

fn port_of(packet: &[u8]) -> Option<u16> {
    let packet = Packet::parse(packet).ok()?;
    match packet.upper().ok()?.header {
        Header::Udp { source, .. } => Some(source),
        _ => None,
    }
}

/// The smallest MTU that an IPv6 sender may be told.
pub(crate) fn least(version: Version) -> usize {
    if version == Version::V6 { 1_280 } else { 0 }
}
