//! The settings of a run, from environment variables.
//!
//! `BENCH_ROUNDS` and `BENCH_SECONDS` set the length of the run, `BENCH_STREAM_SECONDS` that of the fairness
//! measurement, and `BENCH_PEERS` the number of peers for the scale measurement. `BENCH_ONLY` restricts the run to what
//! it names, and `PEER_BINS` adds contestants.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{fairness, scale};

/// A measurement. Each has a word in `BENCH_ONLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// One TCP stream, in both directions.
    Tcp,
    /// Eight TCP streams, in both directions.
    Tcp8,
    /// UDP with both payload sizes.
    Udp,
    /// Round trips, on an idle tunnel and next to a TCP stream.
    Ping,
    /// The memory of the daemons.
    Memory,
    /// The time from the start of the second daemon to the first answer.
    Start,
    /// The AEAD alone.
    Aead,
    /// A small request and its response, compared with a copier without cryptography.
    Latency,
    /// Ten thousand peers.
    Scale,
    /// Sixty-four streams at once.
    Fairness,
}

impl Measure {
    const ALL: [(&str, Measure); 10] = [
        ("tcp", Measure::Tcp),
        ("tcp8", Measure::Tcp8),
        ("udp", Measure::Udp),
        ("ping", Measure::Ping),
        ("memory", Measure::Memory),
        ("start", Measure::Start),
        ("aead", Measure::Aead),
        ("latency", Measure::Latency),
        ("scale", Measure::Scale),
        ("fairness", Measure::Fairness),
    ];
}

/// The link between the two hosts. The lab has two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wire {
    /// A veth as it is: super-packets cross it whole, which favours programs that use offloads.
    Veth,
    /// A veth without offloads: packets cross it one by one, with the size that they have on a network.
    Plain,
}

impl Wire {
    /// Both kinds, in the order of the tables.
    pub(crate) const ALL: [Wire; 2] = [Wire::Veth, Wire::Plain];

    /// The name in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Wire::Veth => "veth as it is",
            Wire::Plain => "plain wire (offloads off)",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Wire::Veth => "offloads",
            Wire::Plain => "plain",
        }
    }
}

/// The length of a run and what it covers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// How many times every contestant does everything.
    pub(crate) rounds: u32,
    /// The duration of one run of one measurement.
    pub(crate) seconds: u32,
    /// How long sixty-four streams run together.
    pub(crate) stream_seconds: u32,
    /// How many peers the scale measurement configures.
    pub(crate) peers: u32,
    /// The words of `BENCH_ONLY`. Empty means everything.
    pub(crate) only: Vec<String>,
    /// The programs in `PEER_BINS`.
    pub(crate) peer_bins: Vec<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// Fails if a number is not valid or too small.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let words = |name: &str, separator: char| -> Vec<String> {
            let all = std::env::var(name).unwrap_or_default();
            all.split(separator).map(str::trim).filter(|word| !word.is_empty()).map(String::from).collect()
        };
        Ok(Self {
            rounds: number("BENCH_ROUNDS", 3, 1)?,
            seconds: number("BENCH_SECONDS", 5, 1)?,
            stream_seconds: number("BENCH_STREAM_SECONDS", fairness::SECONDS, fairness::LEAST_SECONDS)?,
            peers: number("BENCH_PEERS", scale::PEERS, 2)?,
            only: words("BENCH_ONLY", ','),
            peer_bins: words("PEER_BINS", ':').into_iter().map(PathBuf::from).collect(),
        })
    }

    /// Checks that `BENCH_ONLY` names nothing unknown, since a typing error must not look like an empty result.
    ///
    /// # Errors
    /// Fails if it does. The message lists the valid words.
    pub(crate) fn check(&self, contestants: &[String]) -> Result<(), String> {
        let known = || {
            let measures = Measure::ALL.iter().map(|(word, _)| *word);
            measures.chain(Wire::ALL.map(Wire::word)).chain(contestants.iter().map(String::as_str))
        };
        match self.only.iter().find(|word| !known().any(|one| one == *word)) {
            None => Ok(()),
            Some(word) => {
                Err(format!("BENCH_ONLY knows no `{word}`; it knows {}", known().collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// The duration of one run of one measurement.
    pub(crate) fn run(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Whether to make this measurement: it is named, or no measurement is named at all.
    pub(crate) fn wants(&self, measure: Measure) -> bool {
        self.chosen(Measure::ALL.iter().map(|(word, _)| *word), |word| Measure::ALL.contains(&(word, measure)))
    }

    /// Whether to measure on this wire.
    pub(crate) fn wants_wire(&self, wire: Wire) -> bool {
        self.chosen(Wire::ALL.map(Wire::word), |word| word == wire.word())
    }

    /// Whether this contestant takes part.
    pub(crate) fn wants_contestant(&self, label: &str, all: &[String]) -> bool {
        self.chosen(all.iter().map(String::as_str), |word| word == label)
    }

    /// Whether `BENCH_ONLY` names this member of a kind, or no member of that kind.
    fn chosen<'a>(&self, kind: impl IntoIterator<Item = &'a str>, is_this: impl Fn(&str) -> bool) -> bool {
        let named: Vec<_> =
            kind.into_iter().filter(|word| self.only.iter().any(|only| only.as_str() == *word)).collect();
        named.is_empty() || named.into_iter().any(is_this)
    }
}

fn number(name: &str, default: u32, least: u32) -> Result<u32, String> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(value) if value >= least => Ok(value),
            _ => Err(format!("{name} is `{text}`, but has to be a whole number of at least {least}")),
        },
    }
}
