//! The control side of a running daemon: signals, the local API, engine events, names, reload, and the end.
//!
//! It is a single task that does one thing at a time, so that a reload never overlaps with another.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, Command, Event, Instant, MtuLimit, PathMtuState, PathTag, PeerKey};
use overlay_os::netlink::Netlink;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{ControlRequest, ReloadError, ReloadReport};
use crate::config::{self, Config, Endpoint, Mtu, MtuRange, Table, Tuning};
use crate::device::{Change, ChangeError, Device, PeerEdit};
use crate::failure::{ExitKind, Failure};
use crate::host::{self, Host, HostWatch, Journal};
use crate::notify;
use crate::resolve::{Answer, NamedEndpoint, Resolver};
use crate::standing::{self, Standing};
use crate::uapi;
use crate::up::{self, literal_endpoints};
use crate::view::PeerView;

mod footprint;
mod withdrawal;

/// Everything that makes up a running daemon.
pub(crate) struct Supervisor {
    pub(crate) config: Config,
    /// The config at the start of `up`. Keys that take effect only at a start are compared with it.
    pub(crate) started_with: Config,
    pub(crate) mtu: MtuRange,
    /// The MTU that the interface could not be given when a peer was seen on a wider path.
    pub(crate) refused_mtu: Option<MtuRange>,
    /// The address of each peer that moved, when the route to it was last checked.
    pub(crate) looked_at: HashMap<PeerKey, IpAddr>,
    pub(crate) netlink: Netlink,
    pub(crate) journal: Journal,
    pub(crate) host: Host,
    pub(crate) watch: HostWatch,
    pub(crate) device: Device,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) requests: mpsc::Receiver<ControlRequest>,
    pub(crate) settings: mpsc::Receiver<uapi::Setting>,
    /// For the socket that `wg` talks to, while that socket could not be opened.
    pub(crate) without_uapi: Option<mpsc::Sender<uapi::Setting>>,
    pub(crate) standing: Standing,
    pub(crate) resolver: Resolver,
    pub(crate) answers: mpsc::Receiver<Answer>,
    /// The file for the next daemon of this name.
    pub(crate) flows_file: PathBuf,
}

/// Why the daemon ends.
enum End {
    Asked,
    Failed(Failure),
}

impl End {
    fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Asked => Ok(()),
            Self::Failed(failure) => Err(failure),
        }
    }
}

