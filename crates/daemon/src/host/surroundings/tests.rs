//! Which interfaces are own, and which destinations are direct, by table.

use super::*;

fn link(index: u32, name: &str, kind: Option<&str>, controller: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        mtu: 1500,
        tx_queue_len: 1000,
        up: true,
        controller,
        is_ethernet: true,
    }
}

fn route(destination: &str, interface: u32, gateway: Option<&str>) -> Route {
    let gateway = gateway.map(|ip| ip.parse().unwrap());
    Route { gateway, ..Route::to_interface(destination.parse().unwrap(), interface) }
}

fn own(links: &[Link], routes: &[Route], forward: bool, endpoints: &[&str]) -> Vec<String> {
    let endpoints: Vec<IpAddr> = endpoints.iter().map(|ip| ip.parse().unwrap()).collect();
    own_interfaces(links, routes, &Question { ours: 9, forward, endpoints: &endpoints }).1
}

#[test]
fn a_bridge_of_virtual_ends_is_own_and_one_that_leads_elsewhere_is_not() {
    let bridge = link(2, "br0", Some("bridge"), None);
    let rows: &[(&[Option<&str>], bool)] = &[
        (&[], true),
        (&[Some("veth")], true),
        (&[Some("veth"), Some("tun"), Some("dummy")], true),
        (&[Some("veth"), None], false),
        (&[Some("vxlan")], false),
        (&[Some("vlan"), Some("veth")], false),
        (&[Some("bond")], false),
    ];
    for (kinds, is_own) in rows {
        let ports = kinds.iter().zip(3..).map(|(kind, index)| link(index, &format!("port{index}"), *kind, Some(2)));
        let links: Vec<Link> = std::iter::once(bridge.clone()).chain(ports).collect();
        assert_eq!(own(&links, &[], false, &[]), if *is_own { vec!["br0"] } else { vec![] }, "{kinds:?}");
    }
}

#[test]
fn a_veth_or_tap_alone_is_own_only_where_others_may_send_through_us() {
    let tun = Link { is_ethernet: false, ..link(5, "tun0", Some("tun"), None) };
    let links = [
        link(2, "eth0", None, None),
        link(3, "veth0", Some("veth"), None),
        link(4, "tap0", Some("tun"), None),
        tun,
        link(9, "ours", Some("tun"), None),
    ];
    assert_eq!(own(&links, &[], false, &[]), Vec::<String>::new());
    assert_eq!(own(&links, &[], true, &[]), ["veth0", "tap0"]);
}

#[test]
fn an_uplink_is_never_own() {
    let links = [link(2, "br0", Some("bridge"), None), link(3, "veth0", Some("veth"), None)];
    /// Destination, interface and gateway of a route, the endpoints of peers, and what is still own.
    type Row<'a> = (&'a str, u32, Option<&'a str>, &'a [&'a str], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("10.1.0.0/24", 3, None, &["192.0.2.1"], &["br0", "veth0"]),
        ("0.0.0.0/0", 3, None, &[], &["br0"]),
        ("::/0", 2, Some("fe80::1"), &[], &["veth0"]),
        ("10.5.0.0/16", 3, Some("10.1.0.2"), &[], &["br0"]),
        ("10.1.0.0/24", 3, None, &["10.1.0.2"], &["br0"]),
        ("10.1.0.0/24", 2, None, &["192.0.2.1", "10.1.0.2"], &["veth0"]),
    ];
    for (destination, interface, gateway, endpoints, expected) in rows {
        let found = own(&links, &[route(destination, *interface, *gateway)], true, endpoints);
        assert_eq!(found, *expected, "{destination} by {interface}");
    }
}

#[test]
fn direct_is_what_the_main_table_knows_better_than_its_default_and_no_peer_owns() {
    let elsewhere = Route { table: 7, ..route("10.9.0.0/16", 2, None) };
    let refusing = Route { interface: None, ..route("10.8.0.0/16", 2, None) };
    let routes = [
        route("0.0.0.0/0", 2, Some("10.1.0.2")),
        route("10.1.0.0/24", 2, None),
        route("10.1.1.0/24", 3, None),
        route("172.16.0.0/12", 2, Some("10.1.0.2")),
        route("10.77.0.0/24", 9, None),
        route("fe80::/64", 2, None),
        route("fd01::/64", 2, None),
        elsewhere,
        refusing,
    ];
    let planned = ["172.20.0.0/16", "10.77.0.0/24", "0.0.0.0/0", "172.20.5.0/24"].map(|net| net.parse().unwrap());
    let found = beside_the_tunnel(&routes, &[], 9, planned.into_iter());
    let ranges: Vec<String> = found.direct.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    assert_eq!((found.refused, found.detours), (vec![], vec![]));
    assert_eq!(
        ranges,
        [
            "10.1.0.0-10.1.1.255",
            "172.16.0.0-172.19.255.255",
            "172.21.0.0-172.31.255.255",
            "fd01::-fd01::ffff:ffff:ffff:ffff",
            "fe80::-fe80::ffff:ffff:ffff:ffff",
        ]
    );
}

