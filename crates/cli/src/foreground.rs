//! A program that serves in the foreground until Ctrl-C or SIGTERM.

use std::future::Future;
use std::pin::Pin;

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use tokio::signal::unix::{SignalKind, signal};

/// What completes when the program is to end.
pub(crate) type End = Pin<Box<dyn Future<Output = ()>>>;

/// Runs `serve` on so many threads. What it gets completes at the first signal.
pub(crate) fn run(threads: usize, serve: impl AsyncFnOnce(End) -> Result<(), Failure>) -> Result<(), Failure> {
    let cannot = |error| Failure::new(ExitKind::Other, "cannot start the runtime").with_cause(error);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().map_err(cannot)?;
    runtime.block_on(async {
        let caught = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitKind::Other, "cannot wait for signals").with_cause(error))
        };
        let (mut interrupt, mut terminate) = (caught(SignalKind::interrupt())?, caught(SignalKind::terminate())?);
        let end = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        serve(Box::pin(end)).await
    })
}
