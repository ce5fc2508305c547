//! Whether the store of a rendezvous answers: said once when a cluster stops, once when it answers again, and in the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Whether the store answers. A file always does: the process ends with it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Since when it does not answer, and why. `None`: it answers.
    silent: Mutex<Option<(Instant, String)>>,
    /// Requests that were made again.
    pub(crate) repeated: AtomicU64,
}

impl Health {
    /// A request was not answered.
    #[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "a file is never silent"))]
    pub(crate) fn is_silent(&self, why: &str) {
        self.repeated.fetch_add(1, Relaxed);
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.is_none() {
            *silent = Some((Instant::now(), why.to_owned()));
            tracing::warn!(why, "etcd does not answer; what agents want kept waits for it");
        }
    }

    /// A request was answered.
    #[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "a file is never silent"))]
    pub(crate) fn answers(&self) {
        if let Some((since, _)) = self.silent.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tracing::info!("etcd answers again, after {:.1} s", since.elapsed().as_secs_f32());
        }
    }

    /// For how many seconds it has not answered, and why. `None`: it answered the last request.
    pub(crate) fn silence(&self) -> Option<(u64, String)> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.as_ref().map(|(since, why)| (since.elapsed().as_secs(), why.clone()))
    }
}
