//! What is granted to agents before they ask: like `[[trust]]` of the config, but made by a verb and kept in the state.
//!
//! The file `beforehand` in the state folder has one line of JSON for each agent. It is replaced as a whole. An entry is used
//! once: the request of its agent is approved with it, and from then on the grant itself counts. `untrust` removes it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::Path;

use overlay_os::folder::{Access, Folder, TrustError};
use overlay_wire::signed::{PublicKey, Scope, ScopeList};
use serde::{Deserialize, Serialize};

use super::trust::Terms;
use crate::failure::{ExitKind, Failure};

const NAME: &str = "beforehand";
const TEMPORARY: &str = "beforehand.new";
/// How many agents may be trusted beforehand.
pub(super) const MAX_ENTRIES: usize = 1_024;
/// The longest file in bytes: every entry with the longest list.
const MAX_LEN: u64 = 2 * 1024 * 1024;

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

/// What a user has granted beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) allow: ScopeList,
    /// When the grant ends, in milliseconds since 1970.
    pub(super) expires: Option<u64>,
}

/// All entries, as they are on disk.
pub(super) struct Beforehand {
    folder: Folder,
    entries: BTreeMap<PublicKey, Entry>,
}

impl Beforehand {
    /// Reads the file of a state folder.
    pub(super) fn open(state: &Path) -> Result<Self, Failure> {
        let folder = Folder::trusted(state, &[]).map_err(|error| cannot_use(state, error))?;
        let path = folder.path_of(NAME);
        let mut text = String::new();
        match folder.open(NAME, Access::Read) {
            Ok(file) => {
                file.take(MAX_LEN).read_to_string(&mut text).map_err(|error| cannot_use(&path, error))?;
            }
            Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_use(&path, error)),
        }
        let entries = text.lines().map(read).collect::<Option<_>>().ok_or_else(|| {
            Failure::new(ExitKind::Config, format!("{} is damaged", path.display()))
                .with_cause("it was cut off or changed by hand")
                .with_hint("remove it, and run `overlay trust` again for the agents that it named")
        })?;
        Ok(Self { folder, entries })
    }

    /// What an agent is granted when it asks at this time.
    pub(super) fn entry(&self, peer: &PublicKey, now: u64) -> Option<&Entry> {
        self.entries.get(peer).filter(|entry| entry.expires.is_none_or(|at| now < at))
    }

    /// Every entry that has not ended.
    pub(super) fn entries(&self, now: u64) -> impl Iterator<Item = (&PublicKey, &Entry)> {
        self.entries.iter().filter(move |(_, entry)| entry.expires.is_none_or(|at| now < at))
    }

    /// Adds or replaces an entry. It is on disk when this returns.
    pub(super) fn set(&mut self, peer: PublicKey, entry: Entry, now: u64) -> Result<(), Failure> {
        let mut entries = self.entries.clone();
        entries.retain(|_, entry| entry.expires.is_none_or(|at| now < at));
        entries.insert(peer, entry);
        if entries.len() > MAX_ENTRIES {
            return Err(Failure::new(ExitKind::Refused, "too many agents are trusted beforehand")
                .with_cause(format!("{MAX_ENTRIES} are the most"))
                .with_hint("overlay untrust KEY removes one; overlay agents lists them"));
        }
        self.write(entries)
    }

    /// Removes an entry. Returns whether there was one.
    pub(super) fn remove(&mut self, peer: &PublicKey) -> Result<bool, Failure> {
        if !self.entries.contains_key(peer) {
            return Ok(false);
        }
        let mut entries = self.entries.clone();
        entries.remove(peer);
        // Even if the file cannot be written, the entry is not used any more.
        self.entries.remove(peer);
        self.write(entries).map(|()| true)
    }

    fn write(&mut self, entries: BTreeMap<PublicKey, Entry>) -> Result<(), Failure> {
        let mut text = Vec::new();
        for (key, entry) in &entries {
            let line = Line { key: key.to_string(), allow: entry.allow.0.clone(), expires_ms: entry.expires };
            serde_json::to_writer(&mut text, &line).expect("an entry is plain data");
            text.push(b'\n');
        }
        self.folder.replace(OsStr::new(NAME), OsStr::new(TEMPORARY), &text, 0o600).map_err(|error| {
            Failure::new(ExitKind::Other, format!("cannot write {}", self.folder.path_of(NAME).display()))
                .with_cause(error)
        })?;
        self.entries = entries;
        Ok(())
    }
}

impl Entry {
    pub(super) fn terms(&self) -> Terms {
        Terms { allow: Some(self.allow.clone()), expires: self.expires }
    }
}

fn read(line: &str) -> Option<(PublicKey, Entry)> {
    let line: Line = serde_json::from_str(line).ok()?;
    let is_good = line.allow.iter().all(|scope| Scope::parse(scope).is_ok());
    let entry = Entry { allow: ScopeList(line.allow), expires: line.expires_ms };
    Some((line.key.parse().ok()?, entry)).filter(|_| is_good)
}

fn cannot_use(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(ExitKind::Permission, format!("cannot use {}", path.display())).with_cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> PublicKey {
        let mut secret = [7; 32];
        secret[..4].copy_from_slice(&number.to_le_bytes());
        overlay_wire::signed::SecretKey::from_bytes(&secret).public()
    }

    fn entry(allow: &[&str], expires: Option<u64>) -> Entry {
        Entry { allow: ScopeList(allow.iter().map(|scope| (*scope).to_owned()).collect()), expires }
    }

    #[test]
    fn what_was_granted_is_on_disk_until_it_is_removed_or_ends() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || Beforehand::open(folder.path()).expect("our own folder");
        let mut beforehand = open();
        beforehand.set(key(1), entry(&["tcp/22"], None), 0).expect("room");
        beforehand.set(key(2), entry(&[], Some(1_000)), 0).expect("room");
        let mut beforehand = open();
        assert_eq!(beforehand.entry(&key(1), 0), Some(&entry(&["tcp/22"], None)));
        assert_eq!(beforehand.entry(&key(2), 999), Some(&entry(&[], Some(1_000))));
        assert_eq!(beforehand.entry(&key(2), 1_000), None);
        assert_eq!(beforehand.remove(&key(1)), Ok(true));
        assert_eq!(beforehand.remove(&key(1)), Ok(false));
        assert_eq!(open().entries(0).count(), 1);
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for text in ["{", "{\"key\":\"x\",\"allow\":[]}\n", "{\"allow\":[\"all\"]}\n"] {
            std::fs::write(folder.path().join(NAME), text).expect("our own folder");
            let failure = Beforehand::open(folder.path()).err().expect("a refusal");
            assert!(failure.error.contains(NAME) && failure.hint.is_some(), "{failure}");
        }
    }

    #[test]
    fn there_are_no_more_than_the_bound_says_and_what_has_ended_makes_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut beforehand = Beforehand::open(folder.path()).expect("our own folder");
        beforehand.entries = (0..MAX_ENTRIES as u32).map(|number| (key(number), entry(&[], Some(10)))).collect();
        assert_eq!(beforehand.set(key(9_999), entry(&[], None), 9).expect_err("full").code, ExitKind::Refused);
        assert_eq!(beforehand.set(key(9_999), entry(&[], None), 10), Ok(()));
        assert_eq!(beforehand.entries.len(), 1);
    }
}
