//! State that is older than what was said since: a restored backup, a machine that was rolled back, trust that was lost.

use super::*;
use crate::lab::Agents;
use crate::lab::state_folder::StateFolder;

/// By when a restored agent is registered again.
const REGISTERED: Duration = Duration::from_secs(5);
/// By when two agents that have met trust each other again.
const HEALED: Duration = Duration::from_secs(10);
/// How long a peer tries in vain.
const IN_VAIN: Duration = Duration::from_secs(6);
/// Reconnects are spread over half a minute.
const RECONNECT: Duration = Duration::from_secs(60);

/// Makes `asker` and `other` trust each other, and lets each ping the other.
#[track_caller]
fn trust(asker: &Agent, name: &str, other: &Agent, asker_name: &str) {
    asker.ask(&format!("handshake {name} --want icmp --allow icmp"));
    other.is_asked_by(asker_name);
    other.ask(&format!("approve {asker_name}"));
    asker.sees(name, "trusted");
    other.sees(asker_name, "trusted");
    asker.host.reaches(&other.v4());
}

/// Waits until the rendezvous has done what this agent has asked of it so far: it does so in this order.
#[track_caller]
fn is_told(agent: &Agent, name: &str) {
    agent.ask(&format!("find {name}"));
}

/// A copy of an agent's state as it is now.
#[track_caller]
fn copy_of(agent: &Agent, name: &str) -> StateFolder {
    StateFolder::copy(agent, &agent.host.dir().join(name))
}

/// Restores a copy, starts the agent, and returns how long it takes until it is registered.
#[track_caller]
fn restored(agent: &mut Agent, copy: &StateFolder, name: &str) -> Duration {
    agent.kill9();
    agent.restore(copy);
    let began = Instant::now();
    agent.start();
    within(REGISTERED, "the restored agent to be registered", || {
        let found: Value = serde_json::from_str(&agent.verb(format!("find {name} --json")).stdout).ok()?;
        (found["agents"][0]["state"] == "self").then_some(())
    });
    began.elapsed()
}

/// Keeps an agent from its rendezvous.
#[track_caller]
fn cut_off(world: &Agents, agent: &Agent) {
    let router = &world.router;
    router.exec("nft add table inet cut");
    router.exec(["nft", "add chain inet cut input { type filter hook input priority 0; }"]);
    router.exec(format!("nft add rule inet cut input iifname {} tcp dport 7447 drop", router.link_to(&agent.host)));
}

fn is_answered(from: &Agent, address: &str) -> bool {
    from.host.run(format!("ping -n -q -c 1 -W 1 {address}")).code == 0
}

#[test]
fn a_restored_agent_registers_by_itself_and_brings_back_nothing_that_was_revoked() {
    let Some(mut world) = Agents::new("restored") else { return };
    let (mut alice, mut bob) = world.two();
    let carol = world.agent("carol");
    trust(&alice, "bob", &bob, "alice");
    trust(&alice, "carol", &carol, "alice");
    let yesterday = copy_of(&alice, "yesterday");
    let (v4, of_carol) = (bob.v4(), carol.v4());

    // Bob's daemon is down from here on, so that he can tell nobody what alice has said to him.
    bob.kill9();
    alice.ask("untrust bob");
    alice.ask("approve carol --allow tcp/8000");
    is_told(&alice, "carol");
    let took = restored(&mut alice, &yesterday, "alice");
    alice.sees_within(REGISTERED, "bob", "untrusted");
    alice.sees_within(HEALED, "carol", "trusted");
    eprintln!("a restored agent is registered after {took:.2?}");
    assert_eq!(alice.peer("carol")["allow"][0], "tcp/8000", "what was narrowed since stays narrow");
    alice.host.reaches(&of_carol);
    assert!(!is_answered(&alice, &v4));
    assert_eq!(alice.ask("agents")["held"], Value::Null);
    let log = alice.ask("decisions --peer bob");
    let last = &log["decisions"][0];
    assert_eq!((&last["decision"], &last["rule"]), (&"untrusted".into(), &"restored".into()));

    // It is on disk, and stays so without a rendezvous.
    world.kill();
    alice.kill9();
    alice.start();
    assert_eq!(alice.peer("bob")["state"], "untrusted");
    // Bob's state is as it was earlier, and he cannot hear of it.
    bob.start();
    assert_eq!(bob.peer("alice")["state"], "trusted");
    assert!(!is_answered(&bob, &alice.v4()));
}

