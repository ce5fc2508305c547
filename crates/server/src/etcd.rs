//! The store that several processes share: an etcd cluster.
//!
//! ```text
//! overlay/NETWORK/identity          whose registry this is
//! overlay/NETWORK/network           the newest network object
//! overlay/NETWORK/process/ID        a process that runs, until its lease ends
//! overlay/NETWORK/writer/ID         the last transaction of a process
//! overlay/NETWORK/registry/KEY      the registry's entries
//! ```
//!
//! A revision is etcd's own. [`EtcdStore`] commits, `listing` reads everything at one revision, `follow` tells what changes from
//! there on, and `presence` keeps the entries that end with this process.
//!
//! A cluster that does not answer is waited for: what agents ask for waits with it, and what is known is answered. Only what
//! waiting cannot cure, such as a password that is refused, ends the process.

mod commit;
mod follow;
mod identity;
mod listing;
mod network;
mod presence;
#[cfg(test)]
mod tests;

use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, GetOptions, Identity, TlsOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::access::Access;
use crate::failure::{Kind, ServeError};
use crate::store_at::Members;
use crate::store_health::Health;

pub(crate) use commit::EtcdStore;
pub(crate) use follow::Follower;
pub(crate) use presence::{Keeper, Presences};

/// How long one request may take. A member that has lost its leader keeps it for longer. A different one may have a new leader.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long reading many entries may take.
const READING: Duration = Duration::from_secs(10);
/// How long a start waits for the cluster.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before a request is made again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often a connection is probed, and how long the answer may take. etcd hangs up on more than one probe in 5 s.
const PROBES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(3);
/// The largest message that is read: many entries in one answer.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// The gRPC codes that waiting does not cure: a malformed request, a lease that has ended, a missing right, a refused password, an
/// old server.
const LASTING: [i32; 6] = [3, 5, 7, 9, 12, 16];

/// Why a request has no answer.
#[derive(Debug)]
enum Trouble {
    /// The cluster does not answer, or has no leader. It may have carried the request out.
    Passing(String),
    /// It refuses the request, and will do so again.
    Lasting(EtcdError),
}

impl Trouble {
    /// Whether the lease that a request names has ended.
    fn is_lease_over(&self) -> bool {
        matches!(self, Self::Lasting(EtcdError::Refused(why)) if why.contains("lease not found"))
    }
}

/// Why the store fails for good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    /// The cluster refuses a request.
    #[error("etcd refuses: {0}")]
    Refused(String),
    /// Somebody else has written what this process alone writes.
    #[error("etcd holds a transaction of this process that it did not make")]
    Foreign,
    /// The cluster was restored from a backup, or emptied.
    #[error("etcd has lost what this process wrote")]
    Lost,
    /// The rendezvous ends, and the cluster does not answer.
    #[error("the rendezvous ends while etcd does not answer: {0}")]
    Ending(String),
}

/// A cluster, and the network whose entries are meant.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// What all keys of the network begin with.
    root: Arc<str>,
    health: Arc<Health>,
    /// Whether the rendezvous ends: nobody waits any longer then.
    ending: watch::Receiver<bool>,
}

impl Cluster {
    /// Connects, and waits until the cluster answers.
    pub(crate) async fn connect(
        members: &Members,
        access: &Access,
        network: &str,
        (health, ending): (Arc<Health>, watch::Receiver<bool>),
    ) -> Result<Self, ServeError> {
        let deadline = Instant::now() + START_PATIENCE;
        let cannot = |cause: String| {
            let failure = ServeError::new(Kind::Other, "the etcd cluster cannot be used").with_cause(cause);
            failure.with_hint("etcdctl --endpoints HOST:PORT endpoint health")
        };
        let scheme = if members.has_tls { "https" } else { "http" };
        let endpoints: Vec<_> = members.addresses.iter().map(|address| format!("{scheme}://{address}")).collect();
        let options = options(members, access)?;
        let mut pause = PAUSES.0;
        loop {
            let attempt = async {
                let client = Client::connect(&endpoints, Some(options.clone())).await?;
                let probe = GetOptions::new().with_keys_only();
                client.kv_client().get(format!("overlay/{network}/identity"), Some(probe)).await?;
                Ok::<_, Error>(client)
            };
            let trouble = match timeout_at(deadline.min(Instant::now() + ATTEMPT), attempt).await {
                Ok(Ok(client)) => {
                    let root = format!("overlay/{network}/").into();
                    return Ok(Self { client, root, health, ending });
                }
                Ok(Err(error)) => Trouble::from(error),
                Err(_) => Trouble::Passing("it does not answer".to_owned()),
            };
            match trouble {
                Trouble::Passing(why) if Instant::now() + pause < deadline => {
                    tracing::debug!(why, "etcd does not answer yet");
                    sleep(pause).await;
                    pause = PAUSES.1.min(pause * 2);
                }
                Trouble::Passing(why) => return Err(cannot(why)),
                Trouble::Lasting(error) => return Err(cannot(error.to_string())),
            }
        }
    }

