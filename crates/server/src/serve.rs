//! The life of a rendezvous: open the state folder, listen, accept, end. `handover` says how one follows the other.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use overlay_rendezvous::channel::Pinned;
use overlay_rendezvous::protocol::RelayAt;
use overlay_rendezvous::registry::{self, ConnectionId};
use overlay_rendezvous::relay::{self, Members};
use overlay_wire::signed::{Network, Pool, PublicKey, SecretKey, Signed};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::access::Access;
use crate::addresses::Addresses;
use crate::clock::now;
use crate::connection::{self, Shared};
use crate::desk::{self, MAX_REPORTS, Report};
use crate::failure::{Kind, ServeError};
use crate::handover::{Predecessor, RELEASE_PATIENCE, Sockets, Successor};
use crate::http;
use crate::kept::{self, Kept};
use crate::limits::Limits;
use crate::listening::{self, accept, shown_address};
use crate::metrics::{Stats, text};
use crate::network;
use crate::operator::{self, Audit};
use crate::process::prepare;
use crate::relay::Open;
use crate::state::{Identity, State, Wanted, check_network, random_pool, relay_key};
use crate::store_at::StoreAt;
use crate::tls::{self, CertificateFiles};

/// The most connections of all agents together.
const MAX_CONNECTIONS: usize = 50_000;
/// How long connections may take to say goodbye at the end.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What a rendezvous is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the network.
    pub network: String,
    /// Where to listen for agents. Port 0: any free one.
    pub listen: SocketAddr,
    /// The folder below which all rendezvous keep their state.
    pub state_dir: PathBuf,
    /// The IPv4 addresses of a new network. `None`: a random /16.
    pub pool: Option<Pool>,
    /// Whether only agents with a token may join. `None`: as it was, and open at first.
    pub is_closed: Option<bool>,
    /// Where agents find it: `https://HOST:PORT`. `None`: where the network object says, and else where it listens.
    pub url: Option<String>,
    /// A network object that was signed elsewhere. `None`: the one that is known, or a new one.
    pub network_file: Option<PathBuf>,
    /// Where to serve metrics and health. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// The operator's certificate. `None`: one of our own.
    pub certificate: Option<CertificateFiles>,
    /// Where the registry is kept. `None`: where it was kept before, and in a file at first.
    pub store: Option<StoreAt>,
    /// What a cluster wants to see and to show.
    pub access: Access,
    /// How much agents may use.
    pub limits: Limits,
    /// Whether to take the place of a rendezvous that runs. If none does, this is a start like any other.
    pub is_replacing: bool,
    /// Whether and where to relay.
    pub relay: Relaying,
}

/// Whether and where a rendezvous relays for its members.
#[derive(Clone, Copy, Debug)]
pub enum Relaying {
    /// It does not.
    Off,
    /// It does.
    On {
        /// The UDP address. `None`: that of the rendezvous.
        listen: Option<SocketAddr>,
        /// How much it takes.
        limits: relay::Limits,
    },
}

impl Default for Relaying {
    fn default() -> Self {
        Self::On { listen: None, limits: relay::Limits::default() }
    }
}

/// What a rendezvous is, once its state is open.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The key of the rendezvous.
    pub rendezvous: PublicKey,
    /// The network object.
    pub network: Signed<Network>,
    /// The URL that agents are given.
    pub url: Pinned,
    /// Its counters.
    pub stats: Arc<Stats>,
    /// The key of its relay, and where agents find that. `None`: it does not relay.
    pub relay: Option<(PublicKey, SocketAddr)>,
}

