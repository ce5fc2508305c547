//! The interface goes down and comes up again, as with `ip link set` on a WireGuard device.

use std::collections::BTreeMap;

use overlay_core::Command;
use overlay_sim::{HostId, Kind, World, millis, minutes, seconds};

fn set_up(world: &mut World, host: HostId, is_up: bool) {
    world.command(host, Command::SetUp(is_up)).expect("always possible");
}

#[test]
fn down_and_up_again_a_session_is_made_anew_where_the_peer_was_last_seen() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    assert!(world.ping(alice, bob).is_some());
    world.roam(bob, &["198.51.100.7:4242"]);
    assert!(world.ping(bob, alice).is_some());
    set_up(&mut world, alice, false);
    set_up(&mut world, alice, true);
    assert_eq!(world.ping(alice, bob), Some(millis(40)), "one handshake, at once");
    assert_eq!(world.handshakes(alice, bob), 2);
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
}

#[test]
fn while_it_is_down_nothing_is_sent_and_nothing_taken() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    assert!(world.ping(alice, bob).is_some());
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(5)));
    set_up(&mut world, alice, false);
    world.forget();
    world.send(alice, world.v4(alice, bob).udp(b"to bob"));
    world.send(bob, world.v4(bob, alice).udp(b"to alice"));
    world.run_for(minutes(1));
    assert!(world.sent().iter().all(|sent| sent.from != alice));
    let drops = world.drops(alice);
    assert_eq!(drops.keys().collect::<Vec<_>>(), [&"interface_down"]);
    assert!(drops["interface_down"] >= 10, "{drops:?}: the packet, bob's packet and his calls");
    assert!(world.wakeups(alice) < 10, "{} wake-ups for nothing", world.wakeups(alice));
    set_up(&mut world, alice, true);
    world.run_for(seconds(1));
    assert_eq!(world.received(bob).len(), 0, "what wanted out while it was down is not sent later");
}

#[test]
fn packets_that_wait_are_dropped_when_it_goes_down() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    world.cut(alice, bob);
    world.send(alice, world.v4(alice, bob).udp(b"hello"));
    set_up(&mut world, alice, false);
    assert_eq!(world.drops(alice), BTreeMap::from([("interface_down", 1)]));
    world.mend(alice, bob);
    world.forget();
    set_up(&mut world, alice, true);
    world.run_for(minutes(1));
    assert_eq!(world.count(alice, Kind::Initiation), 0, "nobody wants the peer any more");
}

#[test]
fn a_peer_with_persistent_keepalive_is_called_as_soon_as_it_is_up() {
    let mut world = World::new(7);
    let (alice, bob) = (world.host(), world.host());
    set_up(&mut world, alice, false);
    world.introduce(alice, bob);
    world.set_peer(alice, bob, |peer| peer.persistent_keepalive = Some(seconds(25)));
    world.run_for(minutes(1));
    assert_eq!(world.count(alice, Kind::Initiation), 0, "configured while it is down, as wg-quick does");
    set_up(&mut world, alice, true);
    world.run_for(seconds(1));
    assert_eq!(world.handshakes(alice, bob), 1);
    assert_eq!(world.ping(bob, alice), Some(millis(20)));
}
