//! Resources that the peers of a node share, and that none of them can exhaust for others: flows, ICMP errors, packets
//! that wait for a session, and handshakes under load.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use overlay_core::{Command, PeerConfig, PeerKey, Protocol, Rule};
use overlay_sim::initiator::Session;
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, HostOptions, Kind, Outsider, World, minutes, seconds};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP segment without payload.
fn segment(ends: Ends, from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    ends.ip(TCP, &[&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]].concat())
}

/// A host that forwards. Mallory sends through it, and dave may only answer.
struct Hub {
    world: World,
    hub: HostId,
    mallory: Outsider,
    dave: Outsider,
    from_mallory: Session,
    from_dave: Session,
}

impl Hub {
    fn new() -> Self {
        let mut world = World::new(7);
        let hub = world.host_with(HostOptions { forward: true, ..HostOptions::default() });
        let mut mallory = world.outsider(hub);
        let mut dave = world.outsider_with(hub, |peer| peer.allow = Some(Vec::new()));
        let from_mallory = world.connect(&mut mallory);
        let from_dave = world.connect(&mut dave);
        Self { world, hub, mallory, dave, from_mallory, from_dave }
    }
}

#[test]
fn a_peer_behind_a_hub_pushes_out_no_connection_of_the_hubs_to_another_peer() {
    let Hub { mut world, hub, mallory, dave, mut from_mallory, mut from_dave } = Hub::new();
    let to_dave = world.from_outsider(&dave).reversed();
    for port in 1..=20 {
        world.send(hub, segment(to_dave, port, 22, SYN));
        let answer = from_dave.seal(&segment(to_dave.reversed(), 22, port, SYN | ACK));
        world.inject(dave.address, hub, &answer);
        world.send(hub, segment(to_dave, port, 22, ACK));
    }

    // A flood of datagrams and connections, which the hub's kernel sends back into the tunnel.
    let through = Ends::new(mallory.inner[0], dave.inner[0]);
    for port in 0..2_100 {
        for packet in [through.udp_between(port, 9, b"x"), segment(through, port, 9, SYN)] {
            world.inject(mallory.address, hub, &from_mallory.seal(&packet));
            world.send(hub, packet);
        }
    }
    world.forget();
    for port in 1..=20 {
        let answer = from_dave.seal(&segment(to_dave.reversed(), 22, port, ACK));
        world.inject(dave.address, hub, &answer);
    }
    assert_eq!(world.drops(hub).get("not_allowed"), None);
    assert_eq!(world.received(hub).len(), 20);
}

#[test]
fn answered_flows_of_one_party_keep_no_other_from_connecting() {
    let Hub { mut world, hub, mallory, dave, mut from_mallory, mut from_dave } = Hub::new();
    let through = Ends::new(mallory.inner[0], dave.inner[0]);
    let ask = |world: &mut World, from_mallory: &mut Session, port: u16| {
        let query = through.udp_between(port, 53, b"name?");
        world.inject(mallory.address, hub, &from_mallory.seal(&query));
        world.send(hub, query);
    };
    // Dave's name service answers her as everybody.
    for port in 0..2_048 {
        ask(&mut world, &mut from_mallory, port);
        let answer = from_dave.seal(&through.reversed().udp_between(53, port, b"name."));
        world.inject(dave.address, hub, &answer);
    }
    assert_eq!(world.drops(hub).get("not_allowed"), None);
    let to_dave = world.from_outsider(&dave).reversed();
    let mut lost = Vec::new();
    for attempt in 0..10u16 {
        world.send(hub, segment(to_dave, 40_000 + attempt, 22, SYN));
        // Two datagrams in the round trip between SYN and answer.
        ask(&mut world, &mut from_mallory, 3_000 + 2 * attempt);
        ask(&mut world, &mut from_mallory, 3_001 + 2 * attempt);
        let before = world.received(hub).len();
        let answer = from_dave.seal(&segment(to_dave.reversed(), 22, 40_000 + attempt, SYN | ACK));
        world.inject(dave.address, hub, &answer);
        if world.received(hub).len() == before {
            lost.push(attempt);
        }
    }
    assert!(lost.is_empty(), "attempts whose answer was dropped: {lost:?}");
}

