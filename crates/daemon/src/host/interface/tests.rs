//! The life of a footprint in its own network namespace, checked with the real `ip` and `nft`.

use std::fs;
use std::time::{Duration, Instant};

use overlay_golden::golden;
use overlay_os::tun::Tun;

use super::super::footprint::tests::config;
use super::super::own_namespace::{everything, ip, nft, run};
use super::super::{Runtime, mtu_range, preflight};
use super::*;
use crate::failure::ExitKind;

/// A daemon's start up to the TUN, without its packets.
pub(super) struct World {
    _folder: tempfile::TempDir,
    runtime: Runtime,
    pub(super) netlink: Netlink,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::acquire(folder.path(), "ovt0").expect("free");
        Self { runtime, netlink: Netlink::connect().await.expect("netlink"), _folder: folder }
    }

    pub(super) async fn up(&self, config: &Config, mtu: MtuRange) -> (Host, Journal, Tun) {
        preflight(&self.netlink, config).await.expect("nothing in the way");
        let mut journal = Journal::begin(&self.runtime).expect("writable");
        let tun = Tun::create("ovt0", false).expect("a TUN");
        let host = Host::bring_up(&self.netlink, &mut journal, &tun, config, mtu).await.expect("it comes up");
        (host, journal, tun)
    }
}

