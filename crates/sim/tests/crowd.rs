//! Ten thousand peers at 256 addresses want a session at the same moment, after a restart of the node that all of them
//! know. Under load the node asks for cookies and allows each address a burst of five handshakes and then twenty a
//! second. Even so, all peers must be connected within a minute.
//!
//! The peers are handwritten and behave like WireGuard: they repeat an initiation after 5 to 5.33 seconds, with the
//! cookie that they have received by then. The node's own work takes no time here. tests/scale.rs has the real program.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{
    Command, DropReason, Instant, Joins, Node, NodeConfig, Output, PeerConfig, PeerKey, PeerTag, UdpTrain, Via,
};
use overlay_sim::initiator::{Initiator, Pending, Session, Timestamp};
use zeroize::Zeroizing;

const PEERS: u32 = 10_000;
const ADDRESSES: u32 = 256;
/// The latency of one direction.
const LATENCY: Duration = Duration::from_millis(10);
const PROMISED: Duration = Duration::from_secs(60);

#[test]
fn ten_thousand_peers_that_call_at_once_are_all_up_within_a_minute() {
    let mut crowd = Crowd::new(None);
    for number in 0..PEERS {
        crowd.call(number);
    }
    let took = crowd.run();
    assert!(took <= PROMISED, "{took:?}");
    // The load was high enough.
    assert!(crowd.node.stats().cookies_sent.value() > u64::from(PEERS) / 2);
    crowd.every_session_works();
    assert_eq!(crowd.node.stats().handshakes_completed.value(), u64::from(PEERS));
}

#[test]
fn ten_thousand_peers_that_are_called_at_once_are_all_up_within_a_minute() {
    let mut crowd = Crowd::new(Some(Duration::from_secs(25)));
    let took = crowd.run();
    assert!(took <= PROMISED, "{took:?}");
    assert_eq!(crowd.node.stats().handshakes_completed.value(), u64::from(PEERS));
    crowd.every_session_works();
}

/// The node, its peers and the time.
struct Crowd {
    node: Node,
    peers: Vec<Peer>,
    now: Instant,
    deadline: Option<Instant>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    count: u64,
    /// How many peers are connected.
    up: u32,
}

struct Peer {
    noise: Initiator,
    address: SocketAddr,
    cookie: Option<[u8; 16]>,
    /// The initiation that is waiting for an answer.
    pending: Option<Pending>,
    /// The last message that a cookie reply may refer to.
    asked: Vec<u8>,
    session: Option<Session>,
    initiations: u32,
    /// Whether the node has used the session, or the peer has confirmed it.
    is_up: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A datagram arrives at the node.
    ToNode { from: u32, bytes: Vec<u8> },
    /// A datagram arrives at a peer.
    ToPeer { number: u32, bytes: Vec<u8> },
    /// A peer has waited long enough for an answer.
    Retry(u32),
}

impl Crowd {
    /// With `keepalive`, the node knows where the peers are and calls them.
    fn new(keepalive: Option<Duration>) -> Self {
        let now = Instant::from_start(Duration::from_secs(1_000));
        let config = NodeConfig {
            private_key: Some(Zeroizing::new([1; 32])),
            addresses: vec![Ipv4Addr::new(10, 64, 0, 1).into()],
            forward: false,
            mtu: 1420,
            max_mtu: 1420,
            joins: Joins::NOTHING,
            seed: [7; 32],
            wall_anchor: Some(now),
        };
        let mut node = Node::new(config, now);
        let key = node.public_key().expect("it has a key").0;
        let peer = |number: u32| {
            let mut private = [9; 32];
            // The first byte is not used, since clamping clears its lower bits.
            private[4..8].copy_from_slice(&number.to_le_bytes());
            Peer {
                noise: Initiator::new(private, key, number.into()),
                address: (Ipv4Addr::from(0x0a02_0000 + number % ADDRESSES), (10_000 + number / ADDRESSES) as u16)
                    .into(),
                cookie: None,
                pending: None,
                asked: Vec::new(),
                session: None,
                initiations: 0,
                is_up: false,
            }
        };
        let peers: Vec<_> = (0..PEERS).map(peer).collect();
        for (number, peer) in (0..).zip(&peers) {
            let config = Box::new(PeerConfig {
                endpoint: keepalive.map(|_| peer.address),
                allowed_ips: vec![IpAddr::from(inner(number)).into()],
                persistent_keepalive: keepalive,
                ..PeerConfig::of(PeerKey(peer.noise.public_key()))
            });
            let peer = PeerTag::from_bits(number);
            node.handle_command(Command::SetPeer { peer, config, stats: Arc::default() }, now).expect("a good peer");
        }
        let mut crowd = Self { node, peers, now, deadline: None, events: BinaryHeap::new(), count: 0, up: 0 };
        crowd.drain();
        crowd
    }

    /// Runs until every peer is connected, and returns how long that took.
    fn run(&mut self) -> Duration {
        let began = self.now;
        while self.up < PEERS && self.now.since(began) <= 2 * PROMISED {
            self.step();
        }
        let (took, stats) = (self.now.since(began), self.node.stats());
        let rate = stats.drops(DropReason::HandshakeRate);
        eprintln!("{} up after {took:?}; {} cookies, {rate} above the limit", self.up, stats.cookies_sent.value());
        took
    }

