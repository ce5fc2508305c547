//! What the doctor reports: JSON of `overlay doctor --json`, schema `overlay.doctor.v1`.
//!
//! Fields are only ever added, and so are codes.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::finding::{Check, Finding, Severity};

/// The whole report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The name of this JSON schema.
    #[schemars(extend("const" = Self::SCHEMA))]
    pub schema: Cow<'static, str>,
    /// Whether there is no finding of severity `error`.
    pub healthy: bool,
    /// The config that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The interface, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The agent's name. Left out in static mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Everything that was looked at, in a fixed order.
    pub checks: Vec<Checked>,
    /// What is wrong, errors first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The name of this JSON schema.
    pub const SCHEMA: &'static str = "overlay.doctor.v1";
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checked {
    /// What.
    pub check: Check,
    /// What came of it.
    pub outcome: Outcome,
    /// How it is, in one line for people.
    pub said: String,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing is wrong.
    Ok,
    /// The worst finding is a warning.
    Warning,
    /// There is an error.
    Error,
    /// It could not be looked at, or does not concern this daemon.
    Skipped,
}

impl Outcome {
    /// The outcome that follows from the findings.
    pub(super) fn of(check: Check, findings: &[Finding]) -> Self {
        match findings.iter().filter(|finding| finding.check == check).map(|finding| finding.severity).min() {
            None => Self::Ok,
            Some(Severity::Warning) => Self::Warning,
            Some(Severity::Error) => Self::Error,
        }
    }
}
