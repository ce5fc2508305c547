//! Judges the trust between this agent and its peers: who has to do what for a tunnel, and who does not answer.

use std::collections::BTreeMap;

use super::finding::{Code, Finding, Severity};
use crate::agent::explain::{Reason, Side};
use crate::agent::health::is_meant;
use crate::agent::request::{Bar, PeerHealth};
use crate::dates::rfc3339;
use crate::device::table::PeerState;

/// How many characters of a key name an agent that has no name.
const KEY_SHOWN: usize = 16;

/// What is known of the peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// This agent's name.
    pub(super) me: String,
    pub(super) peers: Vec<PeerHealth>,
    /// The tunnels of a daemon that runs, by the keys of the peers.
    pub(super) tunnels: BTreeMap<String, PeerState>,
    /// The peers of the config, in static mode too: what people call them, and their keys.
    pub(super) fixed: Vec<(String, String)>,
}

/// Judges them. `only` is the peer that a person asks about. What is as this side wants it is told only then.
pub(super) fn judge(peers: &Peers, only: Option<&str>) -> Vec<Finding> {
    let fixed = peers.fixed.iter().filter(|(name, key)| only.is_none_or(|text| text == name || text == key));
    let fixed =
        fixed.map(|(name, key)| (tunnel(peers, name, key, &FIXED, only.is_some()).map(|it| it.about(key)), true));
    let meant = peers.peers.iter().filter(|peer| only.is_none_or(|text| is_meant(peer, text)));
    let meant = meant.map(|peer| (of_peer(peers, peer, only.is_some()), true));
    let mut found = false;
    let findings: Vec<_> =
        fixed.chain(meant).inspect(|(_, is_meant)| found |= is_meant).filter_map(|(it, _)| it).collect();
    match only {
        Some(text) if !found => vec![Finding::new(
            Code::UnknownPeer,
            Severity::Error,
            format!("this agent knows nothing of `{text}`"),
            "neither side has asked the other for trust, or the name is a different one",
            format!("look for it, then ask: overlay find {text}; sudo overlay handshake {text}"),
        )],
        _ => findings,
    }
}

fn of_peer(peers: &Peers, peer: &PeerHealth, is_asked_about: bool) -> Option<Finding> {
    let name = name_of(peer);
    let finding = match &peer.bar {
        Some(bar) => no_tunnel(&peers.me, &name, peer.request.as_deref(), bar, is_asked_about)?,
        None => tunnel(peers, &name, peer.tunnel_key.as_deref()?, &AGENT, is_asked_about)?,
    };
    Some(finding.about(&peer.identity))
}

/// What is said of a peer that should answer.
struct Words {
    /// Why it should.
    is: &'static str,
    silent: &'static str,
    unknown: &'static str,
}

const AGENT: Words = Words {
    is: "is trusted",
    silent: "nothing came back for 90 s: its host or its daemon is down, a firewall drops UDP on the way, it does not have our approval \
             yet, or it has taken its trust back and could not tell",
    unknown: "it has not told its addresses, and has not called",
};

const FIXED: Words = Words {
    is: "stands in the config",
    silent: "nothing came back for 90 s: its host or its daemon is down, a firewall drops UDP on the way, or a key is wrong on one side",
    unknown: "the config has no endpoint for it, and it has not called",
};

/// Judges a peer that should answer.
fn tunnel(peers: &Peers, name: &str, key: &str, words: &Words, is_asked_about: bool) -> Option<Finding> {
    match peers.tunnels.get(key)? {
        PeerState::Unreachable => Some(Finding::new(
            Code::PeerUnreachable,
            severity(is_asked_about),
            format!("{name} {}, but does not answer", words.is),
            words.silent,
            format!("on {name}: overlay doctor; the UDP port (`listen_port`) must be open at one of both hosts"),
        )),
        PeerState::NoEndpoint if is_asked_about => Some(Finding::new(
            Code::PeerWithoutEndpoint,
            Severity::Error,
            format!("{name} {}, but it is not known where it is", words.is),
            words.unknown,
            format!("on {name}: overlay doctor"),
        )),
        _ => None,
    }
}

