//! The directory at the rendezvous, and what of it the DNS has.

use serde_json::Value;

use super::*;

/// Makes an agent with these arguments of `init`, and starts it.
#[track_caller]
fn agent(world: &mut Agents, name: &str, more: &str) -> Agent {
    let host = world.host(name);
    let mut agent = Agent::of(&host);
    let line = format!("init {name} {more} --rendezvous {} -o {}", world.url, agent.config().display());
    agent.verb(line).succeeded("overlay init");
    agent.start();
    within(SHORTLY, &format!("{name} to be registered"), || {
        (agent.ask("agents")["rendezvous"] == "connected").then_some(())
    });
    agent
}

/// The names that a verb lists, sorted.
#[track_caller]
fn listed(agent: &Agent, verb: &str) -> Vec<String> {
    let answer = agent.ask(verb);
    let agents = answer["agents"].as_array().expect("a list");
    let mut names: Vec<_> = agents.iter().filter_map(|agent| agent["name"].as_str()).map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_stranger_who_claims_a_tag_is_in_the_directory_and_never_in_the_dns() {
    let Some(mut world) = Agents::new("directory") else { return };
    let alice = agent(&mut world, "alice", "");
    let bob = agent(&mut world, "bob", "--tag gpu --service tcp/8000=http");
    let carol = agent(&mut world, "carol", "--tag gpu --service tcp/9000=mcp");
    let dave = agent(&mut world, "dave", "--tag gpu --visibility hidden");
    befriend(&alice, "--want any --allow any", &bob, "");
    within(SHORTLY, "carol to be listed", || (listed(&alice, "agents --tag gpu").len() == 2).then_some(()));

    assert_eq!(listed(&alice, "agents --tag gpu"), ["bob", "carol"]);
    assert_eq!(listed(&alice, "agents --service mcp"), ["carol"]);
    assert_eq!(listed(&alice, "agents --tag gpu --search HTT"), ["bob"]);
    assert_eq!(listed(&alice, "agents --all"), ["alice", "bob", "carol"]);
    assert_eq!(listed(&alice, "find dave"), [""; 0]);
    let key = dave.ask("agents")["identity"].as_str().expect("a key").to_owned();
    assert_eq!(listed(&alice, &format!("whois {key}")), ["dave"], "by its key alone");

    let tagged = alice.host.exec(format!("dig +short @{} gpu._tag.{DOMAIN} SRV", alice.v4()));
    assert_eq!(tagged.trim(), format!("0 0 8000 bob.{DOMAIN}."));
    let names = alice.host.exec(format!("dig +short @{} gpu._tag.{DOMAIN} TXT", alice.v4()));
    assert_eq!(names.trim(), "\"agent=bob\"");

    // Page by page, with the same agents.
    let first = alice.ask("agents --all --limit 2");
    let next = first["next"].as_str().expect("there is more");
    let second = alice.ask(&format!("agents --all --limit 2 --after {next}"));
    let count = |page: &Value| page["agents"].as_array().expect("a list").len();
    assert_eq!((count(&first), count(&second), &second["next"]), (2, 1, &Value::Null));
    drop(carol);
}

#[test]
fn find_says_who_has_shown_it_and_shows_what_is_known_without_a_rendezvous() {
    let Some((mut world, alice, _bob)) = friends("sources") else { return };
    let shown = alice.ask("find bob")["agents"][0].clone();
    let url = world.url.split('#').next().expect("an address").to_owned();
    assert_eq!(shown["rendezvous"].as_str(), Some(url.as_str()), "{shown}");
    let text = alice.verb("find bob").succeeded("overlay find");
    assert!(text.contains("ago, by https://192.0.2.9:7447"), "{text}");
    world.kill();
    within(SHORTLY, "the connection to be lost", || (alice.ask("agents")["rendezvous"] != "connected").then_some(()));
    let text = alice.verb("find bob").succeeded("overlay find");
    assert!(text.contains("ago, known here"), "{text}");
    assert_ne!(alice.verb("find carol").code, 0, "nobody knows");
}
