//! What stands and no longer works because the host changed around it: looked at now and then, kept as warnings.
//!
//! Nothing is refused for it and nothing taken down: it was in force first, or nobody could know. Looking costs two short
//! lists every ten seconds; routes are listed after a reload and while one is known to be in the way, and ways to endpoints
//! are asked for when something of ours came back out of the tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::DropReason;
use overlay_os::netlink::Netlink;

use crate::config::Config;
use crate::host::Host;
use crate::view::View;

/// From one look to the next.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Endpoints whose ways are asked for at one look.
const MAX_WAYS: usize = 256;

const COLLISIONS: &str = "collisions";
const WAYS: &str = "endpoints";

/// What was known at the last look.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    has_looked: bool,
    loops: u64,
}

impl Standing {
    /// Looks, and brings the warnings up to date. `is_new`: peers, routes or endpoints have just changed.
    pub(crate) async fn look(&mut self, netlink: &Netlink, host: &Host, config: &Config, view: &View, is_new: bool) {
        // Names may have been resolved before the first look.
        let is_new = is_new || !std::mem::replace(&mut self.has_looked, true);
        let routes = is_new || view.has_warnings(COLLISIONS);
        view.set_warnings(COLLISIONS, host.collisions(netlink, config, routes).await);

        let loops = view.node_stats().drops(DropReason::OutboundLoop);
        if !is_new && loops == self.loops && !view.has_warnings(WAYS) {
            return;
        }
        self.loops = loops;
        let endpoints: Vec<(SocketAddr, String)> = {
            let state = view.read();
            state.peers().into_iter().filter_map(|peer| Some((peer.endpoint?, peer.label()))).take(MAX_WAYS).collect()
        };
        let mut warnings = Vec::new();
        for (endpoint, peer) in endpoints {
            warnings.extend(host.loop_of(netlink, endpoint, &peer).await);
        }
        view.set_warnings(WAYS, warnings);
    }
}
