//! How long each step may take. A step that hangs in the kernel keeps a thread, which ends with the process.

use std::time::Duration;

use tokio::time::timeout;

use crate::failure::{ExitKind, Failure};

/// How long it may take to find the daemon.
pub(super) const FIND: Duration = Duration::from_secs(2);
/// How long the daemon may take to answer.
pub(super) const DAEMON: Duration = Duration::from_millis(3_500);
/// How long the agent may be about to connect before that is told.
pub(super) const CONNECTING: Duration = Duration::from_secs(3);
/// How long the name of the rendezvous may take, and how long its connection.
pub(super) const NAME: Duration = Duration::from_secs(2);
pub(super) const RENDEZVOUS: Duration = Duration::from_millis(4_500);
/// How long the kernel and the disk may take.
pub(super) const HOST: Duration = Duration::from_secs(3);

/// Does something that may wait for a disk, on a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match timeout(patience, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) | Err(_) => Err(Failure::new(ExitKind::Timeout, "a file of the agent cannot be read")
            .with_cause(format!("the disk does not answer within {} s", patience.as_secs()))),
    }
}
