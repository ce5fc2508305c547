//! The control side of `overlay wg`: what `wg` sets, what becomes of the interface, and the end.
//!
//! The interface is `ip`'s to change, so what the device does follows from what is seen of it. *Up*: the sockets are
//! bound and peers with persistent keepalive are called. *Down*: sessions end, the sockets are closed, the port is free.
//! *Another MTU*: packets are fitted to it from then on. *Deleted*: the end, as it is when the name of the socket is lost.
//! A move into another network namespace takes the interface down, as the kernel does with every device; the sockets
//! are bound in the namespace where the process was started, whenever they are.

use overlay_core::Command;
use overlay_os::removal::NameWatch;
use overlay_os::tun::{LinkWatch, TunLink};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::{ControlRequest, ReloadError};
use crate::device::Device;
use crate::device::table::wall_clock_of;
use crate::engine::{Report, Reports};
use crate::failure::{ExitKind, Failure};
use crate::notify;
use crate::serving::uapi_socket;
use crate::uapi::Setting;

/// The smallest inner MTU that the node works with. An interface whose MTU is smaller sends nothing larger anyway.
const MINIMUM_MTU: u16 = 576;

/// Everything that a running `overlay wg` consists of.
pub(super) struct Control {
    pub(super) name: String,
    /// Of the interface.
    pub(super) mtu: u16,
    pub(super) link: LinkWatch,
    pub(super) device: Device,
    pub(super) reports: Reports,
    /// The name of the socket that `wg` talks to.
    pub(super) socket: NameWatch,
    pub(super) settings: mpsc::Receiver<Setting>,
    /// What the local API asks; it may be missing.
    pub(super) requests: Option<mpsc::Receiver<ControlRequest>>,
    pub(super) signals: Signals,
    /// The interface is up.
    pub(super) is_up: bool,
    /// So is the device: it could bind its sockets.
    pub(super) is_open: bool,
}

