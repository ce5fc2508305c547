//! Load for whatever forwards datagrams on host `a` of a star: a generator on one core, the forwarder on the other, and a
//! packet filter that counts and drops what arrives at `c`, so that nobody's work there slows the forwarder down.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use overlay_os::udp::{Family, ReceiveBatch, Transmit, UdpSocket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::agent::open_socket_at;
use crate::lab::{Host, Process, inside};
use std::net::SocketAddr;

/// The core of what is measured, and the core of everything else.
pub(crate) const MEASURED: usize = 0;
const OTHERS: usize = 1;
/// How long one figure is measured, and how long the load runs before.
const WINDOW: Duration = Duration::from_millis(1_200);
const WARM_UP: Duration = Duration::from_millis(300);
/// An IPv4 header and a UDP header.
const HEADERS: u64 = 28;

/// Binds the calling thread to a core.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("a core that exists");
}

/// Binds all threads of a program to the core of what is measured.
pub(crate) fn pin_program(process: &Process) {
    let line = ["-a", "-p", "-c", &MEASURED.to_string(), &process.pid().to_string()].map(String::from);
    let done = std::process::Command::new("taskset").args(line).output().expect("taskset");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What arrives at a host from host `a`, counted and dropped before it costs anything.
pub(crate) struct Sink<'a>(&'a Host);

impl<'a> Sink<'a> {
    pub(crate) fn new(host: &'a Host, link: &str) -> Self {
        host.shell(&format!(
            "nft 'table netdev sink {{ chain in {{ type filter hook ingress device \"{link}\" priority 0; \
             meta l4proto udp counter drop; }}; }}'"
        ));
        Self(host)
    }

    /// The bytes of UDP payload so far.
    fn payload(&self) -> u64 {
        let said = self.0.exec("nft list table netdev sink");
        let mut words = said.split_whitespace().skip_while(|word| *word != "packets");
        let mut number = || words.nth(1).expect("two counters").parse::<u64>().expect("a number");
        let (packets, bytes) = (number(), number());
        bytes - packets * HEADERS
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        self.0.shell("nft delete table netdev sink");
    }
}

/// What one run has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Bytes of UDP payload that arrived, a second.
    pub(crate) rate: f64,
    /// How much of its core the forwarder used, and for 10^9 bytes how many seconds of it.
    pub(crate) busy: f64,
    pub(crate) cost: f64,
}

/// Sends the same train from `socket` as fast as one core can, and measures what arrives at the sink. `worker`: the process
/// or thread that forwards.
pub(crate) fn flood(
    socket: &mut UdpSocket,
    to: SocketAddr,
    (train, stride): (&[u8], usize),
    sink: &Sink<'_>,
    worker: &str,
) -> Figure {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            pin(OTHERS);
            let transmit = Transmit {
                destination: to,
                source: None,
                contents: train,
                segment_size: stride,
                traffic_class: 0,
                dont_fragment: true,
                tag: 0,
            };
            while !stop.load(Relaxed) {
                socket.send_batch([transmit; 8], |_, _| {});
            }
        });
        thread::sleep(WARM_UP);
        let (began, before, used) = (Instant::now(), sink.payload(), cpu_seconds(worker));
        thread::sleep(WINDOW);
        let (bytes, used) = (sink.payload() - before, cpu_seconds(worker) - used);
        let elapsed = began.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        Figure { rate: bytes as f64 / elapsed, busy: used / elapsed, cost: used / (bytes as f64 / 1e9) }
    })
}

/// How long a process or thread, by its folder in /proc, was running.
fn cpu_seconds(worker: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).expect("it is running");
    let behind = stat.rsplit(')').next().expect("a name in parentheses");
    let fields: Vec<_> = behind.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// Copies trains from one address to the other and decides nothing. What costs less than this is not possible.
pub(crate) fn copier<T>(host: &Host, port: u16, to: SocketAddr, act: impl FnOnce(&str) -> T) -> T {
    let stop = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            inside(host, || {
                pin(MEASURED);
                let socket = open_socket_at(port);
                let own = std::fs::read_link("/proc/thread-self").expect("a folder for each thread");
                tell.send(own.display().to_string()).expect("the test waits for it");
                copy(&socket, to, stop);
            });
        });
        let worker = told.recv().expect("the copier's thread");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&worker)));
        stop.store(true, Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn copy(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool) {
    assert_eq!(socket.family(), Family::V4);
    let mut batch = ReceiveBatch::new(32);
    let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Relaxed) {
        if socket.receive(&mut batch, 32).expect("a socket that can be read") == 0 {
            poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)).expect("no signal");
            continue;
        }
        let trains = batch.iter_mut().map(|received| Transmit {
            destination: to,
            source: None,
            contents: received.contents,
            segment_size: received.stride,
            traffic_class: 0,
            dont_fragment: true,
            tag: 0,
        });
        socket.send_batch(trains, |_, _| {});
    }
}
