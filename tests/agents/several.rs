//! Several rendezvous of one network, whose key none of them has.

use std::path::PathBuf;

use super::*;
use crate::lab::agents::serve;
use crate::lab::state_folder::StateFolder;
use crate::lab::{Agents, Process};

/// How long an agent may take to come back to a rendezvous that was down: it tries again after 30 s at most.
const RECONNECT: Duration = Duration::from_secs(45);
const PORTS: [u16; 2] = [7447, 7449];

/// A network that was made where no rendezvous runs.
pub(super) struct Network {
    servers: [Option<Process>; 2],
    urls: [String; 2],
    pub(super) world: Agents,
}

impl Network {
    pub(super) fn new(name: &str) -> Option<Network> {
        let (mut servers, mut urls) = ([None, None], [String::new(), String::new()]);
        let world = Agents::served_by(name, |router| {
            let key = |folder: &str| key_of(router, folder);
            let named: String = [0, 1]
                .map(|place| format!(" --rendezvous https://192.0.2.9:{}#{}", PORTS[place], key(folder(place))))
                .concat();
            let (secret, object) = (router.dir().join("network.key"), object(router));
            let line = format!("network init lab --key {} -o {}{named}", secret.display(), object.display());
            router.overlay(line).succeeded("overlay network init");
            for place in [0, 1] {
                let more = format!("--network-file {}", object.display());
                let (server, url) = serve(router, (folder(place), "lab"), PORTS[place], &more);
                (servers[place], urls[place]) = (Some(server), url);
            }
            urls[0].clone()
        })?;
        Some(Network { servers, urls, world })
    }

    fn kill(&mut self, place: usize) {
        drop(self.servers[place].take());
    }

    /// Starts a rendezvous as it was, or with `more`.
    fn start(&mut self, place: usize, more: &str) {
        let (server, url) = serve(&self.world.router, (folder(place), "lab"), PORTS[place], more);
        assert_eq!(url, self.urls[place]);
        self.servers[place] = Some(server);
    }

    /// Makes and starts an agent whose config names one of the rendezvous.
    pub(super) fn agent(&mut self, name: &str, place: usize) -> Agent {
        let host = self.world.host(name);
        Agent::init(&host, name, &self.urls[place]).succeeded("overlay init");
        let mut agent = Agent::of(&host);
        agent.start();
        agent.is_registered(name);
        agent
    }

    /// The names that a rendezvous has registered, with the sequence of their records.
    fn registered(&self, place: usize) -> Vec<(String, String)> {
        let state = self.world.router.dir().join(folder(place)).display().to_string();
        let printed = self.world.router.overlay(format!("--state-dir {state} --json rendezvous agents list"));
        let listed: Value = serde_json::from_str(&printed.succeeded("agents list")).expect("JSON");
        let text = |agent: &Value, field: &str| agent[field].to_string();
        let agents = listed["agents"].as_array().expect("a list").clone();
        agents.iter().map(|agent| (text(agent, "name"), text(agent, "ipv4"))).collect()
    }
}

/// The key of a rendezvous, as its host prints it.
#[track_caller]
fn key_of(router: &Host, folder: &str) -> String {
    let line = format!("--state-dir {} rendezvous key --network lab", router.dir().join(folder).display());
    router.overlay(line).succeeded("overlay rendezvous key").trim().to_owned()
}

fn folder(place: usize) -> &'static str {
    ["one", "two"][place]
}

fn object(router: &Host) -> PathBuf {
    router.dir().join("lab.network")
}

/// Waits until an agent is connected to so many rendezvous.
pub(super) fn meets_at(agent: &Agent, count: usize) {
    within(RECONNECT, &format!("{} at {count} rendezvous", agent.host.name()), || {
        let meetings = agent.ask("agents")["meetings"].as_array().cloned().unwrap_or_default();
        let connected = meetings.iter().filter(|meeting| meeting["state"] == "connected").count();
        (meetings.len() == PORTS.len() && connected == count).then_some(())
    });
}

#[test]
fn each_of_two_rendezvous_may_be_down_and_neither_has_the_networks_key() {
    let Some(mut network) = Network::new("two rendezvous") else { return };
    for place in [0, 1] {
        let state = network.world.router.dir().join(folder(place)).join("rendezvous/lab");
        assert!(state.join("network").exists() && !state.join("network.key").exists());
        let key = key_of(&network.world.router, folder(place));
        assert!(network.urls[place].contains(&key), "the key is shown while the rendezvous runs, too");
    }
    // Each config names a different one. The signed network names both.
    let (alice, bob) = (network.agent("alice", 0), network.agent("bob", 1));
    for agent in [&alice, &bob] {
        meets_at(agent, 2);
    }
    assert_eq!(network.registered(0), network.registered(1), "the same bytes went to each");

    network.kill(0);
    meets_at(&alice, 1);
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let _server = bob.serves();
    gets_page(&alice, &bob.v4());
    let warning = within(SHORTLY, "the warning", || {
        let status = alice.ask(&format!("status {}", alice.host.interface()));
        status["warnings"].as_array()?.iter().find(|it| it["kind"] == "rendezvous").map(|it| it["message"].to_string())
    });
    assert!(warning.contains("https://192.0.2.9:7447") && warning.contains(" since 20"), "{warning}");
    let carol = network.agent("carol", 1);

    network.start(0, "");
    for agent in [&alice, &bob, &carol] {
        meets_at(agent, 2);
    }
    network.kill(1);
    meets_at(&alice, 1);
    carol.ask("handshake alice --want icmp");
    alice.is_asked_by("carol");
    alice.ask("approve carol");
    carol.sees("alice", "trusted");
    alice.verb("untrust bob").succeeded("untrust");
    bob.sees("alice", "untrusted");
    assert_eq!(network.registered(0).len(), 3);
}

