//! A forwarder that delays what crosses a router, by direction, with jitter and loss. The test kernels have no netem.
//!
//! Policy routes lead what comes in by one link into a TUN, and a thread writes it into a second TUN after its time, from
//! where the kernel forwards it as usual. So such a router takes two from the TTL of what it delays. What is for the router
//! itself, and what it says itself, is not delayed.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use overlay_os::poll::{Poller, Waker};
use overlay_os::tun::{self, Tun};

use super::{Host, inside};

/// The longest packet that is forwarded.
const MTU: usize = 1_500;
/// How many packets wait in each direction. More are dropped, and counted.
const MAX_WAITING: usize = 32_768;
/// How many packets the kernel keeps for the thread.
const QUEUE_LENGTH: usize = 10_000;
/// How many packets are read at a time before those that are due are written.
const MAX_READ: usize = 64;

/// What happens to packets in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Delay {
    /// How long each packet takes at least.
    pub latency: Duration,
    /// How much longer at most. Packets stay in order.
    pub jitter: Duration,
    /// The share that is lost, from 0.0 to 1.0.
    pub loss: f64,
}

/// A direction across the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the first neighbour to the second.
    There = 0,
    /// From the second neighbour to the first.
    Back = 1,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    /// They went on.
    pub forwarded: u64,
    /// They were dropped as [`Delay::loss`] says.
    pub lost: u64,
    /// They were dropped because the forwarder itself was too slow.
    pub overflowed: u64,
}

/// A running forwarder. Dropping it removes it, and the router forwards as before.
pub struct Delays {
    router: Host,
    neighbours: [String; 2],
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    ways: [Direction; 2],
    is_over: AtomicBool,
}

#[derive(Default)]
struct Direction {
    delay: Mutex<Delay>,
    forwarded: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

/// The packets of one direction that wait, with their times.
#[derive(Default)]
struct Waiting {
    packets: VecDeque<(Instant, Vec<u8>)>,
    /// Emptied packets, whose memory is used again.
    spare: Vec<Vec<u8>>,
}

/// The TUN for what comes from the first neighbour, and the one for what comes from the second.
const DEVICES: [&str; 2] = ["delay-a", "delay-b"];

impl Delays {
    /// Starts a forwarder on a router for what passes between these two neighbours. It delays nothing yet.
    #[track_caller]
    pub fn between(router: &Host, first: &Host, second: &Host) -> Delays {
        let devices = inside(router, || DEVICES.map(|name| Tun::create(name, false).expect("a TUN device")));
        let neighbours = [first, second].map(|neighbour| router.link_to(neighbour));
        for ((device, link), table) in DEVICES.iter().zip(&neighbours).zip(101..) {
            router.exec(format!("sysctl -qw net.ipv4.conf.{device}.rp_filter=0 net.ipv4.conf.all.rp_filter=0"));
            router.ip(&format!("link set {device} txqueuelen {QUEUE_LENGTH} mtu {MTU} addrgenmode none"));
            router.ip(&format!("link set {device} up"));
            for family in ["-4", "-6"] {
                router.ip(&format!("{family} route add default dev {device} table {table}"));
                router.ip(&format!("{family} rule add iif {link} lookup {table}"));
            }
        }
        let shared = Arc::new(Shared::default());
        let waker = Waker::new().expect("a waker");
        let thread = {
            let (shared, waker) = (Arc::clone(&shared), waker.clone());
            std::thread::spawn(move || forward(&devices, &shared, &waker))
        };
        Delays { router: router.clone(), neighbours, shared, waker, thread: Some(thread) }
    }

    /// Changes a direction. Packets that already wait keep their times.
    pub fn set(&self, way: Way, delay: Delay) {
        *self.shared.ways[way as usize].delay.lock().expect("no panic while it is held") = delay;
    }

    /// Delays both directions alike, so that a round trip takes this much longer.
    pub fn set_round_trip(&self, round_trip: Duration) {
        for way in [Way::There, Way::Back] {
            self.set(way, Delay { latency: round_trip / 2, ..Delay::default() });
        }
    }

    /// What became of the packets of a direction so far.
    pub fn crossed(&self, way: Way) -> Crossed {
        let direction = &self.shared.ways[way as usize];
        let device = DEVICES[way as usize];
        let refused = inside(&self.router, || tun::dropped_packets(device)).ok().flatten().unwrap_or(0);
        Crossed {
            forwarded: direction.forwarded.load(Relaxed),
            lost: direction.lost.load(Relaxed),
            overflowed: direction.overflowed.load(Relaxed) + refused,
        }
    }
}

impl Drop for Delays {
    fn drop(&mut self) {
        for (link, table) in self.neighbours.iter().zip(101..) {
            for family in ["-4", "-6"] {
                self.router.run(format!("ip {family} rule del iif {link} lookup {table}"));
            }
        }
        self.shared.is_over.store(true, Relaxed);
        self.waker.wake();
        // The devices go with the thread.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread.
fn forward(devices: &[Tun; 2], shared: &Shared, waker: &Waker) {
    let mut poller = Poller::new().expect("a poller");
    for (token, device) in (0..).zip(devices) {
        poller.add(device, token).expect("a device is added once");
    }
    poller.add(waker, 2).expect("the waker is added once");
    let mut waiting = [Waiting::default(), Waiting::default()];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0; MTU];
    while !shared.is_over.load(Relaxed) {
        for way in 0..2 {
            read(&devices[way], &shared.ways[way], &mut waiting[way], &mut buffer, &mut random);
            write(&devices[1 - way], &shared.ways[way], &mut waiting[way]);
        }
        let next = waiting.iter().filter_map(|waiting| waiting.packets.front().map(|(due, _)| *due)).min();
        let timeout = next.map(|due| due.saturating_duration_since(Instant::now()));
        let _ = poller.wait(timeout);
    }
}

/// Takes in what the kernel has, and decides when it goes on.
fn read(device: &Tun, direction: &Direction, waiting: &mut Waiting, buffer: &mut [u8], random: &mut Random) {
    let Delay { latency, jitter, loss } = *direction.delay.lock().expect("no panic while it is held");
    for _ in 0..MAX_READ {
        let len = match device.read(buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if random.share() < loss {
            direction.lost.fetch_add(1, Relaxed);
            continue;
        }
        if waiting.packets.len() >= MAX_WAITING {
            direction.overflowed.fetch_add(1, Relaxed);
            continue;
        }
        let due = Instant::now() + latency + jitter.mul_f64(random.share());
        let due = waiting.packets.back().map_or(due, |(last, _)| due.max(*last));
        let mut packet = waiting.spare.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(&buffer[..len]);
        waiting.packets.push_back((due, packet));
    }
}

/// Lets go what is due.
fn write(device: &Tun, direction: &Direction, waiting: &mut Waiting) {
    let now = Instant::now();
    while let Some((_, packet)) = waiting.packets.pop_front_if(|(due, _)| *due <= now) {
        let counter = match device.write(&[IoSlice::new(&packet)]) {
            Ok(_) => &direction.forwarded,
            Err(_) => &direction.overflowed,
        };
        counter.fetch_add(1, Relaxed);
        waiting.spare.push(packet);
    }
}

/// A fixed sequence of numbers (xorshift64*): the same packets are lost in every run.
struct Random(u64);

impl Random {
    /// The next number from 0.0 to 1.0.
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}
