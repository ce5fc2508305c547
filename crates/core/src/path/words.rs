//! Words: what control on one side says to control on the other, inside the session. Parcels: what it hands over for a third
//! agent.
//!
//! Both are sent once and not acknowledged. Only the latest word counts, so one at most waits for the session in which it can be
//! said. A parcel waits for nothing: control sends it when there is a session.

use std::time::Duration;

use crate::Instant;

/// How long a word waits for a session.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many words a peer may say in a second. Control signs, writes to disk and changes tables for each.
const WORDS_A_SECOND: u8 = 4;
/// How many parcels a peer may hand over in a second. Control opens what is for us, and keeps or hands on the others.
const PARCELS_A_SECOND: u8 = 32;

/// The words and parcels of one peer, and the words for it.
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// The words and the parcels of the peer in the latest second with one.
    second: u32,
    words: u8,
    parcels: u8,
    /// The word that waits for a session with the peer, and since when. Boxed, because most peers have none.
    waiting: Option<Box<(Box<[u8]>, Instant)>>,
}

impl Words {
    /// Lets a word wait. It replaces an earlier one.
    pub(crate) fn wait(&mut self, word: &[u8], now: Instant) {
        self.waiting = Some(Box::new((word.into(), now)));
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The word that waits, unless it has waited for too long.
    pub(crate) fn take_waiting(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let (word, since) = *self.waiting.take()?;
        (now.since(since) < PATIENCE).then_some(word)
    }

    /// Counts a word. Returns whether control may hear it.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.begin_second(now);
        self.words = self.words.saturating_add(1);
        self.words <= WORDS_A_SECOND
    }

    /// Counts a parcel. Returns whether control may have it.
    pub(crate) fn take_parcel(&mut self, now: Instant) -> bool {
        self.begin_second(now);
        self.parcels = self.parcels.saturating_add(1);
        self.parcels <= PARCELS_A_SECOND
    }

    fn begin_second(&mut self, now: Instant) {
        let second = (now.millis() / 1_000) as u32;
        if self.second != second {
            (self.second, self.words, self.parcels) = (second, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_waits_for_a_minute() {
        let mut words = Words::default();
        let at = |seconds| Instant::from_start(Duration::from_secs(seconds));
        words.wait(b"first", at(0));
        words.wait(b"second", at(10));
        assert_eq!(words.take_waiting(at(69)).as_deref(), Some(&b"second"[..]));
        assert_eq!(words.take_waiting(at(69)), None);
        words.wait(b"third", at(100));
        assert_eq!(words.take_waiting(at(160)), None);
    }

    #[test]
    fn a_peer_is_heard_a_few_times_a_second() {
        let mut words = Words::default();
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let heard = (0..3_000).filter(|millis| words.take(at(5_000 + millis))).count();
        assert_eq!(heard, 3 * usize::from(WORDS_A_SECOND));
        let taken = (0..3_000).filter(|millis| words.take_parcel(at(10_000 + millis))).count();
        assert_eq!(taken, 3 * usize::from(PARCELS_A_SECOND));
    }
}
