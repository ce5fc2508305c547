//! A host with two uplinks: the one that its default route takes, and a slower one.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_sim::nat::Kind;
use serde_json::Value;

use super::failover::{DIRECT, WORST, answers, longest_gap};
use crate::lab::internet::End;
use crate::lab::site::Site;
use crate::lab::{Agent, Apart, Delay, Delays, Host, Way, within};

/// How much longer the other uplink takes.
const SLOWER: Duration = Duration::from_millis(25);
/// Both agents live behind usual routers.
const KINDS: [Kind; 2] = [Kind::Moderate, Kind::Moderate];

#[test]
fn an_uplink_that_dies_behind_its_router_is_left_for_the_other_one() {
    let Some(mut apart) = Apart::new("two uplinks", KINDS) else { return };
    let (other, _) = attach_other(&apart);
    let _slower = slow(&apart, &apart.alice.host.clone());
    is_left_for(&mut apart, other);
}

/// A rule routes the other uplink's address there, so that the kernel agrees.
#[test]
fn an_uplink_that_dies_is_left_for_one_that_a_rule_leads_to() {
    let Some(mut apart) = Apart::new("two uplinks and a rule", KINDS) else { return };
    let (other, route) = attach_other(&apart);
    apart.alice.host.ip(&format!("rule add from {other} table 100"));
    apart.alice.host.ip(&format!("route add {route} table 100"));
    let _slower = slow(&apart, &apart.alice.host.clone());
    is_left_for(&mut apart, other);
}

/// Only a question that is sent over the other uplink tells how it is seen from outside.
#[test]
fn an_uplink_that_dies_is_left_for_one_behind_a_router_too() {
    let Some(mut apart) = Apart::new("two uplinks behind routers", KINDS) else { return };
    let other = Site::beside(&apart.world.lab, &apart.internet, End::NearWest, "other", Kind::Moderate);
    other.join(&apart.world.lab, &apart.alice.host);
    let _slower = slow(&apart, other.router());
    is_left_for(&mut apart, other.outside());
}

/// Gives alice an uplink with a public address. Returns that, and the default route over it.
fn attach_other(apart: &Apart) -> (IpAddr, String) {
    let host = &apart.alice.host;
    let other = apart.internet.attach_beside(&apart.world.lab, host, End::NearWest);
    let device = host.link_to(&apart.internet.core()[End::NearWest as usize]);
    // IPv6 would lead to the relay without the first uplink.
    host.ip(&format!("-6 route delete default dev {device}"));
    (other.v4.into(), format!("default via {} dev {device}", other.gateway_v4))
}

/// Makes the uplink of this neighbour of the Internet the slower one.
fn slow(apart: &Apart, neighbour: &Host) -> Delays {
    let core = apart.internet.core();
    let slower = Delays::between(&core[End::NearWest as usize], neighbour, &core[End::NearEast as usize]);
    slower.set(Way::There, Delay { latency: SLOWER, ..Delay::default() });
    slower
}

/// The router behind alice's first uplink stops forwarding. The link stays up, and so does the default route, so the relay is
/// out of reach and the direct path over the other uplink is all that is left.
#[track_caller]
fn is_left_for(apart: &mut Apart, other: IpAddr) {
    apart.restart(Duration::ZERO);
    let pings = apart.alice.host.spawn(format!("ping -D -i 0.01 {}", apart.bob.v6()));
    apart.are_direct_within(DIRECT);
    sends_to(&apart.bob, "alice", apart.sites[0].outside());
    std::thread::sleep(Duration::from_secs(2));
    let before = answers(&pings.stdout()).len().saturating_sub(10);
    let router = apart.sites[0].router();
    router.exec("nft add table inet broken");
    router.exec(["nft", "add chain inet broken forward { type filter hook forward priority -1; policy drop; }"]);
    std::thread::sleep(Duration::from_secs(5));
    let mut all = answers(&pings.stdout()).split_off(before);
    all.push(SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set"));
    let gap = longest_gap(&all);
    eprintln!("an uplink dies: {gap:?}");
    assert!(gap <= WORST, "{gap:?}");
    sends_to(&apart.bob, "alice", other);
}

/// Waits until an agent sends directly to this address of its peer.
#[track_caller]
fn sends_to(agent: &Agent, peer: &str, address: IpAddr) {
    within(DIRECT, &format!("a direct path to {address}"), || {
        let path: Value = serde_json::from_str(&agent.verb(format!("path {peer} --json")).stdout).ok()?;
        let primary = &path["primary"];
        let remote: SocketAddr = primary["remote"].as_str()?.parse().ok()?;
        (primary["kind"] == "direct" && remote.ip() == address).then_some(())
    });
}