fn no_tunnel(me: &str, name: &str, request: Option<&str>, bar: &Bar, is_asked_about: bool) -> Option<Finding> {
    let at = bar.since.map(|seconds| rfc3339(seconds.saturating_mul(1_000))).unwrap_or_default();
    let ask = || format!("sudo overlay handshake {name}");
    let (code, what, cause, fix) = match (bar.reason, bar.side) {
        (Reason::Asked, _) => (
            Code::Asked,
            format!("{name} has not approved: it was asked at {at}, and has not answered"),
            match request {
                Some("waiting") => "the request waits for the rendezvous: see the check of the rendezvous",
                Some("sent") => {
                    "the request lies in its mailbox at the rendezvous: its daemon does not run, or is not connected"
                }
                Some("delivered") => "its daemon has the request, and nobody has decided there",
                _ => "how far the request came is known only while the daemon runs",
            }
            .to_owned(),
            format!("on {name}: sudo overlay approve {me}"),
        ),
        (Reason::Pending, _) => (
            Code::Pending,
            format!("approved by one side only: {name} wants a tunnel, and this side has not decided"),
            format!("it has asked at {at}"),
            format!("sudo overlay approve {name}, or: sudo overlay reject {name}"),
        ),
        (Reason::Beforehand, _) => (
            Code::Beforehand,
            format!("approved by one side only: {name} is trusted here, and has not asked yet"),
            "this side has trusted it beforehand, which counts once it asks".to_owned(),
            format!("on {name}: sudo overlay handshake {me}; or ask it: {}", ask()),
        ),
        (Reason::Expired, Side::Here) => (
            Code::GrantExpired,
            format!("the grant for {name} has expired"),
            format!("this side gave it until {at}"),
            format!("sudo overlay approve {name} --for 24h; or end it for good: sudo overlay untrust {name}"),
        ),
        (Reason::Expired, Side::There) => (
            Code::GrantExpired,
            format!("the grant of {name} has expired"),
            format!("it gave this agent trust until {at}"),
            format!("on {name}: sudo overlay approve {me} --for 24h; or end it for good: sudo overlay untrust {name}"),
        ),
        (Reason::Revoked, Side::There) => (
            Code::Revoked,
            format!("{name} took its trust back, or refused the request"),
            format!("it has said so at {at}"),
            format!("ask it again: {}; or end it for good: sudo overlay untrust {name}", ask()),
        ),
        (Reason::Revoked, Side::Here) if is_asked_about => (
            Code::Revoked,
            format!("this side took its trust in {name} back"),
            format!("that was at {at}: overlay decisions --peer {name} says who did it"),
            ask(),
        ),
        (Reason::NoTunnel, _) => (
            Code::NoSharedKey,
            format!("this host and {name} have both granted, but share no key"),
            "the answer to a request was lost, or one side has lost its state".to_owned(),
            ask(),
        ),
        (Reason::NoGrant, Side::There) => (
            Code::OneSided,
            format!("approved by one side only: {name} has granted nothing"),
            "this side has granted, and no request of ours is under way".to_owned(),
            ask(),
        ),
        (Reason::NoGrant | Reason::Unknown, _) if is_asked_about => (
            Code::OneSided,
            format!("this side has granted nothing to {name}"),
            "nobody has asked for it, or it was refused".to_owned(),
            ask(),
        ),
        _ => return None,
    };
    Some(Finding::new(code, severity(is_asked_about), what, cause, fix))
}

/// A peer without a tunnel leaves the others alone.
fn severity(is_asked_about: bool) -> Severity {
    if is_asked_about { Severity::Error } else { Severity::Warning }
}

fn name_of(peer: &PeerHealth) -> String {
    if peer.name.is_empty() { peer.identity.chars().take(KEY_SHOWN).collect() } else { peer.name.clone() }
}

/// How many peers have a tunnel, for people.
pub(super) fn told(peers: &Peers) -> String {
    let agreed = peers.peers.iter().filter(|peer| peer.bar.is_none()).count();
    let connected = peers.tunnels.values().filter(|state| matches!(state, PeerState::Connected)).count();
    let without = peers.peers.len() - agreed;
    format!("{agreed} trusted, {without} others; {connected} connected")
}
