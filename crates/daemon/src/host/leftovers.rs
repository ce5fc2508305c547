//! Removes what a killed daemon left behind: what its journal names, and nothing else.
//!
//! Only things that such a daemon creates are removed: its TUN, its nft table, rules of our two shapes, and the one
//! socket in the folder of UAPI sockets that has its name. Anything else in a journal is left alone with a warning, so
//! that forging a journal gains nothing.
//!
//! Everything except socket files and names in the hosts file belongs to the network namespace that the journal names. None of it can be reached
//! from a different namespace, and a thing of the same name there belongs to someone else. Such a journal is left alone
//! with a warning.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use overlay_os::folder::{Folder, TrustError};
use overlay_os::netlink::{Family, NOWHERE, Netlink, NetlinkError, Rule};

use super::journal::{self, Record, is_of_our_shape};
use super::netlink_failure;
use super::runtime::{self, Runtime};
use crate::failure::{ExitKind, Failure};
use crate::hosts_file::{self, HOSTS};
use crate::permission;
use crate::serving::{UAPI_FOLDER, uapi_socket};

/// The link kind of a TUN interface.
const TUN: &str = "tun";

/// How long the kernel may take to remove the TUN of a process that is just being killed.
const TUN_LINGERS: Duration = Duration::from_secs(2);
/// How often the TUN is checked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a clean-up leaves in place and in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// The nft table.
    Guard,
    /// The nft table and the policy rules.
    Locks,
}

/// What a clean-up found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// One line each, for the user: `IPv4 rule 32765 to table 51820`, `nft table inet overlay_ov0`.
    pub removed: Vec<String>,
    /// One line each: what was left alone, and why.
    pub warnings: Vec<String>,
}

impl Cleaned {
    /// Whether there was nothing to do.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.warnings.is_empty()
    }
}

impl fmt::Display for Cleaned {
    /// Formats one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&str> = self.removed.iter().chain(&self.warnings).map(String::as_str).collect();
        f.write_str(&all.join(", "))
    }
}

/// Cleans up after the daemon `name` from outside, for `overlay down`.
///
/// Errors: [`ExitKind::Conflict`] if that daemon is alive, [`ExitKind::Permission`] if the caller lacks the rights.
pub async fn clean_leftovers(runtime_dir: &Path, name: &str) -> Result<Cleaned, Failure> {
    if !runtime_dir.is_dir() {
        return Ok(Cleaned::default());
    }
    Runtime::acquire(runtime_dir, name)?.clean_leftovers().await
}

impl Runtime {
    /// Removes what an earlier daemon of this name left behind. The journal is removed too, unless part of it could not
    /// be cleaned up or belongs to a different network namespace.
    pub async fn clean_leftovers(&self) -> Result<Cleaned, Failure> {
        self.clean(Keep::Nothing).await
    }

    /// Does the same but keeps what locks a default route in: the nft table and the policy rules. Both stay in the
    /// journal. If the daemon that follows is refused, the locks still stand.
    pub async fn clean_leftovers_but_locks(&self) -> Result<Cleaned, Failure> {
        self.clean(Keep::Locks).await
    }

    /// Removes the locks that [`Runtime::clean_leftovers_but_locks`] kept, or all but the nft table. The daemon may
    /// already listen on its socket.
    pub async fn remove_locks(&self, but_guard: bool) -> Result<Cleaned, Failure> {
        self.clean_record(if but_guard { Keep::Guard } else { Keep::Nothing }, Cleaned::default()).await
    }

    /// Does the same but keeps the nft table, which stays in the journal. The daemon that follows at once replaces the
    /// table with its own, so that traffic covered by a default route never leaves in the clear.
    pub async fn clean_leftovers_but_guard(&self) -> Result<Cleaned, Failure> {
        self.clean(Keep::Guard).await
    }

    /// Whether an nft table was left in place.
    pub fn has_guard(&self) -> bool {
        journal::read(self).is_ok_and(|left| left.is_some_and(|record| record.nft_table))
    }

    /// Whether an nft table or policy rules were left in place.
    pub fn has_locks(&self) -> bool {
        let is_locked = |record: Record| record.nft_table || !record.rules.is_empty();
        journal::read(self).is_ok_and(|left| left.is_some_and(is_locked))
    }

    async fn clean(&self, keep: Keep) -> Result<Cleaned, Failure> {
        let mut cleaned = Cleaned::default();
        remove_stale_socket(self.folder(), &runtime::file_name(self.name(), "sock"), &mut cleaned);
        self.clean_record(keep, cleaned).await
    }

    async fn clean_record(&self, keep: Keep, mut cleaned: Cleaned) -> Result<Cleaned, Failure> {
        let Some(mut record) = journal::read(self)? else { return Ok(cleaned) };
        for socket in &record.sockets {
            remove_recorded_socket(socket, self.name(), &mut cleaned);
        }
        let here = overlay_os::netns::current().map_err(|error| {
            Failure::new(ExitKind::Other, "cannot tell which network namespace this is").with_cause(error)
        })?;
        if record.namespace != here {
            cleaned.warnings.push(format!(
                "`{}` last ran in the network namespace {}, this is {here}: what it left there was not touched",
                record.interface, record.namespace
            ));
            return Ok(cleaned);
        }
        let hosts = record.hosts && !remove_names(Path::new(HOSTS), &record.interface, &mut cleaned);
        let kept = Record {
            rules: if keep == Keep::Locks { std::mem::take(&mut record.rules) } else { Vec::new() },
            nft_table: keep != Keep::Nothing && std::mem::take(&mut record.nft_table),
            sockets: Vec::new(),
            hosts,
            index: None,
            ..record.clone()
        };
        remove_from_namespace(&record, &mut cleaned).await?;
        if kept.nft_table || !kept.rules.is_empty() || kept.hosts {
            return journal::write(self.folder(), &kept).map(|()| cleaned);
        }
        let path = self.state();
        self.folder().remove(runtime::file_name(self.name(), "state")).map_err(|error| {
            Failure::new(ExitKind::Other, format!("cannot remove {}", path.display())).with_cause(error)
        })?;
        Ok(cleaned)
    }
}

