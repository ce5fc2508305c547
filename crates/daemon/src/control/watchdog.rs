//! The service manager's watchdog: it hears that the daemon is alive while the engine thread comes round.

use std::future::pending;

use tokio::time::Interval;

use crate::notify;

/// When the service manager is told next, and what was seen of the engine last.
pub(crate) struct Watchdog {
    /// `None` where the service manager does not ask.
    timer: Option<Interval>,
    turns_seen: Option<u64>,
}

impl Watchdog {
    /// The watchdog that the service manager asks for. Must be called on a tokio runtime.
    pub(crate) fn start() -> Self {
        Self { timer: notify::watchdog_interval().map(tokio::time::interval), turns_seen: None }
    }

    /// Waits until the engine's turns are to be looked at; for ever where nobody asks. Can be cancelled.
    pub(super) async fn next(&mut self) {
        match &mut self.timer {
            Some(timer) => _ = timer.tick().await,
            None => pending().await,
        }
    }

    /// The engine has come round so often.
    pub(super) fn on_turns(&mut self, turns: u64) {
        if self.turns_seen.replace(turns) != Some(turns) {
            notify::watchdog();
        }
    }
}