#[test]
fn answered_flows_of_one_user_keep_no_other_from_connecting() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut dave = world.outsider_with(alice, |peer| peer.allow = Some(Vec::new()));
    let mut from_dave = world.connect(&mut dave);
    let to_dave = world.from_outsider(&dave).reversed();
    for port in 1_024..1_024 + 2_048 {
        world.send(alice, to_dave.udp_between(port, 53, b"name?"));
        let answer = from_dave.seal(&to_dave.reversed().udp_between(53, port, b"name."));
        world.inject(dave.address, alice, &answer);
    }
    world.forget();
    world.send(alice, segment(to_dave, 40_000, 22, SYN));
    world.send(alice, to_dave.udp_between(9_999, 53, b"name?"));
    let answer = from_dave.seal(&segment(to_dave.reversed(), 22, 40_000, SYN | ACK));
    world.inject(dave.address, alice, &answer);
    assert_eq!(world.received(alice).len(), 1, "{:?}", world.drops(alice));
}

#[test]
fn knocking_at_addresses_without_a_peer_uses_up_no_too_big() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    world.command(alice, Command::SetMtu { mtu: 1_300, max: 1_300 }).expect("an MTU");
    let own = world.v4(alice, bob);
    let nobody = Ends::new(own.source, IpAddr::from(Ipv4Addr::new(10, 200, 0, 1)));
    for _ in 0..1_000 {
        world.send(alice, nobody.udp(b"anybody?"));
    }
    world.forget();
    world.send(alice, own.udp(&[0; 1_300]));
    assert_eq!(world.received(alice).len(), 1, "the sender learns what fits");
}

#[test]
fn a_flood_before_the_session_pushes_out_no_packet_of_another_source() {
    let mut world = World::new(7);
    let alice = world.host_with(HostOptions { forward: true, ..HostOptions::default() });
    let bob = world.host();
    world.introduce(alice, bob);
    let own = world.v4(alice, bob).udp(b"the first packet of somebody else");
    world.send(alice, own.clone());
    let flood = Ends::new(Ipv4Addr::new(192, 168, 7, 7), world.v4(alice, bob).destination);
    for port in 0..1_000 {
        world.send(alice, flood.udp_between(port, 9, b"x"));
    }
    assert_eq!(world.drops(alice)["staged_overflow"], 1_001 - 128);
    // The flood's source does not belong to alice, so bob drops those packets. Alice's own packet arrives.
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).iter().map(|received| &received.packet).collect::<Vec<_>>(), [&own]);
}

/// A stranger with a cookie for this address uses up what it may ask.
fn use_up(world: &mut World, host: HostId, address: SocketAddr) {
    let (stranger, mut message) = world.stranger(host, 8);
    world.prove(&stranger, address, host, &mut message);
    (0..20).for_each(|_| assert!(world.ask(address, host, &message).is_empty()));
    assert_eq!(world.drops(host)["handshake_rate"], 15);
}

#[test]
fn strangers_behind_the_same_address_keep_no_known_peer_from_calling() {
    let mut world = World::new(7);
    let alice = world.host();
    let mut carol = world.outsider(alice);
    world.connect(&mut carol);
    world.run_for(minutes(4));
    world.load(alice);
    use_up(&mut world, alice, SocketAddr::new(carol.address.ip(), 666));

    let cookie = world.cookie(&mut carol);
    let mut again = carol.initiate();
    carol.initiator.sign(&mut again.message, Some(&cookie));
    let answers = world.ask(carol.address, alice, &again.message);
    assert!(answers.first().is_some_and(|answer| carol.initiator.complete(&again, answer).is_ok()), "she is heard");

    // Her own allowance is limited as well: a burst of five.
    let before = world.drops(alice)["handshake_rate"];
    for _ in 0..10 {
        world.ask(carol.address, alice, &again.message);
    }
    assert_eq!(world.drops(alice)["handshake_rate"] - before, 10 - 4);
}

