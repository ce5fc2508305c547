//! A backup of a rendezvous: its keys, its network object and its registry, as lines of JSON in one file.
//!
//! ```text
//! {"head":{"schema":"overlay.rendezvous.backup.v1","network":"lab","time":"...","unix_ms":...}}
//! {"file":{"name":"network.key","content":"base64"}}
//! {"entry":{"key":"base64","value":"base64"}}
//! {"end":{"files":3,"entries":123}}
//! ```
//!
//! The registry is read in one transaction, so the backup is of one moment. The last line shows that nothing is missing. The
//! file holds private keys.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read as _};
use std::path::Path;

use data_encoding::BASE64;
use overlay_os::dates::rfc3339;
use overlay_os::folder::Folder;
use overlay_rendezvous::store::{Expected, Operation, Store as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::now;
use crate::failure::{Kind, ServeError};
use crate::redb_store::RedbStore;
use crate::snapshots::Snapshots;
use crate::state::{NETWORK, NETWORK_KEY, REGISTRY, RELAY_KEY, RENDEZVOUS_KEY, State, URL, folder_of, read, temporary};
use crate::store_at::StoreAt;

const SCHEMA: &str = "overlay.rendezvous.backup.v1";
/// The files of a backup. The network object is written last when it is restored.
const FILES: [&str; 5] = [URL, RENDEZVOUS_KEY, NETWORK_KEY, RELAY_KEY, NETWORK];
/// What all processes of a rendezvous have in common.
const SHARED: [&str; 4] = [URL, RENDEZVOUS_KEY, NETWORK_KEY, NETWORK];
/// The longest line in bytes.
const MAX_LINE: u64 = 256 * 1024;
/// How many entries are restored with one operation.
const AT_ONCE: usize = 64;

/// A line of a backup.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Head(Head),
    File { name: String, content: Zeroizing<String> },
    Entry { key: String, value: String },
    End(Counts),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    schema: String,
    /// The network.
    pub network: String,
    /// When the backup was made.
    pub time: String,
    unix_ms: u64,
}

/// How much a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Files of the state folder.
    pub files: u64,
    /// Entries of the registry.
    pub entries: u64,
}

/// Writes a backup of a rendezvous that runs, line by line.
pub(crate) fn write(
    folder: &Folder,
    network: &str,
    snapshots: &dyn Snapshots,
    mut put: impl FnMut(Zeroizing<Vec<u8>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut put = |line: &Line| -> io::Result<()> {
        let mut bytes = Zeroizing::new(serde_json::to_vec(line)?);
        bytes.push(b'\n');
        put(bytes)
    };
    let unix_ms = now().unix;
    let head = Head { schema: SCHEMA.to_owned(), network: network.to_owned(), time: rfc3339(unix_ms), unix_ms };
    put(&Line::Head(head))?;
    let mut counts = Counts::default();
    for name in FILES {
        if let Some(content) = read(folder, name).map_err(io::Error::other)? {
            put(&Line::File { name: name.to_owned(), content: Zeroizing::new(BASE64.encode(&content)) })?;
            counts.files += 1;
        }
    }
    snapshots.each(&mut |key, value| {
        counts.entries += 1;
        put(&Line::Entry { key: BASE64.encode(key), value: BASE64.encode(value) })
    })?;
    put(&Line::End(counts))
}

/// What the last line of a backup says. `None`: it is a different line.
pub(crate) fn end(line: &str) -> Option<Counts> {
    match serde_json::from_str(line).ok()? {
        Line::End(counts) => Some(counts),
        _ => None,
    }
}

/// What is made of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The rendezvous, as it was.
    Whole,
    /// One more process of a rendezvous that goes on, on a cluster that all of them share. It has the keys, but a relay of its
    /// own, and the registry is in the cluster.
    Process,
}

