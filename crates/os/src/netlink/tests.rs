//! Tests against the kernel, in separate network namespaces, and against `ip`, which is an independent implementation.

use std::net::IpAddr;
use std::process::Command;

use ipnet::IpNet;

use super::*;
use crate::netns::{drop_capabilities, isolated_async};

/// The lines that `ip` prints, with white space trimmed.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// Creates a veth pair, with both ends up and without link-local addresses. Returns the index of the first end.
async fn wire(netlink: &Netlink) -> u32 {
    ip("link add near type veth peer name far");
    for name in ["near", "far"] {
        let index = netlink.link(name).await.unwrap().unwrap().index;
        netlink.set_addr_gen_mode_none(index).await.unwrap();
        netlink.set_up(index).await.unwrap();
    }
    netlink.link("near").await.unwrap().unwrap().index
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn links_are_listed_changed_and_deleted() {
    isolated_async(async |netlink| {
        ip("link add near type veth peer name far");
        let near = netlink.link("near").await.unwrap().unwrap();
        assert_eq!((near.kind.as_deref(), near.mtu, near.up), (Some("veth"), 1500, false));
        netlink.set_mtu(near.index, 1280).await.unwrap();
        netlink.set_up(near.index).await.unwrap();
        let near = netlink.link("near").await.unwrap().unwrap();
        assert_eq!((near.mtu, near.up), (1280, true));
        netlink.set_down(near.index).await.unwrap();
        assert!(!netlink.link("near").await.unwrap().unwrap().up);
        netlink.set_up(near.index).await.unwrap();
        let near = netlink.link("near").await.unwrap().unwrap();
        assert!((near.is_ethernet, near.controller) == (true, None));
        ip("link add bridge type bridge");
        ip("link set near master bridge");
        let bridge = netlink.link("bridge").await.unwrap().unwrap();
        assert_eq!(netlink.link("near").await.unwrap().unwrap().controller, Some(bridge.index));
        ip("link delete bridge");

        let links = netlink.links().await.unwrap();
        let mut names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
        names.sort();
        assert_eq!(names, ["far", "lo", "near"]);
        assert!(links.contains(&near));
        assert_eq!(netlink.link_at(near.index).await.unwrap().as_ref(), Some(&near));
        assert_eq!(netlink.link_at(1).await.unwrap().map(|link| link.name), Some("lo".to_owned()));

        netlink.delete_link(near.index).await.unwrap();
        assert_eq!(netlink.link("near").await.unwrap(), None);
        assert_eq!(netlink.link_at(near.index).await.unwrap(), None);
        assert!(matches!(netlink.delete_link(near.index).await, Err(NetlinkError::NotFound)));
        assert_eq!(netlink.link("a name too long to be one").await.unwrap(), None);
    });
}

#[test]
fn a_link_without_address_generation_has_no_link_local_address() {
    isolated_async(async |netlink| {
        wire(&netlink).await;
        assert_eq!(ip("-6 addr show dev near"), "");
    });
}

#[test]
fn addresses_are_added_listed_and_deleted() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        for (ip, prefix) in [(addr("10.77.0.1"), 24), (addr("fd00:77::1"), 64)] {
            netlink.add_address(near, ip, prefix).await.unwrap();
            let ours = Address { index: near, ip, prefix, is_preferred: true };
            assert!(netlink.addresses().await.unwrap().contains(&ours));
            assert!(matches!(netlink.add_address(near, ip, prefix).await, Err(NetlinkError::Exists)));
        }
        assert_eq!(
            ip("-o -4 addr show dev near").trim_end().split(' ').skip(1).collect::<Vec<_>>()[..6],
            ["near", "inet", "10.77.0.1/24", "scope", "global", "near\\"]
        );
        // The address is usable at once: it is not tentative.
        let v6 = ip("-o -6 addr show dev near");
        assert!(v6.contains("fd00:77::1/64 scope global nodad") && !v6.contains("tentative"), "{v6}");

        for (ip, prefix) in [(addr("10.77.0.1"), 24), (addr("fd00:77::1"), 64)] {
            netlink.delete_address(near, ip, prefix).await.unwrap();
            assert!(matches!(netlink.delete_address(near, ip, prefix).await, Err(NetlinkError::NotFound)));
        }
        assert_eq!(ip("addr show dev near to 0.0.0.0/0"), "");
    });
}

#[test]
fn an_ipv6_address_where_ipv6_is_switched_off_is_unsupported() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        std::fs::write("/proc/sys/net/ipv6/conf/near/disable_ipv6", "1").unwrap();
        let result = netlink.add_address(near, addr("fd00:77::1"), 64).await;
        assert!(matches!(result, Err(NetlinkError::Unsupported)), "{result:?}");
    });
}

