//! Whether a peer is an overlay node: only overlay nodes answer control frames.
//!
//! A peer starts as *unknown*. In each session that we began, we ask it twice, a second apart. In a session that the
//! peer began, it may ask us. A hello or a reply to our hello makes it an *overlay node*. Otherwise, two seconds after
//! the session began, it is taken for *a different WireGuard implementation*. It is asked again in later sessions.
//! After three sessions without an answer, it is not asked again until something about it changes.
//!
//! An overlay node is greeted once in each session that we began, because it may have restarted without knowing us, or
//! its interface MTU may have changed. When our own interface MTU changes, it is greeted at once. A missing answer to
//! such a hello means nothing, unless the node has stopped answering probes before. In that case it is asked like an
//! unknown peer, and it counts as an overlay node until the answer fails to arrive.
//!
//! `DEVIATION:` the design asks once a session. A hello is one small datagram, and losing it would cost two minutes.

use std::time::Duration;

use overlay_wire::control::Abilities;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::Instant;

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many hellos are sent in one session.
const HELLOS_A_SESSION: u8 = 2;
/// How many sessions ask a peer that never answers.
const MAX_SESSIONS: u8 = 3;

#[derive(Clone, Debug, Default)]
pub(crate) struct Greeting {
    peer: Acquaintance,
    /// The nonce that an answer must repeat.
    nonce: u32,
    /// How many hellos are left for this session. `sessions` counts the sessions without an answer.
    left: u8,
    sessions: u8,
    next: Option<Instant>,
    /// The peer has recently answered nothing. A different program may be running there now.
    is_doubted: bool,
}

/// What is known about a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Acquaintance {
    #[default]
    Unknown,
    /// An overlay node, with the abilities it announced and the MTU of its interface in bytes.
    Overlay { understands: Abilities, mtu: u16 },
    /// The peer does not answer.
    Other,
}

impl Acquaintance {
    /// Whether the peer answers control frames, as far as is known.
    pub(crate) fn is_overlay(self) -> bool {
        matches!(self, Self::Overlay { .. })
    }

    /// Whether it says that it understands something.
    pub(crate) fn understands(self, abilities: Abilities) -> bool {
        matches!(self, Self::Overlay { understands, .. } if understands.include(abilities))
    }
}

impl Greeting {
    /// Records a new session. `is_initiator` says that we began it.
    pub(crate) fn on_session(&mut self, is_initiator: bool, now: Instant, rng: &mut ChaCha8Rng) {
        let is_known = self.is_overlay() && !self.is_doubted;
        if self.next.is_some() || is_known && !is_initiator {
            return;
        }
        if is_known {
            self.left = 1;
            self.nonce = rng.next_u32();
            self.next = Some(now);
        } else if is_initiator && self.sessions < MAX_SESSIONS {
            self.sessions += 1;
            self.left = HELLOS_A_SESSION;
            self.nonce = rng.next_u32();
            self.next = Some(now);
        } else if self.peer != Acquaintance::Other {
            self.next = Some(now + PATIENCE * HELLOS_A_SESSION.into());
        }
    }

    /// Returns the nonce of a hello that is due. Also draws the conclusion when the wait for an answer is over.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<u32> {
        self.next.take_if(|at| *at <= now)?;
        if self.left > 0 {
            self.left -= 1;
            self.next = Some(now + PATIENCE);
            return Some(self.nonce);
        }
        if !self.is_overlay() || self.is_doubted {
            self.peer = Acquaintance::Other;
        }
        None
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Records a hello from the peer.
    pub(crate) fn on_hello(&mut self, understands: Abilities, mtu: u16) {
        *self = Self { peer: Acquaintance::Overlay { understands, mtu }, ..Self::default() };
    }

    /// Records an answer to a hello. Returns false if it does not belong to our last hello.
    pub(crate) fn on_reply(&mut self, nonce: u32, understands: Abilities, mtu: u16) -> bool {
        let is_ours = nonce == self.nonce && self.next.is_some();
        if is_ours {
            self.on_hello(understands, mtu);
        }
        is_ours
    }

    /// Records that our hello would now say something different. An overlay node is to hear it at once, in whatever
    /// session.
    pub(crate) fn on_news(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        if self.is_overlay() {
            self.left = HELLOS_A_SESSION;
            self.nonce = rng.next_u32();
            self.next = Some(now);
        }
    }

    /// Records that the peer has stopped answering.
    pub(crate) fn on_silence(&mut self) {
        *self = Self { peer: self.peer, is_doubted: true, ..Self::default() };
    }

    /// Records that something about the peer or about us has changed, so that asking again may help.
    pub(crate) fn on_change(&mut self) {
        self.sessions = 0;
    }

    pub(crate) fn peer(&self) -> Acquaintance {
        self.peer
    }

