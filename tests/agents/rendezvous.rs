//! The rendezvous: what works without one, and what happens with a wrong one.

use std::net::Ipv4Addr;

use super::*;
use crate::lab::{Agents, NameServer, words};

/// From cold to a tunnel, with nothing but what is on disk.
const FROM_DISK: Duration = Duration::from_secs(6);

#[test]
fn two_agents_that_trust_each_other_start_without_a_rendezvous() {
    let Some(mut world) = Agents::new("from disk") else { return };
    let (mut alice, mut bob) = world.two();
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let v4 = bob.v4();
    let _server = bob.serves();
    gets_page(&alice, &v4);
    world.kill();
    alice.kill9();
    bob.kill9();
    let began = Instant::now();
    alice.start();
    bob.start();
    within(SHORTLY, "the page", || (alice.host.run(format!("ping -n -q -c 1 -W 0.2 {v4}")).code == 0).then_some(()));
    let took = began.elapsed();
    assert_eq!(alice.curls(&v4).succeeded("curl"), "hello");
    eprintln!("from cold to a tunnel: {:.1} s", took.as_secs_f64());
    assert!(took <= FROM_DISK, "{took:?}");
    assert_ne!(alice.ask("agents")["rendezvous"], "connected");
}

#[test]
fn a_wrong_key_of_the_rendezvous_is_refused_by_init_and_named_by_up() {
    let Some(mut world) = Agents::new("wrong key") else { return };
    let (_second, second) = world.second_rendezvous();
    let key_of = |url: &str| url.split(['#', '.']).rev().nth(1).expect("#RVKEY.NETKEY").to_owned();
    let (right, wrong) = (key_of(&world.url), key_of(&second));
    let host = world.host("alice");
    let began = Instant::now();
    let finished = Agent::init(&host, "alice", &world.url.replace(&right, &wrong));
    let took = began.elapsed();
    assert_eq!(finished.code, 7, "{}{}", finished.stdout, finished.stderr);
    assert!(took < Duration::from_secs(2), "{took:?}");

    Agent::init(&host, "alice", &world.url).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    let config = std::fs::read_to_string(alice.config()).expect("what init wrote");
    std::fs::write(alice.config(), config.replace(&right, &wrong)).expect("our own file");
    alice.start();
    let cause = within(SHORTLY, "the cause", || {
        let rendezvous = alice.ask("agents")["rendezvous"].as_str().unwrap_or_default().to_owned();
        (rendezvous != "connecting").then_some(rendezvous)
    });
    assert!(cause.contains("key"), "{cause}");
    eprintln!("{cause}");
}

#[test]
fn a_host_without_ipv6_is_an_agent_with_ipv4_alone() {
    let Some(mut world) = Agents::new("without IPv6") else { return };
    let bob = world.agent("bob");
    let host = world.host("alice");
    host.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    Agent::init(&host, "alice", &world.url).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    alice.start();
    alice.is_registered("alice");
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    gets_page(&alice, &bob.v4());
    assert!(alice.daemon().log().contains(words::IPV6_OFF), "{}", alice.daemon().log());
    let warnings = left_out(&alice);
    assert!(warnings.len() == 1 && warnings[0].contains(words::IPV6_OFF), "{warnings:?}");
}

#[test]
fn a_pool_that_collides_with_a_route_is_named_and_ipv6_goes_on() {
    let Some(mut world) = Agents::new("collision") else { return };
    let bob = world.agent("bob");
    let v4: Ipv4Addr = bob.v4().parse().expect("an address");
    let [first, second, ..] = v4.octets();
    let host = world.host("alice");
    let (pool, link) = (format!("{first}.{second}.0.0/16"), host.link_to(&world.router));
    host.ip(&format!("route add {pool} dev {link}"));
    Agent::init(&host, "alice", &world.url).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    alice.start();
    alice.is_registered("alice");
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    gets_page(&alice, &bob.v6());
    let log = alice.daemon().log();
    assert!(log.lines().any(|line| line.contains(&pool) && line.contains(&link)), "{log}");
}

/// The messages of the standing warnings about families.
fn left_out(agent: &Agent) -> Vec<String> {
    let status = agent.ask(&format!("status {}", agent.host.interface()));
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    let kinds = ["family_left_out", "ipv6_off"];
    let ours = warnings.iter().filter(|warning| kinds.iter().any(|kind| warning["kind"] == *kind));
    ours.filter_map(|warning| warning["message"].as_str()).map(str::to_owned).collect()
}