    fn step(&mut self) {
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        if let Some(deadline) = self.deadline
            && event.is_none_or(|at| deadline < at)
        {
            self.now = self.now.max(deadline);
            self.node.handle_timeout(self.now);
            return self.drain();
        }
        let Some(Reverse((at, _, event))) = self.events.pop() else { return };
        self.now = at;
        match event {
            Event::ToNode { from, bytes } => {
                let source = self.peers[from as usize].address;
                let train = UdpTrain { contents: &bytes, stride: bytes.len(), source, via: Via::ANY, ecn: 0 };
                self.node.handle_udp(&train, at);
                self.drain();
            }
            Event::ToPeer { number, bytes } => self.hear(number, &bytes),
            Event::Retry(number) => {
                if self.peers[number as usize].session.is_none() {
                    self.call(number);
                }
            }
        }
    }

    fn drain(&mut self) {
        let mut sent = Vec::new();
        for output in self.node.poll_outputs() {
            match output {
                Output::Transmit(transmit) => {
                    let IpAddr::V4(ip) = transmit.destination.ip() else { panic!("an address of IPv4") };
                    let place = u32::from(transmit.destination.port() - 10_000);
                    let number = ip.to_bits() - 0x0a02_0000 + place * ADDRESSES;
                    sent.extend(transmit.contents.chunks(transmit.segment_size).map(|bytes| (number, bytes.to_vec())));
                }
                Output::Timeout(at) => self.deadline = at,
                _ => {}
            }
        }
        for (number, bytes) in sent {
            self.after(LATENCY, Event::ToPeer { number, bytes });
        }
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.count += 1;
        self.events.push(Reverse((self.now + span, self.count, event)));
    }

    /// Makes a peer start or repeat a handshake.
    fn call(&mut self, number: u32) {
        let peer = &mut self.peers[number as usize];
        peer.initiations += 1;
        let mut pending = peer.noise.initiate(Timestamp::from_unix_seconds(peer.initiations.into()), number);
        peer.noise.sign(&mut pending.message, peer.cookie.as_ref());
        let bytes = pending.message.clone();
        peer.asked.clone_from(&bytes);
        // Spread like WireGuard's jitter, but the same in every run.
        let jitter = Duration::from_millis(u64::from(number.wrapping_mul(2_654_435_761) >> 16) % 334);
        peer.pending = Some(pending);
        self.after(LATENCY, Event::ToNode { from: number, bytes });
        self.after(Duration::from_secs(5) + jitter, Event::Retry(number));
    }

    fn hear(&mut self, number: u32, bytes: &[u8]) {
        let peer = &mut self.peers[number as usize];
        let answer = match bytes[0] {
            1 => {
                let (mut response, session, _) = peer.noise.answer(bytes, number).expect("an initiation for this peer");
                peer.noise.sign(&mut response, peer.cookie.as_ref());
                peer.asked.clone_from(&response);
                peer.session = Some(session);
                Some(response)
            }
            2 => {
                let pending = peer.pending.take().expect("it called");
                let mut session = peer.noise.complete(&pending, bytes).expect("a response for this peer");
                let keepalive = session.seal(&[]);
                peer.session = Some(session);
                (peer.is_up, self.up) = (true, self.up + 1);
                Some(keepalive)
            }
            3 => {
                peer.cookie = Some(peer.noise.cookie(&peer.asked, bytes).expect("a cookie for this peer"));
                None
            }
            _ => {
                // A message from the node proves a session that this peer has answered.
                let is_proven = peer.session.as_ref().is_some_and(|session| session.open(bytes).is_ok());
                self.up += u32::from(is_proven && !peer.is_up);
                peer.is_up |= is_proven;
                None
            }
        };
        if let Some(bytes) = answer {
            self.after(LATENCY, Event::ToNode { from: number, bytes });
        }
    }

    /// Checks that data from every peer comes out of TUN.
    fn every_session_works(&mut self) {
        // Waits until datagrams in flight have arrived and the load has subsided.
        let settled = self.now + Duration::from_secs(2);
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= settled) {
            self.step();
        }
        self.now = settled;
        for number in 0..PEERS {
            let peer = &mut self.peers[number as usize];
            let ends = overlay_sim::packet::Ends::new(inner(number), Ipv4Addr::new(10, 64, 0, 1));
            let message = peer.session.as_mut().expect("it is up").seal(&ends.udp(b"hello"));
            let (source, stride) = (peer.address, message.len());
            self.node.handle_udp(&UdpTrain { contents: &message, stride, source, via: Via::ANY, ecn: 0 }, self.now);
            let delivered = self.node.poll_outputs().filter(|output| matches!(output, Output::Packet(_))).count();
            assert_eq!(delivered, 1, "peer {number}");
        }
    }
}

/// The inner address of a peer.
fn inner(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a41_0000 + number)
}
