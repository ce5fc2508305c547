//! The behaviour table of RFC 4787: for each kind, which datagrams pass after which.

use overlay_sim::nat::{Behaviour, Dependence, Kind, Refusal, TABLE, observe};
use overlay_sim::{Realm, World, millis, seconds};

use crate::ground::Simulated;

#[test]
fn every_kind_does_what_the_table_says() {
    assert_eq!(TABLE.map(|row| row.kind), Kind::ALL, "each kind has its row");
    for row in TABLE {
        assert_eq!(observe(row.kind, &mut Simulated::new(row.kind)), row, "{}", row.kind.name());
    }
}

#[test]
fn a_nat_that_hairpins_shows_neighbours_their_outside_addresses() {
    let mut world = World::new(7);
    let moderate = Behaviour::new(Dependence::EndpointIndependent, Dependence::AddressAndPortDependent);
    for hairpins in [false, true] {
        let router = world.routers_in(Realm::Internet, &[Behaviour { hairpins, ..moderate }]);
        let [one, other] = [(); 2].map(|()| world.socket_behind(router, false));
        let server = world.socket_at(format!("203.0.113.1:{}", 7_000 + u16::from(hairpins)).parse().unwrap());
        let [seen_one, seen_other] = [one, other].map(|socket| {
            world.post(socket, world.address(server), b"?");
            world.run_for(seconds(1));
            world.take_letters(server)[0].source
        });
        // The filter is the same as for strangers: both have to write.
        for (socket, to) in [(one, seen_other), (other, seen_one), (one, seen_other)] {
            world.post(socket, to, b"hello");
            world.run_for(millis(100));
        }
        let heard: Vec<_> = world.take_letters(other).into_iter().map(|letter| letter.source).collect();
        assert_eq!(heard, if hairpins { vec![seen_one] } else { Vec::new() });
        let refused = world.refusals(router).get(&Refusal::NoHairpin).copied();
        assert_eq!(refused, (!hairpins).then_some(3));
    }
}

/// Two customers of one carrier: their datagrams turn at the carrier's router, or in front of it.
#[test]
fn two_customers_of_one_carrier_meet_at_the_carrier() {
    let mut world = World::new(7);
    let moderate = Behaviour::new(Dependence::EndpointIndependent, Dependence::AddressAndPortDependent);
    let carrier = world.routers_in(Realm::Internet, &[Behaviour { hairpins: true, ..moderate }]);
    let homes = [(); 2].map(|()| world.router_behind(carrier, Kind::Moderate));
    let sockets = homes.map(|home| world.socket_behind(home, false));
    assert_eq!(world.address(sockets[0]).ip(), world.address(sockets[1]).ip(), "homes use the same addresses");
    let server = world.socket_at("203.0.113.1:7000".parse().unwrap());
    let seen = sockets.map(|socket| {
        world.post(socket, world.address(server), b"?");
        world.run_for(seconds(1));
        world.take_letters(server)[0].source
    });
    assert_eq!(seen[0].ip(), seen[1].ip());
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        world.post(sockets[from], seen[to], b"hello");
        world.run_for(millis(100));
    }
    assert_eq!(world.take_letters(sockets[0])[0].source, seen[1]);
    assert_eq!(world.take_letters(sockets[1])[0].source, seen[0]);
}

#[test]
fn a_ttl_ends_in_its_own_routers_or_on_the_way_or_arrives() {
    let mut world = World::new(7);
    let router = world.router(Kind::CarrierGrade);
    let (inside, server) = (world.socket_behind(router, false), world.socket_at("203.0.113.1:7000".parse().unwrap()));
    // Two routers of its own, four of the Internet.
    for ttl in 0..=8 {
        world.post_with_ttl(inside, world.address(server), &[ttl], ttl);
    }
    world.run_for(seconds(1));
    let arrived: Vec<_> = world.take_letters(server).into_iter().flat_map(|letter| letter.bytes).collect();
    assert_eq!(arrived, [7, 8]);
    assert_eq!(world.refusals(router)[&Refusal::TtlExceeded], 2);
}
