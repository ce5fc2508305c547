//! A stock WireGuard at the remote end. Echoes find the path MTU, and a peer that does not answer echoes is left alone.

use overlay_core::{Command, MtuLimit, PathMtu, PathMtuState, ProbedBy};
use overlay_core::{Event, PeerKey};
use overlay_sim::packet::Echo;
use overlay_sim::{HostId, HostOptions, Kind, World, seconds};
use overlay_wire::ip::Packet;
use overlay_wire::{control, icmp};

use crate::scene::{ASSUMED, options};
use crate::stock::Stock;

/// The length of the first probe, in bytes.
const BASE: usize = 1_200;

/// Application data that makes a packet large enough to start the search.
const LARGE: &[u8] = &[0x5a; 1_000];

fn scene(mtu_discovery: bool) -> (World, HostId, Stock) {
    let mut world = World::new(11);
    let alice = world.host_with(HostOptions { mtu_discovery, ..options() });
    let stock = Stock::new(&mut world, alice, mtu_discovery);
    (world, alice, stock)
}

fn known(world: &World, host: HostId, peer: PeerKey) -> Option<PathMtu> {
    let peer = world.tag(host, peer);
    world.events(host).iter().rev().find_map(|(_, event)| match event {
        Event::PathMtu(of, known) if of.peer == peer => Some(*known),
        _ => None,
    })
}

/// How many echo replies, or first fragments of echo replies, came out of the tunnel.
fn replies(world: &World, host: HostId) -> usize {
    let is_reply = |packet: &[u8]| icmp::echo_reply(&Packet::parse(packet).expect("a packet")).is_some();
    world.received(host).iter().filter(|received| is_reply(&received.packet)).count()
}

#[test]
fn the_path_to_a_stock_peer_is_found_by_echoes_that_nobody_sees() {
    for path in [1_280, 1_400, 1_500, 9_000] {
        for own_mtu in [9_000, 1_420, 1_280] {
            for is_called in [false, true] {
                let (mut world, alice, mut stock) = scene(true);
                (stock.path, stock.own_mtu) = (path, own_mtu.min(path - 60));
                let ends = stock.ends(&world, true);
                if is_called {
                    stock.call(&mut world);
                }
                world.send(alice, ends.udp(LARGE));
                stock.run(&mut world, seconds(15));
                let known = known(&world, alice, stock.outsider.key()).expect("found");
                let truth = (path - 60).min(8_940);
                let found = usize::from(known.mtu);
                let case = format!("{path} {own_mtu} {is_called}: {known:?}");
                assert_eq!((known.state, known.probed_by), (PathMtuState::Found, ProbedBy::Echoes), "{case}");
                assert!(found <= truth && truth - found <= 16, "{case}");
                let limit = if truth == 8_940 { MtuLimit::Interface } else { MtuLimit::Path };
                assert_eq!(known.limit, limit, "{case}");
                assert_eq!(stock.hellos(), if is_called { 0 } else { 2 }, "{case}");
                assert_eq!(replies(&world, alice), 0, "{case}");
            }
        }
    }
}

#[test]
fn a_stock_peer_is_not_probed_before_it_is_sent_a_large_packet() {
    for is_echoing in [false, true] {
        let (mut world, alice, mut stock) = scene(true);
        stock.is_echoing = is_echoing;
        let ends = stock.ends(&world, true);
        stock.call(&mut world);
        for _ in 0..300 {
            // An echo of ping's usual size, which software that monitors ten thousand peers would send.
            world.send(alice, ends.echo_request(0x4d4d, 1, &[0xa5; 56]));
            stock.run(&mut world, seconds(1));
        }
        let probes = stock.echoes();
        assert_eq!(
            probes.len(),
            0,
            "{} bytes of probes for a peer that is sent nothing large",
            probes.iter().sum::<usize>()
        );
        world.send(alice, ends.udp(LARGE));
        stock.run(&mut world, seconds(15));
        assert_eq!(stock.echoes()[0], BASE, "the first large packet begins the search");
        let known = known(&world, alice, stock.outsider.key()).map(|known| (known.mtu, known.state));
        assert_eq!(known == Some((1_440, PathMtuState::Found)), is_echoing, "{known:?}");
    }
}

