//! Golden files: the texts that people read, kept beside the tests that produce them.
//!
//! A test calls [`golden`] for each text. The text is compared with a section of `golden/FILE/TEST.txt`, in the folder of the
//! test's source file `FILE.rs`. `OVERLAY_BLESS=1` rewrites the files instead, so that a sentence can be reworded and its new
//! form read as a diff. What a program depends on (exit codes, fields of JSON, the key that is wrong) is asserted in the test
//! itself: blessing must not be able to change it.
//!
//! `insta` does not fit: it leaves `.snap.new` files for a tool to review, and it asks cargo where the workspace is. Our tests
//! run as root, and root has no cargo.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Begins the line that says what a section is about.
const HEADING: &str = "### ";

/// A heading, and the text below it.
type Section = (String, String);

/// Compares `text` with the next section of the running test's golden file. `what` is the section's heading: what was done
/// to get this text.
///
/// Blank lines at the end of the text do not count. While files are rewritten, a test that fails on the way leaves a file
/// without its later sections: make it pass and run it again.
///
/// # Panics
/// When heading or text differ from the file, unless `OVERLAY_BLESS` is set. Also outside a test, and in a test that
/// `--test-threads=1` runs on the main thread.
#[track_caller]
pub fn golden(what: impl AsRef<str>, text: impl AsRef<str>) {
    golden_with(what, text, &[]);
}

/// Does what [`golden`] does, for a text with parts that differ from run to run. Each `(found, written)` in `varying` replaces
/// `found` in the text, in this order. An example is `("/tmp/ovl-17", "DIR")`.
///
/// # Panics
/// As [`golden`] does.
#[track_caller]
pub fn golden_with(what: impl AsRef<str>, text: impl AsRef<str>, varying: &[(&str, &str)]) {
    let written = |text: &str| varying.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let section = (written(what.as_ref()), written(text.as_ref()).trim_end_matches('\n').to_owned());
    let path = file_of(Path::new(Location::caller().file()), &running_test());
    let sections = seen(&path, section);
    if std::env::var_os("OVERLAY_BLESS").is_some() {
        write(&path, &sections);
    } else if let Some(complaint) = complaint(&sections, &fs::read_to_string(&path).unwrap_or_default()) {
        panic!("{}: {complaint}\nIf it is right, write it with OVERLAY_BLESS=1.", path.display());
    }
}

/// The golden file of a test in this source file, which the compiler names from the root of the workspace.
fn file_of(source: &Path, test: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = source.parent().unwrap_or(Path::new("")).join("golden");
    root.join(folder).join(source.file_stem().unwrap_or_default()).join(test).with_extension("txt")
}

/// The function that is the running test. The harness names the thread after it, or was told to run this one only.
fn running_test() -> String {
    let thread = std::thread::current().name().filter(|name| *name != "main").map(str::to_owned);
    let asked = || std::env::args().skip_while(|word| word != "--exact").nth(1).filter(|word| !word.starts_with('-'));
    let path = thread.or_else(asked).expect("golden files are for tests, on the thread that the harness starts");
    path.rsplit("::").next().unwrap_or_default().to_owned()
}

/// The sections of this file that the process has come to, this one the last.
fn seen(path: &Path, section: Section) -> Vec<Section> {
    static SEEN: LazyLock<Mutex<HashMap<PathBuf, Vec<Section>>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let sections = seen.entry(path.to_owned()).or_default();
    sections.push(section);
    sections.clone()
}

/// How the last of these sections differs from the one at its place in the file.
fn complaint(sections: &[Section], file: &str) -> Option<String> {
    let (what, text) = sections.last()?;
    let expected = parse(file);
    match expected.get(sections.len() - 1) {
        None => Some(format!("there is no section number {} yet, for `{what}`:\n{text}", sections.len())),
        Some((heading, _)) if heading != what => {
            Some(format!("`{heading}` is expected here, this is `{what}`:\n{text}"))
        }
        Some((_, expected)) if expected != text => {
            Some(format!("`{what}`\n--- expected\n{expected}\n--- found\n{text}\n---"))
        }
        Some(_) => None,
    }
}

/// A file's sections.
fn parse(file: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in file.lines() {
        match (line.strip_prefix(HEADING), sections.last_mut()) {
            (Some(heading), _) => sections.push((heading.to_owned(), String::new())),
            (None, Some((_, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    for (_, text) in &mut sections {
        text.truncate(text.trim_end_matches('\n').len());
    }
    sections
}

/// Writes the file. The tests run as root, so the file is given to the owner of the sources.
fn write(path: &Path, sections: &[Section]) {
    let folder = path.parent().expect("a file in a folder");
    let text: Vec<_> = sections.iter().map(|(what, text)| format!("{HEADING}{what}\n{text}\n")).collect();
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text.join("\n")));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let owner = fs::metadata(env!("CARGO_MANIFEST_DIR")).expect("our own folder");
    // The file, its folder, and `golden`.
    for path in path.ancestors().take(3) {
        // Nobody but root can give files away, and nobody else has to.
        let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "### up\nerror: no\n\nhint: yes\n\n### down\n";

    fn sections() -> Vec<Section> {
        [("up", "error: no\n\nhint: yes"), ("down", "")].map(|(what, text)| (what.to_owned(), text.to_owned())).to_vec()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("golden/file/test.txt");
        write(&path, &sections());
        assert_eq!(parse(&fs::read_to_string(&path).expect("our own file")), sections());
        assert_eq!(parse(FILE), sections());
    }

    #[test]
    fn a_text_is_compared_with_the_section_at_its_place() {
        let both = sections();
        assert_eq!((complaint(&both[..1], FILE), complaint(&both, FILE)), (None, None));
        let other = |what: &str, text: &str| complaint(&[(what.to_owned(), text.to_owned())], FILE).unwrap_or_default();
        assert!(other("up", "error: none").contains("--- found\nerror: none\n"));
        assert!(other("down", "").starts_with("`up` is expected here"));
        assert!(complaint(&both, "").unwrap_or_default().starts_with("there is no section number 2"));
    }

    #[test]
    fn the_file_is_named_after_the_test_and_stands_beside_its_source() {
        let path = file_of(Path::new("tests/bad_input.rs"), &running_test());
        let end = "tests/golden/bad_input/the_file_is_named_after_the_test_and_stands_beside_its_source.txt";
        assert!(path.ends_with(end), "{}", path.display());
    }

    #[test]
    fn a_text_is_found_again_with_what_varies_replaced() {
        golden_with("in /tmp/17", "error: no /tmp/17\n", &[("/tmp/17", "DIR")]);
        golden("a second text", "without anything that varies");
    }
}
