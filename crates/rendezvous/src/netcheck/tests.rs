//! Whole checks in virtual time, past every kind of NAT, with the servers of `crate::stun`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::stun::{self, Gate, Place};

/// How long a datagram takes to a server, or back.
const ONE_WAY: Duration = Duration::from_millis(20);
const START: Duration = Duration::from_secs(1_000);
/// The servers: 192.0.2.1 and 192.0.2.2 belong to one, 198.51.100.1 to one with a single address.
const GUIDE: &str = "192.0.2.1:3478";
const SINGLE: &str = "198.51.100.1:3478";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A NAT by the words of RFC 4787.
struct Nat {
    mapping: Mapping,
    filtering: Filtering,
    /// The socket inside and what the mapping depends on, to the port outside.
    ports: BTreeMap<(u16, Option<SocketAddr>), u16>,
    /// For each port outside, where was sent to from it.
    sent_to: BTreeSet<(u16, SocketAddr)>,
}

impl Nat {
    fn new(mapping: Mapping, filtering: Filtering) -> Self {
        Self { mapping, filtering, ports: BTreeMap::new(), sent_to: BTreeSet::new() }
    }

    fn out(&mut self, inside: u16, to: SocketAddr) -> u16 {
        let depends_on = match self.mapping {
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some(SocketAddr::new(to.ip(), 0)),
            Mapping::AddressAndPortDependent | Mapping::Unknown => Some(to),
        };
        let next = 50_000 + self.ports.len() as u16;
        let outside = *self.ports.entry((inside, depends_on)).or_insert(next);
        self.sent_to.insert((outside, to));
        outside
    }

    fn back(&self, from: SocketAddr, outside: u16) -> Option<u16> {
        let mut known = self.sent_to.iter().filter(|(port, _)| *port == outside).map(|(_, to)| to);
        let passes = match self.filtering {
            Filtering::EndpointIndependent => known.next().is_some(),
            Filtering::AddressDependent => known.any(|to| to.ip() == from.ip()),
            Filtering::AddressAndPortDependent | Filtering::Unknown => known.any(|to| *to == from),
        };
        let mut ports = self.ports.iter();
        let inside = ports.find_map(|((inside, _), port)| (*port == outside).then_some(*inside));
        inside.filter(|_| passes)
    }
}

/// What is between the client and the servers.
struct World {
    nat: Nat,
    gate: Gate,
    /// Whether the n-th datagram of the client, or of a server, is lost.
    is_lost: fn(usize) -> bool,
    /// Sockets of servers that are down.
    down: Vec<SocketAddr>,
    /// Whether servers answer from where they were asked, whatever they were asked.
    ignores_change: bool,
    carried: usize,
    sent: usize,
}

impl World {
    fn new(mapping: Mapping, filtering: Filtering) -> Self {
        Self {
            nat: Nat::new(mapping, filtering),
            gate: Gate::default(),
            is_lost: |_| false,
            down: Vec::new(),
            ignores_change: false,
            carried: 0,
            sent: 0,
        }
    }

    fn loses(&mut self) -> bool {
        self.carried += 1;
        (self.is_lost)(self.carried - 1)
    }

    /// The answer to a datagram from a port of the NAT, and where it comes from.
    fn served(
        &mut self,
        outside: u16,
        to: SocketAddr,
        contents: &[u8],
        now: Duration,
    ) -> Option<(Vec<u8>, SocketAddr)> {
        let from = SocketAddr::new(if to.is_ipv4() { [203, 0, 113, 7].into() } else { SIX.into() }, outside);
        if to == address(SINGLE) {
            return Some((stun::answer(contents, from, now, &mut self.gate)?, to));
        }
        let (ips, ports) = match to {
            SocketAddr::V4(_) => ([address(GUIDE).ip(), address("192.0.2.2:1").ip()], [3478, 3479]),
            SocketAddr::V6(_) => (["[2001:db8::1]:1", "[2001:db8::2]:1"].map(|text| address(text).ip()), [3478, 3479]),
        };
        let ip = ips.iter().find(|ip| **ip != to.ip())?;
        let port = ports.iter().find(|port| **port != to.port())?;
        let place = Place { at: to, other: SocketAddr::new(*ip, *port) };
        let (bytes, by) = stun::answer_at(contents, from, place, now, &mut self.gate)?;
        let by = if self.ignores_change { to } else { by };
        Some((bytes, by)).filter(|(_, by)| !self.down.contains(by) && !self.down.contains(&to))
    }

