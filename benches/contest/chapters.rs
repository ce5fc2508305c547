//! Measurements of ours alone. Each is made once, after the rounds, when nothing else runs.

use super::attempt::{Failure, attempt};
use super::report::Chapters;
use super::settings::{Measure, Settings};
use super::{fairness, latency, scale};

/// Rounds of the request-response measurement for each round of the contest. They are short, so there are many.
const LATENCY_ROUNDS: u32 = 5;

/// How many run lengths an idle daemon is watched for. A short time is not enough to measure a small share of a core.
const IDLE_RUNS: u32 = 2;

/// Makes the requested measurements.
pub(crate) fn measure(settings: &Settings, failures: &mut Vec<Failure>) -> Chapters {
    let mut chapter = Chapter { settings, failures };
    Chapters {
        latency: chapter.attempt(Measure::Latency, "latency", || latency::measure(LATENCY_ROUNDS * settings.rounds)),
        fairness: chapter.attempt(Measure::Fairness, "fairness", || fairness::measure(settings.stream_seconds)),
        scale: chapter.attempt(Measure::Scale, "scale", || scale::measure(settings.peers, IDLE_RUNS * settings.run())),
    }
}

struct Chapter<'a> {
    settings: &'a Settings,
    failures: &'a mut Vec<Failure>,
}

impl Chapter<'_> {
    fn attempt<T>(&mut self, measure: Measure, step: &str, act: impl FnOnce() -> T) -> Option<T> {
        if !self.settings.wants(measure) {
            return None;
        }
        eprintln!("chapter: {step}");
        attempt(act)
            .map_err(|reason| {
                eprintln!("chapter: {step}: failed: {reason}");
                let (contestant, step) = ("overlay".into(), step.into());
                self.failures.push(Failure { contestant, step, round: None, wire: None, reason });
            })
            .ok()
    }
}
