//! The one packet filter of ours: a virtual IP answers on our interface and on loopback only.
//!
//! Linux is a weak host: it accepts a packet for any of its addresses on any interface. A neighbour on the local network
//! could so reach a service that listens on a virtual IP, without a tunnel and without a key. One table,
//! `inet overlay_INTERFACE`, drops such packets before anything else sees them. It is written and taken away whole, by
//! the `nft` program, and nobody else's tables are touched.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
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
    /// The interface's name holds a character that has a meaning to nft.
    #[error("the interface's name cannot be part of a table's")]
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

/// Drops packets to `addresses` that arrive on another interface than `interface` or loopback. Replaces what an earlier
/// call for the same interface installed, in one transaction.
///
/// # Errors
/// See [`NftError`]; the table is then as it was before.
pub async fn install(interface: &str, addresses: &[IpAddr]) -> Result<(), NftError> {
    run(&table(interface, addresses)?).await
}

/// Takes the table away. One that is not there is no error.
///
/// # Errors
/// See [`NftError`].
pub async fn remove(interface: &str) -> Result<(), NftError> {
    run(&removal(interface)?).await
}

/// The table's name, without its family `inet`.
///
/// # Errors
/// [`NftError::Name`].
pub fn table_name(interface: &str) -> Result<String, NftError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if interface.is_empty() || !interface.bytes().all(is_plain) {
        return Err(NftError::Name);
    }
    Ok(format!("overlay_{interface}"))
}

/// Adding a table before deleting it makes the deletion succeed whether it was there or not.
fn removal(interface: &str) -> Result<String, NftError> {
    let name = table_name(interface)?;
    Ok(format!("add table inet {name}\ndelete table inet {name}\n"))
}

fn table(interface: &str, addresses: &[IpAddr]) -> Result<String, NftError> {
    let name = table_name(interface)?;
    let mut text = removal(interface)?;
    // Priority raw: before connection tracking, so that what is dropped leaves no entry behind.
    let _ = write!(
        text,
        "table inet {name} {{\n\tchain weak_host {{\n\t\ttype filter hook prerouting priority raw; policy accept;\n"
    );
    for (family, of_family) in [("ip", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("ip6", IpAddr::is_ipv6)] {
        let addresses: Vec<_> = addresses.iter().filter(|ip| of_family(ip)).map(IpAddr::to_string).collect();
        if !addresses.is_empty() {
            let addresses = addresses.join(", ");
            let _ = writeln!(
                text,
                "\t\tiifname != {{ \"lo\", \"{interface}\" }} {family} daddr {{ {addresses} }} counter drop"
            );
        }
    }
    text.push_str("\t}\n}\n");
    Ok(text)
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
