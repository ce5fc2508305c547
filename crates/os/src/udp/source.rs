//! Decides whether an answer may still leave from the address that the peer sent to.
//!
//! This works like WireGuard in the kernel. An IPv4 source is kept as long as the routing table would send packets from
//! it by the interface that the peer's datagram came in by. Once the address is gone, or a different route is
//! preferred, the kernel chooses again. We do not name the interface instead: the kernel would stay with it even if no
//! route leads there any more, and treat every destination as a neighbour. An IPv6 source is kept as long as the
//! address is ours. Otherwise the kernel refuses it.
//!
//! A pinned datagram names its interface, because its sender tries each of several uplinks and notices when one leads
//! nowhere. It does so only against a default route in `main`. A different route, or a different table, stands there
//! because somebody wants these datagrams to go that way, for example into the tunnel of a VPN. IPv6 cannot be pinned:
//! with a source address, the kernel takes the interface for a wish.
//!
//! We ask the routing table through a netlink socket of our own, where the answer arrives before the system call
//! returns. An answer is valid for a tenth of a second, and in that time we ask at most a hundred times. So even with
//! many peers the cost stays limited, at the price of noticing changes a little later.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// How long an answer is valid.
const LIFETIME: Duration = Duration::from_millis(100);
/// The most questions in that time.
const QUESTIONS_MAX: u32 = 100;
/// How long the answer for a pinned datagram counts while no more questions are allowed.
const TRUSTED: Duration = Duration::from_secs(1);
/// The most answers remembered. When there are more, all are forgotten.
const ANSWERS_MAX: usize = 4_096;

/// How a datagram is to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// Source address and interface index.
    pub(super) source: (IpAddr, u32),
    pub(super) to: SocketAddr,
    pub(super) is_pinned: bool,
}

/// What the routing table is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Way {
    from: Ipv4Addr,
    interface: u32,
    to: SocketAddrV4,
    is_pinned: bool,
}

/// Recent answers of the routing table.
#[derive(Debug)]
pub(super) struct Sources {
    /// `None` if the table cannot be asked. Every source is then kept until the kernel refuses it.
    netlink: Option<OwnedFd>,
    /// Our local port, which policy rules may match.
    port: u16,
    known: RefCell<Known>,
}

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<Way, Answer>,
    /// The number of questions since `since`.
    asked: u32,
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    route: Route,
    at: Duration,
}

impl Sources {
    /// Creates the state for datagrams from our `port`. It asks in the network namespace of the calling thread.
    pub(super) fn new(port: u16) -> Self {
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Self { netlink: netlink.ok(), port, known: RefCell::default() }
    }

    /// The source to use for a datagram. An interface is given only if the address has no meaning without one, or if it
    /// is pinned and the routing table prefers a different uplink.
    pub(super) fn choose(&self, leaving: Leaving, mark: u32, now: impl FnOnce() -> Duration) -> Option<(IpAddr, u32)> {
        let Leaving { source: (from, interface), to, is_pinned } = leaving;
        match (from, to) {
            // It is not known which interface the datagram came in by.
            (IpAddr::V4(_), SocketAddr::V4(_)) if interface == 0 => Some((from, 0)),
            (IpAddr::V4(ip), SocketAddr::V4(to)) => {
                match self.route(Way { from: ip, interface, to, is_pinned }, mark, now()) {
                    Route::By(found) if found == interface => Some((from, 0)),
                    Route::Default => Some((from, interface)),
                    // The answer was not understood, or the table is busy. That is not a reason to change anything.
                    Route::Unknown if !is_pinned => Some((from, 0)),
                    Route::By(_) | Route::None | Route::Unknown => None,
                }
            }
            (IpAddr::V6(ip), SocketAddr::V6(to)) => {
                let is_scoped = ip.is_unicast_link_local() || to.ip().is_unicast_link_local();
                Some((from, if is_scoped { interface } else { 0 }))
            }
            _ => None,
        }
    }

    /// Where the routing table would send the datagram.
    fn route(&self, way: Way, mark: u32, now: Duration) -> Route {
        let Some(netlink) = &self.netlink else { return Route::Unknown };
        let mut known = self.known.borrow_mut();
        let known = &mut *known;
        let answer = known.answers.get(&way).copied();
        let age = answer.map_or(Duration::MAX, |answer| now.saturating_sub(answer.at));
        if let Some(answer) = answer.filter(|_| age < LIFETIME) {
            return answer.route;
        }
        if now.saturating_sub(known.since) >= LIFETIME {
            (known.since, known.asked) = (now, 0);
        }
        let questions = if way.is_pinned { 2 } else { 1 };
        if known.asked + questions > QUESTIONS_MAX {
            // What was right long ago may lead around a tunnel.
            let is_trusted = !way.is_pinned || age < TRUSTED;
            return answer.filter(|_| is_trusted).map_or(Route::Unknown, |answer| answer.route);
        }
        known.asked += questions;
        let asked = |flags| question(way, self.port, mark, flags);
        let route = match ask(netlink, &asked(0), read) {
            Route::By(found) if way.is_pinned && found != way.interface => {
                let is_default = ask(netlink, &asked(ROUTE_ITSELF), is_default_of_main);
                if is_default { Route::Default } else { Route::By(found) }
            }
            route => route,
        };
        if known.answers.len() >= ANSWERS_MAX {
            known.answers.clear();
        }
        known.answers.insert(way, Answer { route, at: now });
        route
    }
}

