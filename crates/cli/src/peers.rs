//! Finds the peer that an argument refers to: by name, by public key, or by an address that is routed to it.

use std::net::IpAddr;

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::view::{PeerStatus, Status};

/// The peer that the argument refers to.
pub(crate) fn find<'a>(argument: &str, status: &'a Status) -> Result<&'a PeerStatus, Failure> {
    match argument.parse::<IpAddr>() {
        Ok(ip) => owner(ip, status).ok_or_else(|| nobodys(ip, status)),
        Err(_) => named(argument, status),
    }
}

/// The peer with this name or public key.
pub(crate) fn named<'a>(argument: &str, status: &'a Status) -> Result<&'a PeerStatus, Failure> {
    let is_meant = |peer: &&PeerStatus| peer.name.as_deref() == Some(argument) || peer.public_key == argument;
    status.peers.iter().find(is_meant).ok_or_else(|| unknown(argument, status))
}

/// The peer that an address is routed to.
pub(crate) fn owner(ip: IpAddr, status: &Status) -> Option<&PeerStatus> {
    let owners = status.peers.iter().filter_map(|peer| Some((prefix_length(peer, ip)?, peer)));
    owners.max_by_key(|(length, _)| *length).map(|(_, peer)| peer)
}

/// The length of the peer's longest prefix that contains the address.
fn prefix_length(peer: &PeerStatus, ip: IpAddr) -> Option<u8> {
    peer.allowed_ips.iter().filter(|prefix| prefix.contains(&ip)).map(|prefix| prefix.prefix_len()).max()
}

/// The failure for an address that does not belong to any peer.
pub(crate) fn nobodys(ip: IpAddr, status: &Status) -> Failure {
    let failure = Failure::new(ExitKind::NotFound, format!("no peer has {ip} in its allowed_ips"))
        .with_hint("overlay status shows the addresses of each peer");
    match status.interface.addresses.iter().any(|own| own.addr() == ip) {
        true => failure.with_cause("it is this host's own address"),
        false => failure,
    }
}

fn unknown(argument: &str, status: &Status) -> Failure {
    let names: Vec<&str> = status.peers.iter().filter_map(|peer| peer.name.as_deref()).collect();
    let failure = Failure::new(ExitKind::NotFound, format!("`{}` has no peer `{argument}`", status.interface.name));
    match names.as_slice() {
        [] => failure.with_hint("overlay status shows the peers and their addresses; an address means its peer"),
        names => failure.with_cause(format!("its peers are {}", names.join(", "))).with_hint("overlay status"),
    }
}
