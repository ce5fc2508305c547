//! `overlay agents`: this agent, its peers, and what each side may open; or the directory.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::{AgentPeer, AgentStatus, Meeting};

use crate::arguments::agent::Agents;
use crate::figures::{distance, now, span};
use crate::session::Session;
use crate::verbs::find;
use crate::verbs::key::rotate;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Agents) -> Result<(), Failure> {
    if arguments.is_directory() {
        return find::directory(session, arguments);
    }
    let client = session.client(arguments.on.interface.as_deref(), "overlay agents -I")?;
    let answer = session.block_on(client.agent())?;
    session.output.result(&answer, || text(&answer.agent, now()));
    Ok(())
}

fn text(agent: &AgentStatus, now: u64) -> String {
    let mut lines = vec![
        ("agent", inert::text(&agent.name)),
        ("key", inert::text(&agent.identity)),
        ("network", inert::text(&agent.network)),
        ("addresses", columns::addresses(&agent.addresses)),
    ];
    let met = |meeting: &Meeting| {
        let span = span(now.saturating_sub(meeting.since));
        ("rendezvous", format!("{}: {} (for {span})", inert::text(&meeting.url), inert::text(&meeting.state)))
    };
    lines.extend(agent.meetings.iter().map(met));
    if let Some(why) = &agent.held {
        lines.push(("restored", format!("what was granted is held: {}", inert::text(why))));
        lines.push(("", "if this state is the newest one: sudo overlay trust confirm".to_owned()));
    }
    if let Some(rotated) = &agent.rotation {
        lines.push(("former key", format!("is answered {}", rotate::answered(rotated, now))));
    }
    let heading = columns::labelled(&lines);
    if agent.peers.is_empty() {
        return format!("{heading}\n\nno peers");
    }
    let granted = |scopes: &Option<Vec<String>>| scopes.as_deref().map_or_else(|| "-".to_owned(), columns::scopes);
    let row = |peer: &AgentPeer| {
        [
            columns::agent(&peer.name, &peer.identity),
            columns::key(&peer.identity),
            columns::addresses(&peer.addresses),
            peer.request.as_ref().map_or_else(
                || inert::text(&peer.state),
                |request| format!("{} ({})", inert::text(&peer.state), inert::text(request)),
            ),
            granted(&peer.allow),
            granted(&peer.opens),
            peer.expires.map_or_else(|| "-".to_owned(), |at| distance(at, now)),
        ]
    };
    let header = ["peer", "key", "addresses", "state", "may open here", "we may open", "expires"];
    format!("{heading}\n\n{}", columns::table(header, agent.peers.iter().map(row)))
}

#[cfg(test)]
mod tests {
    use overlay_daemon::agent::request::Rotated;
    use overlay_golden::golden;

    use super::*;

    fn status(peers: Vec<AgentPeer>) -> AgentStatus {
        AgentStatus {
            name: "alice".to_owned(),
            identity: "ahl4qrxso6qbzc3s2v7jgmi5twdkfyenup2x4o7i5s6pdlmgaaaa".to_owned(),
            network: "lab".to_owned(),
            addresses: vec!["10.99.0.1".parse().expect("IPv4"), "fd5c:1:2::1".parse().expect("IPv6")],
            attested_tags: Vec::new(),
            rendezvous: "connected".to_owned(),
            meetings: vec![Meeting {
                url: "https://rv.example.net:7447".to_owned(),
                state: "connected".to_owned(),
                since: 0,
                member_until: Some(1_800_000_000),
            }],
            held: None,
            rotation: None,
            peers,
        }
    }

    fn peer(name: &str, state: &str, allow: Option<&[&str]>, opens: Option<&[&str]>) -> AgentPeer {
        let list = |scopes: &[&str]| scopes.iter().map(|&scope| scope.to_owned()).collect();
        AgentPeer {
            name: name.to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: vec!["10.99.0.2".parse().expect("IPv4"), "fd5c:1:2::2".parse().expect("IPv6")],
            attested_tags: Vec::new(),
            state: state.to_owned(),
            request: (state == "asked").then(|| "delivered".to_owned()),
            allow: allow.map(list),
            opens: opens.map(list),
            expires: None,
        }
    }

    #[test]
    fn each_peer_has_what_either_side_may_open() {
        let peers = vec![
            AgentPeer { expires: Some(87_400), ..peer("bob", "trusted", Some(&[]), Some(&["tcp/8000", "icmp"])) },
            peer("carol", "asked", Some(&["any"]), None),
            AgentPeer { addresses: Vec::new(), ..peer("", "pending", None, Some(&[])) },
            AgentPeer { expires: Some(940), ..peer("dave", "expired", None, Some(&["tcp"])) },
        ];
        golden("overlay agents", text(&status(peers), 1_000));
    }

    #[test]
    fn while_two_keys_are_answered_it_says_for_whom() {
        let rotated = Rotated {
            tunnel_key: "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=".to_owned(),
            former_key: Some("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned()),
            until: Some(1_795_824_000),
            waits_for_count: 1,
            waits_for: vec!["bob".to_owned()],
        };
        golden("overlay agents", text(&AgentStatus { rotation: Some(rotated), ..status(Vec::new()) }, 1_795_823_000));
    }

    #[test]
    fn a_restored_state_says_why_it_opens_nothing() {
        let held = Some("the rendezvous does not say what was taken back since".to_owned());
        let peers = vec![peer("bob", "held", Some(&["any"]), Some(&["icmp"]))];
        golden("overlay agents", text(&AgentStatus { held, ..status(peers) }, 1_000));
    }

    #[test]
    fn without_peers_it_says_so() {
        golden("overlay agents", text(&status(Vec::new()), 61));
    }
}
