//! How the connection to one rendezvous stands.

/// The code of a connection that has ended.
pub(super) const LOST: &str = "lost";
/// The code of a rendezvous that is connected, but does not take our record.
const REFUSED: &str = "record_refused";

/// A connection to a rendezvous, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Connecting,
    Connected,
    Failed {
        /// Why, as one word.
        code: &'static str,
        /// Why, for people.
        cause: String,
        /// Why our record is refused, as one word, if that is what is wrong.
        refused: Option<&'static str>,
    },
}

impl Standing {
    /// There is no connection.
    pub(super) fn failed(code: &'static str, cause: String) -> Self {
        Self::Failed { code, cause, refused: None }
    }

    /// The rendezvous refuses our record.
    pub(super) fn refused(reason: &'static str, cause: String) -> Self {
        Self::Failed { code: REFUSED, cause, refused: Some(reason) }
    }

    /// The state as one word.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Failed { code, .. } => code,
        }
    }

    /// The state in one word, or the cause.
    pub(super) fn text(&self) -> String {
        self.cause().unwrap_or_else(|| self.code()).to_owned()
    }

    /// Why it does not serve us. `None`: it does, or may soon.
    pub(super) fn cause(&self) -> Option<&str> {
        match self {
            Self::Connecting | Self::Connected => None,
            Self::Failed { cause, .. } => Some(cause),
        }
    }

    /// Why it refuses our record, as one word, if it does.
    pub(super) fn refused_record(&self) -> Option<&'static str> {
        match self {
            Self::Failed { refused, .. } => *refused,
            Self::Connecting | Self::Connected => None,
        }
    }
}
