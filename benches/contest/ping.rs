//! Round trips: on an idle tunnel, and next to a TCP stream that fills the tunnel in the same direction.

use serde::Serialize;

use super::iperf::Load;
use super::series::percentile;
use super::standing::Standing;

/// The time between two echoes, in seconds.
const INTERVAL: f64 = 0.005;
/// How long the stream runs before the first echo, so that its slow start is over and the queues have settled.
const STREAM_ALONE: std::time::Duration = std::time::Duration::from_secs(1);

/// The results of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PingFigures {
    pub(crate) is_loaded: bool,
    pub(crate) p50_milliseconds: f64,
    pub(crate) p99_milliseconds: f64,
    pub(crate) max_milliseconds: f64,
    /// How many echoes came back.
    pub(crate) answers: usize,
    pub(crate) lost_percent: f64,
    /// The rate of the stream next to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream_gigabits_per_second: Option<f64>,
}

/// Measures with nothing else running. It takes half the time of other measurements, since echoes on an idle tunnel
/// vary little.
pub(crate) fn idle(standing: &Standing, seconds: u32) -> PingFigures {
    echoes(standing, seconds.div_ceil(2))
}

/// Measures next to one TCP stream.
pub(crate) fn loaded(standing: &Standing, seconds: u32) -> PingFigures {
    let stream = Load::start(standing, seconds + 2, "");
    std::thread::sleep(STREAM_ALONE);
    let figures = echoes(standing, seconds);
    let received = stream.finish().received;
    let rate = received.bytes as f64 * 8.0 / received.seconds / 1e9;
    PingFigures { is_loaded: true, stream_gigabits_per_second: Some(rate), ..figures }
}

/// Sends as many echoes as time allows. Under load, `ping` sends some of them late.
fn echoes(standing: &Standing, seconds: u32) -> PingFigures {
    let output = standing.pair.a.run(format!("ping -n -i {INTERVAL} -w {seconds} {}", standing.far)).stdout;
    let mut times: Vec<f64> = output.lines().filter_map(time).collect();
    let answers = times.len();
    let sent = output.lines().find_map(|line| line.split_once(" packets transmitted")?.0.parse::<f64>().ok());
    let max = times.iter().copied().fold(0.0, f64::max);
    let mut share = |share| percentile(&mut times, share).unwrap_or_else(|| panic!("no echo came back: {output}"));
    PingFigures {
        is_loaded: false,
        p50_milliseconds: share(0.5),
        p99_milliseconds: share(0.99),
        max_milliseconds: max,
        answers,
        lost_percent: sent.map_or(0.0, |sent| 100.0 * (1.0 - answers as f64 / sent)),
        stream_gigabits_per_second: None,
    }
}

/// Parses `64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.045 ms`. `None` for a duplicate.
fn time(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once(" time=").filter(|_| !line.ends_with("(DUP!)"))?;
    rest.strip_suffix(" ms")?.parse().ok()
}
