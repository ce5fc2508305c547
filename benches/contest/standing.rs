//! A contestant that stands: two hosts, their daemons, and what is known of them while they are measured.

use std::cell::Cell;
use std::time::Duration;

use super::memory;
use crate::lab::{Pair, Process};

/// Two hosts that reach each other through a contestant. Dropped, it is taken away.
pub(crate) struct Standing {
    /// Killed first.
    daemons: Vec<Process>,
    /// Of both daemons, also of one that went to the background.
    pub(crate) pids: Vec<u32>,
    /// What host `a` sends to.
    pub(crate) far: &'static str,
    /// From the start of the second daemon to the first answer; `None` of the wire.
    pub(crate) start: Option<Duration>,
    /// What the larger daemon held before the first load, in bytes.
    pub(crate) memory_at_rest: u64,
    /// The most it was seen to hold while a load ran, in bytes.
    pub(crate) memory_under_load: Cell<u64>,
    /// The two hosts.
    pub(crate) pair: Pair,
}

impl Standing {
    /// Nothing but daemons may run on the two hosts by now.
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

    /// What the daemons have said last.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.daemons)
    }

    /// Notes what the daemons hold at this moment of a load.
    pub(crate) fn observe_memory(&self) {
        self.memory_under_load.set(self.memory_under_load.get().max(memory::resident(&self.pids)));
    }
}

/// What each of them has said last: three lines.
pub(crate) fn last_words(daemons: &[Process]) -> String {
    let last = |daemon: &Process| {
        let text = daemon.stdout() + &daemon.stderr();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" ")
    };
    daemons.iter().map(last).collect::<Vec<_>>().join("; ")
}
