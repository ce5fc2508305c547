//! The interface of a running daemon: brought up, changed on a reload, taken down.
//!
//! One procedure, `converge`, brings the system from its current state to what a [`Footprint`] wants. It asks the
//! kernel for the current state instead of trusting its own memory, because the kernel removes more than it is asked
//! to: the last IPv4 address of an interface takes all its IPv4 routes along, and a primary address takes its
//! secondaries.

mod detours;
mod guarding;
mod paths;
mod places;
mod rules;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use overlay_os::netlink::{Interest, MAIN_TABLE, Netlink, NetlinkError, Noticed, Route, Rule};
use overlay_os::nft;
use overlay_os::tun::Tun;

use self::detours::Detours;
use self::paths::Paths;
use super::collisions::{Depth, collisions};
use super::facts::{HostFacts, PutBack};
use super::footprint::{FIRST_MARKED_TABLE, Footprint, PlannedRoute};
use super::guard::Guard;
use super::journal::Journal;
use super::link_settings::refuse_configuration;
use super::mtu::{carried, mtu_range_past, widened};
use super::netlink_failure;
use super::preflight::ipv6_usable;
use super::watch::Looked;
use super::ways;
use crate::config::{Config, Endpoint, MtuRange};
use crate::failure::Failure;
use crate::warnings::StatusWarning;

/// How many packets and super-packets may wait for the engine. The kernel cannot hold a sender back at a TUN: what does
/// not fit is dropped. With 64 TCP streams at 5 Gbit/s, a queue of 128 lost more than one in ten packets, and a loaded
/// ping took 8 ms instead of 12. A queue of 256 lost 2 to 4 in 100 and gained nothing in the median. A queue of 500
/// loses almost nothing, because receive windows end before the queue does. A queue of 1,000 changed nothing more, and
/// datagrams that no window holds back would wait twice as long.
pub(crate) const TUN_QUEUE_LEN: u32 = 500;

/// What this daemon has added to the host around its TUN.
#[derive(Debug)]
pub struct Host {
    interface: String,
    index: u32,
    /// The footprint that is in place.
    standing: Footprint,
    /// Whether the interface has come up. From then on, another program has removed whatever is missing.
    is_up: bool,
    /// The policy rules exactly as they were added.
    rules: Vec<Rule>,
    /// The table for the destinations of refused routes, once there was one.
    detours: Option<Detours>,
    /// The nft table.
    guard: Guard,
    /// Whether others may send through this host.
    forward: bool,
    /// Where peers are reached, as far as is known.
    endpoints: Vec<IpAddr>,
    /// The mark that the config names.
    configured_mark: Option<u32>,
    /// The kernel's own routes for our addresses, as the kernel created them or as we changed them.
    connected: Vec<Route>,
    /// Planned routes that another program has replaced with its own.
    replaced: Vec<IpNet>,
    /// What is known about the paths behind the routes.
    paths: Paths,
    /// What was missing in the last look.
    put_back: PutBack,
    facts: Arc<HostFacts>,
}

impl Host {
    /// Installs the nft table, gives the interface its addresses, MTU and routes, brings it up, and adds rules. The
    /// interface gets the maximum of `mtu`, but at least 1280, and the routes get the start value. On an error
    /// everything is removed again.
    ///
    /// Afterwards the UDP sockets must get the mark that [`Host::fwmark`] returns, before the first datagram is sent.
    pub async fn bring_up(
        netlink: &Netlink,
        journal: &mut Journal,
        tun: &Tun,
        config: &Config,
        mtu: MtuRange,
    ) -> Result<Self, Failure> {
        let mut host = Self {
            interface: tun.name().to_owned(),
            index: tun.index(),
            standing: Footprint::none(),
            is_up: false,
            rules: Vec::new(),
            detours: None,
            guard: Guard::new(tun.name(), config.interface.guard),
            forward: config.interface.forward,
            endpoints: endpoints_of(config),
            configured_mark: config.interface.fwmark,
            connected: Vec::new(),
            replaced: Vec::new(),
            paths: Paths::default(),
            put_back: PutBack::default(),
            facts: Arc::new(HostFacts::new(tun.name())),
        };
        journal.record_interface(host.index)?;
        let was_guarded = journal.has_nft_table();
        if !host.has_ipv6() && config.interface.addresses.iter().any(|net| matches!(net, IpNet::V6(_))) {
            tracing::warn!("this host has IPv6 switched off: the IPv6 addresses of the config are left out");
        }
        match host.start(netlink, journal, config, mtu).await {
            Ok(()) => Ok(host),
            Err(failure) => {
                // What cannot be undone stays in the journal for the next clean-up. So does a guard that was installed
                // before.
                match was_guarded {
                    true => drop(host.remove_rules(netlink, journal).await),
                    false => drop(host.remove_rules_and_table(netlink, journal).await),
                }
                Err(failure)
            }
        }
    }

