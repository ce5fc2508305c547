//! What a run is told by its environment.
//!
//! `BENCH_ROUNDS` and `BENCH_SECONDS` set its length, `BENCH_STREAM_SECONDS` that of the chapter on fairness, `BENCH_PEERS` the
//! number of peers of the chapter on scale. `BENCH_ONLY` leaves out what its words do not name, `PEER_BINS` brings more
//! contestants.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::{fairness, scale};

/// One thing that is measured: a word for `BENCH_ONLY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// One TCP stream, both directions.
    Tcp,
    /// Eight TCP streams, both directions.
    Tcp8,
    /// UDP of both sizes.
    Udp,
    /// Round trips, idle and beside a TCP stream.
    Ping,
    /// What the daemons hold in memory.
    Memory,
    /// From the start of the second daemon to the first answer.
    Start,
    /// The AEAD alone.
    Aead,
    /// A small request and its response, beside a copier without cryptography.
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

/// What lies between the two hosts (LAB: two kinds of wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wire {
    /// A veth as it is: super-packets cross it whole, which flatters whoever uses offloads.
    Veth,
    /// A veth without offloads: packets cross it one by one, at the size they have on a network.
    Plain,
}

impl Wire {
    /// Both, in the order of the tables.
    pub(crate) const ALL: [Wire; 2] = [Wire::Veth, Wire::Plain];

    /// As a table calls it.
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

/// How long a run takes and what it covers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    /// How many times every contestant does everything.
    pub(crate) rounds: u32,
    /// How long one run of one measure lasts.
    pub(crate) seconds: u32,
    /// How long sixty-four streams run together.
    pub(crate) stream_seconds: u32,
    /// How many peers are configured in the chapter on scale.
    pub(crate) peers: u32,
    /// The words of `BENCH_ONLY`; none: everything.
    pub(crate) only: Vec<String>,
    /// Programs of `PEER_BINS`.
    pub(crate) peer_bins: Vec<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// A number that is not one, or is too small.
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

    /// Requires that `BENCH_ONLY` names nothing unknown: a slip must not look like an empty result.
    ///
    /// # Errors
    /// It does; the message lists what it may name.
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

    /// How long one run of one measure lasts.
    pub(crate) fn run(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Whether this is to be measured: named, or no measure is named at all.
    pub(crate) fn wants(&self, measure: Measure) -> bool {
        self.chosen(Measure::ALL.iter().map(|(word, _)| *word), |word| Measure::ALL.contains(&(word, measure)))
    }

    /// Whether this wire is to be measured on.
    pub(crate) fn wants_wire(&self, wire: Wire) -> bool {
        self.chosen(Wire::ALL.map(Wire::word), |word| word == wire.word())
    }

    /// Whether this one of all contestants takes part.
    pub(crate) fn wants_contestant(&self, label: &str, all: &[String]) -> bool {
        self.chosen(all.iter().map(String::as_str), |word| word == label)
    }

    /// Whether `BENCH_ONLY` names this one of a kind, or none of that kind.
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
