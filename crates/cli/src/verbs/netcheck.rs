//! `overlay netcheck`: whether UDP works here, from which addresses this host is seen, and what its NAT does.

use std::net::SocketAddr;
use std::process::ExitCode;

use overlay_daemon::Failure;
use overlay_daemon::config::Config;
use overlay_daemon::failure::ExitKind;
use overlay_daemon::netcheck::{
    self, Asked, Checked, FamilyReport, Filtering, MAX_SERVERS, Mapping, Outcome, Server, Standing,
};
use serde::Serialize;

use crate::arguments::probe::Netcheck;
use crate::columns;
use crate::figures::milliseconds;
use crate::inert;
use crate::session::Session;
use crate::verbs::up;

#[derive(Serialize)]
struct Shown {
    schema: &'static str,
    /// Absent if nothing could be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    udp: Option<bool>,
    /// As in `ipv4`, or as in `ipv6` if IPv4 does not work.
    mapping: &'static str,
    filtering: &'static str,
    ipv4: Family,
    ipv6: Family,
    servers: Vec<ServerShown>,
}

#[derive(Serialize)]
struct Family {
    state: &'static str,
    mapped: Vec<SocketAddr>,
    mapping: &'static str,
    filtering: &'static str,
}

/// A server, and one entry for each of its addresses.
#[derive(Serialize)]
struct ServerShown {
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    addresses: Vec<Address>,
}

#[derive(Serialize)]
struct Address {
    address: SocketAddr,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapped: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_trip_ms: Option<f64>,
    /// The number of the error with which the server refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

pub(crate) fn run(session: &Session, arguments: &Netcheck) -> Result<ExitCode, Failure> {
    let servers = servers(arguments)?;
    session.output.say("asking, which takes up to 12 seconds");
    let checked = session.block_on(async {
        let checked = netcheck::run(&servers).await;
        checked.map_err(|error| Failure::new(ExitKind::Other, "cannot ask").with_cause(error))
    })?;
    session.output.result(&shown(&checked), || text(&checked));
    Ok(match checked.report.udp() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) | None => ExitCode::from(ExitKind::Degraded.exit_code()),
    })
}

/// The servers that were given, or else every rendezvous of the config.
fn servers(arguments: &Netcheck) -> Result<Vec<Server>, Failure> {
    let count = arguments.server.len();
    if count > MAX_SERVERS {
        return Err(Failure::new(ExitKind::Usage, format!("{count} servers are too many"))
            .with_cause(format!("a check asks at most {MAX_SERVERS}")));
    }
    if count > 0 {
        return Ok(arguments.server.clone());
    }
    let path = up::config_path(arguments.config.as_deref(), "netcheck")?;
    let agent = Config::load(&path)?.agent.ok_or_else(|| {
        Failure::new(ExitKind::Config, format!("`{}` names no rendezvous to ask", path.display()))
            .with_cause("it has no section [agent]")
            .with_hint("overlay netcheck --server HOST:PORT")
    })?;
    Ok(agent.rendezvous.into_iter().map(|url| Server { host: url.host, port: url.port }).collect())
}

fn shown(checked: &Checked) -> Shown {
    let (v4, v6) = (&checked.report.v4, &checked.report.v6);
    let first = if v4.standing != Standing::Works && v6.standing == Standing::Works { v6 } else { v4 };
    let Family { mapping, filtering, .. } = family(first);
    Shown {
        schema: "overlay.netcheck.v1",
        udp: checked.report.udp(),
        mapping,
        filtering,
        ipv4: family(v4),
        ipv6: family(v6),
        servers: checked.servers.iter().map(|asked| server(asked, checked)).collect(),
    }
}

fn family(report: &FamilyReport) -> Family {
    Family {
        state: match report.standing {
            Standing::Works => "works",
            Standing::Silent => "silent",
            Standing::Unreachable => "unreachable",
            Standing::Untried => "untried",
        },
        mapped: report.mapped.clone(),
        mapping: match report.mapping {
            Mapping::EndpointIndependent => "endpoint_independent",
            Mapping::AddressDependent => "address_dependent",
            Mapping::AddressAndPortDependent => "address_and_port_dependent",
            Mapping::Unknown => "unknown",
        },
        filtering: match report.filtering {
            Filtering::EndpointIndependent => "endpoint_independent",
            Filtering::AddressDependent => "address_dependent",
            Filtering::AddressAndPortDependent => "address_and_port_dependent",
            Filtering::Unknown => "unknown",
        },
    }
}

