//! A daemon under attack, and the peer that attacks it.
//!
//! Every attack ends with an honest exchange over the same session: a packet that the victim's kernel answers.
//! Datagrams stay in order on the wire and in the daemon, so everything before is settled once that answer is back.
//! Delivered packets are in the capture before the honest packet, answers are on the socket before its answer, and the
//! counters include it all. So tests never need to wait.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_sim::initiator::{Initiator, Pending, Session, Timestamp};

use super::bytes::{ACK, Ends, ICMP, ICMPV6, RST, SYN, TCP, ends};
use super::capture::{Capture, kept};
use super::wire::{Wire, inside};
use crate::lab::{A, B, Outside, Overlay, Pair, SHORTLY, installed, within};

/// Longer than the minimum interval between two initiations of a peer: the node accepts 50 a second.
pub(crate) const BETWEEN_INITIATIONS: Duration = Duration::from_millis(25);

/// The victim's port.
const PORT: u16 = 51820;

/// A person with a key and virtual IPs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person {
    pub(crate) name: &'static str,
    private: [u8; 32],
    pub(crate) v4: &'static str,
    pub(crate) v6: &'static str,
}

/// The peer that attacks.
pub(crate) const MALLORY: Person = Person { name: "mallory", private: [0x11; 32], v4: "10.77.0.2", v6: "fd77::2" };
/// A peer that does nothing wrong.
pub(crate) const CAROL: Person = Person { name: "carol", private: [0x22; 32], v4: "10.77.0.3", v6: "fd77::3" };
/// A person who is not a peer.
pub(crate) const STRANGER: Person = Person { name: "stranger", private: [0x33; 32], v4: "10.77.0.4", v6: "fd77::4" };

impl Person {
    /// The `[[peer]]` table for this person in the victim's config, with these addresses. More keys may be appended.
    pub(crate) fn peer_toml(&self, allowed_ips: &[&str]) -> String {
        let key = STANDARD.encode(self.noise([0; 32]).public_key());
        format!("\n[[peer]]\nname = \"{}\"\npublic_key = \"{key}\"\nallowed_ips = {allowed_ips:?}\n", self.name)
    }

    /// The same with the person's own addresses.
    pub(crate) fn own_peer_toml(&self) -> String {
        self.peer_toml(&[&format!("{}/32", self.v4), &format!("{}/128", self.v6)])
    }

    /// The person's half of a handshake with the holder of this key.
    pub(crate) fn noise(&self, peer: [u8; 32]) -> Initiator {
        Initiator::new(self.private, peer, u64::from(self.private[0]))
    }

    /// The person's public key in WireGuard's base64.
    pub(crate) fn public_key(&self) -> String {
        STANDARD.encode(self.noise([0; 32]).public_key())
    }

    /// The inner addresses from this person to the victim, in both families.
    pub(crate) fn both_families(&self) -> [Ends; 2] {
        [ends(self.v4, A.v4), ends(self.v6, A.v6)]
    }
}

/// The values of counters, or how far they have moved.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The outcome of an attack.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The packets that the victim's kernel received, as far as the capture keeps them.
    pub(crate) delivered: Vec<Vec<u8>>,
    /// The datagrams that came back.
    pub(crate) answers: Vec<Vec<u8>>,
    /// The inbound drop counters that moved, and by how much.
    pub(crate) dropped: Counts,
}

/// A daemon under attack.
pub(crate) struct Siege {
    pub(crate) overlay: Overlay,
    capture: Capture,
    drops: Counts,
    outside: Outside,
    pub(crate) pair: Pair,
}

impl Siege {
    /// Starts a victim with these peers and more keys for its interface. `None` if this machine cannot.
    #[track_caller]
    pub(crate) fn begin(name: &str, outside: Outside, interface_keys: &str, peers: &[String]) -> Option<Siege> {
        if !installed(name, &["tcpdump"]) {
            return None;
        }
        let pair = Pair::new(name)?;
        let own = A.inner();
        // Tests count every datagram that leaves, so the daemon must not send path MTU probes.
        let quiet = "[tuning]\nmtu_discovery = \"off\"\n";
        let config = pair.a.interface_toml(&[&own[0], &own[1]]) + interface_keys + "\n" + &peers.concat() + quiet;
        let overlay = pair.a.overlay_up(&config);
        let capture = Capture::start(&pair.a);
        let drops = drops(&overlay);
        Some(Siege { overlay, capture, drops, outside, pair })
    }

