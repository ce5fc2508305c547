//! The key files that a config names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::credential;
use super::document::Field;
use super::problem::{Problem, Report};
use super::secret::looks_like_key;
use crate::keys::describe;
use crate::permission;

/// How many bytes of a key file are read. A longer file does not contain a key.
const MAX_KEY_FILE: usize = 4096;

/// The content of key files, by their names in the config.
#[derive(Clone, Default)]
pub(crate) struct ReadKeys(pub(super) Vec<(String, Zeroizing<Vec<u8>>)>);

impl ReadKeys {
    /// Returns the names of the files, as in the config.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl std::fmt::Debug for ReadKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadKeys(redacted)")
    }
}

/// Where key files are read from.
pub(crate) enum KeyFiles<'a> {
    /// On disk, relative to the folder of the config.
    Disk,
    /// On disk. A file that cannot be read keeps the content it had when the config in force was read.
    DiskOr(&'a ReadKeys),
    /// In memory, by the name in the config, for a config that is not written yet. Absolute paths are read from disk.
    Memory(&'a [(String, Zeroizing<String>)]),
}

impl KeyFiles<'_> {
    /// Reads the file `name`, which `field` of the config at `config` names. `maker` is the command that creates such a file.
    pub(super) fn read(
        &self,
        config: &Path,
        name: &str,
        field: &Field<'_>,
        maker: &str,
        report: &mut Report,
    ) -> Result<Zeroizing<Vec<u8>>, Problem> {
        if looks_like_key(name) {
            let message = format!("`{}` is a key, not the name of a file", field.key);
            return Err(Problem::new("inline_secret", message)
                .hint(format!("put the key into a file with mode 0600 and write {} = \"PATH\"", field.key)));
        }
        match self {
            Self::Memory(files) if !Path::new(name).is_absolute() || files.iter().any(|(known, _)| known == name) => {
                match files.iter().find(|(known, _)| known == name) {
                    Some((_, text)) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
                    None => Err(unreadable(Path::new(name), name, maker, &io::ErrorKind::NotFound.into())),
                }
            }
            Self::Disk | Self::DiskOr(_) | Self::Memory(_) => {
                let path = config.parent().unwrap_or(Path::new("")).join(name);
                let found = match read(&path) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match credential::read(&path) {
                        Some(text) => Ok((text?, false)),
                        None => Err(error),
                    },
                    found => found,
                };
                let (text, is_for_others) = match (found, self.kept(name)) {
                    (Ok(read), _) => read,
                    (Err(error), Some(text)) => {
                        let problem = unreadable(&path, name, maker, &error);
                        let message = format!("{}; the key in force stays", problem.message);
                        report.warn(Problem::new("key_file_kept", message).at(&field.span));
                        return Ok(text);
                    }
                    (Err(error), None) => return Err(unreadable(&path, name, maker, &error)),
                };
                if is_for_others {
                    let shown = path.display();
                    let message = format!("the key file `{shown}` can be read by users other than its owner");
                    report.warn(
                        Problem::new("key_file_mode", message).at(&field.span).hint(format!("`chmod 600 {shown}`")),
                    );
                }
                Ok(text)
            }
        }
    }

    fn kept(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let Self::DiskOr(ReadKeys(before)) = self else { return None };
        before.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone())
    }
}

/// Reads the content, and whether other users could read it too. A pipe is readable by nobody else. The service's own
/// group may read the file.
fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, bool)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let strangers = if permission::service_group() == Some(metadata.gid()) { 0o037 } else { 0o077 };
    let is_for_others = metadata.is_file() && metadata.mode() & strangers != 0;
    // The buffer never grows, so that no copy of the key stays in freed memory.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE));
    file.take(MAX_KEY_FILE as u64).read_to_end(&mut text)?;
    Ok((text, is_for_others))
}

fn unreadable(path: &Path, name: &str, maker: &str, error: &io::Error) -> Problem {
    let shown = path.display();
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("there is no key file `{shown}`"),
        _ => format!("the key file `{shown}` cannot be read: {}", describe(error)),
    };
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Problem::permission(&format!("the key file `{shown}`"), path);
    }
    let hint = match error.kind() {
        io::ErrorKind::NotFound if name.starts_with("~/") => {
            "write the whole path: `~` is not expanded here".to_owned()
        }
        io::ErrorKind::NotFound if maker.ends_with("psk") => {
            format!("`{maker} -o {shown}` makes one; the peer needs a copy of it")
        }
        io::ErrorKind::NotFound => format!("`{maker} -o {shown}` makes one"),
        _ => "name a file that holds one key".to_owned(),
    };
    Problem::new("key_file", message).hint(hint)
}