    /// The key of something that belongs to the network.
    fn key(&self, name: &str) -> Vec<u8> {
        [self.root.as_bytes(), name.as_bytes()].concat()
    }

    /// What the keys of the registry's entries begin with.
    fn registry(&self) -> Vec<u8> {
        self.key("registry/")
    }

    fn kv(&self) -> etcd_client::KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_MESSAGE)
    }

    /// Makes a request once.
    async fn attempt<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
        self.attempt_within(ATTEMPT, request).await
    }

    async fn attempt_within<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        let outcome = match timeout(patience, request).await {
            Ok(outcome) => outcome.map_err(Trouble::from),
            Err(_) => Err(Trouble::Passing(format!("no answer within {} s", patience.as_secs()))),
        };
        match &outcome {
            Err(Trouble::Passing(why)) => self.health.is_silent(why),
            _ => self.health.answers(),
        }
        outcome
    }

    /// Makes a request until it is answered. It must do no harm if it is carried out twice.
    async fn insist<T, F: Future<Output = Result<T, Error>>>(&self, request: impl Fn() -> F) -> Result<T, EtcdError> {
        let mut pauses = Pauses::new(self);
        loop {
            match self.attempt(request()).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(why)) => pauses.pass(why).await?,
            }
        }
    }
}

/// The pauses between requests that fail.
struct Pauses {
    next: Duration,
    ending: watch::Receiver<bool>,
}

impl Pauses {
    fn new(cluster: &Cluster) -> Self {
        Self { next: PAUSES.0, ending: cluster.ending.clone() }
    }

    /// Waits before the next request.
    async fn pass(&mut self, why: String) -> Result<(), EtcdError> {
        let pause = self.next;
        self.next = PAUSES.1.min(pause * 2);
        tokio::select! {
            () = sleep(pause) => Ok(()),
            _ = self.ending.wait_for(|is_ending| *is_ending) => Err(EtcdError::Ending(why)),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) if LASTING.contains(&i32::from(status.code())) => {
                Self::Lasting(EtcdError::Refused(status.message().to_owned()))
            }
            Error::GRpcStatus(status) => Self::Passing(status.message().to_owned()),
            Error::LeaseKeepAliveError(why) => Self::Lasting(EtcdError::Refused(why)),
            Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) => Self::Passing(error.to_string()),
            other => Self::Lasting(EtcdError::Refused(other.to_string())),
        }
    }
}

/// How the cluster is spoken to.
fn options(members: &Members, access: &Access) -> Result<ConnectOptions, ServeError> {
    let read = |path: &std::path::Path| {
        fs::read(path).map(Zeroizing::new).map_err(|error| ServeError::of_file("read", path, &error))
    };
    let mut options = ConnectOptions::new()
        .with_require_leader(true)
        .with_connect_timeout(CONNECT)
        .with_keep_alive(PROBES.0, PROBES.1)
        .with_keep_alive_while_idle(true)
        .with_auto_token_refresh(true);
    if members.has_tls {
        let mut tls = TlsOptions::new();
        tls = match &access.authorities {
            Some(file) => tls.ca_certificate(Certificate::from_pem(&*read(file)?)),
            None => tls.with_native_roots(),
        };
        if let Some(files) = &access.certificate {
            tls = tls.identity(Identity::from_pem(&*read(&files.chain)?, &*read(&files.key)?));
        }
        options = options.with_tls(tls);
    }
    if let Some((user, file)) = &access.user {
        let password = read(file)?;
        let password = std::str::from_utf8(&password).map_err(|error| {
            ServeError::new(Kind::Config, format!("`{}` is not a password", file.display())).with_cause(error)
        })?;
        options = options.with_user(user, password.trim_end_matches(['\r', '\n']));
    }
    Ok(options)
}
