//! The engine thread: carries packets between the node and Linux, and does nothing else.
//!
//! It waits, reads a batch, processes it to completion, writes the results, and waits again. There is no lock around
//! the node and no channel between reading and writing. Control sends commands through a bounded queue and an eventfd.
//! A command waits for room and is never dropped, because it may be a revocation. An event that control is too slow to
//! take is merged with the next one of its kind about the same peer.

mod carrier;
mod datagrams;
mod offload;
mod queues;
mod refusals;
mod reports;
mod run;
mod shell;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_core::{
    Command, CommandError, Counter, HandOver, Instant, Joins, Node, PathsReport, PeerFlows, PeerInitiations, PeerTag,
};
use overlay_os::poll::Waker;
use overlay_os::schedule::Scheduling;
use overlay_os::tun::Tun;
use overlay_os::udp::UdpSocket;
use tokio::sync::{mpsc, oneshot};

pub use self::datagrams::Datagram;
use self::datagrams::Outgoing;
pub use self::offload::{Offload, OffloadState, Offloads};
pub use self::queues::{QueueFigures, Queues};
pub use self::reports::{Report, Reports};
use self::run::Run;
pub use self::shell::ShellStats;

/// How many commands may wait for the engine. Further ones wait for room.
const MAX_COMMANDS: usize = 64;

/// What the engine thread owns from start to end.
pub struct Parts {
    /// The node, with its first peers.
    pub node: Node,
    /// The interface that inner packets come from and go to.
    pub tun: Tun,
    /// The outer sockets.
    pub sockets: Sockets,
    /// The counters of the engine thread.
    pub stats: Arc<ShellStats>,
    /// How the thread is scheduled.
    pub scheduling: Scheduling,
}

/// What an engine may know of one that ran before it.
#[derive(Default)]
pub struct Former {
    /// Whether no engine ran before it on this boot.
    pub is_first: bool,
    /// What was handed over.
    pub legacy: Legacy,
}

/// What an engine that ends leaves to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// The flows of peers with an allow list.
    pub flows: Vec<PeerFlows>,
    /// The replay state of peers.
    pub initiations: Vec<PeerInitiations>,
    /// A time since 1970 after which no handshake timestamp of ours lies. Zero if it is not known.
    pub latest_timestamp: Duration,
}

impl Legacy {
    fn of(handed_over: HandOver) -> Self {
        let HandOver { flows, initiations, ahead } = handed_over;
        Self { flows, initiations, latest_timestamp: wall_clock().saturating_add(ahead) }
    }

    /// How far handshake timestamps must run ahead of the wall clock, so that peers do not take them for replays.
    pub fn ahead(&self) -> Duration {
        self.latest_timestamp.saturating_sub(wall_clock())
    }
}

/// Returns which super-packets a TUN accepts, as far as this is known before one was written.
pub fn joins(tun: &Tun) -> Joins {
    Joins { tcp: tun.has_offload(), udp: tun.has_udp_offload() }
}

/// One UDP socket for each address family that the host has. All are closed while the interface is down.
#[derive(Default)]
pub struct Sockets {
    /// The IPv4 socket.
    pub v4: Option<UdpSocket>,
    /// The IPv6 socket.
    pub v6: Option<UdpSocket>,
}

impl Sockets {
    /// Iterates over the existing sockets.
    pub fn each(&self) -> impl Iterator<Item = &UdpSocket> {
        self.v4.iter().chain(&self.v6)
    }

    /// Marks everything that is sent from now on.
    ///
    /// # Errors
    /// If the kernel refuses the mark.
    pub fn set_fwmark(&self, mark: Option<u32>) -> io::Result<()> {
        self.each().try_for_each(|socket| socket.set_fwmark(mark))
    }
}

/// A running engine, as seen by control.
pub struct Engine {
    requests: mpsc::Sender<Request>,
    datagrams: Outgoing,
    waker: Waker,
    turns: Arc<Counter>,
    thread: Option<JoinHandle<()>>,
}