/// Makes the state folder of a rendezvous from a backup. There must not be one yet.
///
/// # Errors
/// The backup is damaged or of a different network, or the folder exists. Then nothing of it is left.
pub fn restore(
    (state_dir, network): (&Path, Option<&str>),
    wanted: Restored,
    backup: impl BufRead,
) -> Result<(Head, Counts), ServeError> {
    let mut lines = Lines { backup, number: 0 };
    let head = match lines.next()? {
        Some(Line::Head(head)) if head.schema == SCHEMA => head,
        _ => return Err(damaged(1, &format!("the first line is not that of {SCHEMA}"))),
    };
    if let Some(wanted) = network.filter(|wanted| *wanted != head.network) {
        let failure = ServeError::new(Kind::Config, format!("the backup is not of `{wanted}`"));
        return Err(failure.with_cause(format!("it is of the network `{}`", head.network)));
    }
    overlay_wire::signed::check_name(&head.network).map_err(|reason| damaged(1, &reason.to_string()))?;
    let path = folder_of(state_dir, &head.network);
    if path.symlink_metadata().is_ok() {
        let failure = ServeError::new(Kind::Conflict, format!("`{}` exists", path.display()));
        let aside = format!("{}.old", path.display());
        return Err(failure.with_hint(format!("move it away: mv {} {aside}", path.display())));
    }
    let state = State::open(state_dir, &head.network)?;
    let restored = match wanted {
        Restored::Whole => state
            .store()
            .and_then(|mut store| fill(&state, &mut lines, &FILES, |operation| commit(&mut store, operation))),
        Restored::Process => fill(&state, &mut lines, &SHARED, |_| Ok(())).and_then(|counts| {
            state.keep_store_at(&StoreAt::unnamed())?;
            Ok(Counts { entries: 0, ..counts })
        }),
    };
    if restored.is_err() {
        // It was made above, and its lock is held.
        let _ = std::fs::remove_dir_all(&path);
    }
    restored.map(|counts| (head, counts))
}

/// Writes the files of a backup that are `wanted`, and hands its entries to `commit`.
fn fill(
    state: &State,
    lines: &mut Lines<impl BufRead>,
    wanted: &[&str],
    mut commit: impl FnMut(Operation) -> Result<(), ServeError>,
) -> Result<Counts, ServeError> {
    let (mut counts, mut files) = (Counts::default(), Vec::new());
    let mut operation = Operation::default();
    let told = loop {
        match lines.next()? {
            Some(Line::File { name, content }) => {
                let name = FILES.into_iter().find(|known| *known == name);
                let name = name.ok_or_else(|| damaged(lines.number, "it has a file that no rendezvous has"))?;
                files.push((name, Zeroizing::new(lines.decode(&content)?)));
                counts.files += 1;
            }
            Some(Line::Entry { key, value }) => {
                operation.push(lines.decode(&key)?, Expected::Absent, Some(lines.decode(&value)?));
                counts.entries += 1;
                if operation.writes.len() == AT_ONCE {
                    commit(std::mem::take(&mut operation))?;
                }
            }
            Some(Line::End(told)) => break told,
            Some(Line::Head(_)) => return Err(damaged(lines.number, "it begins twice")),
            None => return Err(damaged(lines.number, "its end is missing")),
        }
    };
    if told != counts || lines.next()?.is_some() {
        return Err(damaged(lines.number, "lines are missing, or there are too many"));
    }
    commit(operation)?;
    files.retain(|(name, _)| wanted.contains(name));
    counts.files = files.len() as u64;
    files.sort_by_key(|(name, _)| FILES.iter().position(|known| known == name));
    for (name, content) in files {
        let written = state.folder.write_new(OsStr::new(name), &temporary(name), &content, 0o600);
        written.map_err(|error| ServeError::of_file("write", &state.folder.path_of(name), &error))?;
    }
    Ok(counts)
}

fn commit(store: &mut RedbStore, operation: Operation) -> Result<(), ServeError> {
    let failed =
        |cause: String| ServeError::new(Kind::Other, format!("`{REGISTRY}` cannot be written")).with_cause(cause);
    if operation.writes.is_empty() {
        return Ok(());
    }
    let outcomes = store.commit(&[operation]).map_err(|error| failed(error.to_string()))?;
    if outcomes.iter().all(Result::is_ok) { Ok(()) } else { Err(failed("an entry is there twice".to_owned())) }
}

/// The lines of a backup.
struct Lines<R> {
    backup: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<Line>, ServeError> {
        let mut text = Zeroizing::new(String::new());
        self.number += 1;
        let read = (&mut self.backup).take(MAX_LINE).read_line(&mut text);
        match read.map_err(|error| damaged(self.number, &error.to_string()))? {
            0 => Ok(None),
            _ => serde_json::from_str(&text).map(Some).map_err(|error| damaged(self.number, &error.to_string())),
        }
    }

    fn decode(&self, text: &str) -> Result<Vec<u8>, ServeError> {
        BASE64.decode(text.as_bytes()).map_err(|error| damaged(self.number, &error.to_string()))
    }
}

fn damaged(line: u64, problem: &str) -> ServeError {
    ServeError::new(Kind::Config, "the backup cannot be used").with_cause(format!("line {line}: {problem}"))
}
