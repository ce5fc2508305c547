//! `overlay path`: how a peer is reached, every pair of addresses, and why packets do not go directly.

use std::net::SocketAddr;

use overlay_daemon::Failure;
use overlay_daemon::view::{PairState, PairStatus, PathKind, PathStatus};

use crate::arguments::probe::Path;
use crate::figures::{ago, now, span, until};
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Path) -> Result<(), Failure> {
    let command = format!("overlay path {} -I", arguments.peer);
    let client = session.client(arguments.interface.as_deref(), &command)?;
    let path = session.block_on(client.path(&arguments.peer))?;
    session.output.result(&path, || text(&path, now()));
    Ok(())
}

/// How packets go: `direct 198.51.100.2:51820` or `via relay 192.0.2.1:7447`.
pub(crate) fn way(kind: PathKind, remote: SocketAddr) -> String {
    match kind {
        PathKind::Direct => format!("direct {remote}"),
        PathKind::Relay => format!("via relay {remote}"),
    }
}

/// Renders the answer. `now` is in seconds since 1970.
fn text(path: &PathStatus, now: u64) -> String {
    let name = path.peer.as_deref().filter(|name| !name.is_empty()).unwrap_or(&path.public_key);
    let mut lines = vec![("peer", inert::text(name))];
    match &path.primary {
        None => lines.push(("path", "none".to_owned())),
        Some(primary) => {
            lines.push(("path", way(primary.kind, primary.remote)));
            lines.extend(path.since.map(|since| ("since", until(since, now))));
            lines.extend(primary.rtt_ms.map(|trip| ("round trip", format!("{trip:.1} ms"))));
            lines.push((
                "loss",
                format!("to the peer {}, from the peer {}", share(primary.loss_to_peer), share(primary.loss_from_peer)),
            ));
        }
    }
    if let Some(why) = &path.why_not_direct {
        lines.push(("not direct", inert::text(&why.message)));
        lines.push(("next try", next_try(path)));
    }
    if path.is_suspect || path.is_mirroring {
        let doubt = match path.is_mirroring {
            true => "the path does not answer, so packets go out over a second one, too",
            false => "the path does not answer",
        };
        lines.push(("in doubt", doubt.to_owned()));
    }
    lines.push(("switches", format!("{} (path in doubt: {})", path.switches, path.suspicions)));
    let told: Vec<_> = path.told_addresses.iter().map(ToString::to_string).collect();
    lines.push(("told peer", if told.is_empty() { "nothing in the session".to_owned() } else { told.join(", ") }));
    if path.pairs.is_empty() {
        return columns::labelled(&lines);
    }
    format!("{}\n\n{}", columns::labelled(&lines), pairs(&path.pairs))
}

fn next_try(path: &PathStatus) -> String {
    match path.next_try_seconds {
        _ if path.is_trying => "now".to_owned(),
        _ if !path.is_active => "when an application uses the peer".to_owned(),
        Some(seconds) => format!("in {}", span(seconds)),
        None => "when there is a session".to_owned(),
    }
}

fn pairs(pairs: &[PairStatus]) -> String {
    let header =
        ["remote", "local", "kind", "state", "address", "round trip", "lost to", "from", "answered", "tried", "proven"];
    let since = |ms: Option<u64>| ms.map_or_else(|| "never".to_owned(), |ms| ago(ms / 1_000));
    let rows = pairs.iter().map(|pair| {
        [
            pair.channel.map_or_else(|| pair.remote.to_string(), |channel| format!("{} #{channel}", pair.remote)),
            pair.local.map_or_else(|| "any".to_owned(), |local| local.to_string()),
            pair.kind.name().to_owned(),
            state(pair),
            if pair.is_named { "named" } else { "heard" }.to_owned(),
            pair.rtt_ms.map_or_else(|| "-".to_owned(), |trip| format!("{trip:.1} ms")),
            share(pair.loss_to_peer),
            share(pair.loss_from_peer),
            format!("{} of {}", pair.probes_answered, pair.probes_sent),
            since(pair.tried_ms_ago),
            since(pair.proven_ms_ago),
        ]
    });
    columns::table(header, rows)
}