    /// Brings the system to what `new` wants. If that fails, the previous state is restored as well as possible.
    ///
    /// Errors: [`crate::failure::ExitKind::Conflict`] if an address or route that is new in `new` is taken by another
    /// device. In that case nothing was changed.
    pub async fn apply(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        new: &Config,
        mtu: MtuRange,
    ) -> Result<(), Failure> {
        let wanted = self.plan(netlink, new, mtu).await?;
        self.require_no_new_collision(netlink, new, &wanted).await?;
        let old = self.standing.clone();
        let (mode, forward) = (self.guard.mode(), self.forward);
        self.guard.set_mode(new.interface.guard);
        self.forward = new.interface.forward;
        let done = self.converge(netlink, journal, wanted).await;
        let looked = self.report(None);
        if !looked.put_back.is_empty() {
            tracing::info!("restored what another program had removed: {}", looked.put_back);
        }
        if let Err(failure) = done {
            self.guard.set_mode(mode);
            self.forward = forward;
            if let Err(second) = self.converge(netlink, journal, old).await {
                tracing::error!(error = %second, "the state before the reload could not be restored");
            }
            return Err(failure);
        }
        self.configured_mark = new.interface.fwmark;
        Ok(())
    }

    /// Checks whether [`Host::apply`] would find an address or a route taken. Changes nothing.
    ///
    /// # Errors
    /// The same as [`Host::apply`].
    pub async fn check(&self, netlink: &Netlink, new: &Config, mtu: MtuRange) -> Result<(), Failure> {
        let wanted = self.plan(netlink, new, mtu).await?;
        self.require_no_new_collision(netlink, new, &wanted).await
    }

    /// Returns warnings for addresses and routes of ours that have also appeared on other devices. Without `routes`,
    /// only addresses are compared.
    pub async fn collisions(&self, netlink: &Netlink, config: &Config, routes: bool) -> Vec<StatusWarning> {
        let depth = if routes { Depth::Routes } else { Depth::Addresses };
        let found = collisions(netlink, config, &self.standing, Some(self.index), depth).await;
        found.unwrap_or_default().iter().map(|collision| collision.warning()).collect()
    }

    /// Returns a warning if packets to this endpoint of the peer are routed into the tunnel.
    pub async fn loop_of(&self, netlink: &Netlink, endpoint: SocketAddr, peer: &str) -> Option<StatusWarning> {
        ways::loop_of(netlink, &self.standing, self.index, self.fwmark(), endpoint, peer).await
    }

    /// Removes what does not vanish with the TUN. The TUN is to be closed afterwards, and takes its addresses and
    /// routes along. Continues after an error. Returns one line for each thing that is still there. If there is any,
    /// the journal stays too.
    pub async fn take_down(mut self, netlink: &Netlink, mut journal: Journal) -> Vec<String> {
        let left = self.remove_rules_and_table(netlink, &mut journal).await;
        if left.is_empty() {
            journal.finish();
        }
        left
    }

    /// Returns what to listen for, so that [`Host::look`] is called in time.
    pub fn interest(&self) -> Interest {
        Interest {
            index: self.index,
            nft_table: nft::table_name(&self.interface).unwrap_or_default(),
            marked_table: self.standing.marked.map(|marked| marked.table),
        }
    }

