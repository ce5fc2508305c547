//! Agents that rest, and come back to routers that have forgotten them.

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Party, millis, minutes, seconds};

#[test]
fn the_first_request_after_ten_minutes_is_answered_within_a_second() {
    let mut slow = Vec::new();
    for seed in 0..100 {
        let kinds = [Kind::ALL[seed as usize % 9], Kind::ALL[seed as usize / 9 % 9]];
        let mut agents = Agents::started(seed, &kinds, 1);
        let (alice, bob) = agents.pair();
        agents.world.run_for(seconds(2));
        agents.world.pings(alice, bob, millis(100), seconds(8));
        // A router that forgets the mapping to the relay just before the request would keep everything out. Bindings are
        // renewed every 25 s.
        for rest in [minutes(9), seconds(30)] {
            agents.world.run_for(rest);
            for router in agents.routers.clone() {
                agents.world.forget_mappings(router);
            }
        }
        agents.world.run_for(seconds(30));
        let answer = agents.world.ping(alice, bob);
        if answer.is_none_or(|after| after > seconds(1)) {
            slow.push((seed, kinds, answer));
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

#[test]
fn after_ten_minutes_of_suspension_traffic_resumes_within_a_second() {
    for seed in 0..20 {
        let kinds = [Kind::ALL[seed as usize % 9], Kind::ALL[(seed as usize * 4 + 1) % 9]];
        let mut agents = Agents::started(seed, &kinds, 1);
        let (alice, bob) = agents.pair();
        agents.world.run_for(seconds(2));
        agents.world.pings(alice, bob, millis(10), seconds(8));
        agents.world.suspend(alice, minutes(10));
        let pings = agents.world.pings(alice, bob, millis(10), seconds(5));
        let first = pings.until_first();
        assert!(first.is_some_and(|first| first <= seconds(1)), "{seed} {kinds:?}: {first:?}");
    }
}

#[test]
fn nothing_is_sent_to_a_peer_that_sleeps() {
    let mut agents = Agents::started(3, &[Kind::Moderate, Kind::Linux], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    agents.world.pings(alice, bob, millis(100), seconds(8));
    agents.world.run_for(minutes(4));
    let before = agents.world.sent().len();
    agents.world.run_for(minutes(10));
    let sent = agents.world.sent()[before..].iter().filter(|sent| sent.from == alice);
    let others = sent.clone().filter(|sent| !matches!(sent.to, Some(Party::Relay(_)))).count();
    assert_eq!(others, 0);
    assert!(sent.count() <= 60);
}
