//! What people are told of paths: the report of the node, and its counters.

use overlay_core::{CandidateScope, Method, Nat, NodeStats, PairState, PathKind, PathsReport};
use overlay_sim::nat::Kind;
use overlay_sim::{Agents, HostId, millis, seconds};

/// Two agents that have used each other for eight seconds.
fn used(kinds: [Kind; 2]) -> (Agents, HostId, HostId) {
    let mut agents = Agents::started(1, &kinds, 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    agents.world.pings(alice, bob, millis(50), seconds(8));
    (agents, alice, bob)
}

fn report(agents: &mut Agents, host: HostId, peer: HostId) -> PathsReport {
    agents.world.paths(host, peer).expect("it finds paths")
}

/// Searches begun, successful searches, and the milliseconds that those took.
fn searches(stats: &NodeStats) -> [u64; 3] {
    [&stats.direct_searches, &stats.direct_searches_succeeded, &stats.time_to_direct].map(|counter| counter.value())
}

/// Whether attempts by this method were made, and whether any succeeded.
fn attempts(stats: &NodeStats, method: Method) -> (bool, bool) {
    let all = Nat::ALL.map(|nat| stats.attempts(method, nat));
    for attempts in all {
        assert!(attempts.succeeded.value() <= attempts.made.value(), "{method:?}: {attempts:?}");
    }
    (all.iter().any(|it| it.made.value() > 0), all.iter().any(|it| it.succeeded.value() > 0))
}

#[test]
fn a_direct_path_is_reported_with_its_history() {
    let (mut agents, alice, bob) = used([Kind::Moderate, Kind::Linux]);
    let report = report(&mut agents, alice, bob);
    let [direct, others @ ..] = &report.pairs[..] else { panic!("{report:?}") };
    assert_eq!((direct.kind, direct.state, direct.is_primary), (PathKind::Direct, PairState::Proven, true));
    assert!(direct.round_trip.is_some_and(|trip| trip < seconds(1)) && direct.proven.is_some(), "{direct:?}");
    assert_eq!(direct.loss, (Some(0.0), Some(0.0)));
    assert!(others.iter().any(|pair| pair.kind == PathKind::Relay && pair.state == PairState::Proven), "{others:?}");
    assert!(report.since.is_some() && report.has_heard_list && !report.told.is_empty(), "{report:?}");
    assert_eq!((report.scope, report.is_suspect), (CandidateScope::Auto, false));

    for host in [alice, bob] {
        let [begun, succeeded, took] = searches(agents.world.stats(host));
        assert_eq!((begun, succeeded), (1, 1), "one search is enough");
        assert!((1..1_000).contains(&took), "{took} ms");
        assert_eq!(attempts(agents.world.stats(host), Method::Relay), (true, true));
        assert_eq!(attempts(agents.world.stats(host), Method::Public), (true, true));
        assert!(agents.world.stats(host).relayed_sent_bytes.value() > 0, "the session began through the relay");
    }
}

#[test]
fn what_cannot_be_direct_is_searched_for_in_vain_and_counted_as_relayed() {
    let (mut agents, alice, bob) = used([Kind::Strict, Kind::Strict]);
    let report = report(&mut agents, alice, bob);
    assert_eq!((report.pairs[0].kind, report.pairs[0].is_primary), (PathKind::Relay, true));
    let direct: Vec<_> = report.pairs.iter().filter(|pair| pair.kind == PathKind::Direct).collect();
    assert!(!direct.is_empty() && direct.iter().all(|pair| pair.state == PairState::Failed), "{direct:?}");
    assert!(direct.iter().all(|pair| pair.probes.0 > 0 && pair.probes.1 == 0 && pair.proven.is_none()), "{direct:?}");
    assert!(!report.is_trying && report.next_try.is_some(), "{report:?}");
    assert_eq!(searches(agents.world.stats(alice)), [1, 0, 0]);
    assert_eq!(attempts(agents.world.stats(alice), Method::Public), (true, false));
    assert_eq!(attempts(agents.world.stats(alice), Method::PeerReflexive), (false, false));

    // The session exists and nothing is lost, so each end gets what the other one sends.
    let relayed = |agents: &Agents| {
        [[alice, bob], [bob, alice]].map(|[from, to]| {
            let (sender, receiver) = (agents.world.stats(from), agents.world.stats(to));
            [sender.relayed_sent_bytes.value(), receiver.relayed_received_bytes.value()]
        })
    };
    let before = relayed(&agents);
    agents.world.pings(alice, bob, millis(50), seconds(8));
    for ([sent, received], before) in relayed(&agents).into_iter().zip(before) {
        assert_eq!(sent - before[0], received - before[1]);
        assert!(sent - before[0] > 160 * 100, "all pings go through the relay");
    }
}

#[test]
fn a_direct_path_that_comes_back_is_a_search_of_its_own() {
    let (mut agents, alice, bob) = used([Kind::Moderate, Kind::Linux]);
    for (from, to) in [(alice, bob), (bob, alice)] {
        agents.world.link(from, to, |link| link.loss = 1.0);
    }
    agents.world.pings(alice, bob, millis(50), seconds(30));
    assert_eq!(report(&mut agents, alice, bob).pairs[0].kind, PathKind::Relay);
    for (from, to) in [(alice, bob), (bob, alice)] {
        agents.world.link(from, to, |link| link.loss = 0.0);
    }
    agents.world.pings(alice, bob, millis(50), seconds(120));
    let report = report(&mut agents, alice, bob);
    assert_eq!(report.pairs[0].kind, PathKind::Direct, "{report:?}");
    assert!(report.switches >= 2 && report.suspicions >= 1, "{report:?}");
    let [begun, succeeded, _] = searches(agents.world.stats(alice));
    assert!(succeeded == 2 && begun >= 2, "{begun} begun, {succeeded} succeeded");
}
