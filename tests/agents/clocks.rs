//! Clocks that are wrong: trust needs no right clock, and a wrong one prolongs nothing.

use super::*;
use crate::lab::{Agents, faketime};

/// By when two agents that start cold have a tunnel.
const COLD: Duration = Duration::from_secs(6);

#[test]
fn everything_dead_but_two_daemons_with_clocks_years_apart_have_a_tunnel_within_six_seconds() {
    let Some(mut world) = Agents::new("clocks apart") else { return };
    let (mut alice, mut bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "--allow icmp");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    world.kill();
    for offset in ["-400d", "+400d", "+0", "-400d"] {
        alice.kill9();
        bob.kill9();
        bob.start();
        let began = Instant::now();
        if !alice.start_at(offset) {
            return;
        }
        alice.host.reaches_within(COLD, &v4);
        eprintln!("a clock {offset} off: the tunnel is up after {:.1?}", began.elapsed());
        assert!(began.elapsed() < COLD, "{offset}: {:?}", began.elapsed());
    }
}

#[test]
fn a_grant_ends_at_its_second_although_the_clock_is_set_back_and_the_host_reboots() {
    let Some(mut world) = Agents::new("clock back") else { return };
    let alice = world.agent("alice");
    let mut bob = world.agent("bob");
    bob.kill9();
    if !bob.start_at("+0") {
        return;
    }
    alice.ask("handshake bob --want icmp");
    bob.is_asked_by("alice");
    let began = Instant::now();
    bob.ask("approve alice --for 6s");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    faketime::set_offset(&bob.host, "-1h");
    let refused = |since: Instant| {
        let ping = alice.host.run(format!("ping -n -q -c 1 -W 1 {v4}"));
        (ping.code != 0).then(|| since.elapsed())
    };
    let ended = within(Duration::from_secs(10), "the grant to end", || refused(began));
    eprintln!("granted for 6 s, ended after {ended:.1?}");
    assert!(ended > Duration::from_secs(5) && ended < Duration::from_secs(8), "{ended:?}");
    assert_eq!(bob.peer("alice")["state"], "expired");
    // What a reboot leaves is the state folder. The clock is an hour behind still, which is before the end.
    bob.kill9();
    assert!(bob.start_at("-1h"));
    assert_eq!(bob.peer("alice")["state"], "expired");
    assert!(refused(began).is_some());
}
