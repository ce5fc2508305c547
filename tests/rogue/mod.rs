//! A rendezvous inside the test process that may lie: the real registry, its store in memory and the real channel, with a
//! filter between the registry and each agent.
//!
//! It listens on a host of the lab, over TLS, and has the keys that the agents pin. So it is the rendezvous for them, and
//! it shows what a rendezvous can do that means it ill. A test
//!
//! * replaces, drops and doubles what the registry tells an agent ([`Rogue::filter`]),
//! * tells an agent anything at any time ([`Rogue::push`]),
//! * reads what agents have said, and what the registry has told them ([`Rogue::calls`], [`Rogue::told`]),
//! * makes agents connect again ([`Rogue::bounce`]), or shows them a wrong proof of its identity ([`Rogue::greet_with`]),
//! * has agents of its own, without a connection and a tunnel ([`Rogue::join`]).
//!
//! The filter does not see what [`Rogue::push`] tells. Left out: limits of connections, and anything on disk.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

mod connection;
mod desk;
pub mod outsider;
pub mod signing;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use overlay_daemon::agent::connection::{Target, connect};
use overlay_rendezvous::channel::{Pinned, VERSIONS};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::protocol::{Answer, Call, FromServer, Push, Reply, Verb};
use overlay_rendezvous::registry::{Config, Limits, Registry};
use overlay_wire::signed::{Auth, Network, Pool, PublicKey, Record, Rendezvous, SecretKey, Signed};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::lab::{Agents, Host};
use desk::Desk;

pub use desk::Told;
pub use outsider::Outsider;

/// Where it listens, on the loopback of the agents' router.
const ADDRESS: &str = "192.0.2.9";
const PORT: u16 = 7447;
/// The IPv4 addresses of its network.
const POOL: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 0);

/// The rendezvous. It ends when it is dropped.
pub struct Rogue {
    /// The URL, with both keys.
    pub url: Pinned,
    /// The network, and its key.
    pub network: Signed<Network>,
    pub network_key: SecretKey,
    /// The key of the rendezvous.
    pub key: Arc<SecretKey>,
    desk: Arc<Mutex<Desk>>,
    runtime: Runtime,
}

impl Rogue {
    /// Creates a world of agents that meet at such a rendezvous. `None` if this machine cannot.
    #[track_caller]
    pub fn world(name: &str) -> Option<(Agents, Rogue)> {
        Self::world_speaking(name, VERSIONS)
    }

    /// The same, with a rendezvous that speaks these versions of the protocol.
    #[track_caller]
    pub fn world_speaking(name: &str, versions: &'static [u16]) -> Option<(Agents, Rogue)> {
        let mut rogue = None;
        let world = Agents::served_by(name, |router| {
            let started = Rogue::start(router, versions);
            let url = started.url.to_string();
            rogue = Some(started);
            url
        })?;
        Some((world, rogue.expect("it was started")))
    }

    /// Starts it on a host, which has its address.
    #[track_caller]
    pub fn start(host: &Host, versions: &'static [u16]) -> Rogue {
        let (network_key, key) = (secret(), Arc::new(secret()));
        let url =
            Pinned { host: ADDRESS.to_owned(), port: PORT, rendezvous: key.public(), network: network_key.public() };
        let network = Network {
            network: network_key.public(),
            sequence: now().unix,
            issued: now().unix,
            name: "lab".to_owned(),
            pool: Pool::new(POOL, 16).expect("a pool"),
            rendezvous: vec![Rendezvous { url: url.url(), key: key.public() }],
            is_closed: false,
        };
        let network = Signed::sign(network, &network_key).expect("a good network");
        let registry = Registry::new(Config {
            network: network.clone(),
            key: SecretKey::from_bytes(&key.to_bytes()),
            relay: None,
            limits: Limits::default(),
            seed: random(),
        });
        let desk = Arc::new(Mutex::new(Desk::new(registry)));
        let runtime = runtime_on(host);
        let address: IpAddr = ADDRESS.parse().expect("an address");
        let listener = runtime.block_on(runtime.spawn(TcpListener::bind(SocketAddr::new(address, PORT))));
        let listener = listener.expect("no panic").expect("the host has the address, and the port is free");
        let server =
            connection::Server { network: url.network, key: Arc::clone(&key), versions, desk: Arc::clone(&desk) };
        runtime.spawn(server.run(listener));
        Rogue { url, network, network_key, key, desk, runtime }
    }

