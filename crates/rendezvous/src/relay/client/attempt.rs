//! How an agent gets bound, and stays so: a hello, a bind, a rest.
//!
//! ```text
//! resting --time, a hint, a move--> greeting --challenge--> binding --bound or refused--> resting
//!                                      ^                       |
//!                                      +---- no answer to 3 ---+
//! ```
//!
//! Hellos and binds are repeated ever more rarely, because the relay may be away for long.

use std::time::Duration;

/// When a hello or a bind is repeated for the first time.
const FIRST_REPEAT: Duration = Duration::from_millis(250);
/// The longest time between two hellos.
const LONGEST_REPEAT: Duration = Duration::from_secs(8);
/// After so many binds without an answer the cookie may be too old.
const MAX_BINDS: u32 = 3;

/// The state of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Nothing to do until then.
    Resting { until: Duration },
    /// A hello is out.
    Greeting { nonce: [u8; 16], sent: u32, next: Duration },
    /// A bind is out, which is these bytes.
    Binding { nonce: [u8; 16], bind: Vec<u8>, sent: u32, next: Duration },
}

/// What to send because time has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Hello([u8; 16]),
    Bind(Vec<u8>),
}

impl Attempt {
    /// When something is due.
    pub(super) fn due(&self) -> Duration {
        match self {
            Self::Resting { until } => *until,
            Self::Greeting { next, .. } | Self::Binding { next, .. } => *next,
        }
    }

    /// Whether a challenge with this nonce answers the hello that is out.
    pub(super) fn awaits_challenge(&self, answered: &[u8; 16]) -> bool {
        matches!(self, Self::Greeting { nonce, .. } if nonce == answered)
    }

    /// Whether a bound or refused with this nonce answers the bind that is out.
    pub(super) fn awaits_bound(&self, answered: &[u8; 16]) -> bool {
        matches!(self, Self::Binding { nonce, .. } if nonce == answered)
    }

    /// Whether the message that is out was repeated several times.
    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            Self::Resting { .. } => false,
            Self::Greeting { sent, .. } | Self::Binding { sent, .. } => *sent > 3,
        }
    }

    /// Something is due. `fresh`: a random number, if a hello needs one.
    pub(super) fn on_due(&mut self, fresh: [u8; 16], now: Duration) -> Say {
        match self {
            Self::Greeting { nonce, sent, next } => {
                *next = now + pause(*sent);
                *sent += 1;
                Say::Hello(*nonce)
            }
            Self::Binding { bind, sent, next, .. } if *sent < MAX_BINDS => {
                *next = now + pause(*sent);
                *sent += 1;
                Say::Bind(bind.clone())
            }
            Self::Resting { .. } | Self::Binding { .. } => {
                *self = Self::Greeting { nonce: fresh, sent: 1, next: now + pause(0) };
                Say::Hello(fresh)
            }
        }
    }

    /// The relay has challenged us, and this bind answers it. It is sent by the caller.
    pub(super) fn on_challenged(&mut self, bind: Vec<u8>, now: Duration) {
        if let Self::Greeting { nonce, .. } = self {
            *self = Self::Binding { nonce: *nonce, bind, sent: 1, next: now + pause(0) };
        }
    }

    /// It is over, well or not.
    pub(super) fn rest(&mut self, until: Duration) {
        *self = Self::Resting { until };
    }

    /// There is a reason to bind now. An attempt that is under way goes on, unless our address has changed.
    pub(super) fn hurry(&mut self, has_moved: bool, now: Duration) {
        if has_moved || matches!(self, Self::Resting { .. }) {
            self.rest(now);
        }
    }
}

/// The pause after the message before which so many were sent.
fn pause(sent: u32) -> Duration {
    FIRST_REPEAT.saturating_mul(1 << sent.min(8)).min(LONGEST_REPEAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    /// Not inlined: with optimisation, rustc 1.95 passes one copy of a constant to two closures, and the second sees what the
    /// first has made of it.
    #[inline(never)]
    fn resting() -> Attempt {
        Attempt::Resting { until: NOW }
    }

    fn greeting(sent: u32) -> Attempt {
        Attempt::Greeting { nonce: [1; 16], sent, next: NOW }
    }

    fn binding(sent: u32) -> Attempt {
        Attempt::Binding { nonce: [1; 16], bind: vec![5], sent, next: NOW }
    }

    fn ms(ms: u64) -> Duration {
        NOW + Duration::from_millis(ms)
    }

    #[test]
    fn every_transition_is_in_this_table() {
        let fresh = [2; 16];
        let due = |mut from: Attempt| {
            let say = from.on_due(fresh, NOW);
            (from, say)
        };
        // Something is due.
        let greeted = Attempt::Greeting { nonce: fresh, sent: 1, next: ms(250) };
        assert_eq!(due(resting()), (greeted.clone(), Say::Hello(fresh)));
        let again = Attempt::Greeting { nonce: [1; 16], sent: 2, next: ms(500) };
        assert_eq!(due(greeting(1)), (again, Say::Hello([1; 16])));
        let again = Attempt::Binding { nonce: [1; 16], bind: vec![5], sent: 2, next: ms(500) };
        assert_eq!(due(binding(1)), (again, Say::Bind(vec![5])));
        assert_eq!(due(binding(3)), (greeted, Say::Hello(fresh)));

        // A challenge.
        let challenged = |mut from: Attempt| {
            from.on_challenged(vec![5], NOW);
            from
        };
        let bound = Attempt::Binding { nonce: [1; 16], bind: vec![5], sent: 1, next: ms(250) };
        assert_eq!(challenged(greeting(4)), bound);
        assert_eq!(challenged(resting()), resting());
        assert_eq!(challenged(binding(2)), binding(2));

        // A reason to bind now, without and with a new address.
        let hurried = |mut from: Attempt, has_moved| {
            from.hurry(has_moved, ms(7));
            from
        };
        let at_once = Attempt::Resting { until: ms(7) };
        for from in [resting(), greeting(1), binding(1)] {
            let stays = if from == resting() { at_once.clone() } else { from.clone() };
            assert_eq!(hurried(from.clone(), false), stays);
            assert_eq!(hurried(from, true), at_once);
        }

        // What answers what.
        for (state, challenge, bound) in
            [(resting(), false, false), (greeting(1), true, false), (binding(1), false, true)]
        {
            assert_eq!((state.awaits_challenge(&[1; 16]), state.awaits_bound(&[1; 16])), (challenge, bound));
            assert!(!state.awaits_challenge(&[9; 16]) && !state.awaits_bound(&[9; 16]));
        }
    }

    #[test]
    fn hellos_become_rare_and_never_end() {
        let mut attempt = resting();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let at = attempt.due();
            attempt.on_due([3; 16], at);
            pauses.push((attempt.due() - at).as_millis());
        }
        assert_eq!(pauses[..7], [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(pauses[39], 8_000);
    }
}