#[test]
fn a_revoked_peer_gets_no_packet_through_once_the_restored_agent_is_online() {
    let Some(mut world) = Agents::new("restored, peer up") else { return };
    let (mut alice, mut bob) = world.two();
    trust(&alice, "bob", &bob, "alice");
    let (yesterday, of_bob) = (copy_of(&alice, "yesterday"), copy_of(&bob, "of bob"));
    let (from, to) = (bob.v4(), alice.v4());
    // Bob goes on with a state in which he is trusted, and hears of nothing else.
    bob.kill9();
    alice.ask("untrust bob");
    is_told(&alice, "bob");
    cut_off(&world, &bob);
    bob.start();
    let arrived = Counter::new(&alice.host, &format!("ip saddr {from} icmp type echo-request"));
    let tries = |bob: &Agent| bob.host.start(bob.host.command(format!("ping -n -q -i 0.02 -w 300 {to}")), "ping");
    let mut pings = tries(&bob);
    assert!(!is_answered(&bob, &to), "she has taken trust back");
    assert_eq!(arrived.packets(), 0);

    let took = restored(&mut alice, &yesterday, "alice");
    let before = arrived.packets();
    std::thread::sleep(IN_VAIN);
    assert_eq!(arrived.packets(), before, "bob got something through");
    eprintln!("registered after {took:.2?}; {before} packets of the revoked peer came in until then, and none later");
    assert_eq!(alice.peer("bob")["state"], "untrusted");
    // He has heard of it in the tunnel. He forgets that, and tries again.
    let tries_again = |bob: &mut Agent| {
        bob.kill9();
        bob.restore(&of_bob);
        bob.start();
        assert_eq!(bob.peer("alice")["state"], "trusted");
    };
    drop(pings);
    tries_again(&mut bob);
    pings = tries(&bob);
    std::thread::sleep(IN_VAIN);
    assert_eq!(arrived.packets(), before, "bob got something through");

    // With a dead rendezvous nobody can know that the state is an old one: see SECURITY.md.
    world.kill();
    alice.kill9();
    alice.restore(&yesterday);
    alice.start();
    within(SHORTLY, "bob to get through", || (arrived.packets() > before + 10).then_some(()));
    world.start();
    let closed = within(RECONNECT, "the rendezvous to be heard", || {
        (alice.ask("agents")["rendezvous"] == "connected").then(Instant::now)
    });
    let before = arrived.packets();
    drop(pings);
    tries_again(&mut bob);
    pings = tries(&bob);
    std::thread::sleep(IN_VAIN);
    assert_eq!(arrived.packets(), before, "bob got something through");
    eprintln!("no packet came in within {:.1?} after the rendezvous was back", closed.elapsed());
    assert!(pings.ended().is_none(), "bob has tried all the time");
}

#[test]
fn what_was_granted_since_heals_with_the_peers_that_have_it() {
    let Some(mut world) = Agents::new("granted since") else { return };
    let (mut alice, bob) = world.two();
    let carol = world.agent("carol");
    let yesterday = copy_of(&alice, "yesterday");
    trust(&alice, "bob", &bob, "alice");
    trust(&carol, "alice", &alice, "carol");
    is_told(&alice, "bob");
    let took = restored(&mut alice, &yesterday, "alice");
    let began = Instant::now();
    for (name, peer) in [("bob", &bob), ("carol", &carol)] {
        alice.sees_within(HEALED, name, "trusted");
        alice.host.reaches_within(HEALED.saturating_sub(began.elapsed()), &peer.v4());
        peer.host.reaches(&alice.v4());
        eprintln!("registered after {took:.2?}, and {name} {:.2?} later", began.elapsed());
        assert_eq!(peer.ask("pending")["requests"], Value::from(Vec::<Value>::new()), "nobody is asked");
        assert_eq!((&alice.peer(name)["allow"][0], &alice.peer(name)["opens"][0]), (&"icmp".into(), &"icmp".into()));
    }
}

/// What happened to a state, how, and how far the clock is off.
type Case<'a> = (&'a str, &'a dyn Fn(&Agent), &'a str);

/// Bob has his keys, and has lost everything else or is back at what he knew before. Alice goes on trusting him.
#[test]
fn a_peer_that_lost_its_trust_or_was_rolled_back_heals_by_itself() {
    let Some(mut world) = Agents::new("lost trust") else { return };
    let (alice, mut bob) = world.two();
    trust(&alice, "bob", &bob, "alice");
    let first = copy_of(&bob, "first");
    // A new preshared key, which the first state does not have.
    alice.ask("handshake bob --want icmp --want tcp/8000 --allow icmp");
    bob.is_asked_by("alice");
    bob.ask("approve alice");
    within(SHORTLY, "the new grant", || (alice.peer("bob")["opens"][1] == "tcp/8000").then_some(()));
    alice.host.reaches(&bob.v4());
    let all = copy_of(&bob, "all");
    is_told(&bob, "alice");

    let cases: [Case<'_>; 4] = [
        ("lost", &|bob| bob.lose_trust(), "+0"),
        ("rolled back to a former preshared key", &|bob| bob.restore(&first), "+0"),
        ("lost, with a clock an hour behind", &|bob| bob.lose_trust(), "-1h"),
        ("rolled back, with a clock a day behind", &|bob| bob.restore(&all), "-1d"),
    ];
    for (what, harm, offset) in cases {
        bob.kill9();
        harm(&bob);
        if !bob.start_at(offset) {
            return;
        }
        let met =
            within(SHORTLY, "both to meet", || (bob.ask("agents")["rendezvous"] == "connected").then(Instant::now));
        bob.sees_within(HEALED, "alice", "trusted");
        bob.host.reaches_within(HEALED.saturating_sub(met.elapsed()), &alice.v4());
        alice.host.reaches_within(HEALED.saturating_sub(met.elapsed()), &bob.v4());
        eprintln!("trust that was {what}: healed {:.2?} after both had met", met.elapsed());
        assert!(met.elapsed() < HEALED, "{what}");
        assert_eq!(
            (alice.peer("bob")["state"].as_str(), alice.peer("bob")["opens"][1].as_str()),
            (Some("trusted"), Some("tcp/8000"))
        );
        assert_eq!(alice.ask("pending")["requests"], Value::from(Vec::<Value>::new()), "{what}: nobody is asked");
    }
}