/// The routing table's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// The datagram would leave by this interface.
    By(u32),
    /// A pinned datagram would leave by a different interface than its own, by a default route of `main`.
    Default,
    /// There is no route, or the source is not ours.
    None,
    Unknown,
}

const HEADER_LEN: usize = 16;
const ROUTE_LEN: usize = 12;
/// Length of six attributes, each with a four-byte header.
const ATTRIBUTES_LEN: usize = 6 * 8;
const QUESTION_LEN: usize = HEADER_LEN + ROUTE_LEN + ATTRIBUTES_LEN;

/// Attributes of a route request that rules may match, since Linux 4.17.
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
/// Asks for the route itself, since Linux 4.13, and for the table that it stands in.
const ROUTE_ITSELF: u32 = libc::RTM_F_FIB_MATCH | libc::RTM_F_LOOKUP_TABLE;

/// Asks the routing table and reads the answer. No answer reads as an empty one.
fn ask<T>(netlink: &OwnedFd, question: &[u8], read: impl FnOnce(&[u8]) -> T) -> T {
    let mut answer = [0; 1024];
    // Discards late answers to earlier questions.
    while recv(netlink, &mut answer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC).is_ok() {}
    let asked = send(netlink, question, SendFlags::DONTWAIT);
    let heard = asked.and_then(|_| recv(netlink, &mut answer[..], RecvFlags::DONTWAIT));
    read(heard.map_or(&[], |(_, len)| &answer[..len.min(answer.len())]))
}