#[test]
fn strangers_behind_the_same_address_keep_out_no_answer_that_we_wait_for() {
    let mut world = World::new(7);
    let alice = world.host();
    let address: SocketAddr = "203.0.113.77:51820".parse().expect("an address");
    let mut carol = world.outsider_with(alice, |peer| peer.endpoint = Some(address));
    world.send(alice, world.from_outsider(&carol).reversed().udp(b"hello"));
    world.run_for(seconds(0));
    let initiation = world.take_mail(address).remove(0);
    world.load(alice);
    // The NAT before carol has given her a different port since.
    let roamed = SocketAddr::new(address.ip(), 777);
    use_up(&mut world, alice, SocketAddr::new(address.ip(), 666));

    let (mut response, ..) = carol.initiator.answer(&initiation, 1).expect("a good initiation");
    let cookie = world.prove(&carol.initiator, roamed, alice, &mut response);
    // One that answers nothing we asked gets no such favour.
    let before = world.drops(alice)["handshake_rate"];
    let mut other = response.clone();
    other[8] ^= 0x40;
    carol.initiator.sign(&mut other, Some(&cookie));
    world.ask(roamed, alice, &other);
    assert_eq!(world.drops(alice)["handshake_rate"] - before, 1);
    world.ask(roamed, alice, &response);
    assert_eq!(world.peer_stats(alice, carol.key()).handshakes.value(), 1);
}

#[test]
fn a_stranger_who_loads_the_node_disturbs_no_session_that_there_is() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.ping(alice, bob);
    let flood = world.stranger(bob, 9).1;
    // Longer than a session lives: the next ones begin under load, with a cookie in the second attempt.
    for second in 0..400u32 {
        for n in 0..300u16 {
            let [high, low] = n.to_be_bytes();
            world.inject(SocketAddr::from(([198, 18, high, low], 1_000)), bob, &flood);
        }
        assert!(world.ping(alice, bob).is_some(), "at {second} s");
        world.run_for(seconds(1));
    }
    assert!(world.stats(bob).cookies_sent.value() > 10_000);
    assert!(world.handshakes(alice, bob) >= 3 && world.count(alice, Kind::Initiation) >= 3);
}

/// A host that forwards, whose packets to `bob` may have 1,200 bytes. `mallory` may send from 256 addresses.
struct Gateway {
    world: World,
    gateway: HostId,
    bob: HostId,
    mallory: Outsider,
}

impl Gateway {
    fn new() -> Self {
        let mut world = World::new(7);
        let options = HostOptions { forward: true, mtu: 1_200, max_mtu: 1_200, ..HostOptions::default() };
        let (gateway, bob) = (world.host_with(options), world.host());
        world.introduce(gateway, bob);
        let wide = "10.99.0.0/24".parse().expect("a prefix");
        let mallory = world.outsider_with(gateway, |peer| peer.allowed_ips = vec![wide]);
        Self { world, gateway, bob, mallory }
    }

    /// Packets of this length to bob, `count` from each of 256 addresses of this network.
    fn flood(&mut self, network: [u8; 3], len: usize, count: u16) {
        let to = self.world.v4(self.gateway, self.bob).destination;
        let [a, b, c] = network;
        for last in 0..=255 {
            let ends = Ends::new(Ipv4Addr::new(a, b, c, last), to);
            (0..count).for_each(|port| self.world.send(self.gateway, ends.udp_between(port, 9, &vec![0; len - 28])));
        }
    }
}

#[test]
fn no_number_of_addresses_uses_up_too_big_of_another_party() {
    const MALLORYS: [u8; 3] = [10, 99, 0];
    const BESIDE_US: [u8; 3] = [192, 168, 7];
    for network in [MALLORYS, BESIDE_US] {
        let mut scene = Gateway::new();
        scene.world.ping(scene.gateway, scene.bob);
        scene.flood(network, 1_300, 50);
        // Ours, and that of a host beside us if the flood came from a peer.
        let own = scene.world.v4(scene.gateway, scene.bob);
        let beside = Ends::new(Ipv4Addr::new(192, 168, 7, 7), own.destination);
        scene.world.forget();
        scene.world.send(scene.gateway, own.udp(&[0; 1_300]));
        assert_eq!(scene.world.received(scene.gateway).len(), 1, "{network:?}");
        if network == MALLORYS {
            scene.world.send(scene.gateway, beside.udp(&[0; 1_300]));
            assert_eq!(scene.world.received(scene.gateway).len(), 2, "{network:?}");
        }
    }
}

