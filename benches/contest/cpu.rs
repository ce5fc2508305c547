//! CPU time, as the kernel accounts for it: of processes with all their threads, and of the whole machine.
//!
//! Both are counted in ticks of 10 ms. Work that the kernel does for a packet on its way (a softirq on the veth) is
//! charged to whichever process runs at that moment. So the machine's value is the full cost, and the daemons' value is
//! what they are charged.

use std::fs;

/// The length of a tick in seconds: `sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust runs on.
const TICK: f64 = 0.01;

/// CPU time spent up to this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    processes: f64,
    machine: f64,
    stolen: f64,
}

/// CPU seconds spent between two moments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// User and system time of the processes.
    pub(crate) processes: f64,
    /// All time that was not idle, on all CPUs.
    pub(crate) machine: f64,
    /// Time that the hypervisor gave to other machines, which shows how busy the host was.
    pub(crate) stolen: f64,
}

impl Spent {
    /// The CPU time of these processes and of the machine until now.
    pub(crate) fn now(pids: &[u32]) -> Self {
        let (machine, stolen) = of_the_machine();
        Self { processes: pids.iter().map(|pid| of_the_process(*pid)).sum(), machine, stolen }
    }

    /// The CPU time spent since then.
    pub(crate) fn until(self, later: Self) -> Cost {
        Cost {
            processes: later.processes - self.processes,
            machine: later.machine - self.machine,
            stolen: later.stolen - self.stolen,
        }
    }
}

/// User and system time (proc(5): fields 14 and 15). The name before them may contain blanks.
fn of_the_process(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| panic!("the daemon {pid} has ended"));
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("a number of ticks")).sum::<f64>() * TICK
}

/// Busy and stolen time. The fields are user, nice, system, idle, iowait, irq, softirq, steal.
fn of_the_machine() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    let of = |fields: &[usize]| fields.iter().filter_map(|field| ticks.get(*field)).sum::<f64>() * TICK;
    (of(&[0, 1, 2, 5, 6]), of(&[7]))
}
