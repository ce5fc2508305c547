//! The client against a served API, and its errors without one.

use std::sync::Arc;

use overlay_core::PathsReport;
use overlay_golden::{golden, golden_with};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::agent::explain::Explain;
use crate::agent::request::{
    AgentRecord, AgentReply, AgentRequest, Approve, Confirmed, Decided, Decisions, Find, Found, Handshake, Join,
    Joined, Named, Question, RotateKey, Rotated,
};
use crate::api::{self, ReloadError, Request};
use crate::device::ReloadReport;
use crate::view::tests::{bob, view};

struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Serves a daemon of this name, whose supervisor answers with `reload`.
    fn serve(&self, name: &str, reload: Result<ReloadReport, ReloadError>) {
        let listener = api::bind(&self.path().join(format!("{name}.sock"))).expect("a socket");
        let (sender, mut requests) = mpsc::channel(1);
        tokio::spawn(api::serve(listener, view([bob()]), sender));
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                match request {
                    Request::Reload(answer) => drop(answer.send(reload.clone())),
                    Request::Down(answer) => drop(answer.send(())),
                    Request::Agent(call, answer) => drop(answer.send(echo(call.request))),
                    Request::Paths(_, answer) => drop(answer.send(Some(PathsReport::default()))),
                }
            }
        });
    }

    /// Leaves what a killed daemon leaves: a socket without a listener.
    fn leave_stale(&self, name: &str) {
        drop(std::os::unix::net::UnixListener::bind(self.path().join(format!("{name}.sock"))).expect("a socket"));
    }
}

/// An agent that answers with what it was asked.
fn echo(request: AgentRequest) -> Result<AgentReply, Failure> {
    let decided = |asked: String| Decided {
        name: asked,
        identity: String::new(),
        state: "asked".to_owned(),
        allow: Vec::new(),
        expires: None,
    };
    let found = |asked: String| AgentRecord {
        name: asked,
        identity: String::new(),
        addresses: Vec::new(),
        tags: Vec::new(),
        attested_tags: Vec::new(),
        services: Vec::new(),
        state: "unknown".to_owned(),
        rendezvous: None,
        issued: 0,
    };
    Ok(match request {
        AgentRequest::Handshake(asked) => AgentReply::Decided(decided(format!("{asked:?}"))),
        AgentRequest::Approve(asked) => AgentReply::Decided(decided(format!("{asked:?}"))),
        AgentRequest::Reject(asked) => AgentReply::Decided(decided(format!("{asked:?}"))),
        AgentRequest::Untrust(asked) if asked.peer == "eve" => {
            return Err(Failure::new(ExitKind::NotFound, "nobody is called `eve`").with_hint("overlay agents"));
        }
        AgentRequest::Untrust(asked) => AgentReply::Decided(decided(format!("{asked:?}"))),
        AgentRequest::Find(asked) => AgentReply::Found(Found { agents: vec![found(format!("{asked:?}"))], next: None }),
        AgentRequest::Whois(asked) => AgentReply::Found(Found { agents: vec![found(asked)], next: None }),
        AgentRequest::Pending => AgentReply::Pending(Vec::new()),
        AgentRequest::Peers => AgentReply::Found(Found::default()),
        AgentRequest::RotateKey(asked) => AgentReply::Rotated(Rotated {
            tunnel_key: format!("{asked:?}"),
            former_key: None,
            until: None,
            waits_for_count: 0,
            waits_for: Vec::new(),
        }),
        AgentRequest::Join(asked) => AgentReply::Joined(Joined { tags: vec![format!("{asked:?}")] }),
        AgentRequest::Confirm => AgentReply::Confirmed(Confirmed { peers: vec!["bob".to_owned()] }),
        AgentRequest::Trust(asked) => AgentReply::Decided(decided(format!("{asked:?}"))),
        AgentRequest::Ask(asked) => return Err(Failure::new(ExitKind::NotFound, format!("{asked:?}"))),
    })
}

