//! Sixty-four TCP streams at once over one tunnel: whether they share it, and whether anything stalls.
//!
//! How they share depends on their congestion control as much as on the tunnel, since queues overflow or add delay. So
//! every available congestion control is shown, on both wires. The requirement applies to the machine's own default on
//! the unmodified veth, which all other measurements use too.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::settings::Wire;
use crate::lab::streams::{Arrived, BBR_SETTLES, Load};
use crate::lab::{A, Outside, Pair};

const STREAMS: u32 = 64;
/// How long the streams run when the requirement is evaluated. The first [`BBR_SETTLES`] count only for stalls.
pub(crate) const SECONDS: u32 = 36;
/// The shortest run that leaves something to count.
pub(crate) const LEAST_SECONDS: u32 = BBR_SETTLES.as_secs() as u32 + 2;
const PORT: u16 = 5201;
/// The measuring interval.
const INTERVAL: Duration = Duration::from_millis(100);
/// Congestion controls that others may use: the kernel's default, and one that treats a growing queue as a signal to
/// slow down.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "bbr"];
/// The smallest acceptable value of Jain's index.
const ASKED_JAIN_INDEX: f64 = 0.9;
/// The longest acceptable stall of all streams together, in seconds.
const ASKED_STALL_SECONDS: f64 = 1.0;

/// The results and the requirements.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FairnessFigures {
    pub(crate) streams: u32,
    pub(crate) seconds: u32,
    /// Overlay with the machine's own congestion control, on the unmodified veth.
    pub(crate) overlay: Sharing,
    /// The bare wire, for comparison.
    pub(crate) veth: Sharing,
    /// Overlay under further conditions.
    pub(crate) others: Vec<Condition>,
    pub(crate) asked_jain_index: f64,
    pub(crate) asked_stall_seconds: f64,
}

/// How evenly the streams shared the tunnel.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sharing {
    /// Jain's index over the bytes of the streams: 1 if all received the same, 1/64 if one received everything.
    pub(crate) jain_index: f64,
    /// The longest time in which no stream received anything, to a tenth of a second.
    pub(crate) longest_stall_seconds: f64,
    /// The longest time in which one of the streams received nothing, to a tenth of a second.
    pub(crate) longest_silence_of_one_seconds: f64,
    /// The bytes of the slowest stream, as a share of the mean.
    pub(crate) least_share_of_mean: f64,
    /// The bytes of the fastest stream, as a share of the mean.
    pub(crate) largest_share_of_mean: f64,
    pub(crate) gigabits_per_second: f64,
}

/// Overlay with this congestion control on this wire.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Condition {
    pub(crate) wire: Wire,
    pub(crate) congestion_control: &'static str,
    #[serde(flatten)]
    pub(crate) sharing: Sharing,
}

/// Runs the streams for `seconds` under each of at most six conditions.
///
/// # Panics
/// Panics if the lab, a daemon or iperf3 does not start.
pub(crate) fn measure(seconds: u32) -> FairnessFigures {
    let pair = Pair::new("fairness").expect("`main` has asked whether this machine can run a lab");
    let _daemons = pair.up(Outside::V4);
    pair.b.reaches(A.v4);
    let run = |address, congestion_control| {
        let (sender, receiver) = (&pair.a, &pair.b);
        let (port, streams, interval) = (PORT, STREAMS, INTERVAL);
        Load { sender, address, port, receiver, streams, seconds, interval, congestion_control }.start().finish()
    };
    let [veth, overlay] = [A.outer_v4, A.v4].map(|address| Sharing::of(&run(address, None)));
    let mut others = Vec::new();
    for wire in Wire::ALL {
        if wire == Wire::Plain {
            pair.a.offloads_off(&pair.b);
            pair.b.offloads_off(&pair.a);
        }
        for congestion_control in CONGESTION_CONTROLS.into_iter().filter(|name| is_available(name)) {
            let sharing = Sharing::of(&run(A.v4, Some(congestion_control)));
            others.push(Condition { wire, congestion_control, sharing });
        }
    }
    let (asked_jain_index, asked_stall_seconds) = (ASKED_JAIN_INDEX, ASKED_STALL_SECONDS);
    FairnessFigures { streams: STREAMS, seconds, overlay, veth, others, asked_jain_index, asked_stall_seconds }
}

fn is_available(congestion_control: &str) -> bool {
    let all = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    all.split_whitespace().any(|one| one == congestion_control)
}

impl Sharing {
    fn of(arrived: &Arrived) -> Self {
        let settled = arrived.after(BBR_SETTLES);
        let totals = settled.totals();
        let mean = totals.iter().sum::<u64>() as f64 / totals.len() as f64;
        let share = |bytes: Option<&u64>| bytes.map_or(0.0, |bytes| *bytes as f64 / mean);
        Self {
            jain_index: settled.jain_index(),
            longest_stall_seconds: arrived.longest_stall().as_secs_f64(),
            longest_silence_of_one_seconds: arrived.longest_silence_of_one().as_secs_f64(),
            least_share_of_mean: share(totals.iter().min()),
            largest_share_of_mean: share(totals.iter().max()),
            gigabits_per_second: arrived.rate() / 1e9,
        }
    }
}
