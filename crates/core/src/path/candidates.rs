//! The addresses that a peer's name has, and the order in which they are called.
//!
//! Happy eyeballs (RFC 8305) with the handshake itself: an initiation goes to one address after the other, a quarter of a
//! second apart, until anything authentic is heard. The same bytes go to all of them: a peer that is reached twice drops
//! the second as a replay, and whichever answer comes first completes the handshake and decides where the peer is. A local
//! error brings the next address at once.
//!
//! An attempt begins where the peer was last heard. Each attempt after it begins one address later: a path that carries our
//! initiation but not the answer would otherwise win every time, because the peer drops what comes by the other path.
//!
//! While a session works, and for peers whose endpoint is an address, nothing is called but the endpoint. The endpoint
//! moves only by what is authenticated: a name service that lies costs some initiations, [`MAX_CALLS`] for each, and
//! nothing else.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::Instant;

/// The addresses of one name that are called.
pub(crate) const MAX_CANDIDATES: usize = 8;
/// The addresses that one initiation goes to: those of a name, those of another answer that came meanwhile, and the endpoint.
pub(crate) const MAX_CALLS: usize = 2 * MAX_CANDIDATES + 1;
/// From one address to the next (RFC 8305 section 5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What is known of a peer's addresses, and the attempt that is under way.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    addresses: Vec<SocketAddr>,
    /// The endpoint is one of them because there was none, and nobody was heard from there.
    is_tentative: bool,
    /// The name is not the one that the peer had before, and was not resolved yet.
    is_renamed: bool,
    /// A new name was resolved to other places: the peer is called there although the session works.
    is_moving: bool,
    /// Attempts since the peer was last heard.
    attempts: usize,
    /// Where the initiation of this attempt has been sent, in order, and where it is still to be sent.
    called: Vec<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    /// When the next of those that wait is called, and when the last was.
    next: Option<Instant>,
    last: Option<Instant>,
}

impl Candidates {
    /// The peer has another name, or none: what the one before was resolved to is called no longer.
    pub(crate) fn forget(&mut self) {
        *self = Self { is_renamed: true, is_tentative: self.is_tentative, ..Self::default() };
    }

    /// The name has these addresses.
    pub(crate) fn set(&mut self, addresses: &[SocketAddr], endpoint: Option<SocketAddr>) {
        self.addresses.clear();
        for address in addresses {
            if self.addresses.len() < MAX_CANDIDATES && !self.addresses.contains(address) {
                self.addresses.push(*address);
            }
        }
        let is_renamed = std::mem::take(&mut self.is_renamed);
        self.is_moving =
            (is_renamed || self.is_moving) && endpoint.is_some_and(|endpoint| !self.addresses.contains(&endpoint));
    }

