//! Everything a run has found, as `target/bench/report.json` holds it. Units are in the names of the fields.

use serde::Serialize;

use super::contestant::Identity;
use super::machine::Machine;
use super::rounds::Runs;
use super::settings::Settings;

/// The whole of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version of this layout.
    pub(crate) schema: &'static str,
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) contestants: Vec<Identity>,
    pub(crate) runs: Runs,
}

impl Report {
    /// The present layout.
    pub(crate) const SCHEMA: &'static str = "overlay.contest.v1";
}
