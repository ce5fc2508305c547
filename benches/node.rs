//! The node in memory: the cost of turning packets into datagrams and back, without any system call. Needs no root.
//!
//! Two nodes with a session between them run on one thread, with a clock that the bench advances. One of them is
//! measured. The other seals what the first receives and opens what it sends, outside of the measured time. Replays are
//! refused, so every datagram is sealed afresh and arrives once.
//!
//! A train is what one system call carries: 64 KiB from TUN, or 45 datagrams from UDP. "small" means UDP packets with
//! 64 bytes of payload, one per call, 64 calls per iteration.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use ipnet::IpNet;
use overlay_core::{
    Command, DropReason, Instant, Joins, Node, NodeConfig, Output, PeerConfig, PeerKey, PeerStats, PeerTag, Protocol,
    Remote, Rule, Transmit, UdpTrain, Via,
};
use overlay_sim::packet::Ends;
use overlay_wire::checksum;
use overlay_wire::ip::TCP;
use overlay_wire::offload::{Segmentation, VirtioHeader};
use zeroize::Zeroizing;

/// The MTU of the inner packets, on a wire of 1,500 bytes.
const MTU: u16 = 1420;
/// Length of a TCP header with timestamps, as every Linux sends it, in bytes.
const TCP_HEADER_LEN: usize = 32;
/// The largest super-packet that TUN delivers, in bytes.
const SUPER_PACKET_MAX: usize = 65_535;
/// How many full datagrams fit in one UDP send.
const DATAGRAMS: usize = 45;
/// The payload of a small packet in bytes, and also how many calls an iteration makes with such packets.
const SMALL: usize = 64;
/// The port in the allowlist.
const PORT: u16 = 5201;
/// The number of routes of a large node.
const ROUTES: u16 = 10_000;
/// How many flows one side's half of a peer's flow table holds.
const FLOWS: u16 = 2_048;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    outbound(&mut criterion);
    inbound(&mut criterion);
    lookup(&mut criterion);
    allowlist(&mut criterion);
    criterion.final_summary();
}

fn outbound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("out");
    let [v4, v6] = [ends(Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)), ends(v6(1), v6(2))];
    let cases = [
        ("train/v4", Frame::tcp(v4, SUPER_PACKET_MAX), 1, Paths::Configured),
        ("train/v6", Frame::tcp(v6, SUPER_PACKET_MAX), 1, Paths::Configured),
        ("full packet", Frame::tcp(v4, MTU.into()), 64, Paths::Configured),
        ("small", Frame::udp(v4, 4660), 64, Paths::Configured),
        ("found/train", Frame::tcp(v4, SUPER_PACKET_MAX), 1, Paths::Found),
        ("found/small", Frame::udp(v4, 4660), 64, Paths::Found),
    ];
    for (name, frame, calls, paths) in cases {
        let mut pair = Pair::with(None, paths);
        group.throughput(match name {
            "small" | "found/small" => Throughput::Elements(calls as u64),
            _ => Throughput::Bytes((calls * frame.packet.len()) as u64),
        });
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || vec![frame.clone(); calls],
                |frames| {
                    for Frame { header, packet } in frames.iter_mut() {
                        pair.near.handle_tun(header, packet, pair.clock.tick());
                        discard(&mut pair.near);
                    }
                },
                BatchSize::PerIteration,
            );
        });
        pair.assert_nothing_dropped();
    }
    group.finish();
}

fn inbound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("in");
    for family in ["v4", "v6"] {
        let ends = if family == "v4" { ends(Pair::FAR_V4, Pair::NEAR_V4) } else { ends(v6(2), v6(1)) };
        group.throughput(Throughput::Bytes(DATAGRAMS as u64 * u64::from(MTU)));
        let mut pair = Pair::new(None);
        group.bench_function(format!("train/{family}"), |bencher| pair.receive(bencher, &[Frame::train(ends)]));
        pair.assert_nothing_dropped();
    }
    let mut pair = Pair::with(None, Paths::Found);
    let train = Frame::train(ends(Pair::FAR_V4, Pair::NEAR_V4));
    group.bench_function("found/train", |bencher| pair.receive(bencher, std::slice::from_ref(&train)));
    pair.assert_nothing_dropped();
    group.throughput(Throughput::Elements(SMALL as u64));
    let small = vec![Frame::udp(ends(Pair::FAR_V4, Pair::NEAR_V4), 4660); SMALL];
    for (name, paths) in [("small", Paths::Configured), ("found/small", Paths::Found)] {
        let mut pair = Pair::with(None, paths);
        group.bench_function(name, |bencher| pair.receive(bencher, &small));
        pair.assert_nothing_dropped();
    }
    group.finish();
}

