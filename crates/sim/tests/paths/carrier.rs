//! A carrier that ends mappings at a fixed age, whatever the traffic. The new one has a different port.

use std::time::Duration;

use overlay_sim::nat::{Behaviour, Dependence, Kind, Lifetime, Ports};
use overlay_sim::{Agents, Realm, Route, millis, minutes, seconds};

/// The longest gap in four minutes, in which both ends learn the age, and in the six minutes after them.
fn gaps(seed: u64) -> [Duration; 2] {
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
    [4, 6].map(|length| agents.world.pings(alice, bob, millis(10), minutes(length)).longest_gap())
}

#[test]
fn a_mapping_that_ends_every_minute_costs_less_than_a_second_and_300_ms_once_the_age_is_known() {
    for seed in 0..3 {
        let [unknown, known] = gaps(seed);
        println!("{unknown:?}, then {known:?}");
        assert!(unknown <= seconds(1) && known <= millis(300), "{unknown:?}, then {known:?}");
    }
}