/// Runs a rendezvous until `end` completes, or until a successor serves in its place. `ready` is called once agents can
/// connect.
///
/// # Errors
/// What keeps it from starting, or that the store has failed.
pub async fn serve(
    options: Options,
    ready: impl FnOnce(&Setup),
    end: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    check_network(&options.network)?;
    prepare();
    let object = options.network_file.as_deref().map(network::open).transpose()?;
    let mut end = std::pin::pin!(end);
    let (mut life, sockets) = match predecessor(&options)? {
        // Told to end meanwhile, we leave the old one serving.
        Some((predecessor, sockets)) => tokio::select! {
            replaced = replace(&options, object.as_ref(), predecessor, sockets) => replaced?,
            () = end.as_mut() => return Ok(()),
        },
        None => {
            let state = State::open(&options.state_dir, &options.network)?;
            let sockets = Arc::new(Sockets::open(options.listen, options.metrics, Vec::new())?);
            (Life::begin(&options, object.as_ref(), state, sockets.clone()).await?, sockets)
        }
    };
    ready(&life.setup);
    // What they ask for is on disk by now. A successor that fails may have written something newer.
    // Where the key is elsewhere, the object says where we are.
    let url = life.state.can_sign()?.then(|| life.setup.url.url());
    let options = Options { url, pool: None, is_closed: None, ..options };
    loop {
        match life.run(end.as_mut()).await? {
            Ended::Told => return Ok(()),
            Ended::Outdated => {
                tracing::info!("a different process has a newer network object; this one goes on with it")
            }
            Ended::Replaced(successor) => {
                let serves = tokio::select! {
                    serves = successor.serves() => serves,
                    () = end.as_mut() => return Ok(()),
                };
                if serves {
                    tracing::info!("a new process serves in our place");
                    return Ok(());
                }
                tracing::error!("the new process has failed; we go on");
            }
        }
        let state = State::open_within(RELEASE_PATIENCE, &options.state_dir, &options.network).await?;
        life = Life::begin(&options, None, state, sockets.clone()).await?;
    }
}

