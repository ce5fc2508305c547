//! A neighbour that sends datagrams to a host's addresses without pause, and a listener that counts what gets through.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::lab::{Host, SHORTLY, inside, within};

/// A flood, which continues until it is dropped.
pub(crate) struct Flood {
    goes_on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Floods from `host` to each of the addresses in turn. Datagrams that the kernel refuses for lack of a route do
    /// not count as sent.
    pub(crate) fn start(host: &Host, to: &[&str], port: u16) -> Flood {
        let to: Vec<IpAddr> = to.iter().map(|address| address.parse().expect("an address")).collect();
        let (v4, v6) = inside(host, || {
            (UdpSocket::bind("0.0.0.0:0").expect("a socket"), UdpSocket::bind("[::]:0").expect("a socket"))
        });
        let (goes_on, sent) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (going, counter) = (Arc::clone(&goes_on), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            while going.load(Relaxed) {
                for address in &to {
                    let socket = if address.is_ipv4() { &v4 } else { &v6 };
                    if socket.send_to(b"x", (*address, port)).is_ok() {
                        counter.fetch_add(1, Relaxed);
                    }
                }
            }
        });
        let flood = Flood { goes_on, sent, thread: Some(thread) };
        flood.goes_on_for(100);
        flood
    }

    /// Waits until this many more have been sent.
    #[track_caller]
    pub(crate) fn goes_on_for(&self, datagrams: u64) {
        let until = self.sent.load(Relaxed) + datagrams;
        within(SHORTLY, "the neighbour to send", || (self.sent.load(Relaxed) >= until).then_some(()));
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.goes_on.store(false, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The most datagrams counted in one call: more than the socket's buffer holds.
const ENOUGH: u64 = 10_000;

/// Receives everything that arrives at a port of a host, on any address.
pub(crate) struct Listener {
    socket: UdpSocket,
    received: u64,
}

impl Listener {
    pub(crate) fn start(host: &Host, port: u16) -> Listener {
        // The socket covers both families.
        let socket = inside(host, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port"));
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        Listener { socket, received: 0 }
    }

    /// How many datagrams have come so far. A flood that gets through never pauses, so each call counts at most
    /// [`ENOUGH`] more.
    pub(crate) fn count(&mut self) -> u64 {
        let (mut byte, until) = ([0; 8], self.received + ENOUGH);
        while self.received < until && self.socket.recv(&mut byte).is_ok() {
            self.received += 1;
        }
        self.received
    }
}
