//! A peer that is not where it was: packets wait for it in vain, or every path to it has failed. Control is told, because
//! others may know where it is now.

use std::time::Duration;

use super::Agent;
use crate::Instant;

/// How long packets wait for a session before control is told, and how long until it is told again.
const UNANSWERED: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Sought {
    /// Since when packets wait for a session.
    since: Option<Instant>,
    told: Option<Instant>,
    /// Whether every path of a session has failed.
    is_lost: bool,
}

impl Sought {
    /// Records that no path of a session works. Told again after a while.
    pub(super) fn on_lost(&mut self, now: Instant) {
        self.is_lost |= self.told.is_none_or(|at| now.since(at) >= AGAIN);
    }

    /// When control is told, unless a session comes before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.filter(|_| self.told.is_none()).map(|since| since + UNANSWERED)
    }
}

impl Agent {
    /// Records that a packet waits for a session.
    pub(crate) fn seek(&mut self, now: Instant) {
        if self.sought.told.is_some_and(|at| now.since(at) >= AGAIN) {
            self.sought = Sought::default();
        }
        self.sought.since.get_or_insert(now);
    }

    /// Whether control is to be told now that the peer is not found. `is_alive`: there is a session.
    pub(crate) fn take_unreachable(&mut self, is_alive: bool, now: Instant) -> bool {
        let is_due = match is_alive {
            true => std::mem::take(&mut self.sought.is_lost),
            false => self.sought.due().is_some_and(|due| due <= now),
        };
        if is_due {
            self.sought.told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn control_is_told_once_a_minute_of_packets_that_wait_in_vain() {
        let mut agent = Agent::new(&mut ChaCha8Rng::from_seed([1; 32]));
        assert!(!agent.take_unreachable(false, at(5_000)), "nobody wants it");
        agent.seek(at(5_000));
        agent.seek(at(5_900));
        assert_eq!(agent.any_due(false), Some(at(6_000)));
        assert!(!agent.take_unreachable(false, at(5_999)) && agent.take_unreachable(false, at(6_000)));
        for millis in (6_000..66_000).step_by(500) {
            agent.seek(at(millis));
            assert!(!agent.take_unreachable(false, at(millis)));
        }
        agent.seek(at(66_000));
        assert_eq!(agent.any_due(false), Some(at(67_000)), "once a minute");
    }

    #[test]
    fn packets_mean_nothing_while_there_is_a_session_but_the_loss_of_every_path_does() {
        let mut agent = Agent::new(&mut ChaCha8Rng::from_seed([1; 32]));
        agent.seek(at(5_000));
        assert!(!agent.take_unreachable(true, at(9_000)));
        let mut told = Vec::new();
        for millis in (9_000..130_000).step_by(1_000) {
            agent.sought.on_lost(at(millis));
            told.extend(agent.take_unreachable(true, at(millis)).then_some(millis));
        }
        assert_eq!(told, [9_000, 69_000, 129_000]);
    }
}
