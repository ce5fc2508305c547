//! Warnings about parts of the running daemon that no longer work because the host changed around them.
//!
//! Nothing is refused or removed because of such a change: our part was there first, or the change could not be foreseen.
//! A check every ten seconds costs two short lists. Routes are listed after a reload and while one of them is known to be
//! in the way. Routes to endpoints are requested when one of our own outer datagrams was routed into the tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::DropReason;
use overlay_os::netlink::Netlink;
use tokio::time::Interval;

use crate::config::Config;
use crate::host::Host;
use crate::view::View;

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(10);

/// How soon after learning an endpoint its route is checked. One check covers all endpoints learned meanwhile, because
/// it lists the host's routes.
const SOON: Duration = Duration::from_secs(1);

/// How many endpoints' routes are checked at once.
const MAX_ENDPOINTS: usize = 256;

const COLLISIONS: &str = "collisions";
const ENDPOINTS: &str = "endpoints";

/// What was known at the last look.
#[derive(Debug)]
pub(super) struct Standing {
    /// When the next look is due.
    timer: Interval,
    has_looked: bool,
    /// Whether an endpoint was learned since the last check.
    has_news: bool,
    loops: u64,
}

impl Standing {
    /// Starts the timer. The first look is due at once. Must be called on a tokio runtime.
    pub(super) fn start() -> Self {
        Self { timer: tokio::time::interval(PERIOD), has_looked: false, has_news: false, loops: 0 }
    }

    /// Waits until a look is due. Can be cancelled.
    pub(super) async fn next(&mut self) {
        self.timer.tick().await;
    }

    /// Makes a look due soon, because an endpoint was learned. Endpoints that are learned until then do not delay it.
    pub(super) fn on_endpoint(&mut self) {
        if !std::mem::replace(&mut self.has_news, true) {
            self.timer.reset_after(SOON);
        }
    }

    /// Looks, and updates the warnings. `is_new` says that peers, routes or endpoints have just changed.
    pub(super) async fn on_look(&mut self, netlink: &Netlink, host: &Host, config: &Config, view: &View, is_new: bool) {
        // Names may have been resolved before the first look.
        let is_new = is_new || !std::mem::replace(&mut self.has_looked, true);
        let is_new = std::mem::take(&mut self.has_news) || is_new;
        let routes = is_new || view.has_warnings(COLLISIONS);
        view.set_warnings(COLLISIONS, host.collisions(netlink, config, routes).await);

        let loops = view.node_stats().drops(DropReason::OutboundLoop);
        if !is_new && loops == self.loops && !view.has_warnings(ENDPOINTS) {
            return;
        }
        self.loops = loops;
        let endpoints: Vec<(SocketAddr, String)> = {
            let state = view.table().read();
            state
                .peers()
                .into_iter()
                .filter_map(|peer| Some((peer.endpoint?, peer.label())))
                .take(MAX_ENDPOINTS)
                .collect()
        };
        let mut warnings = Vec::new();
        for (endpoint, peer) in endpoints {
            warnings.extend(host.loop_of(netlink, endpoint, &peer).await);
        }
        view.set_warnings(ENDPOINTS, warnings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_answers_bring_one_look_a_second() {
        let mut standing = Standing::start();
        standing.next().await;
        let began = tokio::time::Instant::now();
        let mut looks = 0;
        for _ in 0..10_000 {
            standing.on_endpoint();
            let answer = tokio::time::sleep(Duration::from_millis(1));
            tokio::select! {
                biased;
                () = standing.next() => {
                    standing.has_news = false;
                    looks += 1;
                }
                () = answer => {}
            }
        }
        let seconds = began.elapsed().as_secs();
        assert!((seconds - 1..=seconds).contains(&looks), "{looks} looks in {seconds} s");
    }
}
