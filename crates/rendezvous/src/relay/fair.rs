//! What waits to be sent on, and whose turn it is: one queue for each agent that sends, served in turns by bytes (deficit
//! round robin, RFC 8290 section 4.2 without its hash).
//!
//! ```text
//! push: joined to the last train, or behind it, or dropped because this agent's queue is full
//! pop:  the next agent in turn, its oldest train that is not too old; marked if it has waited
//! ```
//!
//! A relay that keeps up has empty queues. They fill when the kernel takes no more, or when an agent sends faster than its
//! rate. What waits for 5 ms is marked, and what waits for 20 ms is worth nothing.
//!
//! **An agent's queue costs nobody else anything**: it holds [`MAX_QUEUED_TRAINS`] at most, and if all together hold more than
//! [`MAX_QUEUED_BYTES`], the agent that holds most loses its oldest train.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::time::Duration;

use super::bucket::Bucket;
use super::datagrams::{Leg, Transmit};
use super::stats::Stats;

/// How many bytes an agent may send in its turn. No train is longer.
pub(super) const QUANTUM: usize = 64 * 1_024;
/// The most trains in the queue of one agent.
pub(super) const MAX_QUEUED_TRAINS: usize = 32;
/// The longest time that a train waits.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(20);
/// A train that has waited this long is marked, if its sender understands marks.
pub(super) const MARK_AFTER: Duration = Duration::from_millis(5);
/// The most bytes in all queues.
pub(super) const MAX_QUEUED_BYTES: usize = 64 * 1_024 * 1_024;
/// The longest train, and the most datagrams in it: what one `sendmsg` with UDP_SEGMENT takes on every kernel.
const MAX_TRAIN_LEN: usize = 65_507;
const MAX_TRAIN_DATAGRAMS: usize = 64;
/// The most buffers that are kept for trains to come.
const MAX_SPARE: usize = 32;
/// "Congestion experienced", and the bits of a sender that does not understand it (RFC 3168).
const CE: u8 = 0b11;
const NOT_ECT: u8 = 0b00;

/// The queues of all agents. An agent is the slot of its binding.
#[derive(Debug)]
pub(super) struct Fair {
    queues: BTreeMap<usize, Queue>,
    /// Agents with something queued, the next one in front.
    turns: VecDeque<usize>,
    rates: BTreeMap<usize, Bucket>,
    rate: Option<NonZeroU64>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Queue {
    trains: VecDeque<Queued>,
    bytes: usize,
    /// What it may still send in this turn.
    deficit: usize,
}

#[derive(Debug)]
struct Queued {
    transmit: Transmit,
    since: Duration,
}

impl Fair {
    /// `rate`: how many bytes per second each agent may send.
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        Self {
            queues: BTreeMap::new(),
            turns: VecDeque::new(),
            rates: BTreeMap::new(),
            rate,
            bytes: 0,
            spare: Vec::new(),
        }
    }

    /// Queues datagrams of `agent`: `contents` with `stride` bytes each, but for the last.
    pub(super) fn push(
        &mut self,
        agent: usize,
        leg: Leg,
        (contents, stride, ecn): (&[u8], usize, u8),
        now: Duration,
        stats: &mut Stats,
    ) {
        let queue = self.queues.entry(agent).or_insert_with(|| {
            self.turns.push_back(agent);
            Queue::default()
        });
        if let Some(last) = queue.trains.back_mut()
            && last.may_join(leg, contents, stride, ecn)
        {
            last.transmit.contents.extend_from_slice(contents);
        } else if queue.trains.len() < MAX_QUEUED_TRAINS {
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.extend_from_slice(contents);
            queue.trains.push_back(Queued { transmit: Transmit { leg, contents: buffer, stride, ecn }, since: now });
        } else {
            stats.dropped_queue_full += contents.len().div_ceil(stride.max(1)) as u64;
            return;
        }
        queue.bytes += contents.len();
        self.bytes += contents.len();
        while self.bytes > MAX_QUEUED_BYTES {
            self.make_room(stats);
        }
    }

