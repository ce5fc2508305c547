//! The world: hosts, relays, links and time.
//!
//! It runs in a loop. The current time jumps to the next delivery or the next deadline of a node, agent or relay, whichever
//! is earlier. That event is processed, all its output is carried away at once, and the loop continues. The time between
//! two events costs nothing. Deliveries go before deadlines of the same moment.
//!
//! A host may live behind routers ([`World::put_behind`]); what they do with a datagram is decided when it leaves its sender's
//! side, and when it arrives at the other side ([`network`]).
//!
//! Datagrams that arrive at the same moment from the same source are passed to the node as trains, as GRO would do. A
//! datagram to an address that does not belong to any host goes to a mailbox ([`World::take_mail`]). Tests use that to
//! play the rest of the Internet.

mod agents;
mod errands;
mod hosts;
mod network;
mod relays;
mod routers;
mod sockets;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::{Instant, Output, PeerTag, Transmit, UdpTrain, Via};
use overlay_wire::offload::{self, Segmentation, SuperPacket, VirtioHeader};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use crate::host::{Host, HostId};
use crate::link::{Line, Link, OVERHEAD_V4, OVERHEAD_V6};
use crate::packet;
use crate::place::{Party, Realm};
use crate::record::{Dropped, Received, Sent};
pub use agents::Route;
use errands::Errands;
use network::{Crossing, Parcel};
use relays::RelayHost;
use routers::Router;
use sockets::PlainSocket;

/// The default start of a world's clock: the machine has been up for eleven days.
const START: Instant = Instant::from_start(Duration::from_secs(1_000_000));
/// The bits of a traffic class that routers mark.
const ECN_MASK: u8 = 0b11;
/// The most datagrams that GRO joins into one train.
const MAX_TRAIN: usize = 64;
/// The TTL of a datagram whose sender does not ask for less, as in Linux.
const MAX_TTL: u8 = 64;

/// A network in memory with virtual time.
pub struct World {
    start: Instant,
    now: Instant,
    pub(crate) rng: ChaCha8Rng,
    hosts: Vec<Host>,
    routers: Vec<Router>,
    sockets: Vec<PlainSocket>,
    relays: Vec<RelayHost>,
    errands: Errands,
    /// How long a message takes from one agent to the other by way of the rendezvous.
    rendezvous_delay: Duration,
    /// How many outside addresses of routers were given out.
    external_addresses: u8,
    /// The number of hosts and outsiders so far. Their addresses are derived from it.
    pub(crate) numbered: u8,
    default_link: Link,
    lines: BTreeMap<(Party, Party), Line>,
    flights: BinaryHeap<Reverse<Flight>>,
    launched: u64,
    mail: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    sent: Vec<Sent>,
    dropped: Vec<Dropped>,
    echoes: u16,
}

/// A datagram in flight, ordered by arrival and then by departure.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    departure: u64,
    /// The network that has the destination.
    realm: Realm,
    source: SocketAddr,
    destination: SocketAddr,
    ttl: u8,
    traffic_class: u8,
    bytes: Vec<u8>,
}

impl World {
    /// An empty world. `seed` determines everything random in it.
    pub fn new(seed: u64) -> Self {
        Self::starting_at(START, seed)
    }

