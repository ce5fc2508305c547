//! Agents that live close to each other.

use std::time::{Duration, Instant};

use overlay_sim::nat::Kind;
use serde_json::Value;

use crate::lab::apart::Homes;
use crate::lab::{Apart, Pings};

/// How long the way may take.
const DIRECT: Duration = Duration::from_secs(10);
/// The same where one side has to be silent before: the first round, the rest, and the second round.
const AFTER_SILENCE: Duration = Duration::from_secs(60);

/// Waits until both reach each other directly, while alice pings, and returns where packets of alice go.
#[track_caller]
fn remote_when_direct(apart: &mut Apart, patience: Duration) -> String {
    apart.restart(Duration::ZERO);
    let began = Instant::now();
    let _pings = apart.alice.host.spawn(format!("ping -i 0.1 {}", apart.bob.v6()));
    apart.are_direct_within(patience);
    eprintln!("direct after {:.1?}", began.elapsed());
    let path: Value = serde_json::from_str(&apart.alice.verb("path bob --json").stdout).expect("JSON");
    path["primary"]["remote"].as_str().expect("a remote address").to_owned()
}

#[test]
fn behind_one_router_the_way_is_the_local_one() {
    // None of them sends back to the inside what the inside sends to its outer address.
    for kind in [Kind::Moderate, Kind::Linux, Kind::Strict] {
        let name = format!("together {}", kind.name());
        let Some(mut apart) = Apart::living(&name, Homes::Together(kind)) else { return };
        let remote = remote_when_direct(&mut apart, DIRECT);
        assert!(remote.starts_with("192.168.1.3:"), "{kind:?}: {remote}");
    }
}

/// Openers arrive here, and a Linux router takes them for a stranger's flow, unless its own agent was first.
#[test]
fn on_one_link_there_is_a_direct_way() {
    let Some(mut apart) = Apart::living("one link", Homes::OnOneLink([Kind::Moderate, Kind::Linux])) else { return };
    let remote = remote_when_direct(&mut apart, AFTER_SILENCE);
    assert!(remote.starts_with(&format!("{}:", apart.sites[1].outside())), "{remote}");
}

/// Here a direct path is luck. Whichever opener arrives first makes the other router take its own agent's flow for a different one,
/// and write from a port that nobody expects. Both would have to leave before either arrives, within the microseconds of one link.
/// So the relay carries everything, through two rounds and the rest between them.
#[test]
fn nats_of_linux_on_one_link_lose_nothing_to_the_attempts() {
    let Some(mut apart) = Apart::living("linux on one link", Homes::OnOneLink([Kind::Linux; 2])) else { return };
    apart.restart(Duration::ZERO);
    apart.alice.host.reaches(&apart.bob.v6());
    Pings::new(900, Duration::from_millis(100)).are_answered(&apart.alice.host, &apart.bob.v6());
}
