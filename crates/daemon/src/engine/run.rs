//! The engine on its own thread: what it waits for, and what it does about each.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use std::{io, mem};

use overlay_core::{Command, Counter, Instant, Node, UdpTrain, Via, WallStep};
use overlay_os::copies::{Copied, CopyWatch};
use overlay_os::poll::{Poller, Timer, Waker};
use overlay_os::schedule::{self, Scheduling};
use overlay_os::udp::{self, ReceiveBatch};
use overlay_os::wall_clock::{Step, WallWatch};
use overlay_wire::offload::{VIRTIO_HEADER_LEN, VirtioHeader};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::carrier::Carrier;
use super::datagrams::Datagram;
use super::refusals::Refusals;
use super::reports::Events;
use super::shell::add;
use super::{Legacy, Parts, Request, Sockets, joins, now};

/// How long commands are handled before packets get their turn. The current command is always completed.
const OBEY_A_TURN: Duration = Duration::from_millis(1);
/// How many bytes one side brings before they are carried on and the other side gets its turn. The last train or packet may
/// exceed it. It is several super-packets, so that the datagrams of one super-packet that came in two trains go to TUN in
/// one write. It is small enough for the bytes to stay in the cache, and for the other side not to wait for long.
const TURN_LEN: usize = 4 * 65_536;
/// Packets read from TUN in a turn.
const TUN_READS_A_TURN: usize = 64;
/// Receive calls in a turn.
const RECEIVES_A_TURN: usize = 4;
/// Trains received with one call. With GRO a few fill the turn, but a wire without it brings one for each datagram.
const RECEIVE_SLOTS: usize = 32;
/// The largest frame that TUN delivers.
const TUN_FRAME_LEN: usize = VIRTIO_HEADER_LEN + 65_535;

/// What a ready file descriptor stands for.
const TOKEN_TUN: u64 = 0;
const TOKEN_TIMER: u64 = 1;
const TOKEN_WAKER: u64 = 2;
const TOKEN_V4: u64 = 3;
const TOKEN_V6: u64 = 4;
const TOKEN_WALL_CLOCK: u64 = 5;
const TOKEN_COPIES: u64 = 6;

/// The engine on its own thread.
pub(super) struct Run {
    node: Node,
    carrier: Carrier,
    poller: Poller,
    wall_clock: WallWatch,
    copies: CopyWatch,
    waker: Waker,
    turns: Arc<Counter>,
    requests: mpsc::Receiver<Request>,
    datagrams: mpsc::Receiver<Datagram>,
    events: Events,
    frame: Box<[u8]>,
    batch: ReceiveBatch,
    scheduling: Scheduling,
}

