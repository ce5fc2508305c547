//! TCP at full speed, and its cost.

use serde::Serialize;

use super::cpu::Spent;
use super::iperf::Load;
use super::standing::Standing;

/// The direction of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    /// From host `a`, whose daemon was started last, to `b`.
    Forward,
    /// From `b` to `a`.
    Reverse,
}

/// The results of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TcpFigures {
    pub(crate) streams: u32,
    pub(crate) direction: Direction,
    /// Payload that arrived.
    pub(crate) gigabits_per_second: f64,
    /// Payload that arrived, with 1 GB = 10^9 bytes.
    pub(crate) gigabytes: f64,
    pub(crate) retransmits: u64,
    /// User and system time of both daemons per GB.
    pub(crate) daemon_cpu_seconds_per_gb: f64,
    /// Busy time of the whole machine per GB: daemons, both ends of the stream, and the kernel.
    pub(crate) machine_cpu_seconds_per_gb: f64,
    /// The CPU time that the hypervisor gave to other machines in the meantime.
    pub(crate) stolen_cpu_seconds: f64,
}

/// Runs this many streams in this direction.
pub(crate) fn measure(standing: &Standing, streams: u32, direction: Direction, seconds: u32) -> TcpFigures {
    let reverse = if direction == Direction::Reverse { "-R" } else { "" };
    let before = Spent::now(&standing.pids);
    let counted = Load::start(standing, seconds, &format!("-P {streams} {reverse}")).finish();
    let cost = before.until(Spent::now(&standing.pids));
    let gigabytes = counted.received.bytes as f64 / 1e9;
    TcpFigures {
        streams,
        direction,
        gigabits_per_second: gigabytes * 8.0 / counted.received.seconds,
        gigabytes,
        retransmits: counted.sent.retransmits,
        daemon_cpu_seconds_per_gb: cost.processes / gigabytes,
        machine_cpu_seconds_per_gb: cost.machine / gigabytes,
        stolen_cpu_seconds: cost.stolen,
    }
}

/// Runs a short stream and discards its results, so that caches, congestion control and the daemons' heaps settle.
pub(crate) fn warm_up(standing: &Standing) {
    Load::start(standing, 1, "").finish();
}
