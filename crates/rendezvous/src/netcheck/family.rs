//! The questions of one family of addresses: every server, and the guide at all its addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_wire::stun::Change;
use rand_chacha::ChaCha8Rng;

use super::conclude::{self, Filtered};
use super::question::Question;
use super::{FamilyReport, Filtering, Heard, MAX_SERVERS, Outcome, Socket, Standing, Taken, Transmit};

#[derive(Debug)]
pub(super) struct Family {
    servers: Vec<Question>,
    guide: Option<Guide>,
}

/// The questions to a server that has two IP addresses and two ports.
#[derive(Debug)]
struct Guide {
    /// From the socket of [`Socket::Mapping`], to its three other sockets: only its port differs, only its IP address, both.
    port: Question,
    ip: Question,
    both: Question,
    /// From the socket of [`Socket::Filtering`], to the address that answered: to answer from there, from the other port, from
    /// the other IP address and port.
    control: Question,
    from_port: Question,
    from_both: Question,
}

impl Family {
    pub(super) fn new(mut servers: Vec<SocketAddr>, rng: &mut ChaCha8Rng, now: Duration) -> Self {
        let mut known = std::collections::BTreeSet::new();
        servers.retain(|server| known.insert(*server));
        servers.truncate(MAX_SERVERS);
        let servers = servers.into_iter().map(|server| Question::new(server, rng, now)).collect();
        Self { servers, guide: None }
    }

    pub(super) fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        self.questions_mut().find_map(|(socket, question)| {
            let contents = question.poll_attempt(now)?;
            Some(Transmit { socket, to: question.to(), contents })
        })
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.questions().filter_map(|(_, question)| question.deadline()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        self.questions_mut().for_each(|(_, question)| question.handle_timeout(now));
    }

    pub(super) fn on_unreachable(&mut self, socket: Socket, to: SocketAddr) {
        let asked = self.questions_mut().filter(|(by, question)| *by == socket && question.to() == to);
        asked.for_each(|(_, question)| question.on_unreachable());
    }

    pub(super) fn handle(
        &mut self,
        socket: Socket,
        from: SocketAddr,
        heard: &Heard,
        now: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Taken {
        let taken = self.questions_mut().filter(|(by, _)| *by == socket).find_map(|(_, question)| {
            let taken = question.handle(from, heard, now);
            (taken != Taken::Unasked).then_some((taken, question.to()))
        });
        let Some((taken, to)) = taken else { return Taken::Unasked };
        if let (Taken::Used, None, Heard::Answer(answer)) = (taken, &self.guide, heard) {
            let other = answer.other.filter(|other| is_second_address(to, *other));
            self.guide = other.map(|other| Guide::new(to, other, rng, now));
        }
        taken
    }

    pub(super) fn report(&self) -> FamilyReport {
        let asked = self.questions().filter(|(socket, _)| *socket == Socket::Mapping);
        let seen: Vec<_> =
            asked.filter_map(|(_, question)| question.mapped().map(|mapped| (question.to(), mapped))).collect();
        let mut mapped = Vec::new();
        for (_, address) in &seen {
            if !mapped.contains(address) {
                mapped.push(*address);
            }
        }
        FamilyReport {
            standing: self.standing(),
            mapped,
            mapping: conclude::mapping(&seen),
            filtering: self.guide.as_ref().map_or(Filtering::Unknown, |guide| guide.filtered().conclude()),
            servers: self.servers.iter().map(|question| (question.to(), question.outcome())).collect(),
        }
    }

    fn standing(&self) -> Standing {
        let outcomes = || self.servers.iter().map(Question::outcome);
        let has_said = |outcome| matches!(outcome, Outcome::Answered { .. } | Outcome::Refused { .. });
        match () {
            () if self.servers.is_empty() => Standing::Untried,
            () if outcomes().any(has_said) => Standing::Works,
            () if outcomes().all(|outcome| outcome == Outcome::Unreachable) => Standing::Unreachable,
            () => Standing::Silent,
        }
    }

    fn questions(&self) -> impl Iterator<Item = (Socket, &Question)> {
        let of_guide = self.guide.iter().flat_map(|guide| {
            let mapping = [&guide.port, &guide.ip, &guide.both].map(|question| (Socket::Mapping, question));
            let filtering = [&guide.control, &guide.from_port, &guide.from_both];
            mapping.into_iter().chain(filtering.map(|question| (Socket::Filtering, question)))
        });
        self.servers.iter().map(|question| (Socket::Mapping, question)).chain(of_guide)
    }

    fn questions_mut(&mut self) -> impl Iterator<Item = (Socket, &mut Question)> {
        let of_guide = self.guide.iter_mut().flat_map(|guide| {
            let mapping = [&mut guide.port, &mut guide.ip, &mut guide.both].map(|question| (Socket::Mapping, question));
            let filtering = [&mut guide.control, &mut guide.from_port, &mut guide.from_both];
            mapping.into_iter().chain(filtering.map(|question| (Socket::Filtering, question)))
        });
        self.servers.iter_mut().map(|question| (Socket::Mapping, question)).chain(of_guide)
    }
}

impl Guide {
    fn new(at: SocketAddr, other: SocketAddr, rng: &mut ChaCha8Rng, now: Duration) -> Self {
        let (port, ip) = (SocketAddr::new(at.ip(), other.port()), SocketAddr::new(other.ip(), at.port()));
        let (only_port, everything) = (Change { ip: false, port: true }, Change { ip: true, port: true });
        Self {
            port: Question::new(port, rng, now),
            ip: Question::new(ip, rng, now),
            both: Question::new(other, rng, now),
            control: Question::new(at, rng, now),
            from_port: Question::changed(at, only_port, port, rng, now),
            from_both: Question::changed(at, everything, other, rng, now),
        }
    }

