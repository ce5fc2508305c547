//! Checks that need the whole file: keys, names and prefixes that collide, and routes that would lead the tunnel's own
//! packets into the tunnel.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::Table;
use super::draft::{InterfaceDraft, Mode, PeerDraft};
use super::problem::{Problem, Report, quoted};

/// Runs all checks in this file.
pub(super) fn together(interface: &InterfaceDraft, peers: &[PeerDraft], mode: Mode, report: &mut Report) {
    own_addresses(interface, report);
    peer_keys(interface, peers, report);
    peer_names(peers, report);
    allowed_ips(interface, peers, report);
    if interface.fwmark.is_none() && interface.table != Table::Off {
        endpoints_outside_routes(peers, report);
    }
    if interface.fwmark.is_none() {
        endpoints_outside_own_networks(interface, peers, report);
    }
    if peers.is_empty() && mode == Mode::Static {
        report.warn(
            Problem::new("no_peers", "there is no [[peer]], so nothing can be reached through the tunnel")
                .at(&interface.span)
                .hint("add a [[peer]] with its public_key and allowed_ips"),
        );
    }
}

fn own_addresses(interface: &InterfaceDraft, report: &mut Report) {
    let mut seen: HashMap<IpAddr, &Range<usize>> = HashMap::new();
    for (net, span) in &interface.addresses {
        if let Some(first) = seen.insert(net.addr(), span) {
            let message = format!("the address {} is listed twice in `addresses`", net.addr());
            report.error(
                Problem::new("duplicate_address", message).at(span).related(first, "first here").hint("remove one"),
            );
        }
        if let IpNet::V4(v4) = net
            && v4.prefix_len() < 31
            && v4.addr() == v4.network()
        {
            report.warn(
                Problem::new("network_address", format!("{net} is the network itself, not an address in it"))
                    .at(span)
                    .hint(format!(
                        "write this host's own address, as \"{}/{}\"",
                        v4.hosts().next().unwrap_or(v4.addr()),
                        v4.prefix_len()
                    )),
            );
        }
    }
}

fn peer_keys(interface: &InterfaceDraft, peers: &[PeerDraft], report: &mut Report) {
    let own = interface.private_key.as_ref().map(|key| key.public());
    let mut seen: HashMap<[u8; 32], &PeerDraft> = HashMap::new();
    for peer in peers {
        let Some((key, span)) = &peer.public_key else { continue };
        if own.as_ref() == Some(key) {
            report.error(
                Problem::new("own_key", format!("the public key of peer {} is this host's own", peer.label()))
                    .at(span)
                    .hint("write the peer's key: `overlay key pub < KEY_FILE` on the peer shows it"),
            );
        }
        if let Some(first) = seen.insert(key.0, peer) {
            let message = format!("peers {} and {} have the same public key", first.label(), peer.label());
            let problem = Problem::new("duplicate_key", message).at(span);
            let problem = match &first.public_key {
                Some((_, first)) => problem.related(first, "first here"),
                None => problem,
            };
            report.error(problem.hint("every peer has a key of its own; merge the two or correct one key"));
        }
    }
}

fn peer_names(peers: &[PeerDraft], report: &mut Report) {
    let mut seen: HashMap<String, &Range<usize>> = HashMap::new();
    for peer in peers {
        let Some((name, span)) = &peer.name else { continue };
        // Names become DNS names, which ignore case.
        if let Some(first) = seen.insert(name.to_ascii_lowercase(), span) {
            report.error(
                Problem::new("duplicate_name", format!("two peers are named {}", quoted(name)))
                    .at(span)
                    .related(first, "first here")
                    .hint("give each peer a name of its own"),
            );
        }
    }
}