/// Adds an unrelated device with this address: one end of a veth pair.
pub(super) fn other_device(address: &str) {
    ip("link add eth7 type veth peer name eth8");
    // A link-local address would appear some time after the link is up, between two looks at the host.
    for link in ["eth7", "eth8"] {
        ip(&format!("link set {link} addrgenmode none"));
    }
    ip("link set eth8 up");
    ip("link set eth7 up");
    ip(&format!("address add {address} dev eth7"));
    // The kernel announces carrier changes at most once a second, for all namespaces together.
    let settled = || lines(&ip("-br link show type veth")).iter().all(|line| line.contains(" UP "));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !settled() {
        assert!(Instant::now() < deadline, "the wire does not come up: {}", ip("-br link"));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn range(start: u16, max: u16) -> MtuRange {
    MtuRange { start, max }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn the_queue_before_tun_has_our_length_whatever_this_kernel_begins_with() {
    run(|| async {
        let world = World::new().await;
        let mut journal = Journal::begin(&world.runtime).expect("writable");
        let tun = Tun::create("ovt0", false).expect("a TUN");
        ip("link set ovt0 txqueuelen 7");
        let config = config(&["10.77.0.1/24"], &[], "");
        let _host = Host::bring_up(&world.netlink, &mut journal, &tun, &config, MtuRange::fixed(1400))
            .await
            .expect("it comes up");
        let link = ip("link show dev ovt0");
        assert!(link.contains("qlen 500"), "{link}");
    });
}

#[test]
fn what_was_brought_up_is_there_and_all_of_it_is_gone_afterwards() {
    run(|| async {
        let before = everything();
        let world = World::new().await;
        let config = config(
            &["10.77.0.1/24", "fd77::1/64"],
            &[&["10.77.0.2/32", "fd77::2/128"], &["10.78.0.0/16", "fd78::/48"]],
            "",
        );
        let (host, journal, tun) = world.up(&config, MtuRange::fixed(1400)).await;

        let link = ip("link show dev ovt0");
        assert!(link.contains("mtu 1400") && link.contains("UP"), "{link}");
        assert_eq!(
            lines(&ip("-br address show dev ovt0"))[0].split_whitespace().skip(2).collect::<Vec<_>>(),
            ["10.77.0.1/24", "fd77::1/64"],
            "these and no link-local one"
        );
        let routes = ip("-4 route show dev ovt0");
        assert!(routes.contains("10.77.0.0/24 proto kernel scope link src 10.77.0.1"), "{routes}");
        assert!(routes.contains("10.78.0.0/16"), "{routes}");
        assert!(!routes.contains("10.77.0.2"), "{routes}");
        let routes = ip("-6 route show dev ovt0");
        assert!(routes.contains("fd78::/48") && !routes.contains("fd77::2"), "{routes}");
        let table = nft("list table inet overlay_ovt0");
        assert!(table.contains("10.77.0.1") && table.contains("fd77::1") && table.contains("drop"), "{table}");
        assert_eq!(host.fwmark(), None);

        assert_eq!(host.take_down(&world.netlink, journal).await, Vec::<String>::new());
        drop(tun);
        assert_eq!(everything(), before);
        assert!(!world.runtime.state().exists());
    });
}

#[test]
fn a_default_route_goes_into_the_tunnel_but_for_what_is_marked_or_known_better() {
    run(|| async {
        other_device("192.0.2.1/24");
        ip("route add default via 192.0.2.254");
        ip("route add 198.51.100.0/24 via 192.0.2.254");
        ip("route add blackhole 203.0.113.0/24 table 51820");
        let before = everything();
        let world = World::new().await;
        let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["0.0.0.0/0", "::/0"]], "");
        let (host, journal, tun) = world.up(&config, MtuRange::fixed(1420)).await;

        assert_eq!(host.fwmark(), Some(51821), "the table of wg-quick's first choice is taken");
        let way = |to: &str| ip(&format!("route get {to}"));
        assert!(way("8.8.8.8").contains("dev ovt0 table 51821"), "{}", way("8.8.8.8"));
        assert!(way("8.8.8.8 mark 51821").contains("via 192.0.2.254 dev eth7"));
        assert!(way("198.51.100.9").contains("via 192.0.2.254 dev eth7"));
        assert!(ip("-6 route get 2001:db8::9").contains("dev ovt0 table 51821"));
        assert_eq!(
            lines(&ip("-4 rule"))[1..3],
            ["32764:\tfrom all lookup main suppress_prefixlength 0", "32765:\tnot from all fwmark 0xca6d lookup 51821"]
        );
        assert_eq!(
            mtu_range(&world.netlink, &config, &["8.8.8.8:1".parse().unwrap()]).await,
            range(1340, 1360),
            "through ourselves"
        );
        assert_eq!(host.mtu_range(&world.netlink, &config, &["8.8.8.8:1".parse().unwrap()]).await, range(1420, 1440));

        assert_eq!(host.take_down(&world.netlink, journal).await, Vec::<String>::new());
        drop(tun);
        assert_eq!(everything(), before);
    });
}

#[test]
fn after_a_kill_the_next_start_takes_everything_away_and_nothing_else() {
    run(|| async {
        // Rules of another program that look like ours.
        ip("rule add not fwmark 51820 table 51820");
        ip("rule add table main suppress_prefixlength 0");
        let before = everything();
        let folder = tempfile::tempdir().expect("a folder");
        // The one place where a socket of ours may be, shared with the rest of the machine.
        let uapi = crate::serving::uapi_socket("ovt0");
        fs::create_dir_all(crate::serving::UAPI_FOLDER).expect("we are root");
        let _ = fs::remove_file(&uapi);
        {
            let runtime = Runtime::acquire(folder.path(), "ovt0").expect("free");
            let netlink = Netlink::connect().await.expect("netlink");
            let config = config(&["10.77.0.1/24"], &[&["0.0.0.0/0", "::/0"]], "");
            let mut journal = Journal::begin(&runtime).expect("writable");
            journal.record_socket(&uapi).expect("writable");
            // A listener that was killed leaves its file behind.
            drop(std::os::unix::net::UnixListener::bind(&uapi).expect("a socket"));
            let tun = Tun::create("ovt0", false).expect("a TUN");
            let host = Host::bring_up(&netlink, &mut journal, &tun, &config, MtuRange::fixed(1420))
                .await
                .expect("it comes up");
            assert_eq!(ip("-4 rule").lines().count(), 3 + 2 + 2);
            // A killed process runs no destructors. Only the kernel cleans up.
            std::mem::forget((host, journal));
        }
        assert_ne!(everything(), before);
        let cleaned = super::super::clean_leftovers(folder.path(), "ovt0").await.expect("it can be cleaned");
        assert_eq!(
            cleaned.removed,
            [
                format!("socket {}", uapi.display()),
                "IPv4 rule 32762 to table 254 but for its default route".to_owned(),
                "IPv4 rule 32763 to table 51820".to_owned(),
                "IPv6 rule 32764 to table 254 but for its default route".to_owned(),
                "IPv6 rule 32765 to table 51820".to_owned(),
                "nft table inet overlay_ovt0".to_owned(),
            ]
        );
        assert_eq!(everything(), before);
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0, "not a file is left");
        let again = super::super::clean_leftovers(folder.path(), "ovt0").await.expect("nothing to do");
        assert!(again.is_empty());
    });
}

