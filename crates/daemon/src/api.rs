//! The local API: HTTP over a unix socket, for the program's own verbs and for other programs on this host.
//!
//! Reading is for root, for the user the daemon runs as and for members of the group `overlay`; what changes the daemon
//! is for root and that user alone. The kernel names the caller (SO_PEERCRED), no token is involved. What is asked of
//! the daemon goes to its supervisor as a [`Request`]; what is only looked at comes from the [`View`].
//!
//! ```text
//! GET  /v1/status    Status, overlay.status.v1        POST /v1/reload   ReloadReport, overlay.reload.v1
//! GET  /v1/version   Version, overlay.version.v1      POST /v1/down     Down, overlay.down.v1
//! GET  /metrics      OpenMetrics text                 any error         FailureBody, overlay.error.v1
//! ```
//!
//! What an agent is asked is in [`agent`], its stream of events in `events`, which rule decides in [`explain`], and how a peer
//! is reached in `path`.
//!
//! [`openapi::document`] is the machine-readable description.

pub mod agent;
mod events;
pub mod explain;
pub mod openapi;
mod path;
pub mod scrape;

use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use overlay_core::{PathsReport, PeerTag};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::agent::request::{AgentCall, AgentReply};
use crate::device::ReloadReport;
use crate::failure::{ExitKind, Failure, FailureBody};
use crate::serving::access::{Caller, GROUP, Uid};
use crate::serving::guests::Guests;
use crate::serving::{connection, socket};
use crate::view::{Status, View, metrics};

/// How many connections are served at once. Further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 16;
/// How many of them may belong to users who may only read. The others are for root and the daemon's user, so that
/// nobody else can keep them from a reload or a `down`.
const MAX_GUESTS: usize = 8;
/// How many connections such a user may have at once, so that one of them cannot keep out the others.
const MAX_OF_A_GUEST: usize = 4;

/// How many streams of events users have who may only read, and how many one of them has.
const MAX_GUEST_STREAMS: usize = 8;
const MAX_STREAMS_OF_A_GUEST: usize = 2;

/// A request to the supervisor. A dropped reply channel means that the daemon is shutting down.
#[derive(Debug)]
pub enum Request {
    /// Read the config again and apply what changed.
    Reload(oneshot::Sender<Result<ReloadReport, ReloadError>>),
    /// Remove everything and end. Answered when that has begun or is done.
    Down(oneshot::Sender<()>),
    /// Ask the engine for the paths to a peer. `None`: the node does not find the path to this peer.
    Paths(PeerTag, oneshot::Sender<Option<PathsReport>>),
    /// Ask the agent. A daemon in static mode answers with a failure.
    Agent(AgentCall, oneshot::Sender<Result<AgentReply, Failure>>),
}

/// Why a reload changed nothing: the config in force before is in force still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadError {
    /// The exit code of `overlay reload`.
    pub code: ExitKind,
    /// What went wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The wrong places in the config file, formatted for a terminal without colour.
    pub rendered: Option<String>,
}

impl From<ReloadError> for Failure {
    fn from(error: ReloadError) -> Self {
        Self {
            code: error.code,
            error: "nothing was reloaded: the old config stays in force".to_owned(),
            cause: Some(error.message),
            hint: error.hint,
            details: error.rendered,
        }
    }
}

impl From<Failure> for ReloadError {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        Self { code: failure.code, message, hint: failure.hint, rendered: failure.details }
    }
}

/// The answer to `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.version.v1"))]
    pub schema: Cow<'static, str>,
    /// The version of the daemon, or of the program.
    pub version: Cow<'static, str>,
}

impl Version {
    /// Returns the version of this build.
    pub fn current() -> Self {
        Self { schema: "overlay.version.v1".into(), version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// The answer to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.reload.v1"))]
    pub schema: Cow<'static, str>,
    /// Always `ok`. A failure has a different schema.
    pub status: Cow<'static, str>,
    /// What changed.
    #[serde(flatten)]
    pub report: ReloadReport,
}

/// The answer to `POST /v1/down`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Down {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.down.v1"))]
    pub schema: Cow<'static, str>,
    /// Always `ok`. A failure has a different schema.
    pub status: Cow<'static, str>,
    /// The name of the interface that is being removed.
    pub interface: String,
}

/// Binds the socket: mode 0660, group `overlay` where this host has it, in place of whatever stale socket is there. Makes
/// the folder if it is missing. Must be called on a tokio runtime, by the holder of the daemon's lock.
///
/// # Errors
///
/// Those of the file system. A path of more than 107 bytes is `InvalidInput`.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    socket::bind(path, 0o660, overlay_os::process::group_id(GROUP))
}

