//! A mirror of the sessions that `Tunn` holds: how old each is, who began it, whether the peer has proven that it holds
//! the keys, and which one sends.
//!
//! `Tunn` exposes none of this. It would also send in a session that the peer never confirmed, once its eight places wrap
//! around. So this file repeats its rules exactly. A session lies in the place of its index modulo eight. It becomes the
//! sending session when a message arrives in it and it is not older than the present one.

use std::time::Duration;

use super::timers::REJECT_AFTER_TIME;
use crate::Instant;

/// Nothing is sealed in a session that ends this soon: a responder counts its age from half a round trip earlier.
const SENDING_MARGIN: Duration = Duration::from_secs(1);
/// `Tunn`'s N_SESSIONS.
const PLACES: usize = 8;

#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) index: u32,
    /// When it was made, on `Tunn`'s clock.
    pub(super) made: Instant,
    pub(super) is_initiator: bool,
    is_confirmed: bool,
}

#[derive(Default)]
pub(super) struct Ring {
    places: [Option<Held>; PLACES],
    /// `Tunn`'s `current`.
    sending: u32,
}

impl Ring {
    /// Records a new session. If we began it, the peer has proven its keys. If we answered, the peer has not yet.
    pub(super) fn on_made(&mut self, index: u32, is_initiator: bool, now: Instant) {
        self.places[place(index)] = Some(Held { index, made: now, is_initiator, is_confirmed: is_initiator });
        if is_initiator {
            self.send_in(index, now);
        }
    }

    /// Records that a message of this session opened. Returns when the session was made if that confirms it.
    pub(super) fn on_opened(&mut self, index: u32) -> Option<Instant> {
        let held = self.places[place(index)].as_mut()?;
        let is_first = !std::mem::replace(&mut held.is_confirmed, true);
        let made = held.made;
        self.send_in(index, made);
        is_first.then_some(made)
    }

    /// Whether messages of this session may be opened.
    pub(super) fn accepts(&self, index: u32, now: Instant) -> bool {
        self.places[place(index)].is_some_and(|held| held.index == index && is_young(&held, now))
    }

    /// When the last session ends.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.places.iter().flatten().map(|held| held.made + REJECT_AFTER_TIME).max()
    }

    /// Whether any session has not ended yet.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.ends().is_some_and(|at| now < at)
    }

    /// Whether any session with these upper 24 bits in its index has not ended yet.
    pub(super) fn uses(&self, index: u32, now: Instant) -> bool {
        self.places.iter().flatten().any(|held| held.index >> 8 == index && is_young(held, now))
    }

    /// The session that packets are sealed in. `None` if it is too old or unproven.
    pub(super) fn sending(&self, now: Instant) -> Option<Held> {
        // A packet that leaves now arrives later, when the session is older by the one-way delay.
        let arrives = now + SENDING_MARGIN;
        self.places[place(self.sending)]
            .filter(|held| held.index == self.sending && held.is_confirmed && is_young(held, arrives))
    }

    /// Whether the index after this one uses the place of the session in use.
    pub(super) fn is_threatened_after(&self, index: u32, now: Instant) -> bool {
        self.sending(now).is_some_and(|held| place(index.wrapping_add(1)) == place(held.index))
    }

    pub(super) fn clear(&mut self) {
        self.places = [None; PLACES];
    }

    fn send_in(&mut self, index: u32, made: Instant) {
        if self.places[place(self.sending)].is_none_or(|before| made >= before.made) {
            self.sending = index;
        }
    }
}

fn place(index: u32) -> usize {
    index as usize % PLACES
}

fn is_young(held: &Held, now: Instant) -> bool {
    now.since(held.made) < REJECT_AFTER_TIME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_that_was_never_confirmed_never_sends_wherever_it_lies() {
        let mut ring = Ring::default();
        for index in 0x100..0x110 {
            ring.on_made(index, false, at(1));
            assert!(ring.sending(at(1)).is_none());
        }
        assert_eq!(ring.on_opened(0x10f), Some(at(1)), "confirmed");
        assert_eq!(ring.on_opened(0x10f), None, "once");
        assert!(ring.sending(at(1)).is_some());
    }

    #[test]
    fn data_in_an_older_session_does_not_bring_it_back() {
        let mut ring = Ring::default();
        ring.on_made(0x101, true, at(0));
        ring.on_made(0x102, true, at(120));
        ring.on_opened(0x101);
        assert_eq!(ring.sending(at(120)).map(|held| held.index), Some(0x102));
    }

    #[test]
    fn a_session_ends_after_180_seconds() {
        let mut ring = Ring::default();
        ring.on_made(0x101, true, at(0));
        assert!(ring.accepts(0x101, at(179)) && !ring.accepts(0x101, at(180)));
        assert!(ring.sending(at(178)).is_some() && ring.sending(at(179)).is_none());
        assert!(!ring.accepts(0x109, at(0)), "another session of the same place");
    }

    #[test]
    fn the_eighth_index_from_here_threatens_the_session_in_use() {
        let mut ring = Ring::default();
        ring.on_made(0x101, true, at(0));
        assert!(ring.is_threatened_after(0x108, at(1)));
        assert!(!ring.is_threatened_after(0x107, at(1)));
        ring.on_made(0x109, false, at(1));
        assert!(ring.sending(at(1)).is_none(), "overwritten");
    }
}
