//! Paths as a served API tells them, with an agent and an engine that say what the test wants.

use std::path::PathBuf;

use overlay_core::PeerKey;
use overlay_golden::golden;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::agent::request::{About, Granted};
use crate::api::{self, tests::sent};
use crate::control::no_agent;
use crate::view::tests::{bob, nameless, view};

/// The key of bob in the data plane.
const BOB: PeerKey = PeerKey([0xbb; 32]);

struct World {
    _folder: TempDir,
    socket: PathBuf,
}

impl World {
    /// An agent that says this of every peer called bob, and an engine that reports this of every peer. `None`: there is no
    /// agent, or the engine finds no paths.
    fn of(relation: Option<(&str, Option<PeerKey>)>, report: Option<PathsReport>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("overlay0.sock");
        let listener = api::bind(&socket).expect("a socket");
        let (requests, mut asked) = mpsc::channel(1);
        tokio::spawn(api::serve(listener, view([bob(), nameless()]), requests));
        let relation = relation.map(|(state, key)| (state.to_owned(), key));
        tokio::spawn(async move {
            while let Some(request) = asked.recv().await {
                match request {
                    api::Request::Agent(call, reply) => {
                        let _ = reply.send(says(relation.as_ref(), &call.request));
                    }
                    api::Request::Paths(_, reply) => {
                        let _ = reply.send(report.clone());
                    }
                    _ => panic!("nothing else is asked"),
                }
            }
        });
        Self { _folder: folder, socket }
    }

    async fn ask(&self, peer: &str) -> (u16, Value) {
        let (code, body) = sent(&self.socket, &format!("GET /v1/peers/{peer}/path"), "").await;
        (code, serde_json::from_str(&body).expect("JSON"))
    }
}

fn says(relation: Option<&(String, Option<PeerKey>)>, request: &AgentRequest) -> Result<AgentReply, Failure> {
    let Some((state, tunnel_key)) = relation else { return Err(no_agent("write an [agent] table")) };
    let AgentRequest::Ask(Question::Rules(text)) = request else { panic!("only rules are asked") };
    if text != "bob" {
        return Err(Failure::new(ExitKind::NotFound, format!("this agent knows no peer `{text}`")));
    }
    let answer = PeerRules {
        name: "bob".to_owned(),
        identity: String::new(),
        addresses: Vec::new(),
        state: state.clone(),
        here: Granted::default(),
        there: Granted::default(),
        tunnel: None,
        packets: None,
    };
    Ok(AgentReply::Rules(Box::new(About { answer, tunnel_key: *tunnel_key })))
}

#[tokio::test]
async fn a_trusted_peer_is_found_by_its_name_its_tunnel_key_and_its_address() {
    let report = PathsReport { switches: 3, ..PathsReport::default() };
    let world = World::of(Some(("trusted", Some(BOB))), Some(report));
    // The key in base64 has a slash only where it is encoded: bb bb bb is u7u7.
    let key = format!("{}s%3D", "u7u7".repeat(10) + "u7");
    for peer in ["bob", key.as_str(), "10.77.0.2"] {
        let (code, told) = world.ask(peer).await;
        let shown = (code, &told["schema"], &told["peer"], &told["switches"]);
        assert_eq!(shown, (200, &"overlay.path.v1".into(), &"bob".into(), &3.into()), "{peer}");
    }
}

#[tokio::test]
async fn a_peer_without_a_path_is_refused_with_the_reason() {
    let mut said = Vec::new();
    let mut refuses = async |world: &World, peer: &str, code: u16, kind: &str| {
        let (got, failure) = world.ask(peer).await;
        assert_eq!((got, failure["code"].as_str()), (code, Some(kind)), "{failure:#}");
        let text = |field: &str| failure[field].as_str().unwrap_or("-").to_owned();
        said.push(format!("{}\n  {}\n  {}", text("message"), text("cause"), text("hint")));
    };
    for state in ["pending", "asked", "granted", "expired", "held", "untrusted"] {
        refuses(&World::of(Some((state, None)), None), "bob", 403, "refused").await;
    }
    refuses(&World::of(Some(("trusted", None)), None), "bob", 500, "other").await;
    refuses(&World::of(Some(("trusted", Some(BOB))), None), "eve", 404, "not_found").await;
    // Peers of the config: in a daemon with an agent, and in one without.
    refuses(&World::of(Some(("trusted", None)), None), "10.77.0.2", 422, "config").await;
    refuses(&World::of(None, None), "bob", 422, "config").await;
    refuses(&World::of(None, None), "10.77.0.3", 422, "config").await;
    refuses(&World::of(None, None), "eve", 404, "not_found").await;
    refuses(&World::of(None, None), "bob%0Aeve", 400, "usage").await;
    golden("no path", said.join("\n"));
}
