//! A relay as operators run it, and two agents that reach each other through nothing else.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs a relay and sends to it")]

#[path = "relay/agent.rs"]
mod agent;
#[path = "relay/fair.rs"]
mod fair;
#[path = "relay/hostile.rs"]
mod hostile;
mod lab;
#[path = "relay/load.rs"]
mod load;
#[path = "relay/narrow.rs"]
mod narrow;
#[path = "relay/rate.rs"]
mod rate;
#[path = "relay/tunnel.rs"]
mod tunnel;
#[path = "relay/turn.rs"]
mod turn;

use overlay_rendezvous::relay::client::Event;
use overlay_wire::relay::{Channel, Reason, Request, open_data};
use overlay_wire::stun::{self, Change, TransactionId};
use overlay_wire::wireguard;
use serde_json::Value;

use agent::{Agent, PORT, Relay, paired, rendezvous, until};
use lab::{SHORTLY, Star, inside, within};

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How many datagrams a train has, and how long each is with its head: as in WireGuard over a path of 1,500 bytes.
const TRAIN: usize = 40;
const LEN: usize = 1_440;

/// A train through a channel, of which each datagram is different.
fn train(channel: Channel, first: u8) -> Vec<u8> {
    (0..TRAIN).flat_map(|n| [&channel.head()[..], &[first.wrapping_add(n as u8); LEN - 4]].concat()).collect()
}

#[test]
fn two_agents_exchange_trains_through_the_relay() {
    let Some(star) = Star::new("two_agents_exchange_trains_through_the_relay") else { return };
    let relay = Relay::start(&star.a, &format!("--rendezvous {}", rendezvous().public()));
    let (mut agents, channel) = paired(&star, relay.key, true);
    let opened = Event::Opened { channel, peer: agents[0].key.public(), is_ours: false };
    until(&mut agents, "the other end to be told", |agents| agents[1].events.contains(&opened));

    for (from, to) in [(0, 1), (1, 0)] {
        let trains: Vec<_> = (0..20).map(|n| train(channel, n)).collect();
        let all = trains.concat();
        for train in &trains {
            agents[from].send(train, LEN);
        }
        until(&mut agents, "every byte", |agents| agents[to].arrived.len() >= all.len());
        assert_eq!(agents[to].arrived, all, "in order, and unchanged");
        assert!(agents[to].strides.iter().all(|stride| *stride == LEN));
        // Over a veth, trains stay whole on both legs: neither we nor the relay made 800 system calls.
        assert!(agents[to].strides.len() <= 200, "{} trains", agents[to].strides.len());
        assert!(agents[to].arrived.chunks(LEN).all(|datagram| open_data(datagram).is_some_and(|it| it.0 == channel)));
    }
    let counted = |name| relay.counted(&star.a, name);
    assert_eq!((counted("bindings"), counted("channels"), counted("forwarded_total")), (2, 1, 40 * TRAIN as u64));
    assert_eq!(counted("forwarded_bytes_total"), (40 * TRAIN * LEN) as u64);
    assert_eq!((counted("dropped_unbound_total"), counted("dropped_queue_full_total")), (0, 0));
    // The relay took them in as trains, too.
    assert!(counted("trains_total") < 40 * TRAIN as u64 / 2, "{} trains", counted("trains_total"));
}

/// The kernel joins a hello and what is shorter behind it into one train.
#[test]
fn a_question_of_stun_behind_a_hello_is_answered() {
    let Some(star) = Star::new("a_question_of_stun_behind_a_hello_is_answered") else { return };
    let relay = Relay::start(&star.a, "--open");
    let mut agent = Agent::new(&star.b, 3, ("10.2.0.1", relay.key), false);
    let hello = Request::Hello { identity: agent.key.public(), nonce: [7; 16] }.datagram();
    let mut question = Vec::new();
    stun::write_request(TransactionId([9; 12]), Change::NOTHING, &mut question);
    assert!(question.len() < hello.len());
    agent.send(&[&hello[..], &question].concat(), hello.len());
    let mut kinds = Vec::new();
    within(SHORTLY, "both answers", || {
        agent.socket.receive(&mut agent.batch, 16).expect("a socket that can be read");
        for received in agent.batch.iter_mut() {
            kinds.extend(received.contents.chunks(received.stride).map(wireguard::kind));
        }
        [wireguard::Kind::RelayControl, wireguard::Kind::Stun].iter().all(|kind| kinds.contains(kind)).then_some(())
    });
}

