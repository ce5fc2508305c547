//! Looking after the footprint while the daemon runs: what another program takes away comes back.

use overlay_os::netlink::Noticed;

use super::supervisor::Supervisor;
use crate::host::Verdict;

impl Supervisor {
    /// Another program may have changed something: what is missing is put back, and said once for each time, but no more
    /// often than somebody wants to read it.
    pub(super) async fn look_after_host(&mut self, noticed: Noticed) {
        let endpoints = self.device.table().endpoints();
        let looked = self.host.look(&self.netlink, &mut self.journal, noticed, endpoints).await;
        let verdict = self.watch.on_looked(&looked);
        let name = &self.config.interface.name;
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
            self.host.on_contested(span);
        }
        if let Some(failed) = self.watch.news(looked.failed) {
            tracing::warn!("`{name}`: something is missing on this host and cannot be put back: {failed}");
        }
    }
}
