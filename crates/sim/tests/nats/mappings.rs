//! Mappings as a world sees them end: idle, by age, by a restart of the router, with its address.

use std::net::SocketAddr;

use overlay_sim::nat::{Behaviour, Dependence, Kind, Lifetime, Refusal};
use overlay_sim::{Realm, RouterId, Socket, World, seconds};

struct Fixture {
    world: World,
    router: RouterId,
    inside: Socket,
    server: Socket,
}

impl Fixture {
    fn new(behaviours: &[Behaviour]) -> Self {
        let mut world = World::new(7);
        let router = world.routers_in(Realm::Internet, behaviours);
        let inside = world.socket_behind(router, false);
        let server = world.socket_at("203.0.113.1:7000".parse().unwrap());
        Self { world, router, inside, server }
    }

    /// Asks the server, which answers at once. Returns our outside address.
    fn ask(&mut self) -> SocketAddr {
        self.world.post(self.inside, self.world.address(self.server), b"?");
        self.world.run_for(seconds(1));
        self.world.take_letters(self.server).remove(0).source
    }

    /// Whether the server reaches us there.
    fn is_reached(&mut self, at: SocketAddr) -> bool {
        self.world.post(self.server, at, b"!");
        self.world.run_for(seconds(1));
        !self.world.take_letters(self.inside).is_empty()
    }
}

/// With conntrack's times: 30 s before an answer, 120 s after one.
#[test]
fn keepalives_hold_a_mapping_only_if_they_come_in_time() {
    for (kind, pause, holds) in [
        (Kind::Moderate, 25, true),
        (Kind::Moderate, 130, false),
        (Kind::CarrierGrade, 100, true),
        (Kind::Strict, 100, true),
        (Kind::Open, 250, true),
        (Kind::Open, 320, false),
    ] {
        let mut fixture = Fixture::new(&kind.routers());
        let seen = fixture.ask();
        assert!(fixture.is_reached(seen));
        fixture.world.run_for(seconds(pause));
        assert_eq!(fixture.is_reached(seen), holds, "{} after {pause} s", kind.name());
    }
}

#[test]
fn no_keepalive_holds_a_mapping_that_ends_by_age() {
    let lifetime = Lifetime { age: Some(seconds(60)), ..Lifetime::CONNTRACK };
    let strict = Kind::Strict.routers()[0];
    let mut fixture = Fixture::new(&[Behaviour { lifetime, ..strict }]);
    let first = fixture.ask();
    let changed_after = (1..100).find(|_| fixture.ask() != first);
    assert_eq!(changed_after, Some(60));
}

#[test]
fn a_restarted_router_knows_nobody_until_the_inside_speaks() {
    let mut fixture = Fixture::new(&Kind::CarrierGrade.routers());
    let seen = fixture.ask();
    fixture.world.forget_mappings(fixture.router);
    assert!(!fixture.is_reached(seen));
    let again = fixture.ask();
    assert!(fixture.is_reached(again));
}

#[test]
fn a_router_with_a_new_address_shows_it_at_once() {
    let mut fixture = Fixture::new(&Kind::Moderate.routers());
    let seen = fixture.ask();
    fixture.world.renumber(fixture.router, &["198.51.100.77"]);
    assert!(!fixture.is_reached(seen));
    let again = fixture.ask();
    assert_eq!(again, SocketAddr::new("198.51.100.77".parse().unwrap(), seen.port()));
    assert!(fixture.is_reached(again));
}

#[test]
fn every_drop_of_a_router_has_a_name() {
    let mut fixture = Fixture::new(&[Behaviour::new(Dependence::EndpointIndependent, Dependence::AddressDependent)]);
    let seen = fixture.ask();
    let stranger = fixture.world.socket_at("203.0.113.9:1".parse().unwrap());
    fixture.world.post(stranger, seen, b"x");
    fixture.world.post(stranger, SocketAddr::new(seen.ip(), 1), b"x");
    fixture.world.run_for(seconds(1));
    let refusals: Vec<_> = fixture.world.refusals(fixture.router).iter().map(|(why, count)| (*why, *count)).collect();
    assert_eq!(refusals, [(Refusal::NoMapping, 1), (Refusal::Filtered, 1)]);
}
