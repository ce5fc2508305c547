//! Whether an answer may still leave from the address that was spoken to.
//!
//! As WireGuard in the kernel does it: an IPv4 source is kept while the routing table sends what leaves from it by the
//! interface that the question came in by. Once the address is gone, or another route is preferred, the kernel chooses anew.
//! Naming the interface instead would hold on to it where no route leads there any more: the kernel then takes every
//! destination for a neighbour. An IPv6 source is kept while the address is ours, which the kernel says when it refuses it.
//!
//! The routing table is asked through a netlink socket of our own, which answers before its system call returns. What it
//! said counts for a tenth of a second, and it is not asked more than a thousand times in one: a crowd of peers costs no
//! more than that, and learns of a change a little later.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// How long an answer counts.
const LIFETIME: Duration = Duration::from_millis(100);
/// Questions in that time.
const QUESTIONS_MAX: u32 = 100;
/// Answers that are remembered. When there are more, all are forgotten.
const ANSWERS_MAX: usize = 4_096;

/// From where, to where, by which interface.
type Way = (Ipv4Addr, Ipv4Addr, u32);

/// What the routing table said of late.
#[derive(Debug)]
pub(super) struct Sources {
    /// `None`: it cannot be asked, and every source is kept until the kernel refuses it.
    netlink: Option<OwnedFd>,
    known: RefCell<Known>,
}

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<Way, Answer>,
    /// Questions since then.
    asked: u32,
    since: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    is_kept: bool,
    at: Duration,
}

impl Sources {
    /// Asks in the network namespace of the calling thread.
    pub(super) fn new() -> Self {
        let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        Self { netlink: netlink.ok(), known: RefCell::default() }
    }

    /// The source to name for a datagram to `to`, by an interface only where its address means nothing without one.
    pub(super) fn choose(
        &self,
        source: (IpAddr, u32),
        to: IpAddr,
        mark: u32,
        now: impl FnOnce() -> Duration,
    ) -> Option<(IpAddr, u32)> {
        match (source, to) {
            ((IpAddr::V4(from), interface), IpAddr::V4(to)) => {
                self.is_kept((from, to, interface), mark, now()).then_some((from.into(), 0))
            }
            ((IpAddr::V6(from), interface), IpAddr::V6(to)) => {
                let is_scoped = from.is_unicast_link_local() || to.is_unicast_link_local();
                Some((from.into(), if is_scoped { interface } else { 0 }))
            }
            _ => None,
        }
    }

    fn is_kept(&self, way: Way, mark: u32, now: Duration) -> bool {
        let (Some(netlink), (from, to, interface)) = (&self.netlink, way) else { return true };
        if interface == 0 {
            return true;
        }
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
        let is_kept = match ask(netlink, from, to, mark) {
            Route::By(found) => found == interface,
            Route::None => false,
            // The table was not understood, or has no time: no reason to change anything.
            Route::Unknown => true,
        };
        if known.answers.len() >= ANSWERS_MAX {
            known.answers.clear();
        }
        known.answers.insert(way, Answer { is_kept, at: now });
        is_kept
    }
}

/// What the routing table says of a way.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    /// It leaves by this interface.
    By(u32),
    /// There is no route, or the source is not ours.
    None,
    Unknown,
}

const HEADER_LEN: usize = 16;
const ROUTE_LEN: usize = 12;

/// RTM_GETROUTE, and the answer to it.
fn ask(netlink: &OwnedFd, from: Ipv4Addr, to: Ipv4Addr, mark: u32) -> Route {
    let mut answer = [0; 1024];
    // An answer to an earlier question that came late.
    while recv(netlink, &mut answer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC).is_ok() {}
    let asked = send(netlink, &question(from, to, mark), SendFlags::DONTWAIT);
    let heard = asked.and_then(|_| recv(netlink, &mut answer[..], RecvFlags::DONTWAIT));
    heard.map_or(Route::Unknown, |(_, len)| read(&answer[..len.min(answer.len())]))
}

fn question(from: Ipv4Addr, to: Ipv4Addr, mark: u32) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN + ROUTE_LEN];
    let attributes =
        [(libc::RTA_DST, to.octets()), (libc::RTA_SRC, from.octets()), (libc::RTA_MARK, mark.to_ne_bytes())];
    for (kind, value) in attributes {
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    }
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_GETROUTE.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // The family, and that both addresses are whole.
    bytes[HEADER_LEN..HEADER_LEN + 3].copy_from_slice(&[libc::AF_INET as u8, 32, 32]);
    bytes
}

fn read(answer: &[u8]) -> Route {
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    if kind == Some(libc::NLMSG_ERROR as u16) {
        return Route::None;
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
    // A blackhole has no interface.
    Route::None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::isolated_async;

    const LOOPBACK: (IpAddr, u32) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5)), 1);

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_source_is_kept_while_the_route_leads_by_its_interface() {
        isolated_async(|_| async {
            let sources = Sources::new();
            let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
            assert_eq!(sources.choose(LOOPBACK, here, 0, || at(0)), Some((LOOPBACK.0, 0)));
            assert_eq!(sources.choose((LOOPBACK.0, 7), here, 0, || at(0)), None, "another interface");
            let gone = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
            assert_eq!(sources.choose((gone, 1), here, 0, || at(0)), None, "not ours");
            let nowhere = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
            assert_eq!(sources.choose(LOOPBACK, nowhere, 0, || at(0)), None, "no route");
            assert_eq!(sources.choose((gone, 0), here, 0, || at(0)), Some((gone, 0)), "nothing to compare with");
        });
    }

    #[test]
    fn a_change_of_the_routes_is_noticed_after_a_tenth_of_a_second() {
        isolated_async(|netlink| async move {
            let sources = Sources::new();
            let ours: IpAddr = [192, 0, 2, 1].into();
            let there: IpAddr = [192, 0, 2, 9].into();
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
            let sources = Sources::new();
            let to = |number: u32| IpAddr::V4(Ipv4Addr::from(0x7f00_0000 + number));
            for number in 1..=200 {
                // Beyond the limit nothing is known, and nothing changes.
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
    fn an_ipv6_source_names_an_interface_only_where_addresses_are_scoped() {
        let sources = Sources::new();
        let global: IpAddr = "2001:db8::1".parse().unwrap();
        let local: IpAddr = "fe80::1".parse().unwrap();
        let never = || unreachable!("nobody asks the time");
        assert_eq!(sources.choose((global, 3), global, 0, never), Some((global, 0)));
        assert_eq!(sources.choose((local, 3), local, 0, never), Some((local, 3)));
        assert_eq!(sources.choose((global, 3), [192, 0, 2, 1].into(), 0, never), None, "of two families");
    }
}
