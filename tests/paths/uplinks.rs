//! A host with two uplinks: the one that its default route takes, and a slower one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_sim::nat::Kind;
use serde_json::Value;

use super::failover::{DIRECT, WORST, answers, longest_gap};
use crate::lab::internet::End;
use crate::lab::{Agent, Apart, Delay, Delays, Way, within};

/// How much longer the other uplink takes.
const SLOWER: Duration = Duration::from_millis(25);

/// Waits until an agent sends directly to this address of its peer.
#[track_caller]
fn sends_to(agent: &Agent, peer: &str, address: &str) {
    within(DIRECT, &format!("a direct path to {address}"), || {
        let path: Value = serde_json::from_str(&agent.verb(format!("path {peer} --json")).stdout).ok()?;
        let primary = &path["primary"];
        (primary["kind"] == "direct" && primary["remote"] == address).then_some(())
    });
}

/// The router behind the first uplink stops forwarding. The link stays up, and so does the default route, so the relay is out of
/// reach, too.
#[test]
fn an_uplink_that_dies_behind_its_router_is_left_for_the_other_one() {
    let Some(apart) = Apart::new("two uplinks", [Kind::Moderate, Kind::Moderate]) else { return };
    is_left_for_the_other(apart, false);
}

/// A rule routes the other uplink's address there, so that the kernel agrees.
#[test]
fn an_uplink_that_dies_is_left_for_one_that_a_rule_leads_to() {
    let Some(apart) = Apart::new("two uplinks and a rule", [Kind::Moderate, Kind::Moderate]) else { return };
    is_left_for_the_other(apart, true);
}

#[track_caller]
fn is_left_for_the_other(mut apart: Apart, has_rule: bool) {
    let (host, core) = (&apart.alice.host, apart.internet.core());
    let other = apart.internet.attach_beside(&apart.world.lab, host, End::NearWest);
    let device = host.link_to(&core[End::NearWest as usize]);
    if has_rule {
        host.ip(&format!("rule add from {} table 100", other.v4));
        host.ip(&format!("route add default via {} dev {device} table 100", other.gateway_v4));
    }
    // IPv6 would lead to the relay without the first uplink.
    host.ip(&format!("-6 route delete default dev {device}"));
    let slower = Delays::between(&core[End::NearWest as usize], host, &core[End::NearEast as usize]);
    slower.set(Way::There, Delay { latency: SLOWER, ..Delay::default() });
    apart.restart(Duration::ZERO);
    let pings = apart.alice.host.spawn(format!("ping -D -i 0.01 {}", apart.bob.v6()));
    apart.are_direct_within(DIRECT);
    sends_to(&apart.bob, "alice", &format!("{}:51820", apart.sites[0].outside()));
    std::thread::sleep(Duration::from_secs(2));
    let before = answers(&pings.stdout()).len();
    let router = apart.sites[0].router();
    router.exec("nft add table inet broken");
    router.exec(["nft", "add chain inet broken forward { type filter hook forward priority -1; policy drop; }"]);
    std::thread::sleep(Duration::from_secs(5));
    let mut all = answers(&pings.stdout()).split_off(before);
    all.push(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set"));
    let gap = longest_gap(&all);
    eprintln!("an uplink dies: {gap:?}");
    assert!(gap <= WORST, "{gap:?}");
    sends_to(&apart.bob, "alice", &format!("{}:51820", other.v4));
}
