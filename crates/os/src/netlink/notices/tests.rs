//! Which changes by `ip` and `nft` are noticed and which are not, in a separate network namespace.

use std::process::Command;
use std::time::Duration;

use super::*;
use crate::netns::isolated_async;

/// Enough time to receive a notice that the kernel has already sent.
const SHORTLY: Duration = Duration::from_millis(50);

fn run(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Brings these links up, waits for their carriers, and avoids automatic addresses that would appear a second later.
fn up(links: &[&str]) {
    for link in links {
        run(&format!("ip link set {link} addrgenmode none; ip link set {link} up"));
    }
    for link in links {
        run(&format!(
            "for i in $(seq 500); do ip link show {link} | grep -q 'state UP' && exit; sleep 0.02; done; exit 1"
        ));
    }
}

const NOTHING: Noticed = Noticed { ours: false, surroundings: false, nft: false };
const OURS: Noticed = Noticed { ours: true, ..NOTHING };
const SURROUNDINGS: Noticed = Noticed { surroundings: true, ..NOTHING };
const NFT: Noticed = Noticed { nft: true, ..NOTHING };

/// Gathers notices until no more arrive.
async fn gathered(notices: &mut Notices, interest: &Interest) -> Noticed {
    let mut all = NOTHING;
    while let Ok(noticed) = tokio::time::timeout(SHORTLY, notices.noticed(interest)).await {
        all |= noticed.unwrap();
    }
    all
}

#[test]
fn what_others_change_is_noticed_by_what_it_is_about() {
    isolated_async(async |netlink| {
        run("ip link add near type veth peer name far; ip link add other type veth peer name another");
        up(&["near", "far", "other", "another"]);
        let index = netlink.link("near").await.unwrap().unwrap().index;
        let plain = Interest { index, nft_table: "overlay_near".to_owned(), marked_table: None };
        let marked = Interest { marked_table: Some(51820), ..plain.clone() };
        let mut notices = Notices::listen(&netlink).unwrap();
        gathered(&mut notices, &plain).await;

        let rows: &[(&str, &Interest, Noticed)] = &[
            ("ip link set near mtu 1400", &plain, OURS),
            ("ip address add 10.77.0.1/24 dev near", &plain, OURS),
            ("ip route add 10.78.0.0/16 dev near", &plain, OURS),
            ("ip route delete 10.78.0.0/16 dev near", &plain, OURS),
            ("ip -6 route add fd78::/48 dev near", &plain, OURS),
            ("ip link set other mtu 1400", &plain, SURROUNDINGS),
            ("ip route add 10.80.0.0/16 dev other", &plain, SURROUNDINGS),
            ("ip route add 10.81.0.0/16 dev other table 51820", &plain, SURROUNDINGS),
            ("ip route add 10.82.0.0/16 dev other table 51820", &marked, OURS),
            ("ip rule add priority 7 table 9", &plain, NOTHING),
            ("ip rule delete priority 7", &marked, OURS),
            ("ip -6 rule add priority 7 table 9", &marked, OURS),
            ("nft add table inet overlay_near", &plain, NFT),
            ("nft add chain inet overlay_near c", &plain, NFT),
            ("nft add table ip overlay_near", &plain, NOTHING),
            ("nft add table inet overlay_near2", &plain, NOTHING),
            ("nft flush ruleset", &plain, NFT),
        ];
        for (line, interest, expected) in rows {
            if line.starts_with("nft") && !crate::nft::is_available() {
                eprintln!("skipped: nft is not installed");
                continue;
            }
            run(line);
            assert_eq!(gathered(&mut notices, interest).await, *expected, "{line}");
        }
    });
}

#[test]
fn what_our_own_connection_changes_goes_unnoticed() {
    isolated_async(async |netlink| {
        run("ip link add near type veth peer name far");
        up(&["near", "far"]);
        let index = netlink.link("near").await.unwrap().unwrap().index;
        let interest = Interest { index, nft_table: String::new(), marked_table: Some(51820) };
        let mut notices = Notices::listen(&netlink).unwrap();
        gathered(&mut notices, &interest).await;

        let route = crate::netlink::Route::to_interface("10.78.0.0/16".parse().unwrap(), index);
        let rule = crate::netlink::Rule::unless_marked(crate::netlink::Family::V4, 7, 51820);
        // With a shorter prefix, the kernel would add a connected route, which is itself a reason to look.
        netlink.add_address(index, "10.77.0.1".parse().unwrap(), 32).await.unwrap();
        netlink.add_route(&route).await.unwrap();
        netlink.replace_route(&crate::netlink::Route { mtu: Some(1300), ..route.clone() }).await.unwrap();
        netlink.delete_route(&route).await.unwrap();
        netlink.add_rule(&rule).await.unwrap();
        netlink.delete_rule(&rule).await.unwrap();
        netlink.delete_address(index, "10.77.0.1".parse().unwrap(), 32).await.unwrap();
        assert_eq!(gathered(&mut notices, &interest).await, NOTHING);
        run("ip address add 10.77.0.1/24 dev near");
        assert_eq!(gathered(&mut notices, &interest).await, OURS, "and yet it listens");
    });
}

#[test]
fn more_notices_than_fit_count_as_notices_about_everything() {
    isolated_async(async |netlink| {
        let interest = Interest { index: 77, nft_table: String::new(), marked_table: None };
        let mut notices = Notices::listen(&netlink).unwrap();
        set_option(notices.routes.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
        run("for i in $(seq 200); do echo route add 10.$i.0.0/16 dev lo; done | ip -batch -");
        assert_eq!(gathered(&mut notices, &interest).await, Noticed::ALL);
    });
}
