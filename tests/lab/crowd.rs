//! Many handwritten peers on one host that call one daemon like WireGuard does: they repeat an initiation after 5 to
//! 5.33 seconds, with the cookie that they have received by then. A peer that gets a response confirms the session with
//! a keepalive, and is then connected.
//!
//! They share one socket, use as many addresses as the host routes to itself, and are told apart by their indices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use overlay_os::udp::{BindOptions, Family, ReceiveBatch, Transmit, UdpSocket};
use overlay_sim::initiator::{Initiator, Pending, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Host, inside};

/// WireGuard's timeout, and its maximum jitter.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_JITTER_MILLIS: u64 = 334;
/// The most initiations sent before answers are read again.
const AT_ONCE: usize = 64;

/// The peers and their daemon.
pub struct Crowd {
    members: Vec<Member>,
    daemon: SocketAddr,
}

struct Member {
    noise: Initiator,
    source: Ipv4Addr,
    cookie: Option<[u8; 16]>,
    pending: Option<Pending>,
    initiations: u32,
    began: Option<Instant>,
    /// The time from the first initiation to the response.
    took: Option<Duration>,
}

impl Crowd {
    /// Creates `count` peers of the daemon that has this key and this address. They use the source addresses in turn.
    pub fn new(count: u32, daemon: SocketAddr, key: &str, sources: &[Ipv4Addr]) -> Crowd {
        let key: [u8; 32] = BASE64_STANDARD.decode(key).expect("base64").try_into().expect("a key of 32 bytes");
        let member = |number: u32| {
            let mut private = [0x5a; 32];
            // The first byte is not used, since clamping clears its lower bits.
            private[4..8].copy_from_slice(&number.to_le_bytes());
            Member {
                noise: Initiator::new(private, key, number.into()),
                source: sources[number as usize % sources.len()],
                cookie: None,
                pending: None,
                initiations: 0,
                began: None,
                took: None,
            }
        };
        Crowd { members: (0..count).map(member).collect(), daemon }
    }

    /// The `[[peer]]` tables for the daemon's config. The n-th peer has the n-th address, counted from `first`.
    pub fn peers_toml(&self, first: Ipv4Addr) -> String {
        let mut toml = String::new();
        for (number, member) in (0..).zip(&self.members) {
            let key = BASE64_STANDARD.encode(member.noise.public_key());
            let address = Ipv4Addr::from(first.to_bits() + number);
            let _ = write!(
                toml,
                "\n[[peer]]\nname = \"crowd{number}\"\npublic_key = \"{key}\"\nallowed_ips = [\"{address}/32\"]\n"
            );
        }
        toml
    }

    /// Makes all peers call, each `apart` after the previous one, until all are connected or `limit` has passed.
    /// Returns how long each took from its first initiation, in ascending order. Peers that are not connected are
    /// missing.
    pub fn call(&mut self, host: &Host, apart: Duration, limit: Duration) -> Vec<Duration> {
        inside(host, || self.run(apart, limit));
        let mut took: Vec<_> = self.members.iter().filter_map(|member| member.took).collect();
        took.sort();
        took
    }

    /// How many initiations the peers have sent.
    pub fn initiations(&self) -> u32 {
        self.members.iter().map(|member| member.initiations).sum()
    }

    fn run(&mut self, apart: Duration, limit: Duration) {
        let options = BindOptions {
            port: 0,
            fwmark: None,
            receive_buffer: 16 << 20,
            send_buffer: 4 << 20,
            segmentation: false,
            coalescing: false,
        };
        let socket = UdpSocket::bind(Family::V4, &options).expect("a socket of our own");
        let mut batch = ReceiveBatch::new(64);
        let start = Instant::now();
        let mut calls: BinaryHeap<_> =
            (0..self.members.len()).map(|number| Reverse((start + apart * number as u32, number))).collect();
        let mut waiting = self.members.len();
        while waiting > 0 && start.elapsed() < limit {
            for _ in 0..AT_ONCE {
                let Some(Reverse((at, number))) = calls.peek().copied().filter(|call| call.0.0 <= Instant::now())
                else {
                    break;
                };
                calls.pop();
                if self.members[number].took.is_none() {
                    self.initiate(&socket, number);
                    // Spread like WireGuard's jitter, and different for every attempt of a peer.
                    let spread = (at - start).as_nanos() as u64 ^ (number as u64).wrapping_mul(0x9e37_79b9);
                    let jitter = Duration::from_millis(spread % MAX_JITTER_MILLIS);
                    calls.push(Reverse((Instant::now() + REKEY_TIMEOUT + jitter, number)));
                }
            }
            let next = calls.peek().map_or(limit, |call| call.0.0.saturating_duration_since(Instant::now()));
            let next = Timespec { tv_sec: next.as_secs() as i64, tv_nsec: i64::from(next.subsec_nanos()) };
            poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&next)).expect("our own socket");
            socket.receive(&mut batch, usize::MAX).expect("our own socket");
            let answers: Vec<_> = batch.iter_mut().map(|one| one.contents.to_vec()).collect();
            for answer in answers {
                waiting -= usize::from(self.hear(&socket, &answer));
            }
        }
    }

    fn initiate(&mut self, socket: &UdpSocket, number: usize) {
        let member = &mut self.members[number];
        member.initiations += 1;
        member.began.get_or_insert_with(Instant::now);
        let newer = Timestamp::from_unix_seconds(1_700_000_000 + u64::from(member.initiations));
        let mut pending = member.noise.initiate(newer, number as u32);
        member.noise.sign(&mut pending.message, member.cookie.as_ref());
        send(socket, self.daemon, member.source, &pending.message);
        member.pending = Some(pending);
    }

    /// Handles an answer. Returns whether a peer is now connected because of it.
    fn hear(&mut self, socket: &UdpSocket, answer: &[u8]) -> bool {
        let at = if answer.first() == Some(&2) { 8 } else { 4 };
        let Some(index) = answer.get(at..at + 4) else { return false };
        let number = u32::from_le_bytes([index[0], index[1], index[2], index[3]]);
        let Some(member) = self.members.get_mut(number as usize) else { return false };
        let (Some(pending), Some(began), None) = (&member.pending, member.began, member.took) else { return false };
        if let Ok(cookie) = member.noise.cookie(&pending.message, answer) {
            member.cookie = Some(cookie);
            return false;
        }
        let Ok(mut session) = member.noise.complete(pending, answer) else { return false };
        member.took = Some(began.elapsed());
        send(socket, self.daemon, member.source, &session.seal(&[]));
        true
    }
}

/// Sends a message. A message that cannot be sent now counts as lost on the way.
fn send(socket: &UdpSocket, destination: SocketAddr, source: Ipv4Addr, message: &[u8]) {
    let source = Some((IpAddr::from(source), 0));
    let _ = socket.send(&Transmit { source, ..Transmit::to(destination, message, message.len()) });
}
