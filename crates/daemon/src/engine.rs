//! The engine thread: carries packets between the node and Linux, and does nothing else.
//!
//! It waits, reads a batch, processes it to completion, writes the results, and waits again. There is no lock around
//! the node and no channel between reading and writing. Control sends commands through a bounded queue and an eventfd.
//! A command waits for room and is never dropped, because it may be a revocation. An event that control is too slow to
//! take is merged with the next one of its kind about the same peer.

mod carrier;
mod refusals;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use overlay_core::{
    Command, CommandError, Counter, Event, Instant, Joins, Node, PeerFlows, PeerTag, UdpTrain, Via, WallStep,
};
use overlay_os::poll::{Poller, Timer, Waker};
use overlay_os::schedule::{self, Scheduling};
use overlay_os::tun::Tun;
use overlay_os::udp::{self, ReceiveBatch, UdpSocket};
use overlay_os::wall_clock::{Step, WallWatch};
use overlay_wire::offload::{VIRTIO_HEADER_LEN, VirtioHeader};
use tokio::sync::{mpsc, oneshot};

use self::carrier::Carrier;
use self::refusals::Refusals;
use crate::shell::{ShellStats, add};

/// How many commands may wait for the engine. Further ones wait for room.
const MAX_COMMANDS: usize = 64;
/// How many events may wait for control. Further ones are merged.
const MAX_EVENTS: usize = 256;
/// How long commands are executed before packets get their turn. A command that has begun is finished first.
const OBEY_A_TURN: Duration = Duration::from_millis(1);
/// How many bytes one side may read before the other gets its turn. Everything that was read is carried at once. This is
/// enough for several super-packets, so that the datagrams of one that arrived in two trains go to TUN in one write. It is
/// small enough to stay in the cache and to keep the wait on the other side short. The last train or packet may exceed it.
const TURN_LEN: usize = 4 * 65_536;
/// How many packets are read from TUN in one turn.
const TUN_READS_A_TURN: usize = 64;
/// How many receive calls are made in one turn.
const RECEIVES_A_TURN: usize = 4;
/// How many trains one call receives. With GRO a few fill the turn. Without it each datagram is a train of its own.
const RECEIVE_SLOTS: usize = 32;
/// How often merged events are offered to control.
const OFFER_AGAIN: Duration = Duration::from_millis(20);
/// The largest frame that TUN delivers, in bytes.
const TUN_FRAME_LEN: usize = VIRTIO_HEADER_LEN + 65_535;

/// What the engine thread owns from start to end.
pub struct Parts {
    /// The node, with its first peers.
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

/// Returns which super-packets a TUN accepts, as far as is known before one was written.
pub fn joins(tun: &Tun) -> Joins {
    Joins { tcp: tun.has_offload(), udp: tun.has_udp_offload() }
}

/// One UDP socket for each address family that the host has. There are none while the interface is down.
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
    waker: Waker,
    turns: Arc<Counter>,
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
    /// Starts the thread. Its events arrive through the receiver.
    ///
    /// # Errors
    /// If the process has no file descriptors or threads left.
    pub fn spawn(parts: Parts) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        let (requests, inbox) = mpsc::channel(MAX_COMMANDS);
        let (events, outbox) = mpsc::channel(MAX_EVENTS);
        let (end, ended) = oneshot::channel();
        let waker = Waker::new()?;
        let turns = Arc::<Counter>::default();
        let mut run = Run::new(
            parts,
            Arc::clone(&turns),
            waker.clone(),
            inbox,
            Events { sender: events, merged: BTreeMap::new() },
        )?;
        let thread = thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // If nobody listens, control is gone and there is no one to tell.
            let _ = end.send(run.run());
        })?;
        Ok((Self { requests, waker, turns, thread: Some(thread), ended }, outbox))
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

    /// Returns why the engine ended by itself. Never resolves while the engine runs.
    pub async fn ended(&mut self) -> io::Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("the engine thread has ended"),
        }
    }

    /// Returns how many turns the thread has made. The call makes the thread start another turn soon, even if it has
    /// nothing else to do. If a later call returns the same number, the thread hangs.
    pub fn turns(&self) -> u64 {
        let turns = self.turns.value();
        self.waker.wake();
        turns
    }

    /// Ends the thread and waits for it, which closes TUN and sockets. Returns [`Node::known_flows`], or nothing if the
    /// engine has ended by itself.
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

