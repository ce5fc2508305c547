//! How much the relay carries on one core, beside a copier that decides nothing, and beside coturn.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::agent::{PORT, Relay, open_socket_at, paired};
use crate::lab::{Star, inside, installed};
use crate::load::{Figure, Sink, copier, flood, pin_program};
use crate::turn;
use crate::{LEN, TRAIN};

const ROUNDS: usize = 5;
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Where what is forwarded leaves, and to whom.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);
const RECEIVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 3, 0, 2), 9);
const COPIER: u16 = 7448;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn say(who: &str, figures: &[Figure], datagram: f64) {
    let of = |get: fn(&Figure) -> f64| median(figures.iter().map(get).collect());
    eprintln!(
        "{who:9} {:6.2} Gb/s, {:9.0} datagrams/s, core busy {:3.0} %, {:.2} CPU s/GB",
        of(|it| it.rate) * 8.0 / 1e9,
        of(|it| it.rate) / datagram,
        of(|it| it.busy) * 100.0,
        of(|it| it.cost)
    );
}

/// The copier is the most that the kernel allows.
#[test]
fn rate_full_trains_go_at_six_tenths_of_a_bare_copier() {
    let Some(star) = Star::new("rate_full_trains_go_at_six_tenths_of_a_bare_copier") else { return };
    let relay = Relay::start(&star.a, "--open");
    pin_program(&relay.process);
    let (mut agents, channel) = paired(&star, relay.key, false);
    let to_relay = agents[0].relay;
    let sink = Sink::new(&star.c, &star.c.link_to(&star.a));
    let train: Vec<u8> = (0..TRAIN).flat_map(|_| [&channel.head()[..], &[7; LEN - 4]].concat()).collect();
    let pid = relay.process.pid().to_string();
    let mut figures: [Vec<Figure>; 2] = Default::default();
    for _ in 0..ROUNDS {
        figures[0].push(flood(&mut agents[0].socket, to_relay, (&train, LEN), &sink, &pid));
        let to = SocketAddr::from((RELAY, COPIER));
        let copied = |worker: &str| flood(&mut agents[0].socket, to, (&train, LEN), &sink, worker);
        figures[1].push(copier(&star.a, COPIER, RECEIVER.into(), copied));
    }
    say("relay", &figures[0], LEN as f64);
    say("copier", &figures[1], LEN as f64);
    let ratio = median(figures[0].iter().zip(&figures[1]).map(|(ours, bare)| ours.rate / bare.rate).collect());
    eprintln!("ratio {ratio:.2}");
    assert!(ratio >= 0.6, "{ratio:.2} of the copier");
}

/// Over wires without offloads: each datagram comes alone, as from a network.
#[test]
fn rate_small_datagrams_go_three_times_as_fast_as_through_coturn() {
    small(false);
}

/// Over wires on which trains stay whole.
#[test]
fn rate_trains_of_small_datagrams_go_three_times_as_fast_as_through_coturn() {
    small(true);
}

fn small(is_whole: bool) {
    const INSIDE: u16 = 64;
    const OUTSIDE: usize = 68;
    /// As many as a train has on every kernel.
    const DATAGRAMS: usize = 64;
    if !installed("small datagrams", &["turnserver"]) {
        return;
    }
    let Some(star) = Star::new("small datagrams") else { return };
    if !is_whole {
        for point in [&star.b, &star.c] {
            star.a.offloads_off(point);
            point.offloads_off(&star.a);
        }
    }
    let relay = Relay::start(&star.a, "--open");
    pin_program(&relay.process);
    let coturn = turn::coturn(&star.a, RELAY, FAR);
    pin_program(&coturn);
    let (mut agents, channel) = paired(&star, relay.key, false);
    let at_coturn = turn::channel(&star.b, RELAY, RECEIVER);
    // The load comes from a socket of ours at the same address.
    let port = at_coturn.local_addr().expect("it is bound").port();
    drop(at_coturn);
    let mut at_coturn = inside(&star.b, || open_socket_at(port));
    let sink = Sink::new(&star.c, &star.c.link_to(&star.a));
    let ours = [&channel.head()[..], &[7; INSIDE as usize]].concat().repeat(DATAGRAMS);
    let theirs = turn::data(INSIDE).repeat(DATAGRAMS);
    let to = SocketAddr::from((RELAY, PORT));
    let (our_pid, their_pid) = (relay.process.pid().to_string(), coturn.pid().to_string());
    let mut figures: [Vec<Figure>; 3] = Default::default();
    for _ in 0..ROUNDS {
        figures[0].push(flood(&mut agents[0].socket, to, (&ours, OUTSIDE), &sink, &our_pid));
        figures[1].push(flood(&mut at_coturn, turn::address(RELAY), (&theirs, OUTSIDE), &sink, &their_pid));
        let copied = |worker: &str| {
            flood(&mut agents[0].socket, SocketAddr::from((RELAY, COPIER)), (&ours, OUTSIDE), &sink, worker)
        };
        figures[2].push(copier(&star.a, COPIER, RECEIVER.into(), copied));
    }
    say("relay", &figures[0], OUTSIDE as f64);
    say("coturn", &figures[1], INSIDE.into());
    say("copier", &figures[2], OUTSIDE as f64);
    let times = |(ours, theirs): (&Figure, &Figure)| (ours.rate / OUTSIDE as f64) / (theirs.rate / f64::from(INSIDE));
    let ratio = median(figures[0].iter().zip(&figures[1]).map(times).collect());
    eprintln!("{ratio:.1} times coturn");
    assert!(ratio >= 3.0, "{ratio:.1} times coturn");
}
