//! The engine thread: carries packets between the node and Linux, and nothing else.
//!
//! It waits, reads a batch, runs it to completion, writes what came of it, and waits again. There is no lock around the
//! node and no channel between reading and writing. Control speaks to it through a bounded queue and an eventfd: a
//! command waits for room and is never dropped, since it may be a revocation; an event that control is too slow to take
//! is merged with the next one of its kind about the same peer.

mod carrier;
mod offload;
mod queues;
mod refusals;
mod shell;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use overlay_core::{Command, CommandError, Event, Instant, Joins, Node, PeerFlows, PeerKey, UdpTrain, Via, WallStep};
use overlay_os::poll::{Poller, Timer, Waker};
use overlay_os::schedule::{self, Scheduling};
use overlay_os::tun::Tun;
use overlay_os::udp::{self, ReceiveBatch, UdpSocket};
use overlay_os::wall_clock::{Step, WallWatch};
use overlay_wire::offload::{VIRTIO_HEADER_LEN, VirtioHeader};
use tokio::sync::{mpsc, oneshot};

use self::carrier::Carrier;
pub use self::offload::{Offload, OffloadState, Offloads};
pub use self::queues::{QueueFigures, Queues};
use self::refusals::Refusals;
pub use self::shell::ShellStats;
use self::shell::add;

/// Commands that wait for the engine; more wait for room.
const MAX_COMMANDS: usize = 64;
/// Events that wait for control; more are merged.
const MAX_EVENTS: usize = 256;
/// How long commands are obeyed before packets get their turn, but for the one that is being obeyed then.
const OBEY_A_TURN: Duration = Duration::from_millis(1);
/// Bytes that one side brings before the other gets its turn, and that are carried away at once: some super-packets, so that
/// the datagrams of one that came in two trains go to TUN in one write; little enough to lie in the cache still, and to
/// keep short what waits on the other side. The last train or packet goes beyond it.
const TURN_LEN: usize = 4 * 65_536;
/// Packets read from TUN in a turn.
const TUN_READS_A_TURN: usize = 64;
/// Receive calls in a turn.
const RECEIVES_A_TURN: usize = 4;
/// Trains received with one call. With GRO a few fill the turn, but a wire without it brings one for each datagram.
const RECEIVE_SLOTS: usize = 32;
/// Merged events are offered to control this often.
const OFFER_AGAIN: Duration = Duration::from_millis(20);
/// The largest frame that TUN delivers.
const TUN_FRAME_LEN: usize = VIRTIO_HEADER_LEN + 65_535;

/// What the engine thread owns from its start to its end.
pub struct Parts {
    /// With its first peers.
    pub node: Node,
    /// Where inner packets come from and go to.
    pub tun: Tun,
    /// The outer sockets.
    pub sockets: Sockets,
    /// Where the engine counts.
    pub stats: Arc<ShellStats>,
    /// How the thread is scheduled.
    pub scheduling: Scheduling,
}

/// What an engine may know of the flows through one that ran before it.
#[derive(Default)]
pub struct Former {
    /// Whether there can be none: no engine ran before.
    pub is_first: bool,
    /// Those that were handed over.
    pub flows: Vec<PeerFlows>,
}

/// What a TUN takes as super-packets, as far as can be known before one was written.
pub fn joins(tun: &Tun) -> Joins {
    Joins { tcp: tun.has_offload(), udp: tun.has_udp_offload() }
}

/// One UDP socket for each address family that the host has; none while the interface is down.
#[derive(Default)]
pub struct Sockets {
    /// IPv4.
    pub v4: Option<UdpSocket>,
    /// IPv6.
    pub v6: Option<UdpSocket>,
}

impl Sockets {
    /// Those that there are.
    pub fn each(&self) -> impl Iterator<Item = &UdpSocket> {
        self.v4.iter().chain(&self.v6)
    }

    /// Marks everything that is sent from now on.
    ///
    /// # Errors
    /// The kernel refused the mark.
    pub fn set_fwmark(&self, mark: Option<u32>) -> io::Result<()> {
        self.each().try_for_each(|socket| socket.set_fwmark(mark))
    }
}

/// A running engine, as control sees it.
pub struct Engine {
    requests: mpsc::Sender<Request>,
    waker: Waker,
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<io::Result<()>>,
}

enum Request {
    Command(Command, oneshot::Sender<Result<(), CommandError>>),
    SetFwmark(Option<u32>, oneshot::Sender<io::Result<()>>),
    SetSockets(Box<Sockets>, oneshot::Sender<io::Result<()>>),
    Stop(oneshot::Sender<Vec<PeerFlows>>),
}