/// The signals that end it.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they end it in peace.
    pub(super) fn catch() -> Result<Self, Failure> {
        let caught = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitKind::Other, "cannot wait for signals").with_cause(error))
        };
        Ok(Self { interrupt: caught(SignalKind::interrupt())?, terminate: caught(SignalKind::terminate())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Why it ends.
enum End {
    Asked,
    Failed(Failure),
}

impl Control {
    /// Serves until the end, and leaves nothing behind.
    pub(super) async fn run(mut self, ready: Option<Box<dyn FnOnce() + Send>>) -> Result<(), Failure> {
        let end = match self.begin().await {
            Ok(()) => {
                notify::ready(&format!("{} is there", self.name));
                tracing::info!("{} is there, and waits for `wg` and `ip`", self.name);
                if let Some(ready) = ready {
                    ready();
                }
                self.serve().await
            }
            Err(failure) => End::Failed(failure),
        };
        notify::stopping();
        if self.socket.is_there() {
            let _ = std::fs::remove_file(uapi_socket(&self.name));
        }
        // It holds the device too.
        drop(self.link);
        self.device.stop().await;
        match end {
            End::Asked => Ok(()),
            End::Failed(failure) => Err(failure),
        }
    }

    /// The interface is down at first. Who was faster than we are is seen by the first look.
    async fn begin(&mut self) -> Result<(), Failure> {
        self.tell(Command::SetUp(false)).await;
        self.device
            .close()
            .await
            .map_err(|error| Failure::new(ExitKind::Other, "the engine does not answer").with_cause(error))
    }

    async fn serve(&mut self) -> End {
        loop {
            if let Some(end) = self.follow().await {
                return end;
            }
            loop {
                tokio::select! {
                    changed = self.link.changed() => match changed {
                        Ok(()) => break,
                        Err(error) => return End::Failed(self.lost(error)),
                    },
                    () = self.signals.received() => return End::Asked,
                    lost = self.socket.lost() => {
                        if let Err(error) = lost {
                            return End::Failed(self.lost(error));
                        }
                        tracing::info!("the socket of {} was removed: the end", self.name);
                        return End::Asked;
                    }
                    report = self.reports.next() => match report {
                        Report::Event(event) => {
                            tracing::debug!(?event);
                            self.device.table().on_event(event, wall_clock_of);
                        }
                        // Most often the interface was deleted.
                        Report::Ended(error) => return match self.link.look().await {
                            Ok(None) => End::Asked,
                            _ => End::Failed(self.lost(error)),
                        },
                    },
                    Some(setting) = self.settings.recv() => self.set(setting).await,
                    Some(request) = next_of(&mut self.requests) => match request {
                        ControlRequest::Reload(reply) => {
                            let _ = reply.send(Err(self.no_reload()));
                        }
                        ControlRequest::Down(reply) => {
                            let _ = reply.send(());
                            return End::Asked;
                        }
                    },
                }
            }
        }
    }

    /// Brings the device to where the interface is.
    async fn follow(&mut self) -> Option<End> {
        let now = match self.link.look().await {
            Ok(Some(now)) => now,
            Ok(None) => {
                tracing::info!("{} was deleted: the end", self.name);
                return Some(End::Asked);
            }
            Err(error) => {
                tracing::warn!(%error, "what became of {} is not known", self.name);
                return None;
            }
        };
        self.show(&now);
        if now.link.mtu != u32::from(self.mtu) {
            self.set_mtu(now.link.mtu).await;
        }
        if self.is_up && (now.was_down || !now.link.up) {
            self.go_down().await;
        }
        if now.link.up && !self.is_up {
            self.is_up = true;
            self.go_up().await;
        }
        None
    }

    async fn set_mtu(&mut self, mtu: u32) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.mtu = mtu;
        tracing::debug!(mtu, "the interface has another MTU");
        let mtu = mtu.max(MINIMUM_MTU);
        self.tell(Command::SetMtu { mtu, max: mtu }).await;
        self.device.table().edit_interface(|interface| (interface.mtu, interface.max_mtu) = (mtu, mtu));
    }

    async fn go_up(&mut self) {
        if let Err(failure) = self.device.open().await {
            tracing::error!("{} is up, but carries nothing: {failure}", self.name);
            return;
        }
        self.is_open = true;
        self.tell(Command::SetUp(true)).await;
        tracing::info!("{} is up, UDP port {}", self.name, self.device.table().interface().listen_port);
    }

    async fn go_down(&mut self) {
        self.is_up = false;
        self.is_open = false;
        self.tell(Command::SetUp(false)).await;
        self.device.table().on_sessions_over();
        if let Err(error) = self.device.close().await {
            tracing::error!(%error, "the UDP sockets of {} stay open", self.name);
        }
        tracing::info!("{} is down", self.name);
    }

    async fn set(&mut self, setting: Setting) {
        let result = self.device.apply(setting.changes).await;
        // Perhaps it has a port now that is free.
        if self.is_up && !self.is_open {
            self.go_up().await;
        }
        let _ = setting.reply.send(result);
    }

    fn show(&self, now: &TunLink) {
        let view = self.device.table();
        let shown = view.interface();
        if shown.name != now.link.name || shown.index != now.link.index {
            view.edit_interface(|interface| {
                interface.name.clone_from(&now.link.name);
                interface.index = now.link.index;
            });
        }
    }

    /// A command that no node refuses: without an engine the end is near.
    async fn tell(&self, command: Command) {
        let _ = self.device.engine().command(command).await;
    }

    fn no_reload(&self) -> ReloadError {
        Failure::new(ExitKind::Usage, format!("`{}` has no config file: `wg` configures it", self.name))
            .with_hint(format!("wg syncconf {} FILE", self.name))
            .into()
    }

    fn lost(&self, error: std::io::Error) -> Failure {
        Failure::new(ExitKind::Other, format!("the interface `{}` cannot be used any more", self.name))
            .with_cause(error)
    }
}

/// What comes next by a receiver that may be missing.
async fn next_of<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