fn state(pair: &PairStatus) -> String {
    let state = match pair.state {
        PairState::Idle => "not tried",
        PairState::Probing => "trying",
        PairState::Proven => "works",
        PairState::Failed => "no answer",
    };
    let role = match (pair.is_primary, pair.is_mirror) {
        (true, _) => ", in use",
        (false, true) => ", second",
        (false, false) => "",
    };
    format!("{state}{role}")
}

fn share(loss: Option<f64>) -> String {
    loss.map_or_else(|| "-".to_owned(), |loss| format!("{:.1}%", loss * 100.0))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;
    use serde_json::{Value, json};

    use super::*;

    fn pair(kind: &str, remote: &str, state: &str, more: &Value) -> Value {
        let mut pair = json!({
            "kind": kind, "remote": remote, "state": state, "is_primary": false, "is_mirror": false, "is_named": true,
            "loss": 0.0, "probes_sent": 9, "probes_answered": 0, "tried_ms_ago": 12_345,
        });
        for (field, value) in more.as_object().expect("an object") {
            pair[field] = value.clone();
        }
        pair
    }

    fn path(pairs: &[Value], more: &Value) -> PathStatus {
        let mut path = json!({
            "schema": "overlay.path.v1", "peer": "bob", "public_key": "k", "state": "connected", "is_trying": false,
            "is_active": true, "is_suspect": false, "is_mirroring": false, "switches": 2, "suspicions": 3,
            "has_heard_addresses": true, "told_addresses": ["198.51.100.9:51820"], "pairs": pairs,
        });
        if let Some(primary) = pairs.iter().find(|pair| pair["is_primary"] == true) {
            path["primary"] = primary.clone();
        }
        for (field, value) in more.as_object().expect("an object") {
            path[field] = value.clone();
        }
        serde_json::from_value(path).expect("a path")
    }

    const USED: &str = r#"{
        "is_primary": true, "rtt_ms": 12.345, "loss": 0.02, "loss_to_peer": 0.02, "loss_from_peer": 0.0, "probes_sent": 40,
        "probes_answered": 38, "tried_ms_ago": 120, "proven_ms_ago": 130
    }"#;

    #[test]
    fn a_direct_path_and_the_pairs_beside_it() {
        let used: Value = serde_json::from_str(USED).expect("JSON");
        let pairs = [
            pair("direct", "198.51.100.2:51820", "proven", &used),
            pair(
                "relay",
                "192.0.2.1:7447",
                "proven",
                &json!({ "channel": 77, "rtt_ms": 44.0, "probes_answered": 9, "proven_ms_ago": 2_000 }),
            ),
            pair("direct", "[2001:db8::2]:51820", "failed", &json!({ "local": "2001:db8::1", "is_named": false })),
            pair("direct", "10.0.0.2:51820", "idle", &json!({ "tried_ms_ago": null, "probes_sent": 0 })),
        ];
        golden("overlay path bob", text(&path(&pairs, &json!({ "since": 1_795_824_000 })), 1_795_824_060));
    }

    #[test]
    fn a_relayed_path_says_why_and_when_direct_ones_are_tried_again() {
        let used: Value = serde_json::from_str(USED).expect("JSON");
        let pairs = [
            pair("relay", "192.0.2.1:7447", "proven", &used),
            pair("direct", "198.51.100.2:51820", "failed", &json!({})),
        ];
        let why = json!({ "reason": "unanswered", "message": "no probe was answered: both sides\u{1b}[2J" });
        let relayed = |more: Value| {
            let mut all = json!({ "why_not_direct": why, "since": 1_795_824_000, "next_try_seconds": 95 });
            for (field, value) in more.as_object().expect("an object") {
                all[field] = value.clone();
            }
            text(&path(&pairs, &all), 1_795_824_060)
        };
        golden("overlay path bob", relayed(json!({})));
        golden("in doubt", relayed(json!({ "is_trying": true, "is_suspect": true, "is_mirroring": true })));
        golden("asleep", relayed(json!({ "is_active": false })));
        let why = json!({ "reason": "no_session", "message": "there is no session with the peer" });
        let nothing = json!({ "why_not_direct": why, "told_addresses": [], "peer": null });
        golden("nothing is known", text(&path(&[], &nothing), 0));
    }
}