    /// The address that becomes the endpoint although nobody was heard from it: the peer has none, or one that the name has
    /// no longer and that was of this kind too.
    pub(crate) fn stand_in(&mut self, endpoint: Option<SocketAddr>) -> Option<SocketAddr> {
        let first = *self.addresses.first()?;
        match endpoint {
            Some(endpoint) if !self.is_tentative || self.addresses.contains(&endpoint) => None,
            _ => {
                self.is_tentative = true;
                Some(first)
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().copied()
    }

    /// Whether others than the endpoint are called also while the session works.
    pub(crate) fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// Whether the peer may be called there.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// A new initiation is about to be sent: where it goes now. The others follow.
    pub(crate) fn begin(&mut self, endpoint: SocketAddr, now: Instant) -> SocketAddr {
        let mut order: VecDeque<_> = self.addresses.iter().copied().filter(|address| *address != endpoint).collect();
        if self.addresses.contains(&endpoint) {
            order.push_front(endpoint);
        } else if !self.is_moving || self.attempts > 0 {
            // What the name says now is better than where the peer was; but it may have moved by itself.
            order.push_back(endpoint);
        }
        let turn = self.attempts % order.len().max(1);
        order.rotate_left(turn);
        self.attempts = self.attempts.wrapping_add(1);
        let first = order.pop_front().unwrap_or(endpoint);
        self.called = vec![first];
        self.last = Some(now);
        self.waiting = order;
        self.next = (!self.waiting.is_empty()).then(|| now + ATTEMPT_DELAY);
        first
    }

    /// The initiation that is under way, which went to `endpoint` at `initiated`, goes to all other addresses too.
    pub(crate) fn widen(&mut self, endpoint: SocketAddr, initiated: Option<Instant>, now: Instant) {
        if self.called.is_empty() {
            self.called.push(endpoint);
        }
        for address in &self.addresses {
            let is_known = self.called.contains(address) || self.waiting.contains(address);
            if !is_known && self.called.len() + self.waiting.len() < MAX_CALLS {
                self.waiting.push_back(*address);
            }
        }
        if !self.waiting.is_empty() {
            let earliest = self.last.max(initiated).map_or(now, |last| now.max(last + ATTEMPT_DELAY));
            self.next.get_or_insert(earliest);
        }
    }

    /// Nobody else is called with this initiation.
    pub(crate) fn rest(&mut self) {
        self.called.clear();
        self.waiting.clear();
        self.next = None;
    }

    /// The address that is to be called now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<SocketAddr> {
        self.next.take_if(|at| *at <= now)?;
        let address = self.waiting.pop_front()?;
        self.called.push(address);
        self.last = Some(now);
        self.next = (!self.waiting.is_empty()).then(|| now + ATTEMPT_DELAY);
        Some(address)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// This host could not send the initiation there. If it was the last one called, the next is called at once.
    pub(crate) fn on_unsent(&mut self, address: SocketAddr, now: Instant) {
        if self.called.last() == Some(&address) && self.next.is_some() {
            self.next = Some(now);
        }
    }

    /// The peer called us: it is where that came from, whether or not it hears us there.
    pub(crate) fn on_called(&mut self) {
        self.is_tentative = false;
    }

    /// Something authentic came from the peer: it answers where it was called. While it is called by a new name that says
    /// nothing yet, because the earlier session goes on.
    pub(crate) fn on_heard(&mut self) {
        self.is_tentative = false;
        if !self.is_moving {
            self.attempts = 0;
            self.rest();
        }
    }

    /// A handshake was completed: the peer is where that came from.
    pub(crate) fn on_connected(&mut self) {
        self.is_moving = false;
        self.on_heard();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: u8 = 9;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 51820))
    }

    fn candidates(hosts: impl IntoIterator<Item = u8>) -> Candidates {
        let addresses: Vec<_> = hosts.into_iter().map(address).collect();
        let mut candidates = Candidates::default();
        candidates.set(&addresses, Some(address(ENDPOINT)));
        candidates
    }

