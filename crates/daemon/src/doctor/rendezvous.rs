//! Judges the rendezvous: whether it can be reached, is the pinned one, and takes this agent.

use std::time::Duration;

use overlay_rendezvous::channel::Refusal;

use super::commands::Commands;
use super::finding::{Code, Finding, Severity};
use crate::agent::KEY_CLONE;
use crate::agent::connection::ConnectError;
use crate::agent::request::RendezvousHealth;
use crate::config::RendezvousUrl;

/// An attempt to connect, as somebody whom the rendezvous does not know.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) url: RendezvousUrl,
    pub(super) outcome: Result<Answered, Trouble>,
}

/// The rendezvous has proved that it is the pinned one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) took: Duration,
    /// How far its clock, which it has signed, is ahead of ours, in milliseconds.
    pub(super) ahead: i64,
}

/// Why it has not.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Its name has no address.
    Name(String),
    Connect(ConnectError),
}

/// What the daemon says of its own connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Daemon {
    /// The agent's name.
    pub(super) name: String,
    pub(super) rendezvous: Vec<RendezvousHealth>,
}

/// How many seconds a rendezvous may take to answer. It does within a moment, unless its store does not.
const STALLS: u64 = 10;

/// Where the right URL stands.
const SERVE: &str = "`overlay rendezvous serve`";

/// Judges both. What keeps the agent from one of several rendezvous is a warning.
pub(super) fn judge(tried: &[Tried], daemon: Option<&Daemon>, commands: &Commands) -> Vec<Finding> {
    let standings = daemon.map(|daemon| &daemon.rendezvous[..]).unwrap_or_default();
    if standings.iter().any(|standing| standing.connection == KEY_CLONE) {
        return vec![clone()];
    }
    let standing = |tried: &Tried| standings.iter().find(|standing| standing.url == tried.url.to_string());
    let serves =
        |it: &Tried| it.outcome.is_ok() && standing(it).is_none_or(|standing| standing.connection == "connected");
    let severity = if tried.iter().any(serves) { Severity::Warning } else { Severity::Error };
    let mut findings: Vec<_> = tried.iter().filter_map(|tried| judge_attempt(tried, severity)).collect();
    for standing in standings {
        let answers = tried.iter().any(|it| it.outcome.is_ok() && it.url.to_string() == standing.url);
        let agent = daemon.map_or("", |daemon| &daemon.name);
        findings.extend(judge_daemon(standing, agent, answers, commands, severity));
    }
    findings
}

/// The URL without its keys.
fn place_of(url: &str) -> &str {
    url.split('#').next().unwrap_or(url)
}

fn clone() -> Finding {
    Finding::new(
        Code::KeyClone,
        Severity::Error,
        "a different host runs with the identity of this agent, so this one has stopped",
        "the state folder, or the disk with it, was copied, and the copy was started later",
        "give one of the two an identity of its own: remove its state folder and its config, then: sudo overlay init. To go on here, \
         stop the other one and start this daemon again",
    )
}

