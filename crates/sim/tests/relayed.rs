//! Peers that reach each other through a relay: four bytes in front of each datagram, and nothing else is different.

use std::net::SocketAddr;

use overlay_core::{Command, CommandError, Event, Node, PathMtuState, Remote};
use overlay_sim::{HostId, HostOptions, Scene, World, millis};
use overlay_wire::offload::{Segmentation, VirtioHeader};
use overlay_wire::relay::{Channel, DATA_HEAD_LEN, open_data};
use overlay_wire::wireguard::{DATA_OVERHEAD, Kind, kind};

const RELAY: &str = "198.51.100.9:7447";
const CHANNEL: u32 = 0x00ab_cdef;
/// What an IPv4 packet of 1,500 bytes holds of UDP.
const UDP_OF_1500: usize = 1_500 - 28;

/// Two hosts with no path but the relay, which the test plays: it forwards what has the right channel, byte for byte.
struct Relayed {
    world: World,
    alice: HostId,
    bob: HostId,
    forwarded: usize,
    /// Longer datagrams are lost.
    longest: usize,
}

impl Relayed {
    fn new(options: HostOptions) -> Self {
        let mut world = World::new(5);
        let (alice, bob) = (world.host_with(options.clone()), world.host_with(options));
        world.introduce(alice, bob);
        world.cut(alice, bob);
        let channel = Channel::new(CHANNEL).expect("24 bits");
        for (host, peer) in [(alice, bob), (bob, alice)] {
            world.set_peer(host, peer, |config| (config.endpoint, config.finds_paths) = (None, true));
            let peer = world.tag(host, world.key(peer));
            let relay = RELAY.parse().expect("an address");
            world.command(host, Command::SetRelays(vec![relay])).expect("one relay");
            let remote = Remote { relayed: vec![(relay, channel)], ..Remote::default() };
            world.command(host, Command::SetRemote { peer, remote }).expect("the peer is there");
        }
        Self { world, alice, bob, forwarded: 0, longest: usize::MAX }
    }

    /// Runs the world, and forwards once a millisecond.
    fn run(&mut self, for_millis: u64) {
        let relay: SocketAddr = RELAY.parse().expect("an address");
        for _ in 0..for_millis {
            self.world.run_for(millis(1));
            let is_ours = |sent: &&overlay_sim::Sent| sent.destination == relay;
            let news: Vec<_> = self.world.sent().iter().filter(is_ours).skip(self.forwarded).cloned().collect();
            self.forwarded += news.len();
            for sent in news.into_iter().filter(|sent| sent.bytes.len() <= self.longest) {
                let (channel, datagram) = open_data(&sent.bytes).expect("all that goes to the relay is in a channel");
                assert_eq!(channel.number(), CHANNEL);
                assert_eq!(kind(datagram), Kind::WireGuard);
                let to = if sent.from == self.alice { self.bob } else { self.alice };
                self.world.inject_marked(relay, to, &sent.bytes, sent.traffic_class & 0b11);
            }
        }
    }

    /// Pings from alice, and returns how many answers come.
    fn pings(&mut self, count: usize) -> usize {
        let before = self.world.answers(self.alice);
        let ends = self.world.v4(self.alice, self.bob);
        for _ in 0..count {
            self.world.send_ping(self.alice, ends);
            self.run(20);
        }
        self.world.answers(self.alice) - before
    }
}

#[test]
fn a_session_begins_and_carries_packets_through_a_relay() {
    let mut relayed = Relayed::new(HostOptions::default());
    assert_eq!(relayed.pings(20), 20);
    assert_eq!(relayed.world.handshakes(relayed.alice, relayed.bob), 1);
    assert!(relayed.world.drops(relayed.alice).is_empty() && relayed.world.drops(relayed.bob).is_empty());
    let relay: SocketAddr = RELAY.parse().expect("an address");
    let bob = relayed.world.key(relayed.bob);
    assert!(relayed.world.sent().iter().all(|sent| sent.destination == relay));
    assert_eq!(relayed.world.last_endpoint(relayed.alice, bob), Some(relay));
}

