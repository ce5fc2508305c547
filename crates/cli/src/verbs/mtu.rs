//! `overlay mtu`: the longest packet to each peer or to one peer, how it was found, since when, and what limits it.

use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use overlay_daemon::Failure;
use overlay_daemon::view::{MtuLimit, PathMtuState, PathMtuStatus, PeerStatus, ProbedBy, Status};
use serde::Serialize;

use crate::arguments::probe::Mtu;
use crate::figures::ago;
use crate::session::Session;
use crate::{peers, table};

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    interface: Interface<'a>,
    peers: Vec<Peer<'a>>,
}

/// Our own end: the MTU that paths start with, and that of the kernel interface.
#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
    mtu: u16,
    max_mtu: u16,
}

#[derive(Serialize)]
struct Peer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    public_key: &'a str,
    /// The MTU that limits packets to the peer.
    mtu: u16,
    /// Absent if nothing has been found yet, or if no search takes place.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_mtu: Option<PathMtuStatus>,
}

pub(crate) fn run(session: &Session, arguments: &Mtu) -> Result<(), Failure> {
    let command = match &arguments.peer {
        Some(peer) => format!("overlay mtu {peer} -I"),
        None => "overlay mtu -I".to_owned(),
    };
    let client = session.client(arguments.interface.as_deref(), &command)?;
    let status = session.block_on(client.status())?;
    let shown: Vec<&PeerStatus> = match &arguments.peer {
        Some(peer) => vec![peers::find(peer, &status)?],
        None => status.peers.iter().collect(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    session.output.result(&answer(&status, &shown), || text(&status, &shown, now));
    Ok(())
}

fn answer<'a>(status: &'a Status, shown: &[&'a PeerStatus]) -> Answer<'a> {
    let interface = &status.interface;
    let peer = |peer: &&'a PeerStatus| Peer {
        name: peer.name.as_deref(),
        public_key: &peer.public_key,
        mtu: in_force(status, peer),
        path_mtu: peer.path_mtu,
    };
    Answer {
        schema: "overlay.mtu.v1",
        interface: Interface { name: &interface.name, mtu: interface.mtu, max_mtu: interface.most() },
        peers: shown.iter().map(peer).collect(),
    }
}

fn in_force(status: &Status, peer: &PeerStatus) -> u16 {
    peer.path_mtu.map_or(status.interface.mtu, |path| path.mtu)
}

/// Renders the table. `now` is in seconds since 1970.
fn text(status: &Status, shown: &[&PeerStatus], now: u64) -> String {
    if shown.is_empty() {
        return "no peers".to_owned();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    table.set_header(["peer", "MTU", "known", "limited by", "since", "configured"]);
    for peer in shown {
        let path = peer.path_mtu;
        table.add_row([
            table::label(peer),
            in_force(status, peer).to_string(),
            path.map_or("assumed", |path| known(&path)).to_owned(),
            path.map_or("-", |path| limit(&path)).to_owned(),
            path.map_or_else(|| "-".to_owned(), |path| ago(now.saturating_sub(path.since))),
            status.interface.mtu.to_string(),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if matches!(index, 1 | 5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// How certain the value is, and what it is based on.
fn known(path: &PathMtuStatus) -> &'static str {
    match (path.state, path.probed_by) {
        (PathMtuState::Assumed, _) => "assumed",
        (PathMtuState::Searching, ProbedBy::ControlFrames) => "searching by control frames",
        (PathMtuState::Searching, ProbedBy::Echoes) => "searching by echoes",
        (PathMtuState::Searching, ProbedBy::Nothing) => "searching",
        (PathMtuState::Found, ProbedBy::ControlFrames) => "found by control frames",
        (PathMtuState::Found, ProbedBy::Echoes) => "found by echoes",
        (PathMtuState::Found, ProbedBy::Nothing) => "found",
    }
}

fn limit(path: &PathMtuStatus) -> &'static str {
    match (path.state, path.limit) {
        // An MTU that has not been probed has no known limit.
        (PathMtuState::Assumed, _) => "-",
        (_, MtuLimit::Interface) => "our interface",
        (_, MtuLimit::Peer) => "the peer's interface",
        (_, MtuLimit::Host) => "this host's device",
        (_, MtuLimit::Path) => "the path",
    }
}

#[cfg(test)]
mod tests;
