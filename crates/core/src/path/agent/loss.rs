//! The loss of one direction of a pair: how many datagrams were sent, as one end counts, and how many arrived, as the other
//! end does.
//!
//! Both numbers come together in a probe or its reply, so a datagram is either counted by both or still under way. Reordering
//! moves a few of them from one sample to the next, so a loss is told only over many datagrams: those of the last seconds, or
//! as many as it takes. What was found holds until there are as many new ones.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Instant;

/// The time over which loss is measured, and how many datagrams are enough.
const WINDOW: Duration = Duration::from_secs(3);
const ENOUGH: u32 = 40;
/// The most samples kept. Probes are 50 ms apart at least.
const MAX_SAMPLES: usize = 64;

/// The samples of the last seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loss {
    samples: VecDeque<Sample>,
    known: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    sent: u32,
    arrived: u32,
}

impl Loss {
    /// Takes both counts of one moment. They wrap.
    pub(crate) fn on_sample(&mut self, sent: u32, arrived: u32, now: Instant) {
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, sent, arrived });
        // One sample from before the window is where the window starts.
        while self
            .samples
            .get(1)
            .is_some_and(|second| now.since(second.at) >= WINDOW && sent.wrapping_sub(second.sent) >= ENOUGH)
        {
            self.samples.pop_front();
        }
        self.known = self.measured().or(self.known);
    }

    /// Forgets everything, because the counts start anew or mean a different network.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The share that was lost, in thousandths. `None`: too little was ever sent.
    pub(crate) fn share(&self) -> Option<u32> {
        self.known
    }

    fn measured(&self) -> Option<u32> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let sent = last.sent.wrapping_sub(first.sent);
        let arrived = last.arrived.wrapping_sub(first.arrived);
        // More than was sent: copies, or the other end has begun to count anew.
        (ENOUGH..u32::MAX / 2).contains(&sent).then(|| {
            let lost = sent.saturating_sub(arrived.min(sent));
            (u64::from(lost) * 1_000 / u64::from(sent)) as u32
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    #[test]
    fn loss_is_the_share_of_the_last_seconds_once_enough_was_sent() {
        let mut loss = Loss::default();
        loss.on_sample(0, 0, at(0));
        loss.on_sample(39, 20, at(200));
        assert_eq!(loss.share(), None, "too few");
        loss.on_sample(100, 70, at(1_000));
        assert_eq!(loss.share(), Some(300));
        for step in 1..=20 {
            loss.on_sample(100 + step * 20, 70 + step * 20, at(1_000 + u64::from(step) * 200));
        }
        assert_eq!(loss.share(), Some(0), "what is older than the window is forgotten");
    }

    #[test]
    fn counts_wrap_and_copies_are_not_a_gain() {
        let mut loss = Loss::default();
        loss.on_sample(u32::MAX - 49, u32::MAX - 9, at(0));
        loss.on_sample(50, 40, at(100));
        assert_eq!(loss.share(), Some(500));
        loss.on_sample(150, 400, at(200));
        assert_eq!(loss.share(), Some(0));
    }

    #[test]
    fn samples_are_bounded() {
        let mut loss = Loss::default();
        for step in 0..1_000 {
            loss.on_sample(step, step, at(1));
        }
        assert_eq!(loss.samples.len(), MAX_SAMPLES);
    }
}