    /// Checks that the footprint is in place, restores what is missing, and updates the guard to its surroundings.
    /// `endpoints` are the current endpoints of the peers. What cannot be restored is skipped and reported.
    pub async fn look(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        noticed: Noticed,
        endpoints: Vec<IpAddr>,
    ) -> Looked {
        self.endpoints = endpoints;
        let standing = self.standing.clone();
        let done = match noticed.ours {
            true => self.converge(netlink, journal, standing).await,
            false => match self.look_around(netlink, &standing).await {
                Ok(around) => {
                    self.guard_only(journal, &standing, &around).await;
                    let led = self.converge_detours(netlink, &standing, &around).await;
                    let ruled = self.converge_rules(netlink, journal, &standing).await;
                    led.and(ruled)
                }
                Err(failure) => Err(failure),
            },
        };
        let failed = done.err().map(|failure| failure.to_string());
        self.report(failed.or_else(|| self.guard.lost()))
    }

    /// Records that another program keeps undoing what is restored. The dispute counts as over after `span` without a
    /// new sign of it.
    pub fn on_contested(&self, span: Duration) {
        self.facts.on_contested(Instant::now() + span);
    }

    /// The state of the footprint, for status and metrics.
    pub fn facts(&self) -> Arc<HostFacts> {
        Arc::clone(&self.facts)
    }

    /// Returns the mark that outer datagrams need: the config's, or that of the table for default routes, or none.
    pub fn fwmark(&self) -> Option<u32> {
        self.configured_mark.or(self.standing.marked.map(|marked| marked.mark))
    }

    /// Like [`super::mtu_range`], for a reload: our own default routes are not taken for the route to an endpoint.
    pub async fn mtu_range(&self, netlink: &Netlink, config: &Config, endpoints: &[SocketAddr]) -> MtuRange {
        mtu_range_past(netlink, config, endpoints, self.fwmark()).await
    }

    /// Widens `range` to what the routes to recently learned endpoints carry. The start value stays.
    pub async fn widened(&self, netlink: &Netlink, range: MtuRange, endpoints: &[SocketAddr]) -> MtuRange {
        widened(netlink, range, endpoints, self.fwmark()).await
    }

    /// Returns the longest inner packet that reaches this endpoint according to what routers, or someone in their name,
    /// told the kernel.
    pub async fn told_mtu(&self, netlink: &Netlink, endpoint: &SocketAddr) -> Option<u16> {
        let route = netlink.route_to(endpoint.ip(), self.fwmark()).await.ok()??;
        route.told_mtu.map(|outer| carried(endpoint, outer))
    }

    /// The index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The footprint that is in place.
    pub fn footprint(&self) -> &Footprint {
        &self.standing
    }

    async fn start(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        config: &Config,
        mtu: MtuRange,
    ) -> Result<(), Failure> {
        self.prevent_link_local(netlink).await;
        if let Err(error) = netlink.set_tx_queue_len(self.index, TUN_QUEUE_LEN).await {
            tracing::warn!(%error, "the queue of `{}` keeps the kernel's length", self.interface);
        }
        refuse_configuration(&self.interface);
        let wanted = self.plan(netlink, config, mtu).await?;
        self.converge(netlink, journal, wanted).await
    }

    /// Whether the interface can carry IPv6 now. Other programs may change that at any time.
    fn has_ipv6(&self) -> bool {
        ipv6_usable(&self.interface)
    }

    async fn prevent_link_local(&self, netlink: &Netlink) {
        if self.has_ipv6()
            && let Err(error) = netlink.set_addr_gen_mode_none(self.index).await
        {
            // The kernel then assigns a link-local address, which does no harm.
            tracing::debug!(%error, "addr_gen_mode could not be set");
        }
    }

    /// Refuses new collisions. What was in place before is not judged again: a later arrival on another device is at
    /// fault, and `status` reports it.
    async fn require_no_new_collision(
        &self,
        netlink: &Netlink,
        new: &Config,
        wanted: &Footprint,
    ) -> Result<(), Failure> {
        let found = collisions(netlink, new, wanted, Some(self.index), Depth::Routes).await?;
        match found.iter().find(|collision| !collision.is_standing(&self.standing)) {
            Some(collision) => Err(collision.refusal(new)),
            None => Ok(()),
        }
    }

