//! The running `overlay wg`: applies what `wg` sets, follows the interface, and ends.
//!
//! `ip` changes the interface, and the device follows. *Up*: the sockets are bound and peers with persistent keepalive
//! are called. *Down*: sessions end, the sockets are closed, the port is free. *A new MTU*: packets are limited to it from
//! then on. *Deleted*: the process ends, as it does when the socket loses its name. A move to a different network
//! namespace takes the interface down, as the kernel does with every device. The sockets are always bound in the
//! namespace where the process was started.

use std::io;
use std::ops::ControlFlow;

use overlay_core::{Command, Event};
use overlay_os::removal::NameWatch;
use overlay_os::tun::{LinkWatch, TunLink};

use crate::agent::request::AgentCall;
use crate::api::ReloadError;
use crate::control::{self, AgentAnswer, Concerns, Daemon, End, no_agent};
use crate::device::{Change, ChangeError, Device, ReloadReport};
use crate::engine::Datagram;
use crate::failure::{ExitKind, Failure};
use crate::notify;
use crate::serving::uapi_socket;

/// The smallest inner MTU that the node works with. An interface whose MTU is smaller sends nothing larger anyway.
const MINIMUM_MTU: u16 = 576;

/// A running `overlay wg`.
pub(super) struct Follower {
    name: String,
    /// The MTU of the interface.
    mtu: u16,
    link: LinkWatch,
    /// The name of the socket that `wg` talks to.
    socket: NameWatch,
    device: Device,
    /// Whether the interface is up.
    is_up: bool,
    /// Whether the device is up too: its sockets are bound.
    is_open: bool,
}

/// News from the concerns that only `wg` has.
pub(super) enum News {
    /// The interface changed, or cannot be followed any more.
    Link(io::Result<()>),
    /// The socket was removed, or its name cannot be followed any more.
    SocketLost(io::Result<()>),
}

impl Follower {
    /// Follows an interface that is down and has this MTU.
    pub(super) fn new(name: &str, mtu: u16, link: LinkWatch, socket: NameWatch, device: Device) -> Self {
        Self { name: name.to_owned(), mtu, link, socket, device, is_up: false, is_open: false }
    }

    /// Serves until the end, and leaves nothing behind.
    pub(super) async fn run(
        mut self,
        mut concerns: Concerns,
        ready: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<(), Failure> {
        let end = match self.begin().await {
            Ok(()) => {
                notify::ready(&format!("{} exists", self.name));
                tracing::info!("{} exists and waits for `wg` and `ip`", self.name);
                if let Some(ready) = ready {
                    ready();
                }
                // If someone already brought the interface up, this first look notices.
                match self.follow().await {
                    ControlFlow::Continue(()) => control::serve(&mut concerns, &mut self).await,
                    ControlFlow::Break(end) => end,
                }
            }
            // Before the interface was ready, somebody may have deleted it.
            Err(error) => self.on_engine_ended(error).await,
        };
        notify::stopping();
        if self.socket.is_there() {
            let _ = std::fs::remove_file(uapi_socket(&self.name));
        }
        // The watch holds the TUN open, too.
        drop(self.link);
        self.device.stop().await;
        end.into_result()
    }

    /// Brings the device to the state of a new interface, which is down.
    async fn begin(&mut self) -> io::Result<()> {
        self.tell(Command::SetUp(false)).await;
        self.device.close().await
    }

    /// Brings the device to the state of the interface.
    async fn follow(&mut self) -> ControlFlow<End> {
        let now = match self.link.look().await {
            Ok(Some(now)) => now,
            Ok(None) => {
                tracing::info!("{} was deleted: stopping", self.name);
                return ControlFlow::Break(End::Asked);
            }
            Err(error) => {
                tracing::warn!(%error, "the state of {} is unknown", self.name);
                return ControlFlow::Continue(());
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
        ControlFlow::Continue(())
    }

    async fn set_mtu(&mut self, mtu: u32) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.mtu = mtu;
        tracing::debug!(mtu, "the MTU of the interface changed");
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

    fn show(&self, now: &TunLink) {
        let table = self.device.table();
        let shown = table.interface();
        if shown.name != now.link.name || shown.index != now.link.index {
            table.edit_interface(|interface| {
                interface.name.clone_from(&now.link.name);
                interface.index = now.link.index;
            });
        }
    }

    /// Sends a command that the node never refuses. It fails only if the engine has ended, which is reported separately.
    async fn tell(&self, command: Command) {
        let _ = self.device.engine().command(command).await;
    }

    fn lost(&self, error: io::Error) -> Failure {
        Failure::new(ExitKind::Other, format!("the interface `{}` cannot be used any more", self.name))
            .with_cause(error)
    }
}

impl Daemon for Follower {
    type News = News;

    fn device(&self) -> &Device {
        &self.device
    }

    async fn next(&mut self) -> News {
        tokio::select! {
            changed = self.link.changed() => News::Link(changed),
            lost = self.socket.lost() => News::SocketLost(lost),
        }
    }

    async fn on_news(&mut self, news: News) -> ControlFlow<End> {
        match news {
            News::Link(Ok(())) => self.follow().await,
            News::SocketLost(Ok(())) => {
                tracing::info!("the socket of {} was removed: stopping", self.name);
                ControlFlow::Break(End::Asked)
            }
            News::Link(Err(error)) | News::SocketLost(Err(error)) => ControlFlow::Break(End::Failed(self.lost(error))),
        }
    }

    async fn on_event(&mut self, _: Event) {}

    /// It names no relay to the node.
    async fn on_foreign(&mut self, _: Datagram) {}

    async fn on_copied(&mut self) {}

    async fn on_engine_ended(&mut self, error: io::Error) -> End {
        // Most often the interface was deleted.
        match self.link.look().await {
            Ok(None) => End::Asked,
            _ => End::Failed(self.lost(error)),
        }
    }

    async fn on_setting(&mut self, changes: Vec<Change>) -> Result<(), ChangeError> {
        let result = self.device.apply(changes).await;
        // The new port may be free.
        if self.is_up && !self.is_open {
            self.go_up().await;
        }
        result
    }

    async fn on_reload(&mut self) -> Result<ReloadReport, ReloadError> {
        Err(Failure::new(ExitKind::Usage, format!("`{}` has no config file: `wg` configures it", self.name))
            .with_hint(format!("wg syncconf {} FILE", self.name))
            .into())
    }

    async fn on_agent_call(&mut self, _: AgentCall, reply: AgentAnswer) {
        let hint = "overlay up with a config that has an [agent] table makes an agent";
        let _ = reply.send(Err(no_agent(hint)));
    }
}