    /// Runs a check to its end.
    fn check(&mut self, servers: &[&str]) -> (Netcheck, Duration) {
        let servers: Vec<_> = servers.iter().map(|server| address(server)).collect();
        let mut check = Netcheck::new(&servers, [7; 32], START);
        let mut now = START;
        // What is on its way back: when it arrives, at which socket, from where.
        let mut on_their_way: BTreeMap<(Duration, usize), (Socket, SocketAddr, Vec<u8>)> = BTreeMap::new();
        loop {
            while let Some(Transmit { socket, to, contents }) = check.poll_transmit(now) {
                self.sent += 1;
                let outside = self.nat.out(inside(socket), to);
                if self.loses() {
                    continue;
                }
                let Some((bytes, by)) = self.served(outside, to, &contents, now + ONE_WAY) else { continue };
                if self.loses() {
                    continue;
                }
                let Some(port) = self.nat.back(by, outside) else { continue };
                let socket = if port == inside(Socket::Mapping) { Socket::Mapping } else { Socket::Filtering };
                on_their_way.insert((now + 2 * ONE_WAY, self.sent), (socket, by, bytes));
            }
            let Some(deadline) = check.poll_timeout() else { return (check, now - START) };
            match on_their_way.first_key_value().map(|(key, _)| *key).filter(|(arrives, _)| *arrives <= deadline) {
                Some(key) => {
                    let (socket, from, bytes) = on_their_way.remove(&key).expect("it is the first");
                    now = key.0;
                    check.handle_datagram(socket, from, &bytes, now);
                }
                None => {
                    now = deadline;
                    check.handle_timeout(now);
                }
            }
        }
    }
}

/// The address of the NAT in IPv6.
const SIX: [u16; 8] = [0x2001, 0xdb8, 7, 0, 0, 0, 0, 7];

fn inside(socket: Socket) -> u16 {
    match socket {
        Socket::Mapping => 1_001,
        Socket::Filtering => 1_002,
    }
}

const MAPPINGS: [Mapping; 3] =
    [Mapping::EndpointIndependent, Mapping::AddressDependent, Mapping::AddressAndPortDependent];
const FILTERINGS: [Filtering; 3] =
    [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];

#[test]
fn every_kind_of_nat_is_recognised_by_one_server_with_two_addresses() {
    for (mapping, filtering) in MAPPINGS.iter().flat_map(|mapping| FILTERINGS.map(|filtering| (*mapping, filtering))) {
        for servers in [&[GUIDE][..], &[GUIDE, SINGLE], &[GUIDE, "192.0.2.2:3478", "192.0.2.2:3479"]] {
            let mut world = World::new(mapping, filtering);
            let (check, took) = world.check(servers);
            let report = check.report();
            let four = &report.v4;
            assert_eq!((four.mapping, four.filtering), (mapping, filtering), "{servers:?}");
            assert_eq!((four.standing, report.v6.standing), (Standing::Works, Standing::Untried));
            assert_eq!(report.udp(), Some(true));
            assert_eq!(four.mapped.len() == 1, mapping == Mapping::EndpointIndependent);
            for (server, outcome) in &four.servers {
                let Outcome::Answered { mapped, round_trip } = outcome else { panic!("{server}: {outcome:?}") };
                assert_eq!((mapped.ip(), *round_trip), (address("203.0.113.7:0").ip(), 2 * ONE_WAY));
            }
            // Only a filter makes it wait.
            let most = if filtering == Filtering::EndpointIndependent { 100 } else { 6_000 };
            assert!(took <= Duration::from_millis(most), "{took:?}");
            assert_eq!(check.dropped(), Dropped::default());
        }
    }
}

