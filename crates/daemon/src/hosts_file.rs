//! Our part of the hosts file: a block between two lines that name the interface.
//!
//! The file is written in place, since in a container it is often a mount of its own that cannot be replaced by a rename. Our
//! block stands at its end, so that what is written is ours alone, and the lines of others stay where they are. A write that
//! is cut off leaves whole lines of others and at most a block without its end, which the next clean-up removes.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use overlay_os::process::try_lock_exclusive;

/// What every name of ours ends with.
pub(crate) const SUFFIX: &str = ".overlay.internal";
/// The hosts file of Linux.
pub(crate) const HOSTS: &str = "/etc/hosts";
/// The largest hosts file that is changed, in bytes. Lists of blocked names have a few megabytes.
const MAX_LEN: u64 = 64 * 1024 * 1024;
/// How often the lock of the file is tried, and the time between.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The names of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) address: IpAddr,
    /// `alice.lab.overlay.internal`.
    pub(crate) full: String,
    /// `alice`, where that means no other host.
    pub(crate) short: Option<String>,
}

/// Replaces the block of this interface. No lines: removes it. Returns whether the file has changed.
///
/// # Errors
/// The system's. The lines of others are as they were.
pub(crate) fn write(path: &Path, interface: &str, lines: &[Line]) -> io::Result<bool> {
    // Where nothing is to be changed, nobody has to be allowed to.
    let before = read(&File::open(path)?)?;
    if with_block(&before, interface, lines) == before {
        return Ok(false);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    lock(&file)?;
    let before = read(&file)?;
    let after = with_block(&before, interface, lines);
    if after == before {
        return Ok(false);
    }
    let others = without_block(&before, &Marks::of(interface)).len();
    replace(&mut file, &before, &after, others)?;
    Ok(true)
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if file.take(MAX_LEN + 1).read_to_end(&mut content)? as u64 > MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 64 MiB"));
    }
    Ok(content)
}

/// Two daemons with blocks of their own do not write at once. Anybody may lock a file that he can read, so this is given up
/// after a while.
fn lock(file: &File) -> io::Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        if try_lock_exclusive(file)? {
            break;
        }
        thread::sleep(LOCK_PAUSE);
    }
    Ok(())
}

/// Removes the block of this interface. Returns whether there was one.
///
/// # Errors
/// The system's. A file that does not exist has no block.
pub(crate) fn remove(path: &Path, interface: &str) -> io::Result<bool> {
    match write(path, interface, &[]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result,
    }
}

/// Writes what differs, from the first byte that does. If only our own block follows, it is cut off first: a write that is cut
/// off then leaves a block without its end, and nothing of the block before.
fn replace(file: &mut File, before: &[u8], after: &[u8], others: usize) -> io::Result<()> {
    let same = same(before, after);
    if same >= others {
        file.set_len(same as u64)?;
    }
    file.seek(SeekFrom::Start(same as u64))?;
    file.write_all(&after[same..])?;
    file.set_len(after.len() as u64)?;
    file.sync_data()
}

/// How much two contents have in common, from the beginning.
fn same(before: &[u8], after: &[u8]) -> usize {
    before.iter().zip(after).take_while(|(old, new)| old == new).count()
}

/// The content with these lines as the block of the interface.
fn with_block(file: &[u8], interface: &str, lines: &[Line]) -> Vec<u8> {
    let marks = Marks::of(interface);
    let mut content = without_block(file, &marks);
    if lines.is_empty() {
        return content;
    }
    let begin = if content.is_empty() || content.ends_with(b"\n") { &marks.begin } else { &marks.begin_unended };
    if !content.is_empty() && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    let others = names_in(&content);
    let mut block = format!("{begin}\n");
    for Line { address, full, short } in lines {
        let short = short.as_deref().filter(|short| !others.contains(*short));
        let short = short.map(|short| format!(" {short}")).unwrap_or_default();
        block.push_str(&format!("{address}\t{full}{short}\n"));
    }
    block.push_str(&marks.end);
    block.push('\n');
    content.extend_from_slice(block.as_bytes());
    content
}

/// The lines around a block.
struct Marks {
    begin: String,
    /// The same if the line before had no end.
    begin_unended: String,
    end: String,
}

impl Marks {
    fn of(interface: &str) -> Self {
        Self {
            begin: format!("# overlay {interface}: names of agents, removed by `overlay down`"),
            begin_unended: format!(
                "# overlay {interface}: names of agents, removed by `overlay down` with the line end before"
            ),
            end: format!("# overlay {interface}: end"),
        }
    }
}

/// The content without any block of the interface, byte for byte as it was before there was one.
fn without_block(file: &[u8], marks: &Marks) -> Vec<u8> {
    let mut content = Vec::with_capacity(file.len());
    let mut lines = file.split_inclusive(|byte| *byte == b'\n');
    while let Some(line) = lines.next() {
        let begins = is(line, &marks.begin);
        let begins_unended = is(line, &marks.begin_unended);
        if !begins && !begins_unended {
            content.extend_from_slice(line);
            continue;
        }
        if begins_unended && content.ends_with(b"\n") {
            content.pop();
        }
        let rest = lines.clone();
        match lines.position(|line| is(line, &marks.end)) {
            Some(_) => {}
            // It was cut off before its end. Somebody may have added lines since.
            None => lines = after_cut(rest),
        }
    }
    content
}

