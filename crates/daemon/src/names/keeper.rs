//! The process that keeps our names in the hosts file.
//!
//! The daemon itself gives up writing there, and a file that another program has replaced is a different file to the kernel's
//! restrictions. So this is a process of its own, started before: it hears names from the daemon and from nobody else. When
//! the daemon ends, however it ends, the names go. Signals that ask a program to end are ignored: the socket ends this one.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use overlay_os::confine;
use overlay_os::host_name::host_name;

use super::inherited::{begin, failed};
use super::message::{Lines, Order, Report, line};
use super::shadow::Owner;
use super::zone::{Agent, Origin};
use crate::failure::Failure;
use crate::hosts_file::{self, HOSTS, Line};

/// How long more changes are waited for, so that a thousand agents are one write.
const SETTLE: Duration = Duration::from_millis(10);
/// How often the file is looked at, in case another program has written a different one.
const LOOK: Duration = Duration::from_secs(5);
/// The folder of the hosts file.
const FOLDER: &str = "/etc";

/// Keeps the names until the daemon ends.
///
/// # Errors
/// The standard input is not the daemon's socket, or this process cannot be confined.
pub fn run() -> Result<(), Failure> {
    let stream = begin()?;
    for result in [confine::write_only_below([FOLDER, HOSTS].map(Path::new)), confine::refuse_system_calls()] {
        if let Err(error) = result {
            tracing::debug!(%error, "this kernel does not restrict files and system calls");
        }
    }
    let mut kept = Kept::default();
    // However the socket ends: what counts is that the names go.
    let _ = keep(&stream, &mut kept);
    let Some(origin) = kept.origin else { return Ok(()) };
    hosts_file::remove(Path::new(HOSTS), &origin.interface)
        .map(drop)
        .map_err(failed("names of agents cannot be removed"))
}

fn keep(mut stream: &UnixStream, kept: &mut Kept) -> io::Result<()> {
    let mut lines = Lines::default();
    let (mut is_new, mut told) = (false, None);
    loop {
        stream.set_read_timeout(Some(if is_new { SETTLE } else { LOOK }))?;
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(len) if !lines.add(&bytes[..len]) => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => {
                while let Some(order) = lines.next::<Order>() {
                    kept.obey(order?);
                    is_new = true;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let failure = kept.write(Path::new(HOSTS)).err().map(|error| error.to_string());
                if std::mem::take(&mut is_new) || failure != told {
                    stream.write_all(&line(&Report::Hosts(failure.clone())))?;
                    told = failure;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What the file is to have.
#[derive(Default)]
struct Kept {
    origin: Option<Origin>,
    agents: BTreeMap<String, Agent>,
    /// Whose each short name is.
    owners: BTreeMap<String, Owner>,
}

impl Kept {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(origin) => {
                if self.origin.as_ref().is_some_and(|before| before.domain != origin.domain) {
                    self.agents.clear();
                }
                self.origin = Some(origin);
            }
            Order::Put(agent) => {
                self.agents.insert(agent.name.clone(), agent);
            }
            Order::Remove(name) => {
                self.agents.remove(&name);
                self.owners.remove(&name);
            }
            Order::Short { name, owner } => {
                self.owners.insert(name, owner);
            }
            Order::Serve(_) => {}
        }
    }

    fn write(&self, path: &Path) -> io::Result<bool> {
        let Some(origin) = &self.origin else { return Ok(false) };
        let host = host_name();
        let agents = std::iter::once(&origin.me).chain(self.agents.values());
        let lines = agents.flat_map(|agent| {
            // What programs take for this host goes on to mean it as before.
            let is_host = host.split('.').next() == Some(&agent.name);
            let is_free = self.owners.get(&agent.name) == Some(&Owner::Free) && !is_host;
            let full = format!("{}.{}", agent.name, origin.domain);
            agent.addresses.iter().map(move |address| Line {
                address: *address,
                full: full.clone(),
                short: is_free.then(|| agent.name.clone()),
            })
        });
        hosts_file::write(path, &origin.interface, &lines.collect::<Vec<_>>())
    }
}
