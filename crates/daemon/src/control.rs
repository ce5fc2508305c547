//! The control thread: everything that may be slow, in one loop that `up` and `wg` share.
//!
//! Each concern is a type that waits in `next()` and learns facts through its `on_*` methods. The concerns of every daemon
//! are in [`Concerns`]: signals, the engine's reports, requests of the local API, settings by `wg`, the watchdog. A verb
//! adds its own concerns through [`Daemon::next`].
//!
//! The loop completes one thing before it begins the next, so that two reloads never overlap.

mod inbox;
mod signals;
mod watchdog;

use std::ops::ControlFlow;
use std::sync::Arc;

use overlay_core::Event;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

pub(crate) use self::inbox::Inbox;
use self::signals::Signal;
pub(crate) use self::signals::Signals;
pub(crate) use self::watchdog::Watchdog;
use crate::agent::request::{AgentCall, AgentReply};
use crate::api::{self, ReloadError, Request};
use crate::device::table::wall_clock_of;
use crate::device::{Change, ChangeError, Device, ReloadReport};
use crate::engine::{Datagram, Report, Reports};
use crate::failure::{ExitKind, Failure};
use crate::uapi::Setting;
use crate::view::View;

/// How many requests of the local API may wait for their turn.
const MAX_REQUESTS: usize = 16;
/// How many operations of `wg` may wait for their turn.
pub(crate) const MAX_SETTINGS: usize = 16;

/// Why the loop ends.
pub(crate) enum End {
    /// The end was asked for.
    Asked,
    /// The daemon cannot go on.
    Failed(Failure),
}

impl End {
    /// What the verb returns.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Asked => Ok(()),
            Self::Failed(failure) => Err(failure),
        }
    }
}

/// The concerns of every daemon.
pub(crate) struct Concerns {
    pub(crate) signals: Signals,
    pub(crate) reports: Reports,
    pub(crate) requests: Inbox<Request>,
    pub(crate) settings: Inbox<Setting>,
    pub(crate) watchdog: Watchdog,
}

/// What a verb adds to the loop: concerns of its own, and what it does about those of every daemon.
pub(crate) trait Daemon {
    /// News from its own concerns.
    type News;

    /// The device that it runs.
    fn device(&self) -> &Device;

    /// Waits for the next news of its own concerns. It can be cancelled without loss.
    async fn next(&mut self) -> Self::News;

    /// Handles news of its own concerns.
    async fn on_news(&mut self, news: Self::News) -> ControlFlow<End>;

    /// Handles an event that the engine reported. The device's table has it already.
    async fn on_event(&mut self, event: Event);

    /// Handles a datagram of a relay that belongs to no peer.
    async fn on_foreign(&mut self, datagram: Datagram);

    /// This process was copied while it ran. All sessions have ended.
    async fn on_copied(&mut self);

    /// Returns how the daemon ends after the engine has ended by itself.
    async fn on_engine_ended(&mut self, error: std::io::Error) -> End;

    /// Makes the changes that `wg` asks for.
    async fn on_setting(&mut self, changes: Vec<Change>) -> Result<(), ChangeError>;

    /// Reads the config again, for SIGHUP or the local API.
    async fn on_reload(&mut self) -> Result<ReloadReport, ReloadError>;

    /// Asks the agent, for the local API. It may answer later.
    async fn on_agent_call(&mut self, call: AgentCall, reply: AgentAnswer);
}

/// Takes the agent's answer.
pub(crate) type AgentAnswer = oneshot::Sender<Result<AgentReply, Failure>>;

/// The failure for a question to the agent of a daemon that has none. The hint says how to get one.
pub(crate) fn no_agent(hint: impl Into<String>) -> Failure {
    Failure::new(ExitKind::Config, "this daemon runs in static mode")
        .with_cause("it has no identity: only an agent can ask for trust and give it")
        .with_hint(hint)
}

/// Creates the runtime of the control thread.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitKind::Other, "cannot start the control thread").with_cause(error))
}

/// Starts the local API. Its requests arrive in the inbox.
pub(crate) fn serve_api(listener: UnixListener, view: &Arc<View>) -> Inbox<Request> {
    let (asking, requests) = Inbox::new(MAX_REQUESTS);
    tokio::spawn(api::serve(listener, Arc::clone(view), asking));
    requests
}

/// Runs the loop until a concern ends it.
pub(crate) async fn serve(concerns: &mut Concerns, daemon: &mut impl Daemon) -> End {
    loop {
        let flow = tokio::select! {
            signal = concerns.signals.next() => on_signal(signal, daemon).await,
            report = concerns.reports.next() => on_report(report, daemon).await,
            request = concerns.requests.next() => on_request(request, daemon).await,
            setting = concerns.settings.next() => on_setting(setting, daemon).await,
            () = concerns.watchdog.next() => {
                // This thread runs, but the engine thread may hang.
                concerns.watchdog.on_turns(daemon.device().engine().turns());
                ControlFlow::Continue(())
            }
            news = daemon.next() => daemon.on_news(news).await,
        };
        if let ControlFlow::Break(end) = flow {
            return end;
        }
    }
}

async fn on_signal(signal: Signal, daemon: &mut impl Daemon) -> ControlFlow<End> {
    match signal {
        Signal::End => ControlFlow::Break(End::Asked),
        Signal::Reload => {
            if let Err(error) = daemon.on_reload().await {
                tracing::error!(hint = error.hint, "reload refused, the old config stays in force: {}", error.message);
            }
            ControlFlow::Continue(())
        }
    }
}

async fn on_report(report: Report, daemon: &mut impl Daemon) -> ControlFlow<End> {
    match report {
        Report::Event(event) => {
            tracing::debug!(?event);
            daemon.device().table().on_event(event.clone(), wall_clock_of);
            daemon.on_event(event).await;
            ControlFlow::Continue(())
        }
        Report::Foreign(datagram) => {
            daemon.on_foreign(datagram).await;
            ControlFlow::Continue(())
        }
        Report::Copied => {
            daemon.on_copied().await;
            ControlFlow::Continue(())
        }
        Report::Ended(error) => ControlFlow::Break(daemon.on_engine_ended(error).await),
    }
}

async fn on_request(request: Request, daemon: &mut impl Daemon) -> ControlFlow<End> {
    match request {
        Request::Reload(reply) => {
            let _ = reply.send(daemon.on_reload().await);
            ControlFlow::Continue(())
        }
        Request::Down(reply) => {
            let _ = reply.send(());
            ControlFlow::Break(End::Asked)
        }
        Request::Paths(peer, reply) => {
            let _ = reply.send(daemon.device().engine().paths(peer).await);
            ControlFlow::Continue(())
        }
        Request::Agent(call, reply) => {
            daemon.on_agent_call(call, reply).await;
            ControlFlow::Continue(())
        }
    }
}

async fn on_setting(setting: Setting, daemon: &mut impl Daemon) -> ControlFlow<End> {
    let result = daemon.on_setting(setting.changes).await;
    let _ = setting.reply.send(result);
    ControlFlow::Continue(())
}
