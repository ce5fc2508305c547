//! Loss is counted by both ends, whatever arrives as one train: nothing is lost here, so no path is left for a better one.

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, millis, seconds};

#[test]
fn what_arrives_together_is_not_taken_for_loss() {
    for (kinds, relays) in [([Kind::Moderate; 2], 1), ([Kind::Strict; 2], 1), ([Kind::Strict; 2], 2)] {
        for seed in 0..10 {
            let mut agents = Agents::started(seed, &kinds, relays);
            let (alice, bob) = agents.pair();
            // A queue that empties at once, again and again: probes arrive behind packets, in one train with them.
            agents.world.all_links(|link| link.jitter = millis(15));
            agents.world.run_for(seconds(1));
            agents.world.pings(alice, bob, millis(100), seconds(8));
            let count = |agents: &Agents| {
                let switches = [alice, bob].map(|host| agents.world.stats(host).path_switches.value());
                (switches, agents.world.handshakes(alice, bob))
            };
            let before = count(&agents);
            let ends = agents.world.v4(alice, bob);
            for _ in 0..3_000 {
                agents.world.send(alice, ends.udp(&[7; 1_200]));
                agents.world.run_for(millis(10));
            }
            assert_eq!(before, count(&agents), "seed {seed}, {kinds:?} with {relays} relays");
        }
    }
}