    /// The next train, marked if it has waited. `None`: nothing is queued that may be sent now.
    pub(super) fn pop(&mut self, now: Duration, stats: &mut Stats) -> Option<Transmit> {
        let mut held = 0;
        while held < self.turns.len() {
            let agent = *self.turns.front()?;
            self.drop_old(agent, now, stats);
            let Some(queue) = self.queues.get_mut(&agent).filter(|queue| !queue.trains.is_empty()) else {
                // What is left of its turn is lost, so that nobody saves up.
                self.queues.remove(&agent);
                self.turns.pop_front();
                continue;
            };
            let is_held = self
                .rate
                .is_some_and(|rate| self.rates.get(&agent).is_some_and(|bucket| bucket.ready_at(burst(rate)) > now));
            if is_held {
                queue.deficit = 0;
                self.turns.rotate_left(1);
                held += 1;
                continue;
            }
            let len = queue.trains.front().map_or(0, |queued| queued.transmit.contents.len());
            if queue.deficit < len {
                queue.deficit += QUANTUM;
                self.turns.rotate_left(1);
                // Its next turn comes in this loop, however many are held.
                held = 0;
                continue;
            }
            queue.deficit -= len;
            queue.bytes -= len;
            self.bytes -= len;
            if let Some(rate) = self.rate {
                self.rates.entry(agent).or_default().charge(time_of(len, rate), now);
            }
            let Queued { mut transmit, since } = queue.trains.pop_front()?;
            if now.saturating_sub(since) >= MARK_AFTER && ![NOT_ECT, CE].contains(&transmit.ecn) {
                transmit.ecn = CE;
                stats.ecn_marked += transmit.datagrams() as u64;
            }
            return Some(transmit);
        }
        None
    }

    /// When something may be sent that may not be sent now.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        let ready = |agent: &usize| match (self.rate, self.rates.get(agent)) {
            (Some(rate), Some(bucket)) => bucket.ready_at(burst(rate)),
            _ => Duration::ZERO,
        };
        self.turns.iter().map(ready).min()
    }

    /// Forgets an agent with all that it has queued.
    pub(super) fn remove(&mut self, agent: usize) {
        self.rates.remove(&agent);
        if let Some(queue) = self.queues.remove(&agent) {
            self.bytes -= queue.bytes;
            self.turns.retain(|other| *other != agent);
        }
    }

    /// Takes a buffer back, for a train to come.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn drop_old(&mut self, agent: usize, now: Duration, stats: &mut Stats) {
        let Some(queue) = self.queues.get_mut(&agent) else { return };
        while let Some(queued) = queue.trains.front()
            && now.saturating_sub(queued.since) > MAX_WAIT
            && let Some(Queued { transmit, .. }) = queue.trains.pop_front()
        {
            queue.bytes -= transmit.contents.len();
            self.bytes -= transmit.contents.len();
            stats.dropped_too_late += transmit.datagrams() as u64;
        }
    }

    /// Drops the oldest train of the agent that has most queued.
    fn make_room(&mut self, stats: &mut Stats) {
        let Some(queue) = self.queues.values_mut().max_by_key(|queue| queue.bytes) else { return };
        if let Some(Queued { transmit, .. }) = queue.trains.pop_front() {
            queue.bytes -= transmit.contents.len();
            self.bytes -= transmit.contents.len();
            stats.dropped_gave_way += transmit.datagrams() as u64;
        }
    }
}

impl Queued {
    /// Whether the kernel can cut these datagrams out of the same buffer: same way, same length, and only the last is shorter.
    fn may_join(&self, leg: Leg, contents: &[u8], stride: usize, ecn: u8) -> bool {
        let Transmit { leg: own_leg, contents: own, stride: own_stride, ecn: own_ecn } = &self.transmit;
        let is_like = *own_leg == leg && *own_ecn == ecn && own.len().is_multiple_of(*own_stride);
        let fits = stride == *own_stride || (contents.len() == stride && stride < *own_stride);
        let len = own.len() + contents.len();
        is_like && fits && len <= MAX_TRAIN_LEN && len.div_ceil(*own_stride) <= MAX_TRAIN_DATAGRAMS
    }
}

/// What may be sent at once after a pause, as time: 20 ms of the rate, and never less than a turn.
fn burst(rate: NonZeroU64) -> Duration {
    time_of(QUANTUM, rate).max(MAX_WAIT)
}

fn time_of(len: usize, rate: NonZeroU64) -> Duration {
    let nanos = len as u128 * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
