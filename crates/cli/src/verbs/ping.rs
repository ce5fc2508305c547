//! `overlay ping`: the round trip to a peer, by its name, its public key or a virtual IP. With `--until-direct`, until packets go
//! directly.

mod until_direct;

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use overlay_daemon::Failure;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::ping::{self, Options, Probe, Summary};
use overlay_daemon::view::{PairStatus, PathKind, PeerState, Status};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::arguments::probe::Ping;
use crate::figures::{ago, milliseconds};
use crate::peers::{self, nobodys, owner};
use crate::session::Session;
use crate::table;
use crate::verbs::path::way;
use until_direct::UntilDirect;

/// The target that an argument refers to.
#[derive(Debug, PartialEq)]
struct Target {
    ip: IpAddr,
    /// The name to show: that of the peer that the address belongs to.
    peer: String,
}

/// One line of JSON for each probe, and one with `event` = `summary`. If no probe was answered, the failure follows.
#[derive(Default, Serialize)]
struct Line {
    schema: &'static str,
    event: &'static str,
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u8>,
    /// How packets went when the answer came: only with `--until-direct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<SocketAddr>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    totals: Option<Totals>,
}

#[derive(Serialize)]
struct Totals {
    sent: u32,
    received: u32,
    loss_percent: f64,
    shortest_ms: f64,
    mean_ms: f64,
    longest_ms: f64,
}

pub(crate) fn run(session: &Session, arguments: &Ping) -> Result<(), Failure> {
    let client = session.client(arguments.interface.as_deref(), &format!("overlay ping {} -I", arguments.target))?;
    let status = session.block_on(client.status())?;
    let target = target(&arguments.target, &status)?;
    let options = Options {
        target: target.ip,
        device: Some(status.interface.name.clone()),
        count: arguments.count,
        interval: arguments.interval,
        wait: arguments.wait,
    };
    let until = match arguments.until_direct {
        true => Some(session.block_on(UntilDirect::begin(&client, &target, arguments.timeout, &status))?),
        false => None,
    };
    let probed = session.block_on(probe(session, &target, options, until));
    let (summary, until) = probed.map_err(|failure| match failure.code {
        ExitKind::NotFound => {
            let pid = client.pid().map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
            failure.with_hint(format!("sudo nsenter -n -t {pid} overlay ping {}", arguments.target))
        }
        _ => failure,
    })?;
    let path = until.as_ref().and_then(UntilDirect::primary);
    session.output.result(&totals(&target, &summary).over(path), || summary_text(&summary));
    if summary.sent > 0 && summary.received == 0 {
        return Err(no_answer(&target, &session.block_on(client.status())?));
    }
    until.map_or(Ok(()), |until| until.end(&arguments.target))
}

/// Finds the target. A peer's name or public key stands for its first single address.
fn target(argument: &str, status: &Status) -> Result<Target, Failure> {
    if let Ok(ip) = argument.parse::<IpAddr>() {
        let peer = owner(ip, status).ok_or_else(|| nobodys(ip, status))?;
        return Ok(Target { ip, peer: table::label(peer) });
    }
    let peer = peers::named(argument, status)?;
    let single = peer.allowed_ips.iter().find(|prefix| prefix.prefix_len() == prefix.max_prefix_len());
    let single = single.ok_or_else(|| {
        Failure::new(ExitKind::NotFound, format!("peer `{argument}` has no single address to ping"))
            .with_cause("its allowed_ips contain no /32 and no /128")
            .with_hint("overlay ping IP, with an address within its allowed_ips")
    })?;
    Ok(Target { ip: single.addr(), peer: table::label(peer) })
}

