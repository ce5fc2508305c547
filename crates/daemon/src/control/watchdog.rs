//! The service manager's watchdog: it is told that the daemon is alive while the engine thread makes turns.

use std::future::pending;

use tokio::time::Interval;

use crate::notify;

/// The timer of the next message, and the engine's turns at the last one.
pub(crate) struct Watchdog {
    /// `None` if the service manager has no watchdog for us.
    timer: Option<Interval>,
    turns_seen: Option<u64>,
}

impl Watchdog {
    /// Starts the watchdog that the service manager asks for. Must be called on a tokio runtime.
    pub(crate) fn start() -> Self {
        Self { timer: notify::watchdog_interval().map(tokio::time::interval), turns_seen: None }
    }

    /// Waits until the next message is due; for ever where the service manager does not ask. Can be cancelled.
    pub(super) async fn next(&mut self) {
        match &mut self.timer {
            Some(timer) => _ = timer.tick().await,
            None => pending().await,
        }
    }

    /// Tells the service manager that the daemon is alive, if the engine has made turns since the last call.
    pub(super) fn on_turns(&mut self, turns: u64) {
        if self.turns_seen.replace(turns) != Some(turns) {
            notify::watchdog();
        }
    }
}
