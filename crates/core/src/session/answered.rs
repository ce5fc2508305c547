//! The responses to the latest initiations of peers that are called over several paths at once.
//!
//! All copies of an initiation have the same bytes up to mac2, which differs by path. The first one is answered. For the
//! protocol the others are replays, but each of them shows a path over which the peer waits for the answer. It gets the same
//! response there: 92 bytes for 148, to at most [`MAX_PATHS`] paths, for [`KEPT`].

use std::collections::VecDeque;
use std::time::Duration;

use overlay_wire::wireguard::{INITIATION_LEN, RESPONSE_LEN};

use crate::{Instant, PeerTag};

/// How long a response is repeated.
const KEPT: Duration = Duration::from_secs(10);
/// How many paths get it, the first one included.
const MAX_PATHS: u8 = 4;
/// How many responses are kept. Further ones take the place of the oldest.
const MAX_ANSWERS: usize = 64;
/// The length of mac2, at the end of an initiation.
const MAC2_LEN: usize = 16;

#[derive(Default)]
pub(crate) struct Answered {
    answers: VecDeque<Answer>,
}

struct Answer {
    peer: PeerTag,
    initiation: [u8; INITIATION_LEN - MAC2_LEN],
    response: [u8; RESPONSE_LEN],
    at: Instant,
    paths: u8,
}

impl Answered {
    /// Keeps the response to an initiation.
    pub(crate) fn keep(&mut self, peer: PeerTag, initiation: &[u8], response: &[u8], now: Instant) {
        let (Some(initiation), Some(response)) = (initiation.first_chunk(), response.first_chunk()) else { return };
        if self.answers.len() == MAX_ANSWERS {
            self.answers.pop_front();
        }
        let (initiation, response) = (*initiation, *response);
        self.answers.push_back(Answer { peer, initiation, response, at: now, paths: 1 });
    }

    /// The response to a copy of an initiation that was answered, if it may be given once more.
    pub(crate) fn again(&mut self, initiation: &[u8], now: Instant) -> Option<(PeerTag, [u8; RESPONSE_LEN])> {
        while self.answers.front().is_some_and(|answer| now.since(answer.at) >= KEPT) {
            self.answers.pop_front();
        }
        let head: &[u8; INITIATION_LEN - MAC2_LEN] = initiation.first_chunk()?;
        let answer = self.answers.iter_mut().find(|answer| answer.initiation == *head && answer.paths < MAX_PATHS)?;
        answer.paths += 1;
        Some((answer.peer, answer.response))
    }

    /// Forgets the responses to one peer.
    pub(crate) fn forget(&mut self, peer: PeerTag) {
        self.answers.retain(|answer| answer.peer != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn copies_over_a_few_paths_are_answered_for_ten_seconds() {
        let (mut answered, peer) = (Answered::default(), PeerTag::from_bits(1));
        let (mut copy, response) = ([7; INITIATION_LEN], [9; RESPONSE_LEN]);
        answered.keep(peer, &[7; INITIATION_LEN], &response, at(0));
        copy[INITIATION_LEN - 1] = 8;
        for _ in 1..MAX_PATHS {
            assert_eq!(answered.again(&copy, at(9)), Some((peer, response)), "mac2 differs by path");
        }
        assert_eq!(answered.again(&copy, at(9)), None, "enough");
        answered.keep(peer, &[6; INITIATION_LEN], &response, at(0));
        assert_eq!(answered.again(&[6; INITIATION_LEN], at(10)), None, "too late");
        assert!(answered.answers.is_empty());
        answered.keep(peer, &[5; INITIATION_LEN], &response, at(0));
        answered.forget(peer);
        assert_eq!(answered.again(&[5; INITIATION_LEN], at(1)), None);
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let mut answered = Answered::default();
        for number in 0..=MAX_ANSWERS as u8 {
            answered.keep(PeerTag::from_bits(1), &[number; INITIATION_LEN], &[0; RESPONSE_LEN], at(0));
        }
        assert_eq!(answered.answers.len(), MAX_ANSWERS);
        assert_eq!(answered.again(&[0; INITIATION_LEN], at(1)), None);
        assert!(answered.again(&[1; INITIATION_LEN], at(1)).is_some());
    }
}
