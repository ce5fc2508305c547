//! Strangers that ask for more than they may, from one address, while ten thousand things a second are offered.
//!
//! The flood has threads of its own with a low priority: strangers do not run on the machine of the rendezvous. What the
//! kernel does for them, it does on this machine for both ends. Callers come one after the other, because a flood of
//! handshakes is a kind of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use overlay_daemon::agent::connection::{Connection, Target, connect};
use overlay_rendezvous::channel::Pinned;
use overlay_rendezvous::protocol::{Call, Find, FromServer, Reply, Verb};
use overlay_wire::signed::{PublicKey, SecretKey, Signed};
use rustix::process::setpriority_process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::lab::Host;
use crate::member::{name_of, until};
use crate::rogue::{outsider, random, runtime_where};

/// Where the strangers come from.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 255, 1);
/// What they offer in a second.
const OFFERED: f64 = 10_000.0;
/// What they offer in handshakes: each costs them a millisecond of their own, too.
const HANDSHAKES: f64 = 1_000.0;
/// Callers come so far apart.
const APART: Duration = Duration::from_millis(10);
/// The lowest priority.
const LOWEST: i32 = 19;
/// As many of them have a connection at once.
const PER_ADDRESS: usize = 32;
/// When a caller without a connection tries again. Those are not what is offered: `Unfinished` and `Handshakes` are about them.
const RETRY: Duration = Duration::from_secs(1);

/// What strangers do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One identity calls.
    OneIdentity,
    /// As many identities as get a connection call.
    ManyIdentities,
    /// Connections with a handshake that stops somewhere.
    Unfinished,
    /// Whole handshakes, one after the other, as an agent makes them, and nothing after them.
    Handshakes,
}

impl Kind {
    /// In a few words.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::OneIdentity => "10,000 calls a second of one identity",
            Self::ManyIdentities => "10,000 calls a second of 100 identities behind one address",
            Self::Unfinished => "up to 10,000 connections a second of one address, whose handshakes stop",
            Self::Handshakes => "1,000 handshakes a second of one address",
        }
    }
}

/// What came of a flood.
#[derive(Debug, Default)]
struct Seen {
    /// Calls or connections that were tried, and how many of them were taken or answered.
    offered: AtomicU64,
    taken: AtomicU64,
    /// Calls that were answered with what was asked.
    granted: AtomicU64,
}

/// A flood. It ends when it is dropped.
pub(crate) struct Flood {
    runtime: Option<Runtime>,
    seen: Arc<Seen>,
}

impl Flood {
    /// Begins. `agents` is how many agents there are, and `victim` is one of them.
    pub(crate) fn begin(kind: Kind, host: &Host, rendezvous: &Pinned, agents: usize, victim: PublicKey) -> Self {
        // Without a lower priority, the agents are only slower than they would be.
        let runtime = runtime_where(host, || {
            let _ = setpriority_process(None, LOWEST);
        });
        let seen = Arc::<Seen>::default();
        let rendezvous = Pinned { host: ADDRESS.to_string(), ..rendezvous.clone() };
        let to = SocketAddr::from((ADDRESS, rendezvous.port));
        let callers = |count: usize, connected: usize| {
            for turn in 0..count {
                let caller = Caller { rendezvous: rendezvous.clone(), agents, victim, seen: seen.clone() };
                runtime.spawn(caller.run(APART * turn as u32, OFFERED / connected as f64));
            }
        };
        match kind {
            Kind::OneIdentity => callers(1, 1),
            Kind::ManyIdentities => callers(100, PER_ADDRESS),
            Kind::Unfinished => {
                for stranger in 0..100 {
                    runtime.spawn(unfinished(to, stranger, seen.clone()));
                }
            }
            Kind::Handshakes => {
                for _ in 0..100 {
                    runtime.spawn(handshakes(rendezvous.clone(), seen.clone()));
                }
            }
        }
        Self { runtime: Some(runtime), seen }
    }

    /// What was offered, what was taken or answered, and what was granted.
    pub(crate) fn seen(&self) -> [u64; 3] {
        let Seen { offered, taken, granted } = &*self.seen;
        [offered, taken, granted].map(|count| count.load(Relaxed))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A stranger with an identity.
struct Caller {
    rendezvous: Pinned,
    agents: usize,
    victim: PublicKey,
    seen: Arc<Seen>,
}

impl Caller {
    async fn run(self, wait: Duration, per_second: f64) {
        tokio::time::sleep(wait).await;
        let identity = Arc::new(SecretKey::from_bytes(&random()));
        let target =
            Target { rendezvous: self.rendezvous.clone(), identity: identity.clone(), epoch: 0, ca_file: None };
        let record = outsider::record(target.rendezvous.network, &identity, "stranger");
        let record = Signed::sign(record, &identity).expect("a good record").bytes().to_vec();
        loop {
            if let Ok(Connection { mut calls, mut messages, .. }) = connect(&target).await {
                let seen = self.seen.clone();
                let reading = tokio::spawn(async move {
                    while let Ok(message) = messages.next().await {
                        let FromServer::Answer(answer) = message else { continue };
                        seen.taken.fetch_add(1, Relaxed);
                        let is_granted = !matches!(answer.reply, Reply::Refused { .. });
                        seen.granted.fetch_add(u64::from(is_granted), Relaxed);
                    }
                });
                let began = Instant::now();
                for turn in 0_u32.. {
                    until(began + Duration::from_secs_f64(f64::from(turn) / per_second)).await;
                    self.seen.offered.fetch_add(1, Relaxed);
                    let verb = match turn % 3 {
                        0 => Verb::Find { by: Find::Name(name_of(turn as usize % self.agents)), after: None },
                        1 => Verb::Register { record: record.clone().into() },
                        _ => Verb::Send {
                            to: self.victim,
                            message: random(),
                            sealed: vec![7; 1_000].into(),
                            permit: None,
                        },
                    };
                    if calls.send(&Call { id: turn, verb }).await.is_err() {
                        break;
                    }
                }
                reading.abort();
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Connects, says nothing, half of a greeting, or what is not TLS, and waits until it is cut off.
async fn unfinished(to: SocketAddr, stranger: usize, seen: Arc<Seen>) {
    let said: &[u8] = match stranger % 3 {
        0 => b"",
        1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        _ => b"what no rendezvous speaks, and a little more",
    };
    let began = Instant::now();
    for turn in 0_u32.. {
        until(began + Duration::from_secs_f64(f64::from(turn) * 100.0 / OFFERED)).await;
        seen.offered.fetch_add(1, Relaxed);
        let Ok(mut stream) = TcpStream::connect(to).await else { continue };
        seen.taken.fetch_add(1, Relaxed);
        if stream.write_all(said).await.is_ok() {
            let _ = stream.read(&mut [0; 64]).await;
        }
    }
}

/// Connects as an agent does, and hangs up.
async fn handshakes(rendezvous: Pinned, seen: Arc<Seen>) {
    let identity = Arc::new(SecretKey::from_bytes(&random()));
    let target = Target { rendezvous, identity, epoch: 0, ca_file: None };
    let began = Instant::now();
    for turn in 0_u32.. {
        until(began + Duration::from_secs_f64(f64::from(turn) * 100.0 / HANDSHAKES)).await;
        seen.offered.fetch_add(1, Relaxed);
        let is_connected = connect(&target).await.is_ok();
        seen.taken.fetch_add(u64::from(is_connected), Relaxed);
    }
}
