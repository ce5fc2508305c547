//! One question to one address: asked again until it is answered, or given up.
//!
//! ```text
//! asking, attempts at 0, 0.5, 1.5 and 3.5 s -> answered | refused | not changed | unreachable | silent at 5.5 s
//! ```
//!
//! The times are those of RFC 8489 section 6.2.1 with an RTO of 500 ms.
//!
//! DEVIATION: that section sends seven times and waits for 39.5 s. Here somebody waits for the result, and silence is the
//! usual answer of a filter.
//!
//! DEVIATION: each attempt has a transaction id of its own, which differs in its last byte. So an answer says to which
//! attempt it belongs, and the round trip is right also if the first attempt was lost. A server that answers without state
//! cannot tell the difference.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_wire::stun::{Answer, Change, TransactionId, write_request};
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::{Heard, Taken};

/// How often a question is asked.
pub(super) const ATTEMPTS: usize = 4;
/// The time from the first attempt to the second. It doubles with each.
const RTO: Duration = Duration::from_millis(500);
/// The time from the last attempt to giving up.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not known yet.
    Asking,
    /// The server has told our address.
    Answered {
        /// Our address, as the server saw it.
        mapped: SocketAddr,
        /// From the attempt that was answered to its answer.
        round_trip: Duration,
    },
    /// The server answered with an error, for example 420 if it does not know what is asked.
    Refused {
        /// The number of the error, 300 to 699.
        code: u16,
    },
    /// The server answered from where it was asked, although it was to answer from elsewhere.
    NotChanged,
    /// Nothing came back.
    Silent,
    /// This host cannot send there.
    Unreachable,
}

/// One question, and what became of it.
#[derive(Debug)]
pub struct Question {
    to: SocketAddr,
    change: Change,
    /// Where the answer has to come from.
    expected: SocketAddr,
    /// The transaction id but for its last byte, which is the number of the attempt.
    id: [u8; 11],
    /// When each attempt was sent.
    sent: [Duration; ATTEMPTS],
    attempts: usize,
    /// The next attempt, or the end.
    due: Duration,
    outcome: Outcome,
}

impl Question {
    /// Asks `to` for an answer from there.
    pub(super) fn new(to: SocketAddr, rng: &mut ChaCha8Rng, now: Duration) -> Self {
        Self::changed(to, Change::NOTHING, to, rng, now)
    }

    /// Asks `to` for an answer from `expected`, which differs in what `change` says.
    pub(super) fn changed(
        to: SocketAddr,
        change: Change,
        expected: SocketAddr,
        rng: &mut ChaCha8Rng,
        now: Duration,
    ) -> Self {
        let mut id = [0; 11];
        rng.fill_bytes(&mut id);
        Self { change, expected, ..Self::with_id(to, id, now) }
    }

    /// A question to a server, with a random number of the caller's.
    pub fn with_id(to: SocketAddr, id: [u8; 11], now: Duration) -> Self {
        let (change, sent) = (Change::NOTHING, [Duration::ZERO; ATTEMPTS]);
        Self { to, change, expected: to, id, sent, attempts: 0, due: now, outcome: Outcome::Asking }
    }

    /// The server that it asks.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// What became of it so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The address that the server saw.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        if let Outcome::Answered { mapped, .. } = self.outcome { Some(mapped) } else { None }
    }

    /// When something is due, if the question is open.
    pub fn deadline(&self) -> Option<Duration> {
        (self.outcome == Outcome::Asking).then_some(self.due)
    }

    /// The next attempt, if it is due.
    pub fn poll_attempt(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.outcome != Outcome::Asking || self.due > now || self.attempts == ATTEMPTS {
            return None;
        }
        let mut request = Vec::new();
        write_request(self.transaction(self.attempts), self.change, &mut request);
        self.sent[self.attempts] = now;
        self.attempts += 1;
        let wait = if self.attempts == ATTEMPTS { LAST_WAIT } else { RTO * (1 << (self.attempts - 1)) };
        self.due = now + wait;
        Some(request)
    }

    /// Gives it up if it is time.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.outcome == Outcome::Asking && self.attempts == ATTEMPTS && self.due <= now {
            self.outcome = Outcome::Silent;
        }
    }

    pub(super) fn on_unreachable(&mut self) {
        if self.outcome == Outcome::Asking {
            self.outcome = Outcome::Unreachable;
        }
    }

    /// Takes in a datagram. Returns whether it answers this question.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Duration) -> bool {
        Heard::parse(datagram).is_some_and(|heard| self.handle(from, &heard, now) == Taken::Used)
    }

    /// A message that may belong to this question.
    pub(super) fn handle(&mut self, from: SocketAddr, heard: &Heard, now: Duration) -> Taken {
        let id = match heard {
            Heard::Answer(answer) => answer.id,
            Heard::Refusal(refusal) => refusal.id,
        };
        let Some(sent) = (0..self.attempts).find(|attempt| self.transaction(*attempt) == id) else {
            return Taken::Unasked;
        };
        if self.outcome != Outcome::Asking {
            return Taken::Unasked;
        }
        if from != self.to && from != self.expected {
            return Taken::WrongSource;
        }
        self.outcome = match heard {
            Heard::Refusal(refusal) => Outcome::Refused { code: refusal.code },
            Heard::Answer(_) if from != self.expected => Outcome::NotChanged,
            Heard::Answer(Answer { mapped, .. }) => {
                Outcome::Answered { mapped: *mapped, round_trip: now.saturating_sub(self.sent[sent]) }
            }
        };
        Taken::Used
    }

    fn transaction(&self, attempt: usize) -> TransactionId {
        let mut id = [attempt as u8; 12];
        id[..11].copy_from_slice(&self.id);
        TransactionId(id)
    }
}

#[cfg(test)]
mod tests;
