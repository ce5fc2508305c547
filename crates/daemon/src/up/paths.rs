//! What `up` does about paths: the interface has the MTU of the widest one, and routes say what each of them carries.
//!
//! A report of the engine only makes prefixes *dirty*. A few of them are settled at a time, according to the state at that
//! moment. Other concerns are served in between, so that ten thousand reports at once delay nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, Event, MtuLimit, PathMtuState, PathTag, PeerKey};

use super::running::Running;
use crate::config::{Config, Endpoint, Mtu, MtuRange, Peer, Table};
use crate::device::table::PeerEntry;
use crate::device::{Change, PeerEdit};
use crate::failure::{ExitKind, Failure};
use crate::host::Host;

/// The MTUs in force, and where the route to each peer was last looked at.
pub(super) struct Paths {
    /// The inner MTUs in force.
    mtu: MtuRange,
    /// The MTUs that the kernel refused for the interface when a wider path appeared.
    unavailable: Option<MtuRange>,
    /// The IP of each peer that moved, as of the last look at the route to it.
    looked_at: HashMap<PeerKey, IpAddr>,
}

impl Paths {
    /// The state of a daemon that knows no path yet.
    pub(super) fn new(mtu: MtuRange) -> Self {
        Self { mtu, unavailable: None, looked_at: HashMap::new() }
    }

    /// The inner MTUs in force.
    pub(super) fn mtu(&self) -> MtuRange {
        self.mtu
    }

    /// Waits while no prefix is dirty. Otherwise returns at once, so that other concerns get their turns in between.
    pub(super) async fn next(&self, host: &Host) {
        if !host.has_dirty() {
            std::future::pending().await
        }
    }

    /// Settles some of the dirty prefixes: their routes follow what is known of the paths behind them.
    pub(super) async fn on_dirty(&self, running: &mut Running) {
        let prefixes = running.host.take_dirty();
        let settled: Vec<_> = {
            let state = running.device.table().read();
            prefixes.into_iter().map(|prefix| (prefix, state.owner(&prefix).and_then(PeerEntry::found_mtu))).collect()
        };
        for (prefix, mtu) in settled {
            running.host.set_path_mtu(&running.netlink, prefix, mtu).await;
        }
    }

    /// Handles an event that the engine reported.
    pub(super) async fn on_event(&mut self, peer: PeerKey, event: Event, running: &mut Running) {
        match event {
            // A new port on the same IP does not change the route.
            Event::EndpointChanged(_, endpoint, _) => {
                if self.looked_at.insert(peer, endpoint.ip()) != Some(endpoint.ip()) {
                    self.widen_mtu(endpoint, running).await;
                }
            }
            Event::PathMtu(path, known) => {
                let prefixes = running.device.table().allowed_ips(peer);
                running.host.on_dirty(prefixes);
                if (known.state, known.limit) == (PathMtuState::Searching, MtuLimit::Path) {
                    pass_on_too_big(path, peer, running).await;
                }
            }
            Event::HandshakeCompleted(..)
            | Event::HandshakeFailed(_)
            | Event::Answering(..)
            | Event::Word(..)
            | Event::Parcel(..)
            | Event::Unreachable(_)
            | Event::PresharedKeyProven(_)
            | Event::KnowsPresentKey(_) => {}
        }
    }

    /// Settles these prefixes anew after `wg` has changed their peers.
    pub(super) fn on_setting(&mut self, touched: Vec<IpNet>, host: &mut Host) {
        host.on_dirty(touched);
        self.looked_at.clear();
    }

    /// Settles everything anew after a new config: peers and prefixes have come and gone, and peers that stay may be in
    /// other places.
    pub(super) fn on_config(&mut self, running: &mut Running) {
        self.looked_at.clear();
        self.unavailable = None;
        let routed = running.host.routed_prefixes();
        running.host.on_dirty(routed);
        let found = running.device.table().prefixes_of_found_paths();
        running.host.on_dirty(found);
    }

    /// Tells the node these MTUs.
    pub(super) async fn tell_mtu(&mut self, mtu: MtuRange, running: &Running) -> Result<(), Failure> {
        if mtu != self.mtu {
            let command = Command::SetMtu { mtu: mtu.start, max: mtu.max };
            running.device.engine().command(command).await.map_err(rejected)?;
            self.mtu = mtu;
        }
        Ok(())
    }