impl Engine {
    /// Starts the thread. Its events come by the receiver.
    ///
    /// # Errors
    /// The process has no file descriptors or threads left.
    pub fn spawn(parts: Parts) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (requests, inbox) = mpsc::channel(MAX_COMMANDS);
        let (events, outbox) = mpsc::channel(MAX_EVENTS);
        let (end, ended) = oneshot::channel();
        let waker = Waker::new()?;
        let turns = Arc::<AtomicU64>::default();
        let mut run = Run::new(
            parts,
            Arc::clone(&turns),
            waker.clone(),
            inbox,
            Events { sender: events, merged: BTreeMap::new() },
        )?;
        let thread = thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // Nobody listens only when control is gone, and then the end has no reader.
            let _ = end.send(run.run());
        })?;
        Ok((Self { requests, waker, turns, thread: Some(thread), ended }, outbox))
    }

    /// Gives the node a command and waits until it was applied.
    ///
    /// # Errors
    /// What the node says; also [`CommandError::UnknownPeer`] when the engine has ended.
    pub async fn command(&self, command: Command) -> Result<(), CommandError> {
        self.ask(|reply| Request::Command(command, reply)).await.unwrap_or(Err(CommandError::UnknownPeer))
    }

    /// Gives the node commands, one after the other, and waits until all were applied. What comes after one that was
    /// refused is applied all the same.
    ///
    /// # Errors
    /// The first refusal; also [`CommandError::UnknownPeer`] when the engine has ended.
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

    /// Sends and receives by these sockets from now on. The old ones are closed when this returns.
    ///
    /// # Errors
    /// They cannot be waited for, and the old ones stay; or the engine has ended.
    pub async fn set_sockets(&self, sockets: Sockets) -> io::Result<()> {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        self.ask(|reply| Request::SetSockets(Box::new(sockets), reply)).await.unwrap_or_else(gone)
    }

    /// Marks outer datagrams from now on.
    ///
    /// # Errors
    /// The kernel refused the mark, or the engine has ended.
    pub async fn set_fwmark(&self, mark: Option<u32>) -> io::Result<()> {
        let gone = || Err(io::ErrorKind::BrokenPipe.into());
        self.ask(|reply| Request::SetFwmark(mark, reply)).await.unwrap_or_else(gone)
    }

    /// Why the engine ended by itself. Never resolves while it runs.
    pub async fn ended(&mut self) -> io::Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("the engine thread has ended"),
        }
    }

    /// How often the thread has come round by now. It comes round soon after this call, even where nothing else is to be
    /// done: if a later call gives the same answer, the thread hangs.
    pub fn turns(&self) -> u64 {
        let turns = self.turns.load(Relaxed);
        self.waker.wake();
        turns
    }

    /// Ends the thread and waits for it; TUN and sockets are closed then. The flows that the node knew are those of
    /// [`Node::known_flows`]; there are none when the engine has ended by itself.
    pub async fn stop(mut self) -> Vec<PeerFlows> {
        let flows = self.ask(Request::Stop).await.unwrap_or_default();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        flows
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

/// What a ready file descriptor stands for.
const TOKEN_TUN: u64 = 0;
const TOKEN_TIMER: u64 = 1;
const TOKEN_WAKER: u64 = 2;
const TOKEN_V4: u64 = 3;
const TOKEN_V6: u64 = 4;
const TOKEN_WALL_CLOCK: u64 = 5;

/// The engine on its own thread.
struct Run {
    node: Node,
    carrier: Carrier,
    poller: Poller,
    wall_clock: WallWatch,
    waker: Waker,
    turns: Arc<AtomicU64>,
    requests: mpsc::Receiver<Request>,
    events: Events,
    frame: Box<[u8]>,
    batch: ReceiveBatch,
    scheduling: Scheduling,
}

impl Run {
    fn new(
        parts: Parts,
        turns: Arc<AtomicU64>,
        waker: Waker,
        requests: mpsc::Receiver<Request>,
        events: Events,
    ) -> io::Result<Self> {
        let Parts { node, tun, sockets, stats, scheduling } = parts;
        let (poller, timer, wall_clock) = (Poller::new()?, Timer::new()?, WallWatch::new()?);
        poller.add(&tun, TOKEN_TUN)?;
        poller.add(&timer, TOKEN_TIMER)?;
        poller.add(&waker, TOKEN_WAKER)?;
        poller.add(&wall_clock, TOKEN_WALL_CLOCK)?;
        wait_for(&poller, &sockets)?;
        Ok(Self {
            node,
            carrier: Carrier {
                refusals: Refusals::none(joins(&tun)),
                too_long: RefCell::default(),
                unsent: RefCell::default(),
                tun,
                sockets,
                timer,
                stats,
            },
            poller,
            wall_clock,
            waker,
            turns,
            requests,
            events,
            frame: vec![0; TUN_FRAME_LEN].into(),
            batch: ReceiveBatch::new(RECEIVE_SLOTS),
            scheduling,
        })
    }

    /// Until control says stop, or TUN is gone.
    fn run(&mut self) -> io::Result<()> {
        if let Err(error) = schedule::apply_to_current_thread(self.scheduling) {
            tracing::warn!(%error, scheduling = ?self.scheduling, "the engine thread keeps the default scheduling");
        }
        // What the first peers made due.
        self.carry()?;
        loop {
            for token in self.poller.wait(self.events.patience())? {
                match token {
                    TOKEN_V4 | TOKEN_V6 => self.receive(token)?,
                    TOKEN_TUN => self.read_tun()?,
                    TOKEN_TIMER => {
                        self.carrier.timer.clear()?;
                        add(&self.carrier.stats.timeouts, 1);
                        // Before a handshake that may be due.
                        self.follow_wall_clock();
                        self.node.handle_timeout(now());
                        self.carry()?;
                    }
                    TOKEN_WALL_CLOCK => {
                        self.wall_clock.clear();
                        self.follow_wall_clock();
                        self.carry()?;
                    }
                    _ => {
                        self.waker.clear();
                        if self.obey()? {
                            return Ok(());
                        }
                    }
                }
            }
            self.events.flush();
            add(&self.turns, 1);
        }
    }

    fn receive(&mut self, token: u64) -> io::Result<()> {
        let mut waiting = 0;
        for _ in 0..RECEIVES_A_TURN {
            let socket = if token == TOKEN_V4 { &self.carrier.sockets.v4 } else { &self.carrier.sockets.v6 };
            let Some(socket) = socket else { break };
            let slots = self.batch.slots_for(TURN_LEN - waiting);
            // An error here is one that a datagram of ours has met (an ICMP answer); it was taken by this call.
            let received = socket.receive(&mut self.batch, slots).unwrap_or(0);
            if received == 0 {
                break;
            }
            let stats = &self.carrier.stats;
            add(&stats.udp_receives, 1);
            add(&stats.udp_received_trains, received as u64);
            let now = now();
            for train in self.batch.iter_mut() {
                if train.truncated {
                    add(&stats.udp_truncated, 1);
                    continue;
                }
                let via = Via { local: train.local };
                let udp::Received { contents, stride, source, ecn, .. } = train;
                self.node.handle_udp(&UdpTrain { contents, stride, source, via, ecn }, now);
                waiting += contents.len();
            }
            if received < slots || waiting >= TURN_LEN {
                break;
            }
        }
        self.carry()
    }

    fn read_tun(&mut self) -> io::Result<()> {
        let now = now();
        let mut waiting = 0;
        for _ in 0..TUN_READS_A_TURN {
            let Some(len) = self.take_from_tun(now)? else { break };
            waiting += len;
            if waiting >= TURN_LEN {
                break;
            }
        }
        self.carry()
    }

    /// Reads one packet and gives it to the node. Its length; `None` where there is none.
    fn take_from_tun(&mut self, now: Instant) -> io::Result<Option<usize>> {
        let len = match self.carrier.tun.read(&mut self.frame) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        add(&self.carrier.stats.tun_reads, 1);
        add(&self.carrier.stats.tun_read_bytes, len as u64);
        let frame = &mut self.frame[..len];
        let (header, packet) = if self.carrier.tun.has_offload() {
            let Some((header, packet)) = frame.split_at_mut_checked(VIRTIO_HEADER_LEN) else { return Ok(Some(len)) };
            // What the kernel writes here is its own; one it does not know is passed on as a plain packet.
            (VirtioHeader::decode(header).unwrap_or(VirtioHeader::NONE), packet)
        } else {
            (VirtioHeader::NONE, frame)
        };
        self.node.handle_tun(&header, packet, now);
        Ok(Some(len))
    }

    /// The node hears of it when somebody has set the wall clock.
    fn follow_wall_clock(&mut self) {
        let Some(step) = self.wall_clock.take_step() else { return };
        tracing::info!(?step, "the wall clock was set");
        let step = match step {
            Step::Forward(by) => WallStep::Forward(by),
            Step::Back(by) => WallStep::Back(by),
        };
        // Of all commands it is one that is never refused.
        let _ = self.node.handle_command(Command::WallClockSet(step), now());
    }

    /// The node knows that the interface came up or went down. While it is down TUN is not read: what is sent between its
    /// coming up and the node's hearing of it waits there, and is not taken for something sent while it was down.
    fn follow_interface(&mut self, is_up: bool) -> io::Result<()> {
        // The node drops what was sent before.
        while !is_up && self.take_from_tun(now())?.is_some() {}
        self.poller.set_reading(&self.carrier.tun, TOKEN_TUN, is_up)
    }

    /// Does what control asks, for a while; true when that is to stop.
    fn obey(&mut self) -> io::Result<bool> {
        let began = now();
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Command(command, reply) => {
                    add(&self.carrier.stats.commands, 1);
                    let is_up = if let Command::SetUp(is_up) = command { Some(is_up) } else { None };
                    let result = self.node.handle_command(command, now());
                    is_up.map_or(Ok(()), |is_up| self.follow_interface(is_up))?;
                    self.carry()?;
                    let _ = reply.send(result);
                }
                Request::SetFwmark(mark, reply) => {
                    let _ = reply.send(self.carrier.sockets.set_fwmark(mark));
                }
                Request::SetSockets(sockets, reply) => {
                    let _ = reply.send(self.set_sockets(*sockets));
                }
                Request::Stop(reply) => {
                    // No packet passes after this.
                    let _ = reply.send(self.node.known_flows(now()));
                    return Ok(true);
                }
            }
            if now().since(began) >= OBEY_A_TURN {
                // Packets first; then the rest.
                self.waker.wake();
                break;
            }
        }
        Ok(false)
    }

    fn set_sockets(&mut self, sockets: Sockets) -> io::Result<()> {
        wait_for(&self.poller, &sockets)?;
        let old = mem::replace(&mut self.carrier.sockets, sockets);
        old.each().try_for_each(|socket| self.poller.remove(socket))
    }

    fn carry(&mut self) -> io::Result<()> {
        self.carrier.carry(&mut self.node, &mut self.events)
    }
}

