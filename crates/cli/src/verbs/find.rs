//! `overlay find`: looks for agents at the rendezvous, by name or by tag.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::{self, AgentRecord};

use crate::arguments::agent::Find;
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &Find) -> Result<(), Failure> {
    let command = match &arguments.name {
        Some(name) => format!("overlay find {name} -I"),
        None => "overlay find -I".to_owned(),
    };
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let find = request::Find { name: arguments.name.clone(), tag: arguments.tag.clone() };
    let answer = session.block_on(client.find_agents(&find))?;
    session.output.result(&answer, || text(&answer.agents));
    Ok(())
}

fn text(agents: &[AgentRecord]) -> String {
    if agents.is_empty() {
        return "no agents".to_owned();
    }
    let row = |agent: &AgentRecord| {
        [
            columns::agent(&agent.name, &agent.identity),
            columns::key(&agent.identity),
            columns::addresses(&agent.addresses),
            inert::text(&agent.state),
            columns::tags(&agent.tags, &agent.attested_tags),
            columns::texts(&agent.services),
        ]
    };
    columns::table(["agent", "key", "addresses", "state", "tags", "services"], agents.iter().map(row))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn each_agent_is_a_line() {
        let bob = AgentRecord {
            name: "bob".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: vec!["10.99.0.2".parse().expect("IPv4"), "fd5c:1:2::2".parse().expect("IPv6")],
            tags: vec!["gpu".to_owned(), "lab".to_owned()],
            attested_tags: vec!["lab".to_owned(), "ops".to_owned()],
            services: vec!["tcp/8000=search\x1b[5m".to_owned()],
            state: "unknown".to_owned(),
        };
        let bare = AgentRecord {
            name: String::new(),
            addresses: Vec::new(),
            tags: Vec::new(),
            attested_tags: Vec::new(),
            services: Vec::new(),
            state: "self".to_owned(),
            ..bob.clone()
        };
        golden("overlay find", text(&[bob, bare]));
        golden("nobody", text(&[]));
    }
}
