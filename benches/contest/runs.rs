//! Every run of every round, and the values that tables and comparisons take from them.

use serde::Serialize;

use super::aead::AeadFigures;
use super::memory::MemoryFigures;
use super::ping::PingFigures;
use super::series::Series;
use super::settings::Wire;
use super::tcp::{Direction, TcpFigures};
use super::udp::UdpFigures;

/// The results of all rounds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Runs {
    pub(crate) start: Vec<Run<StartFigures>>,
    pub(crate) tcp: Vec<Run<TcpFigures>>,
    pub(crate) udp: Vec<Run<UdpFigures>>,
    pub(crate) ping: Vec<Run<PingFigures>>,
    pub(crate) memory: Vec<Run<MemoryFigures>>,
    /// The AEAD alone, once in each round.
    pub(crate) aead: Vec<AeadFigures>,
}

/// The result of one contestant in one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run<F> {
    /// The round, counted from 0.
    pub(crate) round: u32,
    pub(crate) wire: Wire,
    pub(crate) contestant: String,
    #[serde(flatten)]
    pub(crate) figures: F,
}

/// How quickly the tunnel worked.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct StartFigures {
    /// The time from the start of the second daemon to the first answered ping.
    pub(crate) first_answer_milliseconds: f64,
}

/// A contestant on a wire, whose results are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) contestant: &'a str,
    pub(crate) wire: Wire,
}

impl Runs {
    /// A value of the runs with this many streams in this direction.
    pub(crate) fn tcp(
        &self,
        subject: Subject<'_>,
        streams: u32,
        direction: Direction,
        value: fn(&TcpFigures) -> f64,
    ) -> Series {
        series(&self.tcp, subject, |run| (run.streams == streams && run.direction == direction).then(|| value(run)))
    }

    /// A value of the run that most comparisons use: one stream, forward.
    pub(crate) fn one_stream(&self, subject: Subject<'_>, value: fn(&TcpFigures) -> f64) -> Series {
        self.tcp(subject, 1, Direction::Forward, value)
    }

    /// A value of the runs with this payload.
    pub(crate) fn udp(&self, subject: Subject<'_>, payload_bytes: u32, value: fn(&UdpFigures) -> f64) -> Series {
        series(&self.udp, subject, |run| (run.payload_bytes == payload_bytes).then(|| value(run)))
    }

    /// A value of the echoes on an idle tunnel, or next to a stream.
    pub(crate) fn ping(&self, subject: Subject<'_>, is_loaded: bool, value: fn(&PingFigures) -> f64) -> Series {
        series(&self.ping, subject, |run| (run.is_loaded == is_loaded).then(|| value(run)))
    }

    /// The rate of the stream next to the echoes, in Gb/s.
    pub(crate) fn stream_beside_ping(&self, subject: Subject<'_>) -> Series {
        series(&self.ping, subject, |run| run.stream_gigabits_per_second)
    }

    /// Memory in MB. Contestants without any are left out.
    pub(crate) fn memory(&self, subject: Subject<'_>, value: fn(&MemoryFigures) -> u64) -> Series {
        series(&self.memory, subject, |run| Some(value(run)).filter(|bytes| *bytes > 0).map(|bytes| bytes as f64 / 1e6))
    }

    /// The time to the first answer, in milliseconds.
    pub(crate) fn first_answer(&self, subject: Subject<'_>) -> Series {
        series(&self.start, subject, |run| Some(run.first_answer_milliseconds))
    }

    /// One seal and one open of WireGuard's AEAD, in CPU seconds per GB.
    pub(crate) fn aead(&self) -> Series {
        Series::new((0..).zip(self.aead.iter().map(|aead| aead.chacha20_poly1305.cpu_seconds_per_gb)))
    }
}

fn series<F>(runs: &[Run<F>], subject: Subject<'_>, value: impl Fn(&F) -> Option<f64>) -> Series {
    let its = runs.iter().filter(|run| run.wire == subject.wire && run.contestant == subject.contestant);
    Series::new(its.filter_map(|run| Some((run.round, value(&run.figures)?))))
}
