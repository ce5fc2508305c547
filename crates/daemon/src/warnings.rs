//! What does not work as the config asks although the daemon runs. `status` shows it until it is fixed.
//!
//! Each topic has a single writer, which replaces the topic's whole list. A new warning is logged once, and so is its end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that does not work as the config asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusWarning {
    /// A stable code such as `metrics`, for programs.
    pub kind: Cow<'static, str>,
    /// What does not work, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl StatusWarning {
    /// Creates a warning with a hint.
    pub fn new(kind: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), hint: Some(hint.into()) }
    }
}

/// The current warnings, by topic.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<BTreeMap<&'static str, Vec<StatusWarning>>>);

impl Warnings {
    /// Replaces the warnings of `topic`, and logs what is new and what is gone.
    pub(crate) fn set(&self, topic: &'static str, warnings: Vec<StatusWarning>) {
        // Nothing panics while it is held.
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.insert(topic, warnings.clone()).unwrap_or_default();
        for new in warnings.iter().filter(|warning| !before.contains(warning)) {
            tracing::warn!(hint = new.hint, "{}", new.message);
        }
        for gone in before.iter().filter(|warning| !warnings.contains(warning)) {
            tracing::info!("no longer true: {}", gone.message);
        }
    }

    /// Returns all current warnings.
    pub(crate) fn all(&self) -> Vec<StatusWarning> {
        let standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        standing.values().flatten().cloned().collect()
    }

    /// Whether `topic` has a warning.
    pub(crate) fn has(&self, topic: &str) -> bool {
        let standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        standing.get(topic).is_some_and(|warnings| !warnings.is_empty())
    }
}