/// The process that runs, with its sockets, if we are to replace it and there is one.
fn predecessor(options: &Options) -> Result<Option<(Predecessor, Vec<std::net::TcpListener>)>, ServeError> {
    if !options.is_replacing {
        return Ok(None);
    }
    match operator::client::Client::new(&options.state_dir, &options.network).take_over() {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == Kind::NotRunning => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the place of a process that serves. Until it is told to go, it serves on whatever happens here.
async fn replace(
    options: &Options,
    object: Option<&Signed<Network>>,
    mut predecessor: Predecessor,
    sockets: Vec<std::net::TcpListener>,
) -> Result<(Life, Arc<Sockets>), ServeError> {
    let failed = |error: io::Error| {
        ServeError::new(Kind::Other, "the rendezvous that runs cannot be replaced").with_cause(error)
    };
    let sockets = Arc::new(Sockets::open(options.listen, options.metrics, sockets)?);
    let state = State::look(&options.state_dir, &options.network)?;
    let (_, listens) = listening::acceptor(&sockets.agents)?;
    state.plan(&wanted(options, object, &shown_url(listens)), now())?;
    tls::check(options.certificate.as_ref(), &state.folder)?;
    predecessor.go().map_err(failed)?;
    let state = State::open_within(RELEASE_PATIENCE, &options.state_dir, &options.network).await?;
    let life = Life::begin(options, object, state, sockets.clone()).await?;
    // It may have ended already: then somebody else is replacing it, too, and has come second.
    let _ = predecessor.relieve();
    Ok((life, sockets))
}

/// Why a life has ended.
enum Ended {
    Told,
    /// A successor is to serve: lock and store are free, and all agents have been told.
    Replaced(Successor),
    /// A different process over the same store has a newer network object.
    Outdated,
}

/// A rendezvous that has lock and store.
struct Life {
    setup: Setup,
    state: State,
    listener: TcpListener,
    shared: Arc<Shared>,
    ending: kept::Ending,
    desk: JoinHandle<Result<(), desk::StoreFailed>>,
    operator: operator::Door,
    /// Metrics and the relay.
    beside: JoinSet<()>,
    successors: mpsc::Receiver<Successor>,
    /// `None`: no other process has a network object for this one.
    outdated: Option<oneshot::Receiver<()>>,
}

impl Life {
    /// Reads what is kept, and serves metrics and the operator. Nobody is accepted yet.
    async fn begin(
        options: &Options,
        object: Option<&Signed<Network>>,
        state: State,
        sockets: Arc<Sockets>,
    ) -> Result<Self, ServeError> {
        let (listener, address) = listening::acceptor(&sockets.agents)?;
        let stats = Arc::<Stats>::default();
        let reached =
            kept::reach((options.store.as_ref(), &options.access), &options.network, &state, &stats.store).await?;
        if let Some(newest) = reached.network().await? {
            state.adopt(&newest)?;
        }
        let identity = identity(&wanted(options, object, &shown_url(address)), &state).await?;
        let tls = tls::acceptor(options.certificate.as_ref(), &state.folder, options.listen)?;
        let (rendezvous, network) = (identity.key.public(), identity.network.network);
        let url: Pinned = format!("{}#{rendezvous}.{network}", identity.url).parse().map_err(|reason| {
            ServeError::new(Kind::Config, format!("`{}` is not the URL of a rendezvous", identity.url))
                .with_cause(reason)
        })?;
        let relay = open_relay(options, &state, (&identity, address), &stats)?;
        let setup = Setup {
            rendezvous: url.rendezvous,
            network: identity.network,
            url,
            stats: stats.clone(),
            relay: relay.as_ref().map(|(key, relay)| {
                let address = relay.address();
                (*key, SocketAddr::new(shown_address(address.ip()), address.port()))
            }),
        };
        let mut beside = JoinSet::new();
        if let Some((_, relay)) = relay {
            beside.spawn(relay.start()?.forever());
        }
        if let Some(socket) = &sockets.metrics {
            let (listener, address) = listening::acceptor(socket)?;
            tracing::info!(%address, "serving /metrics and /health");
            let stats = stats.clone();
            beside.spawn(http::serve(listener, move || text(&stats)));
        }
        let (reports, inbox) = mpsc::channel(MAX_REPORTS);
        let (successors, announced) = mpsc::channel(1);
        let mut seed = [0; 32];
        overlay_os::random::fill(&mut seed)
            .map_err(|error| ServeError::new(Kind::Other, "the kernel gives no randomness").with_cause(error))?;
        let config = registry::Config {
            network: setup.network.clone(),
            key: SecretKey::from_bytes(&identity.key.to_bytes()),
            relay: told_relay(options, setup.relay),
            limits: registry::Limits::default(),
            seed,
        };
        let said = format!("{} {address}", setup.url.url());
        let Kept { at, registry, submitter, snapshots, following, outdated, ending } =
            reached.open(&state, config, said).await?;
        let desk_of_operator = operator::Desk {
            folder: state.folder.clone(),
            audit: Audit::open(state.folder.path())
                .map_err(|error| ServeError::of_trust("use the state folder", state.folder.path(), error))?,
            network: options.network.as_str().into(),
            store: at,
            health: setup.stats.store.clone(),
            snapshots,
            reports: reports.clone(),
            sockets,
            successors,
        };
        let operator = operator::Door::open(&state.folder, desk_of_operator)?;
        let desk = tokio::spawn(desk::run(registry, (submitter, following), inbox));
        let shared = Arc::new(Shared {
            tls,
            network: setup.network.network,
            key: identity.key,
            limits: options.limits,
            stats,
            reports,
        });
        tracing::info!(%address, network = options.network, "the rendezvous is ready");
        Ok(Self { setup, state, listener, shared, ending, desk, operator, beside, successors: announced, outdated })
    }

    /// Serves until `end` completes, or until this life is over for a different reason.
    async fn run(self, end: impl Future<Output = ()>) -> Result<Ended, ServeError> {
        let Self { state, listener, shared, ending, mut desk, operator, mut beside, mut successors, outdated, .. } =
            self;
        let mut connections = JoinSet::new();
        let ended = tokio::select! {
            () = accept_all(&listener, &shared, &mut connections) => Ended::Told,
            () = end => Ended::Told,
            successor = successors.recv() => successor.map_or(Ended::Told, Ended::Replaced),
            () = told(outdated) => Ended::Outdated,
            ended = &mut desk => {
                let cause = match ended {
                    // The last submitter went with the task, so the thread ends.
                    Ok(_) => ending.join().err().unwrap_or_else(|| "it ended".to_owned()),
                    Err(error) => error.to_string(),
                };
                return Err(ServeError::new(Kind::Other, "the registry has failed").with_cause(cause));
            }
        };
        drop(listener);
        let last_words = async {
            let _ = shared.reports.send(Report::Shutdown).await;
            let _ = (&mut desk).await;
        };
        if tokio::time::timeout(END_PATIENCE, last_words).await.is_err() {
            // It has too much to do, and it holds the store.
            desk.abort();
        }
        // The operator's door reads the store, too. What was ordered is answered.
        let _ = tokio::time::timeout(END_PATIENCE, operator.end()).await;
        beside.shutdown().await;
        // Nobody listens on it any more. A start replaces what a killed rendezvous has left.
        let _ = state.folder.remove(operator::SOCKET);
        // Everything that waits is committed first.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(|| ending.join()).await {
            return Err(ServeError::new(Kind::Other, "the store has failed at the end").with_cause(error));
        }
        drop(state);
        let goodbyes = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(END_PATIENCE, goodbyes).await;
        Ok(ended)
    }
}

/// Completes when it is said, and never if it is not.
async fn told(outdated: Option<oneshot::Receiver<()>>) {
    let is_said = match outdated {
        Some(outdated) => outdated.await.is_ok(),
        None => false,
    };
    if !is_said {
        std::future::pending::<()>().await;
    }
}

/// Opens the relay, if there is to be one. It serves the members for whom a rendezvous of this network vouches.
fn open_relay(
    options: &Options,
    state: &State,
    (identity, listens): (&Identity, SocketAddr),
    stats: &Stats,
) -> Result<Option<(PublicKey, Open)>, ServeError> {
    let Relaying::On { listen, limits } = options.relay else { return Ok(None) };
    let key = relay_key(&state.folder)?;
    let own = identity.key.public();
    let others = identity.network.rendezvous.iter().map(|known| known.key).filter(|known| *known != own);
    let members = Members::VouchedBy(others.chain([own]).collect());
    let open = Open::at(listen.unwrap_or(listens), (key, members, limits), Arc::clone(&stats.relay));
    let open = open.map_err(|error| match (error.kind, listen) {
        (Kind::Conflict, None) => {
            error.with_hint("choose its UDP port with `--udp ADDR:PORT`, or leave it out: `--no-relay`")
        }
        _ => error,
    })?;
    Ok(Some((key, open)))
}

/// What agents are told of the relay. One that listens on an address of its own is named by it.
fn told_relay(options: &Options, relay: Option<(PublicKey, SocketAddr)>) -> Option<RelayAt> {
    let (key, address) = relay?;
    let Relaying::On { listen, .. } = options.relay else { return None };
    let own = listen.map(|listen| listen.ip()).filter(|ip| !ip.is_unspecified() && *ip != options.listen.ip());
    Some(RelayAt::new(key, address.port(), own))
}

fn wanted<'a>(options: &'a Options, object: Option<&'a Signed<Network>>, listens: &'a str) -> Wanted<'a> {
    let Options { network, pool, is_closed, url, .. } = options;
    Wanted { name: network, pool: *pool, is_closed: *is_closed, url: url.as_deref(), listens, object }
}

