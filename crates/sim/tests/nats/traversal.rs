//! Which pairs of NATs have a direct path: the statement of `traversable` against brute force in the simulated network.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use overlay_sim::nat::{Behaviour, Dependence, Kind, Pooling, Ports, chains_traversable, traversable};
use overlay_sim::{Realm, Socket, World, millis};

/// When each side probes after its openers, in milliseconds.
const PROBES: [u64; 9] = [0, 50, 100, 200, 400, 1_400, 2_400, 3_400, 4_400];
/// How long both try.
const SPAN: u64 = 5_000;

/// One side: its socket, where it probes, and whether it heard the other.
struct Side {
    socket: Socket,
    targets: BTreeSet<SocketAddr>,
    heard: bool,
}

impl Side {
    /// Takes what came. The source of each probe is a target from now on, and is probed at once.
    fn look(&mut self, world: &mut World) {
        for letter in world.take_letters(self.socket) {
            self.heard = true;
            if self.targets.insert(letter.source) {
                world.post(self.socket, letter.source, b"probe");
            }
        }
    }
}

/// Both sides learn their reflexive addresses from a server, send openers, and probe for five seconds.
fn meet(a: &[Behaviour], b: &[Behaviour], is_ipv6: bool) -> bool {
    let mut world = World::new(7);
    let sockets = [a, b].map(|chain| {
        let router = world.routers_in(Realm::Internet, chain);
        world.socket_behind(router, is_ipv6)
    });
    let server = world.socket_at(if is_ipv6 { "[2001:db8:1::1]:3478" } else { "203.0.113.1:3478" }.parse().unwrap());
    let reflexive = sockets.map(|socket| {
        world.post(socket, world.address(server), b"?");
        world.run_for(millis(20));
        world.take_letters(server)[0].source
    });
    let mut sides = [0, 1].map(|own: usize| Side {
        socket: sockets[own],
        targets: BTreeSet::from([reflexive[1 - own]]),
        heard: false,
    });
    for ttl in [2, 4] {
        for own in 0..2 {
            world.post_with_ttl(sockets[own], reflexive[1 - own], b"opener", ttl);
        }
        world.run_for(millis(20));
    }
    for at in (0..SPAN).step_by(10) {
        for side in &mut sides {
            side.look(&mut world);
            if PROBES.contains(&at) {
                side.targets.iter().for_each(|target| world.post(side.socket, *target, b"probe"));
            }
        }
        world.run_for(millis(10));
    }
    sides.iter().all(|side| side.heard)
}

#[test]
fn two_kinds_have_a_direct_path_exactly_where_brute_force_finds_one() {
    let mut paths = 0;
    for a in Kind::ALL {
        for b in Kind::ALL {
            let families = [false, true]
                .into_iter()
                .filter(|is_ipv6| [a, b].iter().all(|kind| *kind == Kind::None || kind.is_ipv6() == *is_ipv6));
            let found = families.into_iter().any(|is_ipv6| meet(&a.routers(), &b.routers(), is_ipv6));
            assert_eq!(traversable(a, b), found, "{} and {}", a.name(), b.name());
            assert_eq!(traversable(a, b), traversable(b, a));
            paths += usize::from(found);
        }
    }
    // Strict has no path with moderate, linux, carrier-grade and itself. Over IPv6, all have one
    // between the firewall and the host without NAT.
    assert_eq!(paths, 64 - 7 + 3);
}

/// Every behaviour that RFC 4787 has words for, and some in chains.
#[test]
fn so_do_two_chains_of_any_behaviour() {
    let all = [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];
    let mut chains = Vec::new();
    for mapping in all {
        for filtering in all {
            for ports in [Ports::Preserving, Ports::Random, Ports::Sequential] {
                let behaviour = Behaviour { ports, ..Behaviour::new(mapping, filtering) };
                chains.push(vec![behaviour]);
                if ports == Ports::Random {
                    let arbitrary = Behaviour { addresses: 2, pooling: Pooling::Arbitrary, ..behaviour };
                    chains.push(vec![arbitrary]);
                    chains.push(vec![Behaviour::new(Dependence::EndpointIndependent, filtering), behaviour]);
                    chains.push(vec![behaviour, Behaviour::new(Dependence::EndpointIndependent, filtering)]);
                }
            }
        }
    }
    for (index, a) in chains.iter().enumerate() {
        for b in &chains[index..] {
            let (is_sure, found) = (chains_traversable(a, b), meet(a, b, false));
            // Where outside addresses take turns, it may happen to be the right one's.
            let may_be_luck = [a, b].iter().any(|chain| chain.iter().any(|nat| nat.pooling == Pooling::Arbitrary));
            assert!(is_sure == found || (may_be_luck && found), "{a:#?} and {b:#?}: {found}");
        }
    }
}
