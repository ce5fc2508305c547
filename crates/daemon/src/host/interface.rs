//! The interface of a running daemon: brought up, changed on a reload, taken down.
//!
//! One procedure, `converge`, brings the system from whatever stands to what a [`Footprint`] wants. It asks the kernel
//! what is there rather than trusting its memory, because the kernel takes more away than it is told to: the last IPv4
//! address of an interface takes all its IPv4 routes along, and a primary address its secondaries.

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

/// Packets and super-packets that wait for the engine at most. At a TUN the kernel cannot hold a sender back: what does not
/// fit is dropped. With 64 TCP streams at 5 Gbit/s a queue of 128 lost more than one in ten, for a loaded ping of 8 ms in
/// place of 12; 256 lost 2 to 4 in 100 and gained nothing in the median; 500 lose next to nothing, as receive windows end
/// before the queue does. 1,000 changed nothing more, and datagrams that no window holds back would wait twice as long.
pub(crate) const TUN_QUEUE_LEN: u32 = 500;

/// What this daemon has added to the host around its TUN.
#[derive(Debug)]
pub struct Host {
    interface: String,
    index: u32,
    ipv6: bool,
    /// What was last asked for and stands.
    standing: Footprint,
    /// Whether it has come up: what is missing from then on, somebody has taken away.
    is_up: bool,
    /// The policy rules exactly as they were added.
    rules: Vec<Rule>,
    /// The table in nft.
    guard: Guard,
    /// Whether others may send through this host.
    forward: bool,
    /// Where peers are reached, as far as is known.
    endpoints: Vec<IpAddr>,
    /// The mark that the config names.
    configured_mark: Option<u32>,
    /// The kernel's own routes of our addresses, as it made them or we changed them.
    connected: Vec<Route>,
    /// Planned routes in whose place another program has put its own.
    replaced: Vec<IpNet>,
    /// What is known of the paths behind the routes.
    paths: Paths,
    /// What was missing in the last look.
    put_back: PutBack,
    facts: Arc<HostFacts>,
}

