//! `overlay whois`: which agent has a virtual IP, a name or a key.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::AgentRecord;
use overlay_daemon::api::agent::AgentsAnswer;
use overlay_daemon::failure::ExitKind;

use crate::arguments::agent::{On, Whois};
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Whois) -> Result<(), Failure> {
    let answer = ask(session, &arguments.agent, &arguments.on, "whois")?;
    session.output.result(&answer, || text(&answer.agents));
    Ok(())
}

/// Asks for an agent. `verb` is what the user typed. At least one is found.
pub(super) fn ask(session: &Session, agent: &str, on: &On, verb: &str) -> Result<AgentsAnswer, Failure> {
    let client = session.client(on.interface.as_deref(), &format!("overlay {verb} {agent} -I"))?;
    let answer = session.block_on(client.whois(agent))?;
    if answer.agents.is_empty() {
        return Err(Failure::new(ExitKind::NotFound, format!("there is no agent `{}`", inert::text(agent)))
            .with_cause("no agent that this one may see has this name, key or address")
            .with_hint("overlay find lists the agents that this one may see"));
    }
    Ok(answer)
}

fn text(agents: &[AgentRecord]) -> String {
    let lines = |agent: &AgentRecord| {
        columns::labelled(&[
            ("agent", columns::agent(&agent.name, &agent.identity)),
            ("key", inert::text(&agent.identity)),
            ("addresses", columns::addresses(&agent.addresses)),
            ("state", inert::text(&agent.state)),
            ("tags", columns::tags(&agent.tags, &agent.attested_tags)),
            ("services", columns::texts(&agent.services)),
        ])
    };
    agents.iter().map(lines).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn the_whole_key_is_shown() {
        let bob = AgentRecord {
            name: "bob".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: vec!["10.99.0.2".parse().expect("IPv4"), "fd5c:1:2::2".parse().expect("IPv6")],
            tags: vec!["gpu".to_owned()],
            attested_tags: vec!["ops".to_owned()],
            services: Vec::new(),
            state: "trusted".to_owned(),
            rendezvous: None,
            issued: 0,
        };
        golden("overlay whois bob", text(std::slice::from_ref(&bob)));
        golden("two of them", text(&[bob.clone(), AgentRecord { name: "bobby\n".to_owned(), ..bob }]));
    }
}