    /// An empty world whose clock starts at `start`.
    pub fn starting_at(start: Instant, seed: u64) -> Self {
        Self {
            start,
            now: start,
            rng: ChaCha8Rng::seed_from_u64(seed),
            hosts: Vec::new(),
            routers: Vec::new(),
            sockets: Vec::new(),
            relays: Vec::new(),
            errands: Errands::default(),
            rendezvous_delay: agents::RENDEZVOUS_DELAY,
            external_addresses: 0,
            numbered: 0,
            default_link: Link::default(),
            lines: BTreeMap::new(),
            flights: BinaryHeap::new(),
            launched: 0,
            mail: BTreeMap::new(),
            sent: Vec::new(),
            dropped: Vec::new(),
            echoes: 0,
        }
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How long the world has run.
    pub fn elapsed(&self) -> Duration {
        self.now.since(self.start)
    }

    /// Runs the world for `span`.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Suspends a host for `span`: it is not called, and nothing reaches it. Afterwards it does what is overdue.
    pub fn suspend(&mut self, host: HostId, span: Duration) {
        let suspended = &mut self.hosts[host.0];
        let (outer, deadline) = (std::mem::take(&mut suspended.outer), suspended.deadline.take());
        self.run_for(span);
        let suspended = &mut self.hosts[host.0];
        (suspended.outer, suspended.deadline) = (outer, deadline);
    }

    /// Runs the world until `is_done`, for `limit` at most. Returns whether that happened. Stops right at the event
    /// that made it true.
    pub fn run_until(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !is_done(self) {
            if !self.step(end) {
                self.now = end;
                return false;
            }
        }
        true
    }

    /// Changes the links between all hosts.
    pub fn all_links(&mut self, edit: impl Fn(&mut Link)) {
        edit(&mut self.default_link);
        self.lines.values_mut().for_each(|line| edit(&mut line.link));
    }

    /// Changes the link from one host, plain socket or relay to another, in this direction only.
    pub fn link(&mut self, from: impl Into<Party>, to: impl Into<Party>, edit: impl FnOnce(&mut Link)) {
        edit(&mut self.line(from.into(), to.into()).link);
    }

    /// Cuts the connection between two hosts, plain sockets or relays, in both directions.
    pub fn cut(&mut self, one: impl Into<Party>, other: impl Into<Party>) {
        let (one, other) = (one.into(), other.into());
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts the connection in this direction only.
    pub fn cut_one_way(&mut self, from: impl Into<Party>, to: impl Into<Party>) {
        self.line(from.into(), to.into()).is_cut = true;
    }

    /// Undoes [`World::cut`] and [`World::cut_one_way`].
    pub fn mend(&mut self, one: impl Into<Party>, other: impl Into<Party>) {
        let (one, other) = (one.into(), other.into());
        self.line(one, other).is_cut = false;
        self.line(other, one).is_cut = false;
    }

    /// Takes what was sent to an address that does not belong to any host, oldest first.
    pub fn take_mail(&mut self, address: SocketAddr) -> Vec<Vec<u8>> {
        self.mail.remove(&address).unwrap_or_default()
    }

    fn line(&mut self, from: Party, to: Party) -> &mut Line {
        let link = &self.default_link;
        self.lines.entry((from, to)).or_insert_with(|| Line::new(link.clone()))
    }

    /// Processes the next event if it is due by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let delivery = self.flights.peek().map(|Reverse(flight)| flight.at);
        let deadline = self.deadline();
        let Some(next) = [delivery, deadline].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if delivery == Some(next) {
            self.land();
        } else {
            self.wake();
        }
        true
    }

    /// When something is due that is not a delivery.
    fn deadline(&self) -> Option<Instant> {
        let hosts = self.hosts.iter().flat_map(|host| [host.deadline, host.agent_deadline()]).flatten();
        let relays = self.relays.iter().filter_map(RelayHost::deadline);
        hosts.chain(relays).chain(self.errands.deadline()).min()
    }

    /// Calls every node, agent and relay whose deadline has passed, and does the errands that are due.
    fn wake(&mut self) {
        for id in (0..self.hosts.len()).map(HostId) {
            let host = &mut self.hosts[id.0];
            if host.deadline.is_some_and(|at| at <= self.now) {
                host.wakeups += 1;
                host.node.handle_timeout(self.now);
                self.drain(id);
                let deadline = self.hosts[id.0].deadline;
                assert!(
                    deadline.is_none_or(|at| at > self.now),
                    "a shell with this deadline never sleeps: {deadline:?}"
                );
            }
            self.wake_agent(id);
        }
        self.wake_relays();
        while let Some(errand) = self.errands.pop(self.now) {
            errand(self);
        }
    }

    /// Delivers the next datagram, together with all datagrams that GRO would join with it.
    fn land(&mut self) {
        let Some(Reverse(mut first)) = self.flights.pop() else { return };
        let (stride, mut last, mut count) = (first.bytes.len(), first.bytes.len(), 1);
        let mut contents = std::mem::take(&mut first.bytes);
        while let Some(Reverse(next)) = self.flights.peek()
            && (next.at, next.realm, next.source, next.destination, next.ttl, next.traffic_class)
                == (first.at, first.realm, first.source, first.destination, first.ttl, first.traffic_class)
            && last == stride
            && next.bytes.len() <= stride
            && count < MAX_TRAIN
            && let Some(Reverse(next)) = self.flights.pop()
        {
            last = next.bytes.len();
            contents.extend(next.bytes);
            count += 1;
        }
        let Flight { realm, source, destination, ttl, traffic_class, .. } = first;
        if let Some(parcel) = self.descend(Parcel { realm, source, destination, ttl }) {
            self.arrive(&contents, stride, &parcel, traffic_class);
        }
    }

    /// Passes a train to the host or plain socket that has the address now.
    fn arrive(&mut self, contents: &[u8], stride: usize, parcel: &Parcel, traffic_class: u8) {
        let Parcel { realm, source, destination, .. } = *parcel;
        if let Some(id) = self.owner(realm, destination) {
            let train =
                UdpTrain { contents, stride, source, via: Host::via(destination), ecn: traffic_class & ECN_MASK };
            self.hosts[id.0].node.handle_udp(&train, self.now);
            self.drain(id);
            return;
        }
        if self.give_to_relay(contents, stride, parcel, traffic_class & ECN_MASK) {
            return;
        }
        let letters: Vec<_> = contents.chunks(stride.max(1)).map(<[u8]>::to_vec).collect();
        if !self.give_to_socket(parcel, &letters) && realm == Realm::Internet {
            self.mail.entry(destination).or_default().extend(letters);
        }
    }

    /// Passes a packet or super-packet to the TUN side of a node.
    fn enter(&mut self, id: HostId, header: &VirtioHeader, packet: &mut [u8]) {
        self.hosts[id.0].node.handle_tun(header, packet, self.now);
        self.drain(id);
    }

    /// Carries away all output of a node.
    fn drain(&mut self, id: HostId) {
        let (mut answers, mut datagrams, mut refused, mut unsent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut foreign = Vec::new();
        let host = &mut self.hosts[id.0];
        for output in host.node.poll_outputs() {
            match output {
                Output::Transmit(transmit) => {
                    let Transmit { contents, segment_size, .. } = transmit;
                    assert!(segment_size > 0 && !contents.is_empty(), "{transmit:?}");
                    for bytes in contents.chunks(segment_size) {
                        let datagram = Datagram::of(&transmit, bytes);
                        if datagram.dont_fragment && datagram.packet_len() > host.device_mtu {
                            refused.extend(transmit.whole_for.map(|path| (path, bytes.len())));
                        } else {
                            datagrams.push(datagram);
                        }
                    }
                }
                Output::Packet(packet) => {
                    let bytes: Vec<u8> = packet.parts().flatten().copied().collect();
                    host.tun_writes += 1;
                    for packet in cut(&packet.header, bytes) {
                        answers.extend(packet::echo_reply(&packet));
                        host.received.push(Received { at: self.now, packet });
                    }
                }
                Output::Foreign(it) => foreign.push((it.source, it.contents.to_vec())),
                Output::Event(event) => host.events.push((self.now, event)),
                Output::Timeout(at) => host.deadline = at,
            }
        }
        for datagram in datagrams {
            let (call_for, destination) = (datagram.call_for, datagram.destination);
            if !self.launch(id, datagram) {
                unsent.extend(call_for.map(|peer| (peer, destination)));
            }
        }
        if !refused.is_empty() || !unsent.is_empty() {
            for (path, len) in refused {
                self.hosts[id.0].node.handle_refused(path, len, self.now);
            }
            for (peer, destination) in unsent {
                self.hosts[id.0].node.handle_unsent(peer, destination, self.now);
            }
            self.drain(id);
        }
        for (source, datagram) in foreign {
            self.give_to_agent(id, source, datagram);
        }
        for mut answer in answers {
            if packet::Echo::of(&answer).is_some_and(|echo| self.hosts[id.0].owns_inner(echo.ends.source)) {
                self.enter(id, &VirtioHeader::NONE, &mut answer);
            }
        }
    }

    /// Sends one datagram. Returns false if the host has no address of that family, so that its kernel refuses.
    fn launch(&mut self, from: HostId, datagram: Datagram) -> bool {
        let Datagram { via, destination, ttl, traffic_class, dont_fragment, bytes, .. } = datagram;
        let Some(source) = self.hosts[from.0].source_for(via, destination) else { return false };
        let parcel = Parcel { realm: self.hosts[from.0].realm(source), source, destination, ttl };
        let Crossing { to, outside, fate } = self.dispatch(from.into(), parcel, traffic_class, dont_fragment, &bytes);
        self.sent.push(Sent {
            at: self.now,
            from,
            source,
            outside,
            destination,
            to,
            ttl,
            traffic_class,
            dont_fragment,
            bytes,
            arrivals: fate.arrivals,
            flipped: fate.flipped,
        });
        true
    }

    /// Lets a datagram that crosses a link arrive at these times.
    fn fly(&mut self, parcel: &Parcel, traffic_class: u8, bytes: &[u8], arrivals: &[Instant]) {
        let Parcel { realm, source, destination, ttl } = *parcel;
        for at in arrivals {
            self.launched += 1;
            let (departure, bytes) = (self.launched, bytes.to_vec());
            let flight = Flight { at: *at, departure, realm, source, destination, ttl, traffic_class, bytes };
            self.flights.push(Reverse(flight));
        }
    }

    /// The host whose node has this address and port in a network.
    fn owner(&self, realm: Realm, address: SocketAddr) -> Option<HostId> {
        let is_it = |host: &Host| host.realm(address) == realm && host.outer.contains(&address);
        self.hosts.iter().position(is_it).map(HostId)
    }
}

/// One datagram of a train.
struct Datagram {
    via: Via,
    destination: SocketAddr,
    ttl: u8,
    traffic_class: u8,
    dont_fragment: bool,
    call_for: Option<PeerTag>,
    bytes: Vec<u8>,
}

impl Datagram {
    fn of(transmit: &Transmit<'_>, bytes: &[u8]) -> Self {
        let Transmit { via, destination, ttl, traffic_class, whole_for, call_for, .. } = *transmit;
        let (ttl, dont_fragment) = (ttl.unwrap_or(MAX_TTL), whole_for.is_some());
        Self { via, destination, ttl, traffic_class, dont_fragment, call_for, bytes: bytes.to_vec() }
    }

    /// A datagram of control, from the node's socket.
    fn plain(destination: SocketAddr, bytes: Vec<u8>) -> Self {
        let (via, ttl) = (Via::ANY, MAX_TTL);
        Self { via, destination, ttl, traffic_class: 0, dont_fragment: false, call_for: None, bytes }
    }

    fn packet_len(&self) -> usize {
        self.bytes.len() + if self.destination.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 }
    }
}

/// The packets that a kernel makes of data written to TUN.
fn cut(header: &VirtioHeader, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
    if header.segmentation == Segmentation::None {
        offload::complete_checksum(header, &mut bytes).expect("a node writes headers that fit their packets");
        return vec![bytes];
    }
    let train = SuperPacket::parse(header, &bytes).expect("a node writes whole super-packets");
    let segment = |index| {
        let mut segment = vec![0; train.segment_len(index)];
        train.write_segment(index, &mut segment);
        segment
    };
    (0..train.segments()).map(segment).collect()
}
