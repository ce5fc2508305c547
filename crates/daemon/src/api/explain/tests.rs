//! Explanations against an agent that says what the test wants, and a data plane with two peers of a config.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::agent::explain::Party;
use crate::api::{self, tests::sent};
use crate::control::no_agent;
use crate::view::tests::{bob, nameless, view};

/// The key of the peer without a name, whose list is icmp, tcp/22, udp/8000-8010 and 47.
const NAMELESS: &str = "zMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMw=";

struct World {
    _folder: TempDir,
    socket: PathBuf,
}

impl World {
    /// An agent that gives this answer to every question about a rule. `None`: there is no agent.
    fn of(answer: Option<About<Explained>>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("overlay0.sock");
        let listener = api::bind(&socket).expect("a socket");
        let (requests, mut asked) = mpsc::channel(1);
        tokio::spawn(api::serve(listener, view([bob(), nameless()]), requests));
        tokio::spawn(async move {
            while let Some(api::Request::Agent(call, reply)) = asked.recv().await {
                let _ = reply.send(match (&answer, call.request) {
                    (None, _) => Err(no_agent("write an [agent] table")),
                    (Some(answer), AgentRequest::Ask(Question::Explain(_))) => {
                        Ok(AgentReply::Explained(Box::new(answer.clone())))
                    }
                    (Some(_), _) => Err(Failure::new(ExitKind::NotFound, "not known to the agent")),
                });
            }
        });
        Self { _folder: folder, socket }
    }

    async fn ask(&self, path: &str) -> (u16, Value) {
        let (code, body) = sent(&self.socket, &format!("GET {path}"), "").await;
        (code, serde_json::from_str(&body).expect("JSON"))
    }

    /// Verdict, side, reason and rule.
    async fn explains(&self, from: &str, to: &str, what: &str) -> [String; 4] {
        let (code, answer) = self.ask(&format!("/v1/explain?from={from}&to={to}&what={what}")).await;
        assert_eq!(code, 200, "{answer:#}");
        ["verdict", "side", "reason", "rule"].map(|field| answer[field].as_str().unwrap_or("-").to_owned())
    }
}

/// What an agent called alice says about a peer with this tunnel key, which opens tcp/22 at alice.
fn says(reason: Reason, tunnel_key: Option<PeerKey>) -> About<Explained> {
    let party = |name: &str, is_self| Party { name: name.to_owned(), identity: None, is_self };
    let is_listed = reason == Reason::Listed;
    let answer = Explained {
        from: party("carol", false),
        to: party("alice", true),
        what: "tcp/22".to_owned(),
        verdict: if is_listed { Verdict::Allowed } else { Verdict::Refused },
        side: Side::Here,
        decider: "alice".to_owned(),
        reason,
        why: String::new(),
        rule: is_listed.then(|| "tcp".to_owned()),
        allow: None,
        since: None,
        expires: None,
        hint: None,
        tunnel: None,
    };
    About { answer, tunnel_key }
}

#[tokio::test]
async fn in_static_mode_the_list_of_the_config_decides() {
    let world = World::of(None);
    let cases = [
        ("bob", "self", "47", ["allowed", "here", "no_list", "-"]),
        ("10.77.0.3", "10.77.0.1", "tcp/22", ["allowed", "here", "listed", "tcp/22"]),
        ("fd00::5", "overlay0", "udp/8005", ["allowed", "here", "listed", "udp/8000-8010"]),
        (NAMELESS, "me", "icmp", ["allowed", "here", "listed", "icmp"]),
        (NAMELESS, "self", "tcp/23", ["refused", "here", "not_listed", "-"]),
        ("self", "bob", "tcp/22", ["peer_decides", "there", "not_known", "-"]),
    ];
    for (from, to, what, expected) in cases {
        assert_eq!(world.explains(from, to, what).await, expected, "{from} {to} {what}");
    }
    let refused = [("self", "me", 400), ("bob", "10.77.0.3", 400), ("carol", "self", 404), ("10.9.9.9", "self", 404)];
    for (from, to, expected) in refused {
        let (code, failure) = world.ask(&format!("/v1/explain?from={from}&to={to}&what=icmp")).await;
        assert_eq!(code, expected, "{failure:#}");
        assert!(failure["hint"].is_string(), "{failure:#}");
    }
    let (code, rules) = world.ask("/v1/rules?peer=10.77.0.3").await;
    assert_eq!(
        (code, &rules["here"]["allow"][1], &rules["there"]["state"]),
        (200, &"tcp/22".into(), &"not_known".into())
    );
    assert_eq!(world.ask("/v1/rules?peer=bob").await.1["here"]["state"], "everything");
    assert_eq!(world.ask("/v1/rules?peer=carol").await.0, 404);
}

#[tokio::test]
async fn an_agent_that_does_not_know_a_peer_leaves_it_to_the_config() {
    let mut unknown = says(Reason::Unknown, None);
    unknown.answer.from.name = "bob".to_owned();
    let world = World::of(Some(unknown));
    assert_eq!(world.explains("bob", "self", "tcp/22").await, ["allowed", "here", "no_list", "-"]);
    assert_eq!(world.ask("/v1/rules?peer=bob").await.1["state"], "static");
    let world = World::of(Some(says(Reason::Unknown, None)));
    assert_eq!(world.explains("carol", "self", "tcp/22").await, ["refused", "here", "unknown", "-"]);
    assert_eq!(world.ask("/v1/rules?peer=carol").await.1["message"], "not known to the agent");
}

#[tokio::test]
async fn the_data_plane_has_the_last_word() {
    let nameless = Some(PeerKey([0xcc; 32]));
    let listed = World::of(Some(says(Reason::Listed, nameless)));
    assert_eq!(listed.explains("carol", "self", "tcp/22").await, ["allowed", "here", "listed", "tcp"]);
    assert_eq!(listed.explains("carol", "self", "tcp/23").await, ["refused", "here", "not_listed", "-"]);
    // The agent has granted it, but there is no such tunnel.
    let nowhere = World::of(Some(says(Reason::Listed, Some(PeerKey([0xee; 32])))));
    assert_eq!(nowhere.explains("carol", "self", "tcp/22").await, ["refused", "here", "no_tunnel", "-"]);
    let expired = World::of(Some(says(Reason::Expired, nameless)));
    assert_eq!(expired.explains("carol", "self", "tcp/22").await, ["refused", "here", "expired", "-"]);
}

#[tokio::test]
async fn a_query_is_judged_before_anybody_is_asked() {
    let world = World::of(None);
    for query in [
        "",
        "from=a&to=b",
        "from=a&to=b&what=tcp",
        "from=&to=b&what=icmp",
        "from=a&to=%0A&what=icmp",
        "from=a&to=b&what=icmp&x=1",
    ] {
        let (code, failure) = world.ask(&format!("/v1/explain?{query}")).await;
        assert_eq!((code, &failure["code"]), (400, &"usage".into()), "{query}");
    }
}
