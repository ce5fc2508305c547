//! Why a rendezvous does not start, in the words that the operator reads.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

use overlay_os::folder::TrustError;
use serde::{Deserialize, Serialize};

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An argument contradicts what is on disk.
    Config,
    /// A file or an address may not be used.
    Permission,
    /// A folder or an address is in use.
    Conflict,
    /// What was named does not exist.
    NotFound,
    /// No rendezvous is running.
    NotRunning,
    /// Any other failure, such as a damaged file.
    Other,
}

/// What went wrong, why, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeError {
    /// The kind of failure.
    pub kind: Kind,
    /// What went wrong: one line, lower case, no full stop.
    pub error: String,
    /// Why, in one line.
    pub cause: Option<String>,
    /// What to do about it, in one line.
    pub hint: Option<String>,
}

impl ServeError {
    pub(crate) fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), cause: None, hint: None }
    }

    pub(crate) fn with_cause(self, cause: impl Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The failure to read or write a file.
    pub(crate) fn of_file(what: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => Kind::Permission,
            io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Other,
        };
        Self::new(kind, format!("cannot {what} `{}`", path.display())).with_cause(error)
    }

    /// A file or folder that others could have changed.
    pub(crate) fn of_trust(what: &str, path: &Path, error: TrustError) -> Self {
        let fix = error.fix();
        let failure = Self::of_file(what, path, &error.into());
        match fix {
            Some(fix) => failure.with_hint(fix),
            None => failure,
        }
    }

    /// The failure to listen.
    pub(crate) fn of_listening(purpose: &str, address: std::net::SocketAddr, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => Kind::Permission,
            io::ErrorKind::AddrInUse => Kind::Conflict,
            _ => Kind::Other,
        };
        Self::new(kind, format!("cannot listen {purpose} on {address}")).with_cause(error)
    }
}

impl Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for ServeError {}
