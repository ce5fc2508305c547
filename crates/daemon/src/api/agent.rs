//! The part of the local API that asks the agent: its requests and what they are answered.
//!
//! ```text
//! POST /v1/agent/handshake   Handshake        DecidedAnswer, overlay.decided.v1
//! POST /v1/agent/approve     Approve          DecidedAnswer
//! POST /v1/agent/reject      Named            DecidedAnswer
//! POST /v1/agent/untrust     Named            DecidedAnswer
//! POST /v1/agent/key/rotate  RotateKey        RotatedAnswer, overlay.rotated.v1
//! POST /v1/agent/join        Join             JoinedAnswer, overlay.joined.v1
//! POST /v1/agent/trust       Approve          DecidedAnswer
//! POST /v1/agent/confirm                      ConfirmedAnswer, overlay.confirmed.v1
//! GET  /v1/agent/pending                      PendingAnswer, overlay.pending.v1
//! GET  /v1/agent/peers                        AgentAnswer, overlay.agent.v1
//! GET  /v1/agent/health                       HealthAnswer, overlay.health.v1
//! GET  /v1/agent/find        ?name= or ?tag= &service= &search= &after=   AgentsAnswer, overlay.agents.v1
//! GET  /v1/agent/whois       ?agent=          AgentsAnswer
//! GET  /v1/agent/verify      ?peer=           VerifiedAnswer, overlay.verify.v1
//! GET  /v1/agent/decisions   ?peer= &last=    DecisionsAnswer, overlay.decisions.v1
//! ```
//!
//! Rights come first: the body of a caller that may not change anything is not read. A body is bounded in length and
//! time, and what can be judged without the agent is judged here: scopes, the length of texts, lifetimes.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::LengthLimitError;
use overlay_wire::signed::{MAX_REASON_LEN, MAX_SCOPES};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Daemon, stopping};
use crate::agent::request::{
    AgentCall, AgentRecord, AgentReply, AgentRequest, AgentStatus, Approve, Confirmed, Decided, Find, Found, Handshake,
    Health, Join, Joined, Named, PendingRequest, RotateKey, Rotated,
};
use crate::agent::request::{Decisions, Logged, Question, Verified};
use crate::config::check_scope;
use crate::failure::{ExitKind, Failure};
use crate::serving::access::{Caller, Uid};

/// The largest body in bytes. The longest lists and the longest reason, each character written as `\u0000`, take half.
pub(super) const MAX_BODY: usize = 16 * 1024;
/// How long a caller may take to send the body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// The longest text that names an agent, in bytes. `NAME@KEY` takes 85.
const MAX_NAMED: usize = 128;
/// The longest lifetime of a grant in seconds: a hundred years.
pub const MAX_LIFETIME: u64 = 100 * 365 * 86_400;

/// The answer to a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecidedAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.decided.v1"))]
    pub schema: Cow<'static, str>,
    /// Always `ok`. A failure has a different schema.
    pub status: Cow<'static, str>,
    /// What became of it.
    #[serde(flatten)]
    pub decided: Decided,
}

/// The answer to `GET /v1/agent/pending`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.pending.v1"))]
    pub schema: Cow<'static, str>,
    /// The requests that wait for a decision.
    pub requests: Vec<PendingRequest>,
}

/// The answer to `GET /v1/agent/peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.agent.v1"))]
    pub schema: Cow<'static, str>,
    /// This agent and its peers.
    #[serde(flatten)]
    pub agent: AgentStatus,
}

/// The answer to `GET /v1/agent/find` and `GET /v1/agent/whois`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentsAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.agents.v1"))]
    pub schema: Cow<'static, str>,
    /// The agents that were found.
    pub agents: Vec<AgentRecord>,
    /// The `after` to ask with for the next page. Left out: there is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The answer to `POST /v1/agent/key/rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotatedAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.rotated.v1"))]
    pub schema: Cow<'static, str>,
    /// Always `ok`. A failure has a different schema.
    pub status: Cow<'static, str>,
    /// The keys.
    #[serde(flatten)]
    pub rotated: Rotated,
}

/// The answer to `POST /v1/agent/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinedAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.joined.v1"))]
    pub schema: Cow<'static, str>,
    /// Always `ok`. A failure has a different schema.
    pub status: Cow<'static, str>,
    /// What the token has brought.
    #[serde(flatten)]
    pub joined: Joined,
}

