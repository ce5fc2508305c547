//! The host's own containers can reach a virtual IP, and otherwise only the tunnel leads to it.

use std::fs;

use super::world::{BRIDGE, World};
use crate::lab::{A, Host, Overlay, SHORTLY, within, words};

/// Only the peer's own addresses, without a default route.
const NARROW: [&str; 2] = ["10.77.0.2/32", "fd77::2/128"];

#[track_caller]
fn is_reached(from: &Host, address: &str) -> bool {
    from.run(format!("ping -n -c 1 -W 1 {address}")).code == 0
}

/// A world in which the neighbour `b` has a route on the wire to the virtual IPs of `a`.
fn world(name: &str) -> Option<World> {
    let world = World::new(name)?;
    let wire = world.b.link_to(&world.a);
    world.b.ip(&format!("route add {}/32 via {} dev {wire}", A.v4, A.outer_v4));
    world.b.ip(&format!("-6 route add {}/128 via {} dev {wire}", A.v6, A.outer_v6));
    Some(world)
}

fn weak_host_drops(overlay: &Overlay) -> u64 {
    overlay.status()["host"]["guard_drops"]["weak_host"].as_u64().expect("a number")
}

fn reload(overlay: &Overlay, a: &Host, config: &str) {
    fs::write(overlay.config(), config).expect("our own file");
    a.overlay("reload").succeeded("overlay reload");
}

#[test]
fn a_container_on_a_bridge_reaches_its_hosts_virtual_ip() {
    let Some(world) = world("own bridge") else { return };
    let World { a, b, c, .. } = &world;
    // This does not depend on whether others may send through the host.
    for forward in ["forward = true\n", ""] {
        let overlay = a.overlay_up(&world.config_of_a(&NARROW, forward));
        assert_eq!(overlay.status()["host"]["own_interfaces"], serde_json::json!([BRIDGE]));
        for address in [A.v4, A.v6] {
            assert!(is_reached(c, address), "the container does not reach {address}");
            assert!(!is_reached(b, address), "{address} answers a neighbour");
        }
        // The container also receives answers to connections that the host opens from its virtual IP.
        assert!(is_reached(a, &format!("-I {} 172.18.0.2", A.v4)));
        overlay.stop();
    }
}

#[test]
fn what_the_guard_drops_is_counted() {
    let Some(world) = world("guard counters") else { return };
    let World { a, b, .. } = &world;
    let metrics = "\n[metrics]\nlisten = \"127.0.0.1:9586\"\n";
    let overlay = a.overlay_up(&(world.config_of_a(&NARROW, "") + metrics));
    assert_eq!(weak_host_drops(&overlay), 0);
    for address in [A.v4, A.v6] {
        assert!(!is_reached(b, address));
    }
    assert_eq!(weak_host_drops(&overlay), 2);
    let said = a.overlay("status").succeeded("overlay status");
    assert!(said.contains(words::TWO_FROM_ELSEWHERE), "{said}");
    let scraped = a.exec("curl -sS --noproxy * http://127.0.0.1:9586/metrics");
    for line in [
        "overlay_guard_dropped_packets_total{rule=\"weak_host\"} 2",
        "overlay_guard_dropped_packets_total{rule=\"outside_tunnel\"} 0",
        "overlay_host_restored_total{what=\"nft_table\"} 0",
        "overlay_host_state{state=\"intact\"} 1",
        "overlay_host_state{state=\"contested\"} 0",
    ] {
        assert!(scraped.lines().any(|written| written == line), "{line} in {scraped}");
    }
    // The counter continues across a reload that rewrites the table, and across the loss of the table.
    let wider = world.config_of_a(&NARROW, "").replace("10.77.0.1/24", "10.77.0.1/16");
    reload(&overlay, a, &(wider + metrics));
    assert_eq!(weak_host_drops(&overlay), 2);
    a.exec("nft flush ruleset");
    within(SHORTLY, "the table to be put back", || (!a.exec("nft list ruleset").is_empty()).then_some(()));
    assert_eq!(weak_host_drops(&overlay), 2);
    assert!(!is_reached(b, A.v4));
    assert_eq!(weak_host_drops(&overlay), 3);
}

#[test]
fn a_bridge_that_holds_the_uplink_is_not_own() {
    let Some(world) = world("bridged uplink") else { return };
    let World { a, b, c, .. } = &world;
    let wire = world.wire();
    let overlay = a.overlay_up(&world.config_of_a(&NARROW, "forward = true\n"));
    assert!(is_reached(c, A.v4));
    // The wire becomes a port of the bridge, which now leads to the neighbour, to the endpoint and to every other host.
    a.ip(&format!("address flush dev {wire}"));
    a.ip(&format!("link set {wire} master {BRIDGE}"));
    a.ip(&format!("address add 10.1.0.1/24 dev {BRIDGE}"));
    let own = || overlay.status()["host"]["own_interfaces"].clone();
    within(SHORTLY, "the bridge to be known for an uplink", || (own() == serde_json::json!([])).then_some(()));
    b.reaches("10.1.0.1");
    assert!(!is_reached(b, A.v4), "a neighbour behind the bridge is let in");
    assert!(!is_reached(c, A.v4));
    // The wire leaves the bridge, which then counts as the host's own again.
    a.ip(&format!("address delete 10.1.0.1/24 dev {BRIDGE}"));
    a.ip(&format!("link set {wire} nomaster"));
    within(SHORTLY, "the bridge to be own again", || (own() == serde_json::json!([BRIDGE])).then_some(()));
    assert!(is_reached(c, A.v4));
}

#[test]
fn a_container_without_a_bridge_needs_forward() {
    let Some(world) = world("bare veth") else { return };
    let World { a, b, c, .. } = &world;
    let link = a.link_to(c);
    a.ip(&format!("link set {link} nomaster"));
    a.ip(&format!("address flush dev {BRIDGE}"));
    a.ip(&format!("address add 172.18.0.1/24 dev {link}"));
    c.reaches("172.18.0.1");
    let overlay = a.overlay_up(&world.config_of_a(&NARROW, ""));
    assert!(!is_reached(c, A.v4), "it might as well be a wire");
    reload(&overlay, a, &world.config_of_a(&NARROW, "forward = true\n"));
    assert!(is_reached(c, A.v4));
    assert!(!is_reached(b, A.v4), "the wire that leads to the endpoint and to the default gateway is an uplink");
}

#[test]
fn the_guard_is_switched_while_it_runs() {
    let Some(world) = world("guard switch") else { return };
    let World { a, b, c, .. } = &world;
    let overlay = a.overlay_up(&world.config_of_a(&NARROW, "guard = \"strict\"\n"));
    assert!(!is_reached(c, A.v4) && !is_reached(b, A.v4));
    reload(&overlay, a, &world.config_of_a(&NARROW, "guard = \"auto\"\n"));
    assert!(is_reached(c, A.v4) && !is_reached(b, A.v4));
    reload(&overlay, a, &world.config_of_a(&NARROW, "guard = \"off\"\n"));
    assert!(is_reached(c, A.v4) && is_reached(b, A.v4), "as WireGuard alone has it");
    assert_eq!(a.exec("nft list ruleset"), "");
    assert_eq!(overlay.status()["host"]["guard"], "off");
    assert_eq!(overlay.status()["host"]["state"], "intact", "as it was asked for");
    reload(&overlay, a, &world.config_of_a(&NARROW, ""));
    assert!(is_reached(c, A.v4) && !is_reached(b, A.v4));
    overlay.stop();
    assert_eq!(a.exec("nft list ruleset"), "");
}
