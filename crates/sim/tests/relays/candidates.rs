//! What agents learn of their own addresses, and what they tell.

use std::net::SocketAddr;

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, HostId, World, seconds};

fn private(address: &SocketAddr) -> bool {
    matches!(address.ip(), std::net::IpAddr::V4(ip) if ip.is_private())
}

#[test]
fn an_agent_learns_by_stun_how_its_relays_see_it() {
    for kind in Kind::ALL {
        let mut agents = Agents::started(7, &[kind, Kind::None], 2);
        let (alice, bob) = agents.pair();
        agents.world.run_for(seconds(2));
        let candidates = agents.world.candidates(alice);
        let host = agents.world.outer(alice).to_vec();
        assert_eq!(candidates[..host.len()], host[..], "{}: first those of the host", kind.name());
        let reflexive = &candidates[host.len()..];
        let public = agents.world.public(agents.routers[0]);
        assert!(reflexive.iter().all(|seen| public.contains(&seen.ip())), "{}", kind.name());
        // Strict has a different port for each relay. Where nothing is translated, the relays see the host's own.
        let count = match kind {
            Kind::Strict => 2,
            Kind::None | Kind::Ipv6Firewall => 0,
            _ => 1,
        };
        assert_eq!(reflexive.len(), count, "{}", kind.name());
        assert_eq!(agents.world.stun_answers(agents.relays[0]), 2);
        let known = agents.world.known_candidates(bob, alice);
        let told: Vec<_> = candidates.into_iter().filter(|address| !private(address)).collect();
        assert_eq!(known, told, "{}: private addresses are for neighbours", kind.name());
    }
}

#[test]
fn a_question_that_is_lost_is_repeated() {
    let mut agents = Agents::started(7, &[Kind::Moderate, Kind::None], 1);
    let (alice, _) = agents.pair();
    let relay = agents.relays[0];
    agents.world.cut_one_way(alice, relay);
    agents.world.run_for(seconds(2));
    assert_eq!(agents.world.candidates(alice).len(), 1);
    agents.world.mend(alice, relay);
    agents.world.run_for(seconds(3));
    assert_eq!(agents.world.candidates(alice).len(), 2);
}

#[test]
fn neighbours_tell_each_other_their_private_addresses() {
    let mut world = World::new(7);
    let relay = world.relay();
    let router = world.router(Kind::Moderate);
    let [one, other] = [0, 1].map(|_| {
        let host = world.host();
        world.keep_family(host, false);
        world.settle(host, router, false);
        world.agent(host, &[relay]);
        host
    });
    world.trust(one, other);
    for host in [one, other] {
        world.start_agent(host);
    }
    world.run_for(seconds(2));
    assert_eq!(world.known_candidates(one, other), world.candidates(other));
    assert!(private(&world.candidates(other)[0]));
}

#[test]
fn an_agent_that_moves_tells_its_peers() {
    let mut agents = Agents::started(7, &[Kind::Moderate, Kind::None], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    let known = |agents: &Agents, of: HostId| agents.world.known_candidates(bob, of);
    let before = known(&agents, alice);
    let router = agents.world.router(Kind::Open);
    agents.world.settle(alice, router, false);
    agents.world.run_for(seconds(2));
    let after = known(&agents, alice);
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_eq!(after[0].ip(), agents.world.public(router)[0]);
    // Bob is reached at the new place, through the same channels of the relay.
    assert!(agents.world.ping(bob, alice).is_some());
    let stats = agents.world.relay_stats(agents.relays[0]).expect("it lives");
    assert_eq!((stats.moved, stats.opened), (1, 2));
}

#[test]
fn a_mapping_that_a_router_forgets_is_found_again() {
    let mut agents = Agents::started(7, &[Kind::Strict, Kind::None], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    let before = agents.world.candidates(alice);
    agents.world.forget_mappings(agents.routers[0]);
    // The next renewal of the binding leaves by a new port.
    agents.world.run_for(seconds(27));
    let after = agents.world.candidates(alice);
    assert_ne!(before, after);
    assert_eq!(agents.world.known_candidates(bob, alice), after[1..]);
}
