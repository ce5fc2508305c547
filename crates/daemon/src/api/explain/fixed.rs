//! The rules of peers that a config file, or `wg`, has given.
//!
//! What such a peer may open here is its `allow`. What may be opened there is decided by the peer alone, by rules that are
//! not known here.

use std::net::IpAddr;

use overlay_core::Rule;

use super::{packets_of, tunnel_of};
use crate::agent::explain::{Explain, Explained, Opening, Party, Reason, Side, Verdict};
use crate::agent::request::{Granted, PeerRules};
use crate::device::table::{PeerEntry, State};
use crate::failure::{ExitKind, Failure};
use crate::keys::encode_public;
use crate::view::{View, rule_text};

/// Explains in static mode.
pub(super) fn explain(view: &View, asked: &Explain, opening: Opening) -> Result<Explained, Failure> {
    let state = view.table().read();
    let (at, peer) = match (is_self(&state, &asked.from), is_self(&state, &asked.to)) {
        (true, false) => (Side::There, &asked.to),
        (false, true) => (Side::Here, &asked.from),
        _ => {
            return Err(Failure::new(ExitKind::Usage, "one of both must be this host, and the other a peer")
                .with_cause(format!("this host is `self`, `{}`, its key or its address", state.interface.name))
                .with_hint("overlay explain self PEER tcp/22, or overlay explain PEER self tcp/22"));
        }
    };
    let found = state.find(peer).ok_or_else(|| not_known(peer))?;
    Ok(judge(&state, found, at, opening))
}

/// Explains to an agent what it does not know, if the config does.
pub(super) fn explain_to_agent(view: &View, unknown: &Explained, opening: Opening) -> Option<Explained> {
    let (at, peer) = if unknown.from.is_self { (Side::There, &unknown.to) } else { (Side::Here, &unknown.from) };
    let state = view.table().read();
    let found = state.find(&peer.name)?;
    Some(judge(&state, found, at, opening))
}

/// The rules of a peer, if there is one.
pub(super) fn rules(view: &View, text: &str) -> Option<PeerRules> {
    let state = view.table().read();
    let peer = state.find(text)?;
    let listed = |rules: &Option<Vec<Rule>>, without: &str| Granted {
        state: if rules.is_some() { "granted" } else { without }.to_owned(),
        allow: rules.as_ref().map(|rules| rules.iter().map(rule_text).collect()),
        ..Granted::default()
    };
    Some(PeerRules {
        name: peer.name.clone().unwrap_or_default(),
        identity: encode_public(&peer.public_key),
        addresses: peer.allowed_ips.iter().map(ToString::to_string).collect(),
        state: "static".to_owned(),
        here: listed(&peer.allow, "everything"),
        there: listed(&peer.opens, "not_known"),
        tunnel: Some(tunnel_of(peer)),
        packets: Some(packets_of(peer)),
    })
}

pub(in crate::api) fn not_known(text: &str) -> Failure {
    Failure::new(ExitKind::NotFound, format!("there is no peer `{}`", text.escape_debug()))
        .with_hint("overlay status lists the peers")
}

/// Judges by the lists of the data plane.
pub(super) fn judge(state: &State, peer: &PeerEntry, at: Side, opening: Opening) -> Explained {
    let me = &state.interface.name;
    let name = called(peer);
    let rules = match at {
        Side::Here => &peer.allow,
        Side::There => &peer.opens,
    };
    let rule = rules.iter().flatten().find(|rule| opening.is_listed_by_rule(rule)).map(rule_text);
    let listed = rules.as_ref().map(|rules| rules.iter().map(rule_text).collect::<Vec<_>>());
    let (verdict, reason, why) = match (at, &listed, &rule) {
        (Side::Here, None, _) => {
            (Verdict::Allowed, Reason::NoList, format!("{name} has no `allow`, so it may open everything here"))
        }
        (Side::There, None, _) => {
            let why = format!("this host sends it, and {name} decides by rules that are not known here");
            (Verdict::PeerDecides, Reason::NotKnown, why)
        }
        (_, Some(_), Some(rule)) => (Verdict::Allowed, Reason::Listed, format!("the list of {name} has {rule}")),
        (_, Some(listed), None) => {
            let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
            (Verdict::Refused, Reason::NotListed, format!("the list of {name} has {listed}, and not {opening}"))
        }
    };
    let hint = (verdict == Verdict::Refused && at == Side::Here).then(|| {
        let file = state.interface.config_file.display();
        format!("add \"{opening}\" to `allow` of the [[peer]] {name} in {file}, then: sudo overlay reload {me}")
    });
    let party = |name: &str, key: Option<String>, is_self| Party { name: name.to_owned(), identity: key, is_self };
    let this = party(me, state.interface.public_key.as_ref().map(encode_public), true);
    let other = party(&name, Some(encode_public(&peer.public_key)), false);
    let (from, to) = match at {
        Side::Here => (other, this),
        Side::There => (this, other),
    };
    Explained {
        decider: if at == Side::Here { me.clone() } else { name.clone() },
        from,
        to,
        what: opening.to_string(),
        verdict,
        side: at,
        reason,
        why,
        rule,
        allow: listed,
        since: None,
        expires: None,
        hint,
        tunnel: Some(tunnel_of(peer)),
    }
}

/// What people call a peer: its name, or its key.
fn called(peer: &PeerEntry) -> String {
    peer.name.clone().unwrap_or_else(|| encode_public(&peer.public_key))
}

fn is_self(state: &State, text: &str) -> bool {
    let interface = &state.interface;
    let has_address = |ip: IpAddr| interface.addresses.iter().any(|own| own.addr() == ip);
    matches!(text, "self" | "me")
        || text == interface.name
        || interface.public_key.as_ref().is_some_and(|key| encode_public(key) == text)
        || text.parse().is_ok_and(has_address)
}
