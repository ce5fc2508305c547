//! Agents that begin at the same moment.

use std::collections::BTreeSet;

use overlay_sim::nat::Kind;
use overlay_sim::{HostId, Kind as Message, World, millis, seconds};
use overlay_wire::wireguard::Message as Parsed;

use crate::ground::{anywhere, within};

/// How many pairs begin.
const RUNS: u64 = 200;

/// The sessions of the peer that a host has sent data in: their receiver indices.
fn sessions(world: &World, host: HostId) -> BTreeSet<u32> {
    let data = world.sent().iter().filter(|sent| sent.from == host && sent.inner_kind() == Message::Data);
    let receiver = data.filter_map(|sent| match Parsed::parse(sent.inside()) {
        Ok(Parsed::Data { receiver, .. }) => Some(receiver),
        _ => None,
    });
    receiver.collect()
}

/// Behind two strict routers with one relay, no better path wants a session of its own.
#[test]
fn agents_that_begin_within_50_ms_agree_on_one_session() {
    for seed in 0..RUNS {
        let (mut agents, mut rng) = anywhere(seed, [Kind::Strict, Kind::Strict], 1);
        let (alice, bob) = agents.pair();
        agents.start(&[within(millis(50), &mut rng), within(millis(50), &mut rng)]);
        let ends = [agents.world.v4(alice, bob), agents.world.v4(bob, alice)];
        let talk = |world: &mut World, rounds: usize| {
            for _ in 0..rounds {
                world.send_ping(alice, ends[0]);
                world.send_ping(bob, ends[1]);
                world.run_for(millis(100));
            }
        };
        talk(&mut agents.world, 50);
        for (host, peer) in [(alice, bob), (bob, alice)] {
            let handshakes = agents.world.handshakes(host, peer);
            assert!((1..=2).contains(&handshakes), "seed {seed}: {handshakes} sessions");
        }
        agents.world.forget();
        talk(&mut agents.world, 30);
        agents.world.run_for(seconds(1));
        for host in [alice, bob] {
            assert_eq!(sessions(&agents.world, host).len(), 1, "seed {seed}: one session is in use");
            assert!(agents.world.answers(host) >= 30, "seed {seed}: {} answers", agents.world.answers(host));
        }
    }
}