#[test]
fn a_longer_prefix_decides_at_both_ends_of_the_address_space() {
    let nets = |rows: &[(&str, bool)]| -> Vec<(IpNet, bool)> {
        rows.iter().map(|(net, is_in)| (net.parse().unwrap(), *is_in)).collect()
    };
    let all = u128::from(u32::MAX);
    type Row<'a> = (&'a [(&'a str, bool)], &'a [(u128, u128)]);
    let rows: &[Row<'_>] = &[
        (&[], &[]),
        (&[("0.0.0.0/1", true), ("128.0.0.0/1", true)], &[(0, all)]),
        (&[("128.0.0.0/1", true), ("255.255.255.255/32", false)], &[(1 << 31, all - 1)]),
        (&[("128.0.0.0/1", false), ("255.255.255.255/32", true)], &[(all, all)]),
        (&[("0.0.0.0/8", true), ("0.0.0.0/32", false)], &[(1, (1 << 24) - 1)]),
        (
            &[("0.0.0.0/8", true), ("0.0.1.0/24", false), ("0.0.1.7/32", true)],
            &[(0, 255), (263, 263), (512, (1 << 24) - 1)],
        ),
    ];
    for (prefixes, expected) in rows {
        assert_eq!(longest_first_wins(nets(prefixes)), *expected, "{prefixes:?}");
    }
    let v6 = longest_first_wins(nets(&[("8000::/1", true)]));
    assert_eq!(v6, [(1 << 127, u128::MAX)]);
}

#[test]
fn a_broadcast_address_is_guarded_where_a_prefix_has_one() {
    let nets =
        ["10.77.0.1/24", "10.77.0.9/24", "10.78.0.1/32", "10.79.0.0/31", "fd77::1/64"].map(|net| net.parse().unwrap());
    let guarded: Vec<String> = guarded_addresses(&nets).iter().map(IpAddr::to_string).collect();
    assert_eq!(guarded, ["10.77.0.1", "10.77.0.255", "10.77.0.9", "10.78.0.1", "10.79.0.0", "fd77::1"]);
}

#[test]
fn routes_that_the_local_network_supplies_open_nothing() {
    const DHCP: u8 = 16;
    const RA: u8 = 9;
    let from = |protocol, route| Route { protocol, ..route };
    let address = |ip: &str, prefix| Address { index: 2, ip: ip.parse().unwrap(), prefix, is_preferred: true };
    let addresses = [address("10.1.0.7", 24), address("fd01::7", 64), address("fe80::7", 64)];
    let gateway = Some("10.1.0.1");
    /// A route, whether it is refused, and what leads its destinations into the tunnel.
    type Row<'a> = (Route, bool, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (from(DHCP, route("0.0.0.0/1", 2, gateway)), true, &["0.0.0.0/5", "8.0.0.0/7", "10.0.0.0/16"]),
        (from(DHCP, route("198.51.100.9/32", 2, gateway)), true, &["198.51.100.9/32"]),
        // Option 121 can also say that a prefix is on-link.
        (from(DHCP, route("198.51.100.0/24", 2, None)), true, &["198.51.100.0/24"]),
        // The route to the router itself, as systemd-networkd adds it.
        (from(DHCP, route("10.1.0.1/32", 2, None)), false, &[]),
        (from(DHCP, route("10.1.0.0/24", 2, None)), false, &[]),
        (from(RA, route("fd01::/64", 2, None)), false, &[]),
        (from(RA, route("2001:db8::/32", 2, Some("fe80::1"))), true, &["2001:db8::/32"]),
        (from(KERNEL, route("2001:db8::/64", 2, None)), true, &["2001:db8::/64"]),
        (from(KERNEL, route("172.17.0.0/16", 3, None)), false, &[]),
        // A person's route is followed, unless it is nearly a default route.
        (route("172.16.0.0/12", 2, gateway), false, &[]),
        (route("10.0.0.0/8", 2, gateway), false, &[]),
        (route("128.0.0.0/1", 2, gateway), true, &["128.0.0.0/1"]),
        (route("2000::/3", 2, Some("fe80::1")), true, &["2000::/3"]),
    ];
    for (row, is_refused, detours) in rows {
        let routes = [from(KERNEL, route("10.1.0.0/24", 2, None)), row.clone()];
        let found = beside_the_tunnel(&routes, &addresses, 9, std::iter::empty());
        assert_eq!(found.refused.contains(&row.destination), *is_refused, "{row:?}");
        let led: Vec<String> = found.detours.iter().map(ToString::to_string).collect();
        assert!(detours.iter().all(|detour| led.contains(&(*detour).to_owned())), "{row:?}: {led:?}");
        assert_eq!(led.is_empty(), detours.is_empty(), "{row:?}: {led:?}");
        let is_direct = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            found.direct.iter().any(|(first, last)| *first <= ip && ip <= *last)
        };
        assert!(is_direct("10.1.0.1"), "the network of the link stays direct: {row:?}");
        assert_eq!(is_direct(&row.destination.addr().to_string()), !is_refused, "{row:?}");
    }
}