    /// A victim over IPv4 with Mallory and Carol, who may send everything from their own addresses.
    #[track_caller]
    pub(crate) fn of_two(name: &str) -> Option<Siege> {
        Siege::begin(name, Outside::V4, "", &[MALLORY.own_peer_toml(), CAROL.own_peer_toml()])
    }

    /// A victim over IPv4 with only Mallory, who may open what `allow` lists.
    #[track_caller]
    pub(crate) fn with_allowlist(name: &str, allow: &[&str]) -> Option<Siege> {
        Siege::begin(name, Outside::V4, "", &[MALLORY.own_peer_toml() + &format!("allow = {allow:?}\n")])
    }

    /// The victim's public key.
    pub(crate) fn key(&self) -> [u8; 32] {
        let key = STANDARD.decode(self.pair.a.public_key()).expect("base64");
        key.try_into().expect("32 bytes")
    }

    /// Opens a new socket towards the victim.
    pub(crate) fn wire(&self) -> Wire {
        Wire::open(&self.pair.b, 0, self.address())
    }

    /// Opens a new socket towards the victim, on this port.
    pub(crate) fn wire_on(&self, port: u16) -> Wire {
        Wire::open(&self.pair.b, port, self.address())
    }

    fn address(&self) -> SocketAddr {
        A.endpoint(self.outside, PORT).parse().expect("an address and a port")
    }

    /// Sends a packet from a program on the victim to the attacker, and checks that it arrives at the attacker's
    /// socket. So the victim has that socket as its endpoint.
    #[track_caller]
    pub(crate) fn talks_to(&self, attacker: &mut Attacker) {
        let program = inside(&self.pair.a, || UdpSocket::bind("0.0.0.0:0")).expect("a port of the victim");
        program.send_to(b"who is there", (attacker.person.v4, 9)).expect("a route into the tunnel");
        // The kernel may have answered something else before.
        while attacker.hear().get(28..40) != Some(&b"who is there"[..]) {}
    }

    /// Waits until the victim reports that a peer is at this socket.
    #[track_caller]
    pub(crate) fn is_at(&self, person: Person, wire: &Wire) {
        let endpoint = B.endpoint(self.outside, wire.port());
        within(SHORTLY, &endpoint, || (self.peer(person)["endpoint"] == endpoint).then_some(()));
    }

    /// A peer that has completed a handshake with the victim from a socket of its own, and has been heard.
    #[track_caller]
    pub(crate) fn attacker(&mut self, person: Person) -> Attacker {
        self.attacker_who_knocks(person, Knock::Echo)
    }

    /// The same, with a different proof that the session works.
    #[track_caller]
    pub(crate) fn attacker_who_knocks(&mut self, person: Person, knock: Knock) -> Attacker {
        let mut wire = self.wire();
        let mut noise = person.noise(self.key());
        let mut initiations = 0;
        let pending = initiate(&mut noise, &mut initiations);
        wire.send(&pending.message);
        let response = wire.receive();
        let session = noise.complete(&pending, &response).expect("a response for us");
        let mut attacker = Attacker { person, noise, session, wire, initiations, knocks: 0, knock };
        self.is_alive(&mut attacker);
        attacker
    }

    /// Sends datagrams one by one, and returns the outcome.
    #[track_caller]
    pub(crate) fn strike(&mut self, attacker: &mut Attacker, datagrams: &[Vec<u8>]) -> Outcome {
        for datagram in datagrams {
            attacker.wire.send(datagram);
        }
        self.outcome(attacker)
    }

    /// Sends datagrams as one train, and returns the outcome.
    #[track_caller]
    pub(crate) fn strike_as_train(&mut self, attacker: &mut Attacker, datagrams: &[Vec<u8>]) -> Outcome {
        attacker.wire.send_train(datagrams);
        self.outcome(attacker)
    }

    /// The outcome of everything since the last call. It also proves with an honest exchange that the session works.
    #[track_caller]
    pub(crate) fn outcome(&mut self, attacker: &mut Attacker) -> Outcome {
        let (knock, answers) = attacker.knock();
        let delivered = self.capture.before(&knock);
        let now = drops(&self.overlay);
        let dropped = now.iter().filter_map(|(reason, count)| {
            let moved = count - self.drops[reason];
            (moved > 0).then(|| (reason.clone(), moved))
        });
        let dropped = dropped.collect();
        self.drops = now;
        Outcome { delivered, answers, dropped }
    }

