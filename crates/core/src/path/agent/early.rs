//! Messages that have overtaken the stream.
//!
//! boringtun's replay window holds 1,024 packets, and packets are sealed in one order for all paths. While more of them are under
//! way on a slow path, a probe on a faster one arrives with a number far ahead of theirs, and would have them dropped as replays.
//! So it waits here until the stream has come as far, or for as long as the stream should need at its rate: the packets before it
//! may be lost. It is not authentic yet, so only a few short messages wait; all others are taken at once.
//!
//! The other way round, a probe on a path much slower than the stream's arrives too late for the window. It is not sent. At the
//! move to a faster path, probes are under way on the slow one in the session before, and replies to them would be sealed in the
//! new one. Those are not sent either.

use std::collections::VecDeque;
use std::time::Duration;

use super::Agent;
use super::doubt::Doubt;
use super::pair::Pair;
use super::volume::Volume;
use crate::Instant;
use crate::origin::Origin;
use crate::path::endpoint::Endpoint;

/// The time over which the rate of a stream is measured.
pub(super) const RATE_SPAN: Duration = Duration::from_millis(200);
/// How many packets a message may overtake, and how many may overtake it. The window is 1,024, and the rate may rise.
const MAY_OVERTAKE: u64 = 128;
const MAY_BE_LATE: u64 = 512;
/// The most messages that wait, their greatest length in bytes, and how long each waits at most.
const MAX_WAITING: usize = 16;
const MAX_LEN: usize = 192;
const MAX_WAIT: Duration = Duration::from_millis(200);

/// The place of a message in its session: the receiver index, and the counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) receiver: u32,
    pub(crate) counter: u64,
}

/// Where the peer's stream comes from, how far it is, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Early {
    stream: Option<(Endpoint, Place)>,
    waiting: VecDeque<Message>,
}

#[derive(Debug)]
struct Message {
    place: Place,
    arrived: Instant,
    at: Instant,
    origin: Origin,
    bytes: Box<[u8]>,
}

impl Early {
    /// Records how far the stream is. It comes from there. Returns whether a message need not wait any longer: the stream may have
    /// become faster since, and soon it would have left that message behind.
    pub(super) fn on_stream(&mut self, from: Endpoint, place: Place, now: Instant) -> bool {
        self.stream = Some((from, place));
        let reached = |message: &&mut Message| {
            message.place.receiver == place.receiver
                && message.place.counter <= place.counter.saturating_add(MAY_OVERTAKE)
        };
        self.waiting.iter_mut().filter(reached).map(|message| message.at = now).count() > 0
    }

    /// When the next message has waited for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|message| message.at).min()
    }
}

impl Agent {
    /// Whether messages from there may be early, because the stream comes from elsewhere.
    pub(crate) fn may_be_early(&self, origin: Origin) -> bool {
        self.early.stream.is_some_and(|(from, _)| from != origin.endpoint())
    }

    /// Whether messages wait.
    pub(crate) fn is_anything_early(&self) -> bool {
        !self.early.waiting.is_empty()
    }

    /// Lets a message wait if it is early. Returns false if it is to be taken now.
    pub(crate) fn wait_if_early(&mut self, place: Place, message: &[u8], origin: Origin, now: Instant) -> bool {
        let Some((_, reached)) = self.early.stream.filter(|(_, reached)| reached.receiver == place.receiver) else {
            return false;
        };
        let ahead = place.counter.saturating_sub(reached.counter);
        let rate = self.receiving.recent(now);
        let has_room = message.len() <= MAX_LEN && self.early.waiting.len() < MAX_WAITING;
        if ahead <= MAY_OVERTAKE || rate == 0 || !has_room || self.is_in_doubt() {
            return false;
        }
        // The counter is a stranger's until the message is opened: it may be any number.
        let spans = (ahead as f64 / rate as f64).min(MAX_WAIT.div_duration_f64(RATE_SPAN));
        let wait = RATE_SPAN.mul_f64(spans);
        self.early.waiting.push_back(Message { place, arrived: now, at: now + wait, origin, bytes: message.into() });
        self.wake_at(now + wait);
        true
    }

