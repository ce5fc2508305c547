//! Captures what crosses a wire outside the tunnel.

use crate::lab::{Frames, Host};

/// A capture. Dropping it stops it.
pub(super) struct Capture(Frames);

/// Starts a capture on a link of a host. It shows everything from now on that matches the filter, and what a thief sends.
#[track_caller]
pub(super) fn start(host: &Host, link: &str, filter: &str) -> Capture {
    Capture(Frames::start(host, link, "-Q in", &format!("{filter} or udp port 40000")))
}

impl Capture {
    /// The UDP datagrams from this source port so far, in both families.
    pub(super) fn datagrams_from(&self, port: u16) -> Vec<Vec<u8>> {
        let datagrams = self.0.datagrams().into_iter();
        datagrams.filter(|datagram| datagram.source.port() == port).map(|datagram| datagram.contents).collect()
    }
}
