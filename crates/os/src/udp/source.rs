//! Decides whether an answer may still leave from the address that the peer sent to.
//!
//! This works like WireGuard in the kernel. An IPv4 source is kept as long as the routing table would send packets from
//! it by the interface that the peer's datagram came in by. Once the address is gone, or a different route is
//! preferred, the kernel chooses again. We do not name the interface instead: the kernel would stay with it even if no
//! route leads there any more, and treat every destination as a neighbour. An IPv6 source is kept as long as the
//! address is ours. Otherwise the kernel refuses it.
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
/// The most answers remembered. When there are more, all are forgotten.
const ANSWERS_MAX: usize = 4_096;

/// Source address, destination address and interface index.
type Way = (Ipv4Addr, SocketAddrV4, u32);

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
    is_kept: bool,
    at: Duration,
}

impl Sources {
    /// Creates the state for datagrams from our `port`. It asks in the network namespace of the calling thread.
    pub(super) fn new(port: u16) -> Self {
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Self { netlink: netlink.ok(), port, known: RefCell::default() }
    }

    /// The source to use for a datagram to `to`. An interface is given only if the address has no meaning without one.
    pub(super) fn choose(
        &self,
        source: (IpAddr, u32),
        to: SocketAddr,
        mark: u32,
        now: impl FnOnce() -> Duration,
    ) -> Option<(IpAddr, u32)> {
        match (source, to) {
            // The incoming interface is not known, so there is nothing to compare.
            ((IpAddr::V4(from), 0), SocketAddr::V4(_)) => Some((from.into(), 0)),
            ((IpAddr::V4(from), interface), SocketAddr::V4(to)) => {
                self.is_kept((from, to, interface), mark, now()).then_some((from.into(), 0))
            }
            ((IpAddr::V6(from), interface), SocketAddr::V6(to)) => {
                let is_scoped = from.is_unicast_link_local() || to.ip().is_unicast_link_local();
                Some((from.into(), if is_scoped { interface } else { 0 }))
            }
            _ => None,
        }
    }

    fn is_kept(&self, way: Way, mark: u32, now: Duration) -> bool {
        let (Some(netlink), (from, to, interface)) = (&self.netlink, way) else { return true };
        let mut known = self.known.borrow_mut();
        let known = &mut *known;
        let answer = known.answers.get(&way).copied();
        if let Some(answer) = answer.filter(|answer| now.saturating_sub(answer.at) < LIFETIME) {
            return answer.is_kept;
        }
        if now.saturating_sub(known.since) >= LIFETIME {
            (known.since, known.asked) = (now, 0);
        }
        if known.asked >= QUESTIONS_MAX {
            return answer.is_none_or(|answer| answer.is_kept);
        }
        known.asked += 1;
        let is_kept = match ask(netlink, &question(from, self.port, to, mark)) {
            Route::By(found) => found == interface,
            Route::None => false,
            // The answer was not understood, or the table is busy. That is not a reason to change anything.
            Route::Unknown => true,
        };
        if known.answers.len() >= ANSWERS_MAX {
            known.answers.clear();
        }
        known.answers.insert(way, Answer { is_kept, at: now });
        is_kept
    }
}

/// The routing table's answer.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    /// The datagram would leave by this interface.
    By(u32),
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

/// Asks the routing table and reads the answer.
fn ask(netlink: &OwnedFd, question: &[u8; QUESTION_LEN]) -> Route {
    let mut answer = [0; 1024];
    // Discards late answers to earlier questions.
    while recv(netlink, &mut answer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC).is_ok() {}
    let asked = send(netlink, question, SendFlags::DONTWAIT);
    let heard = asked.and_then(|_| recv(netlink, &mut answer[..], RecvFlags::DONTWAIT));
    heard.map_or(Route::Unknown, |(_, len)| read(&answer[..len.min(answer.len())]))
}

