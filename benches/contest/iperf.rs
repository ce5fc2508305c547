//! iperf3 as the load, from host `a` to host `b` of a standing contestant, and what it reports.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::standing::Standing;
use crate::lab::Process;

/// Beyond the time it was asked to run: connecting, and fetching the far end's results through a full tunnel.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often memory is looked at while it runs.
const LOOK: Duration = Duration::from_millis(200);
const PORT: u16 = 5201;

/// A run under way.
pub(crate) struct Load<'a> {
    standing: &'a Standing,
    client: Process,
    _server: Process,
    limit: Duration,
}

/// What both ends counted.
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
    /// Payload.
    pub(crate) bytes: u64,
    /// Of the run, as this end timed it.
    pub(crate) seconds: f64,
    /// Of TCP, where the end is the sender.
    #[serde(default)]
    pub(crate) retransmits: u64,
}

#[derive(Deserialize)]
struct Document {
    end: Counted,
}

impl<'a> Load<'a> {
    /// Starts it: `arguments` are the client's, beside address, duration and format.
    pub(crate) fn start(standing: &'a Standing, seconds: u32, arguments: &str) -> Self {
        let (a, b) = (&standing.pair.a, &standing.pair.b);
        // A server for each run: one that goes on resets who connects while it closes the run before.
        let server = b.spawn(format!("iperf3 -s -1 -p {PORT}"));
        b.wait_for_listener(PORT);
        let client = a.spawn(format!("iperf3 -J -p {PORT} -c {} -t {seconds} {arguments}", standing.far));
        Self { standing, client, _server: server, limit: Duration::from_secs(u64::from(seconds)) + PATIENCE }
    }

    /// Waits for its end, with an eye on the memory of the daemons.
    ///
    /// # Panics
    /// If it fails or takes far too long.
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