/// The answer to `POST /v1/agent/confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfirmedAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.confirmed.v1"))]
    pub schema: Cow<'static, str>,
    /// Always `ok`. A failure has a different schema.
    pub status: Cow<'static, str>,
    /// What counts again.
    #[serde(flatten)]
    pub confirmed: Confirmed,
}

/// The query of `GET /v1/agent/whois`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whois {
    /// A virtual IP, a name or a key.
    pub agent: String,
}

/// The answer to `GET /v1/agent/verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.verify.v1"))]
    pub schema: Cow<'static, str>,
    /// The code, and what it is made of.
    #[serde(flatten)]
    pub verified: Verified,
}

/// The answer to `GET /v1/agent/decisions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionsAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.decisions.v1"))]
    pub schema: Cow<'static, str>,
    /// What was logged.
    #[serde(flatten)]
    pub logged: Logged,
}

/// The answer to `GET /v1/agent/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.health.v1"))]
    pub schema: Cow<'static, str>,
    /// How the agent is.
    #[serde(flatten)]
    pub health: Health,
}

pub(super) fn routes() -> Router<Daemon> {
    Router::new()
        .route("/v1/agent/handshake", post(handshake))
        .route("/v1/agent/approve", post(approve))
        .route("/v1/agent/reject", post(reject))
        .route("/v1/agent/untrust", post(untrust))
        .route("/v1/agent/key/rotate", post(rotate_key))
        .route("/v1/agent/join", post(join))
        .route("/v1/agent/trust", post(trust))
        .route("/v1/agent/confirm", post(confirm))
        .route("/v1/agent/pending", get(pending))
        .route("/v1/agent/peers", get(peers))
        .route("/v1/agent/health", get(health))
        .route("/v1/agent/find", get(find))
        .route("/v1/agent/whois", get(whois))
        .route("/v1/agent/verify", get(verify))
        .route("/v1/agent/decisions", get(decisions))
}

/// The caller, and the daemon that it asks.
pub(super) type Asker = (Extension<Caller>, Extension<Uid>, State<Daemon>);

async fn handshake(asker: Asker, request: Request) -> Result<Json<DecidedAnswer>, Failure> {
    asker.0.may_change()?;
    let handshake: Handshake = body(request).await?;
    check_named("`peer`", &handshake.peer)?;
    if handshake.reason.len() > MAX_REASON_LEN {
        return Err(bad(format!("the reason has {} bytes", handshake.reason.len()))
            .with_hint(format!("give a reason of at most {MAX_REASON_LEN} bytes")));
    }
    check_scopes("want", &handshake.want)?;
    check_scopes("allow", handshake.allow.as_deref().unwrap_or_default())?;
    check_lifetime(handshake.seconds)?;
    decide(asker, AgentRequest::Handshake(handshake)).await
}

async fn approve(asker: Asker, request: Request) -> Result<Json<DecidedAnswer>, Failure> {
    let approve = approval(&asker, request).await?;
    decide(asker, AgentRequest::Approve(approve)).await
}

async fn trust(asker: Asker, request: Request) -> Result<Json<DecidedAnswer>, Failure> {
    let trust = approval(&asker, request).await?;
    decide(asker, AgentRequest::Trust(trust)).await
}

async fn approval(asker: &Asker, request: Request) -> Result<Approve, Failure> {
    asker.0.may_change()?;
    let approve: Approve = body(request).await?;
    check_named("`peer`", &approve.peer)?;
    check_scopes("allow", approve.allow.as_deref().unwrap_or_default())?;
    check_lifetime(approve.seconds)?;
    Ok(approve)
}

async fn reject(asker: Asker, request: Request) -> Result<Json<DecidedAnswer>, Failure> {
    asker.0.may_change()?;
    let named: Named = body(request).await?;
    check_named("`peer`", &named.peer)?;
    decide(asker, AgentRequest::Reject(named)).await
}

async fn untrust(asker: Asker, request: Request) -> Result<Json<DecidedAnswer>, Failure> {
    asker.0.may_change()?;
    let named: Named = body(request).await?;
    check_named("`peer`", &named.peer)?;
    decide(asker, AgentRequest::Untrust(named)).await
}