#[test]
fn a_family_that_collides_while_running_goes_and_comes_back() {
    let Some(mut world) = Agents::new("collides while running") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    let (v4, v6) = (bob.v4(), bob.v6());
    gets_page(&alice, &v4);
    let octets = v4.parse::<Ipv4Addr>().expect("an address").octets();
    let (inside, link) = (format!("{}.{}.7", octets[0], octets[1]), alice.host.link_to(&world.router));
    let has_v4 = || !alice.host.ip(&format!("-o -4 address show dev {}", alice.host.interface())).is_empty();
    for (what, there) in [
        (format!("route {{}} {inside}.0/24 dev {link}"), "route"),
        (format!("address {{}} {inside}.9/24 dev {link}"), "address"),
    ] {
        alice.host.ip(&what.replace("{}", "add"));
        let warnings = within(SHORTLY, "the warning", || Some(left_out(&alice)).filter(|found| !found.is_empty()));
        assert!(warnings.len() == 1 && warnings[0].contains(&link) && warnings[0].contains(there), "{warnings:?}");
        within(SHORTLY, "IPv4 to be left out", || (!has_v4()).then_some(()));
        gets_page(&alice, &v6);
        alice.host.ip(&what.replace("{}", "delete"));
        within(SHORTLY, "IPv4 to come back", || (has_v4() && left_out(&alice).is_empty()).then_some(()));
        gets_page(&alice, &v4);
    }
    let log = alice.daemon().log();
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("goes on without IPv4")).count();
    assert_eq!(warned, 2, "one warning per change: {log}");
    assert!(!log.contains("cannot follow the agent"), "{log}");
}

#[test]
fn a_name_that_resolves_into_the_pool_costs_ipv4_alone() {
    let Some(mut world) = Agents::new("fake answers") else { return };
    let bob = world.agent("bob");
    let octets = bob.v4().parse::<Ipv4Addr>().expect("an address").octets();
    let host = world.host("alice");
    let names = NameServer::start(&host);
    names.set("rv.lab", &["192.0.2.9"]);
    Agent::init(&host, "alice", &world.url.replace("192.0.2.9", "rv.lab")).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    alice.start();
    alice.is_registered("alice");
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    let (v4, v6) = (bob.v4(), bob.v6());
    gets_page(&alice, &v4);

    // A proxy that gives fake addresses gives one that is an agent's.
    alice.kill9();
    let fake = format!("{}.{}.3.4", octets[0], octets[1]);
    names.set("rv.lab", &[&fake, "192.0.2.9"]);
    alice.start();
    let warnings = within(SHORTLY, "the warning", || Some(left_out(&alice)).filter(|found| !found.is_empty()));
    assert!(warnings.len() == 1 && warnings[0].contains(&fake) && warnings[0].contains("rv.lab"), "{warnings:?}");
    gets_page(&alice, &v6);
    let has_v4 = || !alice.host.ip(&format!("-o -4 address show dev {}", alice.host.interface())).is_empty();
    within(SHORTLY, "IPv4 to be left out", || (!has_v4()).then_some(()));
    alice.is_registered("alice");

    alice.kill9();
    names.set("rv.lab", &["192.0.2.9"]);
    alice.start();
    gets_page(&alice, &v4);
    assert!(left_out(&alice).is_empty());
}

#[test]
fn an_agent_that_can_have_neither_family_is_refused() {
    let Some(mut world) = Agents::new("neither family") else { return };
    let mut alice = world.agent("alice");
    let v4: Ipv4Addr = alice.v4().parse().expect("an address");
    let [first, second, ..] = v4.octets();
    alice.kill9();
    let link = alice.host.link_to(&world.router);
    alice.host.ip(&format!("route add {first}.{second}.7.0/24 dev {link}"));
    alice.host.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    let refused = alice.verb(format!("up {}", alice.config().display()));
    assert_eq!(refused.code, 9, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("neither IPv4 nor IPv6") && refused.stderr.contains("route delete"),
        "{}",
        refused.stderr
    );
}

#[test]
fn ipv6_that_is_switched_off_while_running_goes_and_comes_back() {
    let Some(mut world) = Agents::new("IPv6 off while running") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _server = bob.serves();
    let (v4, v6) = (bob.v4(), bob.v6());
    gets_page(&alice, &v6);
    let switch = |off: u8| {
        alice
            .host
            .exec(format!("sysctl -qw net.ipv6.conf.all.disable_ipv6={off} net.ipv6.conf.default.disable_ipv6={off}"));
    };
    switch(1);
    within(SHORTLY, "the warning", || {
        left_out(&alice).iter().any(|found| found.contains(words::IPV6_OFF)).then_some(())
    });
    gets_page(&alice, &v4);
    switch(0);
    within(SHORTLY, "IPv6 to come back", || left_out(&alice).is_empty().then_some(()));
    gets_page(&alice, &v6);
}
