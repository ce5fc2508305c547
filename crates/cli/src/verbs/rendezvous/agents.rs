//! `overlay rendezvous agents`: lists, removes and bans agents.

use overlay_daemon::Failure;
use overlay_server::operator::protocol::{AgentShown, Ask, Told};
use serde::Serialize;

use super::{ask, order, strange_answer};
use crate::arguments::rendezvous::{Agents, Network};
use crate::session::Session;
use crate::{columns, inert};

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    agents: &'a [AgentShown],
}

pub(crate) fn run(session: &Session, verb: &Agents) -> Result<(), Failure> {
    match verb {
        Agents::List(network) => list(session, network),
        Agents::Remove(named) => order(session, &named.on, &Ask::RemoveAgent { agent: named.agent.clone() }, "removed"),
        Agents::Ban(named) => order(session, &named.on, &Ask::BanAgent { agent: named.agent.clone() }, "banned"),
        Agents::Unban(named) => order(session, &named.on, &Ask::UnbanAgent { agent: named.agent.clone() }, "unbanned"),
    }
}

fn list(session: &Session, network: &Network) -> Result<(), Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let Told::Agents { agents, next } = ask(session, network, &Ask::Agents { after })? else {
            return Err(strange_answer());
        };
        all.extend(agents);
        after = next;
        if after.is_none() {
            break;
        }
    }
    session.output.result(&Answer { schema: "overlay.rendezvous.agents.v1", agents: &all }, || text(&all));
    Ok(())
}

fn text(agents: &[AgentShown]) -> String {
    if agents.is_empty() {
        return "no agents".to_owned();
    }
    let row = |agent: &AgentShown| {
        let member = match (agent.is_member, agent.is_ephemeral) {
            (_, true) => "ephemeral",
            (true, false) => "by token",
            (false, false) => "-",
        };
        [
            agent.name.as_deref().map_or_else(|| "-".to_owned(), inert::text),
            columns::key(&agent.identity),
            inert::text(&agent.state),
            agent.ipv4.as_deref().map_or_else(|| "-".to_owned(), inert::text),
            member.to_owned(),
            columns::texts(&agent.attested_tags),
        ]
    };
    columns::table(["name", "key", "state", "IPv4", "joined", "attested tags"], agents.iter().map(row))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn each_agent_is_a_line() {
        let alice = AgentShown {
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            state: "online".to_owned(),
            name: Some("alice".to_owned()),
            ipv4: Some("10.64.0.7".to_owned()),
            ipv6: Some("fd2a::7".to_owned()),
            tags: vec!["ops".to_owned(), "gpu".to_owned()],
            attested_tags: vec!["ops".to_owned()],
            is_member: true,
            is_ephemeral: false,
            fresh_until: Some(1_795_867_200_000),
            left: None,
            banned: None,
        };
        let gone = AgentShown {
            state: "left".to_owned(),
            name: None,
            ipv4: None,
            ipv6: None,
            attested_tags: Vec::new(),
            is_member: false,
            ..alice.clone()
        };
        let brief = AgentShown { name: Some("job-1".to_owned()), is_ephemeral: true, ..alice.clone() };
        golden("overlay rendezvous agents", text(&[alice, gone, brief]));
        assert_eq!(text(&[]), "no agents");
    }
}
