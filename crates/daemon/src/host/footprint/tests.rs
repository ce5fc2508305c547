//! Configs and the routes they want.

use std::path::Path;

use super::*;

/// Builds a config with these addresses, one peer for each list of allowed_ips, and further lines for `[interface]`.
pub(in crate::host) fn config(addresses: &[&str], allowed: &[&[&str]], more: &str) -> Config {
    use base64::Engine;
    let folder = tempfile::tempdir().expect("a folder");
    let base64 = |bytes: [u8; 32]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let key = folder.path().join("key");
    std::fs::write(&key, base64([7; 32])).expect("writable");
    let mut text =
        format!("[interface]\nname = \"ovt0\"\nprivate_key_file = {key:?}\naddresses = {addresses:?}\n{more}\n");
    for (number, allowed) in allowed.iter().enumerate() {
        let public = base64([9 + u8::try_from(number).expect("few peers"); 32]);
        text += &format!("[[peer]]\npublic_key = \"{public}\"\nallowed_ips = {allowed:?}\n");
    }
    Config::parse(&text, Path::new("ovt0.toml")).expect("a good config")
}

fn routes(footprint: &Footprint) -> Vec<(String, u32, Option<u32>)> {
    footprint.routes.iter().map(|route| (route.destination.to_string(), route.table, route.mtu)).collect()
}

#[test]
fn a_prefix_inside_a_connected_one_needs_no_route() {
    let config = config(
        &["10.77.0.1/24", "fd77::1/64"],
        &[&["10.77.0.2/32", "fd77::2/128"], &["10.77.1.0/24", "10.0.0.0/8"]],
        "",
    );
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 1);
    assert_eq!(routes(&footprint), [("10.77.1.0/24".into(), 254, None), ("10.0.0.0/8".into(), 254, None)]);
    assert_eq!(footprint.connected().map(|net| net.to_string()).collect::<Vec<_>>(), ["10.77.0.0/24", "fd77::/64"]);
    assert_eq!(footprint.marked, None);
}

#[test]
fn a_host_address_connects_nothing() {
    let config = config(&["10.77.0.1/32"], &[&["10.77.0.2/32"]], "");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 1);
    assert_eq!(routes(&footprint), [("10.77.0.2/32".into(), 254, None)]);
    assert_eq!(footprint.connected().count(), 0);
}

#[test]
fn a_default_route_gets_the_free_table_and_its_mark() {
    let config = config(&["10.77.0.1/24"], &[&["0.0.0.0/0", "::/0"], &["10.1.0.0/16"]], "");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 51821);
    assert_eq!(
        routes(&footprint),
        [("10.1.0.0/16".into(), 254, None), ("0.0.0.0/0".into(), 51821, None), ("::/0".into(), 51821, None)]
    );
    assert_eq!(footprint.marked, Some(MarkedTable { table: 51821, mark: 51821, v4: true, v6: true }));
}

#[test]
fn a_configured_mark_names_the_table_too() {
    let config = config(&["10.77.0.1/24"], &[&["0.0.0.0/0"]], "fwmark = 99");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 51820);
    assert_eq!(footprint.marked, Some(MarkedTable { table: 99, mark: 99, v4: true, v6: false }));
    assert_eq!(routes(&footprint), [("0.0.0.0/0".into(), 99, None)]);
}

#[test]
fn a_table_of_the_users_takes_every_prefix_and_no_rules() {
    let config = config(&["10.77.0.1/24"], &[&["10.77.0.2/32", "0.0.0.0/0"]], "table = 7");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 51820);
    assert_eq!(routes(&footprint), [("10.77.0.2/32".into(), 7, None), ("0.0.0.0/0".into(), 7, None)]);
    assert_eq!(footprint.marked, None);
}

#[test]
fn table_off_wants_no_routes() {
    let config = config(&["10.77.0.1/24"], &[&["10.1.0.0/16", "0.0.0.0/0"]], "table = \"off\"");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 51820);
    assert_eq!((routes(&footprint), footprint.marked), (vec![], None));
}

#[test]
fn a_small_mtu_goes_to_ipv4_routes_and_never_to_the_interface() {
    let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.77.0.2/32", "fd88::/64"]], "");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1000), true, 1);
    assert_eq!(footprint.mtu, 1280);
    assert_eq!(routes(&footprint), [("fd88::/64".into(), 254, None)]);
    let said = |text: &str| footprint.connected_mtu(&text.parse().unwrap());
    assert_eq!((said("10.77.0.0/24"), said("fd77::/64")), (Some(1000), None));
}

