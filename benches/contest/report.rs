//! Everything a run has found, as `target/bench/report.json` holds it. Units are in the names of the fields.

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

/// The whole of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version of this layout.
    pub(crate) schema: &'static str,
    /// The day it was made, in UTC.
    pub(crate) date: String,
    pub(crate) duration_minutes: f64,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) contestants: Vec<Identity>,
    /// Every run of every round.
    pub(crate) runs: Runs,
    pub(crate) chapters: Chapters,
    /// What a perfect tunnel would carry in one stream on this machine, over the veth as it is.
    pub(crate) bound_gigabits_per_second: Option<f64>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) failures: Vec<Failure>,
}

/// What only ours is asked, once a run; `None` where it was not wanted or has failed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Chapters {
    pub(crate) latency: Option<LatencyFigures>,
    pub(crate) scale: Option<ScaleFigures>,
    pub(crate) fairness: Option<FairnessFigures>,
}

impl Report {
    /// The present layout.
    pub(crate) const SCHEMA: &'static str = "overlay.contest.v1";

    /// Adds what follows from the rest.
    pub(crate) fn conclude(mut self) -> Self {
        self.bound_gigabits_per_second = asked::bound(&self).median();
        self.asked = asked::lines(&self);
        self
    }
}
