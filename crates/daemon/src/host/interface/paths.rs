//! Routes that carry the MTU of the paths behind them.
//!
//! While nothing is known about a path, the route into it carries the start value. When the engine finds that a peer's
//! path carries more or less, the routes to that peer's prefixes must follow: the planned route, the connected route,
//! or an additional route beside the connected one. The kernel then never creates packets that do not fit, and uses the
//! full size of wide paths.
//!
//! A prefix is *dirty* when something happened that its route may have to follow: its path was found to be different,
//! or it moved from one peer to another. Dirty prefixes wait in a queue, each at most once. A few at a time are
//! settled, according to the state at that moment. A flood of news about one path therefore costs no more than the last
//! of them.
//!
//! What the kernel has learned from ICMP ("too big", kept for ten minutes) belongs to the route it was learned for, and
//! is dropped when a route with a different MTU replaces that route. If an additional route were deleted, the covering
//! route could bring such an entry back. An additional route therefore stays as long as its prefix belongs to a peer
//! whose path is known, even if it has the same MTU as the covering route.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Footprint, Host, IpNet, Netlink, NetlinkError, PlannedRoute, Route};
use crate::host::footprint::Place;

/// How many prefixes are settled at once. Each costs a request to the kernel, and requests to the supervisor wait for
/// all of them.
const AT_ONCE: usize = 64;

/// What is known about the paths behind prefixes, and which prefixes are dirty.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// Prefixes whose routes follow a path, with the path's MTU.
    known: HashMap<IpNet, u16>,
    dirty: VecDeque<IpNet>,
    /// The content of `dirty` as a set: at most as many as there are prefixes.
    queued: HashSet<IpNet>,
    /// Prefixes whose routes the kernel refused when they were last set. While this is not empty, a warning is already
    /// in the log.
    failing: HashSet<IpNet>,
}

impl Host {
    /// Makes prefixes dirty: their owner, or what is known about the path to it, may have changed.
    pub fn on_dirty(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        for prefix in prefixes {
            if self.paths.queued.insert(prefix) {
                self.paths.dirty.push_back(prefix);
            }
        }
    }

    /// Whether [`Host::take_dirty`] has something to give.
    pub fn has_dirty(&self) -> bool {
        !self.paths.dirty.is_empty()
    }

    /// Takes some dirty prefixes from the queue. The caller settles each with [`Host::set_path_mtu`].
    pub fn take_dirty(&mut self) -> Vec<IpNet> {
        let Paths { dirty, queued, .. } = &mut self.paths;
        let taken: Vec<_> = dirty.drain(..dirty.len().min(AT_ONCE)).collect();
        for prefix in &taken {
            queued.remove(prefix);
        }
        taken
    }

    /// Returns every prefix whose route follows a path.
    pub fn routed_prefixes(&self) -> Vec<IpNet> {
        self.paths.known.keys().copied().collect()
    }

    /// Applies the MTU of the path to this prefix: the inner packet size `mtu`, or `None` if nothing is known or no
    /// peer owns the prefix any more. If the route to the prefix is ours, it carries this MTU when the call returns. If
    /// the kernel refuses, that is a warning: the node then answers packets that are too long, as before.
    pub async fn set_path_mtu(&mut self, netlink: &Netlink, prefix: IpNet, mtu: Option<u16>) {
        let before = self.paths.known.get(&prefix).copied();
        let Some(place) = self.standing.place_of(&prefix) else {
            self.paths.known.remove(&prefix);
            self.paths.failing.remove(&prefix);
            return;
        };
        let says = |known: Option<u16>| match known {
            None if matches!(place, Place::Beside(_)) => None,
            known => Some(self.standing.route_mtu(&prefix, known.unwrap_or(self.standing.start))),
        };
        let is_as_covered = mtu.is_some_and(|mtu| self.is_as_covered(&prefix, mtu));
        let wanted = match before {
            // The covering route already says the same.
            None if matches!(place, Place::Beside(_)) && is_as_covered => None,
            _ => says(mtu),
        };
        let done = match (says(before), wanted) {
            (stands, wanted) if stands == wanted => Ok(()),
            (_, Some(mtu)) => self.say(netlink, prefix, place, mtu, before.is_none()).await,
            (_, None) => self.give_up(netlink, &self.planned(prefix, place, None)).await,
        };
        match done {
            Ok(()) => {
                self.paths.failing.remove(&prefix);
                match mtu.filter(|_| wanted.is_some()) {
                    Some(mtu) => _ = self.paths.known.insert(prefix, mtu),
                    None => _ = self.paths.known.remove(&prefix),
                }
            }
            Err(error) => {
                if matches!(place, Place::Beside(_)) {
                    self.paths.known.remove(&prefix);
                }
                self.on_refused(prefix, &error);
            }
        }
    }