impl Host {
    /// Writes the nft table, gives the interface its addresses, MTU and routes, brings it up, and adds rules. Of `mtu` the
    /// interface gets the most, 1280 or more, and the routes the start. On an error everything is taken away again.
    ///
    /// Afterwards the UDP sockets get the mark that [`Host::fwmark`] tells, before the first datagram is sent.
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
            ipv6: ipv6_usable(tun.name()),
            standing: Footprint::none(),
            is_up: false,
            rules: Vec::new(),
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
        if !host.ipv6 && config.interface.addresses.iter().any(|net| matches!(net, IpNet::V6(_))) {
            tracing::warn!("this host has IPv6 switched off: the IPv6 addresses of the config are left out");
        }
        match host.start(netlink, journal, config, mtu).await {
            Ok(()) => Ok(host),
            Err(failure) => {
                // What cannot be undone stays in the journal for the next clean-up. So does a guard that stood before.
                match was_guarded {
                    true => drop(host.remove_rules(netlink, journal).await),
                    false => drop(host.remove_rules_and_table(netlink, journal).await),
                }
                Err(failure)
            }
        }
    }

    /// Brings what stands to what `new` wants. When that fails, what stood before is restored as well as can be.
    ///
    /// Errors: [`crate::failure::ExitKind::Conflict`] where an address or a route that was not there before is taken by another
    /// device; nothing was changed then.
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
            tracing::info!("put back what another program had taken away: {}", looked.put_back);
        }
        if let Err(failure) = done {
            self.guard.set_mode(mode);
            self.forward = forward;
            if let Err(second) = self.converge(netlink, journal, old).await {
                tracing::error!(error = %second, "what stood before the reload could not be restored");
            }
            return Err(failure);
        }
        self.configured_mark = new.interface.fwmark;
        Ok(())
    }

    /// Whether [`Host::apply`] would find an address or a route taken. Nothing is changed.
    ///
    /// # Errors
    /// As there.
    pub async fn check(&self, netlink: &Netlink, new: &Config, mtu: MtuRange) -> Result<(), Failure> {
        let wanted = self.plan(netlink, new, mtu).await?;
        self.require_no_new_collision(netlink, new, &wanted).await
    }

    /// What stands and has appeared on other devices too. Without `routes` only addresses are asked for.
    pub async fn collisions(&self, netlink: &Netlink, config: &Config, routes: bool) -> Vec<StatusWarning> {
        let depth = if routes { Depth::Routes } else { Depth::Addresses };
        let found = collisions(netlink, config, &self.standing, Some(self.index), depth).await;
        found.unwrap_or_default().iter().map(|collision| collision.warning()).collect()
    }

    /// What is wrong where packets to this endpoint of the peer go into the tunnel.
    pub async fn loop_of(&self, netlink: &Netlink, endpoint: SocketAddr, peer: &str) -> Option<StatusWarning> {
        ways::loop_of(netlink, &self.standing, self.index, self.fwmark(), endpoint, peer).await
    }

    /// Takes away what does not vanish with the TUN, which is to be closed afterwards and takes its addresses and
    /// routes along. Goes on after an error; returns one line for each thing that is still there. Then the journal
    /// stays too.
    pub async fn take_down(mut self, netlink: &Netlink, mut journal: Journal) -> Vec<String> {
        let left = self.remove_rules_and_table(netlink, &mut journal).await;
        if left.is_empty() {
            journal.finish();
        }
        left
    }

    /// What to listen for, so that [`Host::look`] is called in time.
    pub fn interest(&self) -> Interest {
        Interest {
            index: self.index,
            nft_table: nft::table_name(&self.interface).unwrap_or_default(),
            marked_table: self.standing.marked.map(|marked| marked.table),
        }
    }

    /// Looks whether what stands is there, puts back what is not, and brings the guard up to date with what lies around.
    /// `endpoints` are those where peers are reached now. What cannot be put back is left out, and told.
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
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
        };
        let failed = done.err().map(|failure| failure.to_string());
        self.report(failed.or_else(|| self.guard.lost()))
    }

    /// Another program undoes what is put back, and will have stopped after this span if it does not any more.
    pub fn on_contested(&self, span: Duration) {
        self.facts.on_contested(Instant::now() + span);
    }

    /// How the footprint fares, for status and metrics.
    pub fn facts(&self) -> Arc<HostFacts> {
        Arc::clone(&self.facts)
    }

    /// The mark that outer datagrams need: the config's, else that of the table for default routes, else none.
    pub fn fwmark(&self) -> Option<u32> {
        self.configured_mark.or(self.standing.marked.map(|marked| marked.mark))
    }

    /// [`super::mtu_range`] for a reload: our own default routes are not taken for the way to an endpoint.
    pub async fn mtu_range(&self, netlink: &Netlink, config: &Config, endpoints: &[SocketAddr]) -> MtuRange {
        mtu_range_past(netlink, config, endpoints, self.fwmark()).await
    }

    /// `range`, with room for what the ways to endpoints carry that were learned since it was computed. The start stays.
    pub async fn widened(&self, netlink: &Netlink, range: MtuRange, endpoints: &[SocketAddr]) -> MtuRange {
        widened(netlink, range, endpoints, self.fwmark()).await
    }

    /// The longest inner packet that gets to this endpoint by what routers told the kernel, or somebody in their name.
    pub async fn told_mtu(&self, netlink: &Netlink, endpoint: &SocketAddr) -> Option<u16> {
        let route = netlink.route_to(endpoint.ip(), self.fwmark()).await.ok()??;
        route.told_mtu.map(|outer| carried(endpoint, outer))
    }

    /// Index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What stands.
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

    async fn prevent_link_local(&self, netlink: &Netlink) {
        if self.ipv6
            && let Err(error) = netlink.set_addr_gen_mode_none(self.index).await
        {
            // The kernel gives it a link-local address then, which does no harm.
            tracing::debug!(%error, "addr_gen_mode");
        }
    }

    /// What stands already is not judged again: whoever came later is in the way, and `status` says so.
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
        let mut plan = Footprint::plan(config, mtu, self.ipv6, table);
        let there = netlink.addresses().await.map_err(|error| self.failure("list addresses", &error))?;
        let elsewhere = there.iter().filter(|other| other.index != self.index).map(|other| other.ip);
        let elsewhere: HashSet<IpAddr> = elsewhere.collect();
        plan.shared = plan.addresses.iter().map(IpNet::addr).filter(|ours| elsewhere.contains(ours)).collect();
        Ok(plan)
    }

    async fn converge(&mut self, netlink: &Netlink, journal: &mut Journal, wanted: Footprint) -> Result<(), Failure> {
        // The guard stands before what it guards.
        let around = self.look_around(netlink, &wanted).await?;
        self.guard_both(journal, &wanted, &around).await;
        // Rules first on the way down and last on the way up: never does one lead into a table without routes.
        if wanted.marked != self.standing.marked {
            self.remove_rules(netlink, journal).await?;
        }
        // Where nothing is to change, what cannot be put back must not keep the rest from it.
        let is_look = self.is_up && wanted == self.standing;
        let mut placed = self.converge_places(netlink, &wanted, is_look).await;
        if !is_look {
            std::mem::replace(&mut placed, Ok(()))?;
        }
        let ruled = match wanted.marked {
            Some(marked) => self.converge_rules(netlink, journal, marked).await,
            None => Ok(()),
        };
        if is_look {
            return placed.and(ruled);
        }
        ruled?;
        self.guard_only(journal, &wanted, &around).await;
        self.standing = wanted;
        self.is_up = true;
        self.forget_unrouted_prefixes();
        Ok(())
    }

    /// Tells what was put back since the last time, and what could not be.
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

/// Where the config says that peers are reached.
fn endpoints_of(config: &Config) -> Vec<IpAddr> {
    let literal = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => Some(address.ip()),
        Endpoint::Name { .. } => None,
    };
    config.peers.iter().filter_map(|peer| literal(peer.endpoint.as_ref()?)).collect()
}

/// The first table from wg-quick's on that has no routes.
fn free_table(routes: &[Route]) -> u32 {
    let used: HashSet<u32> = routes.iter().map(|route| route.table).collect();
    (FIRST_MARKED_TABLE..).find(|table| !used.contains(table)).unwrap_or(FIRST_MARKED_TABLE)
}

#[cfg(test)]
mod tests;
