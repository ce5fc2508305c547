//! The running device: our own key, the outer sockets and the peers, and how each of them changes.
//!
//! All configuration goes through here, from a file by `reload` and from `wg` over the UAPI, so that engine and [`Table`]
//! never disagree. This module knows nothing of files, addresses and routes, which belong to `host`.

mod change;
mod names;
mod report;
pub mod sockets;
pub mod table;
mod tun;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use overlay_core::{Command, Node, NodeConfig, NodeStats, PeerKey, PeerStats};
use overlay_os::ports;
use overlay_os::schedule::Scheduling;
use overlay_os::tun::Tun;
use overlay_os::udp::UdpSocket;
use zeroize::Zeroizing;

pub use self::change::{Change, ChangeError, PeerEdit};
pub(crate) use self::names::named_endpoints;
pub use self::report::ReloadReport;
use self::sockets::{Outer, bind, port_of};
use self::table::{InterfaceEntry, Table};
pub use self::tun::open_tun;
use crate::config::{Peer, Switch};
use crate::engine::{
    Engine, Former, Legacy, Offload, OffloadState, Offloads, Parts, Queues, Reports, ShellStats, Sockets, now,
};
use crate::failure::{ExitKind, Failure};
use crate::keys::PrivateKey;
use crate::resolve::{Answer, NamedEndpoint};

/// What a device is created from.
pub struct Start {
    /// The node. [`crate::engine::joins`] says which super-packets the TUN accepts, and [`seed`] provides randomness.
    pub node: NodeConfig,
    /// Former keys of ours that are still answered.
    pub former_keys: Vec<PrivateKey>,
    /// What is shown of it. Key, port and mark are overwritten by the other parts.
    pub interface: InterfaceEntry,
    /// Where inner packets come from and go to.
    pub tun: Tun,
    /// Whether offloads were requested from the TUN.
    pub tun_offload: Switch,
    /// How the outer sockets are created.
    pub outer: Outer,
    /// The sockets that are already open, from [`sockets::bind`]. If it is empty, the device is closed until
    /// [`Device::open`].
    pub sockets: Sockets,
    /// The first peers, each with the addresses that its host name was resolved to.
    pub peers: Vec<(Peer, Option<Vec<SocketAddr>>)>,
    /// How the engine thread is scheduled.
    pub scheduling: Scheduling,
    /// What is known of an earlier device.
    pub former: Former,
}

/// A running device.
pub struct Device {
    engine: Engine,
    table: Arc<Table>,
    node: Arc<NodeStats>,
    shell: Arc<ShellStats>,
    queues: Arc<Queues>,
    outer: Outer,
    is_open: bool,
}

/// Returns 32 random bytes for [`NodeConfig::seed`].
///
/// # Errors
/// If the kernel has no randomness.
pub fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    overlay_os::random::fill(&mut seed)
        .map_err(|error| Failure::new(ExitKind::Other, "cannot get randomness from the kernel").with_cause(error))?;
    Ok(seed)
}

