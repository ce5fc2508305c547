//! The rendezvous: what works without one, and what happens with a wrong one.

use std::net::Ipv4Addr;

use super::*;
use crate::lab::{Agents, words};

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