#[test]
fn a_journal_of_another_namespace_is_left_alone() {
    run(|| async {
        ip("rule add priority 32764 table main suppress_prefixlength 0");
        let world = World::new().await;
        let record = r#"{"schema":"overlay.state.v1","namespace":1,"interface":"ovt0","index":1,"nft_table":true,"sockets":[],
            "rules":[{"ipv6":false,"priority":32764,"fwmark":null,"invert":false,"table":254,"suppress_prefix_length":0}]}"#;
        fs::write(world.runtime.state(), record).expect("writable");
        let cleaned = world.runtime.clean_leftovers().await.expect("nothing is touched");
        assert_eq!((cleaned.removed.len(), cleaned.warnings.len()), (0, 1));
        assert!(ip("-4 rule").contains("32764:"));
        assert!(world.runtime.state().exists());
    });
}

#[test]
fn a_reload_changes_what_changed_and_keeps_the_rest() {
    run(|| async {
        let before = everything();
        let world = World::new().await;
        let first = config(&["10.77.0.1/24", "10.77.0.9/24"], &[&["10.78.0.0/16", "10.79.0.0/16"]], "");
        let (mut host, mut journal, tun) = world.up(&first, MtuRange::fixed(1420)).await;

        // The primary address goes, which makes the kernel drop its secondary. A route goes, and default routes come.
        let second = config(&["10.77.0.9/24", "fd77::1/64"], &[&["10.79.0.0/16", "0.0.0.0/0"]], "");
        host.apply(&world.netlink, &mut journal, &second, MtuRange::fixed(1300)).await.expect("it applies");
        let addresses = ip("-br address show dev ovt0");
        assert!(addresses.contains("10.77.0.9/24") && addresses.contains("fd77::1/64"), "{addresses}");
        assert!(!addresses.contains("10.77.0.1/24"), "{addresses}");
        let routes = ip("-4 route show dev ovt0");
        assert!(routes.contains("10.79.0.0/16") && !routes.contains("10.78.0.0/16"), "{routes}");
        assert!(ip("link show dev ovt0").contains("mtu 1300"));
        assert_eq!(host.fwmark(), Some(51820));
        assert!(ip("-4 rule").contains("lookup 51820"));
        assert!(nft("list ruleset").contains("10.77.0.9") && !nft("list ruleset").contains("10.77.0.1"));

        // Every IPv4 address is replaced: the kernel removes all IPv4 routes along with them, and they come back.
        let third = config(&["10.80.0.1/24"], &[&["10.79.0.0/16"]], "");
        host.apply(&world.netlink, &mut journal, &third, MtuRange::fixed(1300)).await.expect("it applies");
        let routes = ip("-4 route show dev ovt0");
        assert!(routes.contains("10.79.0.0/16") && routes.contains("10.80.0.0/24"), "{routes}");
        assert!(!ip("-4 rule").contains("51820") && !ip("-4 rule").contains("suppress"));
        assert_eq!(host.fwmark(), None);

        assert_eq!(host.take_down(&world.netlink, journal).await, Vec::<String>::new());
        drop(tun);
        assert_eq!(everything(), before);
    });
}

