//! The policy rules of a default route: the first of its two locks.
//!
//! They are those of wg-quick. Destinations for which the main table has a more specific route than its default go
//! there. All other traffic without our mark goes to our own table, whose default route leads into the tunnel. If this
//! host does not support the second lock, a third rule takes its place: traffic that finds no route into the tunnel
//! finds no route at all, so that losing the routes or the daemon leaks nothing. Only losing the rules themselves
//! leaks, until they are restored.

use std::collections::HashSet;
use std::path::Path;

use overlay_os::netlink::{Family, MAIN_TABLE, Netlink, NetlinkError, Rule};

use super::{Host, Journal};
use crate::failure::{ExitKind, Failure};
use crate::host::facts::Part;
use crate::host::footprint::MarkedTable;
use crate::host::leftovers::describe_rule;
use crate::host::mtu::default_routes;

/// The priority of the kernel's rule for the main table.
const MAIN_RULE: u32 = 32766;

impl Host {
    /// Adds the rules, or restores those that another program has removed, each with its former priority.
    pub(super) async fn converge_rules(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        marked: MarkedTable,
    ) -> Result<(), Failure> {
        let standing = netlink.rules().await.map_err(|error| self.failure("list policy rules", &error))?;
        if self.rules.is_empty() {
            return self.add_rules(netlink, journal, marked, &standing).await;
        }
        for rule in self.rules.clone().iter().filter(|rule| !standing.contains(rule)) {
            match netlink.add_rule(rule).await {
                Ok(()) => self.put_back.note(Part::Rule),
                Err(NetlinkError::Exists) => {}
                Err(error) => return Err(self.failure(&format!("add {}", describe_rule(rule)), &error)),
            }
        }
        Ok(())
    }

    async fn add_rules(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        marked: MarkedTable,
        standing: &[Rule],
    ) -> Result<(), Failure> {
        let mut planned = Vec::new();
        for (family, wanted) in [(Family::V4, marked.v4), (Family::V6, marked.v6)] {
            if wanted {
                let rules = rules_of(marked, family, !self.guard.is_missing());
                let priority = free_priorities(standing, family, rules.len()).ok_or_else(|| {
                    Failure::new(ExitKind::Conflict, "cannot add policy rules for the default route")
                        .with_cause("no priority is free before those that stand")
                        .with_hint("look at: ip rule; or set `table` to a number and route by hand")
                })?;
                planned.extend((priority..).zip(rules).map(|(at, rule)| Rule { priority: Some(at), ..rule }));
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

    /// Warns about a strict reverse path filter: the kernel would drop the peers' replies, because the route back leads
    /// into the tunnel. wg-quick changes sysctls and connection marks of the host for that. We only report what is in
    /// the way.
    async fn warn_of_strict_reverse_path(&self, netlink: &Netlink) {
        let (Ok(links), Ok(routes)) = (netlink.links().await, netlink.routes().await) else { return };
        let everywhere = rp_filter("all");
        for index in default_routes(&routes).filter_map(|route| route.interface).collect::<HashSet<_>>() {
            let Some(link) = links.iter().find(|link| link.index == index) else { continue };
            // The kernel uses the larger of the two values: 1 is strict, 2 is loose.
            if everywhere.max(rp_filter(&link.name)) == 1 {
                tracing::warn!(
                    "the reverse path filter of {0} is strict and would drop what peers send: sysctl -w net.ipv4.conf.{0}.rp_filter=2",
                    link.name
                );
            }
        }
    }

    pub(super) async fn remove_rules(&mut self, netlink: &Netlink, journal: &mut Journal) -> Result<(), Failure> {
        while let Some(rule) = self.rules.last() {
            match netlink.delete_rule(rule).await {
                Ok(()) | Err(NetlinkError::NotFound) => self.rules.pop(),
                Err(error) => return Err(self.failure(&format!("remove {}", describe_rule(rule)), &error)),
            };
        }
        journal.record_rules(&[])
    }
}

/// Returns wg-quick's two rules, in the order in which the kernel evaluates them. Destinations for which the main table
/// has a more specific route than its default go there. All other traffic without our mark goes into the tunnel.
/// Without the second lock, a third rule keeps it from going anywhere else.
fn rules_of(marked: MarkedTable, family: Family, has_guard: bool) -> Vec<Rule> {
    let mut rules =
        vec![Rule::without_default_route(family, MAIN_TABLE), Rule::unless_marked(family, marked.mark, marked.table)];
    rules.extend((!has_guard).then(|| Rule::unreachable_unless_marked(family, marked.mark)));
    rules
}

/// Returns the first of `count` unused priorities in a row, right before every rule of the family except that of the
/// local table (0), which is where the kernel would put wg-quick's rules. Explicit priorities make our rules differ
/// from equal rules of other programs. Returns `None` if there is no room.
fn free_priorities(rules: &[Rule], family: Family, count: usize) -> Option<u32> {
    let used = rules.iter().filter(|rule| rule.family == family).filter_map(|rule| rule.priority);
    let first = used.filter(|priority| *priority > 0).min().unwrap_or(MAIN_RULE);
    first.checked_sub(u32::try_from(count).ok()?).filter(|priority| *priority > 0)
}

/// Returns the reverse path filter of an interface, or of `all`: 0 off, 1 strict, 2 loose.
fn rp_filter(interface: &str) -> u8 {
    std::fs::read_to_string(Path::new("/proc/sys/net/ipv4/conf").join(interface).join("rp_filter"))
        .ok()
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}
