//! How trust ends: taken back by a person, or by the time it was granted for.

use super::*;
use crate::lab::{A_SECOND, Agents, Process, SHORTLY, services, within};

/// Counts the TCP packets that come out of the tunnel on a host from now on.
fn count_arrivals(host: &Host) {
    host.exec("nft add table inet arrivals");
    host.exec(["nft", "add chain inet arrivals input { type filter hook input priority 0; }"]);
    host.exec(format!("nft add rule inet arrivals input iifname {} tcp sport 8000 counter", host.interface()));
}

#[track_caller]
fn arrivals(host: &Host) -> u64 {
    let json = host.exec("nft -j list chain inet arrivals input");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON of nft");
    let rules = json["nftables"].as_array().expect("a list");
    let expressions = rules.iter().filter_map(|entry| entry["rule"]["expr"].as_array()).flatten();
    expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).next().expect("the counter")
}

/// Starts a download that takes minutes, and waits until it runs.
#[track_caller]
fn download(alice: &Agent, bob: &Agent) -> (Process, Process) {
    let server = bob.serves();
    bob.host.exec(["truncate", "-s", "2G", &bob.host.dir().join("www/large").display().to_string()]);
    count_arrivals(&alice.host);
    let url = format!("http://{}:{}/large", bob.v4(), services::HTTP);
    let client = alice.host.spawn(format!("curl -sS --noproxy * --limit-rate 8M -o /dev/null {url}"));
    for packets in [100, 200, 300] {
        within(SHORTLY, "the download", || (arrivals(&alice.host) > packets).then_some(()));
    }
    (server, client)
}

/// Requires that nothing arrives any more once a second has passed since `from`. The client goes on asking meanwhile.
#[track_caller]
fn is_over_within_a_second(alice: &Agent, from: Instant) {
    let mut last = (arrivals(&alice.host), from);
    let quiet = Duration::from_secs(2);
    within(SHORTLY, "the download to stop", || {
        let now = (arrivals(&alice.host), Instant::now());
        if now.0 != last.0 {
            last = now;
        }
        (now.1.duration_since(last.1) > quiet).then_some(())
    });
    let took = last.1.duration_since(from);
    eprintln!("the last packet came {:.0} ms after the command", took.as_secs_f64() * 1_000.0);
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[test]
fn untrust_ends_a_transfer_within_a_second() {
    let Some(mut world) = Agents::new("untrust") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _programs = download(&alice, &bob);
    bob.ask("untrust alice");
    is_over_within_a_second(&alice, Instant::now());
    assert_eq!(bob.peer("alice")["state"], "untrusted");
    // The other side is told.
    alice.sees("bob", "untrusted");
    is_refused_at_once(&alice.host, &bob.v4(), services::HTTP);
}

#[test]
fn untrust_by_the_receiver_ends_a_transfer_within_a_second() {
    let Some(mut world) = Agents::new("untrust, receiver") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _programs = download(&alice, &bob);
    alice.ask("untrust bob");
    is_over_within_a_second(&alice, Instant::now());
    bob.sees("alice", "untrusted");
}

#[test]
fn untrust_needs_no_rendezvous() {
    let Some(mut world) = Agents::new("untrust alone") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let _programs = download(&alice, &bob);
    world.kill();
    bob.ask("untrust alice");
    is_over_within_a_second(&alice, Instant::now());
    assert_eq!(bob.peer("alice")["state"], "untrusted");
}

#[test]
fn untrust_holds_for_a_peer_that_was_dead_at_that_time() {
    let Some(mut world) = Agents::new("untrust the dead") else { return };
    let (mut alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    alice.kill9();
    let began = Instant::now();
    bob.ask("untrust alice");
    assert!(began.elapsed() < A_SECOND, "{:?}", began.elapsed());
    // It comes back believing that it is trusted, and is told.
    alice.start();
    alice.sees("bob", "untrusted");
    assert_ne!(alice.host.run(format!("ping -n -q -c 2 -i 0.3 -W 1 {v4}")).code, 0);
    let status = bob.daemon().status();
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(0), "{status:#}");
}
