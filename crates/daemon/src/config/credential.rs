//! A key file that only root may read, passed to us by the service manager: systemd.exec(5), `LoadCredential=`.
//!
//! The unit passes the key `/etc/overlay/NAME.key` to the daemon NAME. It does so at a start but not at a reload. The
//! file's metadata is therefore checked each time, which needs no right to read it. A file that has changed since is
//! refused instead of using its old content.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use zeroize::Zeroizing;

use super::CONFIG_FOLDER;
use super::problem::Problem;
use crate::permission::denied;

/// The environment variable with the credentials folder.
const FOLDER: &str = "CREDENTIALS_DIRECTORY";
/// What the unit passes in place of a file that does not exist.
const MISSING: &[u8] = b"none";
/// How many bytes of a credential are read at most.
const MAX_CREDENTIAL: u64 = 4096;

/// Distinguishes a file from a later one in its place.
type Stamp = (u64, u64, i64, i64);

/// The stamp of each file when its credential was first read.
static SEEN: Mutex<BTreeMap<PathBuf, Stamp>> = Mutex::new(BTreeMap::new());

/// Returns the content of a key file that we may not read ourselves, or `None` if it was not passed to us.
pub(super) fn read(path: &Path) -> Option<Result<Zeroizing<Vec<u8>>, Problem>> {
    let folder = std::env::var_os(FOLDER)?;
    let real = path.canonicalize().ok()?;
    let is_in_its_place = real.parent() == Path::new(CONFIG_FOLDER).canonicalize().ok().as_deref();
    let name = real.file_name().filter(|_| is_in_its_place)?;
    let file = File::open(Path::new(&folder).join(name)).ok()?;
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_CREDENTIAL as usize));
    file.take(MAX_CREDENTIAL).read_to_end(&mut text).ok()?;
    let now = stamp(&fs::metadata(&real).ok()?);
    let first = *SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(real).or_insert(now);
    if first != now || *text == MISSING {
        return Some(Err(changed(path)));
    }
    Some(Ok(text))
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

fn changed(path: &Path) -> Problem {
    let message =
        format!("the key file `{}` changed after the service was started, and only root may read it", path.display());
    Problem::permission(&format!("the key file `{}`", path.display()), path)
        .saying(message)
        .hint(format!("{}, then reload again; or restart the service", denied(path).hint))
}
