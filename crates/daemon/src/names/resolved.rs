//! Tells systemd-resolved, over D-Bus, that our names are answered on our interface.
//!
//! What it is told belongs to the link and goes with it, however the daemon ends. A resolved that was restarted has forgotten
//! it all, so it is told again as soon as its name on the bus has a new owner.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zbus::message::Type;
use zbus::zvariant::DynamicType;
use zbus::{Connection, MatchRule, MessageStream};

use super::Servers;

const NAME: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait after a failure; doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What the link is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// The name of the interface, and its index.
    pub(super) interface: String,
    pub(super) index: u32,
    /// Where names are asked for.
    pub(super) servers: Servers,
    /// The domain by which a name alone is completed.
    pub(super) search: String,
    /// The domains that are asked here and nowhere else.
    pub(super) routed: Vec<String>,
}

/// How far that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Trying,
    Told,
    Failed(String),
}

/// The task that keeps resolved told. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct Resolved {
    wanted: watch::Sender<Option<Link>>,
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl Resolved {
    /// Starts the task on the current runtime.
    pub(super) fn start() -> Self {
        let (wanted, wants) = watch::channel(None);
        let (says, standing) = watch::channel(Standing::Trying);
        Self { wanted, standing, task: tokio::spawn(keep_told(wants, says)) }
    }

    /// Tells this from now on.
    pub(super) fn set(&self, link: Link) {
        self.wanted.send_if_modified(|wanted| wanted.replace(link.clone()).as_ref() != Some(&link));
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until that has changed. Can be cancelled.
    pub(super) async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Resolved {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a resolved is there that knows this interface.
pub(super) async fn is_there(interface: &str) -> bool {
    let asked = async {
        let bus = Connection::system().await?;
        sees(&bus, interface).await
    };
    matches!(timeout(PATIENCE, asked).await, Ok(Ok(true)))
}

/// Whether resolved knows this interface. One of a different network namespace would take its index for a link of its own.
async fn sees(bus: &Connection, interface: &str) -> zbus::Result<bool> {
    let answer = in_time(bus.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetConnectionUnixProcessID", &NAME)).await?;
    let pid: u32 = answer.body().deserialize()?;
    // A unit may hide the process. Then both are of this host.
    let links = std::fs::read_to_string(format!("/proc/{pid}/net/dev"));
    Ok(links.map_or(true, |links| links.lines().any(|line| line.trim_start().split(':').next() == Some(interface))))
}

async fn keep_told(mut wants: watch::Receiver<Option<Link>>, says: watch::Sender<Standing>) {
    loop {
        match stay_connected(&mut wants, &says).await {
            Ok(()) => return,
            Err(error) => says.send_replace(Standing::Failed(error.to_string())),
        };
        sleep(LONGEST_RETRY).await;
    }
}

/// Tells resolved until the bus fails. `Ok`: nothing more is to be told.
async fn stay_connected(wants: &mut watch::Receiver<Option<Link>>, says: &watch::Sender<Standing>) -> zbus::Result<()> {
    let bus = in_time(Connection::system()).await?;
    let mut owners = owners(&bus).await?;
    let mut pause = FIRST_RETRY;
    loop {
        let wanted = wants.borrow_and_update().clone();
        let told = match &wanted {
            Some(link) => tell(&bus, link).await,
            None => Ok(()),
        };
        if wanted.is_some() {
            says.send_replace(
                told.as_ref().map_or_else(|error| Standing::Failed(error.to_string()), |()| Standing::Told),
            );
        }
        pause = if told.is_ok() { FIRST_RETRY } else { (pause * 2).min(LONGEST_RETRY) };
        tokio::select! {
            changed = wants.changed() => if changed.is_err() { return Ok(()) },
            owner = next_owner(&mut owners, says) => owner?,
            () = sleep(pause), if told.is_err() => {}
        }
    }
}

/// Waits until a new resolved owns its name. The one before may end first.
async fn next_owner(owners: &mut MessageStream, says: &watch::Sender<Standing>) -> zbus::Result<()> {
    while let Some(message) = owners.next().await {
        let (_, _, new) = message?.body().deserialize::<(String, String, String)>()?;
        if !new.is_empty() {
            return Ok(());
        }
        says.send_replace(Standing::Failed("it has ended".to_owned()));
    }
    Err(failed(io::ErrorKind::BrokenPipe))
}

/// Messages about who owns resolved's name.
async fn owners(bus: &Connection) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(BUS)
        .interface(BUS)
        .member("NameOwnerChanged")
        .arg(0, NAME)
        .build()?;
    in_time(MessageStream::for_match_rule(rule, bus, NonZeroUsize::new(8))).await
}

/// Tells everything about the link. Each call replaces what was told before.
async fn tell(bus: &Connection, link: &Link) -> zbus::Result<()> {
    if !sees(bus, &link.interface).await? {
        return Err(zbus::Error::Failure("it belongs to a different network namespace".to_owned()));
    }
    let index = i32::try_from(link.index).map_err(|_| zbus::Error::Unsupported)?;
    let servers: Vec<(i32, Vec<u8>)> = link.servers.iter().map(|server| family_and_bytes(*server)).collect();
    let search = std::iter::once((link.search.as_str(), false));
    let domains: Vec<(&str, bool)> = search.chain(link.routed.iter().map(|domain| (domain.as_str(), true))).collect();
    call(bus, "SetLinkDefaultRoute", &(index, false)).await?;
    call(bus, "SetLinkDomains", &(index, domains)).await?;
    // Our zone is not signed, our server has no certificate, and our peers are no neighbours on a cable.
    for method in ["SetLinkDNSSEC", "SetLinkDNSOverTLS", "SetLinkLLMNR", "SetLinkMulticastDNS"] {
        call(bus, method, &(index, "no")).await?;
    }
    // Last: a link with servers and no domains would be asked for everything.
    call(bus, "SetLinkDNS", &(index, servers)).await
}

fn family_and_bytes(server: IpAddr) -> (i32, Vec<u8>) {
    match server {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    }
}

async fn call(
    bus: &Connection,
    method: &'static str,
    body: &(impl serde::Serialize + DynamicType),
) -> zbus::Result<()> {
    in_time(bus.call_method(Some(NAME), PATH, Some(MANAGER), method, body)).await.map(drop)
}

async fn in_time<T>(request: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    timeout(PATIENCE, request).await.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut)))
}

fn failed(kind: io::ErrorKind) -> zbus::Error {
    zbus::Error::InputOutput(Arc::new(kind.into()))
}