#[tokio::test]
async fn what_the_agent_is_asked_arrives_as_it_was_meant() {
    let world = World::new();
    world.serve("overlay0", Ok(ReloadReport::default()));
    let client = Client::find(world.path(), None, "").expect("the only one");

    let whole = Handshake {
        peer: "bob".to_owned(),
        reason: "\"why\" \u{1b}[2J\n".to_owned(),
        want: vec!["tcp/8000".to_owned()],
        allow: Some(Vec::new()),
        seconds: Some(3_600),
    };
    for handshake in [whole, Handshake { peer: "bob".to_owned(), ..Handshake::default() }] {
        let answer = client.handshake(&handshake).await.expect("an answer");
        assert_eq!(answer.decided.name, format!("{handshake:?}"));
    }
    let approve = Approve { peer: "bob".to_owned(), allow: None, seconds: Some(1) };
    assert_eq!(client.approve(&approve).await.expect("an answer").decided.name, format!("{approve:?}"));
    let named = Named { peer: "bob".to_owned() };
    assert_eq!(client.untrust(&named).await.expect("an answer").decided.name, format!("{named:?}"));
    assert_eq!(client.trust(&approve).await.expect("an answer").decided.name, format!("{approve:?}"));
    let explain = Explain { from: "a&to=b".to_owned(), to: "fd5c::1".to_owned(), what: "tcp/22".to_owned() };
    let failure = client.explain(&explain).await.expect_err("not known");
    assert_eq!(failure.error, format!("{:?}", Question::Explain(explain)));
    // The agent does not know a key of the data plane, and the daemon does.
    let key = "u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7s=";
    assert_eq!(client.path(key).await.expect("an answer").peer.as_deref(), Some("bob"));
    for peer in ["a/b", "..", "?#% \u{fc}"] {
        let failure = client.path(peer).await.expect_err("not known");
        assert_eq!(failure.error, format!("{:?}", Question::Rules(peer.to_owned())));
    }
    let decisions = Decisions { peer: Some("bob".to_owned()), last: Some(3) };
    let failure = client.decisions(&decisions).await.expect_err("not known");
    assert_eq!(failure.error, format!("{:?}", Question::Decisions(decisions)));

    let rotate = RotateKey { compromised: true };
    assert_eq!(client.rotate_key(&rotate).await.expect("an answer").rotated.tunnel_key, format!("{rotate:?}"));

    let join = Join { token: "a+/=".to_owned(), bind: "b".to_owned() };
    assert_eq!(client.join(&join).await.expect("an answer").joined.tags, [format!("{join:?}")]);

    for agent in ["10.99.0.2", "fd5c::1", "bob@abc", "a&agent=b#c?d%20 +ü"] {
        assert_eq!(client.whois(agent).await.expect("an answer").agents[0].name, agent);
    }
    let queries = [(None, None), (Some("bob"), None), (None, Some("gpu")), (Some("a&b"), Some("c=d"))];
    for (name, tag) in queries {
        let find = Find { name: name.map(str::to_owned), tag: tag.map(str::to_owned), ..Find::default() };
        assert_eq!(client.find_agents(&find).await.expect("an answer").agents[0].name, format!("{find:?}"));
    }
    assert_eq!(client.pending().await.expect("an answer").requests, []);

    let failure = client.untrust(&Named { peer: "eve".to_owned() }).await.expect_err("nobody");
    assert_eq!((failure.code, failure.hint.as_deref()), (ExitKind::NotFound, Some("overlay agents")));
    let failure = client.agent().await.expect_err("an answer to a different question");
    assert_eq!(failure.code, ExitKind::Other);
}

