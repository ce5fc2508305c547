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

use super::detours::Detours;
use super::{Host, Journal};
use crate::failure::{ExitKind, Failure};
use crate::host::facts::Part;
use crate::host::footprint::{Covered, Footprint};
use crate::host::leftovers::describe_rule;
use crate::host::mtu::default_routes;

/// The priority of the kernel's rule for the main table.
const MAIN_RULE: u32 = 32766;

impl Host {
    /// Adds the rules, or restores those that another program has removed, each with its former priority. Rules that
    /// were made for a different plan are replaced.
    pub(super) async fn converge_rules(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        wanted: &Footprint,
    ) -> Result<(), Failure> {
        let planned = planned_rules(wanted, self.detours, !self.guard.is_missing());
        // A kernel without IPv6 has no IPv6 rules.
        let fits = |rule: &&Rule| rule.family == Family::V4 || self.rules.iter().any(|rule| rule.family == Family::V6);
        let anywhere = |rule: &Rule| Rule { priority: None, ..*rule };
        if !self.rules.is_empty() && !self.rules.iter().map(anywhere).eq(planned.iter().filter(fits).copied()) {
            return self.replace_rules(netlink, journal, planned).await;
        }
        if planned.is_empty() {
            return Ok(());
        }
        let standing = netlink.rules().await.map_err(|error| self.failure("list policy rules", &error))?;
        if self.rules.is_empty() {
            return self.add_rules(netlink, journal, planned, &[], &standing).await;
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

    /// Adds the new rules before the old ones, and only then removes those, so that rules are in place at every moment.
    async fn replace_rules(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        planned: Vec<Rule>,
    ) -> Result<(), Failure> {
        let standing = netlink.rules().await.map_err(|error| self.failure("list policy rules", &error))?;
        let old = std::mem::take(&mut self.rules);
        let added = self.add_rules(netlink, journal, planned, &old, &standing).await;
        if added.is_err() {
            // `add_rules` has removed the new ones again.
            self.rules = old;
            return added;
        }
        for rule in old {
            match netlink.delete_rule(&rule).await {
                Ok(()) | Err(NetlinkError::NotFound) => {}
                Err(error) => {
                    let failure = self.failure(&format!("remove {}", describe_rule(&rule)), &error);
                    self.rules.push(rule);
                    return Err(failure);
                }
            }
        }
        let rules = self.rules.clone();
        journal.record_rules(&rules)
    }

    /// Adds all of the rules or none. `kept` are rules of ours that stand and stay in the journal.
    async fn add_rules(
        &mut self,
        netlink: &Netlink,
        journal: &mut Journal,
        planned: Vec<Rule>,
        kept: &[Rule],
        standing: &[Rule],
    ) -> Result<(), Failure> {
        let mut placed = Vec::with_capacity(planned.len());
        for family in [Family::V4, Family::V6] {
            let rules: Vec<Rule> = planned.iter().copied().filter(|rule| rule.family == family).collect();
            let priority = free_priorities(standing, family, rules.len()).ok_or_else(|| {
                Failure::new(ExitKind::Conflict, "cannot add policy rules for the default route")
                    .with_cause("no priority is free before the existing rules")
                    .with_hint("ip rule shows them; or set `table` to a number and route by hand")
            })?;
            placed.extend((priority..).zip(rules).map(|(at, rule)| Rule { priority: Some(at), ..rule }));
        }
        let recorded: Vec<Rule> = placed.iter().chain(kept).copied().collect();
        journal.record_rules(&recorded)?;
        for rule in &placed {
            if let Err(error) = netlink.add_rule(rule).await {
                // A kernel without IPv6 sends no IPv6 past the tunnel either.
                if rule.family == Family::V6 && matches!(error, NetlinkError::Unsupported) {
                    continue;
                }
                let failure = self.failure(&format!("add {}", describe_rule(rule)), &error);
                self.remove_rules(netlink, journal).await?;
                journal.record_rules(kept)?;
                return Err(failure);
            }
            self.rules.push(*rule);
        }
        if placed.iter().any(|rule| rule.family == Family::V4) {
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

/// Returns the rules of a footprint without their priorities, in the order in which the kernel evaluates them.
///
/// A family with a route into the tunnel gets wg-quick's two rules. Destinations for which the main table has a more
/// specific route than its default go there. All other traffic without our mark goes into the tunnel. Without the
/// second lock, a third rule keeps it from going anywhere else. A covered family that the interface cannot carry has
/// no route into the tunnel. Without the second lock it gets the first and the third rule.
///
/// If there are detours, a rule before all of these consults their table.
fn planned_rules(wanted: &Footprint, detours: Option<Detours>, has_guard: bool) -> Vec<Rule> {
    let Some(marked) = wanted.marked else { return Vec::new() };
    let Covered { v4, v6 } = wanted.covered;
    let mut rules = Vec::new();
    for (family, is_routed, is_covered) in [(Family::V4, marked.v4, v4), (Family::V6, marked.v6, v6)] {
        let is_shut = is_covered && !has_guard;
        let detours = detours.filter(|detours| if family == Family::V4 { detours.v4 } else { detours.v6 });
        rules.extend(detours.map(|detours| Rule::unless_marked(family, marked.mark, detours.table)));
        rules.extend((is_routed || is_shut).then(|| Rule::without_default_route(family, MAIN_TABLE)));
        rules.extend(is_routed.then(|| Rule::unless_marked(family, marked.mark, marked.table)));
        rules.extend(is_shut.then(|| Rule::unreachable_unless_marked(family, marked.mark)));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MtuRange;
    use crate::host::footprint::tests::config;

    #[test]
    fn a_covered_family_is_shut_in_by_the_guard_or_by_a_rule() {
        let plan = |allowed: &[&str], ipv6| {
            let config = config(&["10.77.0.1/24", "fd77::1/64"], &[allowed], "fwmark = 7");
            Footprint::plan(&config, MtuRange::fixed(1420), ipv6, 51820)
        };
        let open = |family| Rule::without_default_route(family, MAIN_TABLE);
        let into = |family| Rule::unless_marked(family, 7, 7);
        let shut = |family| Rule::unreachable_unless_marked(family, 7);
        let (v4, v6) = (Family::V4, Family::V6);
        let both = plan(&["0.0.0.0/0", "::/0"], true);
        assert_eq!(planned_rules(&both, None, true), [open(v4), into(v4), open(v6), into(v6)]);
        assert_eq!(planned_rules(&both, None, false), [open(v4), into(v4), shut(v4), open(v6), into(v6), shut(v6)]);
        // The interface cannot carry IPv6.
        let narrow = plan(&["0.0.0.0/0", "::/0"], false);
        assert_eq!(planned_rules(&narrow, None, true), [open(v4), into(v4)]);
        assert_eq!(planned_rules(&narrow, None, false), [open(v4), into(v4), shut(v4), open(v6), shut(v6)]);
        assert_eq!(planned_rules(&plan(&["::/0"], false), None, false), [open(v6), shut(v6)]);
        assert_eq!(planned_rules(&plan(&["0.0.0.0/0"], true), None, false), [open(v4), into(v4), shut(v4)]);
        assert_eq!(planned_rules(&plan(&["10.0.0.0/8"], true), None, false), []);
    }
}