/// The URL of a socket.
fn shown_url(listens: SocketAddr) -> String {
    format!("https://{}", SocketAddr::new(shown_address(listens.ip()), listens.port()))
}

/// Reads or makes the key of this rendezvous and the network object.
async fn identity(wanted: &Wanted<'_>, state: &State) -> Result<Identity, ServeError> {
    if wanted.object.is_some() {
        // The first start may come before `rendezvous key`. Then the refusal says the key.
        state.rendezvous_key()?;
    } else if state.is_new()? {
        let pool = match wanted.pool {
            Some(pool) => pool,
            None => random_pool().await?,
        };
        return state.make(wanted, pool, now());
    }
    state.carry_out(state.plan(wanted, now())?)
}

/// Accepts connections and gives each a task. Never returns. Can be cancelled.
async fn accept_all(listener: &TcpListener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    let addresses = Addresses::new(shared.limits.connections_per_address);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut next = 0;
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (tcp, from) = accept(|context| listener.poll_accept(context)).await;
        while connections.try_join_next().is_some() {}
        let address = from.ip().to_canonical();
        let Some(counted) = addresses.admit(address, overlay_os::clock::boottime()) else {
            shared.stats.refused.fetch_add(1, Relaxed);
            // It is reset, so that the kernel keeps nothing of it.
            let _ = tcp.set_zero_linger();
            continue;
        };
        shared.stats.accepted.fetch_add(1, Relaxed);
        next += 1;
        let (id, shared) = (ConnectionId(next), shared.clone());
        connections.spawn(async move {
            let _counted = (slot, counted);
            connection::serve(tcp, address, id, shared).await;
        });
    }
}