/// RTM_GETROUTE for one of our datagrams as the kernel will route it.
fn question(from: Ipv4Addr, port: u16, to: SocketAddrV4, mark: u32) -> [u8; QUESTION_LEN] {
    let mut bytes = [0; QUESTION_LEN];
    bytes[..4].copy_from_slice(&(QUESTION_LEN as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // The family, and full prefix lengths for both addresses.
    bytes[HEADER_LEN..HEADER_LEN + 3].copy_from_slice(&[libc::AF_INET as u8, 32, 32]);
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

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_source_is_kept_while_the_route_leads_by_its_interface() {
        isolated_async(|_| async {
            let sources = Sources::new(51820);
            let here = to([127, 0, 0, 1]);
            assert_eq!(sources.choose(LOOPBACK, here, 0, || at(0)), Some((LOOPBACK.0, 0)));
            assert_eq!(sources.choose((LOOPBACK.0, 7), here, 0, || at(0)), None, "a different interface");
            let gone = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
            assert_eq!(sources.choose((gone, 1), here, 0, || at(0)), None, "not ours");
            let nowhere = to([198, 51, 100, 1]);
            assert_eq!(sources.choose(LOOPBACK, nowhere, 0, || at(0)), None, "no route");
            assert_eq!(sources.choose((gone, 0), here, 0, || at(0)), Some((gone, 0)), "nothing to compare with");
        });
    }

    #[test]
    fn a_change_of_the_routes_is_noticed_after_a_tenth_of_a_second() {
        isolated_async(|netlink| async move {
            let sources = Sources::new(51820);
            let ours: IpAddr = [192, 0, 2, 1].into();
            let there = to([192, 0, 2, 9]);
            netlink.add_address(1, ours, 24).await.unwrap();
            assert_eq!(sources.choose((ours, 1), there, 0, || at(1_000)), Some((ours, 0)));
            netlink.delete_address(1, ours, 24).await.unwrap();
            assert_eq!(sources.choose((ours, 1), there, 0, || at(1_099)), Some((ours, 0)), "not asked again");
            assert_eq!(sources.choose((ours, 1), there, 0, || at(1_100)), None);
        });
    }

    #[test]
    fn the_table_is_asked_a_hundred_times_in_a_tenth_of_a_second_and_remembers_4096_answers() {
        isolated_async(|_| async {
            let sources = Sources::new(51820);
            let to = |number: u32| to(Ipv4Addr::from(0x7f00_0000 + number));
            for number in 1..=200 {
                // Beyond the limit there are no answers, so nothing changes.
                let wrong_interface = sources.choose((LOOPBACK.0, 7), to(number), 0, || at(0));
                assert_eq!(wrong_interface.is_some(), number > QUESTIONS_MAX, "{number}");
            }
            for number in 1..=2 * ANSWERS_MAX as u32 {
                sources.choose(LOOPBACK, to(number), 0, || at(1_000 * u64::from(number)));
                assert!(sources.known.borrow().answers.len() <= ANSWERS_MAX);
            }
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
                let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
                assert!(status.success(), "ip {arguments}");
            }
            let near = netlink.link("near").await.unwrap().expect("it was made just now").index;
            for (ours, theirs, is_kept) in
                [(4001, 7, true), (51820, 4002, true), (51820, 7, false), (4002, 4001, false)]
            {
                let there = SocketAddr::new([198, 51, 100, 1].into(), theirs);
                let source = ([192, 0, 2, 1].into(), near);
                let chosen = Sources::new(ours).choose(source, there, 0, || at(0));
                assert_eq!(chosen, is_kept.then_some((source.0, 0)), "from {ours} to {theirs}");
            }
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
        assert_eq!(sources.choose((global, 3), to(global), 0, never), Some((global, 0)));
        assert_eq!(sources.choose((local, 3), to(local), 0, never), Some((local, 3)));
        assert_eq!(sources.choose((global, 3), to([192, 0, 2, 1]), 0, never), None, "of two families");
    }
}
