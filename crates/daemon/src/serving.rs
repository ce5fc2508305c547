//! What every server of the daemon needs: unix sockets with the right mode, bounded connections, and who is calling.
//!
//! The local API, the UAPI and the metrics serve through this. It does not know their protocols.

pub(crate) mod access;
pub(crate) mod connection;
pub(crate) mod guests;
pub(crate) mod socket;

use std::path::{Path, PathBuf};

/// The folder where `wg` looks for sockets.
pub(crate) const UAPI_FOLDER: &str = "/var/run/wireguard";

/// The path of the socket where `wg` looks for this interface.
pub(crate) fn uapi_socket(interface: &str) -> PathBuf {
    Path::new(UAPI_FOLDER).join(format!("{interface}.sock"))
}
