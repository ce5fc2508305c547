//! Questions to silent peers: how many, how far apart, and which peers are not asked.

use std::time::Duration;

use overlay_sim::{HostId, HostOptions, Kind, World, millis, minutes, seconds};
use overlay_wire::icmp;
use overlay_wire::ip::Packet;

use crate::name_service::answering;
use crate::stock::Stock;

const KEEPALIVE: Duration = seconds(25);

/// Two nodes. Alice sends bob persistent keepalives. With `by_name`, she knows him by name.
fn scene(mtu_discovery: bool, by_name: bool) -> (World, HostId, HostId) {
    let mut world = World::new(7);
    let options = || HostOptions { mtu_discovery, ..HostOptions::default() };
    let (alice, bob) = (world.host_with(options()), world.host_with(options()));
    world.introduce(alice, bob);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(KEEPALIVE));
    if by_name {
        let addresses = world.outer(bob).to_vec();
        world.resolve(alice, world.key(bob), &addresses).expect("bob is a peer");
    }
    world.ping(alice, bob);
    world.run_for(seconds(60));
    world.forget();
    (world, alice, bob)
}

#[test]
fn a_healthy_overlay_node_is_asked_every_13_s_in_place_of_keepalives() {
    let (mut world, alice, bob) = scene(true, true);
    let (asked, handshakes) = (world.stats(alice).questions_sent.value(), world.handshakes(alice, bob));
    world.run_for(minutes(60));
    let asked = world.stats(alice).questions_sent.value() - asked;
    assert!((240..=277).contains(&asked), "{asked} in an hour");
    // Jitter: the datagrams do not fall on the same fraction of a second.
    let times: Vec<_> = world.sent_by(alice, Kind::Data).map(|sent| sent.at.since_start().subsec_millis()).collect();
    let distinct: std::collections::BTreeSet<_> = times.iter().collect();
    assert!(distinct.len() > 100, "{}", distinct.len());
    // In total: a question and its answer; handshakes and hellos as usual.
    let datagrams = world.sent().len();
    assert!(datagrams <= 2 * 277 + 30 * 8, "{datagrams} in an hour");
    assert_eq!(answering(&world, alice, world.key(bob)), []);
    assert_eq!([world.drops(alice), world.drops(bob)], [const { std::collections::BTreeMap::new() }; 2]);
    assert!(world.received(alice).is_empty() && world.received(bob).is_empty());
    let handshakes = world.handshakes(alice, bob) - handshakes;
    assert!((27..=30).contains(&handshakes), "{handshakes}: one in two minutes, as ever");
    // Like all WireGuard messages, their lengths are multiples of 16, and they are small.
    let sizes: std::collections::BTreeSet<_> = world.sent_by(alice, Kind::Data).map(|sent| sent.bytes.len()).collect();
    assert!(sizes.contains(&96), "{sizes:?}");
}

#[test]
fn whoever_is_not_reached_by_name_or_not_kept_alive_or_heard_anyway_is_not_asked() {
    let (mut world, alice, bob) = scene(true, false);
    world.run_for(minutes(10));
    assert_eq!(world.stats(alice).questions_sent.value(), 0, "an address stays what it is");
    assert_eq!(world.stats(bob).questions_sent.value(), 0);

    let (mut world, alice, bob) = scene(true, true);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = None);
    let asked = world.stats(alice).questions_sent.value();
    world.run_for(minutes(10));
    assert_eq!(world.stats(alice).questions_sent.value(), asked, "nobody wants it kept alive");

    let (mut world, alice, bob) = scene(true, true);
    world.set_peer(bob, alice, |peer| peer.persistent_keepalive = Some(seconds(10)));
    world.run_for(seconds(20));
    let asked = world.stats(alice).questions_sent.value();
    world.run_for(minutes(10));
    assert_eq!(world.stats(alice).questions_sent.value(), asked, "his keepalives say enough");
}

