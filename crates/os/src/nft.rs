//! The one packet filter of ours: a virtual IP answers where it should, and what a default route through the tunnel covers
//! does not leave by another way.
//!
//! Linux is a weak host: it accepts a packet for any of its addresses on any interface. A neighbour on the local network
//! could so reach a service that listens on a virtual IP, without a tunnel and without a key. One table,
//! `inet overlay_INTERFACE`, drops such packets before anything else sees them, and is the second lock of a /0. It is written
//! and taken away whole, by the `nft` program, and nobody else's tables are touched. What stands of it, and what it has
//! counted, is asked of the kernel directly.

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

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Where `nft` may be when PATH does not say, as in many services.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Why the table could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no `nft` on this machine.
    #[error("the program nft is not installed")]
    Missing,
    /// No interface can be called that.
    #[error("that is not the name of an interface")]
    Name,
    /// `nft` refused; what it said.
    #[error("nft: {0}")]
    Refused(String),
    /// `nft` could not be run.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether the `nft` program is installed.
pub fn is_available() -> bool {
    program().is_some()
}

/// What our table has dropped, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// They were sent to a virtual IP and arrived elsewhere.
    pub weak_host: u64,
    /// A default route through the tunnel covers them, and they would have left by another interface.
    pub outside_tunnel: u64,
}

/// Puts a table in the place of what an earlier call for the same interface installed, in one transaction, and says what
/// stands then. Its counters go on; where there is no table, from `remembered`.
///
/// # Errors
/// See [`NftError`]; the table is then as it was before.
pub async fn install(table: &Table, remembered: Counters) -> Result<Shape, NftError> {
    let counted = netfilter::counters(&table.interface).ok().flatten().unwrap_or(remembered);
    let mut done = run(&table.text(counted, Switched::Pass)?).await;
    if matches!(done, Err(NftError::Refused(_))) && table.lock.is_some() {
        // A kernel that cannot tell what a bridge switches: that is kept in as well, rather than nothing.
        done = run(&table.text(counted, Switched::Locked)?).await;
    }
    done?;
    netfilter::shape(&table.interface)?.ok_or_else(|| NftError::Refused("the table is not there".to_owned()))
}

/// What stands of the table of an interface; `None` when it is not there. Never waits.
///
/// # Errors
/// See [`NftError`].
pub fn shape(interface: &str) -> Result<Option<Shape>, NftError> {
    netfilter::shape(interface)
}

/// What the table of an interface has counted; `None` when it is not there. Never waits.
///
/// # Errors
/// See [`NftError`].
pub fn counters(interface: &str) -> Result<Option<Counters>, NftError> {
    netfilter::counters(interface)
}

/// Takes the table away. One that is not there is no error.
///
/// # Errors
/// See [`NftError`].
pub async fn remove(interface: &str) -> Result<(), NftError> {
    run(&removal(interface)?).await
}

/// The table's name, without its family `inet`. A character that nft takes in no name stands as its number between slashes,
/// which no interface has in its own.
///
/// # Errors
/// [`NftError::Name`].
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

/// Adding a table before deleting it makes the deletion succeed whether it was there or not.
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
    if let Some(mut input) = child.stdin.take() {
        // An nft that ends early says why on its stderr.
        let _ = input.write_all(script.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
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
