//! The client side of the local API: the verbs of the program use it to find a daemon and send it requests.

mod agent;
mod events;

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{Down, Reloaded, Version};
use crate::failure::{ExitKind, Failure, FailureBody};
use crate::host;
use crate::permission::denied;
use crate::serving::access;
use crate::view::Status;

/// The default folder of the daemons' sockets.
pub const RUNTIME_DIR: &str = "/run/overlay";

/// The largest answer that is read, in bytes. The status of 10,000 peers takes about 6 MB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// How long a daemon may take to answer a request that only reads.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// How long a daemon may take to answer a request that changes something.
const CHANGE_PATIENCE: Duration = Duration::from_secs(90);

/// A daemon on this host.
#[derive(Clone, Debug)]
pub struct Client {
    name: String,
    socket: PathBuf,
}

impl Client {
    /// Finds the daemon of this name, or, without a name, the only one that is running. `command` is what the user
    /// typed, up to where a name belongs. Hints repeat it with a name.
    ///
    /// # Errors
    ///
    /// [`ExitKind::NoDaemon`] if no daemon runs, [`ExitKind::Usage`] if there are several to choose from.
    pub fn find(runtime_dir: &Path, name: Option<&str>, command: &str) -> Result<Self, Failure> {
        if let Some(name) = name {
            let client = Self::new(runtime_dir, name);
            return match client.is_alive() {
                true => Ok(client),
                false => Err(no_daemon(&format!("no daemon is running for `{name}`"), runtime_dir, Some(name))),
            };
        }
        let mut alive = Self::all(runtime_dir)?;
        if alive.len() > 1 {
            let names: Vec<_> = alive.iter().map(|client| format!("`{}`", client.name)).collect();
            return Err(Failure::new(ExitKind::Usage, "several daemons are running")
                .with_cause(format!("they are {}", names.join(", ")))
                .with_hint(format!("name the one you mean, as in: {command} {}", alive[0].name)));
        }
        alive.pop().ok_or_else(|| no_daemon("no daemon is running", runtime_dir, None))
    }

    /// Returns every running daemon, in alphabetical order.
    ///
    /// # Errors
    ///
    /// The same as for [`names`].
    pub fn all(runtime_dir: &Path) -> Result<Vec<Self>, Failure> {
        let clients = names(runtime_dir)?.into_iter().map(|name| Self::new(runtime_dir, &name));
        Ok(clients.filter(Self::is_alive).collect())
    }

    /// Returns the daemon of this name, whether or not it is running.
    pub fn new(runtime_dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), socket: host::home(runtime_dir, name).join(format!("{name}.sock")) }
    }

    /// The name of its interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path of its local API's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the id of the process that listens on the socket, if that process is visible to us.
    pub fn pid(&self) -> Option<i32> {
        let stream = Probe::connect(&self.socket).ok()?;
        let daemon = overlay_os::process::peer_credentials(stream.as_fd()).ok()?;
        Some(daemon.pid).filter(|pid| *pid > 0)
    }

    /// Whether a process listens on the socket. A socket that we may not open counts as alive.
    pub fn is_alive(&self) -> bool {
        match Probe::connect(&self.socket) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// Fetches what `overlay status` shows.
    ///
    /// # Errors
    ///
    /// Those of every request: no daemon, no permission, no answer in time, or the error that the daemon returns.
    pub async fn status(&self) -> Result<Status, Failure> {
        self.ask(Method::GET, "/v1/status", LOOK_PATIENCE).await
    }

    /// Fetches the daemon's version.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::status`].
    pub async fn version(&self) -> Result<Version, Failure> {
        self.ask(Method::GET, "/v1/version", LOOK_PATIENCE).await
    }

    /// Makes the daemon read its config again.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::status`], and [`ExitKind::Config`] if the config is invalid. The old one then stays in force.
    pub async fn reload(&self) -> Result<Reloaded, Failure> {
        self.ask(Method::POST, "/v1/reload", CHANGE_PATIENCE).await
    }

    /// Makes the daemon remove everything that it added and end. Returns when the daemon has agreed.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::status`].
    pub async fn down(&self) -> Result<Down, Failure> {
        match self.ask(Method::POST, "/v1/down", CHANGE_PATIENCE).await {
            // The daemon ended before it could answer.
            Err(failure) if failure.code == ExitKind::Timeout && !self.is_alive() => {
                Ok(Down { schema: "overlay.down.v1".into(), status: "ok".into(), interface: self.name.clone() })
            }
            answer => answer,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, patience: Duration) -> Result<T, Failure> {
        self.ask_with(method, path, Bytes::new(), patience).await
    }

    async fn ask_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, Failure> {
        let asked = tokio::time::timeout(patience, self.exchange(method, path, body)).await;
        let (status, body) =
            asked.map_err(|_| self.no_answer(&format!("no answer came within {} s", patience.as_secs())))??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.strange_answer(&error));
        }
        Err(match serde_json::from_slice::<FailureBody>(&body) {
            Ok(failure) => failure.into(),
            Err(error) => self.strange_answer(&error),
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let response = self.begin(method, path, body).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.no_answer(&error.to_string()))?;
        Ok((status, body.to_bytes()))
    }

    /// Sends a request, and returns the answer without its body.
    async fn begin(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_connected(&error, &method))?;
        let broken = |error: hyper::Error| self.no_answer(&error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the exchange, because the daemon closes the connection after its answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .body(Full::new(body))
            .expect("method, path and header are valid by construction");
        sender.send_request(request).await.map_err(broken)
    }

    fn not_connected(&self, error: &io::Error, method: &Method) -> Failure {
        let folder = self.socket.parent().unwrap_or(Path::new("/"));
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let failure = match *method {
                    Method::GET => access::may_not_read(),
                    _ => access::may_not_change(),
                };
                failure.with_cause(format!("this user may not open {}", self.socket.display()))
            }
            _ => no_daemon(&format!("no daemon is running for `{}`", self.name), folder, Some(&self.name)),
        }
    }

    fn no_answer(&self, cause: &str) -> Failure {
        Failure::new(ExitKind::Timeout, format!("the daemon of `{}` did not answer", self.name)).with_cause(cause)
    }

    fn strange_answer(&self, error: &serde_json::Error) -> Failure {
        Failure::new(ExitKind::Other, format!("cannot understand the answer of the daemon of `{}`", self.name))
            .with_cause(error)
            .with_hint("the daemon may have a different version: compare with overlay version")
    }
}