/// Prints the outcome of each probe as it becomes known, until the count is reached, the user presses Ctrl-C, or there is a
/// direct path where one is waited for.
async fn probe(
    session: &Session,
    target: &Target,
    options: Options,
    mut until: Option<UntilDirect>,
) -> Result<(Summary, Option<UntilDirect>), Failure> {
    session.output.say(&format!("pinging {}", name(target)));
    let (decided, mut probes) = mpsc::channel(16);
    let (ended, end) = oneshot::channel();
    // This is a separate thread, not one of the runtime's, so that Ctrl-C does not have to wait for an answer.
    std::thread::spawn(move || {
        let asked = ping::run(&options, |probe| match decided.blocking_send(probe) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        let _ = ended.send(asked);
    });
    let mut summary = Summary::default();
    let deadline = until.as_ref().map(UntilDirect::deadline);
    loop {
        tokio::select! {
            probe = probes.recv() => match probe {
                Some(probe) => {
                    summary.add(&probe);
                    if let Some(until) = &mut until {
                        until.look().await?;
                    }
                    let path = until.as_ref().and_then(UntilDirect::primary).filter(|_| probe.answer.is_some());
                    session.output.result(&line(target, &probe).over(path), || text(target, &probe, path));
                    if path.is_some_and(|path| path.kind == PathKind::Direct) {
                        return Ok((summary, until));
                    }
                }
                None => break,
            },
            () = until_direct::reached(deadline) => return Ok((summary, until)),
            _ = tokio::signal::ctrl_c() => return Ok((summary, until)),
        }
    }
    end.await.unwrap_or(Ok(()))?;
    Ok((summary, until))
}

/// The failure when no probe was answered. The peer's state tells more than the silence.
fn no_answer(target: &Target, status: &Status) -> Failure {
    let failure = Failure::new(ExitKind::Timeout, format!("{} does not answer", name(target)));
    // A reload may have removed the peer in the meantime.
    let Some(peer) = owner(target.ip, status) else { return nobodys(target.ip, status) };
    let handshake = match peer.latest_handshake_age_seconds {
        Some(age) => format!("its last handshake was {}", ago(age)),
        None => "there was no handshake with it".to_owned(),
    };
    let guess = if peer.state == PeerState::Connected { "; it may not allow `icmp`" } else { "" };
    failure
        .with_cause(format!("its state is \"{}\", and {handshake}{guess}", table::state(peer.state)))
        .with_hint("overlay status")
}

fn totals(target: &Target, summary: &Summary) -> Line {
    let totals = Totals {
        sent: summary.sent,
        received: summary.received,
        loss_percent: summary.loss_percent(),
        shortest_ms: summary.shortest.as_secs_f64() * 1e3,
        mean_ms: summary.mean().as_secs_f64() * 1e3,
        longest_ms: summary.longest.as_secs_f64() * 1e3,
    };
    Line { event: "summary", totals: Some(totals), ..Line::about(target) }
}

impl Line {
    /// The same, with the path that packets took.
    fn over(self, path: Option<&PairStatus>) -> Self {
        Self { path: path.map(|path| path.kind), remote: path.map(|path| path.remote), ..self }
    }

    fn about(target: &Target) -> Self {
        Self { schema: "overlay.ping.v1", ip: Some(target.ip), peer: Some(target.peer.clone()), ..Self::default() }
    }
}

fn line(target: &Target, probe: &Probe) -> Line {
    let about = Line { sequence: Some(probe.sequence), ..Line::about(target) };
    match probe.answer {
        Some(answer) => Line {
            event: "answer",
            round_trip_ms: Some(answer.round_trip.as_secs_f64() * 1e3),
            ttl: answer.ttl,
            ..about
        },
        None => Line { event: "loss", ..about },
    }
}

fn text(target: &Target, probe: &Probe, path: Option<&PairStatus>) -> String {
    let over = path.map(|path| format!(" {}", way(path.kind, path.remote))).unwrap_or_default();
    match probe.answer {
        Some(answer) => {
            let ttl = answer.ttl.map(|ttl| format!("ttl={ttl} ")).unwrap_or_default();
            let time = milliseconds(answer.round_trip);
            format!("answer from {}: seq={} {ttl}time={time}{over}", name(target), probe.sequence)
        }
        None => format!("no answer from {}: seq={}", name(target), probe.sequence),
    }
}

fn summary_text(summary: &Summary) -> String {
    let Summary { sent, received, .. } = summary;
    let counts = format!("{sent} sent, {received} answered, {:.0}% lost", summary.loss_percent());
    if *received == 0 {
        return counts;
    }
    let [shortest, mean, longest] = [summary.shortest, summary.mean(), summary.longest].map(milliseconds);
    format!("{counts}; round trip {shortest} at least, {mean} on average, {longest} at most")
}

fn name(target: &Target) -> String {
    format!("{} ({})", target.peer, target.ip)
}

#[cfg(test)]
mod tests;
