//! The log of what the operator ordered: one line of JSON for each order, `audit.log` in the state folder.
//!
//! A line is on disk before the operator gets the answer. At 8 MiB the file becomes `audit.log.1`, in place of the one before.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use overlay_os::dates::rfc3339;
use overlay_os::folder::{Folder, TrustError};
use overlay_os::line_log::LineLog;
use serde::Serialize;

use super::protocol::Ask;

const NAME: &str = "audit.log";
const OLD: &str = "audit.log.1";
/// The length in bytes at which a new file begins.
const MAX_LEN: u64 = 8 * 1024 * 1024;

/// The log. Clones are the same log.
#[derive(Clone, Debug)]
pub(crate) struct Audit(Arc<Mutex<LineLog>>);

/// One order.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    unix_ms: u64,
    /// The user who ordered it.
    uid: u32,
    order: &'a Ask,
    /// The full key that it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// `done`, or why it was refused.
    outcome: &'a str,
}

impl Audit {
    /// The log of a state folder.
    pub(crate) fn open(state: &Path) -> Result<Self, TrustError> {
        let folder = Folder::trusted(state, &[])?;
        Ok(Self(Arc::new(Mutex::new(LineLog::new(folder, NAME, OLD, MAX_LEN)))))
    }

    /// Logs an order. It waits for the disk.
    pub(super) fn note(
        &self,
        (uid, order): (u32, &Ask),
        key: Option<&str>,
        outcome: &str,
        unix_ms: u64,
    ) -> io::Result<()> {
        let line = Line { time: rfc3339(unix_ms), unix_ms, uid, order, key, outcome };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).append(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_lines_of_json() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let audit = Audit::open(dir.path()).expect("our own folder");
        let order = Ask::BanAgent { agent: "al\nice".to_owned() };
        for outcome in ["done", "no"] {
            audit.note((7, &order), Some("key"), outcome, 0).expect("it is written");
        }
        let text = std::fs::read_to_string(dir.path().join(NAME)).expect("the log");
        assert_eq!(text.lines().count(), 2);
        assert_eq!(
            text.lines().next(),
            Some(
                r#"{"time":"1970-01-01T00:00:00Z","unix_ms":0,"uid":7,"order":{"ban_agent":{"agent":"al\nice"}},"key":"key","outcome":"done"}"#
            )
        );
    }
}
