//! Agents in one network: the path between them does not leave it.

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Kind as Datagram, Route, Sent, World, millis, minutes, seconds};

/// No opener goes farther.
const OPENER_TTL: u8 = 4;

#[test]
fn neighbours_find_each_other_inside_their_network() {
    // A router of the kind one-to-one has an outside address for one host only.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::OneToOne) {
        let mut world = World::new(7);
        let relay = world.relay();
        let router = world.router(kind);
        let [one, other] = [0, 1].map(|_| {
            let host = world.host();
            world.keep_family(host, kind.is_ipv6());
            world.settle(host, router, kind.is_ipv6());
            world.agent(host, &[relay]);
            host
        });
        world.trust(one, other);
        world.start_agent(one);
        world.start_agent(other);
        let pings = world.pings(one, other, millis(200), seconds(10));
        assert!(pings.until_first().is_some_and(|first| first < seconds(3)), "{}", kind.name());
        for (from, to) in [(one, other), (other, one)] {
            assert_eq!(world.routes(from, to), [Route::Direct], "{}", kind.name());
            let inside = world.outer(to)[0];
            assert_eq!(world.sent().last().map(|sent| sent.destination), Some(inside), "{}", kind.name());
        }
    }
}

/// Openers arrive there, and a Linux router takes what comes first for a flow of its own.
#[test]
fn routers_on_one_link_let_a_direct_path_through_after_the_silence() {
    let mut took = Vec::new();
    for seed in 0..20 {
        let mut agents = Agents::behind(seed, &[Kind::Linux, Kind::Linux], 1);
        let (alice, bob) = agents.pair();
        for (from, to) in [(alice, bob), (bob, alice)] {
            agents.world.link(from, to, |link| (link.hops, link.latency) = (0, millis(1)));
        }
        agents.start(&[seconds(0), millis(seed * 7)]);
        agents.world.run_for(seconds(1));
        let began = agents.world.now();
        while agents.world.routes(alice, bob) != [Route::Direct] {
            agents.world.run_for(seconds(1));
            assert!(agents.world.now().since(began) < minutes(1), "seed {seed}: not direct");
        }
        took.push(agents.world.now().since(began).as_secs());
    }
    took.sort_unstable();
    println!("direct after {took:?} seconds");
}

/// The responder begins with its openers when it receives the first data of the session.
#[test]
fn the_openers_of_the_end_that_called_leave_before_its_first_data() {
    for seed in 0..10 {
        let mut agents = Agents::behind(seed, &[Kind::Linux, Kind::Linux], 1);
        let (alice, bob) = agents.pair();
        agents.start(&[seconds(0), millis(seed * 7)]);
        agents.world.run_for(seconds(1));
        agents.world.pings(alice, bob, millis(100), seconds(1));
        let sent = agents.world.sent();
        let is_data = |sent: &&Sent| matches!(sent.inner_kind(), Datagram::Data | Datagram::Keepalive);
        let first = sent.iter().position(|sent| is_data(&sent)).expect("a session");
        let caller = sent[first].from;
        let openers = sent[..first].iter().filter(|sent| sent.ttl <= OPENER_TTL).map(|sent| sent.from);
        assert_eq!(openers.collect::<Vec<_>>(), [caller], "seed {seed}");
    }
}
