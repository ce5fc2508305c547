//! Which relays an agent is bound at without a peer's asking: its home relay, at which peers reach it, and a spare.
//!
//! ```text
//! none --the first answer--> home --a better one for HELD, or silence--> the best that answers
//! ```
//!
//! The first answer is that of the nearest relay as a rule, but not all are asked at the same time. So within [`SETTLING`]
//! a better one takes over at once. Peers have to be told of a new home, so afterwards a better one has to stay so for [`HELD`].
//!
//! If none answers, the choice stays: one that comes back finds us at once.

use std::time::Duration;

use overlay_wire::signed::PublicKey;

/// How long after the first choice a better relay takes over at once.
const SETTLING: Duration = Duration::from_secs(10);
/// How long a relay has to be better afterwards.
const HELD: Duration = Duration::from_secs(600);
/// A relay is better if its round trip is shorter by this much at least, and by a fifth of that of the other.
const BETTER: Duration = Duration::from_millis(10);

/// What is known of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) relay: PublicKey,
    /// `None`: it does not answer.
    pub(super) round_trip: Option<Duration>,
}

/// The choice.
#[derive(Debug, Default)]
pub(super) struct Choice {
    home: Option<PublicKey>,
    spare: Option<PublicKey>,
    /// When there was a home for the first time.
    since: Option<Duration>,
    /// A relay that is better than the home relay, and since when.
    rival: Option<(PublicKey, Duration)>,
}

impl Choice {
    /// The chosen relays, the home relay first.
    pub(super) fn chosen(&self) -> impl Iterator<Item = PublicKey> + use<> {
        [self.home, self.spare].into_iter().flatten()
    }

    /// Chooses by what is known now. Returns whether the choice has changed.
    pub(super) fn choose(&mut self, measured: &[Measured], now: Duration) -> bool {
        let before = (self.home, self.spare);
        let round_trip = |relay: PublicKey| measured.iter().find(|it| it.relay == relay).and_then(|it| it.round_trip);
        let best = |except: Option<PublicKey>| {
            let others = measured.iter().filter(|it| Some(it.relay) != except);
            others.filter_map(|it| Some((it.round_trip?, it.relay))).min()
        };
        let is_known = |relay: &PublicKey| measured.iter().any(|it| it.relay == *relay);
        self.home = self.home.filter(is_known);
        self.spare = self.spare.filter(is_known);
        match (self.home.and_then(|home| Some((home, round_trip(home)?))), best(self.home)) {
            (None, Some((_, relay))) => self.home = Some(relay),
            (Some((_, at_home)), Some((elsewhere, relay))) if is_better(elsewhere, at_home) => {
                let since = self.rival.filter(|(rival, _)| *rival == relay).map_or(now, |(_, since)| since);
                self.rival = Some((relay, since));
                let is_settling = self.since.is_none_or(|since| now < since + SETTLING);
                if is_settling || now >= since + HELD {
                    self.home = Some(relay);
                    self.rival = None;
                }
            }
            _ => self.rival = None,
        }
        if self.home.is_some() {
            self.since.get_or_insert(now);
        }
        let stays = self.spare.filter(|spare| Some(*spare) != self.home && round_trip(*spare).is_some());
        let settled = self.since.is_none_or(|since| now >= since + SETTLING);
        self.spare = stays.filter(|_| settled).or(best(self.home).map(|(_, relay)| relay)).or(stays);
        (self.home, self.spare) != before
    }
}

fn is_better(round_trip: Duration, than: Duration) -> bool {
    round_trip + BETTER.max(than / 5) <= than
}

#[cfg(test)]
mod tests {
    use overlay_wire::signed::SecretKey;

    use super::*;

    fn relay(byte: u8) -> PublicKey {
        SecretKey::from_bytes(&[byte; 32]).public()
    }

    /// Chooses at this second among relays with these round trips in milliseconds, 0 for one that does not answer. Returns the
    /// numbers of what is chosen.
    fn choose(choice: &mut Choice, second: u64, round_trips: &[u64]) -> Vec<u8> {
        let measured: Vec<_> = (1..)
            .zip(round_trips)
            .map(|(byte, ms)| Measured {
                relay: relay(byte),
                round_trip: (*ms > 0).then(|| Duration::from_millis(*ms)),
            })
            .collect();
        choice.choose(&measured, Duration::from_secs(second));
        choice.chosen().map(|chosen| (1..9).find(|byte| relay(*byte) == chosen).expect("one of them")).collect()
    }

    #[test]
    fn every_transition_is_in_this_table() {
        let mut choice = Choice::default();
        for (second, round_trips, chosen, why) in [
            (0, &[0, 0, 0][..], &[][..], "none answers"),
            (1, &[0, 90, 0], &[2], "the first answer"),
            (2, &[50, 90, 0], &[1, 2], "a better one while it settles"),
            (3, &[50, 90, 60], &[1, 3], "a better spare while it settles"),
            (20, &[50, 30, 60], &[1, 3], "a better one has to stay so"),
            (619, &[50, 30, 60], &[1, 3], "not long enough"),
            (620, &[50, 30, 60], &[2, 3], "long enough"),
            (630, &[22, 30, 60], &[2, 3], "8 ms are no reason"),
            (1_700, &[22, 30, 60], &[2, 3], "for however long"),
            (1_710, &[22, 0, 60], &[1, 3], "silence"),
            (1_720, &[0, 0, 0], &[1], "if none answers, the home relay stays"),
            (1_730, &[0, 40, 0], &[2], "one is back"),
            (1_731, &[22, 40], &[2, 1], "a relay that is no longer known"),
            (1_732, &[22], &[1], "not even the home relay"),
        ] {
            assert_eq!(choose(&mut choice, second, round_trips), chosen, "{why}");
        }
    }

    #[test]
    fn a_rival_that_is_worse_for_a_moment_starts_over() {
        let mut choice = Choice::default();
        assert_eq!(choose(&mut choice, 0, &[100, 110]), [1, 2]);
        for (second, other, home) in [(20, 50, 1), (500, 95, 1), (620, 50, 1), (1_219, 50, 1), (1_220, 50, 2)] {
            assert_eq!(choose(&mut choice, second, &[100, other])[0], home, "at {second} s");
        }
    }

    #[test]
    fn a_fifth_of_a_long_round_trip_counts() {
        let ms = Duration::from_millis;
        assert!(!is_better(ms(165), ms(200)) && is_better(ms(160), ms(200)));
        assert!(!is_better(ms(11), ms(20)) && is_better(ms(10), ms(20)));
    }
}
