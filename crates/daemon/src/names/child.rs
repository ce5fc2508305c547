//! The daemon's end of a process that knows names: it is started, told what has changed, and listened to.
//!
//! What waits to be said is a set of names, not a queue of messages: however often an agent changes while the process is
//! slow, it is told once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use overlay_os::descriptors;
use overlay_os::process::{without_ambient, without_ends};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::bound::Bound;
use super::message::{Lines, Order, Report, line};
use super::shadow::Owner;
use super::zone::{Agent, Origin};

/// This program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// The hidden verb, and the name that the process has.
pub(crate) const VERB: &str = "names";

/// What a process of names does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It answers DNS questions.
    Answer,
    /// It keeps our part of the hosts file.
    Hosts,
}

impl Role {
    /// The argument of the verb.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Hosts => "hosts",
        }
    }
}

/// A process of names.
#[derive(Debug)]
pub(crate) struct Child {
    stream: UnixStream,
    lines: Lines,
    /// What is being said: bytes, and the sockets that go with the first of them.
    saying: VecDeque<u8>,
    sockets: Vec<OwnedFd>,
    due: Due,
    process: tokio::process::Child,
}

/// What the process has yet to be told.
#[derive(Debug, Default)]
struct Due {
    origin: bool,
    agents: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    owners: BTreeMap<String, Owner>,
}

/// What the process is to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) origin: Option<Origin>,
    pub(super) agents: BTreeMap<String, Agent>,
}

impl Child {
    /// Starts a process.
    pub(super) fn start(role: Role, known: &Known) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(PROGRAM);
        command.arg0("overlay").args([VERB, role.argument()]).env_clear();
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        // Ctrl-C is for the daemon.
        command.process_group(0);
        without_ambient(&mut command);
        // It ends with its socket.
        without_ends(&mut command);
        let process = tokio::process::Command::from(command).spawn()?;
        let due = Due { origin: true, agents: known.agents.keys().cloned().collect(), ..Due::default() };
        let stream = UnixStream::from_std(ours)?;
        Ok(Self { stream, lines: Lines::default(), saying: VecDeque::new(), sockets: Vec::new(), due, process })
    }

    /// What does not belong to an agent has changed: our own addresses, or the whole network.
    pub(super) fn on_origin(&mut self) {
        self.due.origin = true;
    }

    /// The agent of this name came, changed or went.
    pub(super) fn on_agent(&mut self, name: &str) {
        self.due.agents.insert(name.to_owned());
    }

    /// The sockets of this address are there.
    pub(super) fn on_bound(&mut self, address: IpAddr) {
        self.due.addresses.insert(address);
    }

    /// It is known whose a short name is.
    pub(super) fn on_owner(&mut self, name: &str, owner: Owner) {
        self.due.owners.insert(name.to_owned(), owner);
    }

    /// Says what is due, and waits for what the process says. Can be cancelled.
    ///
    /// # Errors
    /// The process has ended, or has sent a message that does not parse.
    pub(super) async fn next(&mut self, known: &Known, bound: &Bound) -> io::Result<Report> {
        loop {
            if let Some(report) = self.lines.next() {
                return report.map_err(io::Error::from);
            }
            if self.saying.is_empty() {
                self.take_due(known, bound)?;
            }
            let interest =
                if self.saying.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let ready = self.stream.ready(interest).await?;
            if ready.is_readable() {
                self.hear()?;
            }
            if ready.is_writable() {
                self.say()?;
            }
        }
    }

    /// Lets the process end, and waits for that. Returns whether it has cleaned up.
    pub(super) async fn end(mut self) -> bool {
        drop(self.stream);
        matches!(timeout(PATIENCE, self.process.wait()).await, Ok(Ok(status)) if status.success())
    }

    /// Takes the next thing to say.
    fn take_due(&mut self, known: &Known, bound: &Bound) -> io::Result<()> {
        let Some(origin) = &known.origin else { return Ok(()) };
        let order = if std::mem::take(&mut self.due.origin) {
            Order::Begin(origin.clone())
        } else if let Some(address) = self.due.addresses.pop_first() {
            let Some(sockets) = bound.copies(address)? else { return self.take_due(known, bound) };
            self.sockets.extend(sockets);
            Order::Serve(address)
        } else if let Some(name) = self.due.agents.pop_first() {
            known.agents.get(&name).cloned().map_or(Order::Remove(name), Order::Put)
        } else if let Some((name, owner)) = self.due.owners.pop_first() {
            Order::Short { name, owner }
        } else {
            return Ok(());
        };
        self.saying.extend(line(&order));
        Ok(())
    }

    fn hear(&mut self) -> io::Result<()> {
        let mut bytes = [0; 4096];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) if self.lines.add(&bytes[..len]) => Ok(()),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn say(&mut self) -> io::Result<()> {
        let bytes = self.saying.make_contiguous();
        let sockets: Vec<BorrowedFd<'_>> = self.sockets.iter().map(|socket| socket.as_fd()).collect();
        let said = match sockets.is_empty() {
            true => self.stream.try_write(bytes),
            false => self.stream.try_io(Interest::WRITABLE, || descriptors::send(&self.stream, bytes, &sockets)),
        };
        match said {
            Ok(len) => {
                self.saying.drain(..len);
                self.sockets.clear();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}
