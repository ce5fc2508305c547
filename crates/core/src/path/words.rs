//! Words: what control on one side says to control on the other, inside the session.
//!
//! A word is sent once and not acknowledged. Only the latest one counts, so one at most waits for the session in which it
//! can be said.

use std::time::Duration;

use crate::Instant;

/// How long a word waits for a session.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many words a peer may say in a second. Control signs, writes to disk and changes tables for each.
const WORDS_A_SECOND: u8 = 4;

/// The words of one peer, and those for it.
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// The words that the peer has said in the latest second with one.
    second: u32,
    count: u8,
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
        let second = (now.millis() / 1_000) as u32;
        if self.second != second {
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= WORDS_A_SECOND
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
    }
}