#[test]
fn a_reload_that_collides_changes_nothing() {
    run(|| async {
        other_device("192.0.2.1/24");
        let world = World::new().await;
        let (mut host, mut journal, _tun) =
            world.up(&config(&["10.77.0.1/24"], &[&["10.78.0.0/16"]], ""), MtuRange::fixed(1420)).await;
        let standing = everything();
        let bad = config(&["10.77.0.1/24"], &[&["192.0.2.0/24"]], "");
        let refused =
            host.apply(&world.netlink, &mut journal, &bad, MtuRange::fixed(1420)).await.expect_err("eth7 has it");
        assert_eq!(refused.code, ExitKind::Conflict);
        golden("a prefix of eth7", refused.lines());
        assert_eq!(everything(), standing);
    });
}

#[test]
fn what_is_taken_is_refused_by_name_before_anything_is_touched() {
    run(|| async {
        other_device("192.0.2.1/24");
        let netlink = Netlink::connect().await.expect("netlink");
        ip("route add default via 192.0.2.254 table 99");
        let before = everything();
        let marked = preflight(&netlink, &config(&["10.77.0.1/24"], &[&["0.0.0.0/0"]], "fwmark = 99")).await;
        let refused = marked.expect_err("table 99 has a default route");
        golden("a default route in table 99", refused.lines());

        let rows = [("192.0.2.1/32", "10.1.0.0/16"), ("192.0.2.9/24", "10.1.0.0/16"), ("10.77.0.1/24", "192.0.2.0/24")];
        for (address, allowed) in rows {
            let refused = preflight(&netlink, &config(&[address], &[&[allowed]], "")).await.expect_err("taken");
            assert_eq!(refused.code, ExitKind::Conflict);
            golden(format!("address {address}, allowed {allowed}"), refused.lines());
        }
        assert_eq!(everything(), before);

        ip("tuntap add ovt0 mode tun");
        let refused = preflight(&netlink, &config(&["10.77.0.1/24"], &[], "")).await.expect_err("it is persistent");
        assert_eq!(refused.code, ExitKind::Conflict);
        golden("an interface of this name", refused.lines());
    });
}

#[test]
fn a_start_that_fails_half_way_leaves_nothing() {
    run(|| async {
        // Both skip preflight here on purpose. The first is noticed among the routes, the second only after the routes
        // and the nft table.
        other_device("192.0.2.1/24");
        ip("route add 10.79.0.0/16 dev eth7");
        ip("-6 rule add priority 1 table 99");
        let rows = [
            ("10.79.0.0/16", "cannot add the route to 10.79.0.0/16 on `ovt0`"),
            ("::/0", "cannot add policy rules for the default route"),
        ];
        let before = everything();
        for (allowed, error) in rows {
            let world = World::new().await;
            let config = config(&["10.77.0.1/24"], &[&["0.0.0.0/0", allowed]], "");
            let mut journal = Journal::begin(&world.runtime).expect("writable");
            let tun = Tun::create("ovt0", false).expect("a TUN");
            let refused = Host::bring_up(&world.netlink, &mut journal, &tun, &config, MtuRange::fixed(1420))
                .await
                .expect_err("taken");
            assert_eq!((refused.code, refused.error.as_str()), (ExitKind::Conflict, error));
            drop(tun);
            assert_eq!(everything(), before);
        }
    });
}

#[test]
fn on_a_host_with_ipv6_switched_off_ipv4_comes_up_alone() {
    run(|| async {
        for scope in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").expect("root");
        }
        let world = World::new().await;
        let config =
            config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.78.0.0/16", "fd78::/48", "0.0.0.0/0", "::/0"]], "");
        let (host, journal, _tun) = world.up(&config, MtuRange::fixed(1420)).await;
        assert!(ip("-4 route show dev ovt0").contains("10.78.0.0/16"));
        assert!(!ip("-br address show dev ovt0").contains(':'));
        assert_eq!(host.take_down(&world.netlink, journal).await, Vec::<String>::new());
    });
}