#[test]
fn servers_with_one_address_show_the_mapping_and_not_the_filter() {
    for mapping in MAPPINGS {
        let (check, _) = World::new(mapping, Filtering::AddressAndPortDependent).check(&[SINGLE]);
        assert_eq!((check.report().v4.mapping, check.report().v4.filtering), (Mapping::Unknown, Filtering::Unknown));
    }
    // The guide's other addresses are down: it is like two servers with one address each.
    for (mapping, expected) in [
        (Mapping::EndpointIndependent, Mapping::EndpointIndependent),
        (Mapping::AddressAndPortDependent, Mapping::AddressAndPortDependent),
        // Nothing shows that the port does not matter.
        (Mapping::AddressDependent, Mapping::AddressAndPortDependent),
    ] {
        let mut world = World::new(mapping, Filtering::AddressAndPortDependent);
        world.down = ["192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479"].map(address).to_vec();
        let (check, took) = world.check(&[GUIDE, SINGLE]);
        assert_eq!((check.report().v4.mapping, check.report().v4.filtering), (expected, Filtering::Unknown));
        assert!(took <= Duration::from_secs(6));
    }
}

#[test]
fn a_server_that_does_not_change_its_address_teaches_nothing_about_the_filter() {
    for filtering in FILTERINGS {
        let mut world = World::new(Mapping::EndpointIndependent, filtering);
        world.ignores_change = true;
        let (check, _) = world.check(&[GUIDE]);
        assert_eq!(check.report().v4.filtering, Filtering::Unknown);
        assert_eq!(check.report().v4.mapping, Mapping::EndpointIndependent);
    }
}

#[test]
fn where_udp_is_blocked_the_check_says_so_after_six_seconds() {
    let mut world = World::new(Mapping::EndpointIndependent, Filtering::EndpointIndependent);
    world.is_lost = |_| true;
    let (check, took) = world.check(&[GUIDE, SINGLE, "[2001:db8::1]:3478"]);
    let report = check.report();
    assert_eq!((report.v4.standing, report.v6.standing), (Standing::Silent, Standing::Silent));
    assert_eq!((report.v4.mapping, report.v4.filtering), (Mapping::Unknown, Filtering::Unknown));
    assert_eq!(report.udp(), Some(false));
    assert_eq!(report.v4.servers[0], (address(GUIDE), Outcome::Silent));
    assert!(took <= Duration::from_secs(6));
    assert_eq!(world.sent, 3 * 4);
}

#[test]
fn a_lossy_network_takes_longer_and_gives_the_same_result() {
    for (mapping, filtering) in MAPPINGS.iter().flat_map(|mapping| FILTERINGS.map(|filtering| (*mapping, filtering))) {
        let mut world = World::new(mapping, filtering);
        // Every third datagram, in whatever direction.
        world.is_lost = |number| number % 3 == 0;
        let (check, _) = world.check(&[GUIDE, SINGLE]);
        assert_eq!((check.report().v4.mapping, check.report().v4.filtering), (mapping, filtering));
        for (_, outcome) in check.report().v4.servers {
            let Outcome::Answered { round_trip, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(round_trip, 2 * ONE_WAY, "that of the attempt that arrived");
        }
    }
}

#[test]
fn the_families_are_judged_separately() {
    // IPv6 has a firewall and no translation, as most homes have.
    let mut world = World::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent);
    let (check, _) = world.check(&[GUIDE, "[2001:db8::1]:3478"]);
    let report = check.report();
    assert_eq!((report.v4.standing, report.v6.standing), (Standing::Works, Standing::Works));
    assert_eq!(report.v6.mapping, Mapping::EndpointIndependent);
    assert_eq!(report.v6.filtering, Filtering::AddressAndPortDependent);
    assert!(report.v6.mapped.iter().all(SocketAddr::is_ipv6) && report.v4.mapped.iter().all(SocketAddr::is_ipv4));
}

