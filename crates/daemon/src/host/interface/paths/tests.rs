//! Routes that follow paths, checked with the real `ip`.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::super::tests::{World, other_device};
use super::*;
use crate::config::MtuRange;
use crate::host::footprint::tests::config;
use crate::host::own_namespace::{everything, ip, run};

const RANGE: MtuRange = MtuRange { start: 1420, max: 1440 };

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// Returns what `ip` shows of the route to exactly this destination in all tables of its family.
fn shown(destination: &str) -> String {
    let family = if destination.contains(':') { "-6" } else { "-4" };
    ip(&format!("{family} route show table all exact {destination} dev ovt0")).trim().to_owned()
}

/// Returns the MTU that applies to a packet to `to`.
fn held(to: &str) -> u32 {
    let answer = ip(&format!("route get {to}"));
    let mut words = answer.split_whitespace();
    words.find(|word| *word == "mtu").and_then(|_| words.next()).map_or(1440, |mtu| mtu.parse().expect("a number"))
}

#[test]
fn the_interface_takes_the_most_and_every_route_says_the_start() {
    run(|| async {
        let before = everything();
        let world = World::new().await;
        let config = config(
            &["10.77.0.1/24", "10.77.0.9/24", "fd77::1/64"],
            &[&["10.77.0.2/32", "10.78.0.0/16", "0.0.0.0/0"], &["fd77::2/128", "fd78::/48", "::/0"]],
            "",
        );
        let (mut host, mut journal, tun) = world.up(&config, RANGE).await;
        assert!(ip("link show dev ovt0").contains("mtu 1440"));
        for to in ["10.77.0.2", "10.77.0.77", "10.78.1.1", "192.0.2.1", "fd77::2", "fd78::1", "2001:db8::1"] {
            assert_eq!(held(to), 1420, "{to}");
        }
        // The kernel's own route, unchanged in origin.
        assert!(shown("10.77.0.0/24").starts_with("10.77.0.0/24 proto kernel scope link src 10.77.0.1"));
        assert!(shown("fd77::/64").starts_with("fd77::/64 proto kernel metric 256"));
        assert_eq!(ip("-4 route show dev ovt0").lines().count(), 2);

        let standing = everything();
        host.apply(&world.netlink, &mut journal, &config, RANGE).await.expect("it applies");
        assert_eq!(everything(), standing, "nothing is to be done twice");

        // A different MTU of the link: the kernel changes the MTU of IPv6 routes, and so do we.
        let range = MtuRange { start: 1420, max: 8940 };
        host.apply(&world.netlink, &mut journal, &config, range).await.expect("it applies");
        assert_eq!((held("fd77::2"), held("fd78::1"), held("10.77.0.2"), held("192.0.2.1")), (1420, 1420, 1420, 1420));
        let range = MtuRange { start: 1320, max: 1340 };
        host.apply(&world.netlink, &mut journal, &config, range).await.expect("it applies");
        assert_eq!((held("fd77::2"), held("fd78::1"), held("10.77.0.2"), held("192.0.2.1")), (1320, 1320, 1320, 1320));
        host.apply(&world.netlink, &mut journal, &config, RANGE).await.expect("it applies");
        assert_eq!(everything(), standing);

        host.apply(&world.netlink, &mut journal, &config, MtuRange::fixed(1440)).await.expect("it applies");
        assert!(!shown("10.77.0.0/24").contains("mtu") && !shown("fd77::/64").contains("mtu"));
        assert_eq!(host.take_down(&world.netlink, journal).await, Vec::<String>::new());
        drop(tun);
        assert_eq!(everything(), before);
    });
}

#[test]
fn the_routes_to_a_peer_say_what_its_path_carries() {
    run(|| async {
        let world = World::new().await;
        let config = config(
            &["10.77.0.1/24", "fd77::1/64"],
            &[&["10.77.0.2/32", "fd77::2/128"], &["10.78.0.0/16", "0.0.0.0/0", "::/0"], &["10.77.0.0/24"]],
            "",
        );
        let (mut host, _journal, _tun) = world.up(&config, RANGE).await;
        let netlink = &world.netlink;
        let standing = everything();

        // Prefix, address in it, neighbour outside it, MTU of the path, expected MTU.
        let rows = [
            ("10.77.0.2/32", "10.77.0.2", "10.77.0.3", 1228, 1228),
            ("fd77::2/128", "fd77::2", "fd77::3", 1300, 1300),
            ("fd77::2/128", "fd77::2", "fd77::3", 1228, 1280),
            ("10.78.0.0/16", "10.78.1.1", "10.77.0.3", 1440, 1440),
            ("0.0.0.0/0", "192.0.2.1", "10.77.0.3", 1000, 1000),
            ("::/0", "2001:db8::1", "fd77::3", 1390, 1390),
            ("10.77.0.0/24", "10.77.0.3", "10.78.1.1", 1340, 1340),
        ];
        for (prefix, inside, outside, path, said) in rows {
            host.set_path_mtu(netlink, net(prefix), Some(path)).await;
            assert_eq!((held(inside), held(outside)), (said, 1420), "{prefix}");
            host.set_path_mtu(netlink, net(prefix), None).await;
            assert_eq!(everything(), standing, "{prefix}");
        }
    });
}