#[test]
fn each_rendezvous_vouches_for_its_members_and_the_proofs_outlive_both() {
    let Some(mut network) = Network::new("vouching") else { return };
    let mut alice = network.agent("alice", 0);
    let proofs = |alice: &Agent| {
        let meetings = alice.ask("agents")["meetings"].as_array().cloned().unwrap_or_default();
        let until = meetings.iter().map(|meeting| meeting["member_until"].as_u64());
        until.collect::<Option<Vec<_>>>().filter(|until| until.len() == PORTS.len())
    };
    let told = within(RECONNECT, "the proof of each", || proofs(&alice));
    let week = Duration::from_secs(7 * 24 * 3_600).as_secs();
    let left = told.iter().map(|until| until - unix_seconds());
    assert!(left.clone().all(|left| (week - 60..=week).contains(&left)), "{told:?}");

    alice.kill9();
    for place in [0, 1] {
        network.kill(place);
    }
    alice.start();
    assert_eq!(proofs(&alice), Some(told));
    let file = StateFolder::of(&alice).memberships();
    let keys: Vec<_> = file.iter().map(|membership| membership.rendezvous.to_string()).collect();
    assert!(network.urls.iter().all(|url| keys.iter().any(|key| url.contains(key.as_str()))), "{keys:?}");
}

#[test]
fn a_network_is_closed_where_its_key_is() {
    let Some(mut network) = Network::new("closed elsewhere") else { return };
    let alice = network.agent("alice", 0);
    let router = network.world.router.clone();
    let (secret, file) = (router.dir().join("network.key"), object(&router));
    let (secret, file) = (secret.display(), file.display());
    router.overlay(format!("network sign {file} --key {secret} --closed")).succeeded("overlay network sign");
    for place in [0, 1] {
        network.kill(place);
        network.start(place, &format!("--network-file {file}"));
    }
    meets_at(&alice, 2);

    let host = network.world.host("bob");
    Agent::init(&host, "bob", &network.urls[1]).succeeded("overlay init");
    let mut bob = Agent::of(&host);
    bob.start();
    within(SHORTLY, "the refusal of both", || {
        let meetings = bob.ask("agents")["meetings"].as_array().cloned().unwrap_or_default();
        let refuse = meetings.iter().filter(|it| it["state"].to_string().contains("has no join token")).count();
        (refuse == 2).then_some(())
    });
    // The token is signed where the key is. A rendezvous that was never told of it takes it all the same.
    let (state, token) = (router.dir().join("offline"), router.dir().join("bob.token"));
    let line = format!(
        "--state-dir {} rendezvous token create --network lab --network-key {secret} -o {}",
        state.display(),
        token.display()
    );
    router.overlay(line).succeeded("overlay rendezvous token create");
    bob.verb(format!("join {}", token.display())).succeeded("overlay join");
    meets_at(&bob, 2);
    bob.is_registered("bob");
}

#[test]
fn a_revoke_that_one_rendezvous_has_missed_is_learned_from_the_other_one() {
    let Some(mut network) = Network::new("missed a revoke") else { return };
    let (mut alice, mut bob) = (network.agent("alice", 0), network.agent("bob", 1));
    for agent in [&alice, &bob] {
        meets_at(agent, 2);
    }
    befriend(&alice, "--want icmp", &bob, "");
    let yesterday = StateFolder::copy(&alice, &alice.host.dir().join("yesterday"));
    // The peer can tell nobody, and the second rendezvous hears of nothing.
    bob.kill9();
    network.kill(1);
    meets_at(&alice, 1);
    alice.ask("untrust bob");
    alice.ask("find alice");
    network.kill(0);
    alice.kill9();
    alice.restore(&yesterday);

    // What the second one knows is as old as the state.
    network.start(1, "");
    alice.start();
    meets_at(&alice, 1);
    alice.sees("bob", "trusted");
    network.start(0, "");
    alice.sees_within(RECONNECT, "bob", "untrusted");
    assert_eq!(alice.ask("agents")["held"], Value::Null);

    // The other way round: the first one is there, and says at once that something is missing.
    network.kill(1);
    alice.kill9();
    alice.restore(&yesterday);
    alice.start();
    alice.sees("bob", "untrusted");
}
