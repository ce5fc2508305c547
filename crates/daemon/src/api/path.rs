//! `GET /v1/peers/{peer}/path`: how a peer is reached, and why not directly.
//!
//! The agent knows whom a text means and how it stands to that peer. The engine knows the paths of a peer that has a tunnel. A
//! peer of the config has one endpoint, so there is nothing to tell beyond `overlay status`.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::routing::get;
use axum::{Json, Router};
use overlay_core::{PathsReport, PeerTag};
use tokio::sync::oneshot;

use super::agent::{Asker, ask, check_named, different_answer};
use super::explain::{fixed, is_static};
use super::{Daemon, stopping};
use crate::agent::request::{AgentReply, AgentRequest, PeerRules, Question};
use crate::device::table::PeerEntry;
use crate::engine::now;
use crate::failure::{ExitKind, Failure};
use crate::view::PathStatus;

pub(super) fn routes() -> Router<Daemon> {
    Router::new().route("/v1/peers/{peer}/path", get(path))
}

async fn path(asker: Asker, peer: Result<Path<String>, PathRejection>) -> Result<Json<PathStatus>, Failure> {
    asker.0.may_read()?;
    let Path(text) = peer.map_err(|error| Failure::new(ExitKind::Usage, error.body_text()))?;
    check_named("the peer", &text)?;
    let daemon = asker.2.0.clone();
    let tag = tag_of(asker, &text).await?;
    let report = report(&daemon, tag).await?;
    let table = daemon.view.table();
    let key = table.key_of(tag).ok_or_else(|| fixed::not_known(&text))?;
    let state = table.read();
    let peer = state.peer(key).ok_or_else(|| fixed::not_known(&text))?;
    let report = report.ok_or_else(|| one_endpoint(peer))?;
    Ok(Json(PathStatus::of(peer, &report, now())))
}

/// The peer of the data plane that a text means.
async fn tag_of(asker: Asker, text: &str) -> Result<PeerTag, Failure> {
    let view = asker.2.view.clone();
    match ask(asker, AgentRequest::Ask(Question::Rules(text.to_owned()))).await {
        Ok(AgentReply::Rules(about)) => {
            let tag = about.tunnel_key.and_then(|key| view.table().tag_of(key));
            tag.ok_or_else(|| no_tunnel(text, &about.answer))
        }
        Ok(_) => Err(different_answer()),
        Err(failure) if is_static(&failure) || failure.code == ExitKind::NotFound => {
            let found = view.table().read().find(text).map(|peer| peer.tag);
            found.ok_or_else(|| if is_static(&failure) { fixed::not_known(text) } else { failure })
        }
        Err(failure) => Err(failure),
    }
}

async fn report(daemon: &Daemon, peer: PeerTag) -> Result<Option<PathsReport>, Failure> {
    let (answer, answered) = oneshot::channel();
    daemon.requests.send(super::Request::Paths(peer, answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())
}

/// The failure for an agent to which there is no tunnel.
fn no_tunnel(text: &str, rules: &PeerRules) -> Failure {
    let handshake = || format!("sudo overlay handshake {text}");
    let (code, cause, hint) = match rules.state.as_str() {
        "trusted" => (
            ExitKind::Other,
            "both sides agree, but this host could not make the tunnel",
            "see the log of the daemon".to_owned(),
        ),
        "pending" => (
            ExitKind::Refused,
            "its request waits for a decision on this side",
            format!("overlay pending, then: sudo overlay approve {text}"),
        ),
        "asked" => (
            ExitKind::Refused,
            "it has not answered the request of this agent",
            format!("sudo overlay doctor --peer {text}"),
        ),
        "granted" => (ExitKind::Refused, "it is trusted beforehand, and has not asked yet", handshake()),
        "expired" => (ExitKind::Refused, "a grant has expired", handshake()),
        "held" => (
            ExitKind::Refused,
            "the state of this agent was restored, and what it had granted is held",
            "sudo overlay doctor".to_owned(),
        ),
        _ => (ExitKind::Refused, "it is not trusted", handshake()),
    };
    Failure::new(code, format!("there is no tunnel to `{}`, and so no path", text.escape_debug()))
        .with_cause(cause)
        .with_hint(hint)
}

/// The failure for a peer whose path is not searched for.
fn one_endpoint(peer: &PeerEntry) -> Failure {
    let cause = match peer.endpoint {
        Some(endpoint) => format!("it is not an agent: packets go to its endpoint {endpoint}"),
        None => "it is not an agent, and its endpoint is not known: it has to call".to_owned(),
    };
    Failure::new(ExitKind::Config, format!("overlay looks for no paths to `{}`", peer.label().escape_debug()))
        .with_cause(cause)
        .with_hint("overlay status")
}

#[cfg(test)]
mod tests;
