//! The relay on Linux: UDP sockets, in a task of their own, around the state machine of `overlay_rendezvous::relay`.
//!
//! ```text
//! sockets --trains--> Relay --trains--> sockets
//! ```
//!
//! The task reads what waits, up to 32 trains, puts it into the relay, and sends what comes out, in one system call if it can.
//! While the kernel takes no more, it goes on reading, so that the relay decides what is dropped.
//!
//! The same sockets answer STUN, so that agents learn from the socket of their data how they are seen.
//!
//! Everything leaves with DF: the agents look for the path MTU themselves, and a relay that fragments would hide it.
//!
//! A relay runs inside a rendezvous, or alone ([`crate::alone`]).

mod counters;
mod sockets;

pub(crate) use counters::PREFIX;
pub use counters::{Counters, families};
pub use overlay_rendezvous::relay::{Limits, Members};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_os::udp::{ReceiveBatch, Received, SendError, UdpSocket, Waiting};
use overlay_rendezvous::relay::{Config, Leg, Relay, Train, Transmit};
use overlay_rendezvous::stun::{self, Gate};
use overlay_wire::signed::PublicKey;
use overlay_wire::wireguard;

use crate::clock::now;
use crate::failure::{Kind, ServeError};
use sockets::Sockets;

/// The most trains that are read before what came of them is sent. The queue of one agent holds as many.
const TRAINS: usize = 32;
/// How long to wait after a socket could not be read.
const READ_RETRY: Duration = Duration::from_millis(100);

/// A relay whose sockets are open.
pub(crate) struct Open {
    relay: Relay,
    sockets: Sockets,
    counters: Arc<Counters>,
}

impl Open {
    /// Opens the sockets. `key`: the relay's own.
    pub(crate) fn at(
        listen: SocketAddr,
        (key, members, limits): (PublicKey, Members, Limits),
        counters: Arc<Counters>,
    ) -> Result<Self, ServeError> {
        let mut seed = [0; 32];
        overlay_os::random::fill(&mut seed)
            .map_err(|error| ServeError::new(Kind::Other, "the kernel gives no randomness").with_cause(error))?;
        let sockets = Sockets::open(listen)?;
        Ok(Self { relay: Relay::new(Config { key, members, limits, seed }), sockets, counters })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.sockets.address
    }

    /// Relays until the future is dropped.
    pub(crate) async fn run(self) {
        let Self { relay, sockets, counters } = self;
        let mut turn = Turn {
            relay,
            stun: Gate::default(),
            sockets: sockets.sockets,
            batch: ReceiveBatch::new(TRAINS),
            stuck: Vec::new(),
            counters,
            is_unreadable: false,
        };
        let waiting = sockets.waiting;
        loop {
            if turn.take() {
                // Others have their turn on this thread, too.
                tokio::task::yield_now().await;
                continue;
            }
            let (due, is_stuck) = (turn.due(), !turn.stuck.is_empty());
            tokio::select! {
                () = any(&waiting, Waiting::readable), if !turn.is_unreadable => {}
                () = any(&waiting, Waiting::writable), if is_stuck => turn.send(),
                () = tokio::time::sleep(due) => turn.on_time(),
            }
        }
    }
}

/// Waits for the first of the sockets, of which there are two at most.
async fn any<'a, F: Future<Output = io::Result<()>>>(waiting: &'a [Waiting], wait: impl Fn(&'a Waiting) -> F) {
    tokio::select! {
        () = one(waiting.first().map(&wait)) => {}
        () = one(waiting.get(1).map(&wait)) => {}
    }
}

