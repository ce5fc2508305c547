//! The operator's door to a running rendezvous: a unix socket in its state folder, which only the folder's owner and root
//! can reach.
//!
//! A connection carries one question and one answer, each a line of JSON ([`protocol`]). Orders go to the registry, which
//! answers once they are on disk. Each order is logged (`audit`) before it is answered.

mod audit;
pub mod client;
pub mod protocol;
mod shown;
pub mod token;

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use overlay_os::folder::Folder;
use overlay_rendezvous::registry::{Order, Registry};
use overlay_wire::signed::{KEY_TEXT_LEN, PublicKey, Signed, Token};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::backup;
use crate::clock::now;
use crate::desk::{Look, Report};
use crate::failure::{Kind, ServeError};
use crate::handover::{Sockets, Successor};
use crate::listening::accept;
use crate::snapshots::Snapshots;
use crate::store_at::StoreAt;
use crate::store_health::Health;
pub(crate) use audit::Audit;
use protocol::{Ask, Told};

/// The socket's name in the state folder.
pub(crate) const SOCKET: &str = "operator.sock";
const WORKSHOP: &str = ".operator.new";
/// The most agents in one answer.
pub const MAX_SHOWN: usize = 256;
/// The longest question in bytes.
const MAX_QUESTION: u64 = 16 * 1024;
/// The fewest characters that stand for a key.
const MIN_PREFIX: usize = 16;
/// Questions at once.
const MAX_CONNECTIONS: usize = 8;
/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take. The longest is a backup.
const BACKUP_PATIENCE: Duration = Duration::from_secs(600);

/// Listens for the operator.
fn listen(folder: &Folder) -> Result<UnixListener, ServeError> {
    let path = folder.path_of(SOCKET);
    let bound = folder.listen(OsStr::new(SOCKET), OsStr::new(WORKSHOP), 0o600, None).and_then(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    bound.map_err(|error| {
        let failure = ServeError::of_file("listen on", &path, &error);
        match error.kind() {
            io::ErrorKind::InvalidInput => failure.with_hint("choose a shorter --state-dir: a socket has 107 bytes"),
            _ => failure,
        }
    })
}

/// The door, while it is open.
pub(crate) struct Door {
    end: oneshot::Sender<()>,
    serving: JoinSet<()>,
}

impl Door {
    /// Listens, and answers questions.
    pub(crate) fn open(folder: &Folder, desk: Desk) -> Result<Self, ServeError> {
        let listener = listen(folder)?;
        let (end, ending) = oneshot::channel();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, desk, ending));
        Ok(Self { end, serving })
    }

    /// Lets nobody in any more, and waits until those inside have their answers. Can be cancelled, which ends them.
    pub(crate) async fn end(mut self) {
        let _ = self.end.send(());
        while self.serving.join_next().await.is_some() {}
    }
}

async fn serve(listener: UnixListener, desk: Desk, mut ending: oneshot::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // They hold the store, so they end with this.
    let mut answers = JoinSet::new();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, accept(|context| listener.poll_accept(context)).await.0)
        };
        let (slot, stream) = tokio::select! {
            next = next => next,
            _ = &mut ending => break,
        };
        while answers.try_join_next().is_some() {}
        let desk = desk.clone();
        answers.spawn(async move {
            let _slot = slot;
            // A caller that hangs up or stalls affects nobody else.
            let _ = tokio::time::timeout(BACKUP_PATIENCE, desk.answer(stream)).await;
        });
    }
    drop((listener, desk));
    while answers.join_next().await.is_some() {}
}

/// What questions are answered from.
#[derive(Clone)]
pub(crate) struct Desk {
    /// The state folder.
    pub(crate) folder: Arc<Folder>,
    /// Where orders are logged.
    pub(crate) audit: Audit,
    /// The network's name.
    pub(crate) network: Arc<str>,
    /// Where the store is.
    pub(crate) store: StoreAt,
    pub(crate) health: Arc<Health>,
    /// Reads the store.
    pub(crate) snapshots: Arc<dyn Snapshots>,
    /// Where the registry is asked.
    pub(crate) reports: mpsc::Sender<Report>,
    /// What a successor gets.
    pub(crate) sockets: Arc<Sockets>,
    /// Where it is announced.
    pub(crate) successors: mpsc::Sender<Successor>,
}