    fn is_overlay(&self) -> bool {
        self.peer.is_overlay()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    const OVERLAY: Acquaintance = Acquaintance::Overlay { understands: Abilities::FRAGMENTS, mtu: 1420 };

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(1)
    }

    fn greeted(now: u64) -> (Greeting, u32) {
        let mut greeting = Greeting::default();
        greeting.on_session(true, at(now), &mut rng());
        let nonce = greeting.poll(at(now)).expect("a hello");
        (greeting, nonce)
    }

    #[test]
    fn whoever_answers_is_an_overlay_node_and_whoever_does_not_is_another() {
        let (mut greeting, nonce) = greeted(0);
        assert_eq!((greeting.peer(), greeting.deadline()), (Acquaintance::Unknown, Some(at(1_000))));
        assert!(!greeting.on_reply(nonce ^ 1, Abilities::FRAGMENTS, 1420), "an answer to nothing");
        assert_eq!(greeting.poll(at(999)), None);
        assert_eq!(greeting.poll(at(1_000)), Some(nonce), "once more");
        assert_eq!(greeting.poll(at(2_000)), None);
        assert_eq!((greeting.peer(), greeting.deadline()), (Acquaintance::Other, None));
        assert!(!greeting.on_reply(nonce, Abilities::FRAGMENTS, 1420), "too late: the next session asks again");

        let (mut greeting, nonce) = greeted(0);
        assert!(greeting.on_reply(nonce, Abilities::FRAGMENTS, 1420));
        assert_eq!((greeting.peer(), greeting.deadline()), (OVERLAY, None));
    }

    #[test]
    fn three_sessions_without_an_answer_are_enough() {
        let mut greeting = Greeting::default();
        let mut hellos = 0;
        for session in 0..10 {
            let began = session * 120_000;
            greeting.on_session(true, at(began), &mut rng());
            hellos += (0..10).filter(|second| greeting.poll(at(began + second * 1_000)).is_some()).count();
        }
        assert_eq!(hellos, 6);
        greeting.on_change();
        assert_eq!(greeting.peer(), Acquaintance::Other, "as far as is known");
        greeting.on_session(true, at(9_000_000), &mut rng());
        assert!(greeting.poll(at(9_000_000)).is_some(), "something changed");
    }

    #[test]
    fn who_is_called_waits_for_a_hello_for_two_seconds() {
        let mut greeting = Greeting::default();
        greeting.on_session(false, at(0), &mut rng());
        assert_eq!((greeting.poll(at(1_999)), greeting.peer()), (None, Acquaintance::Unknown));
        assert_eq!((greeting.poll(at(2_000)), greeting.peer()), (None, Acquaintance::Other));

        greeting.on_hello(Abilities::FRAGMENTS, 1420);
        assert_eq!(greeting.peer(), OVERLAY);
        greeting.on_session(false, at(120_000), &mut rng());
        assert_eq!(greeting.deadline(), None, "nothing to ask any more");
    }

    #[test]
    fn an_overlay_node_that_was_silent_is_what_it_was_until_it_fails_to_answer() {
        for is_initiator in [false, true] {
            let mut greeting = Greeting::default();
            greeting.on_hello(Abilities::FRAGMENTS, 1420);
            greeting.on_silence();
            greeting.on_session(is_initiator, at(0), &mut rng());
            let hellos = (0..20).filter(|tenth| greeting.poll(at(tenth * 100)).is_some()).count();
            assert_eq!((greeting.peer(), hellos), (OVERLAY, if is_initiator { 2 } else { 0 }));
            let mut answered = greeting.clone();
            assert_eq!((greeting.poll(at(2_000)), greeting.peer()), (None, Acquaintance::Other));
            answered.on_hello(Abilities::FRAGMENTS, 1420);
            assert_eq!((answered.poll(at(2_000)), answered.peer()), (None, OVERLAY));
        }
    }

    #[test]
    fn an_overlay_node_is_greeted_once_in_each_session_and_may_be_silent() {
        let (mut greeting, nonce) = greeted(0);
        assert!(greeting.on_reply(nonce, Abilities::FRAGMENTS, 1420));
        greeting.on_session(true, at(120_000), &mut rng());
        assert!(greeting.poll(at(120_000)).is_some());
        assert_eq!(greeting.poll(at(121_000)), None, "not again");
        assert_eq!((greeting.peer(), greeting.deadline()), (OVERLAY, None), "and it is what it was");

        greeting.on_session(true, at(240_000), &mut rng());
        let nonce = greeting.poll(at(240_000)).expect("a hello");
        assert!(greeting.on_reply(nonce, Abilities::default(), 9_000));
        assert_eq!(greeting.peer(), Acquaintance::Overlay { understands: Abilities::default(), mtu: 9_000 });
    }
}
