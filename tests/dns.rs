//! Agents by name, as the programs of a host find them: the DNS server on the virtual IP, the hosts file, and systemd-resolved.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and seconds are what this is about"
)]

#[path = "dns/directory.rs"]
mod directory;
#[path = "dns/hosts.rs"]
mod hosts;
mod lab;
#[path = "dns/resolved.rs"]
mod resolved;
#[path = "dns/server.rs"]
mod server;

use lab::agents::befriend;
use lab::{Agent, Agents, SHORTLY, within};

/// What every name ends with.
const DOMAIN: &str = "lab.overlay.internal";

/// `alice` and `bob`, who trust each other in everything. Bob serves a page.
#[track_caller]
fn friends(name: &str) -> Option<(Agents, Agent, Agent)> {
    let mut world = Agents::new(name)?;
    let (alice, bob) = world.two();
    // A name that is not found yet is refused at once, and not after ten seconds.
    for agent in [&alice, &bob] {
        agent.host.write_etc("resolv.conf", "nameserver 127.0.0.1\n");
    }
    befriend(&alice, "--want any --allow any", &bob, "");
    Some((world, alice, bob))
}

/// Waits until a host finds a name as its programs do, and returns the addresses.
#[track_caller]
fn finds(agent: &Agent, name: &str) -> Vec<String> {
    within(SHORTLY, &format!("{name} to be found"), || {
        let found = agent.host.run(["getent", "ahosts", name]);
        (found.code == 0).then(|| streams(&found.stdout))
    })
}

/// The addresses in what `getent ahosts` prints, each once.
fn streams(printed: &str) -> Vec<String> {
    let lines = printed.lines().filter(|line| line.contains("STREAM"));
    let mut addresses: Vec<_> = lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    addresses.sort_unstable();
    addresses
}

/// Both addresses of an agent, as [`streams`] returns them.
fn addresses(agent: &Agent) -> Vec<String> {
    let mut addresses = vec![agent.v4(), agent.v6()];
    addresses.sort_unstable();
    addresses
}
