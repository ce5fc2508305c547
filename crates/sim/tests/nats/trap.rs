//! The conntrack trap: a Linux router with plain `masquerade` and an open INPUT chain takes a peer's datagram for one to
//! itself if it arrives before ours leaves. Then ours gets a different port, and the peer that waits for us at the old one
//! never hears us.

use std::net::SocketAddr;

use overlay_sim::nat::{Kind, Refusal};
use overlay_sim::{RouterId, Socket, World, millis, seconds};

/// An agent behind such a router, and one behind a moderate one. Each knows the other's reflexive address.
struct Fixture {
    world: World,
    router: RouterId,
    ours: Socket,
    peer: Socket,
    our_address: SocketAddr,
    peer_address: SocketAddr,
}

impl Fixture {
    fn new(kind: Kind) -> Self {
        let mut world = World::new(7);
        let (router, other) = (world.router(kind), world.router(Kind::Moderate));
        let (ours, peer) = (world.socket_behind(router, false), world.socket_behind(other, false));
        let server = world.socket_at("203.0.113.1:3478".parse().unwrap());
        let [our_address, peer_address] = [ours, peer].map(|socket| {
            world.post(socket, world.address(server), b"?");
            world.run_for(millis(20));
            world.take_letters(server)[0].source
        });
        Self { world, router, ours, peer, our_address, peer_address }
    }

    /// Both probe for `span`, four times a second.
    fn probe_for(&mut self, span: u64) {
        for _ in 0..span * 4 {
            self.world.post(self.peer, self.our_address, b"probe");
            self.world.post(self.ours, self.peer_address, b"probe");
            self.world.run_for(millis(250));
        }
    }

    fn both_heard(&mut self) -> bool {
        let [ours, peer] = [self.ours, self.peer].map(|socket| self.world.take_letters(socket));
        !ours.is_empty() && !peer.is_empty()
    }
}

#[test]
fn a_peer_that_probes_first_springs_the_trap_for_as_long_as_it_goes_on() {
    let mut fixture = Fixture::new(Kind::Linux);
    fixture.world.post(fixture.peer, fixture.our_address, b"probe");
    fixture.world.run_for(millis(20));
    assert_eq!(fixture.world.refusals(fixture.router)[&Refusal::TakenForOwn], 1);
    // The wrong entry lives for 30 s, but every probe renews it.
    fixture.probe_for(120);
    assert!(!fixture.both_heard());
}

#[test]
fn the_trap_opens_after_35_seconds_of_silence() {
    let mut fixture = Fixture::new(Kind::Linux);
    fixture.world.post(fixture.peer, fixture.our_address, b"probe");
    fixture.world.run_for(millis(20));
    fixture.probe_for(5);
    assert!(!fixture.both_heard());
    fixture.world.run_for(seconds(35));
    fixture.world.post(fixture.ours, fixture.peer_address, b"probe");
    fixture.world.run_for(millis(20));
    fixture.probe_for(5);
    assert!(fixture.both_heard());
}

#[test]
fn an_opener_that_leaves_our_router_and_does_not_arrive_avoids_the_trap() {
    let mut fixture = Fixture::new(Kind::Linux);
    for ttl in [2, 4] {
        fixture.world.post_with_ttl(fixture.ours, fixture.peer_address, b"opener", ttl);
        fixture.world.run_for(millis(20));
    }
    assert!(fixture.world.take_letters(fixture.peer).is_empty());
    fixture.world.post(fixture.peer, fixture.our_address, b"probe");
    fixture.world.run_for(millis(20));
    fixture.probe_for(5);
    assert!(fixture.both_heard());
    assert_eq!(fixture.world.refusals(fixture.router).get(&Refusal::TakenForOwn), None);
}

/// Two such routers: an opener with a TTL that is too large arrives at the other router, and that is the trap again.
#[test]
fn an_opener_that_arrives_springs_the_trap_of_the_other_router() {
    for (ttl, is_heard) in [(2, true), (64, false)] {
        let mut fixture = Fixture::new(Kind::Moderate);
        let router = fixture.world.router(Kind::Linux);
        fixture.peer = fixture.world.socket_behind(router, false);
        let peer = fixture.world.address(fixture.peer);
        fixture.peer_address = SocketAddr::new(fixture.world.public(router)[0], peer.port());
        fixture.world.post_with_ttl(fixture.ours, fixture.peer_address, b"opener", ttl);
        fixture.world.run_for(millis(20));
        fixture.probe_for(5);
        assert_eq!(fixture.both_heard(), is_heard, "an opener of TTL {ttl}");
    }
}

#[test]
fn other_kinds_have_no_trap() {
    for kind in [Kind::Open, Kind::AddressRestricted, Kind::Moderate, Kind::CarrierGrade, Kind::OneToOne] {
        let mut fixture = Fixture::new(kind);
        fixture.world.post(fixture.peer, fixture.our_address, b"probe");
        fixture.world.run_for(millis(20));
        fixture.probe_for(5);
        assert!(fixture.both_heard(), "{}", kind.name());
    }
}
