//! Nodes behind routers: tunnels pass NATs, and the record shows both sides of a translation.

use overlay_sim::nat::Kind;
use overlay_sim::{HostId, Kind as Message, World, seconds};

/// A host behind routers of this kind, and one on the Internet that waits to be called.
fn natted(kind: Kind) -> (World, HostId, HostId) {
    let mut world = World::new(7);
    let (inside, public) = (world.host(), world.host());
    world.put_behind(inside, kind);
    let endpoint = *world.outer(public).iter().find(|address| address.is_ipv6() == kind.is_ipv6()).unwrap();
    world.set_peer(inside, public, |peer| peer.endpoint = Some(endpoint));
    world.set_peer(public, inside, |peer| peer.endpoint = None);
    (world, inside, public)
}

#[test]
fn a_tunnel_from_behind_every_kind_works_in_both_directions() {
    for kind in Kind::ALL {
        let (mut world, inside, public) = natted(kind);
        assert!(world.ping(inside, public).is_some(), "{}", kind.name());
        assert!(world.ping6(public, inside).is_some(), "{}", kind.name());
        world.run_for(seconds(2));
        let call = world.sent_by(inside, Message::Initiation).next().unwrap();
        assert_eq!(world.last_endpoint(public, world.key(inside)), call.outside);
        let keeps_address = matches!(kind, Kind::None | Kind::Ipv6Firewall);
        assert_eq!(call.outside == Some(call.source), keeps_address, "{}", kind.name());
    }
}

#[test]
fn an_idle_mapping_ends_and_the_inside_makes_the_path_work_again() {
    let (mut world, inside, public) = natted(Kind::Strict);
    assert!(world.ping(inside, public).is_some());
    world.run_for(seconds(200));
    assert!(world.ping(public, inside).is_none());
    assert!(world.ping(inside, public).is_some());
    assert!(world.ping(public, inside).is_some());
}

#[test]
fn a_host_moves_behind_a_router_and_away_again() {
    let mut world = World::new(7);
    let (one, other) = world.pair();
    assert!(world.ping(one, other).is_some());
    let router = world.put_behind(one, Kind::Moderate);
    assert!(world.ping(one, other).is_some());
    let server = world.socket_at("203.0.113.200:3478".parse().unwrap());
    let seen = world.reflexive(one, server).unwrap();
    world.run_for(seconds(2));
    assert_eq!(seen.ip(), world.public(router)[0]);
    assert_eq!(world.last_endpoint(other, world.key(one)), Some(seen));
    world.unsettle(one, &["192.0.2.99:51820"]);
    assert!(world.ping(one, other).is_some());
    world.run_for(seconds(2));
    assert_eq!(world.last_endpoint(other, world.key(one)), Some("192.0.2.99:51820".parse().unwrap()));
}

#[test]
fn two_hosts_in_one_network_reach_each_other_without_their_router() {
    let mut world = World::new(7);
    let (one, other) = (world.host(), world.host());
    let router = world.router(Kind::Strict);
    for host in [one, other] {
        world.settle(host, router, false);
    }
    world.introduce(one, other);
    assert!(world.ping(one, other).is_some());
    assert!(world.refusals(router).is_empty());
    let call = world.sent_by(one, Message::Initiation).next().unwrap();
    assert_eq!(call.outside, Some(call.source));
}

#[test]
fn a_plain_socket_beside_a_node_shares_its_router() {
    let (mut world, inside, _) = natted(Kind::Moderate);
    let socket = world.socket_on(inside, false);
    let server = world.socket_at("203.0.113.200:3478".parse().unwrap());
    world.post(socket, world.address(server), b"?");
    world.run_for(seconds(1));
    let seen = world.take_letters(server)[0].source;
    assert_eq!(Some(seen.ip()), world.reflexive(inside, server).map(|node| node.ip()));
    world.post(server, seen, b"!");
    world.run_for(seconds(1));
    assert_eq!(world.take_letters(socket).len(), 1);
}
