//! What waits to be sent on, and whose turn it is: one queue for each agent that sends, served by bytes (start-time fair
//! queueing: Goyal, Vin and Cheng 1996).
//!
//! ```text
//! push: joined to the last train, or behind it, or dropped because this agent's queue is full
//! pop:  the agent that was served least, its oldest train that is not too old; marked if it has waited
//! ```
//!
//! A relay that keeps up has empty queues. They fill when the kernel takes no more, or when an agent sends faster than its
//! rate. What waits for 5 ms is marked, and what waits for 20 ms is worth nothing.
//!
//! Each agent has a tag: how many bytes it was served. The lowest tag is next. The clock is the tag of what was sent last, and
//! who comes back after a pause starts there, so nobody saves up and nobody pays for having used what others left.
//!
//! It is not deficit round robin, because a quantum that holds a train (64 KiB) is more than agents ever have queued: nothing
//! waits for more than 20 ms, in which one of 50 agents on a link of 200 Mb/s has 10 KB to send. An agent with ten times as
//! much never met the quantum, and got all that it asked for.
//!
//! **An agent's queue costs nobody else anything**: it holds [`MAX_QUEUED_TRAINS`] at most, and if all together hold more than
//! [`MAX_QUEUED_BYTES`], the agent that holds most loses its oldest train.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::time::Duration;

use super::bucket::Bucket;
use super::datagrams::{Leg, Transmit};
use super::stats::Stats;

/// How many bytes an agent with a rate may send at once after a pause, at least. No train is longer.
const BURST: usize = 64 * 1_024;
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
    /// An empty one is kept until its agent goes: its tag and its rate are still needed.
    queues: BTreeMap<usize, Queue>,
    /// Agents with something queued, by their tags.
    turns: BTreeSet<(u64, usize)>,
    /// Agents with something queued that are over their rate, and until when.
    held: BTreeSet<(Duration, usize)>,
    /// The tag of what was sent last.
    clock: u64,
    rate: Option<NonZeroU64>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Queue {
    trains: VecDeque<Queued>,
    bytes: usize,
    tag: u64,
    place: Place,
    /// What is left of its rate.
    sent: Bucket,
}

/// Where an agent is.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// It has nothing queued.
    #[default]
    Idle,
    /// In [`Fair::turns`].
    Turn,
    /// In [`Fair::held`], until then.
    Held(Duration),
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
            turns: BTreeSet::new(),
            held: BTreeSet::new(),
            clock: 0,
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
        let queue = self.queues.entry(agent).or_default();
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
        if let Place::Idle = queue.place {
            queue.take_turn(agent, self.clock, &mut self.turns);
        }
        queue.bytes += contents.len();
        self.bytes += contents.len();
        while self.bytes > MAX_QUEUED_BYTES {
            self.make_room(stats);
        }
    }

    /// The next train, marked if it has waited. `None`: nothing is queued that may be sent now.
    pub(super) fn pop(&mut self, now: Duration, stats: &mut Stats) -> Option<Transmit> {
        self.release(now);
        loop {
            let (tag, agent) = self.turns.pop_first()?;
            let queue = self.queues.get_mut(&agent)?;
            self.bytes -= queue.drop_old(now, stats);
            if queue.trains.is_empty() {
                queue.rest();
                continue;
            }
            if let Some(until) = self.rate.map(|rate| queue.sent.ready_at(burst(rate))).filter(|until| *until > now) {
                queue.place = Place::Held(until);
                self.held.insert((until, agent));
                continue;
            }
            let Queued { mut transmit, since } = queue.trains.pop_front()?;
            let len = transmit.contents.len();
            queue.bytes -= len;
            self.bytes -= len;
            if let Some(rate) = self.rate {
                queue.sent.charge(time_of(len, rate), now);
            }
            self.clock = tag;
            queue.tag = tag + len as u64;
            if queue.trains.is_empty() {
                queue.rest();
            } else {
                self.turns.insert((queue.tag, agent));
            }
            if now.saturating_sub(since) >= MARK_AFTER && ![NOT_ECT, CE].contains(&transmit.ecn) {
                transmit.ecn = CE;
                stats.ecn_marked += transmit.datagrams() as u64;
            }
            return Some(transmit);
        }
    }

    /// When something may be sent that may not be sent now.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        if self.turns.is_empty() { self.held.first().map(|(until, _)| *until) } else { Some(Duration::ZERO) }
    }

    /// Forgets an agent with all that it has queued.
    pub(super) fn remove(&mut self, agent: usize) {
        let Some(queue) = self.queues.remove(&agent) else { return };
        self.bytes -= queue.bytes;
        match queue.place {
            Place::Idle => {}
            Place::Turn => drop(self.turns.remove(&(queue.tag, agent))),
            Place::Held(until) => drop(self.held.remove(&(until, agent))),
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

    /// Lets those have their turn again that are not over their rate any more.
    fn release(&mut self, now: Duration) {
        while let Some((until, agent)) = self.held.first().copied()
            && until <= now
        {
            self.held.pop_first();
            if let Some(queue) = self.queues.get_mut(&agent) {
                queue.take_turn(agent, self.clock, &mut self.turns);
            }
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

impl Queue {
    /// Gives it a turn, no earlier than `clock`.
    fn take_turn(&mut self, agent: usize, clock: u64, turns: &mut BTreeSet<(u64, usize)>) {
        self.tag = self.tag.max(clock);
        self.place = Place::Turn;
        turns.insert((self.tag, agent));
    }

    /// It has nothing queued any more. What a burst has taken up is given back.
    fn rest(&mut self) {
        self.place = Place::Idle;
        if self.trains.capacity() > MAX_QUEUED_TRAINS / 4 {
            self.trains = VecDeque::new();
        }
    }

    /// Drops what has waited too long, and returns how many bytes that was.
    fn drop_old(&mut self, now: Duration, stats: &mut Stats) -> usize {
        let before = self.bytes;
        while let Some(queued) = self.trains.front()
            && now.saturating_sub(queued.since) > MAX_WAIT
            && let Some(Queued { transmit, .. }) = self.trains.pop_front()
        {
            self.bytes -= transmit.contents.len();
            stats.dropped_too_late += transmit.datagrams() as u64;
        }
        before - self.bytes
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

/// What may be sent at once after a pause, as time: 20 ms of the rate, and never less than a train.
fn burst(rate: NonZeroU64) -> Duration {
    time_of(BURST, rate).max(MAX_WAIT)
}

fn time_of(len: usize, rate: NonZeroU64) -> Duration {
    let nanos = len as u128 * 1_000_000_000 / u128::from(rate.get());
    Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
