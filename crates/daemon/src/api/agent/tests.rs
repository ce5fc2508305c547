//! The agent's part of the API against an agent that notes what it is asked.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use overlay_golden::golden;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::agent::request::AgentPeer;
use crate::api;
use crate::api::tests::sent;
use crate::serving::connection;
use crate::view::tests::{bob, view};

const OWNER: (Caller, u32) = (Caller::Owner, 0);
const MEMBER: (Caller, u32) = (Caller::Member, 1000);
const STRANGER: (Caller, u32) = (Caller::Stranger, 1001);

/// An API whose callers are all taken for this one, and the agent behind it.
struct World {
    _folder: TempDir,
    socket: PathBuf,
    asked: Arc<Mutex<Vec<AgentCall>>>,
}

impl World {
    fn of((caller, uid): (Caller, u32)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("overlay0.sock");
        let listener = api::bind(&socket).expect("a socket");
        let (sender, mut requests) = mpsc::channel(1);
        let routes = api::routes(view([bob()]), sender).layer(Extension(caller)).layer(Extension(Uid(uid)));
        tokio::spawn(connection::serve(listener, 4, move |_| routes.clone()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let api::Request::Agent(call, answer) = request else { panic!("not for the agent") };
                let reply = reply_to(&call.request);
                noted.lock().expect("one at a time").push(call);
                let _ = answer.send(reply);
            }
        });
        Self { _folder: folder, socket, asked }
    }

    async fn send(&self, request: &str, body: &str) -> (u16, Value) {
        let (code, body) = sent(&self.socket, request, body).await;
        (code, serde_json::from_str(&body).expect("JSON"))
    }

    /// What the agent was asked since the last time.
    fn asked(&self) -> Vec<AgentCall> {
        std::mem::take(&mut self.asked.lock().expect("one at a time"))
    }
}

/// The agent: it knows bob, and nobody called eve.
fn reply_to(request: &AgentRequest) -> Result<AgentReply, Failure> {
    let decided = |state: &str| Decided {
        name: "bob".to_owned(),
        identity: "k".repeat(52),
        state: state.to_owned(),
        allow: vec!["tcp/22".to_owned()],
        expires: None,
    };
    Ok(match request {
        AgentRequest::Handshake(handshake) if handshake.peer == "eve" => {
            return Err(Failure::new(ExitKind::NotFound, "nobody is called `eve`").with_hint("overlay find"));
        }
        AgentRequest::Handshake(_) => AgentReply::Decided(decided("asked")),
        AgentRequest::Approve(_) => AgentReply::Decided(decided("trusted")),
        AgentRequest::Reject(_) => AgentReply::Decided(decided("rejected")),
        AgentRequest::Untrust(_) => AgentReply::Decided(decided("untrusted")),
        AgentRequest::Pending => AgentReply::Pending(vec![PendingRequest {
            name: "bob".to_owned(),
            identity: "k".repeat(52),
            addresses: vec!["10.99.0.2".parse().expect("an address")],
            attested_tags: vec!["ops".to_owned()],
            reason: "\u{1b}[2J".to_owned(),
            want: Vec::new(),
            gives: Vec::new(),
            issued: 1,
            expires: 2,
        }]),
        AgentRequest::Peers => AgentReply::Peers(Box::new(AgentStatus {
            name: "alice".to_owned(),
            identity: "a".repeat(52),
            network: "lab".to_owned(),
            addresses: Vec::new(),
            attested_tags: Vec::new(),
            rendezvous: "connected".to_owned(),
            meetings: Vec::new(),
            held: None,
            rotation: None,
            peers: vec![AgentPeer {
                name: "bob".to_owned(),
                identity: "k".repeat(52),
                addresses: Vec::new(),
                attested_tags: Vec::new(),
                state: "asked".to_owned(),
                request: None,
                allow: None,
                opens: None,
                expires: None,
            }],
        })),
        AgentRequest::Find(_) | AgentRequest::Whois(_) => AgentReply::Found(Found::default()),
        AgentRequest::RotateKey(rotate) => AgentReply::Rotated(Rotated {
            tunnel_key: "n".repeat(44),
            former_key: (!rotate.compromised).then(|| "o".repeat(44)),
            until: (!rotate.compromised).then_some(1_795_824_000),
            waits_for_count: 1,
            waits_for: vec!["bob".to_owned()],
        }),
        AgentRequest::Join(_) => AgentReply::Joined(Joined { tags: vec!["ops".to_owned()] }),
        AgentRequest::Confirm => AgentReply::Confirmed(Confirmed { peers: vec!["bob".to_owned()] }),
        AgentRequest::Trust(_) => AgentReply::Decided(decided("granted")),
        AgentRequest::Ask(Question::Decisions(_)) => AgentReply::Decisions(Logged::default()),
        AgentRequest::Ask(Question::Verify(_)) => AgentReply::Verified(Box::new(Verified {
            name: "bob".to_owned(),
            identity: "k".repeat(52),
            own_name: "alice".to_owned(),
            own_identity: "a".repeat(52),
            network: "n".repeat(52),
            code: "12345".to_owned(),
        })),
        AgentRequest::Ask(Question::Health) => AgentReply::Health(Box::default()),
        AgentRequest::Ask(_) => return Err(Failure::new(ExitKind::NotFound, "not known to this agent")),
    })
}