fn server(asked: &Asked, checked: &Checked) -> ServerShown {
    let addresses = asked.addresses.iter().map(|address| {
        let (state, mapped, round_trip, code) = match outcome(*address, checked) {
            Outcome::Answered { mapped, round_trip } => ("answered", Some(mapped), Some(round_trip), None),
            Outcome::Refused { code } => ("refused", None, None, Some(code)),
            Outcome::Unreachable => ("unreachable", None, None, None),
            Outcome::Asking | Outcome::NotChanged | Outcome::Silent => ("silent", None, None, None),
        };
        let round_trip_ms = round_trip.map(|time| time.as_micros() as f64 / 1e3);
        Address { address: *address, state, mapped, round_trip_ms, code }
    });
    ServerShown {
        host: asked.server.host.clone(),
        port: asked.server.port,
        error: asked.error.clone(),
        addresses: addresses.collect(),
    }
}

fn outcome(address: SocketAddr, checked: &Checked) -> Outcome {
    let report = if address.is_ipv4() { &checked.report.v4 } else { &checked.report.v6 };
    let found = report.servers.iter().find(|(server, _)| *server == address);
    found.map_or(Outcome::Silent, |(_, outcome)| *outcome)
}

fn text(checked: &Checked) -> String {
    let udp = match checked.report.udp() {
        Some(true) => "works",
        Some(false) => "no answer: something between here and the servers drops UDP, or they do not speak STUN",
        None => "nothing could be sent",
    };
    let mut lines = vec![("UDP", udp.to_owned())];
    for (name, report) in [("IPv4", &checked.report.v4), ("IPv6", &checked.report.v6)] {
        lines.push((name, standing(report)));
        if report.standing == Standing::Works {
            lines.push((" mapping", mapping(report.mapping).to_owned()));
            lines.push((" filtering", filtering(report.filtering).to_owned()));
        }
    }
    let rows = checked.servers.iter().flat_map(|asked| rows(asked, checked));
    format!("{}\n\n{}", columns::labelled(&lines), columns::table(["SERVER", "ADDRESS", "ROUND TRIP"], rows))
}

fn standing(report: &FamilyReport) -> String {
    match report.standing {
        Standing::Works if report.mapped.is_empty() => "works, but no server told an address".to_owned(),
        Standing::Works => {
            let mapped: Vec<_> = report.mapped.iter().map(ToString::to_string).collect();
            format!("seen as {}", mapped.join(", "))
        }
        Standing::Silent => "no answer".to_owned(),
        Standing::Unreachable => "this host cannot send there".to_owned(),
        Standing::Untried => "no server has such an address".to_owned(),
    }
}

fn mapping(mapping: Mapping) -> &'static str {
    match mapping {
        Mapping::EndpointIndependent => "endpoint independent: every peer sees the same address",
        Mapping::AddressDependent => "address dependent: each host that we send to sees a different port",
        Mapping::AddressAndPortDependent => {
            "address and port dependent: every peer sees a different port, so most tunnels need a relay"
        }
        Mapping::Unknown => "unknown: it takes two servers that answer, or one with two addresses",
    }
}

fn filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "endpoint independent: everybody can send to that address",
        Filtering::AddressDependent => "address dependent: only hosts that we have sent to can send to us",
        Filtering::AddressAndPortDependent => {
            "address and port dependent: only addresses and ports that we have sent to can send to us"
        }
        Filtering::Unknown => "unknown: it takes a server with two addresses (RFC 5780)",
    }
}

fn rows(asked: &Asked, checked: &Checked) -> Vec<[String; 3]> {
    let Server { host, port } = &asked.server;
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let name = inert::text(&name);
    if let Some(error) = &asked.error {
        return vec![[name, "-".to_owned(), inert::text(error)]];
    }
    let row = |address: &SocketAddr| {
        let said = match outcome(*address, checked) {
            Outcome::Answered { round_trip, .. } => milliseconds(round_trip),
            Outcome::Refused { code } => format!("refused with error {code}"),
            Outcome::Unreachable => "cannot send there".to_owned(),
            Outcome::Asking | Outcome::NotChanged | Outcome::Silent => "no answer".to_owned(),
        };
        [name.clone(), address.ip().to_string(), said]
    };
    asked.addresses.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