#[test]
fn a_prefix_inside_anothers_is_not_held_to_what_that_ones_path_carries() {
    run(|| async {
        let world = World::new().await;
        let config = config(&["10.77.0.1/24"], &[&["10.77.0.2/32"], &["10.77.0.0/24"], &["10.77.0.128/25"]], "");
        let (mut host, _journal, _tun) = world.up(&config, RANGE).await;
        host.set_path_mtu(&world.netlink, net("10.77.0.0/24"), Some(1228)).await;
        assert_eq!((held("10.77.0.3"), held("10.77.0.2"), held("10.77.0.129")), (1228, 1420, 1420));
    });
}

#[test]
fn a_connected_route_stays_the_kernels_when_a_peer_has_exactly_its_prefix_and_when_it_has_it_no_more() {
    run(|| async {
        let world = World::new().await;
        let addresses = ["10.77.0.1/16", "10.77.1.1/24"];
        let with = config(&addresses, &[&["10.77.0.0/16"], &["10.77.1.0/24"]], "");
        let without = config(&addresses, &[&["10.77.0.0/16"]], "");
        let (mut host, mut journal, _tun) = world.up(&with, RANGE).await;
        let is_the_kernels = || shown("10.77.1.0/24").starts_with("10.77.1.0/24 proto kernel scope link src 10.77.1.1");
        assert!(is_the_kernels(), "{}", shown("10.77.1.0/24"));
        host.set_path_mtu(&world.netlink, net("10.77.1.0/24"), Some(1300)).await;
        assert!(is_the_kernels() && held("10.77.1.9") == 1300, "{}", shown("10.77.1.0/24"));
        host.apply(&world.netlink, &mut journal, &without, RANGE).await.expect("it applies");
        host.set_path_mtu(&world.netlink, net("10.77.1.0/24"), None).await;
        assert!(is_the_kernels() && held("10.77.1.9") == 1420, "{}", shown("10.77.1.0/24"));
        host.apply(&world.netlink, &mut journal, &with, RANGE).await.expect("it applies");
        assert!(is_the_kernels(), "{}", shown("10.77.1.0/24"));
    });
}

#[test]
fn what_the_kernel_learned_from_icmp_goes_with_the_route_that_says_something_else() {
    run(|| async {
        let world = World::new().await;
        let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.77.0.2/32", "fd77::2/128"]], "");
        let (mut host, _journal, tun) = world.up(&config, RANGE).await;
        for (prefix, to) in [("10.77.0.2/32", "10.77.0.2"), ("fd77::2/128", "fd77::2")] {
            refuse(&tun, to, 1300);
            assert_eq!(held(to), 1300, "learned on the connected route");
            host.set_path_mtu(&world.netlink, net(prefix), Some(1360)).await;
            assert_eq!(held(to), 1360);
            refuse(&tun, to, 1310);
            assert_eq!(held(to), 1310, "learned on the route of its own");
            host.set_path_mtu(&world.netlink, net(prefix), Some(1420)).await;
            assert_eq!(held(to), 1420, "not what was learned on the connected route, which would be back without it");
        }
    });
}

