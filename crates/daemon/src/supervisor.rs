//! The running daemon's control side: signals, the local API, events of the engine, names, reload, and the end.
//!
//! One task, one thing at a time, so that a reload is never half overtaken by another.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use overlay_core::{Command, Event, Instant, PeerKey};
use overlay_os::netlink::Netlink;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{ControlRequest, ReloadError, ReloadReport};
use crate::config::{self, Config, Mtu};
use crate::device::{ChangeError, Device};
use crate::failure::{ExitKind, Failure};
use crate::host::{Host, Journal};
use crate::notify;
use crate::resolve::{NamedEndpoint, Resolver};
use crate::uapi;
use crate::up::literal_endpoints;

/// Everything that a running daemon consists of.
pub(crate) struct Supervisor {
    pub(crate) config: Config,
    /// What `up` began with: keys that only a start takes are compared with it.
    pub(crate) started_with: Config,
    pub(crate) mtu: u16,
    pub(crate) netlink: Netlink,
    pub(crate) journal: Journal,
    pub(crate) host: Host,
    pub(crate) device: Device,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) requests: mpsc::Receiver<ControlRequest>,
    pub(crate) settings: mpsc::Receiver<uapi::Setting>,
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
        self.device.stop().await;
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
                Some((peer, address)) = self.answers.recv() => self.device.on_resolved(peer, address).await,
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
                    let result = self.device.apply(setting.changes).await;
                    // An endpoint that was set is no name any more.
                    self.resolver.set_peers(self.device.named_endpoints());
                    let _ = setting.reply.send(result);
                }
                error = self.device.ended() => {
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
            Event::EndpointChanged(..) | Event::PathMtu(..) => {}
        }
        tracing::debug!(?event);
        self.device.view().on_event(event, wall_clock_of);
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
        let port_before = self.device.view().interface().listen_port;
        self.apply_port(new.interface.listen_port).await?;
        if let Err(failure) = self.host.apply(&self.netlink, &mut self.journal, &new, mtu).await {
            self.apply_port(port_before).await?;
            return Err(failure);
        }
        self.apply_interface(&new, mtu).await?;
        let report = self.device.set_peers(&new.peers).await?;
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
        self.device.engine().command(addresses).await.map_err(impossible)?;
        if mtu != self.mtu {
            self.device.engine().command(Command::SetMtu { mtu, max: mtu }).await.map_err(impossible)?;
        }
        self.device.set_private_key(Some(new.interface.private_key.clone())).await;
        self.device
            .set_fwmark(self.host.fwmark())
            .await
            .map_err(|error| Failure::new(ExitKind::Other, "cannot mark outer datagrams").with_cause(error))
    }

    /// Port 0 in the file is content with any.
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

    fn show_interface(&self, new: &Config, mtu: u16) {
        self.device.view().edit_interface(|interface| {
            interface.addresses.clone_from(&new.interface.addresses);
            interface.mtu = mtu;
            interface.forward = new.interface.forward;
        });
    }

    fn summary(&self) -> String {
        let Config { interface, peers, .. } = &self.config;
        let plural = if peers.len() == 1 { "" } else { "s" };
        format!("{} is up, {} peer{plural}, MTU {}", interface.name, peers.len(), self.mtu)
    }
}

/// Keys whose new value is taken at the next `up`.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let changed = [("metrics.listen", old.metrics != new.metrics), ("tuning", old.tuning != new.tuning)];
    changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key.to_owned()).collect()
}

/// The date of an instant of the engine's clock.
pub(crate) fn wall_clock_of(at: Instant) -> SystemTime {
    let age = Instant::from_start(overlay_os::clock::boottime()).since(at);
    SystemTime::now() - age
}