async fn rotate_key(asker: Asker, request: Request) -> Result<Json<RotatedAnswer>, Failure> {
    asker.0.may_change()?;
    let rotate: RotateKey = body(request).await?;
    match ask(asker, AgentRequest::RotateKey(rotate)).await? {
        AgentReply::Rotated(rotated) => {
            Ok(Json(RotatedAnswer { schema: "overlay.rotated.v1".into(), status: "ok".into(), rotated }))
        }
        _ => Err(different_answer()),
    }
}

async fn join(asker: Asker, request: Request) -> Result<Json<JoinedAnswer>, Failure> {
    asker.0.may_change()?;
    let join: Join = body(request).await?;
    match ask(asker, AgentRequest::Join(join)).await? {
        AgentReply::Joined(joined) => {
            Ok(Json(JoinedAnswer { schema: "overlay.joined.v1".into(), status: "ok".into(), joined }))
        }
        _ => Err(different_answer()),
    }
}

async fn confirm(asker: Asker) -> Result<Json<ConfirmedAnswer>, Failure> {
    asker.0.may_change()?;
    match ask(asker, AgentRequest::Confirm).await? {
        AgentReply::Confirmed(confirmed) => {
            Ok(Json(ConfirmedAnswer { schema: "overlay.confirmed.v1".into(), status: "ok".into(), confirmed }))
        }
        _ => Err(different_answer()),
    }
}

async fn pending(asker: Asker) -> Result<Json<PendingAnswer>, Failure> {
    asker.0.may_read()?;
    match ask(asker, AgentRequest::Pending).await? {
        AgentReply::Pending(requests) => Ok(Json(PendingAnswer { schema: "overlay.pending.v1".into(), requests })),
        _ => Err(different_answer()),
    }
}

async fn peers(asker: Asker) -> Result<Json<AgentAnswer>, Failure> {
    asker.0.may_read()?;
    match ask(asker, AgentRequest::Peers).await? {
        AgentReply::Peers(agent) => Ok(Json(AgentAnswer { schema: "overlay.agent.v1".into(), agent: *agent })),
        _ => Err(different_answer()),
    }
}

async fn health(asker: Asker) -> Result<Json<HealthAnswer>, Failure> {
    asker.0.may_read()?;
    match ask(asker, AgentRequest::Ask(Question::Health)).await? {
        AgentReply::Health(health) => Ok(Json(HealthAnswer { schema: "overlay.health.v1".into(), health: *health })),
        _ => Err(different_answer()),
    }
}

async fn find(asker: Asker, query: Result<Query<Find>, QueryRejection>) -> Result<Json<AgentsAnswer>, Failure> {
    asker.0.may_read()?;
    let Query(find) = query.map_err(|error| bad_query(&error))?;
    let texts = [
        ("`name`", &find.name),
        ("`tag`", &find.tag),
        ("`service`", &find.service),
        ("`search`", &find.search),
        ("`after`", &find.after),
    ];
    for (parameter, text) in texts {
        text.as_ref().map_or(Ok(()), |text| check_named(parameter, text))?;
    }
    found(asker, AgentRequest::Find(find)).await
}

async fn whois(asker: Asker, query: Result<Query<Whois>, QueryRejection>) -> Result<Json<AgentsAnswer>, Failure> {
    asker.0.may_read()?;
    let Query(Whois { agent }) = query.map_err(|error| bad_query(&error))?;
    check_named("`agent`", &agent)?;
    found(asker, AgentRequest::Whois(agent)).await
}

async fn verify(asker: Asker, query: Result<Query<Named>, QueryRejection>) -> Result<Json<VerifiedAnswer>, Failure> {
    asker.0.may_read()?;
    let Query(Named { peer }) = query.map_err(|error| bad_query(&error))?;
    check_named("`peer`", &peer)?;
    match ask(asker, AgentRequest::Ask(Question::Verify(peer))).await? {
        AgentReply::Verified(verified) => {
            Ok(Json(VerifiedAnswer { schema: "overlay.verify.v1".into(), verified: *verified }))
        }
        _ => Err(different_answer()),
    }
}