/// Removes the recorded things in the reverse order of a start.
async fn remove_from_namespace(record: &Record, cleaned: &mut Cleaned) -> Result<(), Failure> {
    let netlink = Netlink::connect()
        .await
        .map_err(|error| Failure::new(ExitKind::Other, "cannot open a netlink socket").with_cause(error))?;
    for rule in record.rules.iter().map(Rule::from) {
        let name = describe_rule(&rule);
        if !is_of_our_shape(&rule) {
            cleaned.warnings.push(format!("{name} is not a rule that this program makes: left alone"));
            continue;
        }
        match netlink.delete_rule(&rule).await {
            Ok(()) => cleaned.removed.push(name),
            Err(NetlinkError::NotFound | NetlinkError::Unsupported) => {}
            Err(error) => return Err(netlink_failure(format!("cannot remove {name}"), &error)),
        }
    }
    if record.nft_table {
        let name = format!("nft table inet overlay_{}", record.interface);
        match overlay_os::nft::remove(&record.interface).await {
            Ok(()) => cleaned.removed.push(name),
            Err(error) => {
                return Err(Failure::new(ExitKind::Other, format!("cannot remove {name}")).with_cause(error));
            }
        }
    }
    if let Some(index) = record.index {
        remove_link(&netlink, &record.interface, index, cleaned).await?;
    }
    Ok(())
}

/// Waits for the TUN to vanish with its process, which may take the kernel a moment. Deletes a TUN that stays, because
/// another process has inherited it.
async fn remove_link(netlink: &Netlink, name: &str, index: u32, cleaned: &mut Cleaned) -> Result<(), Failure> {
    let mut waited = Duration::ZERO;
    loop {
        let link = netlink.link(name).await.map_err(|error| netlink_failure("cannot list the interfaces", &error))?;
        match link {
            Some(link) if link.index == index && link.kind.as_deref() == Some(TUN) => {}
            Some(link) if link.index == index => {
                cleaned.warnings.push(format!("interface {name} is not a TUN: left alone"));
                return Ok(());
            }
            _ => return Ok(()),
        }
        if waited >= TUN_LINGERS {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
    }
    match netlink.delete_link(index).await {
        Ok(()) => {
            cleaned.removed.push(format!("interface {name}"));
            Ok(())
        }
        Err(NetlinkError::NotFound) => Ok(()),
        Err(error) => Err(netlink_failure(format!("cannot remove the interface {name}"), &error)),
    }
}

/// Removes the names that a daemon left in the hosts file, where another program would go on finding them.
/// Returns whether they are gone.
fn remove_names(path: &Path, interface: &str, cleaned: &mut Cleaned) -> bool {
    let removed = hosts_file::remove(path, interface);
    match &removed {
        Ok(true) => cleaned.removed.push(format!("names of agents in {}", path.display())),
        Ok(false) => {}
        Err(error) => cleaned.warnings.push(format!("cannot remove names of agents from {}: {error}", path.display())),
    }
    removed.is_ok()
}

/// Removes the UAPI socket of the daemon `name`. No other socket is ever recorded.
fn remove_recorded_socket(path: &Path, name: &str, cleaned: &mut Cleaned) {
    if path != uapi_socket(name) {
        cleaned.warnings.push(format!("{} is not a socket that this program makes: left alone", path.display()));
        return;
    }
    match Folder::trusted(Path::new(UAPI_FOLDER), &permission::friends()) {
        Ok(folder) => remove_stale_socket(&folder, &runtime::file_name(name, "sock"), cleaned),
        Err(TrustError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => cleaned.warnings.push(format!(
            "{} can be changed by others: {} was left alone",
            UAPI_FOLDER,
            path.display()
        )),
    }
}

/// Removes a socket unless a process listens on it: the folder of UAPI sockets is shared with every other WireGuard
/// implementation on this host. Anything that is not a socket is left alone.
fn remove_stale_socket(folder: &Folder, name: &str, cleaned: &mut Cleaned) {
    let path = folder.path_of(name);
    match folder.is_socket(name) {
        Ok(None) => return,
        Ok(Some(true)) => {}
        Ok(Some(false)) | Err(_) => {
            cleaned.warnings.push(format!("{} is not a socket: left alone", path.display()));
            return;
        }
    }
    match UnixStream::connect(&path) {
        Ok(_) => cleaned.warnings.push(format!("another process listens on {}: left alone", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => match folder.remove(name) {
            Ok(()) => cleaned.removed.push(format!("socket {}", path.display())),
            Err(error) => cleaned.warnings.push(format!("cannot remove {}: {error}", path.display())),
        },
    }
}

/// Describes a policy rule in a few words.
pub(super) fn describe_rule(rule: &Rule) -> String {
    let family = if rule.family == Family::V4 { "IPv4" } else { "IPv6" };
    let number = rule.priority.map_or_else(String::new, |priority| format!(" {priority}"));
    if rule.table == NOWHERE {
        return format!("{family} rule{number} to nowhere");
    }
    match rule.suppress_prefix_length {
        Some(_) => format!("{family} rule{number} to table {} but for its default route", rule.table),
        None => format!("{family} rule{number} to table {}", rule.table),
    }
}