    /// A message that has waited for long enough, and for how long. While the path in use is in doubt, none waits.
    pub(crate) fn poll_early(&mut self, now: Instant) -> Option<(Origin, Box<[u8]>, Duration)> {
        let at = self.early.waiting.iter().position(|message| self.is_in_doubt() || message.at <= now)?;
        self.early.waiting.remove(at).map(|message| (message.origin, message.bytes, now.since(message.arrived)))
    }

    /// Whether a probe of this pair, or its reply, would arrive so long after what is sealed behind it that it is dropped as a
    /// replay. While the path in use is in doubt, the stream may have ended already.
    pub(super) fn is_too_late(&self, pair: &Pair, now: Instant) -> bool {
        let Some(primary) = self.primary().filter(|primary| primary.number != pair.number) else { return false };
        let Some((trip, primary)) = pair.trip.smooth().zip(primary.trip.least()) else { return false };
        let later = trip.saturating_sub(primary) / 2;
        let within = |rate: Volume| (rate.recent(now) as f64 * later.div_duration_f64(RATE_SPAN)) as u64;
        !self.is_in_doubt() && [self.sending, self.receiving].into_iter().any(|rate| within(rate) > MAY_BE_LATE)
    }

    fn is_in_doubt(&self) -> bool {
        !matches!(self.doubt, Doubt::None)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;
    use crate::Via;

    fn at(millis: u64) -> Instant {
        Instant::from_start(Duration::from_millis(millis))
    }

    fn origin(host: u8) -> Origin {
        Origin { source: ([192, 0, 2, host], 51820).into(), via: Via::ANY, ecn: 0 }
    }

    /// An agent that gets 10,000 packets a second from the first host.
    fn receiving() -> Agent {
        let mut agent = Agent::new(&mut ChaCha8Rng::from_seed([1; 32]));
        for millis in 1_000..1_400 {
            let latest = Place { receiver: 7, counter: (millis - 999) * 10 };
            agent.on_received(origin(1).endpoint(), 10, latest, true, at(millis));
        }
        agent
    }

    fn waits(agent: &mut Agent, receiver: u32, counter: u64, len: usize) -> bool {
        agent.wait_if_early(Place { receiver, counter }, &vec![0; len], origin(2), at(1_400))
    }

    #[test]
    fn a_message_that_has_overtaken_the_stream_waits_until_it_has_come_as_far() {
        let mut agent = receiving();
        assert!(!agent.may_be_early(origin(1)) && agent.may_be_early(origin(2)));
        assert!(!waits(&mut agent, 7, 4_100, 80), "little ahead");
        assert!(!waits(&mut agent, 8, 5_000, 80), "a different session");
        assert!(!waits(&mut agent, 7, 5_000, 1_400), "long");
        assert!(waits(&mut agent, 7, 5_000, 80));
        assert_eq!((agent.early.due(), agent.poll_early(at(1_499)).is_some()), (Some(at(1_500)), false));
        assert!(agent.poll_early(at(1_500)).is_some());
        assert!(waits(&mut agent, 7, u64::MAX, 80));
        assert_eq!(agent.early.due(), Some(at(1_600)), "the longest wait");
    }

    #[test]
    fn a_message_that_the_stream_has_reached_before_its_time_waits_no_longer() {
        let mut agent = receiving();
        assert!(waits(&mut agent, 7, 5_000, 80));
        let reach = |agent: &mut Agent, receiver, counter, millis| {
            agent.on_received(origin(1).endpoint(), 800, Place { receiver, counter }, true, at(millis));
            agent.poll_early(at(millis)).is_some()
        };
        assert!(!reach(&mut agent, 7, 4_871, 1_405) && !reach(&mut agent, 8, 9_000, 1_406));
        assert!(reach(&mut agent, 7, 4_872, 1_410), "128 before it, and its time would be 1,500");
    }

    #[test]
    fn sixteen_messages_wait_and_none_while_the_path_is_in_doubt() {
        let mut agent = receiving();
        assert_eq!((0..100).filter(|ahead| waits(&mut agent, 7, 5_000 + ahead, 80)).count(), MAX_WAITING);
        agent.suspect(at(1_400));
        assert_eq!(std::iter::from_fn(|| agent.poll_early(at(1_400))).count(), MAX_WAITING);
        assert!(!waits(&mut agent, 7, 5_000, 80));
    }
}
