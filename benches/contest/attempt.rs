//! A step that may fail without ending the run.
//!
//! The lab panics if a program misbehaves, with the program's output in the message. Here that becomes a line in the
//! report.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use serde::Serialize;

use super::settings::Wire;

/// A step that a contestant could not complete.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) contestant: String,
    pub(crate) step: String,
    /// The round, counted from 0. `None` for a step that is done once in a run.
    pub(crate) round: Option<u32>,
    pub(crate) wire: Option<Wire>,
    pub(crate) reason: String,
}

/// The result of `act`, or the message of its panic.
pub(crate) fn attempt<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        text.unwrap_or_else(|| "it panicked".into())
    })
}

/// Makes panics print only their location, since the failure's reason goes into the report.
pub(crate) fn panic_briefly() {
    set_hook(Box::new(|panic| {
        if let Some(place) = panic.location() {
            eprintln!("(at {place})");
        }
    }));
}