impl Run {
    pub(super) fn new(
        parts: Parts,
        turns: Arc<Counter>,
        waker: Waker,
        (requests, datagrams): (mpsc::Receiver<Request>, mpsc::Receiver<Datagram>),
        events: Events,
    ) -> io::Result<Self> {
        let Parts { node, tun, sockets, stats, scheduling } = parts;
        let (poller, timer, wall_clock) = (Poller::new()?, Timer::new()?, WallWatch::new()?);
        poller.add(&tun, TOKEN_TUN)?;
        poller.add(&timer, TOKEN_TIMER)?;
        poller.add(&waker, TOKEN_WAKER)?;
        poller.add(&wall_clock, TOKEN_WALL_CLOCK)?;
        let copies = CopyWatch::start();
        copies.announcements().map_or(Ok(()), |announcements| poller.add(announcements, TOKEN_COPIES))?;
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
            copies,
            waker,
            turns,
            requests,
            datagrams,
            events,
            frame: vec![0; TUN_FRAME_LEN].into(),
            batch: ReceiveBatch::new(RECEIVE_SLOTS),
            scheduling,
        })
    }

    /// Runs until control says stop or TUN is gone.
    pub(super) fn run(&mut self) -> io::Result<()> {
        if let Err(error) = schedule::apply_to_current_thread(self.scheduling) {
            tracing::warn!(%error, scheduling = ?self.scheduling, "the engine thread keeps the default scheduling");
        }
        // Adding the first peers may have made something due.
        self.carry()?;
        loop {
            let ready = self.poller.wait(self.events.patience())?;
            // Before anything else: a copy must not send a packet with the keys of the original.
            let announced = ready.clone().any(|token| token == TOKEN_COPIES).then(|| self.copies.on_announcement());
            if let Some(copied) = self.copies.take(now().since_start()).or(announced.flatten()) {
                self.on_copied(copied)?;
            }
            for token in ready {
                match token {
                    TOKEN_V4 | TOKEN_V6 => self.receive(token)?,
                    TOKEN_TUN => self.read_tun()?,
                    TOKEN_TIMER => {
                        self.carrier.timer.clear()?;
                        add(&self.carrier.stats.timeouts, 1);
                        // The node must know of a changed wall clock before it starts a handshake that may be due.
                        self.follow_wall_clock();
                        self.node.handle_timeout(now());
                        self.carry()?;
                    }
                    TOKEN_WALL_CLOCK => {
                        self.wall_clock.clear();
                        self.follow_wall_clock();
                        self.carry()?;
                    }
                    // It was read above.
                    TOKEN_COPIES => {}
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
            // An error here is an ICMP answer to a datagram of ours. This call has consumed it.
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
                let via = Via { local: train.local, ..Via::ANY };
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

    /// Reads one packet and gives it to the node. Returns its length, or `None` if no packet waits.
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
            // The kernel writes this header. If we do not know it, the packet is passed on as a plain one.
            (VirtioHeader::decode(header).unwrap_or(VirtioHeader::NONE), packet)
        } else {
            (VirtioHeader::NONE, frame)
        };
        self.node.handle_tun(&header, packet, now);
        Ok(Some(len))
    }

    /// Tells the node if the wall clock was set.
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

    /// Ends all sessions before another packet passes: a copy of this process may use the same keys and counters.
    fn on_copied(&mut self, copied: Copied) -> io::Result<()> {
        tracing::warn!(?copied, "this process was copied while it ran, so all sessions end");
        let mut seed = Zeroizing::new([0; 32]);
        overlay_os::random::fill(&mut *seed)?;
        // This command is never refused.
        let _ = self.node.handle_command(Command::Copied { seed }, now());
        self.events.tell_copied();
        self.carry()
    }

    /// Follows the interface after the node was told that it came up or went down. While it is down, TUN is not read. A
    /// packet that is sent after the interface comes up, but before the node knows, therefore waits in TUN and is not
    /// mistaken for one that was sent before.
    fn follow_interface(&mut self, is_up: bool) -> io::Result<()> {
        // What was sent before is read now, and the node drops it.
        while !is_up && self.take_from_tun(now())?.is_some() {}
        self.poller.set_reading(&self.carrier.tun, TOKEN_TUN, is_up)
    }

    /// Handles requests of control for a limited time. Returns true if the engine is to stop.
    fn obey(&mut self) -> io::Result<bool> {
        let began = now();
        // There are few: the queue is as long as its bound.
        while let Ok(datagram) = self.datagrams.try_recv() {
            self.carrier.send(&datagram);
        }
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
                Request::Paths(peer, reply) => {
                    let _ = reply.send(self.node.paths(peer, now()));
                }
                Request::Stop(reply) => {
                    // A step of the wall clock that was not noticed yet counts too.
                    self.follow_wall_clock();
                    // No packet passes after this.
                    let _ = reply.send(Legacy::of(self.node.hand_over(now())));
                    return Ok(true);
                }
            }
            if now().since(began) >= OBEY_A_TURN {
                // Packets get their turn, then the remaining requests.
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

/// Watches sockets. If that fails, the caller closes them, which also ends the watch.
fn wait_for(poller: &Poller, sockets: &Sockets) -> io::Result<()> {
    for (socket, token) in [(&sockets.v4, TOKEN_V4), (&sockets.v6, TOKEN_V6)] {
        if let Some(socket) = socket {
            poller.add(socket, token)?;
        }
    }
    Ok(())
}