#[test]
fn routes_are_added_listed_replaced_and_deleted() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        for (text, default_metric) in [("10.88.0.0/16", None), ("fd00:88::/32", Some(1024))] {
            let route = Route { mtu: Some(1300), ..Route::to_interface(net(text), near) };
            netlink.add_route(&route).await.unwrap();
            let listed = Route { metric: default_metric, ..route.clone() };
            assert!(netlink.routes().await.unwrap().contains(&listed), "{text}");
            assert!(matches!(netlink.add_route(&route).await, Err(NetlinkError::Exists)));

            netlink.replace_route(&Route { mtu: Some(1290), ..route.clone() }).await.unwrap();
            let routes = netlink.routes().await.unwrap();
            assert!(routes.contains(&Route { mtu: Some(1290), ..listed.clone() }));
            assert!(!routes.contains(&listed));

            netlink.delete_route(&route).await.unwrap();
            assert!(netlink.routes().await.unwrap().iter().all(|other| other.destination != route.destination));
            assert!(matches!(netlink.delete_route(&route).await, Err(NetlinkError::NotFound)));
        }
    });
}

#[test]
fn a_route_looks_to_ip_as_it_was_meant() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        netlink.add_address(near, addr("10.77.0.1"), 24).await.unwrap();
        let on_link = Route { mtu: Some(1300), ..Route::to_interface(net("10.88.0.5/16"), near) };
        netlink.add_route(&on_link).await.unwrap();
        let gateway = Some(addr("10.77.0.254"));
        let by_router = Route { gateway, metric: Some(50), ..Route::to_interface(net("0.0.0.0/0"), near) };
        netlink.add_route(&by_router).await.unwrap();
        let other_table = Route { table: 51820, ..Route::to_interface(net("::/0"), near) };
        netlink.add_route(&other_table).await.unwrap();

        assert_eq!(
            ip("-4 route show"),
            "default via 10.77.0.254 dev near proto static metric 50\n\
             10.77.0.0/24 dev near proto kernel scope link src 10.77.0.1\n\
             10.88.0.0/16 dev near proto static scope link mtu 1300\n"
        );
        assert_eq!(ip("-6 route show table 51820"), "default dev near proto static metric 1024 pref medium\n");
        assert!(netlink.routes().await.unwrap().contains(&Route { metric: Some(1024), ..other_table }));
        // Routes of the kernel's own table are not listed.
        assert!(netlink.routes().await.unwrap().iter().all(|route| route.table != 255));
    });
}

#[test]
fn each_next_hop_of_a_route_is_listed_and_a_refusing_route_has_none() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        let far = netlink.link("far").await.unwrap().unwrap().index;
        netlink.add_address(near, addr("10.77.0.1"), 24).await.unwrap();
        ip("route add 10.99.0.0/16 nexthop via 10.77.0.2 dev near nexthop dev far");
        ip("route add blackhole 10.98.0.0/16");
        let routes = netlink.routes().await.unwrap();
        let to = |text| routes.iter().filter(move |route| route.destination == net(text)).collect::<Vec<_>>();
        let hops: Vec<_> = to("10.99.0.0/16").iter().map(|route| (route.interface, route.gateway)).collect();
        assert_eq!(hops, [(Some(near), Some(addr("10.77.0.2"))), (Some(far), None)]);
        assert_eq!(to("10.98.0.0/16")[0].interface, None);
    });
}

#[test]
fn the_kernel_says_which_way_a_packet_would_go() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        netlink.add_address(near, addr("10.77.0.1"), 24).await.unwrap();
        netlink.add_address(near, addr("fd00:77::1"), 64).await.unwrap();
        netlink.add_route(&Route { mtu: Some(1300), ..Route::to_interface(net("10.88.0.0/16"), near) }).await.unwrap();
        let to = async |text, mark| netlink.route_to(addr(text), mark).await.unwrap();

        let expected = RouteTo {
            interface: near,
            gateway: None,
            mtu: Some(1300),
            told_mtu: None,
            source: Some(addr("10.77.0.1")),
            table: 254,
        };
        assert_eq!(to("10.88.1.2", None).await, Some(expected));
        assert_eq!(to("10.77.0.9", None).await, Some(RouteTo { mtu: None, ..expected }));
        let v6 = to("fd00:77::9", None).await.unwrap();
        assert_eq!((v6.interface, v6.source, v6.mtu), (near, Some(addr("fd00:77::1")), None));
        let loopback = netlink.link("lo").await.unwrap().unwrap().index;
        assert_eq!(to("127.0.0.1", None).await.unwrap().interface, loopback);
        for nowhere in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(to(nowhere, None).await, None);
        }
        for kind in ["blackhole", "unreachable", "prohibit"] {
            ip(&format!("route add {kind} 10.88.5.0/24"));
            assert_eq!(to("10.88.5.1", None).await, None, "{kind}");
            ip(&format!("-6 route add {kind} fd00:77:0:0:5::/80"));
            assert_eq!(to("fd00:77::5:0:0:1", None).await, None, "{kind}");
            ip("route del 10.88.5.0/24");
            ip("-6 route del fd00:77:0:0:5::/80");
        }
    });
}

