//! The interface of a running daemon: brought up, changed on a reload, taken down.
//!
//! One procedure, `converge`, brings the system from whatever stands to what a [`Footprint`] wants. It asks the kernel
//! what is there rather than trusting its memory, because the kernel takes more away than it is told to: the last IPv4
//! address of an interface takes all its IPv4 routes along, and a primary address its secondaries.

mod paths;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::IpNet;
use overlay_os::netlink::{Address, Family, MAIN_TABLE, Netlink, NetlinkError, Route, Rule};
use overlay_os::nft;
use overlay_os::tun::Tun;

use self::paths::Paths;
use super::collisions::{Depth, collisions};
use super::footprint::{FIRST_MARKED_TABLE, Footprint, MarkedTable, PlannedRoute};
use super::journal::Journal;
use super::leftovers::describe_rule;
use super::mtu::{carried, default_routes, mtu_range_past, widened};
use super::netlink_failure;
use super::preflight::ipv6_usable;
use super::ways;
use crate::config::{Config, MtuRange};
use crate::failure::{ExitKind, Failure};
use crate::view::StatusWarning;

/// Priority of the kernel's rule for the main table.
const MAIN_RULE: u32 = 32766;

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
    /// The policy rules exactly as they were added.
    rules: Vec<Rule>,
    /// The addresses in the nft table, when it is installed.
    guarded: Option<Vec<IpAddr>>,
    /// The mark that the config names.
    configured_mark: Option<u32>,
    /// The kernel's own routes of our addresses, as it made them or we changed them.
    connected: Vec<Route>,
    /// What is known of the paths behind the routes.
    paths: Paths,
}

