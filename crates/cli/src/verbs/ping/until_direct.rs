//! `overlay ping --until-direct`: watches the path to a peer until packets go directly.

use std::future::pending;
use std::time::Duration;

use overlay_daemon::Failure;
use overlay_daemon::client::Client;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::view::{PairStatus, PathKind, PathStatus, Status};
use tokio::time::{Instant, sleep_until};

use super::Target;
use crate::peers::{nobodys, owner};
use crate::verbs::path::way;

/// The wait for a direct path to a peer.
pub(super) struct UntilDirect {
    client: Client,
    /// The peer's key, which names it for certain.
    key: String,
    deadline: Instant,
    last: PathStatus,
}

impl UntilDirect {
    /// Begins to wait, at most this long. Fails for a peer that overlay looks for no paths to.
    pub(super) async fn begin(
        client: &Client,
        target: &Target,
        timeout: Duration,
        status: &Status,
    ) -> Result<Self, Failure> {
        let peer = owner(target.ip, status).ok_or_else(|| nobodys(target.ip, status))?;
        let last = client.path(&peer.public_key).await?;
        Ok(Self { client: client.clone(), key: peer.public_key.clone(), deadline: Instant::now() + timeout, last })
    }

    /// Asks for the path.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        self.last = self.client.path(&self.key).await?;
        Ok(())
    }

    /// The path in use when it was last asked for.
    pub(super) fn primary(&self) -> Option<&PairStatus> {
        self.last.primary.as_ref()
    }

    /// When the wait ends.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Ends the wait. Fails without a direct path. `typed`: what the user calls the peer.
    pub(super) fn end(self, typed: &str) -> Result<(), Failure> {
        match self.primary() {
            Some(path) if path.kind == PathKind::Direct => Ok(()),
            _ => Err(not_direct(&self.last, typed)),
        }
    }
}

/// The failure for a peer that is still not reached directly.
fn not_direct(path: &PathStatus, typed: &str) -> Failure {
    let why = path.why_not_direct.as_ref().map_or("the path has just changed", |why| why.message.as_str());
    let way = match &path.primary {
        Some(path) => way(path.kind, path.remote),
        None => "there is no path".to_owned(),
    };
    Failure::new(ExitKind::Timeout, format!("`{typed}` is not reached directly"))
        .with_cause(format!("{way}: {why}"))
        .with_hint(format!("overlay path {typed}"))
}

/// Waits until the deadline, or forever without one.
pub(super) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;
    use serde_json::json;

    use super::*;
    use crate::output::rendered;

    #[test]
    fn waiting_in_vain_ends_with_8_and_the_reason() {
        let path = json!({
            "schema": "overlay.path.v1", "peer": "bob", "public_key": "k", "state": "connected", "is_trying": false,
            "is_active": true, "is_suspect": false, "is_mirroring": false, "switches": 0, "suspicions": 0,
            "has_heard_addresses": true, "told_addresses": [], "pairs": [],
            "primary": {
                "kind": "relay", "remote": "192.0.2.1:7447", "state": "proven", "is_primary": true, "is_mirror": false,
                "is_named": true, "loss": 0.0, "probes_sent": 3, "probes_answered": 2,
            },
            "why_not_direct": { "reason": "trying", "message": "direct paths are being tried now" },
        });
        let mut path: PathStatus = serde_json::from_value(path).expect("a path");
        let failure = not_direct(&path, "bob");
        assert_eq!(failure.code.exit_code(), 8);
        golden("overlay ping bob --until-direct", rendered(&failure, false));
        path.primary = None;
        golden("without a path", rendered(&not_direct(&path, "bob"), false));
    }
}