fn is(line: &[u8], mark: &str) -> bool {
    line.strip_suffix(b"\n").unwrap_or(line) == mark.as_bytes()
}

/// What follows a block without its end: the lines after the last one that can be ours, or nothing if none is whole.
fn after_cut<'a, L: Iterator<Item = &'a [u8]> + Clone>(lines: L) -> L {
    let mut rest = lines.clone();
    let mut after = lines;
    while let Some(line) = rest.next() {
        let is_cut = !line.ends_with(b"\n");
        if !is_cut && !is_ours(line) {
            break;
        }
        after = rest.clone();
    }
    after
}

/// Whether a line can be one of a block.
fn is_ours(line: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(line) else { return false };
    let mut words = line.split_ascii_whitespace();
    let (address, name) = (words.next(), words.next());
    address.is_none_or(|address| address.parse::<IpAddr>().is_ok()) && name.is_none_or(|name| name.ends_with(SUFFIX))
}

/// Every name that the lines of others give.
fn names_in(content: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(content);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines.flat_map(|line| line.split_ascii_whitespace().skip(1)).map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(host: u8, name: &str, short: bool) -> Line {
        let full = format!("{name}.lab.overlay.internal");
        Line { address: [10, 99, 0, host].into(), full, short: short.then(|| name.to_owned()) }
    }

    /// Files as people have them: with and without an end of the last line, empty, with bytes that are not text.
    const FILES: [&[u8]; 5] =
        [b"127.0.0.1\tlocalhost\n::1 localhost\n", b"127.0.0.1 localhost", b"", b"\n\n", b"\xff\xfe\n"];

    #[test]
    fn a_block_comes_changes_and_goes_and_the_rest_stays_as_it_was() {
        for file in FILES {
            let one = with_block(file, "ov0", &[line(1, "alice", true)]);
            let text = String::from_utf8_lossy(&one).into_owned();
            assert!(text.contains("10.99.0.1\talice.lab.overlay.internal alice\n"), "{text}");
            let two = with_block(&one, "ov0", &[line(1, "alice", true), line(2, "bob", false)]);
            assert!(String::from_utf8_lossy(&two).contains("10.99.0.2\tbob.lab.overlay.internal\n"));
            let other = with_block(&two, "ov1", &[line(3, "carol", true)]);
            assert_eq!(with_block(&other, "ov1", &[]), two);
            assert_eq!(with_block(&two, "ov0", &[]), file);
        }
    }

    #[test]
    fn what_others_add_behind_the_block_stays() {
        let mut file = with_block(FILES[0], "ov0", &[line(1, "alice", true)]);
        file.extend_from_slice(b"10.0.0.9 printer\n");
        let changed = with_block(&file, "ov0", &[line(2, "bob", true)]);
        assert!(String::from_utf8_lossy(&changed).contains("printer"));
        assert_eq!(with_block(&changed, "ov0", &[]), [FILES[0], b"10.0.0.9 printer\n"].concat());
    }

    #[test]
    fn a_name_alone_that_the_file_has_already_is_left_to_it() {
        let file = b"10.0.0.9 Alice # bob\n";
        let text = String::from_utf8(with_block(file, "ov0", &[line(1, "alice", true), line(2, "bob", true)]));
        let text = text.expect("text");
        assert!(
            text.contains("\talice.lab.overlay.internal\n") && text.contains("\tbob.lab.overlay.internal bob\n"),
            "{text}"
        );
    }

    #[test]
    fn a_write_that_was_cut_off_anywhere_is_cleaned_up() {
        for file in FILES {
            let before = with_block(file, "ov0", &[line(1, "alice", true), line(2, "bob", true)]);
            for lines in [vec![line(3, "carol", true)], vec![line(1, "alice", true); 9], Vec::new()] {
                let after = with_block(&before, "ov0", &lines);
                let same = same(&before, &after);
                for len in same..=after.len() {
                    let torn = [&before[..same], &after[same..len]].concat();
                    let cleaned = with_block(&torn, "ov0", &[]);
                    let (cleaned, file) = (String::from_utf8_lossy(&cleaned), String::from_utf8_lossy(file));
                    assert_eq!(cleaned.trim_end(), file.trim_end(), "cut off after {len}");
                }
            }
        }
    }

    #[test]
    fn a_file_is_changed_in_place_and_only_where_it_must_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hosts");
        std::fs::write(&path, FILES[0]).expect("writable");
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("there"));
        let first = inode(&path);
        assert!(write(&path, "ov0", &[line(1, "alice", true)]).expect("writable"));
        assert!(!write(&path, "ov0", &[line(1, "alice", true)]).expect("writable"), "nothing is new");
        assert!(remove(&path, "ov0").expect("writable"));
        assert!(!remove(&path, "ov0").expect("writable"));
        assert_eq!((std::fs::read(&path).expect("readable"), inode(&path)), (FILES[0].to_vec(), first));
        assert!(!remove(&folder.path().join("none"), "ov0").expect("no file, no block"));
    }
}
