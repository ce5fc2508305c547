//! What was added to the system, written to disk before it is added.
//!
//! The kernel removes a TUN when its process ends, and with it its addresses and its routes in every table. It does not
//! remove policy rules, nft tables and socket files. Those are recorded here first, so that after `kill -9` the next
//! clean-up knows about them. The file is always written as a whole: temporary file, fsync, rename, fsync of the
//! folder.
//!
//! Rules are recorded with a priority that nobody else used, so that a clean-up never removes a similar rule of another
//! program.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overlay_os::folder::{Access, Folder, TrustError};
use overlay_os::netlink::{Family, MAIN_TABLE, Rule};
use serde::{Deserialize, Serialize};

use super::runtime::{self, Runtime};
use crate::failure::{ExitKind, Failure};

/// The largest journal that is read, in bytes. Ours have about 2 KB: four rules and two paths.
const MAX_JOURNAL: u64 = 64 * 1024;
/// The version of the file format.
const SCHEMA: &str = "overlay.state.v1";

/// The journal of a running daemon. If it is dropped without [`Journal::finish`], it stays on disk.
#[derive(Debug)]
pub struct Journal {
    folder: Arc<Folder>,
    record: Record,
}

/// The content of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) schema: String,
    /// The inode of the network namespace that everything but the sockets belongs to.
    pub(super) namespace: u64,
    /// The name of the interface. The nft table is named after it.
    pub(super) interface: String,
    /// The index of the interface, once it is known.
    pub(super) index: Option<u32>,
    /// The policy rules.
    pub(super) rules: Vec<RecordedRule>,
    /// Whether the nft table was installed.
    pub(super) nft_table: bool,
    /// The socket files outside the runtime folder.
    pub(super) sockets: Vec<PathBuf>,
    /// Whether names of agents may stand in the hosts file.
    #[serde(default)]
    pub(super) hosts: bool,
}

/// A policy rule, with every attribute needed to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedRule {
    ipv6: bool,
    priority: Option<u32>,
    fwmark: Option<u32>,
    invert: bool,
    table: u32,
    suppress_prefix_length: Option<u32>,
}

impl Journal {
    /// Opens the journal of a daemon whose leftovers were cleaned, and writes it for the first time. A guard that the
    /// clean-up left in place is still recorded.
    pub fn begin(runtime: &Runtime) -> Result<Self, Failure> {
        let namespace = overlay_os::netns::current().map_err(|error| {
            Failure::new(ExitKind::Other, "cannot tell which network namespace this is").with_cause(error)
        })?;
        let record = Record {
            schema: SCHEMA.to_owned(),
            namespace,
            interface: runtime.name().to_owned(),
            index: None,
            rules: Vec::new(),
            nft_table: read(runtime)?.is_some_and(|left| left.nft_table && left.namespace == namespace),
            sockets: Vec::new(),
            hosts: false,
        };
        let journal = Self { folder: Arc::clone(runtime.folder()), record };
        journal.write()?;
        Ok(journal)
    }

    /// Records the index of the interface.
    pub fn record_interface(&mut self, index: u32) -> Result<(), Failure> {
        self.note(|record| record.index = Some(index))
    }

    /// Records a socket file outside the runtime folder that is about to be created.
    pub fn record_socket(&mut self, path: &Path) -> Result<(), Failure> {
        if self.record.sockets.iter().any(|known| known == path) {
            return Ok(());
        }
        self.note(|record| record.sockets.push(path.to_owned()))
    }

    /// Removes a socket file that could not be created: a file that is there belongs to someone else.
    pub fn forget_socket(&mut self, path: &Path) -> Result<(), Failure> {
        self.note(|record| record.sockets.retain(|known| known != path))
    }

    /// Records that names of agents are about to be written to the hosts file, or that they were removed.
    pub fn record_hosts(&mut self, stand: bool) -> Result<(), Failure> {
        self.note(|record| record.hosts = stand)
    }

    pub(super) fn record_rules(&mut self, rules: &[Rule]) -> Result<(), Failure> {
        self.note(|record| record.rules = rules.iter().map(RecordedRule::from).collect())
    }

