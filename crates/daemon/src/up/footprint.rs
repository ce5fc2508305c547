//! Maintains the footprint while the daemon runs: restores what other programs remove.

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

    /// Waits until a look is due. Returns what to look at. Can be cancelled.
    pub(super) async fn next(&mut self, host: &Host) -> Noticed {
        self.watch.next(&host.interest()).await
    }

    /// Looks for changes by other programs and restores what is missing. Each time is logged, but at DEBUG while a known
    /// dispute goes on.
    pub(super) async fn on_noticed(&mut self, noticed: Noticed, running: &mut Running) {
        let endpoints = running.device.table().endpoints();
        let looked = running.host.look(&running.netlink, &mut running.journal, noticed, endpoints).await;
        let verdict = self.watch.on_looked(&looked);
        let name = running.name();
        match verdict {
            _ if looked.put_back.is_empty() => {}
            Verdict::Fine => {}
            Verdict::Restored => {
                tracing::warn!("`{name}`: restored what another program had removed: {}", looked.put_back);
            }
            Verdict::Contested(pace) => tracing::warn!(
                "`{name}`: another program keeps removing what overlay restores: {}; from now on it is restored every {} s",
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
            tracing::warn!("`{name}`: something is missing on this host and cannot be restored: {failed}");
        }
    }
}
