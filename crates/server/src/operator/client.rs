//! The operator's end of the socket: one question, one answer.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::SOCKET;
use super::protocol::{Ask, Told};
use crate::backup::{self, Counts};
use crate::failure::{Kind, ServeError};
use crate::handover::Predecessor;
use crate::state::folder_of;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The running rendezvous of one network on this host.
#[derive(Clone, Debug)]
pub struct Client {
    network: String,
    socket: PathBuf,
}

impl Client {
    /// The rendezvous of a network. It may run or not.
    pub fn new(state_dir: &Path, network: &str) -> Self {
        Self { network: network.to_owned(), socket: folder_of(state_dir, network).join(SOCKET) }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the rendezvous refuses. [`Kind::NotRunning`] if nobody listens.
    pub fn ask(&self, ask: &Ask) -> Result<Told, ServeError> {
        let told = self.exchange(ask).map_err(|error| self.no_answer(&error))?;
        match told {
            Told::Refused(error) => Err(error),
            told => Ok(told),
        }
    }

    /// Fetches a backup, and writes it to `file`.
    ///
    /// # Errors
    /// There is no rendezvous, or its end was missing.
    pub fn back_up(&self, file: &mut impl io::Write) -> Result<Counts, ServeError> {
        self.fetch(file).map_err(|error| self.no_answer(&error))?.ok_or_else(|| {
            ServeError::new(Kind::Other, "the backup is not whole").with_hint("look into the log of the rendezvous")
        })
    }

    /// Asks the rendezvous to hand over its sockets.
    pub(crate) fn take_over(&self) -> Result<(Predecessor, Vec<TcpListener>), ServeError> {
        let asked = UnixStream::connect(&self.socket).and_then(|stream| {
            let (predecessor, line, sockets) = Predecessor::ask(stream, &question(&Ask::HandOver)?)?;
            Ok((predecessor, serde_json::from_str(&line)?, sockets))
        });
        match asked.map_err(|error| self.no_answer(&error))? {
            (predecessor, Told::Sockets { .. }, sockets) => Ok((predecessor, sockets)),
            (_, Told::Refused(error), _) => Err(error.with_hint("end the rendezvous that runs, and start this one")),
            _ => Err(ServeError::new(Kind::Other, "the rendezvous that runs did not hand over its sockets")),
        }
    }

    fn fetch(&self, file: &mut impl io::Write) -> io::Result<Option<Counts>> {
        let mut lines = BufReader::new(self.send(&Ask::Backup)?);
        let (mut line, mut last) = (Zeroizing::new(String::new()), None);
        while lines.read_line(&mut line)? > 0 {
            file.write_all(line.as_bytes())?;
            last = backup::end(&line);
            line.clear();
        }
        Ok(last)
    }

    fn exchange(&self, ask: &Ask) -> io::Result<Told> {
        let mut answer = String::new();
        BufReader::new(self.send(ask)?).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }

    fn send(&self, ask: &Ask) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&question(ask)?)?;
        Ok(stream)
    }

    fn no_answer(&self, error: &io::Error) -> ServeError {
        let (network, socket) = (&self.network, self.socket.display());
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let failure =
                    ServeError::new(Kind::NotRunning, format!("no rendezvous of `{network}` is running here"));
                failure.with_cause(format!("nobody listens on {socket}")).with_hint(format!(
                    "start it: overlay rendezvous serve --network {network} --listen ADDR:PORT; a different folder is \
                     named with --state-dir"
                ))
            }
            io::ErrorKind::PermissionDenied => {
                let failure = ServeError::new(Kind::Permission, format!("this user may not open {socket}"));
                failure.with_hint("use the user who runs the rendezvous, or root")
            }
            _ => {
                ServeError::new(Kind::Other, format!("the rendezvous of `{network}` did not answer")).with_cause(error)
            }
        }
    }
}

/// A question as it is sent.
fn question(ask: &Ask) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    Ok(line)
}