enum Request {
    Command(Command, oneshot::Sender<Result<(), CommandError>>),
    SetFwmark(Option<u32>, oneshot::Sender<io::Result<()>>),
    SetSockets(Box<Sockets>, oneshot::Sender<io::Result<()>>),
    Paths(PeerTag, oneshot::Sender<Option<PathsReport>>),
    Stop(oneshot::Sender<Legacy>),
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// The process has no file descriptors or threads left.
    pub fn spawn(parts: Parts) -> io::Result<(Self, Reports)> {
        let (requests, inbox) = mpsc::channel(MAX_COMMANDS);
        let (datagrams, outgoing) = datagrams::outgoing(Arc::clone(&parts.stats));
        let (events, end, reports) = reports::channel();
        let waker = Waker::new()?;
        let turns = Arc::<Counter>::default();
        let mut run = Run::new(parts, Arc::clone(&turns), waker.clone(), (inbox, outgoing), events)?;
        let thread = thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // The receiver is gone if control has ended, and then nothing needs the result.
            let _ = end.send(run.run());
        })?;
        Ok((Self { requests, datagrams, waker, turns, thread: Some(thread) }, reports))
    }

    /// Sends the node a command and waits until it was applied.
    ///
    /// # Errors
    /// The node's error, or [`CommandError::UnknownPeer`] if the engine has ended.
    pub async fn command(&self, command: Command) -> Result<(), CommandError> {
        self.ask(|reply| Request::Command(command, reply)).await.unwrap_or(Err(CommandError::UnknownPeer))
    }

    /// Sends the node commands in order, and waits until all were applied. Commands after a refused one are still applied.
    ///
    /// # Errors
    /// The first refusal, or [`CommandError::UnknownPeer`] if the engine has ended.
    pub async fn commands(&self, commands: impl IntoIterator<Item = Command>) -> Result<(), CommandError> {
        let mut answers = VecDeque::with_capacity(MAX_COMMANDS);
        let mut result = Ok(());
        for command in commands {
            if answers.len() == MAX_COMMANDS
                && let Some(answer) = answers.pop_front()
            {
                result = result.and(applied(answer).await);
            }
            let (reply, answer) = oneshot::channel();
            if self.requests.send(Request::Command(command, reply)).await.is_err() {
                return result.and(Err(CommandError::UnknownPeer));
            }
            self.waker.wake();
            answers.push_back(answer);
        }
        for answer in answers {
            result = result.and(applied(answer).await);
        }
        result
    }

    /// Switches to these sockets. The old ones are closed when this returns.
    ///
    /// # Errors
    /// If the new sockets cannot be polled, in which case the old ones stay, or if the engine has ended.
    pub async fn set_sockets(&self, sockets: Sockets) -> io::Result<()> {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        self.ask(|reply| Request::SetSockets(Box::new(sockets), reply)).await.unwrap_or_else(gone)
    }

    /// Marks outer datagrams from now on.
    ///
    /// # Errors
    /// If the kernel refuses the mark, or the engine has ended.
    pub async fn set_fwmark(&self, mark: Option<u32>) -> io::Result<()> {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        self.ask(|reply| Request::SetFwmark(mark, reply)).await.unwrap_or_else(gone)
    }

    /// Sends a datagram from the node's own sockets. It is dropped and counted if too many wait.
    pub fn send(&self, datagram: Datagram) {
        self.datagrams.push(datagram);
        self.waker.wake();
    }

    /// Returns what is known of the paths to a peer. `None`: the node does not find the path to this peer, or the engine has
    /// ended.
    pub async fn paths(&self, peer: PeerTag) -> Option<PathsReport> {
        self.ask(|reply| Request::Paths(peer, reply)).await.flatten()
    }

    /// Returns how many turns the thread has made, and wakes it for one more. If a later call returns the same number, the
    /// thread hangs.
    pub fn turns(&self) -> u64 {
        let turns = self.turns.value();
        self.waker.wake();
        turns
    }

    /// Ends the thread and waits for it, which closes TUN and sockets. Returns what the next engine needs, or nothing
    /// if the engine has ended by itself.
    pub async fn stop(mut self) -> Legacy {
        let legacy = self.ask(Request::Stop).await.unwrap_or_default();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        legacy
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        self.waker.wake();
        answer.await.ok()
    }
}

async fn applied(answer: oneshot::Receiver<Result<(), CommandError>>) -> Result<(), CommandError> {
    answer.await.unwrap_or(Err(CommandError::UnknownPeer))
}

/// Returns the current time for the node.
pub(crate) fn now() -> Instant {
    Instant::from_start(overlay_os::clock::boottime())
}

/// The wall clock, as the time since 1970.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