#[test]
fn a_stock_peer_that_moved_is_probed_again_when_it_is_sent_a_large_packet() {
    let (mut world, alice, mut stock) = scene(true);
    let ends = stock.ends(&world, true);
    world.send(alice, ends.udp(LARGE));
    stock.run(&mut world, seconds(15));
    let probes = stock.echoes().len();
    stock.outsider.address = "203.0.113.99:51820".parse().expect("an address");
    stock.call(&mut world);
    world.send(alice, ends.udp(b"small"));
    stock.run(&mut world, seconds(15));
    assert_eq!(stock.echoes().len(), probes, "nothing large went to the new address");
    let moved = known(&world, alice, stock.outsider.key()).expect("it is told of");
    assert_eq!((moved.mtu, moved.state), (ASSUMED, PathMtuState::Assumed));
    world.send(alice, ends.udp(LARGE));
    stock.run(&mut world, seconds(15));
    let known = known(&world, alice, stock.outsider.key()).expect("found");
    assert_eq!((known.mtu, known.state), (1_440, PathMtuState::Found));
}

#[test]
fn replies_that_come_in_fragments_count_in_both_families() {
    for is_v4 in [true, false] {
        let (mut world, alice, mut stock) = scene(true);
        // The host has only one of the two families.
        let inner = stock.outsider.inner[usize::from(!is_v4)];
        world.set_allowed_ips(alice, stock.outsider.key(), vec![inner.into()]);
        stock.path = 9_000;
        world.send(alice, stock.ends(&world, is_v4).udp(LARGE));
        stock.run(&mut world, seconds(15));
        let known = known(&world, alice, stock.outsider.key()).expect("found");
        assert_eq!((known.state, known.mtu), (PathMtuState::Found, 8_940), "{is_v4}");
        assert_eq!(replies(&world, alice), 0, "the first fragments are ours");
    }
}

#[test]
fn a_users_own_pings_are_answered_meanwhile() {
    for is_v4 in [true, false] {
        let (mut world, alice, mut stock) = scene(true);
        let ends = stock.ends(&world, is_v4);
        for sequence in 0..200 {
            world.send(alice, ends.echo_request(0x4d4d, sequence, &[0xa5; 800]));
            stock.run(&mut world, seconds(1) / 20);
        }
        assert_eq!(replies(&world, alice), 200, "all of theirs and none of ours");
        assert!(stock.echoes().len() > 3);
        let known = known(&world, alice, stock.outsider.key()).expect("found");
        assert_eq!((known.state, known.mtu), (PathMtuState::Found, 1_440));
    }
}

#[test]
fn a_silent_fall_is_noticed_on_the_path_to_a_stock_peer() {
    let (mut world, alice, mut stock) = scene(true);
    let ends = stock.ends(&world, true);
    world.send(alice, ends.udp(LARGE));
    stock.run(&mut world, seconds(15));
    stock.path = 1_400;
    let mut size = 1_440;
    let mut last = world.now();
    let mut longest = seconds(0);
    for _ in 0..400 {
        let before = stock.heard.len();
        world.send(alice, ends.udp(&vec![0x5a; size - 28]));
        stock.run(&mut world, seconds(1) / 20);
        if stock.heard[before..].iter().any(|(_, packet)| packet.len() == size) {
            longest = longest.max(world.now().since(last));
            last = world.now();
        }
        if let Some(error) = crate::flow::errors(&world, alice).last() {
            size = error.mtu;
        }
    }
    assert!(longest < seconds(5) && world.now().since(last) < seconds(1), "{longest:?}");
    let known = known(&world, alice, stock.outsider.key()).expect("found");
    assert_eq!((known.state, known.mtu), (PathMtuState::Found, 1_340));
}

#[test]
fn a_peer_that_answers_nothing_keeps_the_mtu_that_was_assumed_and_its_datagrams_may_be_fragmented() {
    let (mut world, alice, mut stock) = scene(true);
    stock.is_echoing = false;
    let ends = stock.ends(&world, true);
    for _ in 0..600 {
        world.send(alice, ends.udp(&vec![0x5a; usize::from(ASSUMED) - 28]));
        stock.run(&mut world, seconds(2));
    }
    let known = known(&world, alice, stock.outsider.key());
    assert!(known.is_none_or(|known| (known.mtu, known.state) == (ASSUMED, PathMtuState::Assumed)), "{known:?}");
    let sizes = stock.echoes();
    assert!(sizes.iter().all(|size| *size == BASE), "{sizes:?}");
    assert!(sizes.len() < 40, "one a minute at most: {}", sizes.len());
    let mut whole = world.sent().iter().filter(|sent| sent.dont_fragment);
    assert!(whole.all(|sent| sent.bytes.len() == BASE + 32), "no more than the probes");
    assert_eq!(world.drops(alice).get("outbound_too_big"), None);
    assert!(world.received(alice).is_empty());
}