    /// Checks that the attacker's session carries packets both ways.
    #[track_caller]
    pub(crate) fn is_alive(&mut self, attacker: &mut Attacker) {
        self.outcome(attacker).is("alive", &[], &[]);
    }

    /// Sends inner packets in separate messages. All must be dropped for this reason, and nothing must come back.
    #[track_caller]
    pub(crate) fn refuses(&mut self, attacker: &mut Attacker, reason: &str, what: &str, packets: &[Vec<u8>]) {
        let messages = attacker.seal(packets);
        let outcome = self.strike(attacker, &messages);
        outcome.is(what, &[], &[(reason, packets.len() as u64)]);
        assert_eq!(outcome.answers, Vec::<Vec<u8>>::new(), "{what}: no answer");
    }

    /// Sends inner packets in separate messages. All must be delivered unchanged.
    #[track_caller]
    pub(crate) fn delivers(&mut self, attacker: &mut Attacker, what: &str, packets: &[Vec<u8>]) {
        let messages = attacker.seal(packets);
        self.strike(attacker, &messages).is(what, packets, &[]);
    }

    /// Opens a UDP socket of an application on the victim.
    pub(crate) fn application(&self, port: u16) -> Application {
        let socket = inside(&self.pair.a, || UdpSocket::bind(("::", port))).expect("a port of the victim");
        socket.set_read_timeout(Some(SHORTLY)).expect("a time is set");
        Application { socket }
    }

    /// The victim's status of a peer.
    #[track_caller]
    pub(crate) fn peer(&self, person: Person) -> serde_json::Value {
        let status = self.overlay.status();
        let peers = status["peers"].as_array().expect("`peers` is a list");
        let found = peers.iter().find(|peer| peer["name"] == person.name);
        found.unwrap_or_else(|| panic!("no peer {} in {status:#}", person.name)).clone()
    }
}

impl Outcome {
    /// Compares everything except the answers.
    #[track_caller]
    pub(crate) fn is(&self, what: &str, delivered: &[Vec<u8>], dropped: &[(&str, u64)]) {
        let dropped = dropped.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect::<Counts>();
        assert_eq!(self.dropped, dropped, "{what}: the counters that moved");
        let is_same = self.delivered.iter().map(Vec::as_slice).eq(delivered.iter().map(|packet| kept(packet)));
        assert!(is_same, "{what}: delivered\n{}\nand not\n{}", shown(&self.delivered), shown(delivered));
    }
}

/// A line for each packet: its length and its first bytes.
fn shown(packets: &[Vec<u8>]) -> String {
    let line = |packet: &Vec<u8>| format!("  {} bytes: {:02x?}\n", packet.len(), &packet[..packet.len().min(80)]);
    packets.iter().map(line).collect()
}

/// How an attacker proves that the session works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knock {
    /// With an echo request.
    Echo,
    /// With a SYN to a closed port, which the kernel resets.
    Syn(u16),
}

/// A peer with a session.
pub(crate) struct Attacker {
    pub(crate) person: Person,
    pub(crate) noise: Initiator,
    pub(crate) session: Session,
    pub(crate) wire: Wire,
    pub(crate) knock: Knock,
    initiations: u32,
    knocks: u16,
}

impl Attacker {
    /// An attacker whose session was not created by [`Siege::attacker`].
    pub(crate) fn new(person: Person, noise: Initiator, session: Session, wire: Wire) -> Self {
        Self { person, noise, session, wire, knock: Knock::Echo, initiations: 0, knocks: 0 }
    }

    /// Completes a handshake over this wire with the daemon that has this key, given in base64. `None` if no answer
    /// came.
    pub(crate) fn call(person: Person, key: &str, wire: &mut Wire) -> Option<Session> {
        let key = STANDARD.decode(key).expect("base64").try_into().expect("32 bytes");
        let mut noise = person.noise(key);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let now = Timestamp::from_unix(since_1970.as_secs(), since_1970.subsec_nanos());
        let pending = noise.initiate(now, 0x0100_0001);
        wire.send(&pending.message);
        let answer = wire.receive_shortly()?;
        let mut session = noise.complete(&pending, &answer).ok()?;
        wire.send(&session.seal(&[]));
        Some(session)
    }

