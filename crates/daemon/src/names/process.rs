//! The process that answers DNS questions on the virtual IPs.
//!
//! It is this program once more, started by the daemon with a socket as its standard input. It never had a key: it was
//! executed anew and gets names and sockets through that socket. Before it reads the first question it gives up every
//! privilege, every file and the right to open anything. It ends when the daemon does.
//!
//! Only this host is answered. A stranger, which is a peer, is refused over UDP and hung up on over TCP.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use overlay_os::{confine, descriptors};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::inherited::{begin, failed};
use super::message::{Counts, Lines, Order, Report, line};
use super::reply::{Asked, Carrier, Heard, read};
use super::shadow::Owner;
use super::zone::{Answer, Zone};
use crate::failure::Failure;

/// How many questions may wait for the daemon's word at once.
const MAX_WAITING: usize = 64;
/// How many TCP connections may be open at once.
const MAX_CONNECTIONS: usize = 32;
/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(5);
/// How long the daemon may take to say whose a short name is. Resolvers wait longer.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long it is remembered what the daemon has said of a name.
const REMEMBERED: Duration = Duration::from_secs(30);
/// The same if it could not say.
const NOT_KNOWN: Duration = Duration::from_secs(2);
/// How often the daemon is told what was answered.
const TELL: Duration = Duration::from_secs(1);

/// Serves until the daemon ends.
///
/// # Errors
/// The standard input is not the daemon's socket, or this process cannot be confined.
pub fn run() -> Result<(), Failure> {
    let stream = begin()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("the process cannot start"))?;
    // Code that is smuggled in here reaches names and nothing else.
    if let Err(error) = confine::open_nothing() {
        tracing::debug!(%error, "this kernel does not restrict files and system calls");
    }
    runtime.block_on(serve(stream)).map_err(failed("the daemon's socket failed"))
}

async fn serve(stream: std::os::unix::net::UnixStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let (reporting, mut reports) = mpsc::channel(MAX_WAITING);
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        reporting,
        waiting: Semaphore::new(MAX_WAITING),
        connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    });
    let mut orders = Orders::default();
    let mut serving: HashMap<IpAddr, [JoinHandle<()>; 2]> = HashMap::new();
    let (mut told, mut tick) = (Counts::default(), tokio::time::interval(TELL));
    loop {
        tokio::select! {
            more = orders.receive(&stream) => if !more? { return Ok(()) },
            Some(report) = reports.recv() => write(&stream, &line(&report)).await?,
            _ = tick.tick() => {
                let counts = shared.state().counts;
                if counts != told {
                    told = counts;
                    write(&stream, &line(&Report::Counts(counts))).await?;
                }
            }
        }
        while let Some(order) = orders.next()? {
            match order {
                Order::Serve(address) => {
                    let (Some(udp), Some(tcp)) = (orders.sockets.pop_front(), orders.sockets.pop_front()) else {
                        return Err(io::ErrorKind::InvalidData.into());
                    };
                    let tasks = listen(udp, tcp, &shared)?;
                    serving.insert(address, tasks).into_iter().flatten().for_each(|task| task.abort());
                }
                other => shared.obey(other),
            }
        }
        // Sockets of addresses that are no longer ours.
        let ours = shared.state().ours.clone();
        serving.retain(|address, tasks| {
            let is_ours = ours.contains(address);
            if !is_ours {
                tasks.iter().for_each(JoinHandle::abort);
            }
            is_ours
        });
    }
}

/// What the daemon has sent and is not done yet.
#[derive(Default)]
struct Orders {
    lines: Lines,
    sockets: VecDeque<OwnedFd>,
}

impl Orders {
    /// Returns false at the end of the daemon.
    async fn receive(&mut self, stream: &UnixStream) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        let (len, sockets) = stream.async_io(Interest::READABLE, || descriptors::receive(stream, &mut bytes)).await?;
        self.sockets.extend(sockets);
        if !self.lines.add(&bytes[..len]) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(len > 0)
    }

    fn next(&mut self) -> io::Result<Option<Order>> {
        self.lines.next().transpose().map_err(io::Error::from)
    }
}

