//! iperf3 as the load, from host `a` to host `b` of a running contestant, and its report.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::standing::Standing;
use crate::lab::Process;

/// Time beyond the requested duration, for connecting and for fetching the server's results through a full tunnel.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often memory is measured during a run.
const LOOK: Duration = Duration::from_millis(200);
const PORT: u16 = 5201;

/// A run in progress.
pub(crate) struct Load<'a> {
    standing: &'a Standing,
    client: Process,
    _server: Process,
    limit: Duration,
}

/// The counts of both ends.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Counted {
    #[serde(rename = "sum_sent")]
    pub(crate) sent: Sum,
    #[serde(rename = "sum_received")]
    pub(crate) received: Sum,
}

/// One end's count over all streams.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Sum {
    /// Payload in bytes.
    pub(crate) bytes: u64,
    /// Duration of the run, as measured by this end.
    pub(crate) seconds: f64,
    /// TCP retransmits, if this end is the sender.
    #[serde(default)]
    pub(crate) retransmits: u64,
}

#[derive(Deserialize)]
struct Document {
    end: Counted,
}

impl<'a> Load<'a> {
    /// Starts a run. `arguments` are for the client, in addition to address, duration and format.
    pub(crate) fn start(standing: &'a Standing, seconds: u32, arguments: &str) -> Self {
        let (a, b) = (&standing.pair.a, &standing.pair.b);
        // One server for each run: a server that stays resets clients that connect while it closes the previous run.
        let server = b.spawn(format!("iperf3 -s -1 -p {PORT}"));
        b.wait_for_listener(PORT);
        let client = a.spawn(format!("iperf3 -J -p {PORT} -c {} -t {seconds} {arguments}", standing.far));
        Self { standing, client, _server: server, limit: Duration::from_secs(u64::from(seconds)) + PATIENCE }
    }

    /// Waits until the run ends, and measures the daemons' memory in the meantime.
    ///
    /// # Panics
    /// Panics if the run fails or takes far too long.
    pub(crate) fn finish(mut self) -> Counted {
        let deadline = Instant::now() + self.limit;
        let ended = loop {
            if let Some(ended) = self.client.ended() {
                break ended;
            }
            assert!(Instant::now() < deadline, "iperf3 has not ended after {} s", self.limit.as_secs());
            self.standing.observe_memory();
            std::thread::sleep(LOOK);
        };
        let json = ended.succeeded("iperf3");
        let document: Document =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("iperf3's report: {error}: {json}"));
        document.end
    }
}