/// RTM_GETROUTE for one of our datagrams as the kernel will route it.
fn question(way: Way, port: u16, mark: u32, flags: u32) -> [u8; QUESTION_LEN] {
    let Way { from, to, .. } = way;
    let mut bytes = [0; QUESTION_LEN];
    bytes[..4].copy_from_slice(&(QUESTION_LEN as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // The family, and full prefix lengths for both addresses.
    bytes[HEADER_LEN..HEADER_LEN + 3].copy_from_slice(&[libc::AF_INET as u8, 32, 32]);
    bytes[HEADER_LEN + 8..HEADER_LEN + ROUTE_LEN].copy_from_slice(&flags.to_ne_bytes());
    let attributes: [(u16, &[u8]); 6] = [
        (libc::RTA_DST, &to.ip().octets()),
        (libc::RTA_SRC, &from.octets()),
        (libc::RTA_MARK, &mark.to_ne_bytes()),
        (RTA_IP_PROTO, &[libc::IPPROTO_UDP as u8]),
        (RTA_SPORT, &port.to_be_bytes()),
        (RTA_DPORT, &to.port().to_be_bytes()),
    ];
    for (room, (kind, value)) in bytes[HEADER_LEN + ROUTE_LEN..].chunks_exact_mut(8).zip(attributes) {
        room[..2].copy_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        room[2..4].copy_from_slice(&kind.to_ne_bytes());
        room[4..4 + value.len()].copy_from_slice(value);
    }
    bytes
}

/// Whether the answer is a default route of table `main`.
fn is_default_of_main(answer: &[u8]) -> bool {
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    // The length of the destination's prefix, and the table.
    let route = answer.get(HEADER_LEN + 1).zip(answer.get(HEADER_LEN + 4));
    kind == Some(libc::RTM_NEWROUTE) && route == Some((&0, &libc::RT_TABLE_MAIN))
}

fn read(answer: &[u8]) -> Route {
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if kind == Some(libc::NLMSG_ERROR as u16) {
        let number =
            answer.get(HEADER_LEN..).and_then(|rest| rest.first_chunk()).map(|number| i32::from_ne_bytes(*number));
        // Errors that answer the question. Others mean that the kernel had no memory, or that we may not ask.
        let says_none =
            matches!(number.map(i32::wrapping_neg), Some(libc::EINVAL | libc::ENETUNREACH | libc::EHOSTUNREACH));
        return if says_none { Route::None } else { Route::Unknown };
    }
    if kind != Some(libc::RTM_NEWROUTE) {
        return Route::Unknown;
    }
    let mut rest = answer.get(HEADER_LEN + ROUTE_LEN..).unwrap_or_default();
    while let [len0, len1, kind0, kind1, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        if u16::from_ne_bytes([kind0, kind1]) == libc::RTA_OIF
            && let Some(value) = rest.get(4..8).and_then(|value| value.try_into().ok())
        {
            return Route::By(u32::from_ne_bytes(value));
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    // A blackhole route has no interface.
    Route::None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::isolated_async;

    const LOOPBACK: (IpAddr, u32) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5)), 1);

    fn to(address: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(address.into(), 7)
    }

    fn kept(source: (IpAddr, u32), to: SocketAddr) -> Leaving {
        Leaving { source, to, is_pinned: false }
    }

    fn ip(arguments: &str) {
        let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_source_is_kept_while_the_route_leads_by_its_interface() {
        isolated_async(|_| async {
            let sources = Sources::new(51820);
            let here = to([127, 0, 0, 1]);
            assert_eq!(sources.choose(kept(LOOPBACK, here), 0, || at(0)), Some((LOOPBACK.0, 0)));
            assert_eq!(sources.choose(kept((LOOPBACK.0, 7), here), 0, || at(0)), None, "a different interface");
            let gone = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
            assert_eq!(sources.choose(kept((gone, 1), here), 0, || at(0)), None, "not ours");
            let nowhere = to([198, 51, 100, 1]);
            assert_eq!(sources.choose(kept(LOOPBACK, nowhere), 0, || at(0)), None, "no route");
            assert_eq!(sources.choose(kept((gone, 0), here), 0, || at(0)), Some((gone, 0)), "nothing to compare with");
        });
    }

    #[test]
    fn a_change_of_the_routes_is_noticed_after_a_tenth_of_a_second() {
        isolated_async(|netlink| async move {
            let sources = Sources::new(51820);
            let ours: IpAddr = [192, 0, 2, 1].into();
            let there = to([192, 0, 2, 9]);
            netlink.add_address(1, ours, 24).await.unwrap();
            assert_eq!(sources.choose(kept((ours, 1), there), 0, || at(1_000)), Some((ours, 0)));
            netlink.delete_address(1, ours, 24).await.unwrap();
            assert_eq!(sources.choose(kept((ours, 1), there), 0, || at(1_099)), Some((ours, 0)), "not asked again");
            assert_eq!(sources.choose(kept((ours, 1), there), 0, || at(1_100)), None);
        });
    }

    #[test]
    fn the_table_is_asked_a_hundred_times_in_a_tenth_of_a_second_and_remembers_4096_answers() {
        isolated_async(|_| async {
            let sources = Sources::new(51820);
            let to = |number: u32| to(Ipv4Addr::from(0x7f00_0000 + number));
            for number in 1..=200 {
                // Beyond the limit there are no answers, so nothing changes.
                let wrong_interface = sources.choose(kept((LOOPBACK.0, 7), to(number)), 0, || at(0));
                assert_eq!(wrong_interface.is_some(), number > QUESTIONS_MAX, "{number}");
            }
            for number in 1..=2 * ANSWERS_MAX as u32 {
                sources.choose(kept(LOOPBACK, to(number)), 0, || at(1_000 * u64::from(number)));
                assert!(sources.known.borrow().answers.len() <= ANSWERS_MAX);
            }
        });
    }

    #[test]
    fn a_pinned_datagram_costs_two_questions_and_follows_no_answer_older_than_a_second() {
        isolated_async(|_| async {
            let sources = Sources::new(51820);
            let choose = |source, number: u32, at| {
                let to = to(Ipv4Addr::from(0x7f00_0000 + number));
                sources.choose(Leaving { source, to, is_pinned: true }, 0, || at)
            };
            let kept = Some((LOOPBACK.0, 0));
            assert_eq!(choose(LOOPBACK, 1, at(0)), kept);
            // One hundred questions in each tenth of a second are those of others.
            let exhaust = |at| {
                for number in 1_000..1_000 + QUESTIONS_MAX / 2 {
                    assert_eq!(choose(LOOPBACK, number, at), kept, "{number}");
                }
                assert_eq!(choose(LOOPBACK, 2_000, at), None, "one more than is allowed");
            };
            exhaust(at(900));
            assert_eq!(choose(LOOPBACK, 1, at(950)), kept, "an old answer");
            exhaust(at(1_900));
            assert_eq!(choose(LOOPBACK, 1, at(1_950)), None, "one that is too old");
        });
    }

    #[test]
    fn a_rule_that_asks_for_protocol_and_ports_counts() {
        isolated_async(|netlink| async move {
            for arguments in [
                "link add near type veth peer name far",
                "link set near up",
                "link set far up",
                "address add 192.0.2.1/32 dev near",
                "route add 198.51.100.0/24 dev far",
                "route add 198.51.100.0/24 dev near table 200",
                "rule add ipproto udp sport 4001 table 200",
                "rule add ipproto udp dport 4002 table 200",
            ] {
                ip(arguments);
            }
            let near = netlink.link("near").await.unwrap().expect("it was made just now").index;
            for (ours, theirs, is_kept) in
                [(4001, 7, true), (51820, 4002, true), (51820, 7, false), (4002, 4001, false)]
            {
                let there = SocketAddr::new([198, 51, 100, 1].into(), theirs);
                let source = ([192, 0, 2, 1].into(), near);
                let chosen = Sources::new(ours).choose(kept(source, there), 0, || at(0));
                assert_eq!(chosen, is_kept.then_some((source.0, 0)), "from {ours} to {theirs}");
            }
        });
    }

    #[test]
    fn a_pinned_datagram_leaves_by_its_uplink_but_not_around_a_tunnel() {
        isolated_async(|netlink| async move {
            for arguments in [
                "link add first type veth peer name beyond",
                "link add second type veth peer name behind",
                "link add tunnel type veth peer name inner",
                "link set first up",
                "link set second up",
                "link set beyond up",
                "link set behind up",
                "link set tunnel up",
                "link set inner up",
                "address add 192.0.2.1/24 dev first",
                "address add 198.51.100.1/24 dev second",
                "route add default via 192.0.2.9",
                "route add default via 198.51.100.9 metric 200",
                "route add 203.0.113.128/25 dev tunnel",
            ] {
                ip(arguments);
            }
            let first = netlink.link("first").await.unwrap().expect("it was made just now").index;
            let second = netlink.link("second").await.unwrap().expect("it was made just now").index;
            let [one, other, outside, inside] =
                ["192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.113.129"].map(|ip| ip.parse::<IpAddr>().unwrap());
            let sources = Sources::new(51820);
            let choose = |source, ip, is_pinned, seconds: u64| {
                sources.choose(Leaving { source, to: to(ip), is_pinned }, 0, || at(1_000 * seconds))
            };
            assert_eq!(choose((other, second), outside, false, 1), None);
            assert_eq!(choose((other, second), outside, true, 2), Some((other, second)));
            assert_eq!(choose((one, first), outside, true, 3), Some((one, 0)));
            assert_eq!(choose((other, second), inside, true, 4), None, "a route of its own");
            ip("route add default dev tunnel table 300");
            ip("rule add dport 7 table 300");
            assert_eq!(choose((other, second), outside, true, 5), None, "a table of its own");
            ip("rule delete dport 7 table 300");
            assert_eq!(choose((other, second), outside, true, 6), Some((other, second)));
        });
    }

    #[test]
    fn what_the_table_says_is_none_and_what_it_cannot_say_is_unknown() {
        let error = |number: i32| {
            let mut answer = [0; 36];
            answer[..4].copy_from_slice(&36u32.to_ne_bytes());
            answer[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
            answer[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&number.to_ne_bytes());
            answer
        };
        for number in [libc::EINVAL, libc::ENETUNREACH, libc::EHOSTUNREACH] {
            assert_eq!(read(&error(-number)), Route::None, "{number}");
        }
        let others = [libc::EPERM, libc::EACCES, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN, libc::EOPNOTSUPP];
        for number in others.into_iter().chain([0, libc::EINVAL + 1]) {
            assert_eq!(read(&error(-number)), Route::Unknown, "{number}");
        }
        assert_eq!(read(&error(libc::EINVAL)), Route::Unknown, "no error has a positive number");
        assert_eq!(read(&error(i32::MIN)), Route::Unknown);
        for len in 0..HEADER_LEN + 4 {
            assert_eq!(read(&error(-libc::EINVAL)[..len]), Route::Unknown, "cut short at {len}");
        }
        let mut other = error(-libc::EINVAL);
        other[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        assert_eq!(read(&other), Route::Unknown, "an answer to something else");
    }

    #[test]
    fn an_ipv6_source_names_an_interface_only_where_addresses_are_scoped() {
        let sources = Sources::new(51820);
        let global: IpAddr = "2001:db8::1".parse().unwrap();
        let local: IpAddr = "fe80::1".parse().unwrap();
        let never = || unreachable!("nobody asks the time");
        assert_eq!(sources.choose(kept((global, 3), to(global)), 0, never), Some((global, 0)));
        assert_eq!(sources.choose(kept((local, 3), to(local)), 0, never), Some((local, 3)));
        assert_eq!(sources.choose(kept((global, 3), to([192, 0, 2, 1])), 0, never), None, "of two families");
    }
}