/// Returns the names of the daemons with a socket in this folder, in alphabetical order, whether or not they are alive.
///
/// # Errors
///
/// [`ExitKind::Permission`] if the folder may not be read. A missing folder contains no daemons.
pub fn names(runtime_dir: &Path) -> Result<Vec<String>, Failure> {
    names_of(runtime_dir, &["sock"])
}

/// Returns the names of daemons that left something behind, in alphabetical order. Running daemons are included.
///
/// # Errors
///
/// The same as for [`names`].
pub fn leftovers(runtime_dir: &Path) -> Result<Vec<String>, Failure> {
    names_of(runtime_dir, &["sock", "state"])
}

/// Whether a daemon of this name has left something behind or is running.
pub fn has_leftovers(runtime_dir: &Path, name: &str) -> bool {
    let home = host::home(runtime_dir, name);
    ["sock", "state"].iter().any(|extension| home.join(format!("{name}.{extension}")).exists())
}

fn names_of(runtime_dir: &Path, extensions: &[&str]) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(runtime_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Failure::new(ExitKind::Permission, format!("cannot look into {}", runtime_dir.display()))
                .with_cause(denied(runtime_dir).cause)
                .with_hint(denied(runtime_dir).hint));
        }
        Err(_) => return Ok(Vec::new()),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name();
            let file = file.to_str()?;
            // A service has its own folder, which is named after its daemon.
            if host::home(runtime_dir, file) != runtime_dir {
                let is_there = |extension: &&str| entry.path().join(format!("{file}.{extension}")).exists();
                return extensions.iter().any(is_there).then(|| file.to_owned());
            }
            let (name, extension) = file.rsplit_once('.')?;
            (!name.is_empty() && extensions.contains(&extension)).then(|| name.to_owned())
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn no_daemon(error: &str, runtime_dir: &Path, name: Option<&str>) -> Failure {
    let failure = Failure::new(ExitKind::NoDaemon, error);
    let killed = match name {
        Some(name) => has_leftovers(runtime_dir, name).then(|| name.to_owned()),
        None => leftovers(runtime_dir).ok().and_then(|names| names.into_iter().next()),
    };
    if let Some(killed) = killed {
        return failure
            .with_cause(format!("the daemon of `{killed}` was killed, and what it added to this host is still there"))
            .with_hint(format!("sudo overlay down {killed}"));
    }
    let cause = match name {
        Some(name) => {
            format!("no process listens on {}", host::home(runtime_dir, name).join(format!("{name}.sock")).display())
        }
        None => format!("no process listens in {}", runtime_dir.display()),
    };
    failure.with_cause(cause).with_hint(format!("sudo overlay up {}", name.unwrap_or("config.toml")))
}

#[cfg(test)]
mod tests;
