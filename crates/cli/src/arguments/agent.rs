//! The arguments of the verbs that ask an agent, and how scopes and durations are written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use overlay_daemon::agent::decisions_log::MAX_LISTED;
use overlay_daemon::agent::explain::Opening;
use overlay_daemon::api::agent::MAX_LIFETIME;
use overlay_daemon::config::check_scope;
use overlay_wire::signed::MAX_REASON_LEN;

/// The word for an empty list of scopes.
pub(crate) const NONE: &str = "none";

/// The agent that is asked.
#[derive(Debug, Args)]
pub(crate) struct On {
    /// Name of the interface; by default, the only one that is running
    #[arg(short = 'I', long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The file that holds the token; - is stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Handshake {
    /// Name or key of an agent, or NAME@KEYPREFIX; 16 characters of the key are enough
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,

    /// Why, for the people who decide there
    #[arg(value_name = "REASON", default_value = "", hide_default_value = true, value_parser = reason)]
    pub(crate) reason: String,

    /// What to open there: any, icmp, tcp, udp, tcp/22, udp/8000-8010; may be repeated
    #[arg(long, value_name = "SCOPE", value_parser = wanted)]
    pub(crate) want: Vec<String>,

    /// What the peer may open here, or `none`; by default, what the config says; may be repeated
    #[arg(long, value_name = "SCOPE", value_parser = allowed)]
    pub(crate) allow: Vec<String>,

    /// How long the grant lasts, as in 30m, 24h or 7d; by default, until `untrust`
    #[arg(long = "for", value_name = "DURATION", value_parser = lifetime)]
    pub(crate) lifetime: Option<u64>,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// Name or key of an agent that has asked, or that is trusted already
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,

    /// What the peer may open here, or `none`; by default, what it asked for; may be repeated
    #[arg(long, value_name = "SCOPE", value_parser = allowed)]
    pub(crate) allow: Vec<String>,

    /// How long the grant lasts, as in 30m, 24h or 7d; by default, until `untrust`
    #[arg(long = "for", value_name = "DURATION", value_parser = lifetime)]
    pub(crate) lifetime: Option<u64>,

    #[command(flatten)]
    pub(crate) on: On,
}

/// The peer of `reject` and `untrust`.
#[derive(Debug, Args)]
pub(crate) struct Peer {
    /// Name or key of an agent
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Agents {
    /// The directory: every agent that this one may see
    #[arg(long)]
    pub(crate) all: bool,

    /// The directory: only agents that claim this tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,

    /// The directory: only agents that offer a service of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,

    /// The directory: only agents whose name, tags or services contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) search: Option<String>,

    /// The directory: how many agents to show; by default, 50
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) limit: Option<u16>,

    /// The directory: start after this key, which is printed under the page before
    #[arg(long, value_name = "KEY")]
    pub(crate) after: Option<String>,

    #[command(flatten)]
    pub(crate) on: On,
}

