//! A peer moves: it restarts at a different address, with its key but without any memory, and its name follows.

use std::time::Duration;

use overlay_core::Command;
use overlay_sim::{HostId, HostOptions, Kind, World, millis, seconds};

use crate::name_service::{Resolver, address};

const ELSEWHERE: &str = "198.51.100.7:4242";
/// The promised limit.
const PROMISED: Duration = seconds(20);
/// The limit if only WireGuard's own messages may be sent, and all of them are keepalives.
const BY_HANDSHAKES: Duration = seconds(75);

/// Alice and bob. One of them knows the other by name.
struct Scene {
    world: World,
    /// The host that stays, and the host that moves.
    follower: HostId,
    mover: HostId,
    resolver: Resolver,
}

impl Scene {
    /// With `alice_follows`, bob is the one who moves. Alice starts the session in either case.
    fn new(seed: u64, alice_follows: bool, mtu_discovery: bool, keepalive: Option<Duration>) -> Self {
        let mut world = World::new(seed);
        let options = || HostOptions { mtu_discovery, ..HostOptions::default() };
        let (alice, bob) = (world.host_with(options()), world.host_with(options()));
        world.introduce(alice, bob);
        let (follower, mover) = if alice_follows { (alice, bob) } else { (bob, alice) };
        world.set_peer(follower, mover, |peer| peer.persistent_keepalive = keepalive);
        let (key, addresses) = (world.key(mover), world.outer(mover).to_vec());
        let resolver = Resolver::new(&mut world, follower, key, addresses);
        world.ping(alice, bob).expect("an answer");
        Self { world, follower, mover, resolver }
    }

    /// Restarts the mover at a different address, from where it cannot initiate. Its name follows at once.
    fn mover_moves(&mut self) {
        self.world.roam(self.mover, &[ELSEWHERE]);
        self.world.restart(self.mover);
        let key = self.world.key(self.follower);
        self.world.remove_peer(self.mover, key);
        self.world.set_peer(self.mover, self.follower, |peer| peer.endpoint = None);
        self.resolver.addresses = vec![address(ELSEWHERE)];
    }

    /// How long until the follower sends to the new address. It sends a packet every `period`.
    fn until_followed(&mut self, period: Option<Duration>) -> Option<Duration> {
        let (follower, mover, began) = (self.follower, self.mover, self.world.now());
        let (mut sent, key) = (0, self.world.key(mover));
        self.resolver.run_until(&mut self.world, seconds(200), |world| {
            if let Some(period) = period
                && world.now() >= began + period * sent
            {
                sent += 1;
                world.send(follower, world.v4(follower, mover).udp(b"are you there"));
            }
            world.last_endpoint(follower, key) == Some(address(ELSEWHERE))
        })
    }
}

#[test]
fn a_peer_that_moved_is_followed_within_20_s_by_whoever_has_something_to_say() {
    let mut slowest = Duration::ZERO;
    for seed in 0..8 {
        for alice_follows in [true, false] {
            for mtu_discovery in [true, false] {
                for keepalive in [None, Some(seconds(25))] {
                    // Before and after the session is due for renewal, and when it has expired.
                    for age in [3, 60, 110, 118, 119, 121, 150, 170, 178, 400] {
                        let mut scene = Scene::new(seed, alice_follows, mtu_discovery, keepalive);
                        scene.resolver.run(&mut scene.world, seconds(age) + millis(137 * seed));
                        scene.mover_moves();
                        let took = scene.until_followed(Some(millis(700)));
                        let case = format!("{seed} {alice_follows} {mtu_discovery} {keepalive:?} {age} s");
                        assert!(took.is_some_and(|took| took <= PROMISED), "{case}: {took:?}");
                        slowest = slowest.max(took.unwrap_or_default());
                        assert!(scene.world.ping(scene.follower, scene.mover).is_some(), "{case}");
                    }
                }
            }
        }
    }
    println!("moved, with traffic: {slowest:?} at most");
}

#[test]
fn a_peer_that_moved_is_followed_within_20_s_by_keepalive_alone() {
    let mut slowest = Duration::ZERO;
    for seed in 0..20 {
        for alice_follows in [true, false] {
            for age in [40, 80, 119, 121, 160, 400, 1_000] {
                let mut scene = Scene::new(seed, alice_follows, true, Some(seconds(25)));
                scene.resolver.run(&mut scene.world, seconds(age) + millis(337 * seed));
                scene.mover_moves();
                let took = scene.until_followed(None);
                let case = format!("{seed} {alice_follows} {age} s");
                assert!(took.is_some_and(|took| took <= PROMISED), "{case}: {took:?}");
                slowest = slowest.max(took.unwrap_or_default());
                assert!(scene.world.ping(scene.mover, scene.follower).is_some(), "{case}");
            }
        }
    }
    println!("moved, keepalive alone: {slowest:?} at most");
}

