//! UDP, one flow, sent as fast as the sender can; what arrives counts.
//!
//! No rate is asked for, since any rate would be fair to one contestant only. The sender then costs each of them the same
//! CPU, and what is too much for a contestant is lost, in its TUN's queue or in a socket's buffer: the loss says how much.

use serde::Serialize;

use super::iperf::Load;
use super::standing::Standing;

/// Payloads, in bytes: a small one, and one whose IP packet is 1,400 bytes long, which fits every tunnel unfragmented.
pub(crate) const PAYLOADS: [u32; 2] = [64, 1372];

/// One run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct UdpFigures {
    pub(crate) payload_bytes: u32,
    /// Datagrams that arrived.
    pub(crate) kilopackets_per_second: f64,
    /// Payload that arrived.
    pub(crate) gigabits_per_second: f64,
    /// Of the datagrams that were sent.
    pub(crate) lost_percent: f64,
}

/// Sends datagrams of this payload from `a` to `b`.
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