impl Host {
    /// Gives the interface its addresses, MTU and routes, brings it up, and adds rules and the nft table. Of `mtu` the
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
            rules: Vec::new(),
            guarded: None,
            configured_mark: config.interface.fwmark,
            connected: Vec::new(),
            paths: Paths::default(),
        };
        journal.record_interface(host.index)?;
        if !host.ipv6 && config.interface.addresses.iter().any(|net| matches!(net, IpNet::V6(_))) {
            tracing::warn!("this host has IPv6 switched off: the IPv6 addresses of the config are left out");
        }
        match host.start(netlink, journal, config, mtu).await {
            Ok(()) => Ok(host),
            Err(failure) => {
                // What cannot be undone stays in the journal for the next clean-up.
                let _ = host.remove_rules_and_table(netlink, journal).await;
                Err(failure)
            }
        }
    }

    /// Brings what stands to what `new` wants. When that fails, what stood before is restored as well as can be.
    ///
    /// Errors: [`ExitKind::Conflict`] where an address or a route that was not there before is taken by another device;
    /// nothing was changed then.
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
        if let Err(failure) = self.converge(netlink, journal, wanted).await {
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
        if self.ipv6
            && let Err(error) = netlink.set_addr_gen_mode_none(self.index).await
        {
            // The kernel gives it a link-local address then, which does no harm.
            tracing::debug!(%error, "addr_gen_mode");
        }
        if let Err(error) = netlink.set_tx_queue_len(self.index, TUN_QUEUE_LEN).await {
            tracing::warn!(%error, "the queue of `{}` keeps the kernel's length", self.interface);
        }
        let wanted = self.plan(netlink, config, mtu).await?;
        self.converge(netlink, journal, wanted).await
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
        // Rules first on the way down and last on the way up: never does one lead into a table without routes.
        if wanted.marked != self.standing.marked {
            self.remove_rules(netlink, journal).await?;
        }
        self.remove_routes(netlink, &wanted).await?;
        self.converge_addresses(netlink, &wanted).await?;
        netlink
            .set_mtu(self.index, wanted.mtu.into())
            .await
            .map_err(|error| self.failure(&format!("set the MTU to {}", wanted.mtu), &error))?;
        netlink.set_up(self.index).await.map_err(|error| self.failure("bring the interface up", &error))?;
        self.add_routes(netlink, &wanted).await?;
        self.converge_nft_table(journal, &wanted).await?;
        if let Some(marked) = wanted.marked
            && self.rules.is_empty()
        {
            self.add_rules(netlink, journal, marked).await?;
        }
        self.standing = wanted;
        self.forget_unrouted_paths();
        Ok(())
    }

    async fn remove_routes(&self, netlink: &Netlink, wanted: &Footprint) -> Result<(), Failure> {
        let (planned, beside) = self.routes_with(wanted);
        let keep: HashSet<(IpNet, u32)> =
            planned.into_iter().chain(beside).map(|route| (route.destination, route.table)).collect();
        let is_gone = |route: &PlannedRoute| !keep.contains(&(route.destination, route.table));
        let (planned, beside) = self.routes_with(&self.standing);
        let failure =
            |gone: PlannedRoute, error| self.failure(&format!("remove the route to {}", gone.destination), &error);
        for gone in planned.into_iter().filter(is_gone) {
            match netlink.delete_route(&self.route(&gone)).await {
                Ok(()) | Err(NetlinkError::NotFound) => {}
                Err(error) => return Err(failure(gone, error)),
            }
        }
        for gone in beside.into_iter().filter(is_gone) {
            self.give_up(netlink, &gone).await.map_err(|error| failure(gone, error))?;
        }
        Ok(())
    }

    /// New ones first, so that what is talking from an old one has somewhere to go; then once more, because a primary
    /// address takes its secondaries along.
    async fn converge_addresses(&self, netlink: &Netlink, wanted: &Footprint) -> Result<(), Failure> {
        self.add_addresses(netlink, wanted).await?;
        let gone: Vec<_> = self.standing.addresses.iter().filter(|net| !wanted.addresses.contains(net)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        for net in gone {
            match netlink.delete_address(self.index, net.addr(), net.prefix_len()).await {
                Ok(()) | Err(NetlinkError::NotFound) => {}
                Err(error) => return Err(self.failure(&format!("remove the address {net}"), &error)),
            }
        }
        self.add_addresses(netlink, wanted).await
    }

    async fn add_addresses(&self, netlink: &Netlink, wanted: &Footprint) -> Result<(), Failure> {
        let present = netlink.addresses().await.map_err(|error| self.failure("list addresses", &error))?;
        for net in &wanted.addresses {
            let ours = |there: &Address| {
                there.index == self.index && there.ip == net.addr() && there.prefix == net.prefix_len()
            };
            if !present.iter().any(ours) {
                netlink
                    .add_address(self.index, net.addr(), net.prefix_len())
                    .await
                    .map_err(|error| self.failure(&format!("add the address {net}"), &error))?;
            }
        }
        Ok(())
    }

    async fn add_routes(&mut self, netlink: &Netlink, wanted: &Footprint) -> Result<(), Failure> {
        let (planned, beside) = self.routes_with(wanted);
        let routes = netlink.routes().await.map_err(|error| self.failure("list routes", &error))?;
        let ours = || routes.iter().filter(|route| route.interface == Some(self.index));
        let present: HashMap<(IpNet, u32), Option<u32>> =
            ours().map(|route| ((route.destination.trunc(), route.table), route.mtu)).collect();
        for route in &planned {
            let added = match present.get(&(route.destination, route.table)) {
                Some(mtu) if *mtu == route.mtu => continue,
                Some(_) => netlink.replace_route(&self.route(route)).await,
                None => netlink.add_route(&self.route(route)).await,
            };
            added.map_err(|error| self.failure(&format!("add the route to {}", route.destination), &error))?;
        }

        let is_connected = |route: &&Route| route.is_connected() && route.table == MAIN_TABLE;
        let connected: HashSet<IpNet> = wanted.connected().collect();
        let mut standing = Vec::with_capacity(connected.len());
        for route in ours().filter(is_connected).filter(|route| connected.contains(&route.destination)) {
            let wanted = Route { mtu: self.connected_mtu(wanted, &route.destination), ..route.clone() };
            if wanted != *route {
                netlink.replace_route(&wanted).await.map_err(|error| {
                    self.failure(&format!("set the MTU of the route to {}", route.destination), &error)
                })?;
            }
            standing.push(wanted);
        }
        self.connected = standing;

        for route in &beside {
            let added = match present.get(&(route.destination, route.table)) {
                Some(mtu) if *mtu == route.mtu => continue,
                Some(_) => self.renew(netlink, route).await,
                None => netlink.add_route(&self.route(route)).await,
            };
            if let Err(error) = added {
                self.on_refused(route.destination, &error);
                self.forget_path(&route.destination);
            }
        }
        Ok(())
    }

    fn route(&self, planned: &PlannedRoute) -> Route {
        Route { table: planned.table, mtu: planned.mtu, ..Route::to_interface(planned.destination, self.index) }
    }

    /// Without nft the virtual IPs answer on every interface, as with WireGuard; the user is told.
    async fn converge_nft_table(&mut self, journal: &mut Journal, wanted: &Footprint) -> Result<(), Failure> {
        let guarded = wanted.virtual_ips();
        if self.guarded.as_ref() == Some(&guarded) {
            return Ok(());
        }
        if !nft::is_available() {
            tracing::warn!("nft is not installed: packets to the virtual IPs that arrive elsewhere are not dropped");
            return Ok(());
        }
        journal.record_nft_table(true)?;
        match nft::install(&self.interface, &guarded).await {
            Ok(()) => self.guarded = Some(guarded),
            // A kernel without nf_tables, most often in a container.
            Err(error) => {
                tracing::warn!(%error, "packets to the virtual IPs that arrive elsewhere are not dropped");
                if self.guarded.is_none() {
                    journal.record_nft_table(false)?;
                }
            }
        }
        Ok(())
    }

    async fn add_rules(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        marked: MarkedTable,
    ) -> Result<(), Failure> {
        let standing = netlink.rules().await.map_err(|error| self.failure("list policy rules", &error))?;
        let mut planned = Vec::new();
        for (family, wanted) in [(Family::V4, marked.v4), (Family::V6, marked.v6)] {
            if wanted {
                let priority = free_priorities(&standing, family).ok_or_else(|| {
                    Failure::new(ExitKind::Conflict, "cannot add policy rules for the default route")
                        .with_cause("no priority is free before those that stand")
                        .with_hint("look at: ip rule; or set `table` to a number and route by hand")
                })?;
                planned.extend(rules_of(marked, family, priority));
            }
        }
        journal.record_rules(&planned)?;
        for rule in planned {
            netlink
                .add_rule(&rule)
                .await
                .map_err(|error| self.failure(&format!("add {}", describe_rule(&rule)), &error))?;
            self.rules.push(rule);
        }
        if marked.v4 {
            self.warn_of_strict_reverse_path(netlink).await;
        }
        Ok(())
    }

    /// With a strict reverse path filter the kernel drops what peers answer, because the way back leads into the
    /// tunnel. wg-quick changes sysctls and connection marks of the host for that; we say what is in the way.
    async fn warn_of_strict_reverse_path(&self, netlink: &Netlink) {
        let (Ok(links), Ok(routes)) = (netlink.links().await, netlink.routes().await) else { return };
        let everywhere = rp_filter("all");
        for index in default_routes(&routes).filter_map(|route| route.interface).collect::<HashSet<_>>() {
            let Some(link) = links.iter().find(|link| link.index == index) else { continue };
            // The kernel takes the larger of the two; 1 is strict, 2 is loose.
            if everywhere.max(rp_filter(&link.name)) == 1 {
                tracing::warn!(
                    "the reverse path filter of {0} is strict and would drop what peers send: sysctl -w net.ipv4.conf.{0}.rp_filter=2",
                    link.name
                );
            }
        }
    }

    async fn remove_rules(&mut self, netlink: &Netlink, journal: &mut Journal) -> Result<(), Failure> {
        while let Some(rule) = self.rules.last() {
            match netlink.delete_rule(rule).await {
                Ok(()) | Err(NetlinkError::NotFound) => self.rules.pop(),
                Err(error) => return Err(self.failure(&format!("remove {}", describe_rule(rule)), &error)),
            };
        }
        journal.record_rules(&[])
    }

    async fn remove_rules_and_table(&mut self, netlink: &Netlink, journal: &mut Journal) -> Vec<String> {
        let mut left = Vec::new();
        if let Err(failure) = self.remove_rules(netlink, journal).await {
            left.push(failure.to_string());
        }
        if self.guarded.take().is_some() {
            match nft::remove(&self.interface).await {
                Ok(()) => left.extend(journal.record_nft_table(false).err().map(|failure| failure.to_string())),
                Err(error) => left.push(format!("cannot remove the nft table overlay_{}: {error}", self.interface)),
            }
        }
        left
    }

    fn failure(&self, step: &str, error: &NetlinkError) -> Failure {
        netlink_failure(format!("cannot {step} on `{}`", self.interface), error)
    }
}

