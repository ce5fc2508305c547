//! One turn of the relay's thread: it reads what waits, up to a quarter of a megabyte, puts it into the relay, and sends
//! what comes out, in one system call if it can.
//!
//! * **A long train goes on at once**, out of the buffer into which it was read, if nobody has anything queued. What is
//!   queued is copied, and three copies of a full train cost half as much again as two.
//! * **While the kernel takes no more, the thread goes on reading**, so that the relay decides what is dropped. It hands over
//!   little at a time, because what the kernel has refused waits outside of the relay's queues.
//! * **Datagrams that every agent may send before it knows its path leave without DF**, and may arrive in fragments. All
//!   others leave with DF: agents look for the path MTU themselves (RFC 8899), and a relay that fragments would make them
//!   find what no path carries in one piece.
//!
//! The same sockets answer STUN, so that agents learn from the socket of their data how they are seen.

use std::sync::Arc;
use std::time::Duration;

use overlay_os::udp::{self, ReceiveBatch, Received, SendError, UdpSocket};
use overlay_rendezvous::relay::{Leg, Relay, Train, Transmit};
use overlay_rendezvous::stun::{self, Gate};
use overlay_wire::wireguard;

use super::counters::Counters;
use super::sockets;
use crate::clock::now;

/// The most trains that are read before what came of them is sent.
const TRAINS: usize = 64;
/// About how many bytes are read: a quarter of a core's second cache, so that what is read is still there when it is sent.
const READ_LEN: usize = 256 * 1_024;
/// The most bytes that are handed to the kernel at once, unless one train is longer: 2.6 ms at 100 Mb/s.
const SEND_LEN: usize = 32 * 1_024;
/// The shortest train that is not copied. Shorter ones are worth joining.
const LONG: usize = 16 * 1_024;
/// How long to wait after a socket could not be read.
const READ_RETRY: Duration = Duration::from_millis(100);
/// How long to wait before the kernel is asked again without a sign from it. What is queued is too old then.
const SEND_RETRY: Duration = Duration::from_millis(20);
/// The longest datagram that leaves without DF: an agent's packet of 1,200 bytes, which is as much as it may send while it
/// does not know its path, sealed and with our head. Over IPv6 with an MTU of 1,280 it takes two fragments.
const UNPROVEN_LEN: usize = 1_240;
/// What passes every path in one piece. DF makes no difference then, and changing it costs a system call.
const SMALL_LEN: usize = 520;

/// What a turn works on.
#[derive(Debug)]
pub(super) struct Turn {
    relay: Relay,
    stun: Gate,
    sockets: Vec<UdpSocket>,
    batch: ReceiveBatch,
    sending: Sending,
    /// Whether a socket could not be read: it is tried again when time has passed.
    is_unreadable: bool,
}

/// The way out.
#[derive(Debug)]
struct Sending {
    /// What the kernel did not take. It goes first.
    stuck: Vec<Transmit>,
    /// What is being handed over, and what became of it if it was not sent. Both are empty between calls.
    outputs: Vec<Transmit>,
    failed: Vec<(usize, SendError)>,
    /// Whether the last datagram left with DF.
    had_df: bool,
    counters: Arc<Counters>,
}

impl Turn {
    pub(super) fn new(relay: Relay, sockets: Vec<UdpSocket>, counters: Arc<Counters>) -> Self {
        let [stuck, outputs] = Default::default();
        let sending = Sending { stuck, outputs, failed: Vec::new(), had_df: true, counters };
        Self { relay, stun: Gate::default(), sockets, batch: ReceiveBatch::new(TRAINS), sending, is_unreadable: false }
    }

    pub(super) fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// Whether something waits until the kernel takes more.
    pub(super) fn is_stuck(&self) -> bool {
        !self.sending.stuck.is_empty()
    }

    /// Whether a socket could not be read, so that nobody should wait for it now.
    pub(super) fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    /// Takes in what waits, and sends what comes of it. `false`: nothing waited.
    pub(super) fn take(&mut self) -> bool {
        let Self { relay, stun, sockets, batch, sending, is_unreadable } = self;
        if *is_unreadable {
            return false;
        }
        let (now, mut is_any) = (now(), false);
        for socket in &*sockets {
            let slots = batch.slots_for(READ_LEN);
            match socket.receive(batch, slots) {
                Ok(received) => is_any |= received > 0,
                Err(error) => {
                    sending.counters.on_unreadable();
                    tracing::debug!(%error, "a socket cannot be read");
                    *is_unreadable = true;
                    continue;
                }
            }
            for received in batch.iter_mut() {
                let Received { contents, stride, source, local, ecn, truncated } = received;
                if truncated {
                    sending.counters.on_truncated();
                    continue;
                }
                let leg = Leg { remote: source, local };
                if wireguard::kind(contents) != wireguard::Kind::Relayed {
                    // The kernel joins what has one length, and what is shorter behind it, whatever it means.
                    for datagram in contents.chunks(stride.max(1)) {
                        if wireguard::kind(datagram) == wireguard::Kind::Stun {
                            let answer = stun::answer(datagram, source, now.monotonic, stun);
                            answer.into_iter().for_each(|answer| relay.answer(answer, leg));
                        } else {
                            let alone = Train { contents: datagram, stride: datagram.len(), ecn };
                            relay.handle_datagrams(alone, leg, now);
                        }
                    }
                    continue;
                }
                let train = Train { contents, stride, ecn };
                if contents.len() >= LONG
                    && sending.stuck.is_empty()
                    && let Some(to) = relay.way_of(train, leg, now)
                    && sending.send_at_once(sockets, relay, (train, to))
                {
                    continue;
                }
                relay.handle_datagrams(train, leg, now);
            }
            sending.send(sockets, relay);
        }
        if is_any {
            sending.counters.publish(relay, stun);
        }
        is_any
    }