async fn write(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What all sockets answer from.
struct Shared {
    state: Mutex<State>,
    reporting: mpsc::Sender<Report>,
    waiting: Semaphore,
    connections: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    zone: Option<Zone>,
    /// Our virtual IPs, from which this host asks.
    ours: Vec<IpAddr>,
    counts: Counts,
    /// Names alone, until when it is remembered whether they are somebody else's.
    owners: HashMap<String, (Owner, Instant)>,
    /// The questions that wait for the daemon's word about a name.
    waiting: HashMap<String, Vec<oneshot::Sender<Owner>>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obey(&self, order: Order) {
        let mut state = self.state();
        match order {
            Order::Begin(origin) => {
                state.ours.clone_from(&origin.me.addresses);
                match &mut state.zone {
                    Some(zone) if zone.is_of(&origin.domain) => zone.set_origin(origin),
                    zone => *zone = Zone::new(origin),
                }
            }
            Order::Put(agent) => {
                if let Some(zone) = &mut state.zone {
                    zone.put(agent);
                }
            }
            Order::Remove(name) => {
                if let Some(zone) = &mut state.zone {
                    zone.remove(&name);
                }
            }
            Order::Short { name, owner } => {
                let now = Instant::now();
                state.owners.retain(|_, (_, until)| *until > now);
                for waiting in state.waiting.remove(&name).into_iter().flatten() {
                    let _ = waiting.send(owner);
                }
                let remembered = if owner == Owner::Unknown { NOT_KNOWN } else { REMEMBERED };
                state.owners.insert(name, (owner, now + remembered));
            }
            Order::Serve(_) => {}
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.state().counts);
    }

    /// Whether a question comes from this host.
    fn is_ours(&self, from: SocketAddr) -> bool {
        let ip = from.ip().to_canonical();
        ip.is_loopback() || self.state().ours.contains(&ip)
    }

    /// The answer to bytes that came from this host. `None`: silence.
    async fn answer(&self, bytes: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        let asked = match read(bytes, carrier) {
            Heard::Question(asked) => asked,
            Heard::Malformed(reply) => {
                self.count(|counts| counts.malformed += 1);
                return reply;
            }
        };
        let short = self.state().zone.as_ref().and_then(|zone| zone.short_name(&asked.question));
        let is_shadowed = match short {
            Some(name) => self.owner(name).await? != Owner::Free,
            None => false,
        };
        Some(self.reply(&asked, is_shadowed))
    }

    fn reply(&self, asked: &Asked, is_shadowed: bool) -> Vec<u8> {
        let mut state = self.state();
        let answer = match &state.zone {
            Some(zone) => zone.answer(&asked.question, is_shadowed),
            None => Answer::of(ResponseCode::Refused),
        };
        let counts = &mut state.counts;
        match (answer.is_ours, answer.answers.is_empty()) {
            (false, _) => counts.foreign += 1,
            (true, true) => counts.negative += 1,
            (true, false) => counts.answered += 1,
        }
        asked.reply(answer)
    }

    /// Whether a name alone belongs to a different host here. `None`: too many wait to know.
    async fn owner(&self, name: String) -> Option<Owner> {
        let known =
            self.state().owners.get(&name).filter(|(_, until)| *until > Instant::now()).map(|(owner, _)| *owner);
        if known.is_some() {
            return known;
        }
        let Ok(_permit) = self.waiting.try_acquire() else {
            self.count(|counts| counts.overrun += 1);
            return None;
        };
        let (telling, told) = oneshot::channel();
        let is_first = {
            let mut state = self.state();
            let waiting = state.waiting.entry(name.clone()).or_default();
            waiting.push(telling);
            waiting.len() == 1
        };
        if is_first {
            let _ = self.reporting.send(Report::Short(name.clone())).await;
        }
        match timeout(PATIENCE, told).await {
            Ok(Ok(owner)) => Some(owner),
            // It may be somebody else's.
            _ => {
                self.state().waiting.remove(&name);
                Some(Owner::Unknown)
            }
        }
    }
}

/// Serves both sockets of an address.
fn listen(udp: OwnedFd, tcp: OwnedFd, shared: &Arc<Shared>) -> io::Result<[JoinHandle<()>; 2]> {
    let (udp, tcp) = (StdUdpSocket::from(udp), StdTcpListener::from(tcp));
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
    Ok([tokio::spawn(answer_datagrams(udp, Arc::clone(shared))), tokio::spawn(accept(tcp, Arc::clone(shared)))])
}

async fn answer_datagrams(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut bytes = [0; 4096];
    loop {
        // An error here is about an earlier answer, such as "port unreachable".
        let Ok((len, from)) = socket.recv_from(&mut bytes).await else { continue };
        let question = bytes[..len].to_vec();
        if !shared.is_ours(from) {
            shared.count(|counts| counts.stranger += 1);
            if let Heard::Question(asked) = read(&question, Carrier::Udp) {
                let _ = socket.try_send_to(&asked.reply(Answer::of(ResponseCode::Refused)), from);
            }
            continue;
        }
        let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
        tokio::spawn(async move {
            if let Some(reply) = shared.answer(&question, Carrier::Udp).await {
                let _ = socket.send_to(&reply, from).await;
            }
        });
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, from)) = listener.accept().await else { continue };
        if !shared.is_ours(from) {
            shared.count(|counts| counts.stranger += 1);
            continue;
        }
        let Ok(permit) = Arc::clone(&shared.connections).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = answer_stream(stream, &shared).await;
            drop(permit);
        });
    }
}

/// Answers the questions of one connection, each with its length in front (RFC 1035 section 4.2.2).
async fn answer_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let len = timeout(IDLE, stream.read_u16()).await??;
        let mut question = vec![0; usize::from(len)];
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let Some(reply) = shared.answer(&question, Carrier::Tcp).await else { return Ok(()) };
        let len = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes()[..], &reply].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