/// Sends a large datagram to `to` and answers it with ICMP "too big" like the node.
fn refuse(tun: &overlay_os::tun::Tun, to: &str, mtu: u16) {
    let is_ipv4 = !to.contains(':');
    let socket = UdpSocket::bind(if is_ipv4 { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket");
    let to: std::net::IpAddr = to.parse().expect("an address");
    let deadline = Instant::now() + Duration::from_secs(10);
    socket.send_to(&[7; 1312], (to, 9)).expect("it goes into the tunnel");
    let mut buffer = vec![0; 65_600];
    let refusal = loop {
        assert!(Instant::now() < deadline, "it does not arrive");
        // Router solicitations and similar packets arrive as well.
        let Ok(length) = tun.read(&mut buffer) else { continue };
        let Ok(packet) = overlay_wire::ip::Packet::parse(&buffer[..length]) else { continue };
        let mut refusal = Vec::new();
        if packet.destination() == to && overlay_wire::icmp::too_big(&packet, mtu, &mut refusal) {
            break refusal;
        }
    };
    tun.write(&[IoSlice::new(&refusal)]).expect("the kernel takes it");
}

#[test]
fn a_reload_keeps_what_is_known_of_paths_and_forgets_those_that_are_gone() {
    run(|| async {
        let before = everything();
        let world = World::new().await;
        let first =
            config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.77.0.2/32", "10.78.0.0/16"], &["10.79.0.0/16"]], "");
        let (mut host, mut journal, tun) = world.up(&first, RANGE).await;
        for prefix in ["10.77.0.2/32", "10.78.0.0/16", "10.79.0.0/16"] {
            host.set_path_mtu(&world.netlink, net(prefix), Some(1300)).await;
        }
        let standing = everything();
        host.apply(&world.netlink, &mut journal, &first, RANGE).await.expect("it applies");
        assert_eq!(everything(), standing);

        // A config that removes all addresses, and with them all IPv4 routes, for a moment.
        let second = config(&["10.77.0.9/24"], &[&["10.77.0.2/32"], &["10.78.0.0/16"]], "");
        host.apply(&world.netlink, &mut journal, &second, RANGE).await.expect("it applies");
        assert_eq!((held("10.77.0.2"), held("10.77.0.3"), held("10.78.0.1")), (1300, 1420, 1300));
        assert_eq!(shown("10.79.0.0/16"), "");
        assert_eq!(host.routed_prefixes().len(), 2);

        // No longer beside a connected route, then in a different table, then nowhere.
        let third = config(&["10.80.0.1/24"], &[&["10.77.0.2/32"]], "");
        host.apply(&world.netlink, &mut journal, &third, RANGE).await.expect("it applies");
        assert_eq!((held("10.77.0.2"), ip("-4 route show dev ovt0").lines().count()), (1300, 2));
        let fourth = config(&["10.80.0.1/24"], &[&["10.77.0.2/32"]], "table = 7");
        host.apply(&world.netlink, &mut journal, &fourth, RANGE).await.expect("it applies");
        assert!(ip("-4 route show table 7").contains("10.77.0.2") && ip("-4 route show table 7").contains("mtu 1300"));
        assert_eq!(ip("-4 route show dev ovt0").lines().count(), 1);
        let fifth = config(&["10.80.0.1/24"], &[&["10.77.0.2/32"]], "table = \"off\"");
        host.apply(&world.netlink, &mut journal, &fifth, MtuRange::fixed(1420)).await.expect("it applies");
        host.set_path_mtu(&world.netlink, net("10.77.0.2/32"), Some(1300)).await;
        assert_eq!(ip("-4 route show table all dev ovt0").lines().filter(|line| line.contains("mtu")).count(), 0);
        assert_eq!(host.routed_prefixes(), Vec::<IpNet>::new());

        assert_eq!(host.take_down(&world.netlink, journal).await, Vec::<String>::new());
        drop(tun);
        assert_eq!(everything(), before);
    });
}

#[test]
fn prefixes_of_wg_follow_where_a_route_of_ours_covers_them_and_nowhere_else() {
    run(|| async {
        let world = World::new().await;
        let config = config(&["10.77.0.1/24"], &[&["10.78.0.0/16"]], "");
        let (mut host, _journal, _tun) = world.up(&config, RANGE).await;
        for (prefix, to, said) in [("10.77.0.7/32", "10.77.0.7", 1300), ("10.78.7.0/24", "10.78.7.1", 1300)] {
            host.set_path_mtu(&world.netlink, net(prefix), Some(1300)).await;
            assert_eq!(held(to), said, "{prefix}");
            host.set_path_mtu(&world.netlink, net(prefix), None).await;
            assert_eq!((held(to), shown(prefix)), (1420, String::new()), "{prefix}");
        }
        host.set_path_mtu(&world.netlink, net("10.99.0.0/16"), Some(1300)).await;
        assert_eq!(shown("10.99.0.0/16"), "");

        // Another program's route is left alone.
        other_device("192.0.2.1/24");
        ip("route add 10.77.0.8/32 dev eth7");
        host.set_path_mtu(&world.netlink, net("10.77.0.8/32"), Some(1300)).await;
        assert!(ip("route get 10.77.0.8").contains("dev eth7"));
        assert_eq!(host.routed_prefixes(), Vec::<IpNet>::new());
    });
}

#[test]
fn another_programs_route_in_the_place_of_ours_is_left_alone_from_then_on() {
    run(|| async {
        let world = World::new().await;
        let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.77.0.2/32", "fd77::2/128"]], "");
        let (mut host, mut journal, _tun) = world.up(&config, RANGE).await;
        let netlink = &world.netlink;
        other_device("192.0.2.1/24");
        let all = || ip("-4 route show exact 10.77.0.2/32") + &ip("-6 route show exact fd77::2/128");
        let prefixes = ["10.77.0.2/32", "fd77::2/128"];
        // A route through a different device, and one through ours with settings of another program.
        for theirs in ["dev eth7", "dev ovt0 mtu 1310"] {
            for prefix in prefixes {
                host.set_path_mtu(netlink, net(prefix), Some(1300)).await;
                ip(&format!("route replace {prefix} {theirs}"));
            }
            let standing = all();
            assert!(standing.lines().count() == 2 && !standing.contains("static"), "{standing}");
            host.apply(netlink, &mut journal, &config, RANGE).await.expect("it applies");
            assert_eq!(all(), standing, "a reload");
            for path in [Some(1320), Some(1330), None] {
                for prefix in prefixes {
                    host.set_path_mtu(netlink, net(prefix), path).await;
                }
                assert_eq!(all(), standing, "{path:?}");
            }
            assert_eq!(host.routed_prefixes(), Vec::<IpNet>::new());
            for prefix in prefixes {
                ip(&format!("route del {prefix}"));
                host.set_path_mtu(netlink, net(prefix), Some(1340)).await;
            }
            assert_eq!(all().matches("dev ovt0 proto static").count(), 2, "the place is free again: {}", all());
            for prefix in prefixes {
                host.set_path_mtu(netlink, net(prefix), None).await;
            }
            assert_eq!(all(), "");
        }
    });
}

#[test]
fn a_route_that_is_taken_is_no_failure_and_a_failure_is_over_when_that_route_is_set() {
    run(|| async {
        let world = World::new().await;
        let config = config(&["10.77.0.1/24"], &[&["10.77.0.2/32", "10.77.0.3/32", "10.77.0.4/32"]], "");
        let (mut host, _journal, _tun) = world.up(&config, RANGE).await;
        let netlink = &world.netlink;
        other_device("192.0.2.1/24");
        ip("route add 10.77.0.4/32 dev eth7");
        host.set_path_mtu(netlink, net("10.77.0.4/32"), Some(1300)).await;
        assert!(host.paths.failing.is_empty(), "it is documented that it is left alone");
        // No route can be added to an interface that is down.
        ip("link set ovt0 down");
        for prefix in ["10.77.0.2/32", "10.77.0.3/32"] {
            host.set_path_mtu(netlink, net(prefix), Some(1300)).await;
        }
        ip("link set ovt0 up");
        assert_eq!(host.paths.failing.len(), 2);
        host.set_path_mtu(netlink, net("10.77.0.2/32"), Some(1300)).await;
        assert_eq!(host.paths.failing, HashSet::from([net("10.77.0.3/32")]), "the other one still does not follow");
        host.set_path_mtu(netlink, net("10.77.0.3/32"), None).await;
        assert!(host.paths.failing.is_empty());
    });
}

#[test]
fn a_dirty_prefix_waits_once_and_all_of_them_a_few_at_a_time() {
    run(|| async {
        let world = World::new().await;
        let prefixes: Vec<String> = (0..10_000).map(|i| format!("10.{}.{}.0/24", 100 + i / 256, i % 256)).collect();
        let texts: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let config = config(&["10.77.0.1/24"], &[&texts], "");
        let (mut host, _journal, _tun) = world.up(&config, RANGE).await;
        for _ in 0..3 {
            host.on_dirty(prefixes.iter().map(|text| net(text)));
        }
        let (start, mut longest, mut turns) = (Instant::now(), Duration::ZERO, 0);
        while host.has_dirty() {
            let turn = Instant::now();
            let some = host.take_dirty();
            assert!(some.len() <= AT_ONCE);
            for prefix in some {
                host.set_path_mtu(&world.netlink, prefix, Some(1300)).await;
            }
            longest = longest.max(turn.elapsed());
            turns += 1;
        }
        eprintln!("{turns} turns in {:?}, the longest {longest:?}", start.elapsed());
        assert_eq!(turns, 10_000_usize.div_ceil(AT_ONCE));
        assert_eq!(ip("-4 route show dev ovt0").matches("mtu 1300").count(), 10_000);
    });
}
