//! A fast stream through a slow relay, while a direct path is found beside it. More packets are under way than the replay window
//! holds, so a probe that overtook them all would have them dropped.

use std::time::Duration;

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Route, millis, seconds};

/// The round trip of the direct path, and the one through the relay.
const DIRECT: Duration = millis(4);
const RELAYED: Duration = millis(204);
/// 2,000 packets are under way on the longer path, and the window holds 1,024.
const INTERVAL: Duration = Duration::from_micros(50);

#[test]
fn a_fast_stream_loses_nothing_as_a_replay_while_it_moves_to_a_faster_path() {
    let mut agents = Agents::behind(3, &[Kind::Moderate, Kind::Linux], 1);
    let (alice, bob) = agents.pair();
    for (from, to) in [(alice, bob), (bob, alice)] {
        agents.world.link(from, to, |link| link.latency = DIRECT / 2);
        agents.world.cut_one_way(from, to);
    }
    let relay = agents.relays[0];
    for host in [alice, bob] {
        agents.world.link(host, relay, |link| link.latency = RELAYED / 4);
        agents.world.link(relay, host, |link| link.latency = RELAYED / 4);
    }
    agents.start(&[Duration::ZERO; 2]);
    agents.world.pings(alice, bob, millis(100), seconds(1));
    // The direct path works from the middle of a round on, when the stream has its full rate.
    agents.world.after(millis(500), move |world| world.mend(alice, bob));
    let ends = agents.world.v4(alice, bob);
    let replays =
        |agents: &Agents| [alice, bob].map(|host| agents.world.drops(host).get("replay").copied().unwrap_or(0));
    let before = (agents.world.received(bob).len(), replays(&agents));
    let end = agents.world.now() + seconds(6);
    let mut sent = 0;
    while agents.world.now() < end {
        agents.world.send(alice, ends.udp(b"one of many"));
        agents.world.run_for(INTERVAL);
        sent += 1;
    }
    agents.world.run_for(seconds(1));
    let arrived = agents.world.received(bob).len() - before.0;
    assert_eq!(agents.world.routes(alice, bob), [Route::Direct]);
    assert_eq!((sent - arrived, replays(&agents)), (0, before.1), "packets lost, and dropped as replays");
}
