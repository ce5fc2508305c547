//! A running contestant: two hosts, their daemons, and what is known about them during the measurements.

use std::cell::Cell;
use std::time::Duration;

use super::memory;
use crate::lab::{Pair, Process};

/// Two hosts that are connected by a contestant. Dropping it removes it.
pub(crate) struct Standing {
    /// Killed first.
    daemons: Vec<Process>,
    /// The process IDs of both daemons, even if one went to the background.
    pub(crate) pids: Vec<u32>,
    /// The address that host `a` sends to.
    pub(crate) far: &'static str,
    /// The time from the start of the second daemon to the first answer. `None` for the wire.
    pub(crate) start: Option<Duration>,
    /// The memory of the larger daemon before the first load, in bytes.
    pub(crate) memory_at_rest: u64,
    /// The most memory seen while a load ran, in bytes.
    pub(crate) memory_under_load: Cell<u64>,
    /// The two hosts.
    pub(crate) pair: Pair,
}

impl Standing {
    /// Creates the value. Only daemons may run on the two hosts at this point.
    pub(crate) fn new(pair: Pair, far: &'static str, daemons: Vec<Process>, start: Option<Duration>) -> Self {
        let of = |host: &crate::lab::Host| {
            let listed = std::process::Command::new("ip").args(["netns", "pids", host.namespace()]).output();
            let listed = listed.expect("`ip` has made the namespace");
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            text.lines().filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<u32>>()
        };
        let pids = [of(&pair.a), of(&pair.b)].concat();
        let memory_at_rest = memory::resident(&pids);
        Self { daemons, pids, far, start, memory_at_rest, memory_under_load: Cell::new(0), pair }
    }

    /// The last output of the daemons.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.daemons)
    }

    /// Records the daemons' memory at this moment of a load.
    pub(crate) fn observe_memory(&self) {
        self.memory_under_load.set(self.memory_under_load.get().max(memory::resident(&self.pids)));
    }
}

/// The last three lines of output of each daemon.
pub(crate) fn last_words(daemons: &[Process]) -> String {
    let last = |daemon: &Process| {
        let text = daemon.stdout() + &daemon.stderr();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" ")
    };
    daemons.iter().map(last).collect::<Vec<_>>().join("; ")
}
