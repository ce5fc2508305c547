//! Everything that a run has found, in the form of `target/bench/report.json`. The names of the fields include their
//! units.

use serde::Serialize;

use super::asked::{self, Asked};
use super::attempt::Failure;
use super::contestant::Identity;
use super::fairness::FairnessFigures;
use super::latency::LatencyFigures;
use super::machine::Machine;
use super::runs::Runs;
use super::scale::ScaleFigures;
use super::settings::Settings;

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version of this layout.
    pub(crate) schema: &'static str,
    /// The date of the run, in UTC.
    pub(crate) date: String,
    pub(crate) duration_minutes: f64,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) contestants: Vec<Identity>,
    /// Every run of every round.
    pub(crate) runs: Runs,
    pub(crate) chapters: Chapters,
    /// The rate of a perfect tunnel for one stream on this machine, over the unmodified veth.
    pub(crate) bound_gigabits_per_second: Option<f64>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) failures: Vec<Failure>,
}

/// Measurements of ours alone, made once in a run. `None` if it was not requested or has failed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Chapters {
    pub(crate) latency: Option<LatencyFigures>,
    pub(crate) scale: Option<ScaleFigures>,
    pub(crate) fairness: Option<FairnessFigures>,
}

impl Report {
    /// The current version of the layout.
    pub(crate) const SCHEMA: &'static str = "overlay.contest.v1";

    /// Adds the values that are derived from the others.
    pub(crate) fn conclude(mut self) -> Self {
        self.bound_gigabits_per_second = asked::bound(&self).median();
        self.asked = asked::lines(&self);
        self
    }
}
