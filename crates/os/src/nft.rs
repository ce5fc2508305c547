//! Our packet filter: it accepts packets to a virtual IP only from the right interfaces, and keeps packets that a default
//! route through the tunnel covers from leaving by other interfaces.
//!
//! Linux is a weak host: it accepts a packet to any of its addresses on any interface. So a neighbour on the local
//! network could reach a service that listens on a virtual IP, without a tunnel and without a key. One table,
//! `inet overlay_INTERFACE`, drops such packets before anything else sees them. It is also the second lock of a /0. The
//! `nft` program writes and removes the table as a whole, and other tables are not touched. The state and the counters
//! of our table are read from the kernel directly.

mod netfilter;
mod table;

use table::Switched;

pub use netfilter::Shape;
pub use table::{Lock, Table};

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Folders where `nft` may be if PATH does not list them, as in many services.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// How long `nft` may take. A busy machine needs a tenth of a second. A program that hangs must not stop the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reason why the table could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// `nft` is not installed on this machine.
    #[error("the program nft is not installed")]
    Missing,
    /// The interface name is not valid.
    #[error("that is not the name of an interface")]
    Name,
    /// `nft` refused the request. This is its message.
    #[error("nft: {0}")]
    Refused(String),
    /// `nft` did not end in time and was killed.
    #[error("nft did not end within {} s", PATIENCE.as_secs())]
    Hangs,
    /// `nft` could not be run.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether the `nft` program is installed.
pub fn is_available() -> bool {
    program().is_some()
}

/// How many packets our table has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets to a virtual IP that arrived on the wrong interface.
    pub weak_host: u64,
    /// Packets that a default route through the tunnel covers, but that would have left by a different interface.
    pub outside_tunnel: u64,
}

/// Installs a table, replacing the one from an earlier call for the same interface in one transaction. Returns the
/// table as it then stands in the kernel. Its counters continue, or start from `remembered` if there was no table.
///
/// # Errors
/// See [`NftError`]. After an error the previous table is unchanged.
pub async fn install(table: &Table, remembered: Counters) -> Result<Shape, NftError> {
    let counted = netfilter::counters(&table.interface).ok().flatten().unwrap_or(remembered);
    let mut done = run(&table.text(counted, Switched::Pass)?).await;
    if matches!(done, Err(NftError::Refused(_))) && table.lock.is_some() {
        // This kernel cannot recognise packets that a bridge switches. The lock then drops those too, rather than not
        // existing.
        done = run(&table.text(counted, Switched::Locked)?).await;
    }
    done?;
    netfilter::shape(&table.interface)?.ok_or_else(|| NftError::Refused("the table is not there".to_owned()))
}

/// The state of an interface's table. `None` if it does not exist. Never blocks.
///
/// # Errors
/// See [`NftError`].
pub fn shape(interface: &str) -> Result<Option<Shape>, NftError> {
    netfilter::shape(interface)
}

/// The counters of an interface's table. `None` if it does not exist. Never blocks.
///
/// # Errors
/// See [`NftError`].
pub fn counters(interface: &str) -> Result<Option<Counters>, NftError> {
    netfilter::counters(interface)
}

/// Lets DNS queries of this host pass the lock of a table that an earlier call installed, or forbids it again. A newly
/// installed table forbids it.
///
/// # Errors
/// See [`NftError`]. `Refused` if the table does not exist or has no lock.
pub async fn let_names_out(interface: &str, may_leave: bool) -> Result<(), NftError> {
    run(&table::names_text(interface, may_leave)?).await
}

/// Removes the table. Removing a table that does not exist is not an error.
///
/// # Errors
/// See [`NftError`].
pub async fn remove(interface: &str) -> Result<(), NftError> {
    run(&removal(interface)?).await
}

/// The table's name, without its family `inet`. A character that nft does not accept in a name is written as its code
/// between slashes. No interface name contains a slash, so names stay distinct.
///
/// # Errors
/// Returns [`NftError::Name`] if the interface name is not valid.
pub fn table_name(interface: &str) -> Result<String, NftError> {
    let mut name = String::from("overlay_");
    for byte in interface.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'-' | b'.' => name.push(char::from(byte)),
            b'=' | b'+' => name.push_str(&format!("/{byte:02x}/")),
            _ => return Err(NftError::Name),
        }
    }
    if interface.is_empty() { Err(NftError::Name) } else { Ok(name) }
}

/// The commands that remove the table. Adding it first makes the deletion succeed even if it did not exist.
fn removal(interface: &str) -> Result<String, NftError> {
    let name = table_name(interface)?;
    Ok(format!("add table inet {name}\ndelete table inet {name}\n"))
}

async fn run(script: &str) -> Result<(), NftError> {
    let program = program().ok_or(NftError::Missing)?;
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let ended = async move {
        if let Some(mut input) = child.stdin.take() {
            // If nft exits early, its stderr says why.
            let _ = input.write_all(script.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    // Dropping the child kills it.
    let output = tokio::time::timeout(PATIENCE, ended).await.map_err(|_| NftError::Hangs)??;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(NftError::Refused(said.lines().next().unwrap_or("failed without a word").to_owned()))
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let folders = folders.chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(OsStr::new("nft"))).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests;
