//! Maintains the footprint while the daemon runs: what another program removes is restored.

use overlay_os::netlink::{Netlink, Noticed};

use super::running::Running;
use crate::host::{Host, HostWatch, Verdict};

/// The watch over the footprint.
pub(super) struct Footprint {
    watch: HostWatch,
}

impl Footprint {
    /// Starts the watch. Must be called on a tokio runtime.
    pub(super) fn watch(netlink: &Netlink) -> Self {
        Self { watch: HostWatch::start(netlink) }
    }

    /// Waits until a look is due, and says at what. Can be cancelled.
    pub(super) async fn next(&mut self, host: &Host) -> Noticed {
        self.watch.next(&host.interest()).await
    }

    /// Another program may have changed something: what is missing is put back, and said once for each time, but no more
    /// often than somebody wants to read it.
    pub(super) async fn on_noticed(&mut self, noticed: Noticed, running: &mut Running) {
        let endpoints = running.device.table().endpoints();
        let looked = running.host.look(&running.netlink, &mut running.journal, noticed, endpoints).await;
        let verdict = self.watch.on_looked(&looked);
        let name = running.name();
        match verdict {
            _ if looked.put_back.is_empty() => {}
            Verdict::Fine => {}
            Verdict::Restored => {
                tracing::warn!("`{name}`: put back what another program had taken away: {}", looked.put_back);
            }
            Verdict::Contested(pace) => tracing::warn!(
                "`{name}`: another program keeps taking away what is put back: {}; from now on it is put back every {} s",
                looked.put_back,
                pace.as_secs()
            ),
            Verdict::StillContested(pace) => {
                tracing::debug!(put_back = %looked.put_back, failed = looked.failed, ?pace, "still contested");
            }
        }
        if let Some(span) = verdict.contested_for() {
            running.host.on_contested(span);
        }
        if let Some(failed) = self.watch.news(looked.failed) {
            tracing::warn!("`{name}`: something is missing on this host and cannot be put back: {failed}");
        }
    }
}