#[test]
fn each_segment_of_a_super_packet_has_its_channel_in_front() {
    let mut relayed = Relayed::new(HostOptions::default());
    assert_eq!(relayed.pings(1), 1);
    let ends = relayed.world.v4(relayed.alice, relayed.bob);
    let segment = 1_300;
    let mut payload = vec![0x30, 0x39, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    payload.extend(vec![0x55; 30 * segment]);
    let header = VirtioHeader {
        needs_checksum: true,
        segmentation: Segmentation::TcpV4,
        header_len: 40,
        segment_size: segment as u16,
        checksum_start: 20,
        checksum_offset: 16,
        ..VirtioHeader::NONE
    };
    let bytes = ends.ip(6, &payload);
    let before = (relayed.world.sent().len(), relayed.world.received(relayed.bob).len());
    relayed.world.send_super(relayed.alice, &header, bytes);
    relayed.run(20);
    let sent = &relayed.world.sent()[before.0..];
    let large = sent.iter().filter(|sent| sent.bytes.len() > segment).count();
    assert!(large >= 30, "{large}");
    assert!(sent.iter().all(|sent| sent.bytes.len() % 16 == DATA_HEAD_LEN || sent.bytes.len() < 200));
    assert_eq!(relayed.world.received(relayed.bob).len() - before.1, 30);
}

#[test]
fn the_path_mtu_is_smaller_by_what_the_relay_needs() {
    let options = HostOptions { mtu: 1_420, max_mtu: 1_440, mtu_discovery: true, ..HostOptions::default() };
    let mut relayed = Relayed::new(options);
    relayed.longest = UDP_OF_1500;
    assert_eq!(relayed.pings(1), 1);
    let ends = relayed.world.v4(relayed.alice, relayed.bob);
    relayed.world.send(relayed.alice, ends.udp(&[7; 1_300]));
    relayed.run(30_000);
    let found = relayed.world.events(relayed.alice).iter().rev().find_map(|(_, event)| match event {
        Event::PathMtu(_, known) => Some((known.mtu, known.state)),
        _ => None,
    });
    // The search ends within 8 bytes of the largest.
    let largest = (UDP_OF_1500 - DATA_OVERHEAD - DATA_HEAD_LEN) as u16;
    let Some((found, PathMtuState::Found)) = found else { panic!("{found:?}") };
    assert!((largest - 7..=largest).contains(&found), "{found} of {largest}");
}

#[test]
fn a_peer_behind_a_relay_proves_its_channel_while_there_is_load() {
    let mut relayed = Relayed::new(HostOptions::default());
    let ends = relayed.world.v4(relayed.alice, relayed.bob);
    relayed.world.send_ping(relayed.alice, ends);
    for _ in 0..12 {
        relayed.world.load(relayed.bob);
        relayed.run(1_000);
    }
    assert!(relayed.world.stats(relayed.bob).cookies_sent.value() > 0);
    assert_eq!(relayed.world.handshakes(relayed.bob, relayed.alice), 1);
}

#[test]
fn what_belongs_to_no_peer_reaches_control_and_nothing_else_does() {
    let (mut world, alice, _) = World::connected();
    let stun = [0x01, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let control = [0x80, 1, 2, 3];
    let source: SocketAddr = RELAY.parse().expect("an address");
    world.command(alice, Command::SetRelays(vec![source])).expect("one relay");
    for datagram in [&stun[..], &control] {
        world.inject(source, alice, datagram);
    }
    assert_eq!(world.foreign(alice), [(source, stun.to_vec()), (source, control.to_vec())]);
    assert_eq!(world.stats(alice).foreign.value(), 2);
    // A channel that holds a channel, or nothing of WireGuard's, or that has a different version.
    for datagram in
        [&[0x41, 0, 0, 1, 0x41, 0, 0, 2, 4, 0, 0, 0][..], &[0x41, 0, 0, 1], &[0x40, 0, 0, 1, 4, 0, 0, 0], &[0xc0, 0]]
    {
        world.inject(source, alice, datagram);
    }
    assert_eq!(world.foreign(alice).len(), 2);
    assert_eq!(world.drops(alice).into_iter().collect::<Vec<_>>(), [("inbound_unknown", 4)]);
}

#[test]
fn a_peer_that_can_be_reached_directly_is_left_at_the_relay_no_longer() {
    let mut relayed = Relayed::new(HostOptions::default());
    assert_eq!(relayed.pings(3), 3);
    let (alice, bob) = (relayed.alice, relayed.bob);
    relayed.world.mend(alice, bob);
    let channel = Channel::new(CHANNEL).expect("24 bits");
    for (host, other) in [(alice, bob), (bob, alice)] {
        let peer = relayed.world.tag(host, relayed.world.key(other));
        let candidates = relayed.world.outer(other).to_vec();
        let remote =
            Remote { candidates, relayed: vec![(RELAY.parse().expect("an address"), channel)], ..Remote::default() };
        relayed.world.command(host, Command::SetRemote { peer, remote }).expect("the peer is there");
    }
    assert_eq!(relayed.pings(250), 250);
    let before = relayed.world.sent().len();
    assert_eq!(relayed.pings(50), 50);
    // Probes that keep the relay warm are shorter than pings.
    let relay: SocketAddr = RELAY.parse().expect("an address");
    let is_relayed_ping = |sent: &&overlay_sim::Sent| sent.destination == relay && sent.bytes.len() > 120;
    assert_eq!(relayed.world.sent()[before..].iter().filter(is_relayed_ping).count(), 0);
}

/// A stranger that could choose channels would count as 16 million sources.
#[test]
fn nobody_but_a_relay_of_ours_is_heard_with_a_relays_bytes() {
    let mut scene = Scene::new();
    let message = scene.session.seal(&scene.ends().udp(b"hello"));
    let channel = Channel::new(CHANNEL).expect("24 bits");
    let wrapped = [&channel.head()[..], &message].concat();
    let relay: SocketAddr = RELAY.parse().expect("an address");
    let stun = [0x01, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    for datagram in [&wrapped[..], &stun, &[0x80, 1, 2, 3]] {
        scene.world.inject(relay, scene.alice, datagram);
    }
    assert_eq!(scene.drops().into_iter().collect::<Vec<_>>(), [("inbound_unknown", 3)]);
    assert_eq!(scene.world.foreign(scene.alice), []);
    assert_eq!(scene.received(), [[0u8; 0]; 0]);

    // The same bytes are the peer's once the relay is ours.
    let other: SocketAddr = "198.51.100.9:7448".parse().expect("an address");
    scene.world.command(scene.alice, Command::SetRelays(vec![other, relay])).expect("two relays");
    scene.world.inject(relay, scene.alice, &wrapped);
    assert_eq!(scene.received().len(), 1);
    let too_many = vec![relay; Node::MAX_RELAYS + 1];
    assert_eq!(scene.world.command(scene.alice, Command::SetRelays(too_many)), Err(CommandError::TooManyRelays));
    scene
        .world
        .command(scene.alice, Command::SetRelays(vec![relay; Node::MAX_RELAYS]))
        .expect("as many as there may be");
    let (peer, relay) = (scene.world.tag(scene.alice, scene.carol.key()), other);
    let remote = Remote { relayed: vec![(relay, channel)], ..Remote::default() };
    let refused = scene.world.command(scene.alice, Command::SetRemote { peer, remote });
    assert_eq!(refused, Err(CommandError::UnknownRelay));
}
