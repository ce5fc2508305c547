//! Counts packets in clear: packets on a wire with an address that only the tunnel may carry.

use crate::lab::{Host, Process, SHORTLY, within};

/// A capture on one of a host's links. Dropping it stops it.
pub(crate) struct Capture {
    tcpdump: Process,
}

impl Capture {
    /// Starts counting packets that match a tcpdump filter.
    #[track_caller]
    pub(crate) fn start(host: &Host, link: &str, filter: &str) -> Capture {
        let tcpdump = host.spawn(["tcpdump", "-n", "-l", "--immediate-mode", "-i", link, filter]);
        within(SHORTLY, "tcpdump to listen", || tcpdump.stderr().contains("listening on").then_some(()));
        Capture { tcpdump }
    }

    /// How many packets have been seen so far.
    pub(crate) fn count(&self) -> usize {
        self.tcpdump.stdout().lines().filter(|line| line.contains(" > ")).count()
    }

    /// Waits until one was seen: tcpdump may print it after its receiver has answered.
    #[track_caller]
    pub(crate) fn sees(&self, what: &str) {
        within(SHORTLY, what, || (self.count() > 0).then_some(()));
    }

    /// The first few of them.
    pub(crate) fn shown(&self) -> String {
        self.tcpdump.stdout().lines().take(10).collect::<Vec<_>>().join("\n")
    }
}
