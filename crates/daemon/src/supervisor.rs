//! The running daemon's control side: signals, the local API, events of the engine, names, reload, and the end.
//!
//! One task, one thing at a time, so that a reload is never half overtaken by another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use overlay_core::{Command, Event, Instant, PeerKey, PeerStats};
use overlay_os::netlink::Netlink;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{ControlRequest, ReloadError, ReloadReport};
use crate::config::{self, Config, Mtu, Peer};
use crate::engine::Engine;
use crate::failure::{ExitKind, Failure};
use crate::host::{Host, Journal};
use crate::notify;
use crate::resolve::{NamedEndpoint, Resolver};
use crate::up::literal_endpoints;
use crate::view::View;

/// Everything that a running daemon consists of.
pub(crate) struct Supervisor {
    pub(crate) config: Config,
    /// What `up` began with: keys that only a start takes are compared with it.
    pub(crate) started_with: Config,
    pub(crate) mtu: u16,
    pub(crate) netlink: Netlink,
    pub(crate) journal: Journal,
    pub(crate) host: Host,
    pub(crate) engine: Engine,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) view: Arc<View>,
    pub(crate) requests: mpsc::Receiver<ControlRequest>,
    pub(crate) resolver: Resolver,
    pub(crate) answers: mpsc::Receiver<(PeerKey, SocketAddr)>,
}

/// Why the daemon ends.
enum End {
    Asked,
    Failed(Failure),
}

