//! What the operator is shown of the registry.

use std::net::Ipv4Addr;

use overlay_rendezvous::protocol::Code;
use overlay_rendezvous::registry::{AgentView, OrderRefused, Registry, TokenView};
use overlay_wire::signed::PublicKey;

use super::MAX_SHOWN;
use super::protocol::{AgentShown, StatsShown, TokenShown, Told};
use crate::clock::now;
use crate::failure::{Kind, ServeError};

/// The agents above a key.
pub(super) fn agents(registry: &Registry, after: Option<PublicKey>) -> Told {
    let views = registry.agents_after(after, MAX_SHOWN);
    let next = views.last().filter(|_| views.len() == MAX_SHOWN).map(|view| view.identity.to_string());
    Told::Agents { agents: views.iter().map(|view| agent(view, now().unix)).collect(), next }
}

fn agent(view: &AgentView<'_>, now: u64) -> AgentShown {
    let record = view.record;
    let state = match record {
        _ if view.banned.is_some() => "banned",
        None => "left",
        Some(record) if !record.is_fresh(now) => "expired",
        Some(_) if view.is_present => "online",
        Some(_) => "offline",
    };
    AgentShown {
        identity: view.identity.to_string(),
        state: state.to_owned(),
        name: record.map(|record| record.name.clone()),
        ipv4: record.and_then(|record| record.ipv4).map(|octets| Ipv4Addr::from(octets).to_string()),
        ipv6: record.map(|record| record.ipv6().to_string()),
        tags: record.map(|record| record.tags.clone()).unwrap_or_default(),
        attested_tags: record.map(|record| record.attested_tags()).unwrap_or_default(),
        is_member: view.is_member,
        is_ephemeral: view.is_ephemeral,
        fresh_until: record.map(|record| record.fresh_until),
        left: view.left,
        banned: view.banned,
    }
}

/// All tokens.
pub(super) fn tokens(registry: &Registry) -> Told {
    let now = now().unix;
    Told::Tokens { tokens: registry.known_tokens().map(|view| token(&view, now)).collect() }
}

fn token(view: &TokenView<'_>, now: u64) -> TokenShown {
    let token = view.token;
    let is_used_up = token.is_some_and(|token| token.uses != 0 && view.used >= token.uses) || view.used == u32::MAX;
    let state = match token {
        _ if view.revoked.is_some() => "revoked",
        Some(token) if token.expires < now => "expired",
        _ if is_used_up => "used_up",
        _ => "valid",
    };
    TokenShown {
        token: view.key.to_string(),
        state: state.to_owned(),
        used: view.used,
        uses: token.map(|token| token.uses).filter(|uses| *uses != 0),
        expires: token.map(|token| token.expires),
        issued: token.map(|token| token.issued),
        name: token.and_then(|token| token.name.clone()),
        tags: token.map(|token| token.tags.clone()).unwrap_or_default(),
        is_ephemeral: token.is_some_and(|token| token.is_ephemeral),
        revoked: view.revoked,
    }
}

/// The counters.
pub(super) fn stats(registry: &Registry, store: String, store_silent: Option<(u64, String)>) -> Told {
    let stats = registry.stats();
    Told::Stats(StatsShown {
        network: registry.network().name.clone(),
        is_closed: registry.network().is_closed,
        agents: registry.agents(),
        connections: registry.connections(),
        store,
        store_silent,
        counters: stats.named().map(|(name, count)| (name.to_owned(), count)).to_vec(),
        refused: Code::ALL.map(|code| (code.word().to_owned(), stats.refused(code))).to_vec(),
    })
}

/// Why an order is refused, in words.
pub(super) fn refused(refused: OrderRefused) -> ServeError {
    match refused {
        OrderRefused::NotFound => ServeError::new(Kind::NotFound, "there is no such agent, token, ban or name"),
        OrderRefused::NotOurs => ServeError::new(Kind::Conflict, "the token is of a different network"),
        OrderRefused::InUse(owner) => {
            let failure =
                ServeError::new(Kind::Conflict, "the name is in use").with_cause(format!("it is that of {owner}"));
            failure.with_hint(format!("remove the agent first: overlay rendezvous agents remove {owner}"))
        }
        OrderRefused::Later => {
            ServeError::new(Kind::Conflict, "a change of the same agent, token or name is under way")
                .with_hint("try again")
        }
    }
}