#[test]
fn a_stock_peer_is_greeted_twice_in_a_session_and_in_three_of_them() {
    let (mut world, alice, mut stock) = scene(true);
    let ends = stock.ends(&world, true);
    let mut hellos = Vec::new();
    let mut sessions = 0;
    for _ in 0..1_200 {
        world.send(alice, ends.udp(b"small"));
        stock.run(&mut world, seconds(1));
        if stock.answered > sessions {
            sessions = stock.answered;
            hellos.push(stock.hellos());
        }
    }
    stock.run(&mut world, seconds(5));
    assert!(sessions >= 6, "{sessions}");
    assert_eq!(stock.hellos(), 6, "{hellos:?}");
    // The first packets of each session are counted before its hellos.
    let per_session: Vec<_> = hellos.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(per_session.iter().all(|count| *count <= 2), "{per_session:?}");
    assert!(stock.heard.iter().all(|(_, packet)| !control::is_control(packet) || packet.len() == 60), "hellos alone");
    // After the interface was down and up, hellos are sent again.
    let before = stock.hellos();
    world.command(alice, Command::SetUp(false)).expect("a change");
    world.command(alice, Command::SetUp(true)).expect("a change");
    world.send(alice, ends.udp(b"small"));
    stock.run(&mut world, seconds(5));
    assert_eq!(stock.hellos(), before + 2);
}

#[test]
fn without_discovery_an_observer_sees_what_wireguard_sends() {
    let (mut world, alice, mut stock) = scene(false);
    let ends = stock.ends(&world, true);
    let packet = ends.udp(&vec![0x5a; usize::from(ASSUMED) - 28]);
    for _ in 0..300 {
        world.send(alice, packet.clone());
        stock.run(&mut world, seconds(1));
    }
    assert!(stock.heard.iter().all(|(_, heard)| *heard == packet || heard.is_empty()));
    assert_eq!(stock.heard.iter().filter(|(_, heard)| *heard == packet).count(), 300);
    assert_eq!(world.count(alice, Kind::Data), 300);
    assert!(world.sent().iter().all(|sent| !sent.dont_fragment));
    assert!(known(&world, alice, stock.outsider.key()).is_none());
}

#[test]
fn echoes_follow_when_an_address_becomes_another() {
    let (mut world, alice, mut stock) = scene(true);
    world.send(alice, stock.ends(&world, true).udp(LARGE));
    stock.run(&mut world, seconds(15));
    let key = stock.outsider.key();
    assert_eq!(known(&world, alice, key).map(|known| known.state), Some(PathMtuState::Found));
    // From now on we have a different address, and the peer knows it.
    let moved = "10.77.0.200".parse().expect("an address");
    world.command(alice, Command::SetAddresses { addresses: vec![moved], forward: false }).expect("a change");
    stock.heard.clear();
    let ends = overlay_sim::packet::Ends { source: moved, ..stock.ends(&world, true) };
    for _ in 0..200 {
        world.send(alice, ends.udp(&vec![0x5a; 1_400 - 28]));
        stock.run(&mut world, seconds(1) / 10);
    }
    let asked_from = |(_, packet): &(_, Vec<u8>)| Echo::of(packet).map(|echo| echo.ends.source);
    let sources: Vec<_> = stock.heard.iter().filter_map(asked_from).collect();
    assert!(!sources.is_empty() && sources.iter().all(|source| *source == moved), "{sources:?}");
    assert_eq!(known(&world, alice, key).map(|known| known.state), Some(PathMtuState::Found));
}

#[test]
fn a_stock_peer_that_is_told_of_anew_without_a_change_keeps_what_was_found() {
    let (mut world, alice, mut stock) = scene(true);
    world.send(alice, stock.ends(&world, true).udp(LARGE));
    stock.run(&mut world, seconds(15));
    world.forget();
    let (key, inner) = (stock.outsider.key(), stock.outsider.inner);
    world.set_allowed_ips(alice, key, inner.map(Into::into).to_vec());
    stock.run(&mut world, seconds(1));
    assert_eq!(known(&world, alice, key), None, "no news");
    // There is no address left to send echoes to.
    world.set_allowed_ips(alice, key, vec!["10.99.0.0/16".parse().expect("a prefix")]);
    stock.run(&mut world, seconds(1));
    let now = known(&world, alice, key).map(|known| (known.mtu, known.state, known.probed_by));
    assert_eq!(now, Some((ASSUMED, PathMtuState::Assumed, ProbedBy::Nothing)));
    // Now there is one again.
    world.set_allowed_ips(alice, key, inner.map(Into::into).to_vec());
    stock.run(&mut world, seconds(15));
    let now = known(&world, alice, key).map(|known| (known.mtu, known.state, known.probed_by));
    assert_eq!(now, Some((1_440, PathMtuState::Found, ProbedBy::Echoes)));
}

