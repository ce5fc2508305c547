//! The way back: agents whose direct path has failed are on one again soon after it works, and nothing arrives twice meanwhile.

use std::time::Duration;

use overlay_core::Event;
use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Route, millis, minutes, seconds};

use crate::failover::{DIRECT, apart};

/// Two agents behind moderate routers, which have been on their direct path for a while.
fn settled() -> Agents {
    let mut agents = Agents::started(7, &[Kind::Moderate, Kind::Moderate], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(1));
    agents.world.pings(alice, bob, millis(100), seconds(15));
    assert!(are_direct(&mut agents));
    agents
}

fn are_direct(agents: &mut Agents) -> bool {
    let (alice, bob) = agents.pair();
    [(alice, bob), (bob, alice)].iter().all(|(from, to)| agents.world.routes(*from, *to) == [Route::Direct])
}

/// Requires that a failure of the direct path is bridged, and that both are on a direct path again in time, while they talk.
fn is_back(fail: impl FnOnce(&mut Agents), repair: impl FnOnce(&mut Agents), limit: Duration) {
    let mut agents = settled();
    let (alice, bob) = agents.pair();
    fail(&mut agents);
    let felt = agents.world.pings(alice, bob, millis(50), seconds(20));
    assert!(felt.longest_gap() <= seconds(2), "{:?} without an answer", felt.longest_gap());
    assert_eq!(felt.doubled(), 0, "what is sent on two paths arrives once");
    repair(&mut agents);
    let began = agents.world.now();
    while !are_direct(&mut agents) {
        assert!(agents.world.now().since(began) < limit, "not on a direct path after {limit:?}");
        agents.world.run_for(millis(100));
    }
}

#[test]
fn a_link_that_works_again_in_both_directions_is_used_again() {
    for from in [0, 1] {
        is_back(
            |agents| agents.world.cut_one_way(agents.hosts[from], agents.hosts[1 - from]),
            |agents| agents.world.mend(agents.hosts[0], agents.hosts[1]),
            minutes(3),
        );
    }
}

#[test]
fn a_planned_move_back_sends_nothing_twice() {
    for seed in 0..20 {
        let mut agents = apart(seed, DIRECT, 1, 20);
        let (alice, bob) = agents.pair();
        agents.world.pings(alice, bob, millis(10), seconds(8));
        agents.world.cut_one_way(alice, bob);
        agents.world.cut_one_way(bob, alice);
        // The rounds of both differ, and so does what each has seen of the direct path.
        agents.world.pings(alice, bob, millis(10), seconds(8) + millis(seed * 37));
        agents.world.mend(alice, bob);
        let twice = |agents: &Agents| {
            let replays = |host| agents.world.drops(host).get("replay").copied().unwrap_or(0);
            let mirrored = |host| agents.world.stats(host).mirrored_bytes.value();
            [replays(alice) + replays(bob), mirrored(alice) + mirrored(bob)]
        };
        let (before, began) = (twice(&agents), agents.world.now());
        while !are_direct(&mut agents) {
            assert!(agents.world.now().since(began) < minutes(3), "seed {seed}: not on a direct path");
            agents.world.pings(alice, bob, millis(10), seconds(1));
        }
        agents.world.pings(alice, bob, millis(10), seconds(2));
        assert_eq!(twice(&agents), before, "seed {seed}: replays, mirrored bytes");
    }
}

#[test]
fn a_router_that_forgets_its_mappings_lets_a_direct_path_through_again() {
    is_back(|agents| agents.world.forget_mappings(agents.routers[0]), |_| {}, minutes(1));
}

#[test]
fn an_agent_that_moves_to_a_different_network_has_a_direct_path_again() {
    let walk = |agents: &mut Agents| {
        let router = agents.world.router(Kind::Moderate);
        agents.world.settle(agents.hosts[0], router, false);
    };
    is_back(walk, |_| {}, minutes(1));
}

#[test]
fn a_relay_that_dies_is_not_felt_on_a_direct_path() {
    let mut agents = settled();
    let (alice, bob) = agents.pair();
    agents.world.kill_relay(agents.relays[0]);
    let felt = agents.world.pings(alice, bob, millis(50), minutes(3));
    assert_eq!((felt.lost(), felt.doubled()), (0, 0));
    assert!(are_direct(&mut agents));
}

/// Control is told of it, so that it can ask others where the peer is.
#[test]
fn a_peer_that_no_path_leads_to_is_reported_and_called_until_it_answers() {
    let mut agents = settled();
    let (alice, bob) = agents.pair();
    agents.world.kill_relay(agents.relays[0]);
    let cut = agents.world.now();
    agents.world.cut_one_way(alice, bob);
    agents.world.cut_one_way(bob, alice);
    agents.world.pings(alice, bob, millis(100), seconds(20));
    let events = agents.world.events(alice).iter();
    let reports = events.filter(|(_, event)| matches!(event, Event::Unreachable(_)));
    let reported: Vec<_> = reports.map(|(at, _)| at.since(cut)).collect();
    assert!(matches!(reported[..], [after] if (seconds(1)..seconds(3)).contains(&after)), "{reported:?}");
    agents.world.mend(alice, bob);
    let felt = agents.world.pings(alice, bob, millis(100), seconds(10));
    assert!(felt.longest_gap() <= seconds(6), "{:?} until the next call", felt.longest_gap());
}