impl Desk {
    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        let (reading, mut writing) = stream.split();
        let mut line = String::new();
        let mut question = BufReader::new(reading.take(MAX_QUESTION));
        tokio::time::timeout(PATIENCE, question.read_line(&mut line)).await??;
        let told = match serde_json::from_str::<Ask>(&line) {
            Ok(Ask::Backup) => return self.back_up(&mut writing).await,
            Ok(Ask::HandOver) => return self.hand_over(uid, stream).await,
            Ok(ask) => self.tell(uid, ask).await.unwrap_or_else(Told::Refused),
            Err(error) => Told::Refused(ServeError::new(Kind::Config, "the question cannot be read").with_cause(error)),
        };
        let mut answer = serde_json::to_vec(&told)?;
        answer.push(b'\n');
        writing.write_all(&answer).await
    }

    /// Hands our sockets to a new process, if it wants them in the end.
    async fn hand_over(&self, uid: u32, stream: UnixStream) -> io::Result<()> {
        // The socket keeps others out already. What is handed over here is everything.
        let owner = std::fs::metadata(self.folder.path())?.uid();
        if uid != 0 && uid != owner {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (agents, metrics) = self.sockets.addresses()?;
        let mut line = serde_json::to_vec(&Told::Sockets { agents, metrics })?;
        line.push(b'\n');
        if let Some(successor) = self.sockets.offer(stream, &line).await? {
            // If the rendezvous ends already, the successor sees its lock released all the same.
            let _ = self.successors.send(successor).await;
        }
        Ok(())
    }

    /// Sends a backup, line by line. If it fails, its last line is missing.
    async fn back_up(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let (put, mut lines) = mpsc::channel(64);
        let Self { folder, network, snapshots, .. } = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let put = |line| put.blocking_send(line).map_err(|_| io::ErrorKind::BrokenPipe.into());
            backup::write(&folder, &network, &*snapshots, put)
        });
        while let Some(line) = lines.recv().await {
            stream.write_all(&line).await?;
        }
        drop(lines);
        let read = reading.await.map_err(io::Error::other).flatten();
        read.inspect_err(|error| tracing::error!(%error, "the backup could not be finished"))
    }

    async fn tell(&self, uid: u32, ask: Ask) -> Result<Told, ServeError> {
        match ask {
            Ask::Agents { after } => {
                let after = after.map(|text| text.parse::<PublicKey>()).transpose().map_err(not_a_key)?;
                self.look(move |registry| shown::agents(registry, after)).await
            }
            Ask::Tokens => self.look(shown::tokens).await,
            Ask::Stats => {
                let (at, silence) = (self.store.to_string(), self.health.silence());
                self.look(move |registry| shown::stats(registry, at, silence)).await
            }
            order => {
                let (key, outcome) = match self.order(&order).await {
                    Ok(key) => (key, Ok(())),
                    Err((key, error)) => (key, Err(error)),
                };
                let key = key.map(|key| key.to_string());
                let said = outcome.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
                self.log((uid, order), key.clone(), said).await;
                outcome.map(|()| Told::Done { key })
            }
        }
    }

    /// Logs an order on a thread that may wait for the disk.
    async fn log(&self, (uid, order): (u32, Ask), key: Option<String>, said: String) {
        let (audit, folder) = (self.audit.clone(), self.folder.clone());
        let logging = tokio::task::spawn_blocking(move || {
            if let Err(error) = audit.note((uid, &order), key.as_deref(), &said, now().unix) {
                tracing::error!(%error, ?order, said, "an order cannot be logged in {}", folder.path().display());
            }
        });
        // A panic in there has been reported.
        let _ = logging.await;
    }

    /// Carries an order out. Returns the key that it was about, also when it is refused.
    async fn order(&self, order: &Ask) -> Result<Option<PublicKey>, (Option<PublicKey>, ServeError)> {
        let (order, key) = self.planned(order).await.map_err(|error| (None, error))?;
        let (reply, outcome) = oneshot::channel();
        let asked = self.reports.send(Report::Order(order, reply)).await;
        let outcome = match asked {
            Ok(()) => outcome.await.map_err(|_| ends()),
            Err(_) => Err(ends()),
        };
        match outcome {
            Ok(Ok(())) => Ok(key),
            Ok(Err(refused)) => Err((key, shown::refused(refused))),
            Err(error) => Err((key, error)),
        }
    }

    async fn planned(&self, order: &Ask) -> Result<(Order, Option<PublicKey>), ServeError> {
        let with = |key: PublicKey, order: fn(PublicKey) -> Order| (order(key), Some(key));
        Ok(match order {
            Ask::AddToken { token } => {
                let envelope = BASE64.decode(token.as_bytes());
                let envelope = envelope.map_err(|error| bad_token().with_cause(error))?;
                let token = Signed::<Token>::open(&envelope).map_err(|refused| bad_token().with_cause(refused))?;
                let key = token.token;
                (Order::AddToken(token), Some(key))
            }
            Ask::RevokeToken { token } => with(self.token(token.clone()).await?, Order::RevokeToken),
            Ask::RemoveAgent { agent } => with(self.agent(agent.clone()).await?, Order::Remove),
            Ask::BanAgent { agent } => with(self.agent(agent.clone()).await?, Order::Ban),
            Ask::UnbanAgent { agent } => with(self.banned(agent.clone()).await?, Order::Unban),
            Ask::FreeName { name } => (Order::Free(name.clone()), None),
            Ask::Agents { .. } | Ask::Tokens | Ask::Stats | Ask::Backup | Ask::HandOver => {
                return Err(ServeError::new(Kind::Config, "this is not an order"));
            }
        })
    }

    /// The agent that a name, a key or the beginning of a key means.
    async fn agent(&self, text: String) -> Result<PublicKey, ServeError> {
        if let Ok(key) = text.parse() {
            return Ok(key);
        }
        self.look(move |registry| {
            if let Some(owner) = registry.owner_of_name(&text) {
                return Ok(*owner);
            }
            let all = registry.agents_after(None, usize::MAX);
            the_only_one("agent", &text, all.iter().map(|view| *view.identity))
        })
        .await?
    }

    /// The banned agent that a name means, or else what a key means.
    async fn banned(&self, text: String) -> Result<PublicKey, ServeError> {
        let name = text.clone();
        match self.look(move |registry| registry.banned_with_name(&name).copied()).await? {
            Some(banned) => Ok(banned),
            None => self.agent(text).await,
        }
    }

    /// The token that a key or the beginning of a key means.
    async fn token(&self, text: String) -> Result<PublicKey, ServeError> {
        self.look(move |registry| the_only_one("token", &text, registry.known_tokens().map(|view| *view.key))).await?
    }

    /// Looks at the registry.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Registry) -> T + Send + 'static,
    ) -> Result<T, ServeError> {
        let (reply, seen) = oneshot::channel();
        let look = Look(Box::new(move |registry| {
            // The caller may have hung up.
            let _ = reply.send(look(registry));
        }));
        self.reports.send(Report::Look(look)).await.map_err(|_| ends())?;
        seen.await.map_err(|_| ends())
    }
}

fn the_only_one(what: &str, text: &str, keys: impl Iterator<Item = PublicKey>) -> Result<PublicKey, ServeError> {
    let not_found = || ServeError::new(Kind::NotFound, format!("no {what} is `{text}`"));
    let is_beginning = (MIN_PREFIX..=KEY_TEXT_LEN).contains(&text.len());
    if !is_beginning {
        return Err(not_found().with_hint(format!("give a key, or at least {MIN_PREFIX} characters of it")));
    }
    let mut found = keys.filter(|key| key.to_string().starts_with(text));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(not_found()),
        (Some(_), Some(_)) => {
            let failure = ServeError::new(Kind::Conflict, format!("`{text}` is the beginning of several keys"));
            Err(failure.with_hint("give more characters of the key"))
        }
    }
}

fn not_a_key(error: overlay_wire::signed::NotAKey) -> ServeError {
    ServeError::new(Kind::Config, error.to_string())
}

fn bad_token() -> ServeError {
    ServeError::new(Kind::Config, "the token cannot be read")
}

fn ends() -> ServeError {
    ServeError::new(Kind::Other, "the rendezvous is about to end")
}