#[test]
fn agents_find_a_relay_again_that_was_killed() {
    let Some(star) = Star::new("agents_find_a_relay_again_that_was_killed") else { return };
    let line = format!("--rendezvous {}", rendezvous().public());
    let relay = Relay::start(&star.a, &line);
    let (mut agents, before) = paired(&star, relay.key, true);
    let peer = agents[1].key.public();

    let key = relay.key;
    drop(relay);
    let relay = Relay::start(&star.a, &line);
    assert_eq!(relay.key, key, "its key is on disk");
    // Both send, as agents do that have traffic, and the relay's hints make them bind.
    let mut datagram = 0_u8;
    until(&mut agents, "data to arrive again", |agents| {
        for agent in agents.iter() {
            let channel = agents[0].client.channel_to(&peer).unwrap_or(before);
            agent.send(&[&channel.head()[..], &[datagram; 100]].concat(), 104);
        }
        datagram = datagram.wrapping_add(1);
        agents.iter().all(|agent| !agent.arrived.is_empty())
    });
    assert_eq!(relay.counted(&star.a, "bindings"), 2);
}

#[test]
fn a_stranger_is_refused_and_bytes_that_mean_nothing_get_silence() {
    let Some(star) = Star::new("a_stranger_is_refused_and_bytes_that_mean_nothing_get_silence") else { return };
    let mut relay = Relay::start(&star.a, &format!("--rendezvous {}", rendezvous().public()));
    let mut agents = [Agent::new(&star.b, 11, ("10.2.0.1", relay.key), false)];
    until(&mut agents, "a refusal", |agents| agents[0].events.contains(&Event::Refused(Reason::NotAMember)));
    assert!(!agents[0].client.is_bound());
    let initiation = [&[1, 0, 0, 0][..], &[7; 144]].concat();
    for bytes in [&initiation[..], &[0x41; 11], &[0x81; 159], &[0xff; 1_000], &[0x40; 64]] {
        agents[0].send(bytes, bytes.len());
    }
    within(SHORTLY, "all to be counted", || {
        let counted = |name| relay.counted(&star.a, name);
        let dropped = counted("dropped_foreign_total") + counted("dropped_malformed_total");
        (dropped + counted("dropped_unbound_total") == 5).then_some(())
    });
    assert_eq!(relay.counted(&star.a, "unbound_total"), 0);
    assert!(relay.process.ended().is_none());
    // It ends in order.
    relay.process.signal(rustix::process::Signal::TERM);
    let ended = within(SHORTLY, "the relay's end", || relay.process.ended());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// The port that relays also says how an agent is seen, on the same socket.
#[test]
fn a_relay_answers_stun_on_its_port() {
    let Some(star) = Star::new("a_relay_answers_stun_on_its_port") else { return };
    let relay = Relay::start(&star.a, "--open");
    let asked = star.b.overlay(format!("--json netcheck --server 10.2.0.1:{PORT}"));
    let seen: Value = serde_json::from_str(&asked.succeeded("overlay netcheck")).expect("JSON");
    assert_eq!(seen["udp"], true, "{seen:#}");
    // One address shows nothing about it.
    assert_eq!((&seen["mapping"], &seen["filtering"]), (&"unknown".into(), &"unknown".into()));
    let mapped = seen["ipv4"]["mapped"][0].as_str().expect("an address");
    assert!(mapped.starts_with("10.2.0."), "{mapped}");
    assert!(relay.counted(&star.a, "stun_answered_total") >= 1);
    // An indication is never answered.
    let socket = inside(&star.b, || std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port"));
    let indication = [&[0x00, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    socket.send_to(&indication, ("10.2.0.1", PORT)).expect("sent");
    within(SHORTLY, "the counter", || {
        (relay.counted(&star.a, "stun_unanswered_total{reason=\"not_a_request\"}") == 1).then_some(())
    });
}