impl Supervisor {
    /// Serves until the daemon is ended, and removes everything again.
    pub(crate) async fn run(mut self, ready: Option<Box<dyn FnOnce() + Send>>) -> Result<(), Failure> {
        let signals = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitKind::Other, "cannot wait for signals").with_cause(error))
        };
        let ends = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
        let hangup = signals(SignalKind::hangup())?;

        overlay_os::memory::give_back();
        notify::ready(&self.summary());
        tracing::info!("{}", self.summary());
        if let Some(ready) = ready {
            ready();
        }
        let end = self.serve(ends, hangup).await;
        notify::stopping();
        let flows = self.device.stop().await;
        if let Err(error) = host::flows::write(&self.flows_file, &flows) {
            tracing::warn!(%error, "connections that we opened are cut: they cannot be handed over");
        }
        if matches!(end, End::Failed(_)) && host::fails_closed(&self.config) {
            let name = &self.config.interface.name;
            tracing::error!(
                "what the default route covers does not leave this host until `overlay up {name}` or `overlay down {name}`"
            );
            return end.into_result();
        }
        for line in self.host.take_down(&self.netlink, self.journal).await {
            tracing::error!("left behind: {line}");
        }
        end.into_result()
    }

    async fn serve(&mut self, (mut interrupt, mut terminate): (Signal, Signal), mut hangup: Signal) -> End {
        let mut turns_seen = None;
        let mut look = tokio::time::interval(standing::PERIOD);
        let mut watchdog = tokio::time::interval(notify::watchdog_interval().unwrap_or(Duration::from_secs(3_600)));
        loop {
            let interest = self.host.interest();
            tokio::select! {
                _ = interrupt.recv() => return End::Asked,
                _ = terminate.recv() => return End::Asked,
                _ = hangup.recv() => {
                    if let Err(error) = self.reload().await {
                        tracing::error!(hint = error.hint, "reload refused, the old config stays: {}", error.message);
                    }
                }
                Some(event) = self.events.recv() => self.on_event(event).await,
                Some(answer) = self.answers.recv() => {
                    self.device.on_resolved(answer).await;
                    self.standing.on_endpoint(&mut look);
                }
                Some(request) = self.requests.recv() => match request {
                    ControlRequest::Reload(reply) => {
                        let result = self.reload().await;
                        let _ = reply.send(result);
                    }
                    ControlRequest::Down(reply) => {
                        let _ = reply.send(());
                        return End::Asked;
                    }
                },
                Some(setting) = self.settings.recv() => {
                    let touched = self.prefixes_of(&setting.changes);
                    let result = self.device.apply(setting.changes).await;
                    self.host.on_paths_changed(touched);
                    self.looked_at.clear();
                    // An endpoint that was set is no longer a name.
                    self.resolver.set_peers(self.device.named_endpoints());
                    let _ = setting.reply.send(result);
                }
                // Ready at once, so that all other branches get their turn in between.
                () = std::future::ready(()), if self.host.has_changed_paths() => self.settle_paths().await,
                noticed = self.watch.due(&interest) => self.look_after_host(noticed).await,
                error = self.device.ended() => {
                    let name = &self.config.interface.name;
                    return End::Failed(
                        Failure::new(ExitKind::Other, format!("the interface `{name}` cannot be used any more"))
                            .with_cause(error)
                            .with_hint(format!("was it deleted? sudo overlay up {}", config::argument_for(&self.config.path))),
                    );
                }
                _ = look.tick() => self.look_around(false).await,
                // That this task runs says nothing about the thread that carries the packets.
                _ = watchdog.tick() => {
                    let turns = Some(self.device.engine().turns());
                    if turns != turns_seen {
                        notify::watchdog();
                    }
                    turns_seen = turns;
                }
            }
        }
    }

    /// Checks what may have changed on the host without notice. After a reload it certainly has.
    async fn look_around(&mut self, is_new: bool) {
        self.standing.look(&self.netlink, &self.host, &self.config, self.device.view(), is_new).await;
        let Some(setting) = self.without_uapi.take() else { return };
        let view = self.device.view();
        match up::open_uapi(&self.config.interface.name, &mut self.journal).await {
            Ok(listener) => {
                view.set_warnings(up::UAPI, Vec::new());
                tokio::spawn(uapi::serve(listener, Arc::clone(view), setting));
            }
            Err(warning) => {
                view.set_warnings(up::UAPI, vec![warning]);
                self.without_uapi = Some(setting);
            }
        }
    }

    async fn on_event(&mut self, event: Event) {
        // About a peer that is gone there is nothing to do.
        let Some(peer) = self.device.view().key_of(event.peer()) else { return };
        match &event {
            Event::HandshakeCompleted(..) => self.resolver.on_handshake_completed(peer),
            Event::HandshakeFailed(_) => self.resolver.on_handshake_failed(peer),
            Event::Answering(_, answers) => self.resolver.on_answering(peer, *answers),
            Event::EndpointChanged(..) | Event::PathMtu(..) => {}
        }
        tracing::debug!(?event);
        self.device.view().on_event(event.clone(), wall_clock_of);
        match event {
            // A new port on the same IP does not change the route.
            Event::EndpointChanged(_, endpoint) => {
                if self.looked_at.insert(peer, endpoint.ip()) != Some(endpoint.ip()) {
                    self.widen_mtu(endpoint).await;
                }
            }
            Event::PathMtu(path, known) => {
                let prefixes = self.device.view().allowed_ips(peer);
                self.host.on_paths_changed(prefixes);
                if (known.state, known.limit) == (PathMtuState::Searching, MtuLimit::Path) {
                    self.pass_on_too_big(path, peer).await;
                }
            }
            Event::HandshakeCompleted(..) | Event::HandshakeFailed(_) | Event::Answering(..) => {}
        }
    }

    /// Handles a failed probe. By now the kernel knows what routers reported about the path.
    async fn pass_on_too_big(&self, path: PathTag, peer: PeerKey) {
        let endpoint = self.device.view().read().peer(peer).and_then(|peer| peer.endpoint);
        if let Some(endpoint) = endpoint
            && let Some(mtu) = self.host.told_mtu(&self.netlink, &endpoint).await
        {
            // The peer may have been removed meanwhile.
            let _ = self.device.engine().command(Command::TooBig(path, mtu)).await;
        }
    }

    /// Updates some of the routes that must follow their paths.
    async fn settle_paths(&mut self) {
        let prefixes = self.host.take_changed_paths();
        let settled: Vec<_> = {
            let state = self.device.view().read();
            prefixes.into_iter().map(|prefix| (prefix, state.owner(&prefix).and_then(PeerView::found_mtu))).collect()
        };
        for (prefix, mtu) in settled {
            self.host.set_path_mtu(&self.netlink, prefix, mtu).await;
        }
    }

    /// Returns the prefixes that these changes may move to a different peer or leave without one.
    fn prefixes_of(&self, changes: &[Change]) -> Vec<IpNet> {
        let state = self.device.view().read();
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
            Change::RemoveAllPeers | Change::PrivateKey(_) => self.host.routed_paths(),
            Change::ListenPort(_) | Change::Fwmark(_) => Vec::new(),
        };
        changes.iter().flat_map(of_change).collect()
    }

    /// Handles a new address of a peer: the route to it may carry more than any known so far.
    async fn widen_mtu(&mut self, endpoint: SocketAddr) {
        if self.config.interface.mtu != Mtu::Auto || self.config.interface.table == Table::Off {
            return;
        }
        let mtu = self.host.widened(&self.netlink, self.mtu, &[endpoint]).await;
        // An MTU that the kernel has refused is not requested again for each peer that moves.
        if mtu == self.mtu || self.refused_mtu == Some(mtu) {
            return;
        }
        let config = self.config.clone();
        let widened = match self.host.apply(&self.netlink, &mut self.journal, &config, mtu).await {
            Ok(()) => self.tell_mtu(mtu).await,
            Err(failure) => Err(failure),
        };
        match widened {
            Ok(()) => self.show_interface(&config, mtu),
            Err(failure) => {
                self.refused_mtu = Some(mtu);
                tracing::warn!(error = %failure, "the interface keeps its MTU");
            }
        }
    }

    async fn tell_mtu(&mut self, mtu: MtuRange) -> Result<(), Failure> {
        if mtu != self.mtu {
            let command = Command::SetMtu { mtu: mtu.start, max: mtu.max };
            self.device.engine().command(command).await.map_err(refused)?;
            self.mtu = mtu;
        }
        Ok(())
    }

    /// Reads the config again and applies what changed. Unchanged parts are not touched.
    async fn reload(&mut self) -> Result<ReloadReport, ReloadError> {
        notify::reloading();
        let result = self.apply_file().await;
        overlay_os::memory::give_back();
        notify::ready(&self.summary());
        result.map_err(ReloadError::from)
    }

    async fn apply_file(&mut self) -> Result<ReloadReport, Failure> {
        let new = self.config.load_again()?;
        for warning in new.warnings().iter().filter(|warning| !warning.is_up_to_the_host()) {
            tracing::warn!("{warning}");
        }
        let needs_restart = needs_restart(&self.started_with, &new);
        if new.interface.name != self.config.interface.name {
            return Err(Failure::new(ExitKind::Config, "a running interface cannot be renamed")
                .with_cause(format!("it is `{}`, the config says `{}`", self.config.interface.name, new.interface.name))
                .with_hint(format!(
                    "sudo overlay down {} && sudo overlay up {}",
                    self.config.interface.name,
                    config::argument_for(&self.config.path)
                )));
        }
        let mtu = self.mtu_range(&new).await;
        let report = match self.apply_config(&new, mtu).await {
            Ok(report) => report,
            Err(failure) => return Err(self.withdraw(&new, failure).await),
        };
        self.resolver.set_peers(NamedEndpoint::of(&new.peers));
        self.looked_at.clear();
        self.refused_mtu = None;
        self.show_interface(&new, mtu);
        self.config = new;
        // Peers and prefixes have been added and removed, and the remaining prefixes may be routed differently.
        let paths = self.host.routed_paths();
        self.host.on_paths_changed(paths);
        let found = self.device.view().prefixes_of_found_paths();
        self.host.on_paths_changed(found);
        self.look_around(true).await;
        tracing::info!(
            "reloaded: {} peers added, {} removed, {} changed, {} unchanged",
            report.added.len(),
            report.removed.len(),
            report.changed.len(),
            report.unchanged
        );
        Ok(ReloadReport { needs_restart, ..report })
    }

    /// Applies a config, or leaves the previous one in force.
    async fn apply_config(&mut self, new: &Config, mtu: MtuRange) -> Result<ReloadReport, Failure> {
        // Collisions are found before anything is changed.
        self.host.check(&self.netlink, new, mtu).await?;
        let (port_before, mtu_before) = (self.device.view().interface().listen_port, self.mtu);
        self.apply_port(new.interface.listen_port).await?;
        let applied = match self.host.apply(&self.netlink, &mut self.journal, new, mtu).await {
            Ok(()) => self.apply_rest(new, mtu).await,
            Err(failure) => Err(failure),
        };
        if applied.is_err() {
            self.put_back(port_before, mtu_before).await;
        }
        applied
    }

    async fn apply_rest(&mut self, new: &Config, mtu: MtuRange) -> Result<ReloadReport, Failure> {
        self.apply_interface(new, mtu).await?;
        self.device.set_peers(&new.peers).await
    }

    /// Restores the previous state as well as possible, after a reload that failed halfway.
    async fn put_back(&mut self, port: u16, mtu: MtuRange) {
        let old = self.config.clone();
        let mut results = vec![self.apply_port(port).await];
        results.push(self.host.apply(&self.netlink, &mut self.journal, &old, mtu).await);
        results.push(self.apply_rest(&old, mtu).await.map(|_| ()));
        for failure in results.into_iter().filter_map(Result::err) {
            tracing::error!(error = %failure, "what stood before the reload could not be restored");
        }
    }

    /// Computes the inner MTUs of a config that is to replace the one in force.
    async fn mtu_range(&self, new: &Config) -> MtuRange {
        let mut endpoints = literal_endpoints(new);
        let mut learned = Vec::new();
        if new.interface.mtu == Mtu::Auto {
            let state = self.device.view().read();
            for peer in &new.peers {
                let Some(endpoint) = state.peer(peer.public_key).and_then(|peer| peer.endpoint) else { continue };
                let is_by_name = matches!(peer.endpoint, Some(Endpoint::Name { .. }));
                if is_by_name { endpoints.push(endpoint) } else { learned.push(endpoint) }
            }
        }
        let range = self.host.mtu_range(&self.netlink, new, &endpoints).await;
        match new.interface.table {
            Table::Off => range,
            _ => self.host.widened(&self.netlink, range, &learned).await,
        }
    }

    async fn apply_interface(&mut self, new: &Config, mtu: MtuRange) -> Result<(), Failure> {
        let addresses = Command::SetAddresses { addresses: new.addresses(), forward: new.interface.forward };
        self.device.engine().command(addresses).await.map_err(refused)?;
        self.tell_mtu(mtu).await?;
        self.device.set_private_key(Some(new.interface.private_key.clone())).await;
        self.device
            .set_fwmark(self.host.fwmark())
            .await
            .map_err(|error| Failure::new(ExitKind::Other, "cannot mark outer datagrams").with_cause(error))
    }

    /// Applies the port of the config. Port 0 accepts any current port.
    async fn apply_port(&mut self, port: u16) -> Result<(), Failure> {
        if port == 0 {
            return Ok(());
        }
        self.device.set_listen_port(port).await.map_err(|error| {
            let code = if matches!(error, ChangeError::PortInUse) { ExitKind::Conflict } else { ExitKind::Other };
            Failure::new(code, format!("UDP port {port} cannot be used"))
                .with_cause(error)
                .with_hint("set another `listen_port` under [interface], or 0 to let the kernel choose")
        })
    }

    fn show_interface(&self, new: &Config, mtu: MtuRange) {
        let max_mtu = self.host.footprint().mtu;
        self.device.view().edit_interface(|interface| {
            interface.addresses.clone_from(&new.interface.addresses);
            interface.mtu = mtu.start;
            interface.max_mtu = max_mtu;
            interface.forward = new.interface.forward;
        });
    }

    fn summary(&self) -> String {
        let Config { interface, peers, .. } = &self.config;
        let plural = if peers.len() == 1 { "" } else { "s" };
        format!("{} is up, {} peer{plural}, MTU {}", interface.name, peers.len(), self.mtu.start)
    }
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitKind::Other, "the engine refused the config").with_cause(error)
}

/// Returns the keys whose new value takes effect at the next `up`.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    // `mtu_discovery` belongs to the peers, which change live.
    let tuning = Tuning { mtu_discovery: old.tuning.mtu_discovery, ..new.tuning };
    let changed = [("metrics.listen", old.metrics != new.metrics), ("tuning", old.tuning != tuning)];
    changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key.to_owned()).collect()
}

/// Converts an instant of the engine's clock to a date.
pub(crate) fn wall_clock_of(at: Instant) -> SystemTime {
    let age = Instant::from_start(overlay_os::clock::boottime()).since(at);
    SystemTime::now() - age
}