/// The cost of a packet up to finding its peer. The packet is small, and is then refused because the endpoint is not
/// known.
fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("look-up");
    let clock = Clock::default();
    group.throughput(Throughput::Elements(SMALL as u64));
    for (name, routes, prefix_len) in
        [("1 address", 1, 32), ("10k addresses", ROUTES, 32), ("1 prefix", 1, 28), ("10k prefixes", ROUTES, 28)]
    {
        let mut node = node(1, &clock);
        let base = Ipv4Addr::new(10, 128, 0, 0).to_bits();
        // A stride that is coprime to their number, so that the order is not that of the table.
        let address = |at: u16| Ipv4Addr::from(base + (u32::from(at) * 7_919 % u32::from(routes)) * 16);
        for at in 0..routes {
            let prefix = IpNet::new(address(at).into(), prefix_len).expect("a length of IPv4");
            let mut key = [0x42; 32];
            key[..2].copy_from_slice(&at.to_le_bytes());
            add_peer(&mut node, at, PeerConfig { allowed_ips: vec![prefix], ..PeerConfig::of(PeerKey(key)) }, &clock);
        }
        let mut packets: Vec<_> = (0..ROUTES)
            .map(|at| Frame::udp(ends(Pair::NEAR_V4, address((at % routes) * 3 % routes)), 4660).packet)
            .collect();
        let (mut next, mut sent) = (0, 0);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..SMALL {
                    node.handle_tun(&VirtioHeader::NONE, &mut packets[next], clock.tick());
                    discard(&mut node);
                    next = (next + 1) % packets.len();
                    sent += 1;
                }
            });
        });
        let stats = node.stats();
        assert_eq!(stats.drops(DropReason::OutboundNoEndpoint), sent, "every packet has a peer");
    }
    group.finish();
}

fn allowlist(criterion: &mut Criterion) {
    let rules = |protocol| vec![Rule { protocol, ports: Some(PORT..=PORT) }];
    let ends = ends(Pair::FAR_V4, Pair::NEAR_V4);
    let mut group = criterion.benchmark_group("allowlist");

    group.throughput(Throughput::Bytes(DATAGRAMS as u64 * u64::from(MTU)));
    let mut pair = Pair::new(Some(rules(Protocol::Tcp)));
    group.bench_function("train in", |bencher| pair.receive(bencher, &[Frame::train(ends)]));
    pair.assert_nothing_dropped();

    group.throughput(Throughput::Elements(FLOWS.into()));
    let flows: Vec<_> = (0..FLOWS).map(|flow| Frame::udp(ends, 10_000 + flow)).collect();
    let mut pair = Pair::new(Some(rules(Protocol::Udp)));
    group.bench_function("first packets of new flows", |bencher| pair.receive_into_an_empty_table(bencher, &flows));
    pair.assert_nothing_dropped();

    // Both halves are full: as many flows opened by us as by the peer.
    let mut pair = Pair::new(Some(rules(Protocol::Udp)));
    for ours in 0..FLOWS {
        let mut frame = Frame::udp(ends.reversed(), 30_000 + ours);
        pair.near.handle_tun(&frame.header, &mut frame.packet, pair.clock.tick());
        discard(&mut pair.near);
    }
    let theirs = (0..FLOWS).map(|flow| Frame::udp(ends, 10_000 + flow * 5 % FLOWS));
    let answers = (0..FLOWS).map(|flow| Frame::udp_between(ends, PORT, 30_000 + flow * 5 % FLOWS));
    let known: Vec<_> = theirs.zip(answers).flat_map(|(their, answer)| [their, answer]).collect();
    group.throughput(Throughput::Elements(known.len() as u64));
    group.bench_function("one packet of each of 4096 flows", |bencher| pair.receive(bencher, &known));
    pair.assert_nothing_dropped();
    group.finish();
}

