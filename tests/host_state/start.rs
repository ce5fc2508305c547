//! The guards exist before the things that they guard: no datagram from a neighbour reaches a virtual IP during `up` or
//! a reload.

use std::fs;

use super::flood::{Flood, Listener};
use crate::lab::{A, Host, Outside, Pair};

const PORT: u16 = 7777;
/// A port for the proof that the neighbour's datagrams arrive when nothing forbids them.
const OPEN: u16 = 7778;

/// Two hosts. `b` has a route on the wire to the virtual IPs of `a`.
fn world(name: &str) -> Option<Pair> {
    let pair = Pair::new(name)?;
    let wire = pair.b.link_to(&pair.a);
    pair.b.ip(&format!("route add 10.77.0.0/24 via {} dev {wire}", A.outer_v4));
    pair.b.ip(&format!("-6 route add fd77::/64 via {} dev {wire}", A.outer_v6));
    Some(pair)
}

/// Checks that a flood from `b` arrives at `a` where it is allowed.
fn proves_itself(a: &Host, b: &Host) {
    let mut open = Listener::start(a, OPEN);
    let flood = Flood::start(b, &[A.outer_v4, A.outer_v6], OPEN);
    flood.goes_on_for(200);
    assert!(open.count() > 0, "the neighbour's datagrams do not arrive at all");
}

#[test]
fn no_neighbours_datagram_reaches_a_virtual_ip_during_up() {
    let Some(pair) = world("a gap at start") else { return };
    let Pair { a, b, .. } = &pair;
    proves_itself(a, b);
    let mut listener = Listener::start(a, PORT);
    let flood = Flood::start(b, &[A.v4, A.v6], PORT);
    for _ in 0..5 {
        let overlay = a.overlay_up(&pair.config_of_a(Outside::V4));
        flood.goes_on_for(100);
        assert_eq!(listener.count(), 0, "datagrams of a neighbour reached a virtual IP");
        overlay.stop();
        assert_eq!(listener.count(), 0, "while it went down");
    }
}

#[test]
fn none_does_during_reloads_that_change_addresses() {
    let Some(pair) = world("a gap at reload") else { return };
    let Pair { a, b, .. } = &pair;
    proves_itself(a, b);
    let mut listener = Listener::start(a, PORT);
    let others = ["10.77.0.8", "fd77::8"];
    let first = pair.config_of_a(Outside::V4);
    let second = first.replace(&A.inner()[0], "10.77.0.8/24").replace(&A.inner()[1], "fd77::8/64");
    assert!(second.contains("10.77.0.8/24") && second.contains("fd77::8/64"));
    let overlay = a.overlay_up(&first);
    let flood = Flood::start(b, &[A.v4, others[0], A.v6, others[1]], PORT);
    for _ in 0..5 {
        for config in [&second, &first] {
            fs::write(overlay.config(), config).expect("our own file");
            a.overlay("reload").succeeded("overlay reload");
            flood.goes_on_for(100);
            assert_eq!(listener.count(), 0, "datagrams of a neighbour reached a virtual IP");
        }
    }
    overlay.stop();
}

#[test]
fn a_broadcast_to_the_virtual_prefix_is_dropped_elsewhere() {
    let Some(pair) = world("broadcast") else { return };
    let Pair { a, b, .. } = &pair;
    proves_itself(a, b);
    let mut listener = Listener::start(a, PORT);
    let overlay = a.overlay_up(&pair.config_of_a(Outside::V4));
    let flood = Flood::start(b, &["10.77.0.255"], PORT);
    flood.goes_on_for(200);
    assert_eq!(listener.count(), 0, "a broadcast to the virtual prefix was taken from a neighbour");
    drop(flood);
    // From the host itself, the broadcast address still leads into the tunnel and nowhere else.
    let route = a.ip("route get 10.77.0.255");
    assert!(route.contains(&format!("broadcast 10.77.0.255 dev {}", a.interface())), "{route}");
    overlay.stop();
}
