//! Many TCP streams at once, and what each of them got: iperf3, as the receiver sees it.
//!
//! The client receives and the server sends (`-R`), because iperf3 reports by intervals what its client counts, and only
//! what arrives is progress.

use std::time::Duration;

use serde_json::Value;

use super::host::Host;
use super::process::Process;

/// Beyond the time it was asked to run: connecting, and fetching the far end's results through a full tunnel.
const PATIENCE: Duration = Duration::from_secs(30);

/// Streams to be started.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// Who sends.
    pub sender: &'a Host,
    /// Where the receiver reaches the sender.
    pub address: &'a str,
    /// A TCP port of the sender.
    pub port: u16,
    /// Who receives.
    pub receiver: &'a Host,
    /// How many, at most 128.
    pub streams: u32,
    /// For how long.
    pub seconds: u32,
    /// From one look to the next, 100 ms or more.
    pub interval: Duration,
    /// `None`: what this machine does by default.
    pub congestion_control: Option<&'a str>,
}

/// Streams under way.
#[derive(Debug)]
pub struct Streams {
    client: Process,
    _server: Process,
    limit: Duration,
}

/// BBR asks for the shortest round trip when a stream is ten seconds old. Until then a stream that began when the queue was
/// full takes its delay for the path's, and ten times its share with that; one run in four has such a one.
pub const BBR_SETTLES: Duration = Duration::from_secs(11);

/// What has arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// From the first to the last.
    pub intervals: Vec<Interval>,
}

/// What has arrived from one look to the next.
#[derive(Clone, Debug)]
pub struct Interval {
    /// As the receiver timed it: it may be late when the machine is full.
    pub length: Duration,
    /// Bytes, stream by stream.
    pub bytes: Vec<u64>,
}

impl Load<'_> {
    /// Starts them.
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
    /// Whether they have ended, one way or the other.
    pub fn have_ended(&mut self) -> bool {
        self.client.ended().is_some()
    }

    /// Waits for their end.
    ///
    /// # Panics
    /// When they fail, or take far too long.
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
    /// Bytes of each stream.
    pub fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.intervals[0].bytes.len()];
        for interval in &self.intervals {
            totals.iter_mut().zip(&interval.bytes).for_each(|(total, bytes)| *total += bytes);
        }
        totals
    }

    /// What has arrived once this long had passed.
    pub fn after(&self, warm_up: Duration) -> Arrived {
        let mut elapsed = Duration::ZERO;
        let is_later = |interval: &&Interval| {
            elapsed += interval.length;
            elapsed > warm_up
        };
        Arrived { intervals: self.intervals.iter().filter(is_later).cloned().collect() }
    }

    /// Bits in a second, of all streams together.
    pub fn rate(&self) -> f64 {
        let seconds: f64 = self.intervals.iter().map(|interval| interval.length.as_secs_f64()).sum();
        self.totals().iter().sum::<u64>() as f64 * 8.0 / seconds
    }

    /// Jain's index of fairness: 1 when every stream got the same, 1/n when one of n got everything.
    pub fn jain_index(&self) -> f64 {
        let totals: Vec<_> = self.totals().iter().map(|bytes| *bytes as f64).collect();
        let (sum, squares) = (totals.iter().sum::<f64>(), totals.iter().map(|bytes| bytes * bytes).sum::<f64>());
        sum * sum / (totals.len() as f64 * squares)
    }

    /// The longest time in which nothing arrived for anyone.
    pub fn longest_stall(&self) -> Duration {
        self.longest(|interval| interval.bytes.iter().all(|bytes| *bytes == 0))
    }

    /// The longest time in which one of the streams got nothing, whatever the others got.
    pub fn longest_silence_of_one(&self) -> Duration {
        let streams = 0..self.intervals[0].bytes.len();
        streams.map(|stream| self.longest(|interval| interval.bytes[stream] == 0)).max().unwrap_or_default()
    }

    /// The longest run of intervals that are all like this.
    fn longest(&self, is_silent: impl Fn(&Interval) -> bool) -> Duration {
        let (mut longest, mut lasting) = (Duration::ZERO, Duration::ZERO);
        for interval in &self.intervals {
            lasting = if is_silent(interval) { lasting + interval.length } else { Duration::ZERO };
            longest = longest.max(lasting);
        }
        longest
    }
}