    /// A socket has room or something to read, or something is due.
    pub(super) fn on_woken(&mut self, is_time: bool) {
        self.is_unreadable &= !is_time;
        self.relay.handle_timeout(now());
        self.sending.send(&self.sockets, &mut self.relay);
        self.sending.counters.publish(&self.relay, &self.stun);
    }

    /// When something is due, by the monotonic clock.
    pub(super) fn due(&self) -> Option<Duration> {
        let due = self.relay.poll_timeout();
        let within = |wait| now().monotonic + wait;
        match (self.is_unreadable, self.is_stuck()) {
            (true, _) => due.into_iter().chain([within(READ_RETRY)]).min(),
            // What waits behind the kernel is not due before the kernel takes more.
            (false, true) => Some(within(SEND_RETRY)),
            (false, false) => due,
        }
    }
}

impl Sending {
    /// Hands a train on as it was read. `false`: the kernel does not take it now.
    fn send_at_once(&mut self, sockets: &[UdpSocket], relay: &mut Relay, (train, to): (Train<'_>, Leg)) -> bool {
        let Some(socket) = sockets.iter().find(|socket| sockets::is_of(socket, to.remote)) else { return false };
        let Train { contents, stride, ecn } = train;
        self.had_df = wants_df(stride, self.had_df);
        match socket.send(&transmit((to, contents, stride, ecn), self.had_df, 0)) {
            Ok(()) => relay.on_forwarded(train),
            Err(SendError::WouldBlock) => return false,
            Err(error) => self.on_unsent(&error, (to, stride), relay),
        }
        true
    }

    /// Sends until nothing is left, or the kernel takes no more.
    fn send(&mut self, sockets: &[UdpSocket], relay: &mut Relay) {
        while self.gather(relay) {
            let Self { outputs, failed, had_df, .. } = self;
            for socket in sockets {
                let ours = outputs.iter().enumerate().filter(|(_, it)| sockets::is_of(socket, it.leg.remote));
                let transmits = ours.map(|(at, it)| {
                    *had_df = wants_df(it.stride, *had_df);
                    transmit((it.leg, &it.contents, it.stride, it.ecn), *had_df, at as u64)
                });
                socket.send_batch(transmits, |transmit, error| failed.push((transmit.tag as usize, error)));
            }
            self.settle(relay);
            if !self.stuck.is_empty() {
                return;
            }
        }
    }

    /// Collects what goes next. `false`: nothing.
    fn gather(&mut self, relay: &mut Relay) -> bool {
        let now = now();
        std::mem::swap(&mut self.outputs, &mut self.stuck);
        let mut len: usize = self.outputs.iter().map(|output| output.contents.len()).sum();
        while len < SEND_LEN
            && self.outputs.len() < TRAINS
            && let Some(output) = relay.poll_output(now)
        {
            len += output.contents.len();
            self.outputs.push(output);
        }
        !self.outputs.is_empty()
    }

    /// Keeps what the kernel did not take, and gives the memory of the rest back.
    fn settle(&mut self, relay: &mut Relay) {
        let (mut outputs, mut failed) = (std::mem::take(&mut self.outputs), std::mem::take(&mut self.failed));
        for (at, output) in outputs.drain(..).enumerate() {
            match failed.iter().find(|(failed, _)| *failed == at) {
                Some((_, SendError::WouldBlock)) => {
                    self.stuck.push(output);
                    continue;
                }
                Some((_, error)) => self.on_unsent(error, (output.leg, output.stride), relay),
                None => {}
            }
            relay.recycle(output);
        }
        failed.clear();
        (self.outputs, self.failed) = (outputs, failed);
    }

    fn on_unsent(&self, error: &SendError, (to, stride): (Leg, usize), relay: &mut Relay) {
        self.counters.on_unsent(error);
        if matches!(error, SendError::MessageTooLong) {
            relay.on_too_long(to, stride, now());
        }
    }
}

/// Whether datagrams of this length leave with DF. `had_df`: whether the last ones did.
fn wants_df(len: usize, had_df: bool) -> bool {
    if len <= SMALL_LEN { had_df } else { len > UNPROVEN_LEN }
}

fn transmit((to, contents, stride, ecn): (Leg, &[u8], usize, u8), dont_fragment: bool, tag: u64) -> udp::Transmit<'_> {
    udp::Transmit {
        source: to.local,
        traffic_class: ecn,
        dont_fragment,
        tag,
        ..udp::Transmit::to(to.remote, contents, stride)
    }
}
