//! The addresses that a peer's name resolves to, and the order in which they are called.
//!
//! This is Happy Eyeballs (RFC 8305) with the handshake itself: an initiation goes to one address after another, a
//! quarter of a second apart, until anything authentic arrives. All addresses get the same bytes. A peer that is
//! reached twice drops the second copy as a replay, and the first answer completes the handshake and decides where the
//! peer is. After a local send error the next address is called at once.
//!
//! An attempt begins where the peer was last heard from. Each further attempt begins one address later. Otherwise a
//! path that carries our initiation but not the answer would win every time, because the peer drops the copies that
//! arrive by other paths.
//!
//! While a session works, and for peers whose endpoint is an address, only the endpoint is called. Only authenticated
//! messages move the endpoint, so a lying name server costs a few initiations, at most [`MAX_CALLS`] copies of each,
//! and nothing else.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::Instant;

/// How many addresses of one name are called.
pub(crate) const MAX_CANDIDATES: usize = 8;
/// How many addresses one initiation goes to: those of the name, those of a second answer that came meanwhile, and the
/// endpoint.
pub(crate) const MAX_CALLS: usize = 2 * MAX_CANDIDATES + 1;
/// The time between two addresses (RFC 8305 section 5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The addresses of a peer's name, and the current attempt.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    addresses: Vec<SocketAddr>,
    /// The endpoint was taken from the addresses because there was none, and nothing has been heard from it.
    is_tentative: bool,
    /// The peer was given a new name that has not been resolved yet.
    is_renamed: bool,
    /// The new name resolved to different addresses. They are called although the session works.
    is_moving: bool,
    /// How many attempts were made since the peer was last heard from.
    attempts: usize,
    /// Where the initiation of this attempt was sent, in order, and where it has yet to be sent.
    called: Vec<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    /// When the next waiting address is called, and when the last one was.
    next: Option<Instant>,
    last: Option<Instant>,
}

impl Candidates {
    /// Forgets the addresses, because the peer was given a new name or none.
    pub(crate) fn forget(&mut self) {
        *self = Self { is_renamed: true, is_tentative: self.is_tentative, ..Self::default() };
    }

    /// Sets the addresses that the name resolves to.
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

    /// Returns the address that becomes the endpoint although nothing was heard from it. This happens if the peer has
    /// no endpoint, or if its endpoint was chosen in this way and the name no longer resolves to it.
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

    /// Whether addresses other than the endpoint are called while the session works.
    pub(crate) fn is_moving(&self) -> bool {
        self.is_moving
    }

    /// Whether the peer's name resolves to this address.
    pub(crate) fn contains(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Begins an attempt with a new initiation. Returns where to send it now. The other addresses follow.
    pub(crate) fn begin(&mut self, endpoint: SocketAddr, now: Instant) -> SocketAddr {
        let mut order: VecDeque<_> = self.addresses.iter().copied().filter(|address| *address != endpoint).collect();
        if self.addresses.contains(&endpoint) {
            order.push_front(endpoint);
        } else if !self.is_moving || self.attempts > 0 {
            // What the name says now is better than where the peer was. But the peer may have moved without its name.
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

    /// Sends the current initiation, which went to `endpoint` at `initiated`, to all other addresses as well.
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

    /// Stops sending this initiation to further addresses.
    pub(crate) fn rest(&mut self) {
        self.called.clear();
        self.waiting.clear();
        self.next = None;
    }

    /// Returns the address that is to be called now.
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

    /// Records that this host could not send the initiation to `address`. If it was the last one called, the next is
    /// called at once.
    pub(crate) fn on_unsent(&mut self, address: SocketAddr, now: Instant) {
        if self.called.last() == Some(&address) && self.next.is_some() {
            self.next = Some(now);
        }
    }

    /// Records an authentic message. It shows where the peer is, whether or not the peer hears us there.
    pub(crate) fn on_authenticated(&mut self) {
        self.is_tentative = false;
    }

    /// Records that the peer hears us, so it answers where it was called. While a new name is being
    /// called this proves nothing, because the earlier session goes on.
    pub(crate) fn on_heard(&mut self) {
        if !self.is_moving {
            self.attempts = 0;
            self.rest();
        }
    }

    /// Records a completed handshake. The peer is where it came from.
    pub(crate) fn on_connected(&mut self) {
        self.is_moving = false;
        self.is_tentative = false;
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

    /// Returns the last bytes of the addresses that an attempt calls which begins at `began`, with the milliseconds
    /// until each.
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
        // A name server that gives a different answer every time. Each answer widens the current attempt.
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
        // The second attempt. If nobody is at the new addresses, the earlier session is renewed where it was.
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
        candidates.on_authenticated();
        candidates.set(&[address(4)], Some(address(3)));
        assert_eq!(candidates.stand_in(Some(address(3))), None, "the peer was heard there");
    }
}