    pub(super) fn record_nft_table(&mut self, stands: bool) -> Result<(), Failure> {
        self.note(|record| record.nft_table = stands)
    }

    pub(super) fn has_nft_table(&self) -> bool {
        self.record.nft_table
    }

    /// Removes the journal and the recorded socket files. Everything else in the journal has already been removed, apart from names
    /// in the hosts file: if they still stand, so does the journal.
    pub fn finish(mut self) {
        for socket in &self.record.sockets {
            let _ = fs::remove_file(socket);
        }
        if self.record.hosts {
            // `overlay down` can remove them, and the next `overlay up`.
            self.record =
                Record { index: None, rules: Vec::new(), nft_table: false, sockets: Vec::new(), ..self.record };
            let _ = self.write();
            return;
        }
        let _ = self.folder.remove(runtime::file_name(&self.record.interface, "state"));
    }

    fn note(&mut self, change: impl FnOnce(&mut Record)) -> Result<(), Failure> {
        let before = self.record.clone();
        change(&mut self.record);
        if self.record == before { Ok(()) } else { self.write() }
    }

    fn write(&self) -> Result<(), Failure> {
        write(&self.folder, &self.record)
    }
}

/// Replaces the record on disk.
pub(super) fn write(folder: &Folder, record: &Record) -> Result<(), Failure> {
    let name = runtime::file_name(&record.interface, "state");
    let temporary = format!("{name}.tmp");
    serde_json::to_vec_pretty(record)
        .map_err(io::Error::from)
        .and_then(|text| folder.replace(OsStr::new(&name), OsStr::new(&temporary), &text, 0o600))
        .map_err(|error| {
            Failure::new(ExitKind::Other, format!("cannot write {}", folder.path_of(&name).display())).with_cause(error)
        })
}

/// Returns the record that an earlier daemon left, or `None` if it left no record. A record that cannot be understood is an
/// error, because it may name things that still exist. A file that others may write is also an error, and is not
/// obeyed.
pub(super) fn read(runtime: &Runtime) -> Result<Option<Record>, Failure> {
    let path = runtime.state();
    let name = runtime::file_name(runtime.name(), "state");
    let file = match runtime.folder().open(name, Access::Read) {
        Ok(file) => file,
        Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(runtime::file_failure(runtime.folder(), runtime.name(), "state", error)),
    };
    let mut text = String::new();
    if let Err(error) = file.take(MAX_JOURNAL).read_to_string(&mut text) {
        return Err(Failure::new(ExitKind::Other, format!("cannot read {}", path.display())).with_cause(error));
    }
    let unreadable = |cause: String| {
        Failure::new(ExitKind::Other, format!("cannot understand {}", path.display()))
            .with_cause(cause)
            .with_hint(format!("remove by hand what it lists, then: sudo rm {}", path.display()))
    };
    let record: Record = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    if record.schema != SCHEMA {
        return Err(unreadable(format!("its schema is `{}`, this program writes `{SCHEMA}`", record.schema)));
    }
    if record.interface != runtime.name() {
        return Err(unreadable(format!("it is about the interface `{}`", record.interface.escape_default())));
    }
    Ok(Some(record))
}

/// Whether a daemon could have created this rule: it has one of the shapes that [`Rule`] knows, a priority, and a table
/// that we may route to.
pub(super) fn is_of_our_shape(rule: &Rule) -> bool {
    let shapes = [
        rule.fwmark.map(|mark| Rule::unless_marked(rule.family, mark, rule.table)),
        Some(Rule::without_default_route(rule.family, MAIN_TABLE)),
    ];
    let is_shape = |shape: Rule| Rule { priority: rule.priority, ..shape } == *rule;
    rule.priority.is_some() && shapes.into_iter().flatten().any(is_shape)
}

impl From<&Rule> for RecordedRule {
    fn from(rule: &Rule) -> Self {
        Self {
            ipv6: rule.family == Family::V6,
            priority: rule.priority,
            fwmark: rule.fwmark,
            invert: rule.invert,
            table: rule.table,
            suppress_prefix_length: rule.suppress_prefix_length,
        }
    }
}

