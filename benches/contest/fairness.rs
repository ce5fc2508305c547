//! Sixty-four TCP streams at once over one tunnel: whether they share it, and whether anything stands still.
//!
//! How they share is decided by their congestion control as much as by the tunnel, where a queue overflows or waits: so all
//! of it that the machine has is shown, on both wires. What is asked is asked of the machine's own default on the wire as it
//! is, which is what every other measure here uses.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use super::settings::Wire;
use crate::lab::streams::{Arrived, BBR_SETTLES, Load};
use crate::lab::{A, Outside, Pair};

const STREAMS: u32 = 64;
/// How long the streams run where what is asked is judged. Of it [`BBR_SETTLES`] is not counted but for stalls.
pub(crate) const SECONDS: u32 = 36;
/// The shortest run that leaves something to count.
pub(crate) const LEAST_SECONDS: u32 = BBR_SETTLES.as_secs() as u32 + 2;
const PORT: u16 = 5201;
/// From one look to the next.
const INTERVAL: Duration = Duration::from_millis(100);
/// What others may use: the kernel's own default, and the one that takes a queue for a reason to slow down.
const CONGESTION_CONTROLS: [&str; 2] = ["cubic", "bbr"];
/// The least that Jain's index may be.
const ASKED_JAIN_INDEX: f64 = 0.9;
/// The most that the streams together may stand still.
const ASKED_STALL_SECONDS: f64 = 1.0;

/// What came of it, and what is asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FairnessFigures {
    pub(crate) streams: u32,
    pub(crate) seconds: u32,
    /// The machine's own congestion control, the wire as it is.
    pub(crate) overlay: Sharing,
    /// The wire by itself, for orientation.
    pub(crate) veth: Sharing,
    /// Overlay again, under other conditions.
    pub(crate) others: Vec<Condition>,
    pub(crate) asked_jain_index: f64,
    pub(crate) asked_stall_seconds: f64,
}

/// How the streams got on with each other.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sharing {
    /// Jain's index over the bytes of the streams: 1 when all got the same, 1/64 when one got everything.
    pub(crate) jain_index: f64,
    /// The longest time in which nothing arrived for anyone, to a tenth of a second.
    pub(crate) longest_stall_seconds: f64,
    /// The longest time in which one of the streams got nothing, to a tenth of a second.
    pub(crate) longest_silence_of_one_seconds: f64,
    /// What the least served stream got, as a share of the mean.
    pub(crate) least_share_of_mean: f64,
    /// The same of the best served one.
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

/// Lets them run for `seconds` under each condition, six at most.
///
/// # Panics
/// If the lab, a daemon or iperf3 does not come up.
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