impl Device {
    /// Starts the engine. What it reports is for [`Table::on_event`] too.
    ///
    /// # Errors
    /// A peer that is not possible, or a process without file descriptors or threads.
    pub fn start(start: Start) -> Result<(Self, Reports), Failure> {
        let Start { node, former_keys, interface, tun, tun_offload, mut outer, sockets, peers, scheduling, former } =
            start;
        let private_key = node.private_key.clone();
        let now = now();
        let mut node = Node::new(node, now);
        let is_open = sockets.each().next().is_some();
        outer.port = port_of(&sockets).unwrap_or(outer.port);
        let shell = Arc::new(ShellStats::default());
        note_offloads(&shell.offloads, &outer, tun_offload, &tun, &sockets);
        let interface = InterfaceEntry {
            public_key: node.public_key(),
            private_key: private_key.clone().and_then(PrivateKey::from_unclamped),
            former_keys: former_keys.clone(),
            listen_port: outer.port,
            fwmark: outer.fwmark,
            ..interface
        };
        let table = Arc::new(Table::new(interface));
        let stats = node.stats();
        // Before the engine has the sockets.
        let queues = Arc::new(Queues::of(tun.name(), &sockets));

        if !former.is_first {
            // This command is never refused.
            let _ = node.handle_command(host_ports(), now);
        }
        if !former_keys.is_empty() {
            // An agent has one former key at most.
            let _ = node.handle_command(private_keys(private_key, &former_keys), now);
        }
        // These commands are never refused, and come before peers are called.
        let ahead = former.legacy.ahead();
        if !ahead.is_zero() {
            tracing::info!(?ahead, "handshake timestamps run ahead of the wall clock: peers have seen later ones");
            let _ = node.handle_command(Command::RunAhead(ahead), now);
        }
        for known in former.legacy.initiations {
            let _ = node.handle_command(Command::RestoreInitiations(known), now);
        }
        let mut shown = Vec::with_capacity(peers.len());
        for (peer, resolved) in &peers {
            let stats = Arc::<PeerStats>::default();
            let tag = table.tag_for(peer.public_key).ok_or_else(|| impossible(peer, ChangeError::TooManyPeers))?;
            let config = Box::new(peer.to_core());
            let command = Command::SetPeer { peer: tag, config, stats: Arc::clone(&stats) };
            node.handle_command(command, now).map_err(|error| impossible(peer, error))?;
            if let Some(addresses) = resolved.clone() {
                let command = Command::SetCandidates(tag, addresses);
                node.handle_command(command, now).map_err(|error| impossible(peer, error))?;
            }
            shown.push((peer.clone(), stats));
        }
        for known in former.legacy.flows {
            // A peer that no longer exists needs no flows.
            let _ = node.handle_command(Command::RestoreFlows(known), now);
        }
        table.set_peers(shown);
        for (peer, resolved) in &peers {
            if let Some(address) = resolved.as_ref().and_then(|addresses| addresses.first()) {
                table.on_first_endpoint(peer.public_key, *address, false);
            }
        }
        let parts = Parts { node, tun, sockets, stats: Arc::clone(&shell), scheduling };
        let (engine, reports) = Engine::spawn(parts)
            .map_err(|error| Failure::new(ExitKind::Other, "cannot start the engine thread").with_cause(error))?;
        Ok((Self { engine, table, node: stats, shell, queues, outer, is_open }, reports))
    }

    /// What is known of it.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What the node counts.
    pub(crate) fn node_stats(&self) -> &Arc<NodeStats> {
        &self.node
    }

    /// What the engine thread counts.
    pub(crate) fn shell_stats(&self) -> &Arc<ShellStats> {
        &self.shell
    }