impl From<&RecordedRule> for Rule {
    fn from(recorded: &RecordedRule) -> Self {
        Self {
            family: if recorded.ipv6 { Family::V6 } else { Family::V4 },
            priority: recorded.priority,
            fwmark: recorded.fwmark,
            invert: recorded.invert,
            table: recorded.table,
            suppress_prefix_length: recorded.suppress_prefix_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden_with;

    use super::*;

    #[test]
    fn what_was_recorded_is_on_disk_at_once_and_gone_after_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::acquire(folder.path(), "ov0").expect("free");
        let socket = folder.path().join("uapi.sock");
        fs::write(&socket, "").expect("writable");

        let mut journal = Journal::begin(&runtime).expect("writable");
        journal.record_interface(17).expect("writable");
        journal.record_socket(&socket).expect("writable");
        journal.record_nft_table(true).expect("writable");

        let record = read(&runtime).expect("readable").expect("there");
        assert_eq!(record, journal.record);
        assert_eq!(
            (record.index, record.nft_table, record.sockets.as_slice()),
            (Some(17), true, &[socket.clone()][..])
        );
        assert_eq!(record.namespace, overlay_os::netns::current().expect("known"));

        let foreign = folder.path().join("foreign.sock");
        fs::write(&foreign, "").expect("writable");
        for _ in 0..3 {
            journal.record_socket(&foreign).expect("writable");
        }
        assert_eq!(journal.record.sockets.len(), 2, "each once, however often it is tried");
        journal.forget_socket(&foreign).expect("writable");

        journal.finish();
        assert!(!socket.exists());
        assert!(foreign.exists(), "it could not be made, so it is not ours");
        assert_eq!(read(&runtime).expect("readable"), None);
    }

    #[test]
    fn a_rule_is_written_with_all_that_finds_it_again() {
        let rows = [
            (
                Rule { priority: Some(32765), ..Rule::unless_marked(Family::V6, 51820, 51821) },
                r#"{"ipv6":true,"priority":32765,"fwmark":51820,"invert":true,"table":51821,"suppress_prefix_length":null}"#,
            ),
            (
                Rule { priority: Some(32764), ..Rule::without_default_route(Family::V4, 254) },
                r#"{"ipv6":false,"priority":32764,"fwmark":null,"invert":false,"table":254,"suppress_prefix_length":0}"#,
            ),
        ];
        for (rule, json) in rows {
            let recorded = RecordedRule::from(&rule);
            assert_eq!(serde_json::to_string(&recorded).expect("plain data"), json);
            assert_eq!(Rule::from(&recorded), rule);
        }
    }

    #[test]
    fn rules_that_no_daemon_of_ours_makes_are_told_from_ours() {
        let ours = Rule { priority: Some(32765), ..Rule::unless_marked(Family::V6, 51820, 51821) };
        let main = Rule { priority: Some(32764), ..Rule::without_default_route(Family::V4, MAIN_TABLE) };
        for rule in [ours, main] {
            assert!(is_of_our_shape(&rule), "{rule:?}");
            let foreign = [
                Rule { priority: None, ..rule },
                Rule { suppress_prefix_length: Some(8), ..rule },
                Rule { invert: !rule.invert, ..rule },
            ];
            foreign.iter().for_each(|rule| assert!(!is_of_our_shape(rule), "{rule:?}"));
        }
        assert!(!is_of_our_shape(&Rule { table: 253, ..main }));
        assert!(!is_of_our_shape(&Rule { fwmark: None, ..ours }));
    }

    #[test]
    fn a_journal_of_another_kind_is_refused_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::acquire(folder.path(), "ov0").expect("free");
        let path = folder.path().join("ov0.state");
        fs::write(&path, "{}").expect("writable");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our own file");
        let refused = read(&runtime).expect_err("no journal");
        golden_with("up", refused.lines(), &[(&folder.path().to_string_lossy(), "DIR")]);
    }
}