    /// Records that the kernel refused to change the route to this prefix. A route of another program in its place is
    /// not worth a warning.
    pub(super) fn on_refused(&mut self, prefix: IpNet, error: &NetlinkError) {
        let is_news = !matches!(error, NetlinkError::Exists) && self.paths.failing.is_empty();
        if is_news {
            tracing::warn!(%error, %prefix, "a route through `{}` does not follow the MTU of its path", self.interface);
        } else {
            tracing::debug!(%error, %prefix, "the route does not follow the MTU of its path");
        }
        match error {
            NetlinkError::Exists => _ = self.paths.failing.remove(&prefix),
            _ => _ = self.paths.failing.insert(prefix),
        }
    }

    /// Changes the MTU of a route beside its covering route. A route that has replaced ours is left alone, with
    /// [`NetlinkError::Exists`]. Between the two requests, the covering route leads the same way.
    pub(super) async fn renew(&self, netlink: &Netlink, beside: &PlannedRoute) -> Result<(), NetlinkError> {
        self.give_up(netlink, beside).await?;
        netlink.add_route(&self.route(beside)).await
    }

    /// Deletes a route beside its covering route, if it is still ours.
    pub(super) async fn give_up(&self, netlink: &Netlink, beside: &PlannedRoute) -> Result<(), NetlinkError> {
        match netlink.delete_route_as_set(&self.route(beside)).await {
            Err(NetlinkError::NotFound) => Ok(()),
            done => done,
        }
    }

    /// Returns the planned routes of this footprint and the additional ones beside them, with the MTU of known paths.
    pub(super) fn routes_with(&self, footprint: &Footprint) -> (Vec<PlannedRoute>, Vec<PlannedRoute>) {
        let said = |route: &PlannedRoute| match self.paths.known.get(&route.destination) {
            Some(path) => PlannedRoute { mtu: footprint.route_mtu(&route.destination, *path), ..*route },
            None => *route,
        };
        let planned = footprint.routes.iter().map(said).collect();
        let beside = |(prefix, path): (&IpNet, &u16)| match footprint.place_of(prefix)? {
            place @ Place::Beside(_) => Some(self.planned(*prefix, place, footprint.route_mtu(prefix, *path))),
            Place::Planned(_) | Place::Connected => None,
        };
        (planned, self.paths.known.iter().filter_map(beside).collect())
    }

    /// Returns the MTU that the connected route of this prefix must carry.
    pub(super) fn connected_mtu(&self, footprint: &Footprint, prefix: &IpNet) -> Option<u32> {
        match self.paths.known.get(prefix) {
            Some(path) if footprint.place_of(prefix) == Some(Place::Connected) => footprint.route_mtu(prefix, *path),
            _ => footprint.connected_mtu(prefix),
        }
    }

    /// Forgets a path because another program has a route to exactly this prefix, which is left alone.
    pub(super) fn forget_path(&mut self, prefix: &IpNet) {
        self.paths.known.remove(prefix);
    }

    /// Forgets the paths of prefixes that our routes no longer lead to. Called when the wanted state is in place.
    pub(super) fn forget_unrouted_prefixes(&mut self) {
        let standing = &self.standing;
        self.paths.known.retain(|prefix, _| standing.place_of(prefix).is_some());
        self.paths.failing.retain(|prefix| standing.place_of(prefix).is_some());
    }

    async fn say(
        &self,
        netlink: &Netlink,
        prefix: IpNet,
        place: Place,
        mtu: Option<u32>,
        is_first: bool,
    ) -> Result<(), NetlinkError> {
        let planned = self.planned(prefix, place, mtu);
        match place {
            Place::Connected => {
                let Some(connected) = self.connected.iter().find(|route| route.destination == prefix) else {
                    return Ok(());
                };
                netlink.replace_route(&Route { mtu, ..connected.clone() }).await
            }
            // Fails if another program has a route to this prefix, which is left alone.
            Place::Beside(_) if is_first => netlink.add_route(&self.route(&planned)).await,
            Place::Beside(_) => self.renew(netlink, &planned).await,
            // Replaced in one step, so that no packet finds the route missing.
            Place::Planned(_) => netlink.replace_route(&self.route(&planned)).await,
        }
    }

    fn planned(&self, destination: IpNet, place: Place, mtu: Option<u32>) -> PlannedRoute {
        let table = match place {
            Place::Planned(table) | Place::Beside(table) => table,
            Place::Connected => super::MAIN_TABLE,
        };
        PlannedRoute { destination, table, mtu }
    }

    /// Whether the route that covers this prefix carries this MTU.
    fn is_as_covered(&self, prefix: &IpNet, mtu: u16) -> bool {
        self.standing.covering(prefix).is_some_and(|(net, _)| {
            let path = self.paths.known.get(&net).copied().unwrap_or(self.standing.start);
            self.standing.route_mtu(&net, path) == self.standing.route_mtu(prefix, mtu)
        })
    }
}

#[cfg(test)]
mod tests;
