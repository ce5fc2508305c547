//! The relay on Linux: UDP sockets, and a thread of their own, around the state machine of `overlay_rendezvous::relay`.
//!
//! ```text
//! sockets --trains--> Relay --trains--> sockets
//! ```
//!
//! `turn` is what the thread does when something has arrived. Between turns it sleeps in an epoll.
//!
//! The thread is no task of the runtime: a rendezvous verifies signatures there, and a runtime that hands its epoll from one
//! thread to the next costs as much as forwarding. All that others ever tell it is to end.
//!
//! A relay runs inside a rendezvous, or alone ([`crate::alone`]).

mod counters;
mod sockets;
mod turn;

pub(crate) use counters::PREFIX;
pub use counters::{Counters, families};
pub use overlay_rendezvous::relay::{Limits, Members};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use overlay_os::poll::{Poller, Timer, Waker};
use overlay_rendezvous::relay::{Config, Relay};
use overlay_wire::signed::PublicKey;

use crate::failure::{Kind, ServeError};
use sockets::Sockets;
use turn::Turn;

/// What has woken the thread. The tokens of sockets begin at 0.
const TIMER: u64 = 1 << 32;
const WAKER: u64 = TIMER + 1;

/// A relay whose sockets are open.
pub(crate) struct Open {
    turn: Turn,
    address: SocketAddr,
    sleep: Sleep,
}

/// A relay that runs until this is dropped. Then its sockets are closed.
#[derive(Debug)]
pub(crate) struct Running {
    is_over: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// What the thread sleeps in.
struct Sleep {
    poller: Poller,
    timer: Timer,
    waker: Waker,
    /// What the sockets are reported for now: something to read, and room.
    interest: (bool, bool),
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
        let Sockets { sockets, address } = Sockets::open(listen)?;
        let relay = Relay::new(Config { key, members, limits, seed });
        let turn = Turn::new(relay, sockets, counters);
        let sleep = Sleep::new(&turn)
            .map_err(|error| ServeError::new(Kind::Other, "cannot wait for the relay's sockets").with_cause(error))?;
        Ok(Self { turn, address, sleep })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the thread.
    pub(crate) fn start(self) -> Result<Running, ServeError> {
        let Self { turn, sleep, .. } = self;
        let (is_over, waker) = (Arc::<AtomicBool>::default(), sleep.waker.clone());
        let told = Arc::clone(&is_over);
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || run(turn, sleep, &told));
        let thread = thread
            .map_err(|error| ServeError::new(Kind::Other, "cannot start the relay's thread").with_cause(error))?;
        Ok(Running { is_over, waker, thread: Some(thread) })
    }
}

impl Running {
    /// Lets it run until the future is dropped.
    pub(crate) async fn forever(self) {
        let _running = self;
        std::future::pending().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        self.waker.wake();
        // It ends after its turn, which takes a millisecond at most.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the relay's thread has panicked");
        }
    }
}

fn run(mut turn: Turn, mut sleep: Sleep, is_over: &AtomicBool) {
    while !is_over.load(Relaxed) {
        if turn.take() {
            continue;
        }
        let is_time = sleep.until_due(&turn).unwrap_or_else(|error| {
            // No kernel says so to a caller that is right. To look again costs less than a relay that is gone.
            tracing::debug!(%error, "the relay cannot sleep");
            true
        });
        turn.on_woken(is_time);
    }
}

impl Sleep {
    fn new(turn: &Turn) -> io::Result<Self> {
        let (poller, timer, waker) = (Poller::new()?, Timer::new()?, Waker::new()?);
        poller.add(&timer, TIMER)?;
        poller.add(&waker, WAKER)?;
        for (token, socket) in (0..).zip(turn.sockets()) {
            poller.add(socket, token)?;
        }
        Ok(Self { poller, timer, waker, interest: (true, false) })
    }

    /// Sleeps until a socket has something for `turn`, or room, or something is due. Returns whether something is due.
    fn until_due(&mut self, turn: &Turn) -> io::Result<bool> {
        let wanted = (!turn.is_unreadable(), turn.is_stuck());
        if self.interest != wanted {
            for (token, socket) in (0..).zip(turn.sockets()) {
                self.poller.set_interest(socket, token, wanted.0, wanted.1)?;
            }
            self.interest = wanted;
        }
        self.timer.set(turn.due())?;
        let mut is_time = false;
        for token in self.poller.wait(None)? {
            match token {
                TIMER => {
                    self.timer.clear()?;
                    is_time = true;
                }
                WAKER => self.waker.clear(),
                _ => {}
            }
        }
        Ok(is_time)
    }
}
