//! Sixty-four TCP streams at once over one tunnel: whether they share it, and whether anything stands still.

use std::time::Duration;

use serde::Serialize;

use crate::lab::streams::Arrived;
use crate::lab::{A, Host, Outside, Pair, Streams};

const STREAMS: u32 = 64;
const PORT: u16 = 5201;
/// From one look to the next.
const INTERVAL: Duration = Duration::from_millis(100);
/// The least that Jain's index may be.
const ASKED_JAIN_INDEX: f64 = 0.9;
/// The most that the streams together may stand still.
const ASKED_STALL_SECONDS: f64 = 1.0;

/// What came of it, and what is asked.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FairnessFigures {
    pub(crate) streams: u32,
    pub(crate) seconds: u32,
    pub(crate) overlay: Sharing,
    /// The wire by itself, for orientation.
    pub(crate) veth: Sharing,
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
    pub(crate) gigabits_per_second: f64,
}

/// Lets them run for so long, over the bare wire and then over overlay.
///
/// # Panics
/// If the lab, a daemon or iperf3 does not come up.
pub(crate) fn measure(seconds: u32) -> FairnessFigures {
    let pair = Pair::new("fairness").expect("`main` has asked whether this machine can run a lab");
    let _daemons = pair.up(Outside::V4);
    pair.b.reaches(A.v4);
    let [veth, overlay] = [A.outer_v4, A.v4].map(|far| Sharing::of(&run(&pair.a, far, &pair.b, seconds)));
    let (asked_jain_index, asked_stall_seconds) = (ASKED_JAIN_INDEX, ASKED_STALL_SECONDS);
    FairnessFigures { streams: STREAMS, seconds, overlay, veth, asked_jain_index, asked_stall_seconds }
}

fn run(sender: &Host, address: &str, receiver: &Host, seconds: u32) -> Arrived {
    Streams::start((sender, address, PORT), receiver, STREAMS, seconds, INTERVAL).finish()
}

impl Sharing {
    fn of(arrived: &Arrived) -> Self {
        let totals = arrived.totals();
        let mean = totals.iter().sum::<u64>() as f64 / totals.len() as f64;
        Self {
            jain_index: arrived.jain_index(),
            longest_stall_seconds: arrived.longest_stall().as_secs_f64(),
            longest_silence_of_one_seconds: arrived.longest_silence_of_one().as_secs_f64(),
            least_share_of_mean: totals.iter().min().map_or(0.0, |least| *least as f64 / mean),
            gigabits_per_second: arrived.rate() / 1e9,
        }
    }
}
