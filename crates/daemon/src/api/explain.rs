//! `GET /v1/explain` and `GET /v1/rules`: which rule decides, in agent mode and in static mode.
//!
//! The agent is asked first. What it does not know may be a peer of the config, which the view has. What the data plane
//! knows of the tunnel is added to the answer.

pub(super) mod fixed;

use std::borrow::Cow;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::routing::get;
use axum::{Json, Router};
use overlay_core::PeerKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Daemon;
use super::agent::{Asker, ask, bad_query, check_named, different_answer};
use crate::agent::explain::{Explain, Explained, Opening, Reason, Side, Verdict};
use crate::agent::request::{About, Packets, PeerRules, Question};
use crate::agent::request::{AgentReply, AgentRequest, Named};
use crate::device::table::PeerEntry;
use crate::engine::now;
use crate::failure::{ExitKind, Failure};
use crate::view::View;

/// The answer to `GET /v1/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.explain.v1"))]
    pub schema: Cow<'static, str>,
    /// What decides, and why.
    #[serde(flatten)]
    pub explained: Explained,
}

/// The answer to `GET /v1/rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulesAnswer {
    /// The name of this JSON schema.
    #[schemars(extend("const" = "overlay.rules.v1"))]
    pub schema: Cow<'static, str>,
    /// The rules of both sides.
    #[serde(flatten)]
    pub rules: PeerRules,
}

pub(super) fn routes() -> Router<Daemon> {
    Router::new().route("/v1/explain", get(explain)).route("/v1/rules", get(rules))
}

async fn explain(
    asker: Asker,
    query: Result<Query<Explain>, QueryRejection>,
) -> Result<Json<ExplainedAnswer>, Failure> {
    asker.0.may_read()?;
    let Query(asked) = query.map_err(|error| bad_query(&error))?;
    for (parameter, text) in [("`from`", &asked.from), ("`to`", &asked.to), ("`what`", &asked.what)] {
        check_named(parameter, text)?;
    }
    let opening = Opening::parse(&asked.what)?;
    let view = asker.2.view.clone();
    let explained = match ask(asker, AgentRequest::Ask(Question::Explain(asked.clone()))).await {
        Ok(AgentReply::Explained(about)) => {
            let About { answer, tunnel_key } = *about;
            match answer.reason {
                Reason::Unknown => fixed::explain_to_agent(&view, &answer, opening).unwrap_or(answer),
                _ => as_the_data_plane_does(&view, answer, tunnel_key, opening),
            }
        }
        Ok(_) => return Err(different_answer()),
        Err(failure) if is_static(&failure) => fixed::explain(&view, &asked, opening)?,
        Err(failure) => return Err(failure),
    };
    Ok(Json(ExplainedAnswer { schema: "overlay.explain.v1".into(), explained }))
}

async fn rules(asker: Asker, query: Result<Query<Named>, QueryRejection>) -> Result<Json<RulesAnswer>, Failure> {
    asker.0.may_read()?;
    let Query(Named { peer }) = query.map_err(|error| bad_query(&error))?;
    check_named("`peer`", &peer)?;
    let view = asker.2.view.clone();
    let rules = match ask(asker, AgentRequest::Ask(Question::Rules(peer.clone()))).await {
        Ok(AgentReply::Rules(about)) => {
            let About { mut answer, tunnel_key } = *about;
            let state = view.table().read();
            if let Some(peer) = tunnel_key.and_then(|key| state.peer(key)) {
                answer.tunnel = Some(tunnel_of(peer));
                answer.packets = Some(packets_of(peer));
            }
            answer
        }
        Ok(_) => return Err(different_answer()),
        Err(failure) if is_static(&failure) || failure.code == ExitKind::NotFound => {
            let fixed = fixed::rules(&view, &peer);
            fixed.ok_or_else(|| if is_static(&failure) { fixed::not_known(&peer) } else { failure })?
        }
        Err(failure) => return Err(failure),
    };
    Ok(Json(RulesAnswer { schema: "overlay.rules.v1".into(), rules }))
}

/// Corrects an answer of the agent by what the data plane has. Both differ if the data plane could not follow, or if the
/// config has a peer with the same tunnel key.
fn as_the_data_plane_does(view: &View, answer: Explained, key: Option<PeerKey>, opening: Opening) -> Explained {
    let state = view.table().read();
    let peer = key.and_then(|key| state.peer(key));
    let tunnel = peer.map(tunnel_of);
    match (answer.reason, peer) {
        (Reason::Listed, None) => Explained {
            verdict: Verdict::Refused,
            side: Side::Here,
            decider: if answer.from.is_self { answer.from.name.clone() } else { answer.to.name.clone() },
            reason: Reason::NoTunnel,
            why: "both sides agree, but this host could not make the tunnel: see the log of the daemon".to_owned(),
            rule: None,
            ..answer
        },
        (Reason::Listed | Reason::NotListed, Some(peer)) => {
            let fixed = fixed::judge(&state, peer, answer.side, opening);
            // The data plane has no list where everything is granted.
            let is_refused = [fixed.verdict, answer.verdict].map(|verdict| verdict == Verdict::Refused);
            if is_refused[0] == is_refused[1] { Explained { tunnel, ..answer } } else { fixed }
        }
        _ => Explained { tunnel, ..answer },
    }
}

/// Whether the daemon has no agent. No answer of an agent about rules has this code.
pub(super) fn is_static(failure: &Failure) -> bool {
    failure.code == ExitKind::Config
}

fn tunnel_of(peer: &PeerEntry) -> String {
    peer.state(now(), peer.stats.sent_wire_bytes.value()).name().to_owned()
}

fn packets_of(peer: &PeerEntry) -> Packets {
    let stats = &peer.stats;
    Packets { received: stats.received_packets.value(), sent: stats.sent_packets.value(), dropped: stats.drops.value() }
}

#[cfg(test)]
mod tests;