    /// Where the kernel is asked about queues.
    pub(crate) fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }

    /// The engine, for commands that concern neither key, sockets nor peers.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends the engine. TUN and sockets are closed then. See [`Engine::stop`].
    pub async fn stop(self) -> Legacy {
        self.engine.stop().await
    }

    /// Applies changes in order. If one fails, the changes before it stay applied.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn apply(&mut self, changes: Vec<Change>) -> Result<(), ChangeError> {
        let mut edits = Vec::new();
        for change in changes {
            if let Change::Peer(edit) = change {
                edits.push(edit);
                continue;
            }
            self.edit_peers(std::mem::take(&mut edits)).await?;
            match change {
                Change::PrivateKey(key) => self.set_private_key(key).await,
                Change::ListenPort(port) => self.set_listen_port(port).await?,
                Change::Fwmark(mark) => {
                    self.set_fwmark(mark).await.map_err(|error| ChangeError::Refused(error.kind()))?;
                }
                Change::RemoveAllPeers => self.remove_peers(|_| true).await,
                Change::Peer(_) => {}
            }
        }
        self.edit_peers(edits).await
    }

    /// Sets our own key. A new key ends all sessions. A peer that has this key is removed.
    pub async fn set_private_key(&mut self, key: Option<PrivateKey>) {
        let public = key.as_ref().map(PrivateKey::public);
        if self.table.interface().public_key == public {
            return;
        }
        self.set_private_keys(key, Vec::new()).await;
    }

    /// Sets our own key, and the `former` keys that are still answered. Sessions under any other key end. A peer that has
    /// one of these keys is removed.
    pub async fn set_private_keys(&mut self, key: Option<PrivateKey>, former: Vec<PrivateKey>) {
        let interface = self.table.interface();
        if interface.public_key == key.as_ref().map(PrivateKey::public) && interface.former_keys == former {
            return;
        }
        let command = private_keys(key.as_ref().map(PrivateKey::to_bytes), &former);
        self.table.set_private_keys(key, former);
        // This command is refused only for more former keys than any caller has.
        let _ = self.engine.command(command).await;
    }

    /// Changes the UDP port at once. 0 lets the kernel choose one. If the device is closed, the port is used when it opens.
    ///
    /// # Errors
    /// [`ChangeError::PortInUse`] and others. The old port then stays.
    pub async fn set_listen_port(&mut self, port: u16) -> Result<(), ChangeError> {
        if self.is_open && port == self.outer.port {
            return Ok(());
        }
        let outer = Outer { port, ..self.outer };
        if self.is_open {
            let sockets = bind(outer).map_err(|failure| match failure.code {
                ExitKind::Conflict => ChangeError::PortInUse,
                ExitKind::Permission => ChangeError::Refused(io::ErrorKind::PermissionDenied),
                _ => ChangeError::Refused(io::ErrorKind::Other),
            })?;
            self.use_sockets(sockets).await.map_err(|error| ChangeError::Refused(error.kind()))
        } else {
            self.outer = outer;
            self.table.edit_interface(|interface| interface.listen_port = port);
            Ok(())
        }
    }

    /// Marks outer datagrams from now on.
    ///
    /// # Errors
    /// If the kernel refuses the mark. Nothing has changed then.
    pub async fn set_fwmark(&mut self, mark: Option<u32>) -> io::Result<()> {
        self.engine.set_fwmark(mark).await?;
        self.outer.fwmark = mark;
        self.table.edit_interface(|interface| interface.fwmark = mark);
        Ok(())
    }

    /// Opens the sockets of a closed device.
    ///
    /// # Errors
    /// Those of [`sockets::bind`]. The device then stays closed.
    pub async fn open(&mut self) -> Result<(), Failure> {
        if self.is_open {
            return Ok(());
        }
        let sockets = bind(self.outer)?;
        self.use_sockets(sockets)
            .await
            .map_err(|error| Failure::new(ExitKind::Other, "cannot use the UDP sockets").with_cause(error))
    }

    /// Closes the sockets: nothing is sent or received until [`Device::open`]. The port becomes free.
    ///
    /// # Errors
    /// If the engine has ended.
    pub async fn close(&mut self) -> io::Result<()> {
        self.queues.follow(&Sockets::default());
        self.engine.set_sockets(Sockets::default()).await?;
        self.is_open = false;
        Ok(())
    }

    /// Replaces the set of peers. Unchanged peers are not touched.
    ///
    /// # Errors
    /// If a peer is not possible.
    pub async fn set_peers(&mut self, new: &[Peer]) -> Result<ReloadReport, Failure> {
        let mut report = ReloadReport::default();
        // A peer with a new tunnel key is the same peer.
        let rekeyed = self.table.edit(|state| state.rekey(new));
        let kept: HashSet<PeerKey> = new.iter().map(|peer| peer.public_key).collect();
        report.removed = self
            .table
            .read()
            .peers()
            .into_iter()
            .filter(|peer| !kept.contains(&peer.public_key))
            .map(|peer| peer.label())
            .collect();
        // This command is never refused.
        let _ = self.engine.command(host_ports()).await;
        // Peers are removed before others are added, because a prefix may move from one peer to another.
        self.remove_peers(|key| !kept.contains(&key)).await;

        let mut shown = Vec::with_capacity(new.len());
        let mut changed = Vec::new();
        let mut renamed = Vec::new();
        {
            let state = self.table.read();
            for peer in new {
                let before = state.peer(peer.public_key);
                let stats = before.map_or_else(Arc::default, |before| Arc::clone(&before.stats));
                shown.push((peer.clone(), Arc::clone(&stats)));
                let list = match before {
                    Some(before) if before.is_as(peer) && !rekeyed.contains(&peer.public_key) => {
                        report.unchanged += 1;
                        continue;
                    }
                    Some(_) => &mut report.changed,
                    None => &mut report.added,
                };
                list.push(peer.label());
                let mut config = peer.to_core();
                if before.is_some_and(|before| before.configured_endpoint() == peer.endpoint.as_ref()) {
                    // The peer may have roamed since. Its current endpoint is better than the unchanged one in the config.
                    config.endpoint = None;
                } else if before.is_some() {
                    renamed.extend(before.map(|before| before.tag));
                }
                changed.push((peer, config, stats));
            }
        }
        for (peer, config, stats) in changed {
            let tag = self.table.tag_for(peer.public_key).ok_or_else(|| impossible(peer, ChangeError::TooManyPeers))?;
            let command = Command::SetPeer { peer: tag, config: Box::new(config), stats };
            self.engine.command(command).await.map_err(|error| impossible(peer, error))?;
        }
        // A peer that was removed meanwhile needs no command.
        let _ = self.engine.commands(renamed.into_iter().map(Command::ForgetCandidates)).await;
        self.table.set_peers(shown);
        Ok(report)
    }

    /// Returns the peers whose endpoint is a host name.
    pub fn named_endpoints(&self) -> Vec<NamedEndpoint> {
        let state = self.table.read();
        state
            .peers()
            .into_iter()
            .filter_map(|peer| names::named(peer.public_key, peer.configured_endpoint()?))
            .collect()
    }

    /// Applies the addresses of a peer's host name. Ignored if the endpoint is no longer a name, because `wg set` may
    /// have given the peer an address while the answer waited.
    pub async fn on_resolved(&self, answer: Answer) {
        let command = change::resolved(answer, &self.table.read());
        if let Some(command) = command {
            // A peer that was removed meanwhile needs no endpoint.
            let _ = self.engine.command(command).await;
        }
    }

    async fn edit_peers(&self, edits: Vec<PeerEdit>) -> Result<(), ChangeError> {
        if self.table.read().has_allowlists() {
            // It is never refused.
            let _ = self.engine.command(host_ports()).await;
        }
        let mut result = Ok(());
        // One at a time: who looks at the table meanwhile does not wait for all of them.
        let commands = edits
            .into_iter()
            .map_while(|edit| self.table.edit(|state| edit.apply(state)).map_err(|error| result = Err(error)).ok());
        let told = self.engine.commands(commands.flatten()).await;
        if let Err(error) = told {
            tracing::error!(%error, "the engine refused a change");
        }
        result
    }

    async fn remove_peers(&self, is_to_go: impl Fn(PeerKey) -> bool) {
        let keys: Vec<_> =
            self.table.read().peers().into_iter().map(|peer| peer.public_key).filter(|key| is_to_go(*key)).collect();
        let commands = keys.into_iter().flat_map(|key| self.table.edit(|state| change::remove(key, state)));
        if let Err(error) = self.engine.commands(commands).await {
            tracing::error!(%error, "the engine refused to remove a peer");
        }
    }

    async fn use_sockets(&mut self, sockets: Sockets) -> io::Result<()> {
        let port = port_of(&sockets).unwrap_or(self.outer.port);
        self.queues.follow(&sockets);
        self.engine.set_sockets(sockets).await?;
        self.is_open = true;
        self.outer.port = port;
        self.table.edit_interface(|interface| interface.listen_port = port);
        Ok(())
    }
}

