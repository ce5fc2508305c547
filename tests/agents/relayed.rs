//! Agents that no direct path joins: each is behind a strict NAT, and the relay beside their rendezvous joins them.

use overlay_sim::nat::Kind;

use super::*;
use crate::lab::apart::{Homes, place};
use crate::lab::{AT_LENGTH, Agents, Site};

/// Agents behind strict NATs at both ends of an Internet, with the rendezvous between them.
struct Apart {
    alice: Agent,
    bob: Agent,
    _sites: Vec<Site>,
    /// Dropped last.
    world: Agents,
}

impl Apart {
    #[track_caller]
    fn new(name: &str) -> Option<Apart> {
        let world = Agents::new(name)?;
        let (_, sites, [alice, bob]) = place(&world, Homes::FarApart([Kind::Strict; 2]));
        Some(Apart { alice, bob, _sites: sites, world })
    }

    /// Both trust each other, and reach each other.
    #[track_caller]
    fn join(&self) {
        befriend(&self.alice, "--want any --allow any", &self.bob, "");
        reaches(&self.alice, &self.bob.v4());
        reaches(&self.bob, &self.alice.v4());
    }

    /// How many datagrams the relay sends towards bob in this time.
    #[track_caller]
    fn sent_to_bob(&self, time: Duration) -> u64 {
        let counter = Counter::new(&self.bob.host, "udp sport 7447");
        std::thread::sleep(time);
        counter.packets()
    }
}

/// Waits until an echo request is answered, and says how long that took.
#[track_caller]
fn reaches(from: &Agent, address: &str) -> Duration {
    let began = Instant::now();
    within(SHORTLY, &format!("an answer of {address}"), || {
        (from.host.run(format!("ping -c 1 -W 1 {address}")).code == 0).then_some(())
    });
    began.elapsed()
}

#[test]
fn two_agents_behind_strict_nats_reach_each_other_through_the_relay() {
    let Some(apart) = Apart::new("relayed") else { return };
    let began = Instant::now();
    befriend(&apart.alice, "--want any --allow any", &apart.bob, "");
    let trusted = began.elapsed();
    let (to_bob, to_alice) = (reaches(&apart.alice, &apart.bob.v4()), reaches(&apart.bob, &apart.alice.v6()));
    eprintln!("relayed: trusted after {trusted:?}, bob answers {to_bob:?} later, alice {to_alice:?}");
}

#[test]
fn a_relay_that_is_restarted_joins_them_again() {
    let Some(mut apart) = Apart::new("relay again") else { return };
    apart.join();
    apart.world.kill();
    apart.world.start();
    let (began, bob) = (Instant::now(), apart.bob.v4());
    within(AT_LENGTH, "bob through the new relay", || {
        (apart.alice.host.run(format!("ping -c 1 -W 1 {bob}")).code == 0).then_some(())
    });
    eprintln!("relay again: bob answers {:?} after the restart", began.elapsed());
}

#[test]
fn a_peer_that_is_no_longer_trusted_sends_nothing_through_the_relay() {
    let Some(apart) = Apart::new("relay closed") else { return };
    apart.join();
    let (bob, alice) = (apart.bob.v4(), apart.alice.v4());
    let pings = apart.alice.host.spawn(format!("ping -i 0.1 {bob}"));
    apart.bob.ask("untrust alice");
    // What was on its way has arrived.
    std::thread::sleep(Duration::from_secs(1));
    let left = apart.sent_to_bob(Duration::from_secs(5));
    drop(pings);
    eprintln!("relay closed: {left} datagrams of the relay in 5 s");
    assert!(left <= 4, "a renewal of the binding at most: {left}");
    assert_ne!(apart.alice.host.run(format!("ping -c 2 -W 1 {bob}")).code, 0);
    assert_ne!(apart.bob.host.run(format!("ping -c 2 -W 1 {alice}")).code, 0);
}