#[tokio::test]
async fn each_path_asks_its_question_with_the_uid_of_its_caller() {
    let world = World::of((Caller::Owner, 998));
    let text = |text: &str| text.to_owned();
    let whole = r#"{"peer":"bob","reason":"why","want":["tcp/1-9","any"],"allow":[],"seconds":3600}"#;
    let cases = [
        (
            "POST /v1/agent/handshake",
            r#"{"peer":"bob"}"#,
            AgentRequest::Handshake(Handshake { peer: text("bob"), ..Handshake::default() }),
        ),
        (
            "POST /v1/agent/handshake",
            whole,
            AgentRequest::Handshake(Handshake {
                peer: text("bob"),
                reason: text("why"),
                want: vec![text("tcp/1-9"), text("any")],
                allow: Some(Vec::new()),
                seconds: Some(3600),
            }),
        ),
        (
            "POST /v1/agent/approve",
            r#"{"peer":"bob","allow":["icmp"]}"#,
            AgentRequest::Approve(Approve { peer: text("bob"), allow: Some(vec![text("icmp")]), seconds: None }),
        ),
        ("POST /v1/agent/reject", r#"{"peer":"bob"}"#, AgentRequest::Reject(Named { peer: text("bob") })),
        ("POST /v1/agent/untrust", r#"{"peer":"bob"}"#, AgentRequest::Untrust(Named { peer: text("bob") })),
        ("POST /v1/agent/key/rotate", "{}", AgentRequest::RotateKey(RotateKey { compromised: false })),
        (
            "POST /v1/agent/key/rotate",
            r#"{"compromised":true}"#,
            AgentRequest::RotateKey(RotateKey { compromised: true }),
        ),
        (
            "POST /v1/agent/join",
            r#"{"token":"YQ==","bind":"Yg=="}"#,
            AgentRequest::Join(Join { token: text("YQ=="), bind: text("Yg==") }),
        ),
        ("POST /v1/agent/confirm", "", AgentRequest::Confirm),
        ("GET /v1/agent/pending", "", AgentRequest::Pending),
        ("GET /v1/agent/peers", "", AgentRequest::Peers),
        ("GET /v1/agent/find", "", AgentRequest::Find(Find::default())),
        (
            "GET /v1/agent/find?name=bob&tag=gpu",
            "",
            AgentRequest::Find(Find { name: Some(text("bob")), tag: Some(text("gpu")), ..Find::default() }),
        ),
        ("GET /v1/agent/whois?agent=bob%40abc%26x", "", AgentRequest::Whois(text("bob@abc&x"))),
        (
            "POST /v1/agent/trust",
            r#"{"peer":"bob","allow":[],"seconds":60}"#,
            AgentRequest::Trust(Approve { peer: text("bob"), allow: Some(Vec::new()), seconds: Some(60) }),
        ),
        ("GET /v1/agent/health", "", AgentRequest::Ask(Question::Health)),
        ("GET /v1/agent/verify?peer=bob", "", AgentRequest::Ask(Question::Verify(text("bob")))),
        (
            "GET /v1/agent/decisions?peer=bob&last=7",
            "",
            AgentRequest::Ask(Question::Decisions(Decisions { peer: Some(text("bob")), last: Some(7) })),
        ),
    ];
    for (asked, body, request) in cases {
        let (code, answer) = world.send(asked, body).await;
        assert_eq!(code, 200, "{asked}: {answer}");
        assert_eq!(world.asked(), [AgentCall { request, uid: 998 }], "{asked}");
    }
}

#[tokio::test]
async fn each_answer_has_its_schema_and_leaves_out_what_is_not_known() {
    let world = World::of(OWNER);
    let (_, decided) = world.send("POST /v1/agent/untrust", r#"{"peer":"bob"}"#).await;
    assert_eq!(
        decided,
        json!({
            "schema": "overlay.decided.v1", "status": "ok", "name": "bob", "identity": "k".repeat(52),
            "state": "untrusted", "allow": ["tcp/22"],
        })
    );
    let (_, pending) = world.send("GET /v1/agent/pending", "").await;
    assert_eq!(
        (&pending["schema"], &pending["requests"][0]["reason"]),
        (&json!("overlay.pending.v1"), &json!("\u{1b}[2J"))
    );
    let (_, agent) = world.send("GET /v1/agent/peers", "").await;
    assert_eq!((&agent["schema"], &agent["name"]), (&json!("overlay.agent.v1"), &json!("alice")));
    let peer = json!({ "name": "bob", "identity": "k".repeat(52), "addresses": [], "attested_tags": [], "attested_tags": [], "state": "asked" });
    assert_eq!(agent["peers"], json!([peer]));
    for path in ["GET /v1/agent/find", "GET /v1/agent/whois?agent=bob"] {
        let (_, found) = world.send(path, "").await;
        assert_eq!(found, json!({ "schema": "overlay.agents.v1", "agents": [] }));
    }
    let (code, failure) = world.send("POST /v1/agent/handshake", r#"{"peer":"eve"}"#).await;
    assert_eq!((code, &failure["code"], &failure["hint"]), (404, &json!("not_found"), &json!("overlay find")));
}

const CHANGES: [&str; 4] = ["handshake", "approve", "untrust", "trust"];
const LOOKS: [&str; 6] = ["pending", "peers", "find", "whois?agent=bob", "verify?peer=bob", "decisions"];

#[tokio::test]
async fn members_of_the_group_look_but_do_not_decide_and_strangers_do_neither() {
    for (who, may_look) in [(MEMBER, true), (STRANGER, false)] {
        let world = World::of(who);
        for verb in CHANGES {
            // Rights come before the body: one that cannot be read is not mentioned.
            for body in [r#"{"peer":"bob"}"#, "", "no JSON", &"x".repeat(MAX_BODY + 1)] {
                let (code, failure) = world.send(&format!("POST /v1/agent/{verb}"), body).await;
                assert_eq!((code, &failure["code"]), (403, &json!("permission")), "{who:?} {verb}");
            }
        }
        assert_eq!(world.asked(), [], "nothing reaches the agent");
        for path in LOOKS {
            let (code, _) = world.send(&format!("GET /v1/agent/{path}"), "").await;
            assert_eq!(code, if may_look { 200 } else { 403 }, "{who:?} {path}");
        }
        let (code, _) = world.send("GET /v1/agent/find?what=else", "").await;
        assert_eq!(code, if may_look { 400 } else { 403 });
        assert_eq!(world.asked().len(), if may_look { LOOKS.len() } else { 0 });
    }
}

#[tokio::test]
async fn a_body_that_says_something_else_is_refused_with_its_reason() {
    let world = World::of(OWNER);
    let long = |count: usize| vec!["tcp/1"; count];
    let cases = [
        ("handshake", json!("bob")),
        ("handshake", json!({})),
        ("handshake", json!({ "peer": "" })),
        ("handshake", json!({ "peer": "x".repeat(MAX_NAMED + 1) })),
        ("handshake", json!({ "peer": "bob\n" })),
        ("handshake", json!({ "peer": "bob", "wants": ["tcp/22"] })),
        ("handshake", json!({ "peer": "bob", "want": ["tcp/22,80"] })),
        ("handshake", json!({ "peer": "bob", "allow": ["all"] })),
        ("handshake", json!({ "peer": "bob", "want": long(MAX_SCOPES + 1) })),
        ("handshake", json!({ "peer": "bob", "reason": "x".repeat(MAX_REASON_LEN + 1) })),
        ("handshake", json!({ "peer": "bob", "seconds": 0 })),
        ("handshake", json!({ "peer": "bob", "seconds": -1 })),
        ("approve", json!({ "peer": "bob", "want": [] })),
        ("approve", json!({ "peer": "bob", "allow": ["22/tcp"] })),
        ("approve", json!({ "peer": "bob", "seconds": u64::MAX })),
        ("untrust", json!({ "peer": 7 })),
        ("untrust", json!({ "peer": "bob", "allow": [] })),
    ];
    for (verb, body) in cases {
        let (code, failure) = world.send(&format!("POST /v1/agent/{verb}"), &body.to_string()).await;
        assert_eq!((code, &failure["code"]), (400, &json!("usage")), "{body}");
        let lines = ["message", "cause", "hint"].map(|line| failure[line].as_str().unwrap_or("-").to_owned());
        let shown: String = body.to_string().chars().take(70).collect();
        golden(format!("{verb} {shown}"), lines.join("\n"));
    }
    assert_eq!(world.asked(), []);
    for most in [
        json!({ "peer": "bob", "want": long(MAX_SCOPES) }),
        json!({ "peer": "bob", "reason": "\u{1}".repeat(MAX_REASON_LEN) }),
    ] {
        assert_eq!(world.send("POST /v1/agent/handshake", &most.to_string()).await.0, 200);
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit_and_must_be_json() {
    let world = World::of(OWNER);
    let padded = |length: usize| format!("{:<length$}", r#"{"peer":"bob"}"#);
    for verb in CHANGES {
        let path = format!("POST /v1/agent/{verb}");
        assert_eq!(world.send(&path, &padded(MAX_BODY)).await.0, 200);
        let (code, failure) = world.send(&path, &padded(MAX_BODY + 1)).await;
        assert_eq!((code, &failure["message"]), (400, &json!("the body is too long")));
        for body in ["", "{", "peer=bob", "{\"peer\":\"bob\"} {}", "null", "[1]"] {
            let (code, failure) = world.send(&path, body).await;
            assert_eq!((code, &failure["message"]), (400, &json!("the body is not what this path takes")), "{body}");
        }
    }
    assert_eq!(world.asked().len(), CHANGES.len());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_for_long() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::of(OWNER);
    let mut stream = tokio::net::UnixStream::connect(&world.socket).await.expect("a connection");
    let head = b"POST /v1/agent/untrust HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n{";
    stream.write_all(head).await.expect("a request");
    let began = tokio::time::Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer and its end");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("it took more than 5 s"), "{answer}");
    assert!(began.elapsed() < BODY_PATIENCE * 2);
}

#[tokio::test]
async fn a_query_that_asks_something_else_is_refused() {
    let world = World::of(OWNER);
    let long = format!("whois?agent={}", "x".repeat(MAX_NAMED + 1));
    for path in [
        "find?naem=bob",
        "find?name=",
        "find?name=bob%0Ano",
        "find?tag=",
        "find?name=a&name=b",
        "whois",
        "whois?agent=",
        "whois?name=bob",
        &long,
    ] {
        let (code, failure) = world.send(&format!("GET /v1/agent/{path}"), "").await;
        assert_eq!((code, &failure["code"]), (400, &json!("usage")), "{path}: {failure}");
    }
    for path in CHANGES {
        assert_eq!(world.send(&format!("GET /v1/agent/{path}"), "").await.0, 400, "GET changes nothing");
    }
    assert_eq!(world.asked(), []);
}