#[test]
fn a_host_without_a_route_knows_at_once() {
    let servers = [GUIDE, "[2001:db8::1]:3478"].map(address);
    let mut check = Netcheck::new(&servers, [7; 32], START);
    while let Some(transmit) = check.poll_transmit(START) {
        check.on_unreachable(transmit.socket, transmit.to);
    }
    assert_eq!(check.poll_timeout(), None);
    assert_eq!(check.report().v6.standing, Standing::Unreachable);
    assert_eq!(check.report().udp(), None);
    assert_eq!(Netcheck::new(&[], [7; 32], START).report().udp(), None);
}

#[test]
fn what_nobody_asked_for_is_dropped_and_counted() {
    let mut check = Netcheck::new(&[address(GUIDE)], [7; 32], START);
    let request = check.poll_transmit(START).expect("a request").contents;
    let Ok(Message::Request(asked)) = Message::parse(&request) else { panic!("not a request") };
    let mut answer = Vec::new();
    Answer { id: asked.id, mapped: address("203.0.113.7:1"), origin: None, other: None }.write(&mut answer);
    let mut forged = answer.clone();
    forged[19] ^= 1;
    for (socket, from, datagram, expected) in [
        (Socket::Mapping, GUIDE, &request, (1, 0, 0)),
        (Socket::Mapping, GUIDE, &vec![7; 60], (1, 0, 0)),
        (Socket::Mapping, GUIDE, &forged, (0, 1, 0)),
        (Socket::Filtering, GUIDE, &answer, (0, 1, 0)),
        (Socket::Mapping, "[2001:db8::1]:3478", &answer, (0, 1, 0)),
        (Socket::Mapping, SINGLE, &answer, (0, 0, 1)),
    ] {
        let before = check.dropped();
        check.handle_datagram(socket, address(from), datagram, START);
        let after = check.dropped();
        let counted = (
            after.malformed - before.malformed,
            after.unasked - before.unasked,
            after.wrong_source - before.wrong_source,
        );
        assert_eq!(counted, expected, "{socket:?} {from}");
        assert_eq!(check.report().v4.mapped, []);
    }
    check.handle_datagram(Socket::Mapping, address("[::ffff:192.0.2.1]:3478"), &answer, START);
    assert_eq!(check.report().v4.mapped, [address("203.0.113.7:1")]);
}

#[test]
fn a_check_is_bounded_whatever_servers_say() {
    let servers: Vec<_> = (1..=40).map(|n| SocketAddr::new([192, 0, 2, n].into(), 3478)).collect();
    let twice: Vec<_> = servers.iter().chain(&servers).copied().collect();
    let mut check = Netcheck::new(&twice, [7; 32], START);
    let (mut now, mut sent) = (START, 0);
    while let Some(deadline) = check.poll_timeout() {
        now = deadline;
        check.handle_timeout(now);
        while let Some(transmit) = check.poll_transmit(now) {
            sent += 1;
            // Every server names a second address, and none of those answers.
            let Ok(Message::Request(request)) = Message::parse(&transmit.contents) else { panic!("not a request") };
            let other = Some(SocketAddr::new([192, 0, 2, 200].into(), 9));
            let mut bytes = Vec::new();
            Answer { id: request.id, mapped: transmit.to, origin: None, other }.write(&mut bytes);
            if servers.contains(&transmit.to) && transmit.socket == Socket::Mapping {
                check.handle_datagram(transmit.socket, transmit.to, &bytes, now);
            }
        }
    }
    assert_eq!(check.report().v4.servers.len(), MAX_SERVERS);
    assert!(check.report().v4.servers.iter().all(|(_, outcome)| matches!(outcome, Outcome::Answered { .. })));
    assert_eq!(sent, MAX_SERVERS + 6 * question::ATTEMPTS);
    assert!(now - START <= Duration::from_secs(6));
}
