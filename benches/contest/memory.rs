//! The memory that the daemons hold, from `/proc/PID/status`.
//!
//! The larger of the two daemons counts. The value includes shared pages of the program itself, as in `top`.

use std::fs;

use serde::Serialize;

use super::standing::Standing;

/// The memory of one daemon of a contestant, at three moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct MemoryFigures {
    /// After the first handshake, before any load.
    pub(crate) at_rest_bytes: u64,
    /// The most that was seen while a load ran. 0 if none ran.
    pub(crate) under_load_bytes: u64,
    /// The peak since its start, according to the kernel.
    pub(crate) peak_bytes: u64,
}

/// Reports a contestant's memory at the end of its round.
pub(crate) fn measure(standing: &Standing) -> MemoryFigures {
    MemoryFigures {
        at_rest_bytes: standing.memory_at_rest,
        under_load_bytes: standing.memory_under_load.get(),
        peak_bytes: of_the_largest(&standing.pids, "VmHWM:"),
    }
}

/// The resident memory of the larger of these processes, in bytes.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    of_the_largest(pids, "VmRSS:")
}

fn of_the_largest(pids: &[u32], field: &str) -> u64 {
    pids.iter().map(|pid| of_the_process(*pid, field)).max().unwrap_or_default()
}

fn of_the_process(pid: u32, field: &str) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|_| panic!("the daemon {pid} has ended"));
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {field} of the process {pid}")) * 1024
}