    /// Raises the MTU of the interface if the route to this new endpoint carries more than those known so far.
    async fn widen_mtu(&mut self, endpoint: SocketAddr, running: &mut Running) {
        let interface = &running.config.interface;
        if interface.mtu != Mtu::Auto || interface.table == Table::Off {
            return;
        }
        let mtu = running.host.widened(&running.netlink, self.mtu, &[endpoint]).await;
        // An MTU that the kernel has refused is not requested again for each peer that moves.
        if mtu == self.mtu || self.unavailable == Some(mtu) {
            return;
        }
        let widened = match running.host.apply(&running.netlink, &mut running.journal, &running.config, mtu).await {
            Ok(()) => self.tell_mtu(mtu, running).await,
            Err(failure) => Err(failure),
        };
        match widened {
            Ok(()) => running.show_interface(&running.config, mtu),
            Err(failure) => {
                self.unavailable = Some(mtu);
                tracing::warn!(error = %failure, "the interface keeps its MTU");
            }
        }
    }
}

/// Passes on the MTU that ICMP has told the kernel about a path. Called after a probe failed: ICMP has arrived by then.
async fn pass_on_too_big(path: PathTag, peer: PeerKey, running: &Running) {
    let endpoint = running.device.table().read().peer(peer).and_then(|peer| peer.endpoint);
    if let Some(endpoint) = endpoint
        && let Some(mtu) = running.host.told_mtu(&running.netlink, &endpoint).await
    {
        // The peer may be gone by now.
        let _ = running.device.engine().command(Command::TooBig(path, mtu)).await;
    }
}

/// Returns the prefixes whose owner may change when these changes are made.
pub(super) fn prefixes_of(changes: &[Change], running: &Running) -> Vec<IpNet> {
    let state = running.device.table().read();
    let of_peer = |edit: &PeerEdit| {
        let is_all = edit.remove || edit.replace_allowed_ips;
        let had = state.peer(edit.public_key).filter(|_| is_all).map(|peer| peer.allowed_ips.iter().copied());
        let named = edit.allowed_ips.iter().map(|change| match change {
            AllowedIpChange::Add(prefix) | AllowedIpChange::Remove(prefix) => *prefix,
        });
        had.into_iter().flatten().chain(named).collect::<Vec<_>>()
    };
    let of_change = |change: &Change| match change {
        Change::Peer(edit) => of_peer(edit),
        // A peer whose key becomes our own key is removed, too.
        Change::RemoveAllPeers | Change::PrivateKey(_) => running.host.routed_prefixes(),
        Change::ListenPort(_) | Change::Fwmark(_) => Vec::new(),
    };
    changes.iter().flat_map(of_change).collect()
}

/// Returns the inner MTUs for a config that is about to replace the one in force.
pub(super) async fn mtu_range(new: &Config, running: &Running) -> MtuRange {
    let mut endpoints = literal_endpoints(new);
    let mut learned = Vec::new();
    if new.interface.mtu == Mtu::Auto {
        let state = running.device.table().read();
        for peer in &new.peers {
            let Some(endpoint) = state.peer(peer.public_key).and_then(|peer| peer.endpoint) else { continue };
            let is_by_name = matches!(peer.endpoint, Some(Endpoint::Name { .. }));
            if is_by_name { endpoints.push(endpoint) } else { learned.push(endpoint) }
        }
    }
    let range = running.host.mtu_range(&running.netlink, new, &endpoints).await;
    match new.interface.table {
        Table::Off => range,
        _ => running.host.widened(&running.netlink, range, &learned).await,
    }
}

/// Returns the endpoints that the config gives as addresses.
pub(super) fn literal_endpoints(config: &Config) -> Vec<SocketAddr> {
    let literal = |peer: &Peer| match peer.endpoint {
        Some(Endpoint::Address(address)) => Some(address),
        _ => None,
    };
    config.peers.iter().filter_map(literal).collect()
}

/// The failure that the user sees when the node rejects a command.
pub(super) fn rejected(error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitKind::Other, "the engine refused the config").with_cause(error)
}
