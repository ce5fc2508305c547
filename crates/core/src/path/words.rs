//! Words: what control on one side says to control on the other, inside the session.
//!
//! A word is sent once and not acknowledged. Only the latest one counts, so nothing waits: a word that comes too early is
//! dropped, and the peer has to say it in a different way.

use crate::Instant;

/// How many words a peer may say in a second. Control signs, writes to disk and changes tables for each.
const WORDS_A_SECOND: u8 = 4;

/// The words that a peer has said in the latest second with one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words {
    second: u32,
    count: u8,
}

impl Words {
    /// Counts a word. Returns whether control may hear it.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let second = (now.millis() / 1_000) as u32;
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= WORDS_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_peer_is_heard_a_few_times_a_second() {
        let mut words = Words::default();
        let at = |millis| Instant::from_start(Duration::from_millis(millis));
        let heard = (0..3_000).filter(|millis| words.take(at(5_000 + millis))).count();
        assert_eq!(heard, 3 * usize::from(WORDS_A_SECOND));
    }
}
