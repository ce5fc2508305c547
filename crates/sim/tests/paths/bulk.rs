//! A fast stream through a slow relay, while a direct path is found beside it. More packets are under way than the replay window
//! holds, so a probe that overtook them all would have them dropped.

use std::time::Duration;

use overlay_core::{PairState, PathKind};
use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Route, millis, seconds};

/// The round trip of the direct path, and the one through the relay.
const DIRECT: Duration = millis(4);
const RELAYED: Duration = millis(204);
/// 2,000 packets are under way on the longer path, and the window holds 1,024.
const INTERVAL: Duration = Duration::from_micros(50);

#[test]
fn a_fast_stream_loses_nothing_as_a_replay_while_it_moves_to_a_faster_path() {
    let (lost, replays, _) = moves(RELAYED, None);
    assert_eq!((lost, replays), (0, 0), "packets lost, and dropped as replays");
}

/// The other end sends as well, so it proves the slow path often. Some of its probes are under way there at the move.
#[test]
fn what_the_other_end_asks_on_the_slower_path_costs_no_replay_either() {
    for relayed in [160, 184, 208, 232, 244, 256].map(millis) {
        let (lost, replays, withheld) = moves(relayed, Some(20));
        assert_eq!((lost, replays), (0, 0), "{relayed:?}: packets lost, and dropped as replays");
        assert!(withheld > 0, "{relayed:?}: no probe was under way at the move");
    }
}

/// How many packets of a stream are lost, how many messages are dropped as replays, and how many replies are withheld, while it
/// moves to a direct path from a relay whose round trip takes `relayed`. Bob sends a packet for every so many of alice's.
fn moves(relayed: Duration, back: Option<usize>) -> (usize, u64, u64) {
    let mut agents = Agents::behind(3, &[Kind::Moderate, Kind::Linux], 1);
    let (alice, bob) = agents.pair();
    for (from, to) in [(alice, bob), (bob, alice)] {
        agents.world.link(from, to, |link| link.latency = DIRECT / 2);
        agents.world.cut_one_way(from, to);
    }
    let relay = agents.relays[0];
    for host in [alice, bob] {
        agents.world.link(host, relay, |link| link.latency = relayed / 4);
        agents.world.link(relay, host, |link| link.latency = relayed / 4);
    }
    agents.start(&[Duration::ZERO; 2]);
    agents.world.pings(alice, bob, millis(100), seconds(1));
    // The direct path works from the middle of a round on, when the stream has its full rate.
    agents.world.after(millis(500), move |world| world.mend(alice, bob));
    let (ends, replies) = (agents.world.v4(alice, bob), agents.world.v4(bob, alice));
    let replays = |agents: &Agents| -> u64 {
        [alice, bob].map(|host| agents.world.drops(host).get("replay").copied().unwrap_or(0)).iter().sum()
    };
    let before = (agents.world.received(bob).len(), replays(&agents));
    let end = agents.world.now() + seconds(6);
    let mut sent = 0;
    while agents.world.now() < end {
        agents.world.send(alice, ends.udp(b"one of many"));
        sent += 1;
        if back.is_some_and(|every| sent % every == 0) {
            agents.world.send(bob, replies.udp(b"one of few"));
        }
        agents.world.run_for(INTERVAL);
    }
    // Replies that were withheld are no sign that the relay has died.
    for _ in 0..100 {
        agents.world.run_for(millis(30));
        for (host, peer) in [(alice, bob), (bob, alice)] {
            let report = agents.world.paths(host, peer).expect("it finds paths");
            let relayed: Vec<_> = report.pairs.iter().filter(|pair| pair.kind == PathKind::Relay).collect();
            assert!(!relayed.is_empty() && relayed.iter().all(|pair| pair.state == PairState::Proven), "{relayed:#?}");
        }
    }
    assert_eq!(agents.world.routes(alice, bob), [Route::Direct]);
    let withheld = [alice, bob].map(|host| agents.world.stats(host).path_replies_withheld.value());
    (sent - (agents.world.received(bob).len() - before.0), replays(&agents) - before.1, withheld.iter().sum())
}
