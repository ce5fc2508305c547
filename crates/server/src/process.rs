//! What a process that serves asks of the kernel at its start.

/// Keeps the keys out of core dumps, and makes room for many connections. Both are only better to have.
pub(crate) fn prepare() {
    if let Err(error) = overlay_os::privileges::harden() {
        tracing::warn!(%error, "core dumps of this process could not be switched off");
    }
    match overlay_os::privileges::raise_file_limit() {
        Ok(limit) => tracing::debug!(limit, "files that may be open"),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}
