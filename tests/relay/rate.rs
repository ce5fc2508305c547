//! How much the relay carries on one core, beside a copier that decides nothing, and beside coturn.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::agent::{PORT, Relay, open_socket_at, paired};
use crate::lab::{Star, inside, installed};
use crate::load::{QUARTER, Quarter, Sink, copier, flood};
use crate::turn;
use crate::{LEN, TRAIN, median};

const ROUNDS: usize = 5;
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Where what is forwarded leaves, and to whom.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const RECEIVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, 2), 9);
const COPIER: u16 = 7448;

/// Prints the medians as they would be with a whole core.
fn say(who: &str, rates: &[f64], datagram: f64) {
    let rate = median(rates.to_vec()) / QUARTER;
    eprintln!("{who:7} {:6.2} Gb/s, {:9.0} datagrams/s with a core", rate * 8.0 / 1e9, rate / datagram);
}

/// The copier is the most that the kernel allows.
#[test]
fn rate_full_trains_go_at_six_tenths_of_a_bare_copier() {
    let Some(star) = Star::new("rate_full_trains_go_at_six_tenths_of_a_bare_copier") else { return };
    let [Some(our), Some(bare)] = ["relay", "copier"].map(Quarter::new) else { return };
    let relay = Relay::start(&star.a, "--open");
    our.hold(&relay.process);
    let (mut agents, channel) = paired(&star, relay.key, false);
    let [to_relay, to_copier] = [PORT, COPIER].map(|port| SocketAddr::from((RELAY, port)));
    let sink = Sink::new(&star.c, &star.c.link_to(&star.a));
    let train: Vec<u8> = (0..TRAIN).flat_map(|_| [&channel.head()[..], &[7; LEN - 4]].concat()).collect();
    let from = &mut agents[0].socket;
    let mut figures: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        figures[0].push(flood(from, to_relay, (&train, LEN), &sink));
        let copied = || flood(from, to_copier, (&train, LEN), &sink);
        figures[1].push(copier(&star.a, &bare, (COPIER, RECEIVER.into()), copied));
    }
    say("relay", &figures[0], LEN as f64);
    say("copier", &figures[1], LEN as f64);
    let ratio = median(figures[0].iter().zip(&figures[1]).map(|(ours, bare)| ours / bare).collect());
    eprintln!("ratio {ratio:.2}");
    assert!(ratio >= 0.6, "{ratio:.2} of the copier");
}

/// How small datagrams cross the wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// One by one, and the kernel joins them again (GRO), as it does for any network card.
    Joined,
    /// One by one, and nobody joins them.
    Single,
    /// As whole trains, which only a veth does.
    Whole,
}

#[test]
fn rate_small_datagrams_go_three_times_as_fast_as_through_coturn() {
    small(Wire::Joined, 3.0);
}

/// Then a system call for each datagram, which coturn makes, is not much more than what the kernel does for it anyway.
#[test]
fn rate_small_datagrams_go_twice_as_fast_as_through_coturn_without_offloads() {
    small(Wire::Single, 2.0);
}

#[test]
fn rate_trains_of_small_datagrams_go_three_times_as_fast_as_through_coturn() {
    small(Wire::Whole, 3.0);
}

fn small(wire: Wire, at_least: f64) {
    const INSIDE: u16 = 64;
    const OUTSIDE: usize = 68;
    /// As many as a train has on every kernel.
    const DATAGRAMS: usize = 64;
    if !installed("small datagrams", &["turnserver"]) {
        return;
    }
    let Some(star) = Star::new("small datagrams") else { return };
    if wire != Wire::Whole {
        for point in [&star.b, &star.c] {
            star.a.offloads_off(point);
            point.offloads_off(&star.a);
        }
    }
    if wire == Wire::Joined {
        star.a.exec(format!("ethtool -K {} gro on", star.a.link_to(&star.b)));
    }
    let held = ["relay", "coturn", "copier"].map(Quarter::new);
    let [Some(our), Some(their), Some(bare)] = held else { return };
    let relay = Relay::start(&star.a, "--open");
    our.hold(&relay.process);
    let coturn = turn::coturn(&star.a, RELAY, FAR);
    their.hold(&coturn);
    let (mut agents, channel) = paired(&star, relay.key, false);
    let at_coturn = turn::channel(&star.b, RELAY, RECEIVER);
    // The load comes from a socket of ours at the same address.
    let port = at_coturn.local_addr().expect("it is bound").port();
    drop(at_coturn);
    let mut at_coturn = inside(&star.b, || open_socket_at(port));
    let sink = Sink::new(&star.c, &star.c.link_to(&star.a));
    let ours = [&channel.head()[..], &[7; INSIDE as usize]].concat().repeat(DATAGRAMS);
    let theirs = turn::data(INSIDE).repeat(DATAGRAMS);
    let [to_relay, to_copier] = [PORT, COPIER].map(|port| SocketAddr::from((RELAY, port)));
    let from = &mut agents[0].socket;
    let mut figures: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        figures[0].push(flood(from, to_relay, (&ours, OUTSIDE), &sink));
        figures[1].push(flood(&mut at_coturn, turn::address(RELAY), (&theirs, OUTSIDE), &sink));
        let copied = || flood(from, to_copier, (&ours, OUTSIDE), &sink);
        figures[2].push(copier(&star.a, &bare, (COPIER, RECEIVER.into()), copied));
    }
    say("relay", &figures[0], OUTSIDE as f64);
    say("coturn", &figures[1], INSIDE.into());
    say("copier", &figures[2], OUTSIDE as f64);
    let times = |(ours, theirs): (&f64, &f64)| (ours / OUTSIDE as f64) / (theirs / f64::from(INSIDE));
    let ratio = median(figures[0].iter().zip(&figures[1]).map(times).collect());
    eprintln!("{ratio:.1} times coturn");
    assert!(ratio >= at_least, "{ratio:.1} times coturn");
}
