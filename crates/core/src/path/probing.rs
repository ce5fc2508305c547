//! How much may be sent to addresses that nobody has answered from.
//!
//! A peer names the addresses that we probe, and may name a victim's. So one address gets at most [`UNANSWERED`] openers, probes
//! and initiations an hour that are not answered, over all peers and ports, and the node sends at most [`PROBES_A_SECOND`]. What
//! is answered counts for nothing: that address wants it. Each peer has a [`Share`] of all this, so that no peer uses up what
//! belongs to others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::Instant;

/// The most datagrams to one address in an hour that are not answered.
const UNANSWERED: u32 = 60;
const HOUR: Duration = Duration::from_secs(3_600);
/// The most probes of the node in a second, and how many of them may be repetitions of calls.
const PROBES_A_SECOND: u32 = 1_000;
const REPETITIONS_A_SECOND: u32 = 500;
/// The most addresses that are counted. If all are in use, nothing goes to a new one.
const MAX_ADDRESSES: usize = 65_536;
/// The most probes of one peer in a second, and the most addresses in an hour that get anything because of it.
const PROBES_OF_A_PEER: u32 = 100;
const ADDRESSES_OF_A_PEER: usize = 64;

#[derive(Default)]
pub(crate) struct Probing {
    addresses: BTreeMap<IpAddr, Spent>,
    second: u64,
    sent: u32,
}

struct Spent {
    since: Instant,
    unanswered: u32,
}

impl Probing {
    /// Whether one more datagram may go to an address that has not answered yet. It counts from now on.
    pub(crate) fn allows(&mut self, address: IpAddr, now: Instant) -> bool {
        if !self.allows_one_more(now) {
            return false;
        }
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, spent| now.since(spent.since) < HOUR);
            if self.addresses.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let spent = self.addresses.entry(address).or_insert(Spent { since: now, unanswered: 0 });
        if now.since(spent.since) >= HOUR {
            *spent = Spent { since: now, unanswered: 0 };
        }
        let is_within = spent.unanswered < UNANSWERED;
        spent.unanswered += u32::from(is_within);
        is_within
    }

    /// Whether the node may send one more probe in this second.
    pub(crate) fn allows_one_more(&mut self, now: Instant) -> bool {
        let second = now.millis() / 1_000;
        if self.second != second {
            (self.second, self.sent) = (second, 0);
        }
        self.sent += 1;
        self.sent <= PROBES_A_SECOND
    }

    /// Whether there is room for what was sent already and is only sent again. Half of each second is left to what is new.
    pub(crate) fn has_room_for_repetition(&self, now: Instant) -> bool {
        self.second != now.millis() / 1_000 || self.sent < REPETITIONS_A_SECOND
    }

    /// Records that `count` of the datagrams to this address were answered after all.
    pub(crate) fn on_answered(&mut self, address: IpAddr, count: u32) {
        if let Some(spent) = self.addresses.get_mut(&address) {
            spent.unanswered = spent.unanswered.saturating_sub(count);
            if spent.unanswered == 0 {
                self.addresses.remove(&address);
            }
        }
    }
}

/// What is sent because of one peer.
#[derive(Debug, Default)]
pub(crate) struct Share {
    second: u64,
    sent: u32,
    since: Instant,
    addresses: Vec<IpAddr>,
}

impl Share {
    /// Whether one more datagram may be sent because of this peer: to an address that has not answered, or to a relay (`None`).
    pub(crate) fn allows(&mut self, address: Option<IpAddr>, now: Instant) -> bool {
        let second = now.millis() / 1_000;
        if self.second != second {
            (self.second, self.sent) = (second, 0);
        }
        self.sent += 1;
        self.sent <= PROBES_OF_A_PEER && address.is_none_or(|address| self.has_room_for(address, now))
    }

    fn has_room_for(&mut self, address: IpAddr, now: Instant) -> bool {
        if now.since(self.since) >= HOUR {
            (self.since, self.addresses) = (now, Vec::new());
        }
        if self.addresses.contains(&address) {
            return true;
        }
        let has_room = self.addresses.len() < ADDRESSES_OF_A_PEER;
        if has_room {
            self.addresses.push(address);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn victim(number: u32) -> IpAddr {
        Ipv4Addr::from(0xc000_0200 + number).into()
    }

    #[test]
    fn an_address_that_answers_nothing_gets_sixty_datagrams_an_hour() {
        let mut probing = Probing::default();
        let mut sent_by = |from: u64, until: u64| {
            (from..until).filter(|second| probing.allows(victim(1), at(second * 1_000))).count()
        };
        assert_eq!(sent_by(0, 3_600), 60);
        assert_eq!(sent_by(3_600, 7_200), 60);
    }

    #[test]
    fn what_is_answered_counts_for_nothing() {
        let mut probing = Probing::default();
        for step in 0..10_000 {
            assert!(probing.allows(victim(1), at(step * 10)));
            probing.on_answered(victim(1), 1);
        }
        assert!(probing.addresses.is_empty());
    }

    #[test]
    fn the_node_sends_a_thousand_a_second_and_counts_so_many_addresses() {
        let mut probing = Probing::default();
        let sent = (0..20_000).filter(|number| probing.allows(victim(*number), at(0))).count();
        assert_eq!(sent, PROBES_A_SECOND as usize);
        for number in 0..100_000 {
            probing.allows(victim(number), at(1_000 + u64::from(number) * 2));
        }
        assert_eq!(probing.addresses.len(), MAX_ADDRESSES);
        assert!(probing.allows(victim(200_000), at(4_000_000)), "an hour later there is room again");
    }

    #[test]
    fn half_of_a_second_is_left_to_what_is_new() {
        let mut probing = Probing::default();
        let repeated =
            (0..2_000).filter(|_| probing.has_room_for_repetition(at(10)) && probing.allows_one_more(at(10))).count();
        let new = (0..2_000).filter(|_| probing.allows_one_more(at(10))).count();
        assert_eq!((repeated, new), (REPETITIONS_A_SECOND as usize, 500));
        assert!(!probing.has_room_for_repetition(at(999)) && probing.has_room_for_repetition(at(1_000)));
    }

    #[test]
    fn one_peer_causes_a_hundred_a_second_to_a_few_addresses() {
        let mut share = Share::default();
        let sent = (0..1_000).filter(|_| share.allows(None, at(500))).count();
        assert_eq!(sent, PROBES_OF_A_PEER as usize);
        let reached =
            (0..1_000).filter(|number| share.allows(Some(victim(*number)), at(1_000 + u64::from(*number) * 100)));
        assert_eq!(reached.count(), ADDRESSES_OF_A_PEER);
        assert!(share.allows(Some(victim(1)), at(200_000)), "one that is known already");
        assert!(share.allows(Some(victim(5_000)), at(3_700_000)), "an hour later");
    }
}
