//! A virtual IP answers the host's own containers, and nobody else beside the tunnel.

use crate::lab::{A, Host};

use super::world::World;

#[track_caller]
fn is_reached(from: &Host, address: &str) -> bool {
    from.run(format!("ping -n -c 1 -W 1 {address}")).code == 0
}

#[test]
fn a_container_on_a_bridge_reaches_the_virtual_ip_of_its_own_host() {
    let Some(world) = World::new("own bridge") else { return };
    let World { a, b, c, .. } = &world;
    let wire = b.link_to(a);
    b.ip(&format!("route add {}/32 via {} dev {wire}", A.v4, A.outer_v4));
    b.ip(&format!("-6 route add {}/128 via {} dev {wire}", A.v6, A.outer_v6));
    let overlay = a.overlay_up(&world.config_of_a(&["10.77.0.2/32", "fd77::2/128"], "forward = true\n"));
    for address in [A.v4, A.v6] {
        assert!(is_reached(c, address), "the container does not reach {address}");
        assert!(!is_reached(b, address), "{address} answers a neighbour");
    }
    drop(overlay);
}
