//! What control is told about a peer, at most once a second.
//!
//! A peer decides how often it moves, announces a new MTU and performs handshakes, and can do so thousands of times a
//! second. Control's reaction costs much more than the message that caused it: kernel queries, a route for each prefix.
//! A fact is therefore told at once if the last one of its kind is at least a second old. Otherwise it waits and
//! replaces an earlier one that waits. The last fact is always told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::instant::earlier;
use crate::{Event, Instant, PathMtu, PathTag, PeerTag};

/// The minimum time between two facts of the same kind about a peer.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many facts of each kind need not wait, once in a peer's life. A new peer produces several within a moment, until
/// its path is known.
const AT_ONCE: u8 = 5;

/// The facts about one peer that wait, at most one of each kind.
#[derive(Debug)]
pub(crate) struct News {
    endpoint: Paced<(SocketAddr, bool)>,
    path_mtu: Paced<(PathTag, PathMtu)>,
    handshake: Paced<Instant>,
}

impl Default for News {
    fn default() -> Self {
        Self { endpoint: Paced::new(AT_ONCE), path_mtu: Paced::new(AT_ONCE), handshake: Paced::new(AT_ONCE) }
    }
}

impl News {
    /// Returns when the next fact may be told.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        earlier(earlier(self.endpoint.deadline(), self.path_mtu.deadline()), self.handshake.deadline())
    }

    /// Drops a waiting endpoint, because control itself has just set the peer's endpoint.
    pub(crate) fn forget_endpoint(&mut self) {
        self.endpoint.waiting = None;
    }

    /// Takes the address that packets go to, and whether it is a relay's. Returns the event to report now, if any.
    pub(crate) fn on_endpoint(&mut self, peer: PeerTag, to: (SocketAddr, bool), now: Instant) -> Option<Event> {
        self.endpoint.offer(to, now).map(|(address, is_relay)| Event::EndpointChanged(peer, address, is_relay))
    }

    /// Takes what is known about a path to the peer. Returns the event to report now, if any.
    pub(crate) fn on_path_mtu(&mut self, path: PathTag, known: PathMtu, now: Instant) -> Option<Event> {
        self.path_mtu.offer((path, known), now).map(|(path, known)| Event::PathMtu(path, known))
    }

    /// Takes a handshake with the peer that has just been completed. Returns the event to report now, if any.
    pub(crate) fn on_handshake(&mut self, peer: PeerTag, now: Instant) -> Option<Event> {
        self.handshake.offer(now, now).map(|at| Event::HandshakeCompleted(peer, at))
    }

    /// Returns the next event that has waited long enough. Call it until it returns `None`.
    pub(crate) fn poll(&mut self, peer: PeerTag, now: Instant) -> Option<Event> {
        if let Some(at) = self.handshake.take_due(now) {
            return Some(Event::HandshakeCompleted(peer, at));
        }
        if let Some((address, is_relay)) = self.endpoint.take_due(now) {
            return Some(Event::EndpointChanged(peer, address, is_relay));
        }
        self.path_mtu.take_due(now).map(|(path, known)| Event::PathMtu(path, known))
    }
}

#[derive(Debug)]
struct Paced<T> {
    told: Option<Instant>,
    waiting: Option<T>,
    /// How many more facts need not wait.
    at_once: u8,
}

impl<T> Paced<T> {
    fn new(at_once: u8) -> Self {
        Self { told: None, waiting: None, at_once }
    }

    /// Returns the fact if it may be told now. Otherwise the fact waits.
    fn offer(&mut self, fact: T, now: Instant) -> Option<T> {
        self.waiting = Some(fact);
        if self.told.is_some_and(|at| now < at + INTERVAL) {
            self.at_once = self.at_once.checked_sub(1)?;
            self.told = None;
        }
        self.take_due(now)
    }

    fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.told.is_some_and(|at| now < at + INTERVAL) {
            return None;
        }
        let fact = self.waiting.take()?;
        self.told = Some(now);
        Some(fact)
    }

    fn deadline(&self) -> Option<Instant> {
        self.waiting.as_ref()?;
        Some(self.told? + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn after_the_first_facts_the_last_one_of_each_second_is_told() {
        let mut paced = Paced::new(AT_ONCE);
        for fact in 0..=AT_ONCE {
            assert_eq!((paced.offer(fact, at(5_000)), paced.deadline()), (Some(fact), None));
        }
        for (fact, millis) in [(12, 5_001), (13, 5_500), (14, 5_999)] {
            assert_eq!((paced.offer(fact, at(millis)), paced.deadline()), (None, Some(at(6_000))));
        }
        assert_eq!(paced.take_due(at(5_999)), None);
        assert_eq!((paced.take_due(at(6_000)), paced.deadline()), (Some(14), None), "the last one");
        assert_eq!(paced.offer(15, at(6_999)), None, "a second from then on");
        assert_eq!(paced.offer(16, at(7_000)), Some(16), "and the one before it is no longer told");
        assert_eq!(paced.take_due(at(60_000)), None);
        let told = (0..10_000).filter(|millis| paced.offer(7, at(60_000 + millis)).is_some()).count();
        assert_eq!(told, 10, "a rest earns nothing");
    }
}
