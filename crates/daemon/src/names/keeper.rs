//! The process that keeps our names in the hosts file.
//!
//! The daemon itself gives up writing there, and a file that another program has replaced is a different file to the kernel's
//! restrictions. So this is a process of its own, started before: it hears names from the daemon and from nobody else. When
//! the daemon ends, however it ends, the names go.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use overlay_os::confine;

use super::inherited::{begin, failed};
use super::message::{Lines, Order, Report, line};
use super::zone::{Agent, Origin};
use crate::failure::Failure;
use crate::hosts_file::{self, HOSTS, Line};

/// How long more changes are waited for, so that a thousand agents are one write.
const SETTLE: Duration = Duration::from_millis(10);
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
    let result = keep(&stream, &mut kept);
    if let Some(origin) = kept.origin {
        let _ = hosts_file::remove(Path::new(HOSTS), &origin.interface);
    }
    result.map_err(failed("the daemon's socket failed"))
}

fn keep(mut stream: &UnixStream, kept: &mut Kept) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut is_new = false;
    loop {
        stream.set_read_timeout(is_new.then_some(SETTLE))?;
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
                is_new = false;
                let failure = kept.write(Path::new(HOSTS)).err().map(|error| error.to_string());
                stream.write_all(&line(&Report::Hosts(failure)))?;
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
    /// Names alone that are known to be nobody else's, or somebody else's.
    shadowed: BTreeMap<String, bool>,
}

impl Kept {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(origin) => {
                self.origin = Some(origin);
                self.agents.clear();
            }
            Order::Put(agent) => {
                self.agents.insert(agent.name.clone(), agent);
            }
            Order::Remove(name) => {
                self.agents.remove(&name);
                self.shadowed.remove(&name);
            }
            Order::Short { name, is_shadowed } => {
                self.shadowed.insert(name, is_shadowed);
            }
            Order::Serve(_) => {}
        }
    }

    fn write(&self, path: &Path) -> io::Result<bool> {
        let Some(origin) = &self.origin else { return Ok(false) };
        let agents = std::iter::once(&origin.me).chain(self.agents.values());
        let lines = agents.flat_map(|agent| {
            let is_free = self.shadowed.get(&agent.name) == Some(&false);
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