/// The meaning of a ready file descriptor.
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
    turns: Arc<Counter>,
    requests: mpsc::Receiver<Request>,
    events: Events,
    frame: Box<[u8]>,
    batch: ReceiveBatch,
    scheduling: Scheduling,
}

impl Run {
    fn new(
        parts: Parts,
        turns: Arc<Counter>,
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

    /// Runs until control stops it or TUN is gone.
    fn run(&mut self) -> io::Result<()> {
        if let Err(error) = schedule::apply_to_current_thread(self.scheduling) {
            tracing::warn!(%error, scheduling = ?self.scheduling, "the engine thread keeps the default scheduling");
        }
        // Outputs that the first peers have made due.
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
            // An error here is the ICMP response to one of our earlier datagrams. This call has consumed it.
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

    /// Reads one packet and passes it to the node. Returns its length, or `None` if there is no packet.
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
            // The kernel itself wrote this header. If it is unknown to us, the packet is handled as a plain one.
            (VirtioHeader::decode(header).unwrap_or(VirtioHeader::NONE), packet)
        } else {
            (VirtioHeader::NONE, frame)
        };
        self.node.handle_tun(&header, packet, now);
        Ok(Some(len))
    }

    /// Tells the node if somebody has set the wall clock.
    fn follow_wall_clock(&mut self) {
        let Some(step) = self.wall_clock.take_step() else { return };
        tracing::info!(?step, "the wall clock was set");
        let step = match step {
            Step::Forward(by) => WallStep::Forward(by),
            Step::Back(by) => WallStep::Back(by),
        };
        // This command is never refused.
        let _ = self.node.handle_command(Command::WallClockSet(step), now());
    }

    /// Follows the state of the interface after the node was told of it. TUN is not read while the interface is down.
    /// Packets that are sent after it comes up, but before the node knows, wait in TUN and are not mistaken for packets
    /// sent while it was down.
    fn follow_interface(&mut self, is_up: bool) -> io::Result<()> {
        // The node drops what was sent before.
        while !is_up && self.take_from_tun(now())?.is_some() {}
        self.poller.set_reading(&self.carrier.tun, TOKEN_TUN, is_up)
    }

    /// Executes requests from control for a while. Returns true if it is to stop.
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
                // Packets come first, then the remaining requests.
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

/// Watches sockets. On failure the caller closes them, which ends the watching.
fn wait_for(poller: &Poller, sockets: &Sockets) -> io::Result<()> {
    for (socket, token) in [(&sockets.v4, TOKEN_V4), (&sockets.v6, TOKEN_V6)] {
        if let Some(socket) = socket {
            poller.add(socket, token)?;
        }
    }
    Ok(())
}

/// Events on their way to control. Those that do not fit into the queue wait here, one of each kind for each peer.
struct Events {
    sender: mpsc::Sender<Event>,
    merged: BTreeMap<(PeerTag, u8), Event>,
}

impl Events {
    /// Returns how long the engine may sleep. The time is bounded while control has not taken all events.
    fn patience(&self) -> Option<Duration> {
        (!self.merged.is_empty()).then_some(OFFER_AGAIN)
    }

    /// Queues an event. Returns false if it replaced an older one of its kind.
    fn push(&mut self, event: Event) -> bool {
        if self.merged.is_empty() {
            let Err(error) = self.sender.try_send(event) else { return true };
            return self.merge(error.into_inner());
        }
        self.merge(event)
    }

    fn merge(&mut self, event: Event) -> bool {
        let kind = match &event {
            Event::HandshakeCompleted(..) => 0,
            Event::EndpointChanged(..) => 1,
            Event::HandshakeFailed(_) => 2,
            Event::PathMtu(..) => 3,
            Event::Answering(..) => 4,
        };
        self.merged.insert((event.peer(), kind), event).is_none()
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
        let peer = PeerTag::from_bits(1);
        let completed = |seconds| Event::HandshakeCompleted(peer, Instant::from_start(Duration::from_secs(seconds)));
        assert!(events.push(completed(1)));
        assert!(events.push(completed(2)));
        assert!(!events.push(completed(3)), "replaces the one that waits");
        assert!(events.push(Event::HandshakeFailed(peer)));
        assert_eq!(receiver.try_recv(), Ok(completed(1)));
        events.flush();
        assert_eq!(receiver.try_recv(), Ok(completed(3)), "the last one counts");
        events.flush();
        assert_eq!(receiver.try_recv(), Ok(Event::HandshakeFailed(peer)));
    }
}