#[test]
fn a_peer_that_may_be_asked_nothing_is_followed_within_75_s_by_keepalive_alone() {
    let mut slowest = Duration::ZERO;
    for seed in 0..10 {
        for age in [40, 80, 119, 121, 160, 400, 1_000] {
            let mut scene = Scene::new(seed, true, false, Some(seconds(25)));
            scene.resolver.run(&mut scene.world, seconds(age) + millis(337 * seed));
            scene.mover_moves();
            let took = scene.until_followed(None);
            assert!(took.is_some_and(|took| took <= BY_HANDSHAKES), "{seed} {age} s: {took:?}");
            slowest = slowest.max(took.unwrap_or_default());
        }
    }
    println!("moved, keepalive alone, WireGuard's own messages only: {slowest:?} at most");
}

#[test]
fn a_name_that_follows_late_is_followed_when_it_does() {
    let mut scene = Scene::new(7, true, true, None);
    scene.mover_moves();
    let old = std::mem::replace(&mut scene.resolver.addresses, vec![address("192.0.2.2:51820")]);
    let key = scene.world.key(scene.mover);
    for _ in 0..300 {
        scene.world.send(scene.follower, scene.world.v4(scene.follower, scene.mover).udp(b"are you there"));
        scene.resolver.run(&mut scene.world, millis(100));
    }
    // The current initiation goes there at once, not only the next one.
    scene.world.resolve(scene.follower, key, &old).expect("the peer is there");
    assert!(scene.world.run_until(millis(50), |world| world.last_endpoint(scene.follower, key) == Some(old[0])));
}

#[test]
fn a_peer_that_moved_and_speaks_first_is_followed_at_once() {
    for speaks_by_keepalive in [true, false] {
        let mut scene = Scene::new(7, true, true, None);
        let (alice, bob) = (scene.follower, scene.mover);
        if speaks_by_keepalive {
            scene.world.set_peer(bob, alice, |peer| peer.persistent_keepalive = Some(seconds(10)));
        }
        scene.world.roam(bob, &[ELSEWHERE]);
        if !speaks_by_keepalive {
            scene.world.send(bob, scene.world.v4(bob, alice).udp(b"I moved"));
        }
        let key = scene.world.key(bob);
        let followed =
            scene.world.run_until(seconds(11), |world| world.last_endpoint(alice, key) == Some(address(ELSEWHERE)));
        assert!(followed && scene.resolver.asked == 0);
    }
}

#[test]
fn another_name_is_called_at_once_and_the_session_goes_on_meanwhile() {
    let mut scene = Scene::new(7, true, true, None);
    let (alice, bob, key) = (scene.follower, scene.mover, scene.world.key(scene.mover));
    // Nobody answers at the new addresses. Nothing is lost in ten minutes. Five seconds after the last initiation, the
    // next one may be sent at once.
    scene.world.run_for(seconds(6));
    scene.world.command(alice, Command::ForgetCandidates(scene.world.tag(alice, key))).expect("the peer is there");
    let nobody = address("203.0.113.99:1");
    scene.world.resolve(alice, key, &[nobody]).expect("the peer is there");
    scene.world.run_for(seconds(0));
    assert_eq!(scene.world.take_mail(nobody).len(), 1, "an initiation, at once");
    for round in 0..600 {
        assert!(scene.world.ping(alice, bob).is_some(), "after {round} s");
        scene.world.run_for(seconds(1));
    }
    assert_eq!(scene.world.last_endpoint(alice, key), None, "it is where it was");
    assert!(scene.world.drops(alice).is_empty());
    // A name with both addresses changes nothing. A name with only a different address makes us move there.
    let (calls, outer) = (scene.world.count(alice, Kind::Initiation), scene.world.outer(bob).to_vec());
    scene.world.command(alice, Command::ForgetCandidates(scene.world.tag(alice, key))).expect("the peer is there");
    scene.world.resolve(alice, key, &[nobody, outer[0]]).expect("the peer is there");
    assert!(scene.world.ping(alice, bob).is_some());
    assert_eq!(scene.world.count(alice, Kind::Initiation), calls);
    scene.world.command(alice, Command::ForgetCandidates(scene.world.tag(alice, key))).expect("the peer is there");
    scene.world.resolve(alice, key, &outer[1..]).expect("the peer is there");
    assert!(scene.world.run_until(seconds(6), |world| world.last_endpoint(alice, key) == Some(outer[1])));
}
