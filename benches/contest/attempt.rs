//! A step that may fail without ending the run.
//!
//! The lab panics where a program does not do what it should, with a message that says what it said. Here that becomes a
//! line in the report.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use serde::Serialize;

use super::settings::Wire;

/// What somebody could not do.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) contestant: String,
    pub(crate) step: String,
    /// From 0; none where a step is done once a run.
    pub(crate) round: Option<u32>,
    pub(crate) wire: Option<Wire>,
    pub(crate) reason: String,
}

/// What `act` gives, or why it has panicked.
pub(crate) fn attempt<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        text.unwrap_or_else(|| "it panicked".into())
    })
}

/// Has panics say where they were, and no more: whoever attempts reports the reason.
pub(crate) fn panic_briefly() {
    set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("(at {place})");
        }
    }));
}