fn private_keys(present: Option<Zeroizing<[u8; 32]>>, former: &[PrivateKey]) -> Command {
    Command::SetPrivateKeys { present, former: former.iter().map(PrivateKey::to_bytes).collect() }
}

/// What the node is told about this host's programs before it is told about peers.
fn host_ports() -> Command {
    look_at_ports().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot see which UDP ports are in use: for two minutes all UDP counts as begun by the peers");
        Command::HostPorts { taken: (0..=u16::MAX).collect(), ephemeral: 0..=u16::MAX }
    })
}

fn look_at_ports() -> io::Result<Command> {
    let mut taken = ports::udp_in_use()?;
    taken.extend(ports::reserved()?);
    Ok(Command::HostPorts { taken, ephemeral: ports::ephemeral()? })
}

fn impossible(peer: &Peer, error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitKind::Config, format!("peer `{}` is not possible", peer.label())).with_cause(error)
}

/// Records which offloads the engine starts with.
fn note_offloads(offloads: &Offloads, outer: &Outer, tun_offload: Switch, tun: &Tun, sockets: &Sockets) {
    for (offload, switch, is_there) in [
        (Offload::TunTcp, tun_offload, tun.has_offload()),
        (Offload::TunUdp, tun_offload, tun.has_udp_offload()),
        (Offload::UdpSegmentation, outer.udp_gso, sockets.each().all(|socket| socket.max_segments() > 1)),
        (Offload::UdpCoalescing, outer.udp_gso, sockets.each().all(UdpSocket::coalesces)),
    ] {
        offloads.set(offload, OffloadState::at_start(switch != Switch::Off, is_there));
    }
}