/// Serves the API until the future is dropped.
///
/// # Errors
///
/// None at present: a failing connection affects only itself, and accepting is retried.
pub async fn serve(listener: UnixListener, view: Arc<View>, requests: mpsc::Sender<Request>) -> anyhow::Result<()> {
    let routes = routes(view, requests);
    let guests = Guests::new(MAX_GUESTS, MAX_OF_A_GUEST);
    connection::serve_admitted(listener, MAX_CONNECTIONS, |stream| {
        let caller = Caller::of(stream);
        let uid = stream.peer_cred().ok()?.uid();
        let guest = if caller.is_owner() { None } else { Some(guests.admit(uid)?) };
        Some((routes.clone().layer(Extension(caller)).layer(Extension(Uid(uid))), guest))
    })
    .await
}

#[derive(Clone)]
struct Daemon {
    view: Arc<View>,
    requests: mpsc::Sender<Request>,
    /// The streams of users who may only read.
    streams: Arc<Guests>,
}

fn routes(view: Arc<View>, requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/version", get(version))
        .route("/v1/reload", post(reload))
        .route("/v1/down", post(down))
        .route("/metrics", get(scrape))
        .merge(agent::routes())
        .merge(events::routes())
        .merge(explain::routes())
        .merge(path::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Daemon {
            view,
            requests,
            streams: Arc::new(Guests::new(MAX_GUEST_STREAMS, MAX_STREAMS_OF_A_GUEST)),
        })
}

async fn status(caller: Extension<Caller>, daemon: State<Daemon>) -> Result<Json<Status>, Failure> {
    caller.may_read()?;
    Ok(Json(daemon.view.status()))
}

async fn version(caller: Extension<Caller>) -> Result<Json<Version>, Failure> {
    caller.may_read()?;
    Ok(Json(Version::current()))
}

async fn scrape(caller: Extension<Caller>, daemon: State<Daemon>) -> Result<Response, Failure> {
    caller.may_read()?;
    let headers = [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)];
    Ok((headers, metrics::text(&daemon.view)).into_response())
}

async fn reload(caller: Extension<Caller>, daemon: State<Daemon>) -> Result<Json<Reloaded>, Failure> {
    caller.may_change()?;
    let (answer, answered) = oneshot::channel();
    daemon.requests.send(Request::Reload(answer)).await.map_err(|_| stopping())?;
    let report = answered.await.map_err(|_| stopping())??;
    Ok(Json(Reloaded { schema: "overlay.reload.v1".into(), status: "ok".into(), report }))
}

async fn down(caller: Extension<Caller>, daemon: State<Daemon>) -> Result<Json<Down>, Failure> {
    caller.may_change()?;
    let interface = daemon.view.table().interface_name();
    let (answer, answered) = oneshot::channel();
    // Both ways of not being answered mean that the daemon is stopping already, which is what was asked for.
    if daemon.requests.send(Request::Down(answer)).await.is_ok() {
        let _ = answered.await;
    }
    Ok(Json(Down { schema: "overlay.down.v1".into(), status: "ok".into(), interface }))
}

async fn unknown_path() -> Failure {
    Failure::new(ExitKind::NotFound, "the local API has no such path").with_hint("GET /v1/status")
}

async fn wrong_method() -> Failure {
    Failure::new(ExitKind::Usage, "this path does not accept this method").with_hint("GET reads, POST changes")
}

fn stopping() -> Failure {
    Failure::new(ExitKind::NoDaemon, "the daemon is stopping")
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (status_code(self.code), Json(FailureBody::from(self))).into_response()
    }
}

const fn status_code(kind: ExitKind) -> StatusCode {
    match kind {
        ExitKind::Usage => StatusCode::BAD_REQUEST,
        ExitKind::Permission | ExitKind::Refused => StatusCode::FORBIDDEN,
        ExitKind::Config => StatusCode::UNPROCESSABLE_ENTITY,
        ExitKind::NotFound => StatusCode::NOT_FOUND,
        ExitKind::Conflict => StatusCode::CONFLICT,
        ExitKind::NoDaemon => StatusCode::SERVICE_UNAVAILABLE,
        ExitKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ExitKind::Other | ExitKind::Degraded => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