#[test]
fn on_a_host_without_ipv6_only_ipv4_is_wanted() {
    let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["0.0.0.0/0", "::/0", "fd88::/64"]], "");
    let footprint = Footprint::plan(&config, MtuRange::fixed(1420), false, 51820);
    assert_eq!(footprint.addresses, ["10.77.0.1/24".parse().unwrap()]);
    assert_eq!(routes(&footprint), [("0.0.0.0/0".into(), 51820, None)]);
    assert_eq!(footprint.marked, Some(MarkedTable { table: 51820, mark: 51820, v4: true, v6: false }));
}

#[test]
fn between_start_and_most_the_routes_say_the_start() {
    let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.78.0.0/16", "fd78::/48", "0.0.0.0/0"]], "");
    let footprint = Footprint::plan(&config, MtuRange { start: 1200, max: 1300 }, true, 7);
    assert_eq!(footprint.mtu, 1300);
    assert_eq!(
        routes(&footprint),
        [
            ("fd78::/48".into(), 254, Some(1280)),
            ("10.78.0.0/16".into(), 254, Some(1200)),
            ("0.0.0.0/0".into(), 7, Some(1200))
        ]
    );
}

#[test]
fn of_prefixes_inside_a_connected_one_only_those_inside_anothers_get_a_route() {
    let allowed: &[&[&str]] = &[&["10.77.0.128/25"], &["10.77.0.129/32"], &["10.77.0.2/32"], &["10.0.0.0/8"]];
    let footprint = Footprint::plan(&config(&["10.77.0.1/24"], allowed, ""), MtuRange::fixed(1420), true, 1);
    assert_eq!(routes(&footprint), [("10.77.0.129/32".into(), 254, None), ("10.0.0.0/8".into(), 254, None)]);
}

#[test]
fn exactly_a_connected_prefix_gets_no_route_also_where_it_lies_in_anothers() {
    let allowed: &[&[&str]] = &[&["10.77.0.0/16", "fd77::/48"], &["10.77.1.0/24", "fd77::/64"], &["10.77.1.2/32"]];
    let rows = [("", &[("10.77.1.2/32", 254)][..]), ("table = 254", &[("10.77.1.2/32", 254)])];
    for (more, wanted) in rows {
        let config = config(&["10.77.0.1/16", "10.77.1.1/24", "fd77::1/48", "fd77::1:1/64"], allowed, more);
        let footprint = Footprint::plan(&config, MtuRange::fixed(1420), true, 1);
        let planned: Vec<_> = routes(&footprint).into_iter().map(|(net, table, _)| (net, table)).collect();
        let wanted: Vec<_> = wanted.iter().map(|(net, table)| ((*net).to_owned(), *table)).collect();
        assert_eq!(planned, wanted, "{more}");
        assert_eq!(footprint.place_of(&"10.77.1.0/24".parse().unwrap()), Some(Place::Connected), "{more}");
    }
}

#[test]
fn the_place_of_a_prefix_is_where_the_route_is_that_leads_to_it() {
    let plan = |more: &str| {
        let allowed: &[&[&str]] = &[&["10.77.0.2/32", "10.78.0.0/16"], &["0.0.0.0/0"]];
        Footprint::plan(&config(&["10.77.0.1/24", "fd77::1/64"], allowed, more), MtuRange::fixed(1420), true, 99)
    };
    let rows = [
        ("10.77.0.0/24", Some(Place::Connected), Some(Place::Connected)),
        ("10.77.0.2/32", Some(Place::Beside(254)), Some(Place::Planned(7))),
        ("10.77.0.9/32", Some(Place::Beside(254)), Some(Place::Beside(254))),
        ("10.78.0.0/16", Some(Place::Planned(254)), Some(Place::Planned(7))),
        ("10.78.9.0/24", Some(Place::Beside(254)), Some(Place::Beside(7))),
        ("192.0.2.0/24", Some(Place::Beside(99)), Some(Place::Beside(7))),
        ("0.0.0.0/0", Some(Place::Planned(99)), Some(Place::Planned(7))),
        ("fd77::2/128", Some(Place::Beside(254)), Some(Place::Beside(254))),
        ("2001:db8::/32", None, None),
    ];
    let (auto, seven, off) = (plan(""), plan("table = 7"), plan("table = \"off\""));
    for (prefix, in_auto, in_seven) in rows {
        let prefix = prefix.parse().unwrap();
        let places = (auto.place_of(&prefix), seven.place_of(&prefix), off.place_of(&prefix));
        assert_eq!(places, (in_auto, in_seven, None), "{prefix}");
    }
}