async fn decisions(
    asker: Asker,
    query: Result<Query<Decisions>, QueryRejection>,
) -> Result<Json<DecisionsAnswer>, Failure> {
    asker.0.may_read()?;
    let Query(decisions) = query.map_err(|error| bad_query(&error))?;
    decisions.peer.as_ref().map_or(Ok(()), |peer| check_named("`peer`", peer))?;
    match ask(asker, AgentRequest::Ask(Question::Decisions(decisions))).await? {
        AgentReply::Decisions(logged) => Ok(Json(DecisionsAnswer { schema: "overlay.decisions.v1".into(), logged })),
        _ => Err(different_answer()),
    }
}

async fn decide(asker: Asker, request: AgentRequest) -> Result<Json<DecidedAnswer>, Failure> {
    match ask(asker, request).await? {
        AgentReply::Decided(decided) => {
            Ok(Json(DecidedAnswer { schema: "overlay.decided.v1".into(), status: "ok".into(), decided }))
        }
        _ => Err(different_answer()),
    }
}

async fn found(asker: Asker, request: AgentRequest) -> Result<Json<AgentsAnswer>, Failure> {
    match ask(asker, request).await? {
        AgentReply::Found(Found { agents, next }) => {
            Ok(Json(AgentsAnswer { schema: "overlay.agents.v1".into(), agents, next }))
        }
        _ => Err(different_answer()),
    }
}

pub(super) async fn ask((_, Extension(Uid(uid)), daemon): Asker, request: AgentRequest) -> Result<AgentReply, Failure> {
    let (answer, answered) = oneshot::channel();
    let request = super::Request::Agent(AgentCall { request, uid }, answer);
    daemon.requests.send(request).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

/// Reads the body as JSON, whatever type it claims to have.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    let read = tokio::time::timeout(BODY_PATIENCE, axum::body::to_bytes(request.into_body(), MAX_BODY));
    let read = read.await.map_err(|_| {
        bad("the body did not arrive").with_cause(format!("it took more than {} s", BODY_PATIENCE.as_secs()))
    })?;
    let bytes = read.map_err(|error| match error.into_inner() {
        error if error.is::<LengthLimitError>() => {
            bad("the body is too long").with_cause(format!("it has more than {MAX_BODY} bytes"))
        }
        error => bad("the body did not arrive").with_cause(error),
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        bad("the body is not what this path takes")
            .with_cause(error)
            .with_hint("configs/openapi.json describes it, for example {\"peer\": \"bob\"}")
    })
}

pub(super) fn check_named(what: &str, text: &str) -> Result<(), Failure> {
    match text.len() {
        0 => Err(bad(format!("{what} is empty"))),
        1..=MAX_NAMED if !text.chars().any(char::is_control) => Ok(()),
        1..=MAX_NAMED => Err(bad(format!("{what} has a control character"))),
        length => Err(bad(format!("{what} has {length} bytes")).with_cause(format!("{MAX_NAMED} are the most"))),
    }
}

fn check_scopes(field: &str, scopes: &[String]) -> Result<(), Failure> {
    if scopes.len() > MAX_SCOPES {
        return Err(bad(format!("`{field}` has {} entries", scopes.len()))
            .with_hint(format!("give at most {MAX_SCOPES}: a range such as tcp/8000-8010 is one entry")));
    }
    for scope in scopes {
        check_scope(scope).map_err(|problem| Failure {
            hint: problem.hint,
            ..bad(problem.message).with_cause(format!("it stands in `{field}`"))
        })?;
    }
    Ok(())
}

fn check_lifetime(seconds: Option<u64>) -> Result<(), Failure> {
    match seconds {
        None | Some(1..=MAX_LIFETIME) => Ok(()),
        Some(seconds) => Err(bad(format!("a grant cannot hold for {seconds} s"))
            .with_hint(format!("give 1 to {MAX_LIFETIME} seconds, or leave `seconds` out"))),
    }
}

fn bad(error: impl Into<String>) -> Failure {
    Failure::new(ExitKind::Usage, error)
}

pub(super) fn bad_query(error: &QueryRejection) -> Failure {
    bad("the query is not what this path takes")
        .with_cause(error.body_text())
        .with_hint("configs/openapi.json describes it")
}

pub(super) fn different_answer() -> Failure {
    Failure::new(ExitKind::Other, "the agent answered a different question")
}

#[cfg(test)]
mod tests;