/// The clock that is lent to the nodes. It advances by a microsecond per call, so that no session expires.
#[derive(Default)]
struct Clock {
    calls: Cell<u64>,
}

impl Clock {
    const START: Instant = Instant::from_start(Duration::from_secs(1_000_000));

    fn tick(&self) -> Instant {
        self.calls.set(self.calls.get() + 1);
        Self::START + Duration::from_micros(self.calls.get())
    }

    fn advance(&self, by: Duration) {
        self.calls.set(self.calls.get() + by.as_micros() as u64);
    }
}

/// How each node of a pair knows where the other one is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// It is configured, as with `[[peer]]`.
    Configured,
    /// Its path agent has found out, as between agents. What is sent in `out` gets no answers, so the path is in doubt there.
    Found,
}

/// Two nodes with a session between them. `near` is the one that is measured.
struct Pair {
    near: Node,
    far: Node,
    clock: Clock,
    allow: Option<Vec<Rule>>,
    paths: Paths,
}

impl Pair {
    const NEAR_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const FAR_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    /// Creates the pair. `allow` lists what `far` may open towards `near`.
    fn new(allow: Option<Vec<Rule>>) -> Self {
        Self::with(allow, Paths::Configured)
    }

    fn with(allow: Option<Vec<Rule>>, paths: Paths) -> Self {
        let clock = Clock::default();
        let (near, far) = (node(1, &clock), node(2, &clock));
        let mut pair = Self { near, far, clock, allow, paths };
        let config = pair.config_of_far(pair.allow.clone());
        add_peer(&mut pair.near, 0, config, &pair.clock);
        let known = pair.config_of(1, public_key(&pair.near));
        add_peer(&mut pair.far, 0, known, &pair.clock);
        if paths == Paths::Found {
            for (node, other) in [(&mut pair.near, 2), (&mut pair.far, 1)] {
                let remote = Remote { candidates: vec![outside(other)], ..Remote::default() };
                let command = Command::SetRemote { peer: PeerTag::from_bits(0), remote };
                node.handle_command(command, pair.clock.tick()).expect("a peer that was just added");
            }
        }
        pair.shake_hands();
        if paths == Paths::Found {
            pair.find_paths();
        }
        pair
    }

    /// The configuration of `far` at `near`.
    fn config_of_far(&self, allow: Option<Vec<Rule>>) -> PeerConfig {
        PeerConfig { allow, ..self.config_of(2, public_key(&self.far)) }
    }

    fn config_of(&self, number: u8, key: PeerKey) -> PeerConfig {
        let finds_paths = self.paths == Paths::Found;
        let endpoint = (!finds_paths).then(|| outside(number));
        PeerConfig { endpoint, allowed_ips: inside(number), finds_paths, ..PeerConfig::of(key) }
    }

    fn shake_hands(&mut self) {
        let mut first = Frame::udp(ends(Self::NEAR_V4, Self::FAR_V4), 4660);
        self.near.handle_tun(&first.header, &mut first.packet, self.clock.tick());
        for _ in 0..3 {
            deliver(&mut self.near, 1, &mut self.far, &self.clock);
            deliver(&mut self.far, 2, &mut self.near, &self.clock);
        }
        assert_eq!(self.near.stats().handshakes_completed.value(), 1);
    }

    /// Lets both path agents find each other.
    fn find_paths(&mut self) {
        let Self { near, far, clock, .. } = self;
        for _ in 0..100 {
            clock.advance(Duration::from_millis(20));
            near.handle_timeout(clock.tick());
            deliver(near, 1, far, clock);
            far.handle_timeout(clock.tick());
            deliver(far, 2, near, clock);
        }
        assert!(near.stats().path_probes_answered.value() > 0);
    }