/// The first table from wg-quick's on that has no routes.
fn free_table(routes: &[Route]) -> u32 {
    let used: HashSet<u32> = routes.iter().map(|route| route.table).collect();
    (FIRST_MARKED_TABLE..).find(|table| !used.contains(table)).unwrap_or(FIRST_MARKED_TABLE)
}

/// The two rules of wg-quick, in the order in which the kernel asks them: what the main table knows better than by its
/// default route goes there; everything else that does not carry our mark goes into the tunnel.
fn rules_of(marked: MarkedTable, family: Family, priority: u32) -> [Rule; 2] {
    [
        Rule { priority: Some(priority), ..Rule::without_default_route(family, MAIN_TABLE) },
        Rule { priority: Some(priority + 1), ..Rule::unless_marked(family, marked.mark, marked.table) },
    ]
}

/// Two unused priorities in a row, right before every rule of the family but that of the local table (0): where the
/// kernel puts wg-quick's. Naming them makes our rules differ from equal ones of other programs. `None`: there is no
/// room before them.
fn free_priorities(rules: &[Rule], family: Family) -> Option<u32> {
    let used = rules.iter().filter(|rule| rule.family == family).filter_map(|rule| rule.priority);
    let first = used.filter(|priority| *priority > 0).min().unwrap_or(MAIN_RULE);
    first.checked_sub(2).filter(|priority| *priority > 0)
}

/// The reverse path filter of an interface, or of `all`: 0 off, 1 strict, 2 loose.
fn rp_filter(interface: &str) -> u8 {
    std::fs::read_to_string(Path::new("/proc/sys/net/ipv4/conf").join(interface).join("rp_filter"))
        .ok()
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