impl Agents {
    /// Whether the directory is wanted.
    pub(crate) fn is_directory(&self) -> bool {
        let Self { all, tag, service, search, after, limit, .. } = self;
        *all || limit.is_some() || [tag, service, search, after].into_iter().any(Option::is_some)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Find {
    /// Name of an agent; by default, all that this one may see
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Only agents that claim this tag
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Whois {
    /// Virtual IP, name or key of an agent
    #[arg(value_name = "ADDRESS|NAME|KEY")]
    pub(crate) agent: String,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Ip {
    /// Name or key of an agent
    #[arg(value_name = "NAME")]
    pub(crate) agent: String,

    /// Print the IPv6 address
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,

    /// Print every address, one on a line
    #[arg(short, long, conflicts_with = "ipv6")]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub(crate) struct Trust {
    #[command(subcommand)]
    pub(crate) verb: Option<TrustVerb>,

    /// The whole key of an agent, as `overlay agents` shows it there
    #[arg(value_name = "KEY", required = true)]
    pub(crate) peer: Option<String>,

    /// What the peer may open here, or `none`; by default, what the config says; may be repeated
    #[arg(long, value_name = "SCOPE", value_parser = allowed)]
    pub(crate) allow: Vec<String>,

    /// How long the grant lasts from now on, as in 30m, 24h or 7d; by default, until `untrust`
    #[arg(long = "for", value_name = "DURATION", value_parser = lifetime)]
    pub(crate) lifetime: Option<u64>,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustVerb {
    /// Print one code for this agent and a peer, which is the same on both sides
    ///
    /// Compare the code with the one that `overlay trust verify` prints on the other host, over a channel that you trust.
    /// If both are the same, each side has the other's key. If not, somebody stands between you.
    Verify(Peer),

    /// Say that a state that was restored is the newest one
    ///
    /// After a restore, what this agent has granted is held until its rendezvous says what was taken back since. If it cannot
    /// say so, look at `overlay agents`, take back what should not be there with `overlay untrust`, and confirm the rest.
    Confirm(On),
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The agent that opens: a name, a key, a virtual IP, or `self`
    #[arg(value_name = "SRC")]
    pub(crate) from: String,

    /// The agent at which it opens; one of both is this agent
    #[arg(value_name = "DST")]
    pub(crate) to: String,

    /// What it opens: icmp, tcp/22, udp/53, or the number of an IP protocol
    #[arg(value_name = "PROTO/PORT", value_parser = opening)]
    pub(crate) what: String,

    #[command(flatten)]
    pub(crate) on: On,
}

#[derive(Debug, Args)]
pub(crate) struct Decisions {
    /// Only decisions about this peer
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,

    /// How many, the newest last; at most 1000
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = count)]
    pub(crate) last: usize,

    #[command(flatten)]
    pub(crate) on: On,
}

/// Parses how many decisions are listed.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=MAX_LISTED) => Ok(count),
        _ => Err(format!("give a number from 1 to {MAX_LISTED}")),
    }
}

/// Parses what is opened.
fn opening(text: &str) -> Result<String, String> {
    match Opening::parse(text) {
        Ok(opening) => Ok(opening.to_string()),
        Err(failure) => Err(failure.hint.unwrap_or(failure.error)),
    }
}

fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        0..=MAX_REASON_LEN => Ok(text.to_owned()),
        length => Err(format!("it has {length} bytes; {MAX_REASON_LEN} are the most")),
    }
}

/// Parses what this agent would like to open.
fn wanted(text: &str) -> Result<String, String> {
    if text == NONE {
        return Err("leave --want out to ask for nothing".to_owned());
    }
    scope(text)
}

/// Parses what the peer may open.
fn allowed(text: &str) -> Result<String, String> {
    if text == NONE { Ok(text.to_owned()) } else { scope(text) }
}

fn scope(text: &str) -> Result<String, String> {
    match check_scope(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(problem) => Err(match problem.hint {
            Some(hint) => format!("{}; {hint}", problem.message),
            None => problem.message,
        }),
    }
}

/// Parses a duration: a number and a unit. The result is in seconds.
pub(super) fn lifetime(text: &str) -> Result<u64, String> {
    const EXAMPLES: &str = "write a number and a unit, as in 30m, 24h or 7d";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "" if digits > 0 => return Err(format!("it has no unit; did you mean {number}h?")),
        _ => return Err(EXAMPLES.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| EXAMPLES.to_owned())?;
    match number.checked_mul(seconds) {
        Some(0) => Err("nothing ends at once; write at least 1s".to_owned()),
        Some(lifetime) if lifetime <= MAX_LIFETIME => Ok(lifetime),
        _ => Err("a hundred years (36500d) are the most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let taken = [("1s", 1), ("30m", 1_800), ("30min", 1_800), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600)];
        for (text, seconds) in taken {
            assert_eq!(lifetime(text), Ok(seconds), "{text}");
        }
        assert_eq!(lifetime("36500d"), Ok(MAX_LIFETIME));
        for text in
            ["", "h", "0h", "30", "-1h", "+1h", "1.5h", "1 h", "1h30m", "36501d", "99999999999999999999d", "7D", "1y"]
        {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn scopes_are_those_of_the_config_and_any_and_none_where_it_means_something() {
        for text in ["any", "icmp", "tcp", "tcp/22", "udp/8000-8010", "47"] {
            assert!(wanted(text).is_ok() && allowed(text).is_ok(), "{text}");
        }
        assert!(allowed("none").is_ok() && wanted("none").is_err());
        for text in ["tcp/22,80", "all", "22", "443", "", "NONE", "tcp/0"] {
            // 22 is a protocol: XNS IDP.
            assert_eq!(allowed(text).is_ok(), text == "22", "{text}");
        }
    }

    #[test]
    fn a_reason_has_at_most_256_bytes() {
        assert!(reason(&"ü".repeat(128)).is_ok() && reason(&"ü".repeat(129)).is_err());
    }
}
