//! A host with two uplinks: the one that its default route takes, and another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_sim::nat::Kind;
use serde_json::Value;

use super::failover::{DIRECT, WORST, answers, longest_gap};
use crate::lab::apart::way;
use crate::lab::internet::End;
use crate::lab::{Agent, Apart, within};

/// Where an agent sends to its peer, and whether directly.
fn primary(agent: &Agent, peer: &str) -> Value {
    let path: Value = serde_json::from_str(&agent.verb(format!("path {peer} --json")).stdout).expect("JSON");
    path["primary"].clone()
}

/// The router behind the first uplink stops forwarding. The link stays up, and so does the default route, so the relay is out of
/// reach, too.
#[test]
fn an_uplink_that_dies_behind_its_router_is_left_for_the_other_one() {
    let Some(mut apart) = Apart::new("two uplinks", [Kind::Moderate, Kind::Moderate]) else { return };
    let host = &apart.alice.host;
    let mobile = apart.internet.attach_beside(&apart.world.lab, host, End::NearWest);
    // A rule routes the second uplink's address there. The default route of the host takes the first one.
    let device = host.link_to(&apart.internet.core()[End::NearWest as usize]);
    host.ip(&format!("rule add from {} table 100", mobile.v4));
    host.ip(&format!("route add default via {} dev {device} table 100", mobile.gateway_v4));
    // IPv6 would lead to the relay without the first uplink.
    host.ip(&format!("-6 route delete default dev {device}"));
    apart.restart(Duration::ZERO);
    let address = apart.bob.v6();
    let pings = apart.alice.host.spawn(format!("ping -D -i 0.01 {address}"));
    within(DIRECT, "a direct path of both", || {
        let ways = [way(&apart.alice, "bob"), way(&apart.bob, "alice")];
        ways.iter().all(|way| way.as_deref() == Some("direct")).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    let router = apart.sites[0].router();
    router.exec("nft add table inet broken");
    router.exec(["nft", "add chain inet broken forward { type filter hook forward priority -1; policy drop; }"]);
    std::thread::sleep(Duration::from_secs(5));
    let mut all = answers(&pings.stdout());
    all.push(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set"));
    let gap = longest_gap(&all);
    eprintln!("an uplink dies: {gap:?}");
    assert!(gap <= WORST, "{gap:?}");
    let other = format!("{}:51820", mobile.v4);
    within(DIRECT, "the direct path over the other uplink", || {
        let there = primary(&apart.bob, "alice");
        (there["kind"] == "direct" && there["remote"] == other.as_str()).then_some(())
    });
}