    async fn plan(&self, netlink: &Netlink, config: &Config, mtu: MtuRange) -> Result<Footprint, Failure> {
        let table = match self.standing.marked {
            Some(marked) => marked.table,
            None => {
                let routes = netlink.routes().await.map_err(|error| self.failure("list routes", &error))?;
                free_table(&routes)
            }
        };
        let mut plan = Footprint::plan(config, mtu, self.has_ipv6(), table);
        let there = netlink.addresses().await.map_err(|error| self.failure("list addresses", &error))?;
        let elsewhere = there.iter().filter(|other| other.index != self.index).map(|other| other.ip);
        let elsewhere: HashSet<IpAddr> = elsewhere.collect();
        plan.shared = plan.addresses.iter().map(IpNet::addr).filter(|ours| elsewhere.contains(ours)).collect();
        Ok(plan)
    }

    async fn converge(&mut self, netlink: &Netlink, journal: &mut Journal, wanted: Footprint) -> Result<(), Failure> {
        // The guard is installed before what it guards.
        let around = self.look_around(netlink, &wanted).await?;
        self.guard_both(journal, &wanted, &around).await;
        // Rules are removed first and added last, so that none of them ever points to a table without routes.
        if wanted.marked != self.standing.marked {
            self.remove_rules(netlink, journal).await?;
        }
        // If nothing is to change, a part that cannot be restored must not keep the other parts from being restored.
        let is_look = self.is_up && wanted == self.standing;
        let mut placed = self.converge_places(netlink, &wanted, is_look).await;
        if !is_look {
            std::mem::replace(&mut placed, Ok(()))?;
        }
        let led = self.converge_detours(netlink, &wanted, &around).await;
        let ruled = self.converge_rules(netlink, journal, &wanted).await;
        if is_look {
            return placed.and(led).and(ruled);
        }
        led.and(ruled)?;
        self.guard_only(journal, &wanted, &around).await;
        self.standing = wanted;
        self.is_up = true;
        self.forget_unrouted_prefixes();
        Ok(())
    }

    /// Reports what was restored since the last report, and what could not be.
    fn report(&mut self, failed: Option<String>) -> Looked {
        let put_back = std::mem::take(&mut self.put_back);
        self.facts.on_put_back(&put_back);
        self.facts.on_looked(failed.clone(), self.replaced.iter().map(IpNet::to_string).collect());
        Looked { put_back, failed }
    }

    fn route(&self, planned: &PlannedRoute) -> Route {
        Route { table: planned.table, mtu: planned.mtu, ..Route::to_interface(planned.destination, self.index) }
    }

    async fn remove_rules_and_table(&mut self, netlink: &Netlink, journal: &mut Journal) -> Vec<String> {
        let mut left = Vec::new();
        if let Err(failure) = self.remove_rules(netlink, journal).await {
            left.push(failure.to_string());
        }
        left.extend(self.guard.remove(journal).await.err());
        left
    }

    fn failure(&self, step: &str, error: &NetlinkError) -> Failure {
        netlink_failure(format!("cannot {step} on `{}`", self.interface), error)
    }
}

/// Returns the endpoint addresses in the config.
fn endpoints_of(config: &Config) -> Vec<IpAddr> {
    let literal = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => Some(address.ip()),
        Endpoint::Name { .. } => None,
    };
    config.peers.iter().filter_map(|peer| literal(peer.endpoint.as_ref()?)).collect()
}

/// Returns the first table without routes, starting at wg-quick's number.
fn free_table(routes: &[Route]) -> u32 {
    let used: HashSet<u32> = routes.iter().map(|route| route.table).collect();
    (FIRST_MARKED_TABLE..).find(|table| !used.contains(table)).unwrap_or(FIRST_MARKED_TABLE)
}

#[cfg(test)]
mod tests;