#[test]
fn a_small_mtu_is_set_on_routes_while_the_interface_keeps_1280() {
    run(|| async {
        let world = World::new().await;
        let config = config(&["10.77.0.1/24", "fd77::1/64"], &[&["10.77.0.0/24", "10.78.0.2/32"]], "");
        let (_host, _journal, _tun) = world.up(&config, MtuRange::fixed(1000)).await;
        assert!(ip("link show dev ovt0").contains("mtu 1280"));
        let routes = ip("-4 route show dev ovt0");
        let small: Vec<_> = routes.lines().filter(|line| line.contains("mtu 1000")).collect();
        assert_eq!((small.len(), routes.lines().count()), (2, 2), "{routes}");
        assert!(ip("-br address show dev ovt0").contains("fd77::1/64"));
    });
}

#[test]
fn the_automatic_mtu_is_wg_quicks() {
    run(|| async {
        let netlink = Netlink::connect().await.expect("netlink");
        let plain = config(&["10.77.0.1/24"], &[], "");
        assert_eq!(mtu_range(&netlink, &plain, &[]).await, range(1420, 1440), "no route at all");
        other_device("192.0.2.1/24");
        ip("link set eth7 mtu 1460");
        let near = "192.0.2.9:51820".parse().unwrap();
        assert_eq!(mtu_range(&netlink, &plain, &[]).await, range(1420, 1440), "no default route");
        assert_eq!(mtu_range(&netlink, &plain, &[near]).await, range(1380, 1400), "the device of the route");
        ip("route add default via 192.0.2.254");
        assert_eq!(mtu_range(&netlink, &plain, &[]).await, range(1380, 1400), "the device of the default route");
        ip("route add 198.51.100.0/24 via 192.0.2.254 mtu lock 1400");
        let routed = "198.51.100.7:51820".parse().unwrap();
        assert_eq!(mtu_range(&netlink, &plain, &[routed]).await, range(1320, 1340), "the route's own");
        assert_eq!(mtu_range(&netlink, &plain, &[routed, near]).await, range(1380, 1400), "the largest");
        ip("route change default via 192.0.2.254 mtu 1300");
        assert_eq!(mtu_range(&netlink, &plain, &[]).await, range(1220, 1240), "the default route's own");
        let over_ipv6 = "[2001:db8::7]:51820".parse().unwrap();
        ip("-6 route add 2001:db8::/64 dev eth7 mtu 1450");
        assert_eq!(mtu_range(&netlink, &plain, &[over_ipv6]).await, range(1370, 1370), "no room above it over IPv6");
        assert_eq!(mtu_range(&netlink, &plain, &[routed, over_ipv6]).await, range(1370, 1370), "the most of all");
        let unrouted = config(&["10.77.0.1/24"], &[], "table = \"off\"");
        assert_eq!(mtu_range(&netlink, &unrouted, &[near]).await, range(1380, 1380), "no route holds packets to less");
        let fixed = config(&["10.77.0.1/24"], &[], "mtu = 1300");
        assert_eq!(mtu_range(&netlink, &fixed, &[near]).await, range(1300, 1300), "as the config says");
        let with_ipv6 = config(&["fd77::1/64"], &[], "");
        assert_eq!(mtu_range(&netlink, &with_ipv6, &[]).await, range(1280, 1280), "IPv6 needs this much");
    });
}

#[test]
fn ten_thousand_routes_come_up_and_reload_within_seconds() {
    run(|| async {
        let world = World::new().await;
        let prefixes: Vec<String> = (0..10_000).map(|i| format!("10.{}.{}.0/24", 100 + i / 256, i % 256)).collect();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let config = config(&["10.77.0.1/24"], &[&prefixes], "");
        let start = std::time::Instant::now();
        let (mut host, mut journal, _tun) = world.up(&config, MtuRange::fixed(1420)).await;
        let up = start.elapsed();
        host.apply(&world.netlink, &mut journal, &config, MtuRange::fixed(1420)).await.expect("it applies");
        eprintln!("up {up:?}, up and reload {:?}", start.elapsed());
        assert_eq!(ip("-4 route show dev ovt0").lines().count(), 10_001);
    });
}