/// Waits for a socket, if there is one. A runtime that ends drops the task, so its error is waited out.
async fn one(wait: Option<impl Future<Output = io::Result<()>>>) {
    if let Some(wait) = wait
        && wait.await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// What one turn of the task works on.
struct Turn {
    relay: Relay,
    stun: Gate,
    sockets: Vec<UdpSocket>,
    batch: ReceiveBatch,
    /// What the kernel did not take. It goes first.
    stuck: Vec<Transmit>,
    counters: Arc<Counters>,
    /// Whether a socket could not be read: it is tried again when time has passed.
    is_unreadable: bool,
}

impl Turn {
    /// Takes in what waits, and sends what comes of it. `false`: nothing waited.
    fn take(&mut self) -> bool {
        let now = now();
        let mut is_any = false;
        for socket in &self.sockets {
            match socket.receive(&mut self.batch, TRAINS) {
                Ok(received) => is_any |= received > 0,
                Err(error) => {
                    self.counters.on_unreadable();
                    tracing::debug!(%error, "a socket cannot be read");
                    self.is_unreadable = true;
                    continue;
                }
            }
            for received in self.batch.iter_mut() {
                let Received { contents, stride, source, local, ecn, truncated } = received;
                if truncated {
                    self.counters.on_truncated();
                    continue;
                }
                let leg = Leg { remote: source, local };
                if wireguard::kind(contents) == wireguard::Kind::Stun {
                    for datagram in contents.chunks(stride.max(1)) {
                        let answer = stun::answer(datagram, source, now.monotonic, &mut self.stun);
                        answer.into_iter().for_each(|answer| self.relay.answer(answer, leg));
                    }
                    continue;
                }
                self.relay.handle_datagrams(Train { contents, stride, ecn }, leg, now);
            }
            send(&self.sockets, &mut self.relay, &mut self.stuck, &self.counters);
        }
        if is_any {
            self.counters.publish(&self.relay, &self.stun);
        }
        is_any
    }

    fn on_time(&mut self) {
        self.is_unreadable = false;
        self.relay.handle_timeout(now());
        self.send();
    }

    fn send(&mut self) {
        send(&self.sockets, &mut self.relay, &mut self.stuck, &self.counters);
        self.counters.publish(&self.relay, &self.stun);
    }

    /// How long nothing is due.
    fn due(&self) -> Duration {
        let due = self.relay.poll_timeout().map_or(Duration::MAX, |at| at.saturating_sub(now().monotonic));
        match (self.is_unreadable, self.stuck.is_empty()) {
            (true, _) => due.min(READ_RETRY),
            // What waits behind the kernel is not due before the kernel takes more. Old trains are dropped then.
            (false, false) => due.max(Duration::from_millis(20)),
            // A year is long enough, and not too long for the timer.
            (false, true) => due.min(Duration::from_secs(365 * 24 * 3_600)),
        }
    }
}

/// Sends until nothing is left, or the kernel takes no more.
fn send(sockets: &[UdpSocket], relay: &mut Relay, stuck: &mut Vec<Transmit>, counters: &Counters) {
    loop {
        let now = now();
        let mut outputs = std::mem::take(stuck);
        outputs.extend(std::iter::from_fn(|| relay.poll_output(now)).take(TRAINS.saturating_sub(outputs.len())));
        if outputs.is_empty() {
            return;
        }
        let mut is_stuck = vec![false; outputs.len()];
        for socket in sockets {
            let ours = outputs.iter().enumerate().filter(|(_, it)| sockets::is_of(socket, it.leg.remote));
            socket.send_batch(ours.map(|(at, output)| transmit(at, output)), |failed, error| match error {
                SendError::WouldBlock => is_stuck[failed.tag as usize] = true,
                error => counters.on_unsent(&error),
            });
        }
        for (output, is_stuck) in outputs.into_iter().zip(is_stuck) {
            if is_stuck { stuck.push(output) } else { relay.recycle(output) }
        }
        if !stuck.is_empty() {
            return;
        }
    }
}

fn transmit(at: usize, output: &Transmit) -> overlay_os::udp::Transmit<'_> {
    overlay_os::udp::Transmit {
        destination: output.leg.remote,
        source: output.leg.local,
        contents: &output.contents,
        segment_size: output.stride,
        traffic_class: output.ecn,
        ttl: None,
        dont_fragment: true,
        tag: at as u64,
    }
}
