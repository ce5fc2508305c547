//! Load for whatever forwards datagrams on host `a` of a star: a generator on one core, the forwarder on the other, and a
//! packet filter that counts and drops what arrives at `c`, so that nobody's work there slows the forwarder down.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, thread};

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

/// How much of a core is a [`Quarter`].
pub(crate) const QUARTER: f64 = 0.25;

/// A quarter of the core of what is measured, for one program or thread: 1 ms of 4. The generator has one core, and a bare
/// copier is faster than it. With a quarter, the buffer of its socket is never empty when its turn comes.
#[derive(Debug)]
pub(crate) struct Quarter(PathBuf);

impl Quarter {
    /// `None`, with the reason printed, if this machine cannot.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let folder = Path::new("/sys/fs/cgroup/cpu").join(format!("ovl-{}-{name}", std::process::id()));
        if let Err(error) = fs::create_dir(&folder) {
            crate::lab::skip(name, &format!("no cgroup (version 1) for CPU time: {error}"));
            return None;
        }
        let quarter = Self(folder);
        for (file, microseconds) in [("cpu.cfs_period_us", "4000"), ("cpu.cfs_quota_us", "1000")] {
            fs::write(quarter.0.join(file), microseconds).expect("our own cgroup");
        }
        Some(quarter)
    }

    /// All threads of a program, which is bound to the core too.
    pub(crate) fn hold(&self, process: &Process) {
        let pid = process.pid().to_string();
        let words = ["-a", "-p", "-c", &MEASURED.to_string(), &pid].map(String::from);
        let done = std::process::Command::new("taskset").args(words).output().expect("taskset");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::write(self.0.join("cgroup.procs"), pid).expect("a process that runs");
    }

    /// The calling thread.
    fn hold_this_thread(&self) {
        pin(MEASURED);
        let own = fs::read_link("/proc/thread-self").expect("a folder for each thread");
        let id = own.file_name().expect("its number").to_string_lossy().into_owned();
        fs::write(self.0.join("tasks"), id).expect("our own thread");
    }
}

impl Drop for Quarter {
    fn drop(&mut self) {
        // What is in it ends first, or a little later.
        let _ = fs::remove_dir(&self.0);
    }
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

/// Sends the same train from `socket` as fast as one core can, and measures how many bytes of UDP payload a
/// second arrive at the sink.
pub(crate) fn flood(socket: &mut UdpSocket, to: SocketAddr, (train, stride): (&[u8], usize), sink: &Sink<'_>) -> f64 {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            pin(OTHERS);
            let transmit = Transmit { dont_fragment: true, ..Transmit::to(to, train, stride) };
            while !stop.load(Relaxed) {
                socket.send_batch([transmit; 8], |_, _| {});
            }
        });
        thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), sink.payload());
        thread::sleep(WINDOW);
        let bytes = sink.payload() - before;
        let elapsed = began.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
        bytes as f64 / elapsed
    })
}

/// Copies trains from one address to the other and decides nothing, while `act` runs. What costs less is not possible.
pub(crate) fn copier<T>(host: &Host, held: &Quarter, (port, to): (u16, SocketAddr), act: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            inside(host, || {
                held.hold_this_thread();
                let socket = open_socket_at(port);
                tell.send(()).expect("the test waits for it");
                copy(&socket, to, stop);
            });
        });
        told.recv().expect("the copier's thread");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
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
        let trains = batch
            .iter_mut()
            .map(|received| Transmit { dont_fragment: true, ..Transmit::to(to, received.contents, received.stride) });
        socket.send_batch(trains, |_, _| {});
    }
}