impl Supervisor {
    /// Serves until somebody ends the daemon, and takes everything away again.
    pub(crate) async fn run(mut self, ready: Option<Box<dyn FnOnce() + Send>>) -> Result<(), Failure> {
        let signals = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitKind::Other, "cannot wait for signals").with_cause(error))
        };
        let ends = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
        let hangup = signals(SignalKind::hangup())?;

        notify::ready(&self.summary());
        tracing::info!("{}", self.summary());
        if let Some(ready) = ready {
            ready();
        }
        let end = self.serve(ends, hangup).await;
        notify::stopping();
        self.engine.stop().await;
        for line in self.host.take_down(&self.netlink, self.journal).await {
            tracing::error!("left behind: {line}");
        }
        match end {
            End::Asked => Ok(()),
            End::Failed(failure) => Err(failure),
        }
    }

    async fn serve(&mut self, (mut interrupt, mut terminate): (Signal, Signal), mut hangup: Signal) -> End {
        let mut watchdog = tokio::time::interval(notify::watchdog_interval().unwrap_or(Duration::from_secs(3_600)));
        loop {
            tokio::select! {
                _ = interrupt.recv() => return End::Asked,
                _ = terminate.recv() => return End::Asked,
                _ = hangup.recv() => {
                    if let Err(error) = self.reload().await {
                        tracing::error!(hint = error.hint, "reload refused, the old config stays: {}", error.message);
                    }
                }
                Some(event) = self.events.recv() => self.on_event(event),
                Some((peer, address)) = self.answers.recv() => self.on_resolved(peer, address).await,
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
                error = self.engine.ended() => {
                    let name = &self.config.interface.name;
                    return End::Failed(
                        Failure::new(ExitKind::Other, format!("the interface `{name}` cannot be used any more"))
                            .with_cause(error)
                            .with_hint(format!("was it deleted? sudo overlay up {}", config::argument_for(&self.config.path))),
                    );
                }
                _ = watchdog.tick() => notify::watchdog(),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match &event {
            Event::HandshakeCompleted(peer, _) => self.resolver.on_handshake_completed(*peer),
            Event::HandshakeFailed(peer) => self.resolver.on_handshake_failed(*peer),
            Event::EndpointChanged(..) => {}
        }
        tracing::debug!(?event);
        self.view.on_event(event, wall_clock_of);
    }

    async fn on_resolved(&mut self, peer: PeerKey, address: SocketAddr) {
        // A peer that was removed in the meantime needs no endpoint.
        if self.engine.command(Command::SetEndpoint(peer, address)).await.is_ok() {
            self.view.on_endpoint_resolved(peer, address);
        }
    }

    /// Reads the config again and applies what changed. What did not change is not touched.
    async fn reload(&mut self) -> Result<ReloadReport, ReloadError> {
        notify::reloading();
        let result = self.apply_file().await;
        notify::ready(&self.summary());
        result.map_err(ReloadError::from)
    }

    async fn apply_file(&mut self) -> Result<ReloadReport, Failure> {
        let new = Config::load(&self.config.path)?;
        for warning in new.warnings() {
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
        let mtu = match new.interface.mtu {
            Mtu::Fixed(mtu) => mtu,
            Mtu::Auto => self.host.auto_mtu(&self.netlink, &new, &literal_endpoints(&new)).await,
        };
        self.host.apply(&self.netlink, &mut self.journal, &new, mtu).await?;
        self.apply_interface(&new, mtu).await?;
        let report = self.apply_peers(&new).await?;
        self.resolver.set_peers(NamedEndpoint::of(&new.peers));
        self.show_interface(&new, mtu);
        self.mtu = mtu;
        self.config = new;
        tracing::info!(
            "reloaded: {} peers added, {} removed, {} changed, {} unchanged",
            report.added.len(),
            report.removed.len(),
            report.changed.len(),
            report.unchanged
        );
        Ok(ReloadReport { needs_restart, ..report })
    }

    async fn apply_interface(&mut self, new: &Config, mtu: u16) -> Result<(), Failure> {
        let impossible = |error| Failure::new(ExitKind::Other, "the engine refused the config").with_cause(error);
        let addresses = Command::SetAddresses { addresses: new.addresses(), forward: new.interface.forward };
        self.engine.command(addresses).await.map_err(impossible)?;
        if mtu != self.mtu {
            self.engine.command(Command::SetMtu(mtu)).await.map_err(impossible)?;
        }
        self.engine
            .set_fwmark(self.host.fwmark())
            .await
            .map_err(|error| Failure::new(ExitKind::Other, "cannot mark outer datagrams").with_cause(error))
    }

    async fn apply_peers(&mut self, new: &Config) -> Result<ReloadReport, Failure> {
        let old: HashMap<PeerKey, &Peer> = self.config.peers.iter().map(|peer| (peer.public_key, peer)).collect();
        let mut report = ReloadReport::default();
        // What goes makes room for what comes: a prefix may move from one peer to another.
        for peer in &self.config.peers {
            if !new.peers.iter().any(|kept| kept.public_key == peer.public_key) {
                let _ = self.engine.command(Command::RemovePeer(peer.public_key)).await;
                report.removed.push(peer.label());
            }
        }
        let mut shown = Vec::with_capacity(new.peers.len());
        for peer in &new.peers {
            let before = old.get(&peer.public_key).copied();
            let stats = before.and_then(|_| self.view.peer_stats(peer.public_key)).unwrap_or_default();
            match before {
                Some(before) if before == peer => report.unchanged += 1,
                _ => {
                    self.set_peer(peer, before, Arc::clone(&stats)).await?;
                    let list = if before.is_some() { &mut report.changed } else { &mut report.added };
                    list.push(peer.label());
                }
            }
            shown.push((peer.clone(), stats));
        }
        self.view.set_peers(shown);
        Ok(report)
    }

    async fn set_peer(&self, peer: &Peer, before: Option<&Peer>, stats: Arc<PeerStats>) -> Result<(), Failure> {
        let mut config = peer.to_core(None);
        if before.is_some_and(|before| before.endpoint == peer.endpoint) {
            // It may have roamed since: where it is now is better than what the config still says.
            config.endpoint = None;
        }
        self.engine.command(Command::SetPeer { config: Box::new(config), stats }).await.map_err(|error| {
            Failure::new(ExitKind::Config, format!("peer `{}` is not possible", peer.label())).with_cause(error)
        })
    }

    fn show_interface(&self, new: &Config, mtu: u16) {
        let mut interface = self.view.interface();
        interface.addresses.clone_from(&new.interface.addresses);
        interface.mtu = mtu;
        interface.fwmark = self.host.fwmark();
        interface.forward = new.interface.forward;
        self.view.set_interface(interface);
    }

    fn summary(&self) -> String {
        let Config { interface, peers, .. } = &self.config;
        let plural = if peers.len() == 1 { "" } else { "s" };
        format!("{} is up, {} peer{plural}, MTU {}", interface.name, peers.len(), self.mtu)
    }
}

/// Keys whose new value is taken at the next `up`.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let changed = [
        ("interface.private_key_file", old.interface.private_key != new.interface.private_key),
        ("interface.listen_port", old.interface.listen_port != new.interface.listen_port),
        ("metrics.listen", old.metrics != new.metrics),
        ("tuning", old.tuning != new.tuning),
    ];
    changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key.to_owned()).collect()
}

/// The date of an instant of the engine's clock.
fn wall_clock_of(at: Instant) -> SystemTime {
    let age = Instant::from_start(overlay_os::clock::boottime()).since(at);
    SystemTime::now() - age
}
