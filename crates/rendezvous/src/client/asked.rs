//! The calls of one connection that wait for their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::work::Task;

/// A call that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Hello,
    Ping,
    Tasks(Vec<Task>),
}

/// All of them, each with the time at which it was made.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    last_id: u32,
    calls: BTreeMap<u32, (Asked, Duration)>,
}

impl Outstanding {
    /// Adds a call, and returns its number.
    pub(super) fn add(&mut self, asked: Asked, now: Duration) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.calls.insert(self.last_id, (asked, now));
        self.last_id
    }

    /// An answer came.
    pub(super) fn take(&mut self, id: u32) -> Option<Asked> {
        self.calls.remove(&id).map(|(asked, _)| asked)
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether a chunk of watched agents is being told. One at a time keeps what is pushed within bounds.
    pub(super) fn is_watching(&self) -> bool {
        self.calls
            .values()
            .any(|(asked, _)| matches!(asked, Asked::Tasks(tasks) if matches!(tasks[..], [Task::Watch(_), ..])))
    }

    /// When the call was made that has waited longest, pings and greetings left aside.
    pub(super) fn since(&self) -> Option<Duration> {
        let tasks = self.calls.values().filter(|(asked, _)| matches!(asked, Asked::Tasks(_)));
        tasks.map(|(_, since)| *since).min()
    }
}