fn allowed_ips(interface: &InterfaceDraft, peers: &[PeerDraft], report: &mut Report) {
    let mut seen: HashMap<IpNet, (&PeerDraft, &Range<usize>)> = HashMap::new();
    for peer in peers {
        for (prefix, span) in &peer.allowed_ips {
            match seen.insert(*prefix, (peer, span)) {
                Some((first, first_span)) => {
                    let message = match std::ptr::eq(first, peer) {
                        true => format!("{prefix} is listed twice in the `allowed_ips` of peer {}", peer.label()),
                        false => format!("{prefix} belongs to both peers {} and {}", first.label(), peer.label()),
                    };
                    report.error(
                        Problem::new("duplicate_allowed_ip", message).at(span).related(first_span, "first here").hint(
                            "a prefix has one owner: remove it from one; a longer prefix inside a shorter one is fine",
                        ),
                    );
                }
                None => own_address_given_away(interface, peer, *prefix, span, report),
            }
        }
    }
}

fn own_address_given_away(
    interface: &InterfaceDraft,
    peer: &PeerDraft,
    prefix: IpNet,
    span: &Range<usize>,
    report: &mut Report,
) {
    let is_host = prefix.prefix_len() == prefix.max_prefix_len();
    if is_host && interface.addresses.iter().any(|(own, _)| own.addr() == prefix.addr()) {
        report.warn(
            Problem::new(
                "own_address",
                format!("{prefix} is this host's own address, not one of peer {}", peer.label()),
            )
            .at(span)
            .hint("write the peer's virtual IP"),
        );
    }
}

/// Warns about a route into the tunnel that covers a peer's endpoint. It sends the tunnel's own packets into the tunnel
/// forever, unless the host has a more specific route. Only the host can tell, and `up` asks it. Without a host the route
/// deserves attention. A /0 is protected by policy rules, and users who set a mark or want no routes handle this themselves.
fn endpoints_outside_routes(peers: &[PeerDraft], report: &mut Report) {
    let mut routes: HashMap<IpNet, &Range<usize>> = HashMap::new();
    for (prefix, span) in peers.iter().flat_map(|peer| &peer.allowed_ips).filter(|(prefix, _)| prefix.prefix_len() > 0)
    {
        routes.entry(*prefix).or_insert(span);
    }
    for (peer, address, endpoint_span) in literal_endpoints(peers) {
        let host = IpNet::from(address);
        for length in (1..=host.max_prefix_len()).rev() {
            let Ok(prefix) = IpNet::new(address, length).map(|net| net.trunc()) else { continue };
            let Some(span) = routes.remove(&prefix) else { continue };
            let message = format!(
                "the route to {prefix} covers the endpoint {address} of peer {}: \
                 unless the host has a more specific route, its packets go into the tunnel",
                peer.label()
            );
            let hint = format!(
                "take {address} out of `allowed_ips`, or give the host a route to {host}; `overlay up` asks the host"
            );
            let problem = Problem::new("endpoint_in_route", message).at(span);
            report.warn(problem.related(endpoint_span, "the endpoint").hint(hint));
        }
    }
}

/// Does the same for the networks that our own addresses are connected to. This is only a hint, because a more specific
/// route of the host may lead to the endpoint.
fn endpoints_outside_own_networks(interface: &InterfaceDraft, peers: &[PeerDraft], report: &mut Report) {
    for (net, span) in &interface.addresses {
        if let Some((peer, address, _)) = literal_endpoints(peers).find(|(_, address, _)| net.contains(address)) {
            let message = format!(
                "the endpoint {address} of peer {} lies in {}, which this address connects to the tunnel",
                peer.label(),
                net.trunc()
            );
            report.warn(
                Problem::new("endpoint_in_network", message).at(span).hint("use a longer prefix or a different range"),
            );
        }
    }
}

fn literal_endpoints(peers: &[PeerDraft]) -> impl Iterator<Item = (&PeerDraft, IpAddr, &Range<usize>)> {
    peers.iter().filter_map(|peer| {
        let (endpoint, span) = peer.endpoint.as_ref()?;
        Some((peer, endpoint.address()?.ip(), span))
    })
}