fn judge_attempt(tried: &Tried, severity: Severity) -> Option<Finding> {
    let trouble = tried.outcome.as_ref().err()?;
    let url = &tried.url;
    let (host, place) = (&url.host, format!("{} port {}", url.host, url.port));
    let serve =
        format!("check that `overlay rendezvous serve` runs there, and that a firewall lets TCP port {} in", url.port);
    let error = |code, what: String, cause: String, fix: String| Some(Finding::new(code, severity, what, cause, fix));
    match trouble {
        Trouble::Name(cause) => error(
            Code::RendezvousName,
            format!("the name of the rendezvous, `{host}`, has no address"),
            cause.clone(),
            format!("check the name in `rendezvous` of the config, and the name servers of this host: getent hosts {host}"),
        ),
        Trouble::Connect(ConnectError::Unreachable(cause)) => error(
            Code::RendezvousUnreachable,
            format!("nobody answers at the rendezvous, {place}"),
            cause.to_string(),
            serve,
        ),
        Trouble::Connect(ConnectError::Silent(patience)) => error(
            Code::RendezvousSilent,
            format!("something at {place} accepts the connection, but does not speak"),
            format!("it said nothing for {} s: the program hangs, or a different one listens there", patience.as_secs_f32()),
            format!("on its host, see which program listens, and start it again: sudo ss -ltnp 'sport = :{}'", url.port),
        ),
        Trouble::Connect(ConnectError::NotARendezvous(cause)) => error(
            Code::NotARendezvous,
            format!("what answers at {place} is not a rendezvous"),
            cause.clone(),
            format!("check host and port in `rendezvous` of the config: they are those of the line that {SERVE} prints"),
        ),
        Trouble::Connect(ConnectError::WrongRendezvous { offered }) => error(
            Code::WrongRendezvousKey,
            format!("the rendezvous at {place} has a different key than the config says"),
            match offered {
                Some(offered) => format!("the config says {}, and it has {offered}", url.rendezvous),
                None => format!("it does not prove to have {}", url.rendezvous),
            },
            format!(
                "compare it with the line that {SERVE} prints on its host: if that line has the key that was offered, write it into \
                 `rendezvous` of the config; if not, somebody pretends to be the rendezvous"
            ),
        ),
        Trouble::Connect(ConnectError::BadAuth(Refusal::WrongNetwork) | ConnectError::Denied(Some(Refusal::WrongNetwork))) => {
            error(
                Code::WrongNetworkKey,
                format!("the rendezvous at {place} serves a different network than the config says"),
                format!("the config says that the network has the key {}", url.network),
                format!("write the line that {SERVE} prints into `rendezvous` of the config"),
            )
        }
        Trouble::Connect(ConnectError::BadAuth(Refusal::Relayed)) => error(
            Code::RendezvousIntercepted,
            format!("somebody between this host and the rendezvous at {place} opens the connection"),
            "the proof of the rendezvous was made for a different connection".to_owned(),
            "use a different network: what opens the connection can read and change nothing, but keeps it from coming about".to_owned(),
        ),
        Trouble::Connect(
            ConnectError::BadAuth(Refusal::UnknownVersion) | ConnectError::Denied(Some(Refusal::UnknownVersion)),
        ) => error(
            Code::RendezvousVersion,
            format!("the rendezvous at {place} speaks a different version of the protocol"),
            "this program and the rendezvous have no version in common".to_owned(),
            "bring the older one of both up to date; overlay version shows this one".to_owned(),
        ),
        Trouble::Connect(refused @ (ConnectError::BadAuth(_) | ConnectError::Denied(_))) => error(
            Code::RendezvousRefuses,
            format!("there is no connection to the rendezvous at {place}"),
            refused.to_string(),
            "ask its operator: its metrics say why connections end".to_owned(),
        ),
        Trouble::Connect(ConnectError::Local(cause)) => error(
            Code::RendezvousRefuses,
            "this host cannot connect to the rendezvous".to_owned(),
            cause.clone(),
            "see the cause: it is something on this host".to_owned(),
        ),
    }
}

fn judge_daemon(
    standing: &RendezvousHealth,
    agent: &str,
    answers: bool,
    commands: &Commands,
    severity: Severity,
) -> Option<Finding> {
    let place = place_of(&standing.url);
    let cause = standing.cause.clone().unwrap_or_default();
    if let Some(reason) = standing.refused_record.as_deref() {
        let (code, cause, fix) = match reason {
            "name_taken" => (
                Code::NameTaken,
                "name_taken: a different agent has registered this name, or has it for 30 more days after it has gone"
                    .to_owned(),
                "write a different `name` below [agent] in the config, then start the daemon again; or ask the operator of the network \
                 to release the name",
            ),
            "not_a_member" => {
                (Code::NotAMember, cause, "ask the operator of the network for a token, then: sudo overlay join FILE")
            }
            "clock" => (
                Code::RecordRefused,
                "clock: its clock and that of this host differ too much".to_owned(),
                "set the clock that is wrong: see the finding about clocks",
            ),
            _ => (Code::RecordRefused, cause, "ask the operator of the network"),
        };
        let what = format!("the rendezvous {place} does not register this agent, `{agent}`");
        return Some(Finding::new(code, severity, what, cause, fix));
    }
    let not_connected = |what: &str, cause: String, fix: String| {
        let what = format!("the rendezvous {place} answers, but the daemon has no connection{what}");
        Some(Finding::new(Code::NotConnected, Severity::Warning, what, cause, fix))
    };
    match standing.connection.as_str() {
        "connected" => {
            standing.unanswered_for.filter(|seconds| *seconds >= STALLS).map(|seconds| stalls(place, seconds))
        }
        // The doctor's own attempt has said why.
        _ if !answers => None,
        "connecting" => not_connected(
            " yet",
            "it is connecting".to_owned(),
            "wait half a minute and look again: overlay doctor".to_owned(),
        ),
        _ => not_connected(
            "",
            cause,
            format!("it tries again within half a minute; if it does not get there: {}", commands.restart()),
        ),
    }
}

/// Tunnels, and what the rendezvous knows already, need no store.
fn stalls(place: &str, seconds: u64) -> Finding {
    Finding::new(
        Code::RendezvousStalls,
        Severity::Warning,
        format!("the rendezvous {place} is connected, but has not answered a call for {seconds} s"),
        "what keeps its registry does not answer it: an etcd cluster without a majority, or a disk that hangs",
        "ask its operator: on its host, `overlay rendezvous stats` says since when the store is silent. What waits is done once it answers",
    )
}

/// How it answers, for people.
pub(super) fn told(tried: &Tried) -> String {
    let url = &tried.url.url;
    match &tried.outcome {
        Ok(answered) => format!("{url} answers after {} ms", answered.took.as_millis()),
        Err(_) => format!("no connection to {url}"),
    }
}
