//! UDP in one flow, sent as fast as the sender can. What arrives counts.
//!
//! No rate is set, since any rate would be fair to only one contestant. So the sender costs each of them the same CPU
//! time. What a contestant cannot handle is lost in its TUN's queue or in a socket's buffer, and the loss is reported.

use serde::Serialize;

use super::iperf::Load;
use super::standing::Standing;

/// The payloads in bytes: a small one, and one with an IP packet of 1,400 bytes, which fits every tunnel unfragmented.
pub(crate) const PAYLOADS: [u32; 2] = [64, 1372];

/// The results of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct UdpFigures {
    pub(crate) payload_bytes: u32,
    /// Datagrams that arrived.
    pub(crate) kilopackets_per_second: f64,
    /// Payload that arrived.
    pub(crate) gigabits_per_second: f64,
    /// Share of the sent datagrams that were lost.
    pub(crate) lost_percent: f64,
}

/// Sends datagrams with this payload from `a` to `b`.
pub(crate) fn measure(standing: &Standing, payload_bytes: u32, seconds: u32) -> UdpFigures {
    let counted = Load::start(standing, seconds, &format!("-u -b 0 -l {payload_bytes}")).finish();
    let (received, sent) = (counted.received.bytes as f64, counted.sent.bytes as f64);
    assert!(received > 0.0, "no datagram arrived");
    UdpFigures {
        payload_bytes,
        kilopackets_per_second: received / f64::from(payload_bytes) / counted.sent.seconds / 1e3,
        gigabits_per_second: received * 8.0 / counted.sent.seconds / 1e9,
        lost_percent: 100.0 * (1.0 - received / sent),
    }
}