    /// Measures how `near` receives these frames. `far` seals each of them into a train of its own.
    fn receive(&mut self, bencher: &mut criterion::Bencher<'_>, frames: &[Frame]) {
        let Self { near, far, clock, paths, .. } = self;
        // A path agent wants its probes answered.
        let answers = RefCell::new(Vec::new());
        let sealed = || {
            for Sealed { contents, stride } in answers.take() {
                far.handle_udp(&train(1, &contents, stride), clock.tick());
                discard(far);
            }
            seal(far, frames, clock, *paths)
        };
        let answer = |transmit: &Transmit<'_>| answers.borrow_mut().push(Sealed::from(transmit));
        bencher.iter_batched_ref(sealed, |trains| open(near, trains, clock, answer), BatchSize::PerIteration);
    }

    /// The same with a flow table that is emptied before each iteration.
    fn receive_into_an_empty_table(&mut self, bencher: &mut criterion::Bencher<'_>, frames: &[Frame]) {
        let configs = [None, self.allow.clone()].map(|allow| self.config_of_far(allow));
        let Self { near, far, clock, paths, .. } = self;
        let near = &RefCell::new(near);
        let sealed = || {
            for config in configs.clone() {
                add_peer(&mut near.borrow_mut(), 0, config, clock);
            }
            seal(far, frames, clock, *paths)
        };
        bencher.iter_batched_ref(
            sealed,
            |trains| open(&mut near.borrow_mut(), trains, clock, |_| {}),
            BatchSize::PerIteration,
        );
    }

    fn assert_nothing_dropped(&self) {
        for stats in [self.near.stats(), self.far.stats()] {
            for reason in DropReason::ALL {
                assert_eq!(stats.drops(*reason), 0, "{reason:?}");
            }
        }
    }
}

/// A packet or super-packet as TUN delivers it.
#[derive(Clone)]
struct Frame {
    header: VirtioHeader,
    packet: Vec<u8>,
}

impl Frame {
    /// TCP data towards [`PORT`], with as many whole segments as fit in `max` bytes.
    fn tcp(ends: Ends, max: usize) -> Self {
        let ip_header_len = if ends.source.is_ipv4() { 20 } else { 40 };
        let headers_len = ip_header_len + TCP_HEADER_LEN;
        let segment_size = usize::from(MTU) - headers_len;
        let segments = (max - headers_len) / segment_size;
        let mut segment = vec![0; TCP_HEADER_LEN + segments * segment_size];
        segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
        segment[2..4].copy_from_slice(&PORT.to_be_bytes());
        segment[12..14].copy_from_slice(&[(TCP_HEADER_LEN as u8 / 4) << 4, 0x10]);
        // NOP, NOP, timestamps.
        segment[20..24].copy_from_slice(&[1, 1, 8, 10]);
        segment[TCP_HEADER_LEN..].iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
        let pseudo = match (ends.source, ends.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => checksum::pseudo_v4(from, to, TCP, segment.len()),
            (IpAddr::V6(from), IpAddr::V6(to)) => checksum::pseudo_v6(from, to, TCP, segment.len()),
            _ => unreachable!("both ends are of one family"),
        };
        segment[16..18].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        let segmentation = match (segments, ends.source) {
            (1, _) => Segmentation::None,
            (_, IpAddr::V4(_)) => Segmentation::TcpV4,
            (_, IpAddr::V6(_)) => Segmentation::TcpV6,
        };
        let header = VirtioHeader {
            needs_checksum: true,
            segmentation,
            header_len: headers_len as u16,
            segment_size: if segments == 1 { 0 } else { segment_size as u16 },
            checksum_start: ip_header_len as u16,
            checksum_offset: 16,
            ..VirtioHeader::NONE
        };
        Self { header, packet: ends.ip(TCP, &segment) }
    }

    /// TCP data that is sent as [`DATAGRAMS`] full datagrams.
    fn train(ends: Ends) -> Self {
        let ip_header_len = if ends.source.is_ipv4() { 20 } else { 40 };
        let headers_len = ip_header_len + TCP_HEADER_LEN;
        Self::tcp(ends, headers_len + DATAGRAMS * (usize::from(MTU) - headers_len))
    }

    /// A small packet towards [`PORT`].
    fn udp(ends: Ends, source_port: u16) -> Self {
        Self::udp_between(ends, source_port, PORT)
    }

