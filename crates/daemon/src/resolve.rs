//! Resolves endpoints that are configured by host name, patiently.
//!
//! A name that cannot be resolved never stops `overlay up`: it is queried again after 1 s, 2 s, 4 s and so on, up to
//! every 30 s. A name that was resolved is queried again every 30 s until a handshake succeeds, because the address
//! behind it may have moved (what WireGuard's reresolve-dns.sh does from cron). Handshakes that begin to fail start
//! this again. When a peer stops answering, its name is queried at once, whatever the TTL of the last answer, and again
//! after 5 s, 10 s, 20 s and then every 30 s, because the name often moves later than the server.
//!
//! Names are resolved with getaddrinfo, so `/etc/hosts`, mDNS and the order of RFC 6724 apply as everywhere on the
//! host. All answers in an address family for which this host has a socket count: the node calls one after another
//! (`resolve/order`).
//!
//! A single task does all this, with a bounded number of lookups at once. A lookup occupies a thread of the runtime's
//! blocking pool and cannot be cancelled, so the runtime must be shut down in the background.

mod order;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overlay_core::PeerKey;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// After the first look-up that failed; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait between two lookups of one name, and the wait for a handshake.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The wait after a lookup for a peer that stopped answering. It doubles up to [`LONGEST_WAIT`]. Such lookups are never
/// closer together.
const FIRST_AGAIN: Duration = Duration::from_secs(5);
/// How many lookups may be in progress at once. Each takes a thread, and getaddrinfo may need many seconds.
const MAX_LOOKUPS: usize = 8;

/// An endpoint given by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The peer that the endpoint belongs to.
    pub peer: PeerKey,
    /// The host name.
    pub host: String,
    /// The UDP port.
    pub port: u16,
}

/// What a look-up brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The peer that the endpoint belongs to.
    pub peer: PeerKey,
    /// At least one address and at most [`overlay_core::Node::MAX_CANDIDATES`], best first.
    pub addresses: Vec<SocketAddr>,
}

/// The address families for which this host has a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    fn contains(self, address: &SocketAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// The handle of the task. Dropping it ends the task.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Starts resolving `peers` on the current runtime. New answers are sent to `answers`. While the peer has no handshake,
/// repeated answers are sent too. The task ends when the receiver is dropped.
pub fn spawn(peers: Vec<NamedEndpoint>, families: Families, answers: mpsc::Sender<Answer>) -> Resolver {
    spawn_with(peers, families, answers, getaddrinfo)
}

