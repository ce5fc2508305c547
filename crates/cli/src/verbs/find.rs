//! `overlay find`: looks for agents at the rendezvous, by name or by tag; and the directory of `overlay agents`.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::{self, AgentRecord};
use overlay_daemon::client::Client;

use crate::arguments::agent::{Agents, Find};
use crate::figures::{now, span};
use crate::session::Session;
use crate::{columns, inert};

/// How many agents the directory shows at once.
const PAGE: u16 = 50;
/// The most agents that `find` shows.
const MOST: usize = 1_000;

pub(crate) fn run(session: &Session, arguments: &Find) -> Result<(), Failure> {
    let command = match &arguments.name {
        Some(name) => format!("overlay find {name} -I"),
        None => "overlay find -I".to_owned(),
    };
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let find = request::Find { name: arguments.name.clone(), tag: arguments.tag.clone(), ..request::Find::default() };
    show(session, &client, find, MOST, |_| "only the first are shown: overlay agents --all goes on".to_owned())
}

/// Shows agents of the directory.
pub(crate) fn directory(session: &Session, arguments: &Agents) -> Result<(), Failure> {
    let client = session.client(arguments.on.interface.as_deref(), "overlay agents --all -I")?;
    let Agents { tag, service, search, after, limit, .. } = arguments;
    let find = request::Find {
        name: None,
        tag: tag.clone(),
        service: service.clone(),
        search: search.clone(),
        after: after.clone(),
    };
    let limit = usize::from(limit.unwrap_or(PAGE));
    show(session, &client, find, limit, |next| format!("there may be more: the same with --after {next}"))
}

/// Asks for one page after the other until there are enough.
fn show(
    session: &Session,
    client: &Client,
    mut find: request::Find,
    limit: usize,
    more: impl FnOnce(&str) -> String,
) -> Result<(), Failure> {
    let mut answer = session.block_on(client.find_agents(&find))?;
    while answer.agents.len() < limit
        && let Some(next) = answer.next.take()
    {
        find.after = Some(next);
        let page = session.block_on(client.find_agents(&find))?;
        answer.agents.extend(page.agents);
        answer.next = page.next;
    }
    if answer.agents.len() > limit {
        answer.agents.truncate(limit);
        answer.next = answer.agents.last().map(|last| last.identity.clone());
    }
    if let Some(next) = &answer.next {
        session.output.say(&more(next));
    }
    session.output.result(&answer, || text(&answer.agents, now()));
    Ok(())
}

fn text(agents: &[AgentRecord], now: u64) -> String {
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
            source(agent, now),
        ]
    };
    columns::table(["agent", "key", "addresses", "state", "tags", "services", "signed"], agents.iter().map(row))
}

/// When the agent has said this, and who has passed it on.
fn source(agent: &AgentRecord, now: u64) -> String {
    let age = span(now.saturating_sub(agent.issued));
    match &agent.rendezvous {
        Some(rendezvous) => format!("{age} ago, by {}", inert::text(rendezvous)),
        None => format!("{age} ago, known here"),
    }
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
            rendezvous: Some("https://rv.example.net:7447".to_owned()),
            issued: 1_000,
        };
        let bare = AgentRecord {
            name: String::new(),
            addresses: Vec::new(),
            tags: Vec::new(),
            attested_tags: Vec::new(),
            services: Vec::new(),
            state: "self".to_owned(),
            rendezvous: None,
            ..bob.clone()
        };
        golden("overlay find", text(&[bob, bare], 4_700));
        golden("nobody", text(&[], 0));
    }
}