    /// From now on, an agent is told what `filter` makes of a message of the registry.
    pub fn filter(&self, filter: impl FnMut(Told<'_>) -> Vec<FromServer> + Send + 'static) {
        self.desk().filter = Box::new(filter);
    }

    /// From now on, agents are told what the registry says.
    pub fn be_honest(&self) {
        self.filter(|told| vec![told.message]);
        self.desk().forgery = None;
    }

    /// From now on, an agent that connects is shown what `auth` makes of the hash of its handshake, in place of the auth that
    /// belongs to it.
    pub fn greet_with(&self, auth: impl Fn([u8; 32]) -> Vec<u8> + Send + Sync + 'static) {
        self.desk().forgery = Some(Arc::new(auth));
    }

    /// Tells an agent something. It must be connected.
    #[track_caller]
    pub fn push(&self, to: &PublicKey, push: Push) {
        assert!(self.desk().tell(to, FromServer::Push(push)), "{to} is not connected");
    }

    /// Shows an agent an object as a record that has changed.
    #[track_caller]
    pub fn show(&self, to: &PublicKey, record: impl Into<Vec<u8>>) {
        self.push(to, Push::Record { record: record.into().into() });
    }

    /// Makes an agent connect again, a second from now.
    #[track_caller]
    pub fn bounce(&self, agent: &PublicKey) {
        self.push(agent, Push::Reconnect { wait: 0 });
    }

    /// What an agent has said, from the first call on.
    pub fn calls(&self, agent: &PublicKey) -> Vec<Call> {
        let desk = self.desk();
        desk.calls.iter().filter(|(from, _)| from == agent).map(|(_, call)| call.clone()).collect()
    }

    /// What the registry has told an agent, from the first message on, before the filter.
    pub fn told(&self, agent: &PublicKey) -> Vec<FromServer> {
        let desk = self.desk();
        desk.told.iter().filter(|(to, _)| to == agent).map(|(_, message)| message.clone()).collect()
    }

    /// The records that an agent has registered, or has tried to, the newest last.
    pub fn records(&self, agent: &PublicKey) -> Vec<Signed<Record>> {
        let record = |call: Call| match call.verb {
            Verb::Register { record } => Signed::open(&record).ok(),
            _ => None,
        };
        self.calls(agent).into_iter().filter_map(record).collect()
    }

    /// How many connections have been established.
    pub fn arrivals(&self) -> usize {
        self.desk().auths.len()
    }

    /// What an agent has signed for its newest connection.
    pub fn auth_of(&self, agent: &PublicKey) -> Option<Signed<Auth>> {
        self.desk().auths.iter().rev().find(|auth| auth.identity == *agent).cloned()
    }

    /// How often agents were shown a wrong auth, and how many messages they have sent to it in all.
    pub fn deceived(&self) -> (usize, usize) {
        self.desk().deceived
    }

    /// Connects as an agent would, and returns the auth that this rendezvous has signed for that connection.
    #[track_caller]
    pub fn auth_of_a_different_connection(&self) -> Signed<Auth> {
        let target = Target { rendezvous: self.url.clone(), identity: Arc::new(secret()), epoch: 0, ca_file: None };
        let connection = self.runtime.spawn(async move { connect(&target).await.map(|connection| connection.peer) });
        self.runtime.block_on(connection).expect("no panic").expect("an honest rendezvous")
    }

    /// Creates an agent inside the test process, which is registered under this name.
    #[track_caller]
    pub fn join(&self, name: &str) -> Outsider {
        Outsider::join(Arc::clone(&self.desk), self.url.network, name)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no filter panics")
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        // The runtime ends all tasks. Agents see their connections closed.
        *self.desk() = Desk::closed();
    }
}

/// A runtime whose threads are on a host.
pub fn runtime_on(host: &Host) -> Runtime {
    runtime_where(host, || ())
}

/// A runtime whose threads are on a host, and begin with `prepare`.
pub fn runtime_where(host: &Host, prepare: impl Fn() + Send + Sync + 'static) -> Runtime {
    let namespace = Arc::new(File::open(format!("/run/netns/{}", host.namespace())).expect("the host's namespace"));
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
            prepare();
        })
        .build()
        .expect("threads")
}

/// The time, on both clocks.
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let monotonic = Duration::new(boot.tv_sec.unsigned_abs(), boot.tv_nsec.unsigned_abs().try_into().unwrap_or(0));
    Now { unix: unix.as_millis().try_into().unwrap_or(u64::MAX), monotonic }
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    overlay_os::random::fill(&mut bytes).expect("randomness");
    bytes
}

pub fn secret() -> SecretKey {
    SecretKey::from_bytes(&random())
}

/// The same answer with a different reply.
pub fn answered(message: &FromServer, reply: Reply) -> Vec<FromServer> {
    match message {
        FromServer::Answer(answer) => vec![FromServer::Answer(Answer { id: answer.id, reply })],
        FromServer::Push(_) => Vec::new(),
    }
}