#[test]
fn a_peer_that_may_get_nothing_but_wireguards_own_messages_is_called_every_55_s() {
    let (mut world, alice, bob) = scene(false, true);
    let handshakes = world.handshakes(alice, bob);
    world.run_for(minutes(60));
    let handshakes = world.handshakes(alice, bob) - handshakes;
    assert!((63..=66).contains(&handshakes), "{handshakes} in an hour");
    assert_eq!(world.count(alice, Kind::Data) + world.count(bob, Kind::Data), 0);
    assert_eq!(answering(&world, alice, world.key(bob)), []);
}

#[test]
fn a_stock_peer_is_asked_by_echoes_whose_answers_nobody_sees() {
    for is_restricted in [false, true] {
        let mut world = World::new(11);
        let alice = world.host_with(HostOptions { mtu_discovery: true, ..HostOptions::default() });
        let mut stock = Stock::new(&mut world, alice, true);
        let key = stock.outsider.key();
        let allowed_ips = stock.outsider.inner.map(ipnet::IpNet::from).to_vec();
        let config = overlay_core::PeerConfig {
            endpoint: Some(stock.outsider.address),
            allowed_ips,
            persistent_keepalive: Some(KEEPALIVE),
            mtu_discovery: true,
            // Only answers to outgoing packets may come in, and the echo reply does not answer any packet of the host.
            allow: is_restricted.then(Vec::new),
            ..overlay_core::PeerConfig::of(key)
        };
        world.configure(alice, config).expect("it is a peer");
        world.resolve(alice, key, &[stock.outsider.address]).expect("it is a peer");
        stock.run(&mut world, minutes(3));
        let (heard, asked) = (stock.heard.len(), world.stats(alice).questions_sent.value());
        stock.run(&mut world, minutes(10));
        let asked = world.stats(alice).questions_sent.value() - asked;
        assert!((40..=47).contains(&asked), "{asked} in ten minutes");
        let echoes = stock.heard[heard..].iter().filter(|(_, packet)| packet.len() == 64).count();
        assert_eq!(echoes as u64, asked);
        assert_eq!(answering(&world, alice, key), []);
        let is_reply = |packet: &[u8]| icmp::echo_reply(&Packet::parse(packet).expect("a packet")).is_some();
        assert!(!world.received(alice).iter().any(|received| is_reply(&received.packet)));
        assert!(world.drops(alice).is_empty(), "{:?}", world.drops(alice));

        // The peer disappears silently: five questions in five seconds, and then it is called.
        world.forget();
        let began = world.now();
        assert!(world.run_until(seconds(20), |world| answering(world, alice, key) == [false]));
        let took = world.now().since(began);
        assert!(took <= seconds(19), "{took:?}");
        assert!(world.count(alice, Kind::Data) <= 6 && world.count(alice, Kind::Initiation) <= 1);
        stock.run(&mut world, seconds(6));
        assert_eq!(answering(&world, alice, key), [false, true], "it was there all the time");
    }
}

#[test]
fn a_stock_peer_that_answers_no_echo_is_heard_by_wireguards_own_timer() {
    let mut world = World::new(11);
    let options = |mtu_discovery| HostOptions { mtu_discovery, ..HostOptions::default() };
    let (alice, bob) = (world.host_with(options(true)), world.host_with(options(false)));
    world.introduce(alice, bob);
    // Bob answers control frames, but alice sends him echoes because she asks before he has said what he is. His host
    // does not answer echoes, so only the kernel's rule is left.
    world.set_peer(bob, alice, |peer| peer.allow = Some(Vec::new()));
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(KEEPALIVE));
    let addresses = world.outer(bob).to_vec();
    world.resolve(alice, world.key(bob), &addresses).expect("bob is a peer");
    world.run_for(millis(3_600_000));
    assert_eq!(answering(&world, alice, world.key(bob)), []);
}
