//! A log of lines in a trusted folder, each on disk before the call returns, with a bound.
//!
//! When the file would become too long, it gets a second name, in place of the one before it. A line that was written in half,
//! because the power or the disk failed, spoils no other.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use crate::folder::{Access, Folder, TrustError};

/// The open log.
#[derive(Debug)]
pub struct LineLog {
    folder: Folder,
    name: &'static str,
    former: &'static str,
    max_len: u64,
    file: Option<File>,
    /// The last write may have left half a line.
    is_torn: bool,
}

impl LineLog {
    /// A log in the file `name`, of at most `max_len` bytes, and as much in the file `former`. Nothing is created before the
    /// first line.
    pub fn new(folder: Folder, name: &'static str, former: &'static str, max_len: u64) -> Self {
        Self { folder, name, former, max_len, file: None, is_torn: false }
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Appends a line, which is on disk when this returns. `line` ends in a newline.
    ///
    /// # Errors
    /// The file system's error, or the file is not one of our own.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut file = self.current(line.len() as u64)?;
        let was_torn = std::mem::replace(&mut self.is_torn, true);
        let written = if was_torn { file.write_all(&[b"\n", line].concat()) } else { file.write_all(line) };
        written.and_then(|()| file.sync_data())?;
        self.is_torn = false;
        self.file = Some(file);
        Ok(())
    }

    /// The content of the newest file, then that of the one before, each read when it is asked for.
    pub fn newest_first(&self) -> impl Iterator<Item = Vec<u8>> {
        [self.name, self.former].into_iter().map(|name| self.read(name))
    }

    fn read(&self, name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Ok(file) = self.folder.open(name, Access::Read) {
            // Half a file is still worth reading.
            let _ = file.take(self.max_len * 2).read_to_end(&mut bytes);
        }
        bytes
    }

    /// The file with room for a line. It is opened again if somebody has moved it away.
    fn current(&mut self, room: u64) -> io::Result<File> {
        let known = self.file.take().filter(|file| self.folder.is_at(file, self.name));
        let file = match known {
            Some(file) => file,
            None => self.open_file()?,
        };
        if file.metadata()?.len() + room <= self.max_len {
            return Ok(file);
        }
        self.folder.rename(self.name, self.former)?;
        self.open_file()
    }

    fn open_file(&mut self) -> io::Result<File> {
        // The last line may be half a line, if the power failed while it was written.
        self.is_torn = match self.folder.open(self.name, Access::Read) {
            Ok(mut file) => {
                let mut last = [b'\n'];
                let length = file.metadata()?.len();
                if length > 0 {
                    file.seek(SeekFrom::Start(length - 1))?;
                    file.read_exact(&mut last)?;
                }
                last != *b"\n"
            }
            Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        let file = self.folder.open(self.name, Access::Append)?;
        self.folder.sync()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MAX_LEN: u64 = 1_000;

    fn log(folder: &tempfile::TempDir) -> LineLog {
        LineLog::new(Folder::trusted(folder.path(), &[]).expect("our own folder"), "log", "log.1", MAX_LEN)
    }

    fn lines(log: &LineLog) -> Vec<String> {
        let all = log.newest_first().collect::<Vec<_>>().into_iter().rev().flatten().collect::<Vec<_>>();
        String::from_utf8(all).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn two_files_are_the_most_and_the_newest_lines_are_in_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = log(&folder);
        for number in 0..500 {
            log.append(format!("line {number}\n").as_bytes()).expect("it is written");
        }
        let lengths: Vec<_> = fs::read_dir(folder.path())
            .expect("the folder")
            .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
            .collect();
        assert!(lengths.len() == 2 && lengths.iter().all(|length| (1..=MAX_LEN).contains(length)), "{lengths:?}");
        let kept = lines(&log);
        let expected: Vec<_> = (500 - kept.len()..500).map(|number| format!("line {number}")).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn half_a_line_spoils_no_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        log(&folder).append(b"whole\n").expect("it is written");
        let path = folder.path().join("log");
        fs::write(&path, b"whole\nhal").expect("our own file");
        let mut log = log(&folder);
        log.append(b"next\n").expect("it is written");
        assert_eq!(lines(&log), ["whole", "hal", "next"]);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_and_a_strange_one_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut log = log(&folder);
        log.append(b"one\n").expect("it is written");
        let path = folder.path().join("log");
        fs::rename(&path, folder.path().join("kept")).expect("our own folder");
        log.append(b"two\n").expect("it is written");
        assert_eq!(lines(&log), ["two"]);
        fs::remove_file(&path).expect("our own file");
        fs::create_dir(&path).expect("a folder in the way");
        log.append(b"three\n").expect_err("it is a folder");
        fs::remove_dir(&path).expect("our own folder");
        log.append(b"four\n").expect("it is written");
        assert_eq!(lines(&log), ["four"]);
    }
}
