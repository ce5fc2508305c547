//! `overlay ip`: the virtual IP of an agent and nothing else, for `$(overlay ip bob)`.

use std::net::IpAddr;

use overlay_daemon::Failure;
use overlay_daemon::agent::request::AgentRecord;
use overlay_daemon::failure::ExitKind;
use serde::Serialize;

use super::whois;
use crate::arguments::agent::Ip;
use crate::columns;
use crate::session::Session;

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    name: &'a str,
    identity: &'a str,
    /// The addresses that were asked for.
    addresses: &'a [IpAddr],
}

pub(crate) fn run(session: &Session, arguments: &Ip) -> Result<(), Failure> {
    let found = whois::ask(session, &arguments.agent, &arguments.on, "ip")?;
    let agent = only(&found.agents)?;
    let addresses = chosen(agent, arguments)?;
    let answer =
        Answer { schema: "overlay.ip.v1", name: &agent.name, identity: &agent.identity, addresses: &addresses };
    session.output.result(&answer, || addresses.iter().map(|address| format!("{address}\n")).collect());
    Ok(())
}

/// The agent, if only one is meant: a script must not reach a different one.
fn only(agents: &[AgentRecord]) -> Result<&AgentRecord, Failure> {
    match agents {
        [only] => Ok(only),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|agent| {
                    format!("{} ({})", columns::agent(&agent.name, &agent.identity), columns::key(&agent.identity))
                })
                .collect();
            Err(Failure::new(ExitKind::Conflict, "more than one agent is meant")
                .with_cause(format!("they are {}", names.join(", ")))
                .with_hint("overlay ip KEY, with at least 16 characters of the key"))
        }
    }
}

/// The IPv4 address if there is one, else the IPv6 address, or what was asked for.
fn chosen(agent: &AgentRecord, arguments: &Ip) -> Result<Vec<IpAddr>, Failure> {
    let mut addresses = agent.addresses.clone();
    addresses.sort_by_key(IpAddr::is_ipv6);
    if arguments.ipv6 {
        addresses.retain(IpAddr::is_ipv6);
    }
    if !arguments.all {
        addresses.truncate(1);
    }
    if addresses.is_empty() {
        let family = if arguments.ipv6 { "IPv6" } else { "virtual" };
        let name = columns::agent(&agent.name, &agent.identity);
        return Err(Failure::new(ExitKind::NotFound, format!("{name} has no {family} address"))
            .with_hint(format!("overlay whois {name}")));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::agent::On;

    fn bob(addresses: &[&str]) -> AgentRecord {
        AgentRecord {
            name: "bob".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            tags: Vec::new(),
            attested_tags: Vec::new(),
            services: Vec::new(),
            state: "trusted".to_owned(),
            rendezvous: None,
            issued: 0,
        }
    }

    fn shown(addresses: &[&str], ipv6: bool, all: bool) -> Result<Vec<String>, ExitKind> {
        let arguments = Ip { agent: "bob".to_owned(), ipv6, all, on: On { interface: None } };
        let chosen = chosen(&bob(addresses), &arguments).map_err(|failure| failure.code)?;
        Ok(chosen.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn a_script_gets_one_address_ipv4_where_there_is_one() {
        let (both, v6): (&[&str], &[&str]) = (&["fd5c::2", "10.99.0.2"], &["fd5c::2"]);
        let list = |texts: &[&str]| Ok(texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert_eq!(shown(both, false, false), list(&["10.99.0.2"]));
        assert_eq!(shown(both, true, false), list(&["fd5c::2"]));
        assert_eq!(shown(both, false, true), list(&["10.99.0.2", "fd5c::2"]));
        assert_eq!(shown(v6, false, false), list(&["fd5c::2"]));
        assert_eq!(shown(&["10.99.0.2"], true, false), Err(ExitKind::NotFound));
        assert_eq!(shown(&[], false, true), Err(ExitKind::NotFound));
    }

    #[test]
    fn several_agents_are_none_for_a_script() {
        assert!(only(&[bob(&[])]).is_ok());
        assert_eq!(only(&[bob(&[]), bob(&[])]).expect_err("two").code, ExitKind::Conflict);
    }
}
