//! Names through systemd-resolved, which is real and runs on a bus of its own.

use std::time::{Duration, Instant};

use crate::lab::resolved::with_bus;
use crate::lab::services::SshServer;
use crate::lab::{AT_LENGTH, Host, NameServer, Resolved, installed};

use super::*;

/// Asks for the addresses of a name, as a program that was linked with musl.
const MUSL: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <arpa/inet.h>
int main(int argc, char **argv) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found;
    if (getaddrinfo(argv[1], 0, &hints, &found)) return 1;
    for (; found; found = found->ai_next) {
        char text[64];
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
        puts(text);
    }
    return 0;
}
"#;

/// `alice` on a host that asks resolved, and `bob`. They trust each other.
struct World {
    resolved: Resolved,
    /// The name server of the rest of the world, on alice's host.
    names: NameServer,
    alice: Agent,
    bob: Agent,
    agents: Agents,
}

impl World {
    #[track_caller]
    fn new(name: &str, section: &str) -> Option<World> {
        let mut agents = Agents::new(name)?;
        let host = agents.host("alice");
        let names = NameServer::start(&host);
        let resolved = Resolved::start(&host, &format!("DNS=127.0.0.1\n{section}"))?;
        let (alice, bob) = friends_of(&mut agents, &host);
        Some(World { resolved, names, alice, bob, agents })
    }
}

/// `alice` on this host, which has a resolved, and `bob`. They trust each other.
#[track_caller]
fn friends_of(agents: &mut Agents, host: &Host) -> (Agent, Agent) {
    Agent::init(host, "alice", &agents.url).succeeded("overlay init");
    let mut alice = Agent::of(host);
    start(&mut alice);
    alice.is_registered("alice");
    let bob = agents.agent("bob");
    befriend(&alice, "--want any --allow any", &bob, "");
    (alice, bob)
}

/// Starts the daemon of an agent with the bus of its host.
#[track_caller]
fn start(agent: &mut Agent) {
    let mut command = agent.up_command();
    with_bus(&agent.host, &mut command);
    agent.start_by(command);
}

#[test]
fn programs_of_both_c_libraries_find_a_trusted_agent_by_its_name_alone() {
    let Some(world) = World::new("resolved", "") else { return };
    let World { alice, bob, .. } = &world;
    assert_eq!(finds(alice, "bob"), addresses(bob));
    assert_eq!(finds(alice, &format!("bob.{DOMAIN}")), addresses(bob));
    let _web = bob.serves();
    assert_eq!(alice.curls("bob").stdout, "hello");
    let sshd = SshServer::start(&bob.host);
    let input = alice.host.write("input", "by name");
    assert_eq!(sshd.ssh(&alice.host, "bob", "cat", &input).succeed_within(SHORTLY), "by name");
    let by_address = alice.host.exec(format!("getent hosts {}", bob.v6()));
    assert!(by_address.contains(&format!("bob.{DOMAIN}")), "{by_address}");
    assert_eq!(by_musl(&alice.host, "bob"), addresses(bob));
    assert_eq!(by_musl(&alice.host, &format!("bob.{DOMAIN}")), addresses(bob));

    assert_eq!(alice.daemon().status()["names"]["way"], "resolved");
    assert!(!alice.host.etc_hosts().contains("bob"));
    // Names of others go where they went before.
    world.names.set("www.example.test", &["192.0.2.80"]);
    assert_eq!(finds(alice, "www.example.test"), ["192.0.2.80"]);
    let asked_outside = world.names.asked(&format!("bob.{DOMAIN}"));
    assert!(asked_outside.is_empty(), "nobody outside hears our names");
    eprintln!("{}", world.resolved.ctl("status"));
}

