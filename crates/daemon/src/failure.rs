//! Why a verb of the program failed, in the words that the user reads.
//!
//! An error has three lines: `error:` says what went wrong, `cause:` says why, and `hint:` gives the exact next
//! command. The exit code tells the kind, so that scripts can act on it. The same content is sent as JSON
//! ([`FailureBody`]) over the local API and printed with `--json`. Rendering it on a terminal is left to the program.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of failure it is: the exit code of the program, and a stable name in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitKind {
    /// Any other failure, such as a host without `/dev/net/tun`.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No daemon is running here, or none of that name.
    NoDaemon = 3,
    /// The caller lacks a privilege.
    Permission = 4,
    /// The config file is missing or wrong.
    Config = 5,
    /// The named thing does not exist.
    NotFound = 6,
    /// Trust or policy forbids it.
    Refused = 7,
    /// There was no answer in time.
    Timeout = 8,
    /// The daemon is already running, or an interface, port or address is taken.
    Conflict = 9,
    /// Some of it works, but not all.
    Degraded = 10,
}

impl ExitKind {
    /// All kinds, ordered by exit code.
    pub const ALL: [Self; 10] = [
        Self::Other,
        Self::Usage,
        Self::NoDaemon,
        Self::Permission,
        Self::Config,
        Self::NotFound,
        Self::Refused,
        Self::Timeout,
        Self::Conflict,
        Self::Degraded,
    ];

    /// The exit code of the program, 1..=10.
    pub const fn exit_code(self) -> u8 {
        self as u8
    }

    /// The stable name in JSON.
    pub const fn code_name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::NoDaemon => "no_daemon",
            Self::Permission => "permission",
            Self::Config => "config",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::Degraded => "degraded",
        }
    }

    /// Returns the kind with this exit code, or `None` for 0 and everything above 10.
    pub fn from_exit_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.exit_code() == code)
    }
}

/// A failure as reported to the user. No field ever contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, which determines the exit code.
    pub code: ExitKind,
    /// What went wrong: one line, lower case, no full stop.
    pub error: String,
    /// Why, in one line.
    pub cause: Option<String>,
    /// What to do about it, in one line: the exact command if there is one.
    pub hint: Option<String>,
    /// Text shown unchanged before the three lines, for example the wrong places in a config file.
    pub details: Option<String>,
}

impl Failure {
    /// Creates a failure that says only what went wrong.
    pub fn new(code: ExitKind, error: impl Into<String>) -> Self {
        Self { code, error: error.into(), cause: None, hint: None, details: None }
    }

    /// Adds the cause.
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Adds what to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds text that is shown before the three lines.
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }
}

#[cfg(test)]
impl Failure {
    /// Everything a person is told, without the details: for golden files.
    pub(crate) fn lines(&self) -> String {
        let line = |label: &str, text: &Option<String>| text.as_ref().map(|text| format!("\n{label}: {text}"));
        let [cause, hint] = [line("cause", &self.cause), line("hint", &self.hint)].map(Option::unwrap_or_default);
        format!("error: {}{cause}{hint}", self.error)
    }
}

impl fmt::Display for Failure {
    /// Formats one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// A failure as JSON, schema `overlay.error.v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureBody {
    /// The name of this JSON schema.
    #[schemars(extend("const" = Self::SCHEMA))]
    pub schema: Cow<'static, str>,
    /// Always `error`.
    pub status: Cow<'static, str>,
    /// The kind of failure.
    #[schemars(extend("enum" = ExitKind::ALL.map(ExitKind::code_name)))]
    pub code: Cow<'static, str>,
    /// The exit code of a program that fails with it.
    #[schemars(range(min = 1, max = 10))]
    pub exit: u8,
    /// What went wrong, in one line.
    pub message: String,
    /// Why, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do about it, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Text to show unchanged before the rest, for example the wrong places in a config file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<String>,
}

impl FailureBody {
    /// The name of this JSON schema.
    pub const SCHEMA: &'static str = "overlay.error.v1";
}

impl From<Failure> for FailureBody {
    fn from(failure: Failure) -> Self {
        Self {
            schema: Self::SCHEMA.into(),
            status: "error".into(),
            code: failure.code.code_name().into(),
            exit: failure.code.exit_code(),
            message: failure.error,
            cause: failure.cause,
            hint: failure.hint,
            details: failure.details,
        }
    }
}

impl From<FailureBody> for Failure {
    /// A kind that this build does not know becomes [`ExitKind::Other`].
    fn from(body: FailureBody) -> Self {
        Self {
            code: ExitKind::from_exit_code(body.exit).unwrap_or(ExitKind::Other),
            error: body.message,
            cause: body.cause,
            hint: body.hint,
            details: body.details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_numbers() {
        let documented: Vec<(u8, &str)> =
            ExitKind::ALL.into_iter().map(|kind| (kind.exit_code(), kind.code_name())).collect();
        assert_eq!(
            documented,
            [
                (1, "other"),
                (2, "usage"),
                (3, "no_daemon"),
                (4, "permission"),
                (5, "config"),
                (6, "not_found"),
                (7, "refused"),
                (8, "timeout"),
                (9, "conflict"),
                (10, "degraded"),
            ]
        );
        assert_eq!(ExitKind::from_exit_code(0), None);
        assert_eq!(ExitKind::from_exit_code(11), None);
    }

    #[test]
    fn a_failure_has_the_documented_json_and_leaves_out_what_it_does_not_know() {
        let failure = Failure::new(ExitKind::NoDaemon, "no daemon is running").with_hint("sudo overlay up config.toml");
        let json = serde_json::to_string(&FailureBody::from(failure)).expect("plain data");
        assert_eq!(
            json,
            r#"{"schema":"overlay.error.v1","status":"error","code":"no_daemon","exit":3,"message":"no daemon is running","hint":"sudo overlay up config.toml"}"#
        );
    }
}
