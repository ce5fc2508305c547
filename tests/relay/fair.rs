//! Fifty clients of one relay, of which one sends ten times as much as its share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use overlay_wire::relay::{Channel, open_data};

use crate::agent::{Agent, Relay, now, until};
use crate::lab::Star;
use crate::{LEN, median};

const CLIENTS: usize = 50;
/// The client that sends tenfold.
const GREEDY: usize = 0;
/// The rate of the link that all of them share, in bytes a second, and how many of them a datagram takes.
const LINK: f64 = 300e6 / 8.0;
const ON_LINK: usize = LEN + 28 + 14;
const WARM_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(6);

/// The clients in `b`, each with a channel to the one agent in `c`.
fn crowd(star: &Star, relay: &Relay) -> (Vec<(Agent, Channel)>, Agent) {
    let receiver = Agent::new(&star.c, 12, ("10.3.0.1", relay.key), false);
    let mut agents: Vec<_> =
        (0..CLIENTS).map(|n| Agent::new(&star.b, 20 + n as u8, ("10.2.0.1", relay.key), false)).collect();
    for agent in &mut agents {
        let permit = receiver.permit(agent, relay.key, 1);
        agent.client.open(permit, now()).expect("it is ours");
    }
    let peer = receiver.key.public();
    agents.push(receiver);
    let are_open = |agents: &mut [Agent]| agents[..CLIENTS].iter().all(|it| it.client.channel_to(&peer).is_some());
    until(&mut agents, "all channels", are_open);
    let receiver = agents.pop().expect("it was put there");
    let with_channel = |agent: Agent| {
        let channel = agent.client.channel_to(&peer).expect("it is open");
        (agent, channel)
    };
    (agents.into_iter().map(with_channel).collect(), receiver)
}

/// Sends at the rate of each until the end. Every datagram carries the time.
fn send(clients: &mut [(Agent, Channel)], stop: &AtomicBool) {
    let share = LINK / CLIENTS as f64 / ON_LINK as f64;
    let began = now().monotonic;
    let mut sent = [0; CLIENTS];
    while !stop.load(Relaxed) {
        let elapsed = (now().monotonic - began).as_secs_f64();
        for (n, (agent, channel)) in clients.iter().enumerate() {
            let rate = if n == GREEDY { 10.0 * share } else { share };
            // They do not all send at the same moment.
            let due = (elapsed * rate + n as f64 / CLIENTS as f64) as u64 - sent[n];
            sent[n] += due;
            for _ in 0..due {
                let mut datagram = [&channel.head()[..], &[7; LEN - 4]].concat();
                datagram[4..12].copy_from_slice(&(now().monotonic.as_nanos() as u64).to_be_bytes());
                agent.send(&datagram, LEN);
            }
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// The delays of all datagrams that arrive in the window, in milliseconds, by channel.
fn receive(receiver: &mut Agent) -> BTreeMap<Channel, Vec<f64>> {
    let mut delays: BTreeMap<Channel, Vec<f64>> = BTreeMap::new();
    let began = now().monotonic;
    while now().monotonic - began < WARM_UP + WINDOW {
        receiver.turn();
        let at = now().monotonic;
        let arrived = std::mem::take(&mut receiver.arrived);
        if at - began < WARM_UP {
            continue;
        }
        for datagram in arrived.chunks(LEN) {
            let (channel, inside) = open_data(datagram).expect("relay data");
            let sent = u64::from_be_bytes(*inside.first_chunk().expect("a time"));
            delays.entry(channel).or_default().push((at.as_nanos() as u64 - sent) as f64 / 1e6);
        }
        thread::sleep(Duration::from_micros(200));
    }
    delays
}

#[test]
fn rate_one_who_sends_tenfold_takes_nothing_from_the_others() {
    let Some(star) = Star::new("rate_one_who_sends_tenfold_takes_nothing_from_the_others") else { return };
    let link = star.a.link_to(&star.c);
    star.a.offloads_off(&star.c);
    star.c.offloads_off(&star.a);
    star.a.exec(format!("tc qdisc add dev {link} root tbf rate 300mbit burst 64kb latency 200ms"));
    let relay = Relay::start(&star.a, "--open");
    let (mut clients, mut receiver) = crowd(&star, &relay);
    let channels: Vec<_> = clients.iter().map(|(_, channel)| *channel).collect();
    let stop = AtomicBool::new(false);
    let delays = thread::scope(|scope| {
        scope.spawn(|| send(&mut clients, &stop));
        let delays = receive(&mut receiver);
        stop.store(true, Relaxed);
        delays
    });
    let share = LINK / CLIENTS as f64 / ON_LINK as f64 * WINDOW.as_secs_f64();
    let kept = |n: usize| delays.get(&channels[n]).map_or(0, Vec::len) as f64 / share;
    let others: Vec<_> = (0..CLIENTS).filter(|n| *n != GREEDY).collect();
    let least = others.iter().map(|n| kept(*n)).fold(f64::MAX, f64::min);
    let mut waits: Vec<f64> = others.iter().filter_map(|n| delays.get(&channels[*n])).flatten().copied().collect();
    waits.sort_by(f64::total_cmp);
    let p99 = waits[waits.len() * 99 / 100];
    let greedy = delays.get(&channels[GREEDY]).cloned().unwrap_or_default();
    eprintln!(
        "the others keep {:.1} % of their share, {:.1} % in the middle; their delay is {:.1} ms in the middle, p99 {p99:.1} ms",
        least * 100.0,
        median(others.iter().map(|n| kept(*n)).collect()) * 100.0,
        median(waits.clone()),
    );
    eprintln!("the greedy one gets {:.2} shares, its delay is {:.1} ms", kept(GREEDY), median(greedy));
    for name in ["queue_full", "too_late", "gave_way", "unbound"] {
        eprintln!("dropped_{name} {}", relay.counted(&star.a, &format!("dropped_{name}_total")));
    }
    assert!(least >= 0.9, "one keeps {:.1} %", least * 100.0);
    assert!(p99 <= 30.0, "{p99:.1} ms");
}