    fn filtered(&self) -> Filtered {
        Filtered {
            control: self.control.outcome(),
            both: self.from_both.outcome(),
            port: self.from_port.outcome(),
            both_is_alive: self.both.mapped().is_some(),
            port_is_alive: self.port.mapped().is_some(),
        }
    }
}

/// Whether `other` can be the second address of the server at `at`.
fn is_second_address(at: SocketAddr, other: SocketAddr) -> bool {
    let differs = at.ip() != other.ip() && at.port() != other.port() && other.port() != 0;
    differs && at.is_ipv4() == other.is_ipv4() && Reach::of(at.ip()) == Reach::of(other.ip())
}

/// How far an address reaches.
#[derive(PartialEq, Eq)]
enum Reach {
    Nowhere,
    Host,
    Link,
    Site,
    Internet,
}

impl Reach {
    fn of(ip: IpAddr) -> Self {
        match ip {
            ip if ip.is_multicast() || ip.is_unspecified() => Self::Nowhere,
            ip if ip.is_loopback() => Self::Host,
            IpAddr::V4(ip) if ip.is_broadcast() || ip.octets()[0] == 0 => Self::Nowhere,
            IpAddr::V4(ip) if ip.is_link_local() => Self::Link,
            // RFC 6598: 100.64.0.0/10 is shared by the customers of one carrier.
            IpAddr::V4(ip) if ip.is_private() || matches!(ip.octets(), [100, 64..=127, ..]) => Self::Site,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::Link,
            IpAddr::V6(ip) if ip.is_unique_local() => Self::Site,
            _ => Self::Internet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_address_reaches_as_far_as_the_first() {
        let is_second = |at: &str, other: &str| {
            is_second_address(at.parse().expect("an address"), other.parse().expect("an address"))
        };
        for (at, other) in [
            ("192.0.2.1:3478", "192.0.2.2:3479"),
            ("10.0.0.1:3478", "192.168.0.1:3479"),
            ("127.0.0.1:3478", "127.0.0.2:3479"),
            ("[2001:db8::1]:3478", "[2001:db8::2]:3479"),
            ("[fd00::1]:3478", "[fd00::2]:3479"),
        ] {
            assert!(is_second(at, other), "{at} {other}");
        }
        let refused = ["192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:0", "[2001:db8::1]:3479", "10.0.0.1:3479"];
        let nowhere = ["100.64.0.1:3479", "127.0.0.1:3479", "169.254.0.1:3479", "224.0.0.1:3479", "0.0.0.1:3479"];
        for other in refused.into_iter().chain(nowhere).chain(["255.255.255.255:3479"]) {
            assert!(!is_second("192.0.2.1:3478", other), "{other}");
        }
        for other in ["[::1]:3479", "[fe80::1]:3479", "[ff02::1]:3479", "[fd00::1]:3479", "[::]:3479"] {
            assert!(!is_second("[2001:db8::1]:3478", other), "{other}");
        }
    }
}