    /// The last bytes of the addresses that an attempt beginning at `began` calls, with the milliseconds until each.
    fn attempt(candidates: &mut Candidates, endpoint: u8, began: u64) -> Vec<(u64, u8)> {
        let host = |address: SocketAddr| match address.ip() {
            std::net::IpAddr::V4(v4) => v4.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let mut calls = vec![(0, host(candidates.begin(address(endpoint), at(began))))];
        for millis in 0..5_000 {
            calls.extend(candidates.poll(at(began + millis)).map(|address| (millis, host(address))));
        }
        calls
    }

    #[test]
    fn an_attempt_calls_the_endpoint_and_then_the_others_a_quarter_of_a_second_apart() {
        assert_eq!(attempt(&mut candidates([1, 2, 3]), 2, 0), [(0, 2), (250, 1), (500, 3)]);
        assert_eq!(attempt(&mut candidates([2]), 2, 0), [(0, 2)]);
    }

    #[test]
    fn what_the_name_says_goes_before_an_endpoint_that_it_does_not_name() {
        assert_eq!(attempt(&mut candidates([1, 2]), ENDPOINT, 0), [(0, 1), (250, 2), (500, ENDPOINT)]);
    }

    #[test]
    fn each_attempt_begins_one_address_later_until_something_is_heard() {
        let mut candidates = candidates([1, 2, 3]);
        let mut first = |heard: bool| {
            if heard {
                candidates.on_heard();
            }
            attempt(&mut candidates, 1, 0)[0].1
        };
        assert_eq!([first(false), first(false), first(false), first(false)], [1, 2, 3, 1]);
        assert_eq!([first(true), first(false)], [1, 2]);
    }

    #[test]
    fn an_address_that_cannot_be_sent_to_costs_no_time() {
        let mut candidates = candidates([1, 2, 3]);
        assert_eq!(candidates.begin(address(1), at(0)), address(1));
        candidates.on_unsent(address(2), at(3));
        assert_eq!(candidates.poll(at(3)), None, "that was not the last one called");
        candidates.on_unsent(address(1), at(3));
        assert_eq!(candidates.poll(at(3)), Some(address(2)));
        assert_eq!(candidates.deadline(), Some(at(253)));
        candidates.on_unsent(address(2), at(4));
        assert_eq!(candidates.poll(at(4)), Some(address(3)));
        candidates.on_unsent(address(3), at(5));
        assert_eq!((candidates.poll(at(5)), candidates.deadline()), (None, None), "the attempt is over");
    }

    #[test]
    fn no_more_addresses_are_called_than_the_limits() {
        let mut candidates = candidates(10..40);
        assert_eq!(candidates.addresses.len(), MAX_CANDIDATES);
        assert_eq!(attempt(&mut candidates, ENDPOINT, 0).len(), MAX_CANDIDATES + 1);
        // A name service that answers something else every time: each answer widens the attempt that is under way.
        let mut calls = MAX_CANDIDATES + 1;
        for round in 0..20 {
            let addresses: Vec<_> = (0..8).map(|host| address(50 + 8 * round + host)).collect();
            candidates.set(&addresses, Some(address(ENDPOINT)));
            candidates.widen(address(ENDPOINT), None, at(10_000));
            calls += (10_000..20_000).filter(|millis| candidates.poll(at(*millis)).is_some()).count();
        }
        assert_eq!(calls, MAX_CALLS);
    }

    #[test]
    fn an_answer_that_comes_while_an_initiation_is_out_widens_it() {
        for (answered, called) in [(7, 250), (4_000, 4_000)] {
            let mut candidates = Candidates::default();
            candidates.set(&[address(1), address(2)], Some(address(1)));
            candidates.widen(address(1), Some(at(0)), at(answered));
            assert_eq!(candidates.deadline(), Some(at(called)));
            assert_eq!(candidates.poll(at(called)), Some(address(2)), "the endpoint was called already");
            candidates.widen(address(1), Some(at(0)), at(called + 1));
            assert_eq!((candidates.poll(at(10_000)), candidates.deadline()), (None, None), "nobody twice");
        }
    }

    #[test]
    fn a_new_name_is_called_without_the_old_endpoint_first_and_what_is_heard_of_that_does_not_end_it() {
        let mut candidates = candidates([7]);
        candidates.forget();
        assert!(candidates.is_empty() && !candidates.is_moving());
        candidates.set(&[address(1), address(2)], Some(address(ENDPOINT)));
        assert!(candidates.is_moving());
        assert_eq!(candidates.begin(address(ENDPOINT), at(0)), address(1));
        candidates.on_heard();
        assert_eq!(candidates.poll(at(250)), Some(address(2)));
        assert_eq!(candidates.poll(at(500)), None);
        // The second attempt: if nobody is there, the earlier session is renewed where it was.
        assert_eq!(attempt(&mut candidates, ENDPOINT, 5_000), [(0, 2), (250, ENDPOINT), (500, 1)]);
        candidates.on_connected();
        assert!(!candidates.is_moving());
        candidates.forget();
        candidates.set(&[address(1), address(ENDPOINT)], Some(address(ENDPOINT)));
        assert!(!candidates.is_moving(), "the new name names the same place");
    }

    #[test]
    fn an_endpoint_that_nobody_was_heard_from_follows_the_name_and_no_other_does() {
        let mut candidates = Candidates::default();
        assert_eq!(candidates.stand_in(None), None, "nothing is known");
        candidates.set(&[address(1), address(2)], None);
        assert_eq!(candidates.stand_in(None), Some(address(1)));
        candidates.set(&[address(2), address(1)], Some(address(1)));
        assert_eq!(candidates.stand_in(Some(address(1))), None, "the name has it still");
        candidates.set(&[address(3)], Some(address(1)));
        assert_eq!(candidates.stand_in(Some(address(1))), Some(address(3)));
        candidates.on_heard();
        candidates.set(&[address(4)], Some(address(3)));
        assert_eq!(candidates.stand_in(Some(address(3))), None, "the peer was heard there");
    }
}