#[test]
fn hosts_beside_us_are_told_apart_where_a_peer_has_the_default_route() {
    let Gateway { mut world, gateway, bob, .. } = Gateway::new();
    world.set_peer(gateway, bob, |peer| peer.allowed_ips.push("0.0.0.0/0".parse().expect("a prefix")));
    world.ping(gateway, bob);
    let outside = IpAddr::from([203, 0, 113, 200]);
    let flood = Ends::new(Ipv4Addr::new(192, 168, 7, 1), outside);
    (0..1_000).for_each(|_| world.send(gateway, flood.udp(&[0; 1_300])));
    world.forget();
    for last in 2..=31 {
        world.send(gateway, Ends::new(Ipv4Addr::new(192, 168, 7, last), outside).udp(&[0; 1_300]));
    }
    // Few of them are in the group of the first.
    let answered = world.received(gateway).len();
    assert!((20..30).contains(&answered), "{answered}");
}

#[test]
fn no_number_of_addresses_pushes_out_staged_packets_of_another_party() {
    for network in [[10, 99, 0], [192, 168, 7]] {
        let mut scene = Gateway::new();
        let own = scene.world.v4(scene.gateway, scene.bob);
        (0..20).for_each(|port| scene.world.send(scene.gateway, own.udp_between(port, 9, b"ours")));
        scene.flood(network, 100, 4);
        scene.world.run_for(seconds(1));
        assert_eq!(scene.world.received(scene.bob).len(), 20, "{network:?}");
    }
}

#[test]
fn no_host_can_choose_whose_fragments_it_pushes_out() {
    let Gateway { mut world, gateway, mut mallory, .. } = Gateway::new();
    let rule = Rule { protocol: Protocol::Udp, ports: None };
    let allowed_ips = vec!["10.99.0.0/24".parse().expect("a prefix")];
    world
        .configure(gateway, PeerConfig { allowed_ips, allow: Some(vec![rule]), ..PeerConfig::of(mallory.key()) })
        .expect("rules");
    let mut session = world.connect(&mut mallory);
    let ours = world.v4(gateway, gateway).source;
    let fragment = |source: u32, id: u16, offset: u16, more: bool| {
        let ends = Ends::new(Ipv4Addr::from(source), ours);
        let whole = ends.udp_between(4_000, 9, &[7; 16]);
        let mut packet = ends.ip(17, if offset == 0 { &whole[20..36] } else { &whole[36..] });
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&((u16::from(more) << 13) | (offset / 8)).to_be_bytes());
        packet
    };
    // A public hash with 64 values puts these two addresses together.
    let group = |address: u32| u64::from(address).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
    let victim = u32::from(Ipv4Addr::new(10, 99, 0, 5));
    let twin = (victim + 1..victim + 250).find(|address| group(*address) == group(victim)).expect("one in 64");
    world.inject(mallory.address, gateway, &session.seal(&fragment(victim, 1, 0, true)));
    for id in 0..256 {
        world.inject(mallory.address, gateway, &session.seal(&fragment(twin, id, 0, true)));
    }
    world.forget();
    world.inject(mallory.address, gateway, &session.seal(&fragment(victim, 1, 16, false)));
    assert_eq!(world.received(gateway).len(), 1, "{:?}", world.drops(gateway));
}

/// Adds peers of `host` that never answer, and returns their virtual IPs.
fn add_silent(world: &mut World, host: HostId, count: u16, allow: Option<Vec<Rule>>) -> Vec<IpAddr> {
    let add = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut key = [9; 32];
        key[..2].copy_from_slice(&[high, low]);
        let inner = IpAddr::from(Ipv4Addr::new(10, 200, high, low));
        let endpoint = Some(SocketAddr::from(([198, 18, high, low], 9)));
        let config = PeerConfig {
            endpoint,
            allowed_ips: vec![inner.into()],
            allow: allow.clone(),
            ..PeerConfig::of(PeerKey(key))
        };
        world.configure(host, config).expect("a new key");
        inner
    };
    (0..count).map(add).collect()
}