#[tokio::test]
async fn the_only_daemon_needs_no_name_and_a_stale_socket_is_no_daemon() {
    let world = World::new();
    world.leave_stale("dead0");
    world.serve("overlay0", Ok(ReloadReport::default()));
    let client = Client::find(world.path(), None, "overlay status").expect("the only one");
    assert_eq!(client.name(), "overlay0");
    let status = client.status().await.expect("an answer");
    assert_eq!((status.interface.name.as_str(), status.peers.len()), ("overlay0", 1));
    assert_eq!(status, view_status());
    assert_eq!(client.version().await.expect("an answer"), Version::current());
}

/// Returns what the served view shows before a second has passed.
fn view_status() -> Status {
    let view: Arc<_> = view([bob()]);
    view.status()
}

#[tokio::test]
async fn several_daemons_have_to_be_named() {
    let world = World::new();
    world.serve("a0", Ok(ReloadReport::default()));
    world.serve("b0", Ok(ReloadReport::default()));
    let failure = Client::find(world.path(), None, "sudo overlay down").expect_err("two to choose from");
    assert_eq!(failure.code, ExitKind::Usage);
    golden("overlay down", failure.lines());
    assert_eq!(Client::find(world.path(), Some("b0"), "").expect("named").name(), "b0");
}

#[tokio::test]
async fn without_a_daemon_the_way_to_start_one_is_named() {
    let world = World::new();
    let varying = [(&*world.path().to_string_lossy(), "DIR")];
    let failure = Client::find(world.path(), None, "").expect_err("none");
    assert_eq!(failure.code, ExitKind::NoDaemon);
    golden_with("no name", failure.lines(), &varying);

    let failure = Client::find(world.path(), Some("overlay0"), "").expect_err("nobody listens");
    assert_eq!(failure.code, ExitKind::NoDaemon);
    golden_with("a name", failure.lines(), &varying);
    assert_eq!(Client::find(&world.path().join("missing"), None, "").expect_err("none").code, ExitKind::NoDaemon);
}

#[tokio::test]
async fn after_a_killed_daemon_the_way_to_clean_up_is_named() {
    let world = World::new();
    world.leave_stale("overlay0");
    for name in [None, Some("overlay0")] {
        let failure = Client::find(world.path(), name, "").expect_err("nobody listens");
        assert_eq!(failure.code, ExitKind::NoDaemon);
        golden(format!("{name:?}"), failure.lines());
    }
    let failure = Client::find(world.path(), Some("other"), "").expect_err("nobody listens");
    golden_with("a different name", failure.lines(), &[(&world.path().to_string_lossy(), "DIR")]);
}

#[tokio::test]
async fn a_refused_reload_arrives_whole() {
    let world = World::new();
    let refusal = ReloadError {
        code: ExitKind::Config,
        message: "`lab.toml` is not a valid config".to_owned(),
        hint: Some("overlay config check lab.toml".to_owned()),
        rendered: Some("  1 | x".to_owned()),
    };
    world.serve("overlay0", Err(refusal));
    let client = Client::find(world.path(), None, "").expect("the only one");
    let failure = client.reload().await.expect_err("refused");
    assert_eq!(failure.code, ExitKind::Config);
    golden("reload", &failure.error);
    assert_eq!(failure.cause.as_deref(), Some("`lab.toml` is not a valid config"));
    assert_eq!(failure.hint.as_deref(), Some("overlay config check lab.toml"));
    assert_eq!(failure.details.as_deref(), Some("  1 | x"));
    assert_eq!(client.down().await.expect("an answer").interface, "overlay0");
}

#[test]
fn leftovers_are_sockets_and_journals_each_name_once() {
    let world = World::new();
    world.leave_stale("a0");
    for file in ["a0.state", "b0.state", "c0.log", "d0.lock", ".state"] {
        std::fs::write(world.path().join(file), "").expect("a file");
    }
    assert_eq!(leftovers(world.path()).expect("readable"), ["a0", "b0"]);
    assert_eq!(names(world.path()).expect("readable"), ["a0"]);
    assert!(has_leftovers(world.path(), "b0") && !has_leftovers(world.path(), "c0"));
}