/// The longest time without an arrival while one such packet is sent every 50 ms for `span` seconds.
fn longest_gap(world: &mut World, alice: HostId, stock: &mut Stock, packet: &[u8], span: u64) -> std::time::Duration {
    let (mut last, mut longest) = (world.now(), seconds(0));
    for _ in 0..span * 20 {
        let before = stock.heard.len();
        world.send(alice, packet.to_vec());
        stock.run(world, seconds(1) / 20);
        if stock.heard[before..].iter().any(|(_, heard)| heard == packet) {
            last = world.now();
        }
        longest = longest.max(world.now().since(last));
    }
    longest
}

#[test]
fn who_answers_no_echo_any_more_is_sent_what_a_router_may_fragment() {
    let (mut world, alice, mut stock) = scene(true);
    let ends = stock.ends(&world, true);
    world.send(alice, ends.udp(LARGE));
    stock.run(&mut world, seconds(15));
    let found = known(&world, alice, stock.outsider.key()).expect("found");
    assert_eq!(found.mtu, 1_440);
    let packet = ends.udp(&[0x5a; 1_440 - 28]);
    stock.is_echoing = false;
    assert!(longest_gap(&mut world, alice, &mut stock, &packet, 10) < seconds(1), "it fits");
    (stock.path, stock.is_fragmented) = (1_400, true);
    let gap = longest_gap(&mut world, alice, &mut stock, &packet, 120);
    assert!(gap < seconds(5), "{gap:?}");
    // The MTU stays the same. Once the peer answers again, it is probed again.
    assert_eq!(known(&world, alice, stock.outsider.key()).map(|known| known.mtu), Some(1_440));
    stock.is_echoing = true;
    longest_gap(&mut world, alice, &mut stock, &packet, 30);
    let known = known(&world, alice, stock.outsider.key()).expect("found");
    assert_eq!((known.state, known.mtu), (PathMtuState::Found, 1_340));
    world.forget();
    world.send(alice, ends.udp(&[0x5a; 1_340 - 28]));
    assert!(world.sent_by(alice, Kind::Data).any(|sent| sent.dont_fragment && sent.bytes.len() > 1_300));
}

#[test]
fn a_path_that_falls_after_its_peer_fell_silent_is_no_black_hole() {
    let (mut world, alice, mut stock) = scene(true);
    let ends = stock.ends(&world, true);
    let packet = ends.udp(&[0x5a; 1_440 - 28]);
    world.send(alice, ends.udp(LARGE));
    stock.run(&mut world, seconds(15));
    // Both happen at the same moment, without any warning.
    (stock.is_echoing, stock.path, stock.is_fragmented) = (false, 1_400, true);
    let gap = longest_gap(&mut world, alice, &mut stock, &packet, 60);
    assert!(gap < seconds(4), "{gap:?}");
}

#[test]
fn a_stock_peer_in_the_place_of_an_overlay_node_gets_ipv6_packets_whole() {
    let (mut world, alice, mut stock) = scene(true);
    (stock.is_overlay, stock.path, stock.is_fragmented) = (true, 1_280, true);
    let ends = stock.ends(&world, false);
    world.send(alice, ends.udp(LARGE));
    stock.run(&mut world, seconds(15));
    let found = known(&world, alice, stock.outsider.key()).expect("found");
    assert_eq!((found.state, found.mtu, found.probed_by), (PathMtuState::Found, 1_220, ProbedBy::ControlFrames));
    let packet = ends.udp(&[0x5a; 1_280 - 48]);
    world.send(alice, packet.clone());
    assert_eq!(world.stats(alice).packets_cut.value(), 1, "it would be put together there");
    stock.is_overlay = false;
    stock.run(&mut world, seconds(1));
    stock.call(&mut world);
    let gap = longest_gap(&mut world, alice, &mut stock, &packet, 200);
    assert!(gap < seconds(4), "{gap:?}");
}
