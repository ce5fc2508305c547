//! A carrier that ends mappings at a fixed age, whatever the traffic. The new one has a different port.

use overlay_sim::nat::{Behaviour, Dependence, Kind, Lifetime, Ports};
use overlay_sim::{Agents, Realm, Route, millis, minutes, seconds};

/// The longest gap in ten minutes.
fn gap(seed: u64) -> std::time::Duration {
    let mut agents = Agents::behind(seed, &[Kind::Moderate, Kind::Moderate], 1);
    let (alice, bob) = agents.pair();
    let carrier = Behaviour {
        ports: Ports::Random,
        lifetime: Lifetime { age: Some(seconds(60)), ..Lifetime::CONNTRACK },
        ..Behaviour::new(Dependence::EndpointIndependent, Dependence::AddressAndPortDependent)
    };
    let router = agents.world.routers_in(Realm::Internet, &[carrier]);
    agents.world.settle(alice, router, false);
    agents.start(&[seconds(0); 2]);
    agents.world.run_for(seconds(2));
    agents.world.pings(alice, bob, millis(10), seconds(8));
    assert_eq!(agents.world.routes(alice, bob), [Route::Direct]);
    agents.world.pings(alice, bob, millis(10), minutes(10)).longest_gap()
}

#[test]
fn a_mapping_that_ends_every_minute_costs_less_than_a_second() {
    for seed in 0..3 {
        let gap = gap(seed);
        println!("{gap:?}");
        assert!(gap <= seconds(1), "{gap:?}");
    }
}
