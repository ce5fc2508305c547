//! The log of what the operator ordered: one line of JSON for each order, `audit.log` in the state folder.
//!
//! A line is on disk before the operator gets the answer. When the file has [`MAX_LEN`] bytes, it becomes `audit.log.1`, in
//! place of the one before.

use std::io::{self, Write as _};

use overlay_os::dates::rfc3339;
use overlay_os::folder::{Access, Folder};
use serde::Serialize;

use super::protocol::Ask;

const NAME: &str = "audit.log";
const OLD: &str = "audit.log.1";
/// The length in bytes at which a new file begins.
const MAX_LEN: u64 = 8 * 1024 * 1024;

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

/// Logs an order.
pub(super) fn note(
    folder: &Folder,
    (uid, order): (u32, &Ask),
    key: Option<&str>,
    outcome: &str,
    unix_ms: u64,
) -> io::Result<()> {
    let mut file = folder.open(NAME, Access::Append)?;
    if file.metadata()?.len() >= MAX_LEN {
        folder.rename(NAME, OLD)?;
        file = folder.open(NAME, Access::Append)?;
    }
    let line = Line { time: rfc3339(unix_ms), unix_ms, uid, order, key, outcome };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_lines_and_a_long_file_makes_room() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::trusted(dir.path(), &[]).expect("our own folder");
        let order = Ask::BanAgent { agent: "al\nice".to_owned() };
        let log = || note(&folder, (7, &order), Some("key"), "done", 0).expect("it is written");
        log();
        log();
        let path = dir.path().join(NAME);
        let text = std::fs::read_to_string(&path).expect("the log");
        assert_eq!(
            text.lines().next(),
            Some(
                r#"{"time":"1970-01-01T00:00:00Z","unix_ms":0,"uid":7,"order":{"ban_agent":{"agent":"al\nice"}},"key":"key","outcome":"done"}"#
            )
        );
        assert_eq!(text.lines().count(), 2);
        std::fs::OpenOptions::new().write(true).open(&path).expect("it").set_len(MAX_LEN).expect("a long file");
        log();
        assert_eq!(std::fs::read_to_string(&path).expect("a new log").lines().count(), 1);
        assert_eq!(std::fs::metadata(dir.path().join(OLD)).expect("the old one").len(), MAX_LEN);
    }
}
