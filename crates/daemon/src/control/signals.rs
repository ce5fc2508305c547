//! The signals that a daemon obeys.

use std::future::pending;

use tokio::signal::unix::{self, SignalKind};

use crate::failure::{ExitKind, Failure};

/// What a signal asks for.
pub(crate) enum Signal {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP.
    Reload,
}

/// The signals that are caught.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// `None` if there is no config to read again.
    hangup: Option<unix::Signal>,
}

impl Signals {
    /// Catches SIGINT and SIGTERM, which end the daemon in order from now on.
    ///
    /// # Errors
    /// The process cannot wait for signals.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let (interrupt, terminate) = (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: None })
    }

    /// Catches SIGHUP too, which asks for a reload.
    ///
    /// # Errors
    /// See [`Signals::catch`].
    pub(crate) fn and_reload(mut self) -> Result<Self, Failure> {
        self.hangup = Some(caught(SignalKind::hangup())?);
        Ok(self)
    }

    /// Waits for the next signal. Can be cancelled.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::End,
            _ = self.terminate.recv() => Signal::End,
            () = received(&mut self.hangup) => Signal::Reload,
        }
    }
}

fn caught(kind: SignalKind) -> Result<unix::Signal, Failure> {
    unix::signal(kind).map_err(|error| Failure::new(ExitKind::Other, "cannot wait for signals").with_cause(error))
}

async fn received(signal: &mut Option<unix::Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => pending().await,
    }
}