#[test]
fn packets_that_wait_for_silent_peers_are_bounded_together() {
    const BUDGET: u64 = 64 << 20;
    const BIG: u64 = 60_000;
    let Gateway { mut world, gateway, bob, .. } = Gateway::new();
    let silent = add_silent(&mut world, gateway, 600, None);
    let own = world.v4(gateway, bob);
    let refused = |world: &World| world.drops(gateway).get("staged_budget").copied().unwrap_or(0);
    // Offers 144 MB, and returns how many bytes are kept.
    let flood = |world: &mut World, source: IpAddr| {
        let before = refused(world);
        for peer in &silent {
            let ends = Ends::new(source, *peer);
            (0..4).for_each(|port| world.send(gateway, ends.udp_between(port, 9, &vec![0; BIG as usize - 28])));
        }
        BIG * (4 * silent.len() as u64 - (refused(world) - before))
    };
    let mallory = IpAddr::from([10, 99, 0, 1]);
    let (ours, mallorys) = (flood(&mut world, own.source), flood(&mut world, mallory));
    assert!((BUDGET / 5..BUDGET / 3).contains(&ours), "{ours}");
    // She also pushes out half of ours where she meets it, which makes more room.
    let overflow = |world: &World| world.drops(gateway).get("staged_overflow").copied().unwrap_or(0);
    let (pushed_out, before) = (overflow(&world), refused(&world));
    assert!(mallorys >= BUDGET / 8 && ours + mallorys - BIG * pushed_out < BUDGET * 3 / 5, "{mallorys}");

    // A party that has nothing yet is let in, and so is the first packet of anybody to a peer.
    world.send(gateway, Ends::new(Ipv4Addr::new(192, 168, 7, 7), silent[599]).udp(&[1; 50_000]));
    world.send(gateway, Ends::new(own.source, silent[598]).udp(b"ours"));
    world.send(gateway, own.udp(b"ours"));
    assert_eq!((overflow(&world), refused(&world)), (pushed_out, before));
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).len(), 1);

    // Packets that are given up make room.
    world.run_for(minutes(4));
    let ours = flood(&mut world, own.source);
    assert!((BUDGET / 5..BUDGET / 3).contains(&ours), "{ours}");
}

#[test]
fn flows_with_silent_peers_are_bounded_together_and_make_room_when_they_are_dead() {
    let Gateway { mut world, gateway, .. } = Gateway::new();
    let silent = add_silent(&mut world, gateway, 90, Some(Vec::new()));
    let own = world.v4(gateway, gateway).source;
    let scan = |world: &mut World, source: IpAddr| {
        for peer in &silent {
            (0..2_048).for_each(|port| world.send(gateway, Ends::new(source, *peer).udp_between(port, 9, b"x")));
        }
    };
    let count = |world: &mut World| world.known_flows(gateway).iter().map(|known| known.flows.len()).sum::<usize>();
    // A quarter of the budget, and what a party always has. Each table has 32 flows free of charge.
    scan(&mut world, IpAddr::from([10, 99, 0, 1]));
    let most = 524_288 / 4 + 524_288 / 50 + 90 * 32;
    let (first, is_bounded) = (count(&mut world), |count| (most * 9 / 10..=most).contains(&count));
    assert!(is_bounded(first), "{first}");
    // A party that has nothing yet has room in the same tables.
    let before = count(&mut world);
    (0..500).for_each(|port| world.send(gateway, Ends::new(own, silent[89]).udp_between(port, 53, b"name?")));
    assert_eq!(count(&mut world), before + 500);

    let freed = allocation_counter::measure(|| world.run_for(minutes(5))).bytes_current;
    assert!(freed < -(8 << 20), "{freed}");
    assert_eq!(count(&mut world), 0);
    scan(&mut world, IpAddr::from([10, 99, 0, 1]));
    let second = count(&mut world);
    assert!(is_bounded(second), "{second}");
}
