//! The address from which a daemon with several addresses answers: the one that the peer sent to, as long as it exists
//! and the route still leads out of its interface.
#![allow(clippy::disallowed_methods, reason = "the lab waits for real programs")]

mod lab;

use lab::{A, B, Host, Outside, Overlay, Pair, SHORTLY, within};

/// Waits until a daemon reports this endpoint for its peer.
#[track_caller]
fn is_at(daemon: &Overlay, peer: &Host, endpoint: &str) {
    within(SHORTLY, &format!("{} to be seen at {endpoint}", peer.name()), || {
        (daemon.peer(peer)["endpoint"] == endpoint).then_some(())
    });
}

#[test]
fn answers_leave_from_the_address_that_was_spoken_to_until_it_is_gone() {
    for (outside, extra, prefix) in [(Outside::V4, "10.1.0.10", 24), (Outside::V6, "fd01::10", 64)] {
        let Some(pair) = Pair::new("a second address") else { return };
        let link = pair.a.link_to(&pair.b);
        pair.a.ip(&format!("address add {extra}/{prefix} dev {link} nodad"));
        let endpoint = match outside {
            Outside::V4 => format!("{extra}:51820"),
            Outside::V6 => format!("[{extra}]:51820"),
        };
        let own = B.inner();
        let allowed = A.allowed();
        let config = pair.b.interface_toml(&[&own[0], &own[1]])
            + &pair.a.peer_toml(Some(&endpoint), &[&allowed[0], &allowed[1]]);
        let on_a = pair.a.overlay_up(&pair.config_of_a_waiting());
        let on_b = pair.b.overlay_up(&config);
        pair.b.reaches(A.v4);
        pair.a.reaches(B.v4);
        is_at(&on_b, &pair.a, &endpoint);

        pair.a.ip(&format!("address delete {extra}/{prefix} dev {link}"));
        // The very first packet already uses the remaining address.
        pair.a.exec(format!("ping -c 1 -W 3 {}", B.v4));
        is_at(&on_b, &pair.a, &A.endpoint(outside, 51820));
        drop(on_a);
    }
}

#[test]
fn a_route_by_another_interface_that_is_preferred_is_taken_with_its_own_address() {
    let Some(pair) = Pair::new("a different route") else { return };
    for host in [&pair.a, &pair.b] {
        host.exec("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
        host.exec(format!(
            "sysctl -qw net.ipv4.conf.{}.rp_filter=0",
            host.link_to(if host.name() == "a" { &pair.b } else { &pair.a })
        ));
    }
    pair.a.ip(&format!("link add second type veth peer name second netns {}", pair.b.namespace()));
    for (host, address) in [(&pair.a, "10.3.0.1/24"), (&pair.b, "10.3.0.2/24")] {
        host.ip(&format!("address add {address} dev second"));
        host.ip("link set second up");
    }
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let on_b = pair.b.overlay_up(&pair.config_of_b_waiting());
    pair.a.reaches(B.v4);
    is_at(&on_b, &pair.a, &A.endpoint(Outside::V4, 51820));

    // The old path still works as before.
    within(SHORTLY, "the second wire", || {
        (pair.a.run("ip route add 10.1.0.2/32 via 10.3.0.2 dev second src 10.3.0.1").code == 0).then_some(())
    });
    within(SHORTLY, "the peer to be seen at the other address", || {
        pair.a.exec(format!("ping -c 1 -W 3 {}", B.v4));
        (on_b.peer(&pair.a)["endpoint"] == "10.3.0.1:51820").then_some(())
    });
    pair.b.reaches(A.v4);
}