/// Watches sockets. When that fails, the caller closes them, which ends it.
fn wait_for(poller: &Poller, sockets: &Sockets) -> io::Result<()> {
    for (socket, token) in [(&sockets.v4, TOKEN_V4), (&sockets.v6, TOKEN_V6)] {
        if let Some(socket) = socket {
            poller.add(socket, token)?;
        }
    }
    Ok(())
}

/// Events on their way to control. What does not fit the queue waits here, one event of a kind for each peer.
struct Events {
    sender: mpsc::Sender<Event>,
    merged: BTreeMap<(PeerKey, u8), Event>,
}

impl Events {
    /// How long the engine may sleep: not for ever while control has not taken everything.
    fn patience(&self) -> Option<Duration> {
        (!self.merged.is_empty()).then_some(OFFER_AGAIN)
    }

    /// False when an older event of the kind was replaced.
    fn push(&mut self, event: Event) -> bool {
        if self.merged.is_empty() {
            let Err(error) = self.sender.try_send(event) else { return true };
            return self.merge(error.into_inner());
        }
        self.merge(event)
    }

    fn merge(&mut self, event: Event) -> bool {
        let key = match &event {
            Event::HandshakeCompleted(peer, _) => (*peer, 0),
            Event::EndpointChanged(peer, _) => (*peer, 1),
            Event::HandshakeFailed(peer) => (*peer, 2),
            Event::PathMtu(peer, _) => (*peer, 3),
            Event::Answering(peer, _) => (*peer, 4),
        };
        self.merged.insert(key, event).is_none()
    }

    fn flush(&mut self) {
        while let Some((key, event)) = self.merged.pop_first() {
            if let Err(error) = self.sender.try_send(event) {
                self.merged.insert(key, error.into_inner());
                return;
            }
        }
    }
}

fn now() -> Instant {
    Instant::from_start(overlay_os::clock::boottime())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_control_does_not_take_are_merged_by_peer_and_kind() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut events = Events { sender, merged: BTreeMap::new() };
        let completed =
            |seconds| Event::HandshakeCompleted(PeerKey([1; 32]), Instant::from_start(Duration::from_secs(seconds)));
        assert!(events.push(completed(1)));
        assert!(events.push(completed(2)));
        assert!(!events.push(completed(3)), "replaces the one that waits");
        assert!(events.push(Event::HandshakeFailed(PeerKey([1; 32]))));
        assert_eq!(receiver.try_recv(), Ok(completed(1)));
        events.flush();
        assert_eq!(receiver.try_recv(), Ok(completed(3)), "the last one counts");
        events.flush();
        assert_eq!(receiver.try_recv(), Ok(Event::HandshakeFailed(PeerKey([1; 32]))));
    }
}