    fn udp_between(ends: Ends, source_port: u16, port: u16) -> Self {
        Self { header: VirtioHeader::NONE, packet: ends.udp_between(source_port, port, &[0x5a; SMALL]) }
    }
}

/// A train of datagrams in flight: its bytes, and the length of each datagram except the last.
struct Sealed {
    contents: Vec<u8>,
    stride: usize,
}

impl From<&Transmit<'_>> for Sealed {
    fn from(transmit: &Transmit<'_>) -> Self {
        Self { contents: transmit.contents.to_vec(), stride: transmit.segment_size }
    }
}

fn seal(far: &mut Node, frames: &[Frame], clock: &Clock, paths: Paths) -> Vec<Sealed> {
    let mut sealed = Vec::with_capacity(frames.len());
    for frame in frames {
        far.handle_tun(&frame.header, &mut frame.packet.clone(), clock.tick());
        carry(far, |transmit| sealed.push(transmit.into()));
    }
    let may_say_more = paths == Paths::Found;
    assert!(sealed.len() == frames.len() || may_say_more && sealed.len() > frames.len());
    sealed
}

fn open(near: &mut Node, trains: &[Sealed], clock: &Clock, answer: impl Fn(&Transmit<'_>)) {
    for Sealed { contents, stride } in trains {
        near.handle_udp(&train(2, contents, *stride), clock.tick());
        carry(near, |transmit| answer(black_box(transmit)));
    }
}

fn train(from: u8, contents: &[u8], stride: usize) -> UdpTrain<'_> {
    UdpTrain { contents, stride, source: outside(from), via: Via::ANY, ecn: 0 }
}

/// Delivers everything that one node sends to the other.
fn deliver(from: &mut Node, number: u8, to: &mut Node, clock: &Clock) {
    let mut sent = Vec::new();
    carry(from, |transmit| sent.push(Sealed::from(transmit)));
    for Sealed { contents, stride } in sent {
        to.handle_udp(&train(number, &contents, stride), clock.tick());
    }
}

fn discard(node: &mut Node) {
    carry(node, |transmit| {
        black_box(transmit.contents);
    });
}

/// Takes all outputs of a node, as the engine does. What goes to the network is passed to `send`.
fn carry(node: &mut Node, mut send: impl FnMut(&Transmit<'_>)) {
    for output in node.poll_outputs() {
        match output {
            Output::Transmit(transmit) => send(&transmit),
            Output::Packet(packet) => {
                black_box(packet.header.encode());
                packet.parts().for_each(|part| {
                    black_box(part);
                });
            }
            Output::Foreign(foreign) => drop(black_box(foreign.source)),
            Output::Event(event) => drop(black_box(event)),
            Output::Timeout(at) => {
                black_box(at);
            }
        }
    }
}

fn public_key(node: &Node) -> PeerKey {
    node.public_key().expect("every node here has a key")
}

fn node(number: u8, clock: &Clock) -> Node {
    let config = NodeConfig {
        private_key: Some(Zeroizing::new([number; 32])),
        addresses: vec![Ipv4Addr::new(10, 77, 0, number).into(), v6(number).into()],
        forward: false,
        mtu: MTU,
        max_mtu: MTU,
        joins: Joins { tcp: true, udp: true },
        seed: [number; 32],
        wall_anchor: Some(Clock::START),
    };
    Node::new(config, clock.tick())
}

fn add_peer(node: &mut Node, number: u16, config: PeerConfig, clock: &Clock) {
    let peer = PeerTag::from_bits(number.into());
    let command = Command::SetPeer { peer, config: Box::new(config), stats: Arc::<PeerStats>::default() };
    node.handle_command(command, clock.tick()).expect("a key that nobody else has");
    discard(node);
}

fn outside(number: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, number), 51820).into()
}

fn inside(number: u8) -> Vec<IpNet> {
    vec![IpNet::from(IpAddr::from(Ipv4Addr::new(10, 77, 0, number))), IpNet::from(IpAddr::from(v6(number)))]
}

fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())
}

fn ends(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Ends {
    Ends::new(source, destination)
}
