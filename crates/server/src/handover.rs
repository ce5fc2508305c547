//! One process of a rendezvous takes the place of a different one, and nobody is refused meanwhile.
//!
//! ```text
//! successor                                      predecessor
//!   -- hand over -->
//!   <-- the listening sockets --                 serves as before
//! binds what is missing
//! checks options, keys and certificate
//!   -- go -->
//! waits for the lock                             stops accepting, keeps and answers what is under way,
//!                                                closes the store, releases the lock, says goodbye
//! reads the registry, accepts
//!   -- serving -->                               ends
//! ```
//!
//! The kernel queues new connections while nobody accepts them, because the listening sockets are open in one of the two
//! at any time. Whatever keeps the successor from serving, before or after `go`, closes its end of the conversation. Then
//! the predecessor goes on, or takes lock and store back.

use std::io::{self, BufRead as _, BufReader as LineReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as Conversation;
use std::time::Duration;

use overlay_os::descriptors;
use tokio::io::{AsyncBufReadExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::failure::ServeError;
use crate::listening::bind;

/// How long the other end may take for each step that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a successor waits for lock and store.
pub(crate) const RELEASE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a predecessor waits until its successor serves.
const SERVING_PATIENCE: Duration = Duration::from_secs(90);
/// The longest line.
const MAX_LINE: usize = 4 * 1_024;

const GO: &str = "go";
const SERVING: &str = "serving";

/// The listening sockets of a rendezvous. A process keeps them to its end.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) agents: TcpListener,
    pub(crate) metrics: Option<TcpListener>,
}

impl Sockets {
    /// Listens where we are told to, on a socket of the predecessor if it has one there.
    pub(crate) fn open(
        agents: SocketAddr,
        metrics: Option<SocketAddr>,
        mut handed: Vec<TcpListener>,
    ) -> Result<Self, ServeError> {
        let mut listen = |purpose, wanted: SocketAddr| {
            let is_there = |socket: &TcpListener| socket.local_addr().is_ok_and(|address| suits(address, wanted));
            if let Some(at) = handed.iter().position(is_there) {
                return Ok(handed.swap_remove(at));
            }
            bind(purpose, wanted).map_err(|error| {
                let in_the_way = handed.iter().filter_map(|socket| socket.local_addr().ok());
                match in_the_way.into_iter().find(|address| address.port() == wanted.port()) {
                    Some(address) => error.with_hint(format!(
                        "the rendezvous that runs listens on {address}: name the same, or end it before this start"
                    )),
                    None => error,
                }
            })
        };
        let agents = listen("for agents", agents)?;
        let metrics = metrics.map(|metrics| listen("for metrics", metrics)).transpose()?;
        Ok(Self { agents, metrics })
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
        let metrics = self.metrics.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok((self.agents.local_addr()?, metrics))
    }

    /// Offers the sockets, with this line, to the process at the other end, and waits until it wants them. `None`: it went
    /// away, and nothing has happened.
    pub(crate) async fn offer(&self, stream: UnixStream, line: &[u8]) -> io::Result<Option<Successor>> {
        let sockets: Vec<_> = [Some(&self.agents), self.metrics.as_ref()].into_iter().flatten().collect();
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let send = || descriptors::send(&stream, line, &sockets);
        if timeout(PATIENCE, stream.async_io(Interest::WRITABLE, send)).await?? < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut successor = Successor(BufReader::new(stream));
        Ok(successor.says(GO, PATIENCE).await.then_some(successor))
    }
}

/// Whether a socket listens where we want to. Port 0 is any port.
fn suits(address: SocketAddr, wanted: SocketAddr) -> bool {
    address.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == address.port())
}

/// A new process, as the old one sees it.
#[derive(Debug)]
pub(crate) struct Successor(BufReader<UnixStream>);

impl Successor {
    /// Waits until it serves. `false`: it has failed, and serves nobody.
    pub(crate) async fn serves(mut self) -> bool {
        self.says(SERVING, SERVING_PATIENCE).await
    }

    async fn says(&mut self, word: &str, patience: Duration) -> bool {
        let mut line = String::new();
        matches!(timeout(patience, self.0.read_line(&mut line)).await, Ok(Ok(_))) && line.trim_end() == word
    }
}

/// An old process, as the new one sees it. If this is dropped, the old one goes on.
#[derive(Debug)]
pub(crate) struct Predecessor(Conversation);

impl Predecessor {
    /// Asks the process at the other end, and returns its answer, which is one line, with the sockets that came with it.
    pub(crate) fn ask(stream: Conversation, question: &[u8]) -> io::Result<(Self, String, Vec<TcpListener>)> {
        stream.set_read_timeout(Some(PATIENCE))?;
        (&stream).write_all(question)?;
        let mut bytes = [0; MAX_LINE];
        // The sockets come with the first byte of the line.
        let (len, sockets) = descriptors::receive(&stream, &mut bytes)?;
        let mut line = String::new();
        LineReader::new((&bytes[..len]).chain(&stream)).read_line(&mut line)?;
        let sockets = sockets.into_iter().map(listener).collect::<io::Result<_>>()?;
        Ok((Self(stream), line, sockets))
    }

    /// Tells it to release everything. From now on it accepts nobody.
    pub(crate) fn go(&mut self) -> io::Result<()> {
        writeln!(self.0, "{GO}")
    }

    /// Tells it that it may end.
    pub(crate) fn relieve(mut self) -> io::Result<()> {
        writeln!(self.0, "{SERVING}")
    }
}

/// A socket that we were handed, if it listens.
fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(socket);
    listener.local_addr()?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_taken_over_where_it_is_wanted_and_named_where_it_is_in_the_way() {
        let handed = || bind("for agents", "127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let socket = handed();
        let address = socket.local_addr().expect("it is bound");
        let taken = Sockets::open(address, None, vec![socket]).expect("the same");
        assert_eq!(taken.addresses().expect("they are open"), (address, None));
        drop(taken);

        let socket = handed();
        let port = socket.local_addr().expect("it is bound").port();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
        let refused = Sockets::open(everywhere, None, vec![socket]).expect_err("the port is taken");
        let hint = refused.hint.expect("what to do");
        assert!(hint.contains(&format!("listens on 127.0.0.1:{port}")), "{hint}");
    }
}
