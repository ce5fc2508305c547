//! Pairs of real routers: two sites meet exactly where `traversable` says so.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use overlay_sim::nat::{Kind, traversable};

use crate::lab::{End, Host, Internet, Lab, Plain, SHORTLY, Site, installed, within};

/// How long both sides try. Where there is a path, they find it within milliseconds.
const SPAN: Duration = Duration::from_secs(2);
/// Between two probes to one target.
const PACE: Duration = Duration::from_millis(100);
/// For a datagram to come.
const A_MOMENT: Duration = Duration::from_millis(5);

/// One side: its site, its host, and its socket in the present attempt.
struct Side {
    site: Site,
    host: Host,
}

/// A socket that tries.
struct Attempt {
    socket: Plain,
    targets: BTreeSet<SocketAddr>,
    has_heard: bool,
}

impl Attempt {
    /// Takes what came. The source of a probe is a target from now on.
    fn look(&mut self) {
        while let Some(heard) = self.socket.hear(A_MOMENT) {
            self.has_heard = true;
            if self.targets.insert(heard.source) {
                self.socket.send(heard.source, b"probe");
            }
        }
    }
}

/// The server-reflexive address of a socket. A site that has just begun may lose a datagram.
#[track_caller]
fn reflexive(socket: &Plain, server: &Plain) -> SocketAddr {
    within(SHORTLY, "the server to be asked", || {
        socket.send(server.address(), b"?");
        server.hear(Duration::from_millis(500)).map(|heard| heard.source)
    })
}

/// Both sides learn their addresses from the server, send openers, and probe.
fn meet(sides: [(&Side, IpAddr); 2], server: &Plain, port: u16) -> bool {
    for (side, _) in sides {
        side.site.forget();
    }
    let sockets = sides.map(|(side, address)| Plain::open(&side.host, SocketAddr::new(address, port)));
    let addresses = sockets.each_ref().map(|socket| reflexive(socket, server));
    for ttl in [2, 4] {
        for own in 0..2 {
            sockets[own].send_with_ttl(addresses[1 - own], b"opener", ttl);
        }
        let _ = sockets[0].hear(Duration::from_millis(20));
    }
    let mut number = 0;
    let mut attempts = sockets.map(|socket| {
        number += 1;
        Attempt { socket, targets: BTreeSet::from([addresses[2 - number]]), has_heard: false }
    });
    let began = Instant::now();
    let mut next_probe = began;
    while began.elapsed() < SPAN && !attempts.iter().all(|attempt| attempt.has_heard) {
        if Instant::now() >= next_probe {
            next_probe += PACE;
            for attempt in &attempts {
                attempt.targets.iter().for_each(|target| attempt.socket.send(*target, b"probe"));
            }
        }
        attempts.iter_mut().for_each(Attempt::look);
    }
    attempts.iter().all(|attempt| attempt.has_heard)
}

#[test]
fn two_sites_meet_exactly_where_the_statement_says_so() {
    let name = "pairs of NATs";
    if !installed(name, &["conntrack"]) {
        return;
    }
    let Some(lab) = Lab::new(name) else { return };
    let internet = Internet::new(&lab);
    let side = |end, letter: char, kind: Kind| {
        let number = Kind::ALL.iter().position(|other| *other == kind).expect("a kind");
        let site = Site::new(&lab, &internet, end, &format!("{letter}{number}"), kind);
        let host = site.host(&lab, &format!("h{letter}{number}"));
        Side { site, host }
    };
    let west = Kind::ALL.map(|kind| side(End::West, 'w', kind));
    let east = Kind::ALL.map(|kind| side(End::East, 'e', kind));
    let host = lab.host("server");
    let attachment = internet.attach(&lab, &host, End::NearEast);
    let servers = [IpAddr::from(attachment.v4), attachment.v6.into()]
        .map(|address| Plain::open(&host, SocketAddr::new(address, 3_478)));

    let mut port = 20_000;
    let mut wrong = Vec::new();
    for (index, a) in west.iter().enumerate() {
        for b in &east[index..] {
            let (one, other) = (a.site.kind(), b.site.kind());
            let has_met = [false, true].into_iter().any(|is_ipv6| {
                let addresses = [a, b].map(|side| side.site.inside_of(2, is_ipv6));
                let [Some(first), Some(second)] = addresses else { return false };
                port += 1;
                meet([(a, first), (b, second)], &servers[usize::from(is_ipv6)], port)
            });
            if has_met != traversable(one, other) {
                wrong.push(format!("{} and {}: {has_met}", one.name(), other.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