async fn getaddrinfo(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

fn spawn_with<L, F>(
    peers: Vec<NamedEndpoint>,
    families: Families,
    answers: mpsc::Sender<Answer>,
    look_up: L,
) -> Resolver
where
    L: Fn(String, u16) -> F + Send + 'static,
    F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
{
    let shared = Arc::new(Shared::default());
    shared.names().replace(peers, Instant::now());
    let task = tokio::spawn(run(Arc::clone(&shared), families, answers, look_up));
    Resolver { shared, task }
}

impl Resolver {
    /// Replaces the set of named endpoints. Unchanged ones are not queried again because of this.
    pub fn set_peers(&self, peers: Vec<NamedEndpoint>) {
        self.shared.names().replace(peers, Instant::now());
        self.shared.changed.notify_one();
    }

    /// Records a completed handshake with the peer: its address is right. Keys of other peers are ignored.
    pub fn on_handshake_completed(&self, peer: PeerKey) {
        if let Some(name) = self.shared.names().0.get_mut(&peer) {
            name.due = None;
            name.wants_handshake = false;
            name.pause = LONGEST_WAIT;
        }
    }

    /// Records that the peer stopped answering, or was heard from again. Keys of other peers are ignored.
    pub fn on_answering(&self, peer: PeerKey, answers: bool) {
        if answers {
            return self.on_handshake_completed(peer);
        }
        if let Some(name) = self.shared.names().0.get_mut(&peer) {
            name.on_silence(Instant::now());
        }
        self.shared.changed.notify_one();
    }

    /// Records that handshakes with the peer go unanswered: its address may have moved. Keys of other peers are ignored.
    pub fn on_handshake_failed(&self, peer: PeerKey) {
        if let Some(name) = self.shared.names().0.get_mut(&peer) {
            // A name that waits for its retry keeps its back-off.
            if !name.wants_handshake {
                name.wants_handshake = true;
                name.due = Some(Instant::now());
            }
        }
        self.shared.changed.notify_one();
    }
}

/// Waits up to `patience` for the addresses of all `peers`, and returns those that arrived. Later answers stay in the channel.
pub async fn first_answers(
    peers: &[NamedEndpoint],
    answers: &mut mpsc::Receiver<Answer>,
    patience: Duration,
) -> HashMap<PeerKey, Vec<SocketAddr>> {
    let mut found = HashMap::new();
    let all = async {
        while found.len() < peers.len() {
            let Some(Answer { peer, addresses }) = answers.recv().await else { return };
            found.insert(peer, addresses);
        }
    };
    // Whether all answers came or the time ran out, `found` holds what there is.
    let _ = tokio::time::timeout(patience, all).await;
    found
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<Names>,
    changed: Notify,
}

impl Shared {
    /// Locks the names. Never held across an await. A panic cannot leave them half updated.
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run<L, F>(shared: Arc<Shared>, families: Families, answers: mpsc::Sender<Answer>, look_up: L)
where
    L: Fn(String, u16) -> F,
    F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
{
    let mut lookups = JoinSet::new();
    loop {
        let room = MAX_LOOKUPS - lookups.len();
        let (due, next) = shared.names().take_due(room, Instant::now());
        for endpoint in due {
            let answer = look_up(endpoint.host.clone(), endpoint.port);
            lookups.spawn(async move { (endpoint, answer.await) });
        }
        // While all places are taken, wait only for a lookup to end.
        let alarm = next.filter(|_| lookups.len() < MAX_LOOKUPS);
        let answered = tokio::select! {
            () = shared.changed.notified() => None,
            () = tokio::time::sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => None,
            Some(answered) = lookups.join_next() => Some(answered),
            () = answers.closed() => return,
        };
        // If a lookup panicked, its name keeps the retry that was set when the lookup started.
        let Some(Ok((endpoint, result))) = answered else { continue };
        let answer = shared.names().on_answer(&endpoint, result, families, Instant::now());
        if let Some(answer) = answer
            && answers.send(answer).await.is_err()
        {
            return;
        }
    }
}

/// The state of each name. There are at most as many names as configured peers.
#[derive(Debug, Default)]
struct Names(HashMap<PeerKey, Name>);

#[derive(Debug)]
struct Name {
    endpoint: NamedEndpoint,
    /// When to query next, or `None` if a handshake must fail first.
    due: Option<Instant>,
    /// How many lookups have failed in a row.
    failures: u32,
    wants_handshake: bool,
    /// How long after an answer the name is queried again, while no handshake succeeds.
    pause: Duration,
    /// When the name was last queried.
    asked: Option<Instant>,
}

impl Name {
    fn new(endpoint: NamedEndpoint, now: Instant) -> Self {
        let due = Some(now);
        Self { endpoint, due, failures: 0, wants_handshake: true, pause: LONGEST_WAIT, asked: None }
    }

    /// Records that the peer stopped answering. A name that cannot be resolved keeps its back-off.
    fn on_silence(&mut self, now: Instant) {
        if self.failures > 0 && self.wants_handshake {
            return;
        }
        let earliest = self.asked.map_or(now, |at| now.max(at + FIRST_AGAIN));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
        self.wants_handshake = true;
        self.pause = FIRST_AGAIN;
    }
}

impl Names {
    fn replace(&mut self, endpoints: Vec<NamedEndpoint>, now: Instant) {
        let mut old = std::mem::take(&mut self.0);
        for endpoint in endpoints {
            let name = match old.remove(&endpoint.peer) {
                Some(name) if name.endpoint == endpoint => name,
                _ => Name::new(endpoint, now),
            };
            self.0.insert(name.endpoint.peer, name);
        }
    }

    /// Takes up to `room` names to query now. Also returns when the next one is due.
    fn take_due(&mut self, room: usize, now: Instant) -> (Vec<NamedEndpoint>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for name in self.0.values_mut() {
            let Some(at) = name.due else { continue };
            if at <= now && due.len() < room {
                due.push(name.endpoint.clone());
                // Replaced by the answer. Long enough that in practice no name is queried twice at once.
                name.due = Some(now + 4 * LONGEST_WAIT);
                name.asked = Some(now);
            }
            next = [next, name.due].into_iter().flatten().min();
        }
        (due, next)
    }

    /// Applies the result of a lookup. Returns the answer to report, if any.
    fn on_answer(
        &mut self,
        asked: &NamedEndpoint,
        result: io::Result<Vec<SocketAddr>>,
        families: Families,
        now: Instant,
    ) -> Option<Answer> {
        // The config may have changed meanwhile.
        let name = self.0.get_mut(&asked.peer).filter(|name| name.endpoint == *asked)?;
        let addresses = match result {
            Ok(addresses) => order::usable(&addresses, families),
            Err(error) => {
                tracing::debug!(peer = ?asked.peer, host = asked.host, %error, "the name cannot be resolved");
                Vec::new()
            }
        };
        if addresses.is_empty() {
            if name.failures == 0 {
                let host = &asked.host;
                tracing::info!(
                    "the host name `{host}` has no usable address yet; overlay keeps asking, see overlay status"
                );
            }
            let wait = FIRST_RETRY.saturating_mul(1 << name.failures.min(5)).min(LONGEST_WAIT);
            name.failures = name.failures.saturating_add(1);
            name.due = name.wants_handshake.then_some(now + wait);
            return None;
        }
        tracing::debug!(peer = ?asked.peer, host = asked.host, ?addresses, "resolved");
        name.failures = 0;
        name.due = name.wants_handshake.then_some(now + name.pause);
        name.pause = (2 * name.pause).min(LONGEST_WAIT);
        Some(Answer { peer: asked.peer, addresses })
    }
}

#[cfg(test)]
mod tests;
