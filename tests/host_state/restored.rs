//! What another program removes is restored, at a limited pace. What another program puts in its place stays. Changes
//! by the daemon itself are not blamed on others.

use std::fs;
use std::time::{Duration, Instant};

use crate::lab::{A, B, Host, Outside, Overlay, POLL, Pair, SHORTLY, within, words};

/// After this time nothing is due any more: it is longer than the interval between two looks.
const QUIET: Duration = Duration::from_millis(1_300);

/// The most time until something is restored. It should take a second, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// By when a fight is noticed: ten rounds, at most one a second. A busy machine gets three times as long.
const FIGHT_NOTICED: Duration = Duration::from_secs(40);
/// By when what was fought for is back for good: the longest pause in a fight is 64 s.
const FIGHT_OVER: Duration = Duration::from_secs(70);

fn restored(overlay: &Overlay) -> Vec<(String, u64)> {
    let status = overlay.status();
    let restored = status["host"]["restored"].as_object().expect("counts by kind");
    let counts = restored.iter().map(|(what, count)| (what.clone(), count.as_u64().expect("a number")));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Two hosts, both up. `a` sends the traffic for two networks behind `b` to `b`.
fn world(name: &str) -> Option<(Overlay, Overlay, Pair)> {
    let pair = Pair::new(name)?;
    let on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    let on_a = pair.a.overlay_up(&beyond(&pair));
    pair.a.reaches(B.v4);
    Some((on_a, on_b, pair))
}

/// A config for `a` with a network of each family that only the tunnel leads to.
fn beyond(pair: &Pair) -> String {
    let config =
        pair.config_of_a(Outside::V4).replace("fd77::2/128\"]", "fd77::2/128\", \"10.78.0.0/16\", \"fd78::/48\"]");
    assert!(config.contains("fd78::/48"));
    config
}

/// The state of the interface, without values that change by themselves.
fn standing(a: &Host) -> String {
    let name = a.interface();
    let rules = a.ip("-4 rule show") + &a.ip("-6 rule show");
    let mut lines: Vec<String> = [
        format!("-o address show dev {name}"),
        format!("-4 route show dev {name}"),
        format!("-6 route show dev {name}"),
    ]
    .iter()
    .flat_map(|line| a.ip(line).lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
    .collect();
    lines.sort_unstable();
    let link = a.ip(&format!("-o link show dev {name}"));
    let link = link.split("state").next().unwrap_or_default().to_owned();
    lines.join("\n") + &link + &rules + &a.exec("nft -s list ruleset")
}

#[test]
fn everything_that_up_adds_is_put_back() {
    let Some((overlay, _on_b, pair)) = world("put back") else { return };
    let a = &pair.a;
    let name = a.interface();
    within(SHORTLY, "the path to be found", || (overlay.peer(&pair.b)["path_mtu"]["state"] == "found").then_some(()));
    std::thread::sleep(QUIET);
    let before = standing(a);
    for loss in [
        format!("ip link set {name} mtu 1000"),
        format!("ip link set {name} mtu 9000"),
        format!("ip link set {name} down"),
        format!("ip address delete 10.77.0.1/24 dev {name}"),
        format!("ip -6 address flush dev {name}"),
        format!("ip route flush dev {name}"),
        format!("ip -6 route flush dev {name}"),
        format!("ip route delete 10.78.0.0/16 dev {name}"),
        format!("ip route change 10.78.0.0/16 dev {name} proto static mtu 900"),
        "nft flush ruleset".to_owned(),
        format!("nft flush chain inet overlay_{name} weak_host"),
        format!("nft insert rule inet overlay_{name} weak_host accept"),
        format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1 && sysctl -qw net.ipv6.conf.{name}.disable_ipv6=0"),
    ] {
        let counted: u64 = restored(&overlay).iter().map(|(_, count)| count).sum();
        let lost = Instant::now();
        a.shell(&loss);
        let is_back = || {
            let now: u64 = restored(&overlay).iter().map(|(_, count)| count).sum();
            now > counted && standing(a) == before
        };
        while !is_back() && lost.elapsed() < PATIENCE {
            std::thread::sleep(POLL);
        }
        assert_eq!(standing(a), before, "after `{loss}`: {}", overlay.log());
        assert!(is_back(), "`{loss}` was not counted: {:?}", restored(&overlay));
        eprintln!("{loss}: put back after {:.2} s", lost.elapsed().as_secs_f64());
        // Waits before the next loss. Losses in quick succession count as a fight, which a different test covers.
        within(SHORTLY, "the tunnel to carry again", || {
            a.run(format!("ping -n -c 1 -W 1 {}", B.v4)).code.eq(&0).then_some(())
        });
        std::thread::sleep(3 * QUIET);
    }
    a.reaches(B.v4);
    a.reaches(B.v6);
    assert!(overlay.log().contains(words::PUT_BACK), "{}", overlay.log());
    assert!(a.overlay("status").succeeded("overlay status").contains(words::PUT_BACK_SHOWN), "for people, too");
}

#[test]
fn what_the_daemon_does_itself_is_not_counted() {
    let Some((overlay, _on_b, pair)) = world("own doing") else { return };
    let a = &pair.a;
    within(SHORTLY, "the path to be found", || (overlay.peer(&pair.b)["path_mtu"]["state"] == "found").then_some(()));
    let first = beyond(&pair);
    let second = first.replace("10.77.0.1/24", "10.77.0.9/24").replace("10.78.0.0/16", "10.79.0.0/16");
    for config in [&second, &first, &first] {
        fs::write(overlay.config(), config).expect("our own file");
        a.overlay("reload").succeeded("overlay reload");
        std::thread::sleep(QUIET);
    }
    a.exec(format!("wg set {} peer {} allowed-ips 10.77.0.2/32", a.interface(), pair.b.public_key()));
    a.exec(format!("wg set {} listen-port 51900", a.interface()));
    // Other programs may do anything with their own things.
    a.shell("ip link add dummy-x type veth peer name dummy-y && ip link set dummy-x up && ip link delete dummy-x");
    a.shell("nft add table inet theirs && nft flush table inet theirs && nft delete table inet theirs");
    a.shell("ip route add 10.200.0.0/16 via 10.1.0.2 && ip route delete 10.200.0.0/16");
    a.shell("ip rule add prio 100 from 10.200.0.1 table 7 && ip rule delete prio 100");
    std::thread::sleep(QUIET);
    assert_eq!(restored(&overlay), [], "{}", overlay.log());
    assert!(!overlay.log().contains(words::PUT_BACK), "{}", overlay.log());
    assert_eq!(overlay.status()["host"]["state"], "intact");
}

#[test]
fn a_route_put_in_the_place_of_ours_is_left_alone() {
    let Some((overlay, _on_b, pair)) = world("replaced") else { return };
    let a = &pair.a;
    let wire = a.link_to(&pair.b);
    for (family, prefix, gateway) in [("-4", "10.78.0.0/16", "10.1.0.2"), ("-6", "fd78::/48", "fd01::2")] {
        // Both use the metric of our route.
        let metric = if family == "-6" { "metric 1024" } else { "" };
        a.ip(&format!("{family} route delete {prefix} dev {}", a.interface()));
        // It is refused if our route is back already. Then it is tried again below.
        a.run(format!("ip {family} route add {prefix} via {gateway} dev {wire} {metric}"));
    }
    let is_told = || {
        let warnings = overlay.status()["host"]["warnings"].to_string();
        (warnings.contains("10.78.0.0/16") && warnings.contains("fd78::/48")).then_some(())
    };
    // Our route may have come back between the two steps. The other program is then refused, and tries again.
    within(SHORTLY, "the routes to be theirs, and told", || {
        for (family, prefix, gateway) in [("-4", "10.78.0.0/16", "10.1.0.2"), ("-6", "fd78::/48", "fd01::2")] {
            a.ip(&format!("{family} route replace {prefix} via {gateway} dev {wire}"));
        }
        std::thread::sleep(QUIET);
        a.ip(&format!("link set {} mtu 1300", a.interface()));
        is_told()
    });
    let shown = a.ip("route show 10.78.0.0/16");
    assert!(shown.contains(&wire), "{shown}");
    a.reaches(B.v4);
}

#[test]
fn a_fight_slows_down_and_is_told_once() {
    let Some((overlay, _on_b, pair)) = world("a fight") else { return };
    let a = &pair.a;
    let name = a.interface();
    // For half a minute, another program removes the address as soon as it exists.
    let fighter = a.spawn([
        "sh",
        "-c",
        &format!("while :; do ip address delete {}/24 dev {name} 2>/dev/null; sleep 0.05; done", A.v4),
    ]);
    within(FIGHT_NOTICED, "the fight to be noticed", || {
        (overlay.status()["host"]["state"] == "contested").then_some(())
    });
    let counted = || restored(&overlay).iter().find(|(what, _)| what == "address").map_or(0, |(_, count)| *count);
    let before = counted();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(10));
    let more = counted() - before;
    assert!(more <= 4, "{more} times in {:?}", began.elapsed());
    let log = overlay.log();
    assert_eq!(log.matches(words::FIGHT).count(), 1, "{log}");
    assert!(log.matches(words::PUT_BACK).count() <= 12, "{log}");
    let said = a.overlay("status").succeeded("overlay status");
    assert!(said.contains("warning") && said.contains(words::FIGHT), "{said}");
    drop(fighter);
    within(FIGHT_OVER, "the address to be back for good", || {
        a.ip(&format!("-o address show dev {name}")).contains("10.77.0.1/24").then_some(())
    });
}

#[test]
fn a_reload_puts_back_what_is_missing() {
    let Some((overlay, _on_b, pair)) = world("reload puts back") else { return };
    let a = &pair.a;
    std::thread::sleep(QUIET);
    let before = standing(a);
    // The daemon cannot have looked yet.
    a.shell(&format!(
        "nft flush ruleset && ip route flush dev {} && ip address flush dev {}",
        a.interface(),
        a.interface()
    ));
    a.overlay("reload").succeeded("overlay reload");
    assert_eq!(standing(a), before);
    a.reaches(B.v4);
    drop(overlay);
}