#[test]
fn rules_keep_marked_packets_out_of_a_default_route() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        netlink.add_address(near, addr("10.77.0.1"), 24).await.unwrap();
        netlink.add_address(near, addr("fd00:77::1"), 64).await.unwrap();
        let before = netlink.rules().await.unwrap();
        for (family, default, anywhere) in [(Family::V4, "0.0.0.0/0", "192.0.2.1"), (Family::V6, "::/0", "2001:db8::1")]
        {
            let (mark, table) = (0xca6c, 51820);
            netlink.add_route(&Route { table, ..Route::to_interface(net(default), near) }).await.unwrap();
            let rules = [Rule::unless_marked(family, mark, table), Rule::without_default_route(family, MAIN_TABLE)];
            for rule in &rules {
                netlink.add_rule(rule).await.unwrap();
            }
            assert_eq!(netlink.route_to(addr(anywhere), None).await.unwrap().unwrap().table, table);
            assert_eq!(netlink.route_to(addr(anywhere), Some(mark)).await.unwrap(), None);

            let listed = ip(if family == Family::V4 { "-4 rule show" } else { "-6 rule show" });
            assert!(listed.contains("not from all fwmark 0xca6c lookup 51820"), "{listed}");
            assert!(listed.contains("from all lookup main suppress_prefixlength 0"), "{listed}");
            for rule in &rules {
                netlink.delete_rule(rule).await.unwrap();
                assert!(matches!(netlink.delete_rule(rule).await, Err(NetlinkError::NotFound)));
            }
        }
        assert_eq!(netlink.rules().await.unwrap(), before);
    });
}

#[test]
fn the_rules_that_every_namespace_has_are_listed_and_a_rule_of_somebody_else_is_not_deleted() {
    isolated_async(async |netlink| {
        let of_v4 = |priority, table| Rule {
            family: Family::V4,
            priority: Some(priority),
            fwmark: None,
            invert: false,
            table,
            suppress_prefix_length: None,
        };
        let rules = netlink.rules().await.unwrap();
        assert_eq!(rules[..3], [of_v4(0, 255), of_v4(32766, 254), of_v4(32767, 253)]);
        // The same rule without `not`, which the kernel's own search would take for ours.
        ip("rule add fwmark 0xca6c table 51820 priority 100");
        let ours = Rule::unless_marked(Family::V4, 0xca6c, 51820);
        assert!(matches!(netlink.delete_rule(&ours).await, Err(NetlinkError::NotFound)));
        ip("rule add from 10.0.0.0/8 table 51820 priority 101");
        let listed: Vec<_> = netlink.rules().await.unwrap().iter().filter_map(|rule| rule.priority).collect();
        assert!(listed.contains(&100) && !listed.contains(&101));
    });
}

#[test]
fn without_privilege_everything_is_shown_and_nothing_changed() {
    isolated_async(async |netlink| {
        let near = wire(&netlink).await;
        drop_capabilities();
        assert_eq!(netlink.links().await.unwrap().len(), 3);
        let route = Route::to_interface(net("10.88.0.0/16"), near);
        let rule = Rule::unless_marked(Family::V4, 1, 51820);
        for result in [
            netlink.set_mtu(near, 1400).await,
            netlink.add_address(near, addr("10.77.0.1"), 24).await,
            netlink.add_address(near, addr("fd00:77::1"), 64).await,
            netlink.add_route(&route).await,
            netlink.add_rule(&rule).await,
        ] {
            assert!(matches!(result, Err(NetlinkError::Permission)), "{result:?}");
        }
    });
}

#[test]
fn errno_has_the_meaning_that_a_caller_can_act_on() {
    let meaning = |errno| classify(io::Error::from_raw_os_error(errno));
    assert!(matches!(meaning(libc::EAFNOSUPPORT), NetlinkError::Unsupported));
    assert!(matches!(meaning(libc::ESRCH), NetlinkError::NotFound));
    assert!(matches!(meaning(libc::EIO), NetlinkError::Io(_)));
}
