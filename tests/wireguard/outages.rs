//! A peer that is unreachable for a while and comes back: a side with something to say finds it again within seconds.
//!
//! Handshakes are given up after 90 s. Some implementations never recover from that point.

use std::thread;
use std::time::{Duration, Instant};

use super::device::one_ping;
use super::worlds::Apart;
use crate::lab::{A, B, Host, Outside, Process, within};

/// A handshake is tried every 5 s with up to 334 ms of jitter.
const WITH_TRAFFIC: Duration = Duration::from_secs(6);
/// The keepalive interval, and a handshake.
const WITH_KEEPALIVE: Duration = Duration::from_secs(30);

/// Which side sends, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    /// `a` sends a ping every second, from before the outage to its end.
    AThroughout,
    /// `b` does the same.
    BThroughout,
    /// `a` sends only after the outage.
    AAfterwards,
    /// `b` does the same.
    BAfterwards,
    /// Neither side sends. `a` has a persistent keepalive of 25 s.
    Nobody,
    /// Neither side sends. Both have a persistent keepalive.
    NobodyOfTwo,
}

const SPEAKERS: [Speaker; 6] = [
    Speaker::AThroughout,
    Speaker::BThroughout,
    Speaker::AAfterwards,
    Speaker::BAfterwards,
    Speaker::Nobody,
    Speaker::NobodyOfTwo,
];

#[test]
fn a_peer_that_was_out_of_reach_for_90_s_is_found_again() {
    outage(Duration::from_secs(90));
}

#[test]
fn soak_a_peer_that_was_out_of_reach_for_300_s_is_found_again() {
    outage(Duration::from_secs(300));
}

#[test]
fn soak_a_peer_that_was_out_of_reach_for_600_s_is_found_again() {
    outage(Duration::from_secs(600));
}

/// All of them at once, each in a world of its own.
fn outage(length: Duration) {
    let found: Vec<_> = thread::scope(|scope| {
        let running = SPEAKERS.map(|speaker| scope.spawn(move || (speaker, find_again(speaker, length))));
        running.into_iter().map(|thread| thread.join().expect("every world comes up")).collect()
    });
    let mut late = Vec::new();
    for (speaker, after) in found {
        let Some(after) = after else { return };
        eprintln!("{speaker:?}: found {:.1} s after {length:?}", after.as_secs_f64());
        let limit = if speaker.is_silent() { WITH_KEEPALIVE } else { WITH_TRAFFIC };
        if after > limit {
            late.push((speaker, after));
        }
    }
    assert!(late.is_empty(), "{late:?}");
}

/// How long after the outage the two sides find each other again. `None` if this machine cannot.
fn find_again(speaker: Speaker, length: Duration) -> Option<Duration> {
    let world = Apart::new("outage")?;
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    match speaker {
        Speaker::Nobody => a.device.set(&format!("peer {} persistent-keepalive 25", b.key.public)),
        Speaker::NobodyOfTwo => {
            a.device.set(&format!("peer {} persistent-keepalive 25", b.key.public));
            b.device.set(&format!("peer {} persistent-keepalive 25", a.key.public));
        }
        _ => {}
    }
    one_ping(&a.host, B.v4);
    one_ping(&b.host, A.v4);
    let throughout = match speaker {
        Speaker::AThroughout => Some(pings(&a.host, B.v4)),
        Speaker::BThroughout => Some(pings(&b.host, A.v4)),
        _ => None,
    };
    // How many bytes each has received from the other.
    let received = || [a.device.transfer(&b.key).0, b.device.transfer(&a.key).0];
    let began = Instant::now();
    world.middle.exec("iptables -A INPUT -p udp -j DROP");
    thread::sleep(length);
    let (heard, before) = (answers(throughout.as_ref()), received());
    assert!(began.elapsed() < length + Duration::from_secs(10), "this machine stood still");
    world.middle.exec("iptables -D INPUT -p udp -j DROP");
    let back = Instant::now();
    let afterwards = match speaker {
        Speaker::AAfterwards => Some(pings(&a.host, B.v4)),
        Speaker::BAfterwards => Some(pings(&b.host, A.v4)),
        _ => None,
    };
    let limit = Duration::from_secs(60);
    within(limit, &format!("{speaker:?} to find the peer again after {length:?}"), || match &speaker {
        Speaker::Nobody | Speaker::NobodyOfTwo => {
            // Both have heard the other.
            let now = received();
            (now[0] > before[0] && now[1] > before[1]).then_some(())
        }
        Speaker::AThroughout | Speaker::BThroughout => (answers(throughout.as_ref()) > heard).then_some(()),
        _ => (answers(afterwards.as_ref()) > 0).then_some(()),
    });
    let after = back.elapsed();
    // The recovery is not one-way and not temporary.
    for _ in 0..5 {
        one_ping(&a.host, B.v4);
        one_ping(&b.host, A.v6);
    }
    Some(after)
}

impl Speaker {
    fn is_silent(self) -> bool {
        matches!(self, Speaker::Nobody | Speaker::NobodyOfTwo)
    }
}

/// Sends a ping every second until it is dropped.
fn pings(from: &Host, to: &str) -> Process {
    from.spawn(format!("ping -n -i 1 -W 1 {to}"))
}

fn answers(ping: Option<&Process>) -> usize {
    ping.map_or(0, |ping| ping.stdout().matches("bytes from").count())
}
