//! Many simultaneous TCP streams, measured with iperf3 at the receiver.
//!
//! The client receives and the server sends (`-R`), because iperf3 reports intervals only as its client counts them,
//! and only received data counts as progress.

use std::time::Duration;

use serde_json::Value;

use super::host::Host;
use super::process::Process;

/// Time beyond the requested duration, for connecting and for fetching the server's results through a full tunnel.
const PATIENCE: Duration = Duration::from_secs(30);

/// Streams to start.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// The host that sends.
    pub sender: &'a Host,
    /// The address at which the receiver reaches the sender.
    pub address: &'a str,
    /// A TCP port of the sender.
    pub port: u16,
    /// The host that receives.
    pub receiver: &'a Host,
    /// The number of streams, at most 128.
    pub streams: u32,
    /// The duration in seconds.
    pub seconds: u32,
    /// The measuring interval, at least 100 ms.
    pub interval: Duration,
    /// The congestion control algorithm. `None` is this machine's default.
    pub congestion_control: Option<&'a str>,
}

/// Streams that are running.
#[derive(Debug)]
pub struct Streams {
    client: Process,
    _server: Process,
    limit: Duration,
}

/// How long BBR takes to settle. It measures the shortest round trip when a stream is ten seconds old. Until then, a
/// stream that began while the queue was full takes the queue's delay for the path's, and so takes ten times its share.
/// One run in four has such a stream.
pub const BBR_SETTLES: Duration = Duration::from_secs(11);

/// The received data.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// All intervals in order.
    pub intervals: Vec<Interval>,
}

/// The data received in one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Its length as measured by the receiver. It may be longer than requested on a busy machine.
    pub length: Duration,
    /// Bytes of each stream.
    pub bytes: Vec<u64>,
}

impl Load<'_> {
    /// Starts the streams.
    #[track_caller]
    pub fn start(self) -> Streams {
        let Load { sender, address, port, receiver, streams, seconds, .. } = self;
        let server = sender.spawn(format!("iperf3 -s -1 -p {port}"));
        sender.wait_for_listener(port);
        let every = self.interval.as_secs_f64();
        let how = self.congestion_control.map(|name| format!("-C {name}")).unwrap_or_default();
        let line = format!("iperf3 -J -R -c {address} -p {port} -P {streams} -t {seconds} -i {every} {how}");
        let limit = Duration::from_secs(seconds.into()) + PATIENCE;
        Streams { client: receiver.spawn(line), _server: server, limit }
    }
}

impl Streams {
    /// Whether the streams have ended, successfully or not.
    pub fn have_ended(&mut self) -> bool {
        self.client.ended().is_some()
    }

    /// Waits until the streams have ended.
    ///
    /// # Panics
    /// Panics if they fail, or take far too long.
    #[track_caller]
    pub fn finish(self) -> Arrived {
        let json = self.client.succeed_within(self.limit);
        let report: Value = serde_json::from_str(&json).expect("iperf3 -J writes JSON");
        let intervals = report["intervals"].as_array().into_iter().flatten().map(Interval::read);
        let intervals = intervals.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty());
        Arrived { intervals: intervals.unwrap_or_else(|| panic!("no intervals in {}", report["end"])) }
    }
}

impl Interval {
    fn read(report: &Value) -> Option<Interval> {
        let bytes = report["streams"].as_array()?.iter().map(|stream| stream["bytes"].as_u64());
        let length = report["sum"]["seconds"].as_f64()?;
        Some(Interval { length: Duration::from_secs_f64(length), bytes: bytes.collect::<Option<_>>()? })
    }
}

impl Arrived {
    /// Total bytes of each stream.
    pub fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.intervals[0].bytes.len()];
        for interval in &self.intervals {
            totals.iter_mut().zip(&interval.bytes).for_each(|(total, bytes)| *total += bytes);
        }
        totals
    }

    /// The data received after `warm_up` had passed.
    pub fn after(&self, warm_up: Duration) -> Arrived {
        let mut elapsed = Duration::ZERO;
        let is_later = |interval: &&Interval| {
            elapsed += interval.length;
            elapsed > warm_up
        };
        Arrived { intervals: self.intervals.iter().filter(is_later).cloned().collect() }
    }

    /// Bits per second of all streams together.
    pub fn rate(&self) -> f64 {
        let seconds: f64 = self.intervals.iter().map(|interval| interval.length.as_secs_f64()).sum();
        self.totals().iter().sum::<u64>() as f64 * 8.0 / seconds
    }

    /// Jain's fairness index: 1 if all streams received the same, 1/n if one of n received everything.
    pub fn jain_index(&self) -> f64 {
        let totals: Vec<_> = self.totals().iter().map(|bytes| *bytes as f64).collect();
        let (sum, squares) = (totals.iter().sum::<f64>(), totals.iter().map(|bytes| bytes * bytes).sum::<f64>());
        sum * sum / (totals.len() as f64 * squares)
    }

    /// The longest time in which no stream received anything.
    pub fn longest_stall(&self) -> Duration {
        self.longest(|interval| interval.bytes.iter().all(|bytes| *bytes == 0))
    }

    /// The longest time in which a single stream received nothing, regardless of the others.
    pub fn longest_silence_of_one(&self) -> Duration {
        let streams = 0..self.intervals[0].bytes.len();
        streams.map(|stream| self.longest(|interval| interval.bytes[stream] == 0)).max().unwrap_or_default()
    }

    /// The longest sequence of intervals that satisfy the condition.
    fn longest(&self, is_silent: impl Fn(&Interval) -> bool) -> Duration {
        let (mut longest, mut lasting) = (Duration::ZERO, Duration::ZERO);
        for interval in &self.intervals {
            lasting = if is_silent(interval) { lasting + interval.length } else { Duration::ZERO };
            longest = longest.max(lasting);
        }
        longest
    }
}
