//! Agents that rest, and come back to routers that have forgotten them.

use overlay_core::{Command, Event};
use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Party, Route, millis, minutes, seconds};
use overlay_wire::relay;

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

#[test]
fn a_peer_that_no_relay_reaches_is_kept_alive() {
    let mut agents = Agents::started(3, &[Kind::None, Kind::Moderate], 0);
    let (alice, bob) = agents.pair();
    agents.world.run_for(minutes(10));
    let before = agents.world.sent().len();
    agents.world.run_for(minutes(10));
    let from_bob = agents.world.sent()[before..].iter().filter(|sent| sent.from == bob).count();
    assert!(from_bob >= 20, "{from_bob}");
    // Bob's router lets alice in only because bob has sent.
    assert!(agents.world.ping(alice, bob).is_some_and(|after| after < millis(200)));
}

#[test]
fn agents_that_have_never_spoken_do_not_call_each_other() {
    let mut agents = Agents::started(3, &[Kind::Moderate, Kind::Open], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(minutes(10));
    let handshakes = [alice, bob].map(|host| agents.world.stats(host).initiations_sent.value());
    assert_eq!(handshakes, [0, 0]);
    assert!(agents.world.ping(alice, bob).is_some_and(|after| after < millis(500)));
}

#[test]
fn a_word_to_a_peer_that_sleeps_arrives_at_once() {
    let mut agents = Agents::started(3, &[Kind::Moderate, Kind::Linux], 1);
    let (alice, bob) = agents.pair();
    for (host, peer) in [(alice, bob), (bob, alice)] {
        // Whether a peer hands words on is asked together with its MTU.
        agents.world.set_peer(host, peer, |config| config.mtu_discovery = true);
    }
    agents.world.run_for(minutes(5));
    let to = agents.world.tag(alice, agents.world.key(bob));
    for (rest, word) in [(0, b"first "), (10, b"second")] {
        agents.world.run_for(minutes(rest));
        agents.world.command(alice, Command::SayWord(to, Box::new(*word))).expect("he is there");
        agents.world.command(alice, Command::CallForWord(to)).expect("he is there");
        agents.world.run_for(millis(500));
        let is_it = |event: &Event| matches!(event, Event::Word(_, heard) if **heard == *word);
        assert_eq!(agents.world.events(bob).iter().filter(|(_, event)| is_it(event)).count(), 1, "{rest}");
    }
}

/// It goes over all paths that may work. A Linux router would take it for a flow of its own if it came before the openers.
#[test]
fn a_word_that_waits_for_a_session_keeps_no_path_from_being_direct() {
    for seed in 0..20 {
        let mut agents = Agents::started(seed, &[Kind::Linux, Kind::Linux], 1);
        let (alice, bob) = agents.pair();
        for (host, peer) in [(alice, bob), (bob, alice)] {
            agents.world.set_peer(host, peer, |config| config.mtu_discovery = true);
        }
        agents.world.run_for(seconds(1));
        let peer = agents.world.tag(alice, agents.world.key(bob));
        agents.world.command(alice, Command::SayWord(peer, Box::new(*b"word"))).expect("he is there");
        agents.world.command(alice, Command::CallForWord(peer)).expect("he is there");
        agents.world.pings(alice, bob, millis(100), seconds(8));
        assert_eq!(agents.world.routes(alice, bob), [Route::Direct], "seed {seed}");
    }
}

/// The initiation that goes directly instead would arrive before the peer's openers.
#[test]
fn a_call_that_the_relay_loses_keeps_no_path_from_being_direct() {
    for seed in 0..20 {
        let mut agents = Agents::started(seed, &[Kind::Linux, Kind::Linux], 1);
        let (alice, bob) = agents.pair();
        agents.world.run_for(seconds(1));
        let mut lost = 0;
        agents.world.tamper(agents.relays[0], move |passing| {
            if lost < 2 && relay::kind(&passing.bytes) == relay::Kind::Data {
                lost += 1;
                return vec![];
            }
            vec![passing]
        });
        let pings = agents.world.pings(alice, bob, millis(100), seconds(8));
        let first = pings.until_first();
        assert!(first.is_some_and(|first| first < seconds(1)), "seed {seed}: {first:?}");
        assert_eq!(agents.world.routes(alice, bob), [Route::Direct], "seed {seed}");
    }
}