/// What a program finds that was linked with musl.
#[track_caller]
fn by_musl(host: &Host, name: &str) -> Vec<String> {
    let source = host.write("find.c", MUSL);
    let program = host.dir().join("find");
    if !program.exists() {
        host.exec(format!("musl-gcc -static -o {} {}", program.display(), source.display()));
    }
    let printed = host.exec(format!("{} {name}", program.display()));
    let mut addresses: Vec<_> = printed.lines().map(str::to_owned).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[test]
fn resolved_is_told_again_within_two_seconds_of_its_restart() {
    let Some(mut world) = World::new("restarted", "") else { return };
    finds(&world.alice, "bob");
    for _ in 0..3 {
        world.resolved.restart();
        let began = Instant::now();
        assert_eq!(finds(&world.alice, "bob"), addresses(&world.bob));
        let took = began.elapsed();
        eprintln!("names are back {took:?} after resolved");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn nothing_stays_in_resolved_after_the_daemon_however_it_ends() {
    let Some(mut world) = World::new("resolved end", "") else { return };
    for kill in [false, true] {
        finds(&world.alice, "bob");
        let interface = world.alice.host.interface().to_owned();
        assert!(world.resolved.ctl("domain").contains(&interface));
        if kill {
            world.alice.kill9()
        } else {
            world.alice.stop()
        }
        within(SHORTLY, "the link to go", || (!world.resolved.ctl("domain").contains(&interface)).then_some(()));
        assert_ne!(world.alice.host.run(format!("getent ahosts bob.{DOMAIN}")).code, 0);
        start(&mut world.alice);
    }
}

#[test]
fn that_there_is_no_such_agent_is_forgotten_within_seconds() {
    let Some(mut world) = World::new("negative", "") else { return };
    let carol = world.agents.agent("carol");
    let full = format!("carol.{DOMAIN}");
    finds(&world.alice, "bob");
    assert_ne!(world.alice.host.run(["getent", "ahosts", &full]).code, 0);
    carol.ask("handshake alice");
    world.alice.is_asked_by("carol");
    world.alice.ask("approve carol");
    world.alice.sees("carol", "trusted");
    assert_ne!(world.alice.host.run(["getent", "ahosts", "mallory"]).code, 0);
    let began = Instant::now();
    assert_eq!(finds(&world.alice, &full), addresses(&carol));
    let took = began.elapsed();
    eprintln!("a new agent is found after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_host_of_the_search_list_keeps_its_name() {
    let Some(world) = World::new("search list", "Domains=corp.test") else { return };
    let World { alice, bob, names, .. } = &world;
    names.set("bob.corp.test", &["192.0.2.77"]);
    assert_eq!(finds(alice, &format!("bob.{DOMAIN}")), addresses(bob));
    for _ in 0..10 {
        assert_eq!(finds(alice, "bob"), ["192.0.2.77"], "it meant this before there was an agent");
        world.resolved.ctl("flush-caches");
    }
    // A name that only an agent has is the agent's.
    names.set("bob.corp.test", &[]);
    world.resolved.ctl("flush-caches");
    within(AT_LENGTH, "the agent's address", || {
        let found = streams(&alice.host.run("getent ahosts bob").stdout);
        (found == addresses(bob)).then_some(())
    });
}

#[test]
fn a_resolved_of_a_different_network_namespace_is_left_alone() {
    let Some(mut world) = World::new("namespaces", "") else { return };
    finds(&world.alice, "bob");
    let links = world.resolved.ctl("dns");
    // This host has the same bus, and its programs seem to ask a resolved.
    let host = world.agents.host("carol");
    host.write_etc("resolv.conf", "nameserver 127.0.0.53\n");
    Agent::init(&host, "carol", &world.agents.url).succeeded("overlay init");
    let mut carol = Agent::of(&host);
    let mut command = carol.up_command();
    with_bus(&world.alice.host, &mut command);
    carol.start_by(command);
    assert_eq!(carol.daemon().status()["names"]["way"], "hosts");
    assert_eq!(world.resolved.ctl("dns"), links);
}

/// A name server of the world outside that speaks DNS over TLS and nothing else, with a certificate of its own authority.
const UNBOUND: &str = r#"server:
    interface: 127.0.0.1@853
    tls-port: 853
    tls-service-key: "DIR/dot.key"
    tls-service-pem: "DIR/dot.pem"
    do-daemonize: no
    use-syslog: no
    username: ""
    chroot: ""
    directory: "DIR"
    pidfile: ""
    local-zone: "example.test." static
    local-data: "www.example.test. A 192.0.2.80"
"#;

#[test]
fn with_dns_over_tls_everywhere_names_of_both_kinds_are_found() {
    if !installed("DNS over TLS", &["unbound", "openssl"]) {
        return;
    }
    let Some(mut agents) = Agents::new("dot") else { return };
    let host = agents.host("alice");
    let dir = host.dir().display().to_string();
    host.shell(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=dns.test -addext subjectAltName=DNS:dns.test \
         -keyout {dir}/dot.key -out {dir}/dot.pem 2>&1"
    ));
    let config = host.write("unbound.conf", UNBOUND.replace("DIR", &dir));
    let _unbound = host.spawn(format!("unbound -d -c {}", config.display()));
    host.wait_for_listener(853);
    let section = "DNS=127.0.0.1#dns.test\nDNSOverTLS=yes\nDNSSEC=no";
    let authorities = Some(host.dir().join("dot.pem"));
    let Some(_resolved) = Resolved::start_believing(&host, section, authorities) else { return };
    let (alice, bob) = friends_of(&mut agents, &host);
    assert_eq!(finds(&alice, "www.example.test"), ["192.0.2.80"]);
    assert_eq!(finds(&alice, "bob"), addresses(&bob));
    assert_eq!(finds(&alice, &format!("bob.{DOMAIN}")), addresses(&bob));
}
