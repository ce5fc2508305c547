//! Keeps the guard in place while things change.
//!
//! First it covers both the old and the new state, then the change is made, and then it covers only the new state.

use overlay_os::netlink::Netlink;
use overlay_os::nft::NftError;

use super::{Footprint, Host, Journal};
use crate::failure::Failure;
use crate::host::facts::GuardState;
use crate::host::guard;
use crate::host::netlink_failure;
use crate::host::surroundings::{self, Question, Surroundings};

impl Host {
    /// Collects what the guard of this footprint must know about the host.
    pub(super) async fn look_around(&self, netlink: &Netlink, wanted: &Footprint) -> Result<Surroundings, Failure> {
        let cannot = |what: &str| {
            let what = format!("cannot list the {what} of this host");
            move |error| netlink_failure(what, &error)
        };
        let question = Question { ours: self.index, forward: self.forward, endpoints: &self.endpoints };
        let links = match self.guard.knows_own_interfaces() {
            true => netlink.links().await.map_err(cannot("interfaces"))?,
            false => Vec::new(),
        };
        let has_candidates = surroundings::has_candidates(&links, &question);
        let is_locked = wanted.covered.is_any() || self.standing.covered.is_any();
        if !has_candidates && !is_locked {
            return Ok(Surroundings::default());
        }
        let routes = netlink.routes().await.map_err(cannot("routes"))?;
        let (own, names) = surroundings::own_interfaces(&links, &routes, &question);
        let planned = wanted.routes.iter().map(|route| route.destination).chain(wanted.connected());
        let beside = match is_locked {
            true => {
                let addresses = netlink.addresses().await.map_err(cannot("addresses"))?;
                surroundings::beside_the_tunnel(&routes, &addresses, self.index, planned)
            }
            false => Surroundings::default(),
        };
        Ok(Surroundings { own, names, ..beside })
    }

    /// Guards both the current and the wanted state. Called before anything changes.
    pub(super) async fn guard_both(&mut self, journal: &mut Journal, wanted: &Footprint, around: &Surroundings) {
        let standing = self.standing.clone();
        self.converge_guard(journal, &[&standing, wanted], around).await;
    }

    /// Guards only the wanted state. Called after everything has changed.
    pub(super) async fn guard_only(&mut self, journal: &mut Journal, wanted: &Footprint, around: &Surroundings) {
        self.converge_guard(journal, &[wanted], around).await;
    }

    /// Installs the table that guards these footprints, or removes it if the config wants none. Without nft the virtual
    /// IPs answer on every interface, as with WireGuard, and only the policy rules keep a default route inside the tunnel.
    /// That is logged once.
    async fn converge_guard(&mut self, journal: &mut Journal, footprints: &[&Footprint], around: &Surroundings) {
        if !self.guard.is_wanted() {
            if let Err(line) = self.guard.remove(journal).await {
                tracing::warn!("{line}");
            }
            self.facts.on_guard(GuardState::Off, Vec::new(), None);
            return;
        }
        let table = guard::table(&self.interface, footprints, around);
        let locked = table.lock.as_ref().map(|lock| match (lock.v4, lock.v6) {
            (true, false) => "the IPv4 default route",
            (false, _) => "the IPv6 default route",
            (true, true) => "the default routes of IPv4 and IPv6",
        });
        let done = self.guard.install(journal, &self.facts, &mut self.put_back, table).await;
        let Err(error) = done else {
            self.guard.on_installed(None);
            self.facts.on_guard(GuardState::On, around.names.clone(), None);
            return;
        };
        let mut complaint = match error {
            NftError::Missing => {
                "nft is not installed: packets to the virtual IPs that arrive on other interfaces are not dropped"
                    .to_owned()
            }
            // A kernel without nf_tables, most often in a container.
            error => format!("packets to the virtual IPs that arrive on other interfaces are not dropped: {error}"),
        };
        if let Some(families) = locked {
            complaint += &format!(", and policy rules alone keep {families} inside the tunnel");
        }
        if self.guard.on_installed(Some(complaint.clone())) {
            tracing::warn!("{complaint}");
        }
        self.facts.on_guard(GuardState::Unavailable, Vec::new(), Some(complaint));
    }
}