    /// The next packet from the victim.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Vec<u8> {
        self.session.open(&self.wire.receive()).expect("data for the attacker").plaintext
    }

    /// Seals these packets in honest messages.
    pub(crate) fn seal(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        packets.iter().map(|packet| self.session.seal(packet)).collect()
    }

    /// Makes an initiation that is newer than all earlier ones, once the victim would accept a further one.
    pub(crate) fn initiate(&mut self) -> Pending {
        thread::sleep(BETWEEN_INITIATIONS);
        initiate(&mut self.noise, &mut self.initiations)
    }

    /// Sends an honest packet. Returns it, and everything that came before its answer.
    #[track_caller]
    fn knock(&mut self) -> (Vec<u8>, Vec<Vec<u8>>) {
        self.knocks += 1;
        let ends = self.person.both_families()[0];
        let (local_port, sequence) = (40_000 + self.knocks, u32::from(self.knocks));
        let packet = match self.knock {
            Knock::Echo => ends.echo_request(0x0a11, self.knocks, b"is anybody there"),
            Knock::Syn(port) => ends.ip(TCP, &ends.tcp_bytes(local_port, port, sequence, SYN, &[])),
        };
        let message = self.session.seal(&packet);
        self.wire.send(&message);
        let mut before = Vec::new();
        loop {
            let datagram = self.wire.receive();
            let opened = self.session.open(&datagram).ok();
            if opened.is_some_and(|opened| is_answer(self.knock, &packet, &opened.plaintext)) {
                return (packet, before);
            }
            before.push(datagram);
        }
    }
}

/// A socket that a program on the victim has opened.
pub(crate) struct Application {
    pub(crate) socket: UdpSocket,
}

impl Application {
    /// The next datagram that the victim's kernel delivers.
    #[track_caller]
    pub(crate) fn receives(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let (len, _) = self.socket.recv_from(&mut buffer).expect("a datagram");
        buffer.truncate(len);
        buffer
    }

    /// Checks that nothing has been delivered.
    #[track_caller]
    pub(crate) fn has_received_nothing(&self) {
        self.socket.set_nonblocking(true).expect("our own socket");
        let received = self.socket.recv_from(&mut [0; 1]);
        self.socket.set_nonblocking(false).expect("our own socket");
        let error = received.expect_err("nothing must arrive here");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

fn initiate(noise: &mut Initiator, initiations: &mut u32) -> Pending {
    *initiations += 1;
    noise.initiate(Timestamp::from_unix_seconds(1_700_000_000 + u64::from(*initiations)), 0x0100_0000 + *initiations)
}

/// Whether `answer` is the reply of the victim's kernel to the honest packet `asked`.
fn is_answer(knock: Knock, asked: &[u8], answer: &[u8]) -> bool {
    let (Some(asked), Some(answer)) = (upper(asked), upper(answer)) else { return false };
    match knock {
        Knock::Echo => {
            let is_reply = matches!((answer.0, answer.1[0]), (ICMP, 0) | (ICMPV6, 129));
            // Identifier, sequence number and data must match. The rest is padding.
            is_reply && answer.1.get(4..asked.1.len()) == asked.1.get(4..)
        }
        Knock::Syn(_) => {
            let sequence = u32::from_be_bytes([asked.1[4], asked.1[5], asked.1[6], asked.1[7]]);
            answer.0 == TCP
                && answer.1.get(..4) == Some(&[&asked.1[2..4], &asked.1[..2]].concat()[..])
                && answer.1.get(8..12) == Some(&(sequence + 1).to_be_bytes()[..])
                && answer.1.get(13) == Some(&(RST | ACK))
        }
    }
}

/// The protocol and the upper bytes of a packet without options or extension headers.
fn upper(packet: &[u8]) -> Option<(u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => Some((packet[9], packet.get(20..).filter(|rest| !rest.is_empty())?)),
        6 => Some((packet[6], packet.get(40..).filter(|rest| !rest.is_empty())?)),
        _ => None,
    }
}

/// The inbound drop counters.
fn drops(overlay: &Overlay) -> Counts {
    let status = overlay.status();
    let drops = status["drops"].as_object().expect("`drops` is an object");
    let inbound = drops.iter().filter(|(reason, _)| !reason.starts_with("outbound_") && !reason.starts_with("staged_"));
    inbound.map(|(reason, count)| (reason.clone(), count.as_u64().expect("a number"))).collect()
}
