//! What only ours is asked: each once, after the rounds, with the machine to itself.

use super::attempt::{Failure, attempt};
use super::report::Chapters;
use super::settings::{Measure, Settings};
use super::{fairness, latency, scale};

/// Rounds of the ping-pong for each round of the contest: they are short, and many.
const LATENCY_ROUNDS: u32 = 5;

/// An idle daemon is watched for so many times the length of a run: short spans say nothing of a share of a core.
const IDLE_RUNS: u32 = 2;

/// Those that are wanted.
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
