//! The state of the footprint: what was restored, what is missing, what the guard does and what it has dropped.
//!
//! The host writes these facts while it looks after the footprint. Status and metrics read them at any time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use overlay_os::nft::{self, Counters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many refused routes a warning names.
const SHOWN_ROUTES: usize = 4;

/// A kind of thing that `up` adds to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An address of the interface.
    Address,
    /// The link state of the interface, which must be up.
    Link,
    /// The interface's MTU.
    Mtu,
    /// A route, or its MTU.
    Route,
    /// A policy rule.
    Rule,
    /// The nft table.
    NftTable,
}

/// What was found missing and restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutBack(BTreeMap<Part, u64>);

/// Whether everything that `up` adds to the host is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Everything is in place.
    Intact,
    /// Another program keeps removing parts of it. They are restored, but more and more slowly.
    Contested,
    /// Part of it is missing and cannot be restored, or this host does not support it. `warnings` says what.
    Incomplete,
}

/// The state of the guard: the nft table that drops packets to virtual IPs that arrive elsewhere and, with a /0,
/// packets that would leave outside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// The guard is in place.
    On,
    /// The config has switched it off.
    Off,
    /// This host does not support it.
    Unavailable,
}

/// The state of the footprint on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Whether everything that `up` adds is in place.
    pub state: HostState,
    /// How often something was restored after another program had removed it: `address`, `link`, `mtu`, `route`,
    /// `rule`, `nft_table`.
    pub restored: BTreeMap<String, u64>,
    /// The state of the nft table.
    pub guard: GuardState,
    /// How many packets the nft table dropped: `weak_host` (sent to a virtual IP through a different interface),
    /// `outside_tunnel` (covered by a /0 and about to leave through a different interface).
    pub guard_drops: BTreeMap<String, u64>,
    /// Other interfaces through which the virtual IPs are reachable: those of this host's own containers.
    pub own_interfaces: Vec<String>,
    /// What is missing, and the consequences.
    pub warnings: Vec<String>,
}

/// What is known about the footprint of a running daemon.
#[derive(Debug)]
pub struct HostFacts {
    interface: String,
    restored: [AtomicU64; Part::ALL.len()],
    told: RwLock<Told>,
}

#[derive(Debug)]
struct Told {
    guard: GuardState,
    own_interfaces: Vec<String>,
    /// Why the guard is not available.
    without_guard: Option<String>,
    /// What the last look could not restore.
    failed: Option<String>,
    /// Our routes that another program has replaced with its own.
    replaced: Vec<String>,
    /// Routes of other origin that are not followed past the tunnel.
    refused_routes: Vec<String>,
    contested_until: Option<Instant>,
    /// The counters of the nft table when it was last read.
    counted: Counters,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 6] = [Self::Address, Self::Link, Self::Mtu, Self::Route, Self::Rule, Self::NftTable];

    /// The name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Link => "link",
            Self::Mtu => "mtu",
            Self::Route => "route",
            Self::Rule => "rule",
            Self::NftTable => "nft_table",
        }
    }
}

impl PutBack {
    pub(super) fn note(&mut self, part: Part) {
        *self.0.entry(part).or_default() += 1;
    }

    /// Whether nothing was missing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PutBack {
    /// Formats a list such as `2 policy rules, the nft table`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.iter().map(|(part, count)| {
            let plural = if *count == 1 { "" } else { "s" };
            match part {
                Part::Address if *count > 1 => format!("{count} addresses"),
                Part::Address => "1 address".to_owned(),
                Part::Link => "the interface, which was down".to_owned(),
                Part::Mtu => "the MTU of the interface".to_owned(),
                Part::Route => format!("{count} route{plural}"),
                Part::Rule => format!("{count} policy rule{plural}"),
                Part::NftTable => "the nft table".to_owned(),
            }
        });
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

impl HostState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Intact, Self::Contested, Self::Incomplete];

    /// The name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Contested => "contested",
            Self::Incomplete => "incomplete",
        }
    }
}

impl HostFacts {
    /// The facts at the start, before anything was added to the host.
    pub(crate) fn new(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            restored: Default::default(),
            told: RwLock::new(Told {
                guard: GuardState::Off,
                own_interfaces: Vec::new(),
                without_guard: None,
                failed: None,
                replaced: Vec::new(),
                refused_routes: Vec::new(),
                contested_until: None,
                counted: Counters::default(),
            }),
        }
    }

    /// Returns the facts for status.
    pub fn status(&self) -> HostStatus {
        let guard_drops = self.guard_drops().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let told = self.read();
        HostStatus {
            state: told.state(),
            restored: self.restored().map(|(part, count)| (part.name().to_owned(), count)).collect(),
            guard: told.guard,
            guard_drops,
            own_interfaces: told.own_interfaces.clone(),
            warnings: told.warnings(),
        }
    }

    /// Whether everything is in place.
    pub fn state(&self) -> HostState {
        self.read().state()
    }

    /// How often each kind of part was restored.
    pub fn restored(&self) -> impl Iterator<Item = (Part, u64)> {
        Part::ALL.into_iter().zip(self.restored.iter().map(|count| count.load(Relaxed)))
    }

    /// Returns what the nft table has dropped so far, according to the kernel.
    pub fn guard_drops(&self) -> [(&'static str, u64); 2] {
        // If the kernel does not answer, the table is missing at the moment, and a new one continues from the last
        // count.
        let counted = nft::counters(&self.interface).ok().flatten().unwrap_or_else(|| self.counted());
        self.write().counted = counted;
        [("weak_host", counted.weak_host), ("outside_tunnel", counted.outside_tunnel)]
    }

    /// Returns the counters of the nft table when it was last read.
    pub(super) fn counted(&self) -> Counters {
        self.read().counted
    }

    pub(super) fn on_put_back(&self, put_back: &PutBack) {
        for (part, count) in &put_back.0 {
            if let Some(total) = Part::ALL.iter().position(|other| other == part).and_then(|at| self.restored.get(at)) {
                total.fetch_add(*count, Relaxed);
            }
        }
    }

    /// Records the result of a look: what it could not restore (`None` if everything is in place) and which routes were
    /// replaced.
    pub(super) fn on_looked(&self, failed: Option<String>, replaced: Vec<String>) {
        let mut told = self.write();
        (told.failed, told.replaced) = (failed, replaced);
    }

    pub(super) fn on_guard(&self, guard: GuardState, own_interfaces: Vec<String>, without: Option<String>) {
        let mut told = self.write();
        (told.guard, told.own_interfaces, told.without_guard) = (guard, own_interfaces, without);
    }

    /// Records the routes of this host that are not followed past the tunnel.
    pub(super) fn on_refused_routes(&self, routes: Vec<String>) {
        self.write().refused_routes = routes;
    }

    pub(super) fn on_contested(&self, until: Instant) {
        self.write().contested_until = Some(until);
    }

    fn read(&self) -> RwLockReadGuard<'_, Told> {
        self.told.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Told> {
        self.told.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn state(&self) -> HostState {
        if self.failed.is_some() || self.guard == GuardState::Unavailable {
            HostState::Incomplete
        } else if self.is_contested() {
            HostState::Contested
        } else {
            HostState::Intact
        }
    }

    fn is_contested(&self) -> bool {
        self.contested_until.is_some_and(|until| Instant::now() < until)
    }

    fn warnings(&self) -> Vec<String> {
        let contested = self.is_contested().then(|| {
            "another program keeps removing what overlay adds to this host: it is restored less and less often"
                .to_owned()
        });
        let replaced = match self.replaced.as_slice() {
            [] => None,
            replaced => Some(format!("another program's route has replaced ours: {}", replaced.join(", "))),
        };
        let refused = (!self.refused_routes.is_empty()).then(|| {
            let shown: Vec<&str> = self.refused_routes.iter().take(SHOWN_ROUTES).map(String::as_str).collect();
            let more = match self.refused_routes.len().saturating_sub(SHOWN_ROUTES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!(
                "the local network supplies routes past the tunnel, which are not followed: {}{more}",
                shown.join(", ")
            )
        });
        let warnings = [self.without_guard.clone(), self.failed.clone(), contested, replaced, refused];
        warnings.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay_golden::golden;

    use super::*;

    #[test]
    fn what_was_put_back_is_counted_by_kind_and_told_in_words() {
        let facts = HostFacts::new("ovt0");
        let mut put_back = PutBack::default();
        assert!(put_back.is_empty());
        for part in [Part::Rule, Part::Rule, Part::NftTable, Part::Address, Part::Route, Part::Link, Part::Mtu] {
            put_back.note(part);
        }
        facts.on_put_back(&put_back);
        facts.on_put_back(&put_back);
        assert_eq!(facts.restored().map(|(_, count)| count).collect::<Vec<_>>(), [2, 2, 2, 2, 4, 2]);
        golden("one of each, and two rules", put_back.to_string());
    }

    #[test]
    fn the_state_is_the_worst_of_what_is_known() {
        let facts = HostFacts::new("no such interface");
        facts.on_guard(GuardState::On, vec!["br0".to_owned()], None);
        assert_eq!((facts.state(), facts.status().warnings.len()), (HostState::Intact, 0));
        facts.on_looked(None, vec!["10.1.0.0/16".to_owned()]);
        let status = facts.status();
        assert_eq!(status.state, HostState::Intact, "the other program has it as it wants it");
        assert_eq!(status.warnings.len(), 1);
        golden("another program's route", &status.warnings[0]);
        facts.on_contested(Instant::now() + Duration::from_secs(60));
        assert_eq!(facts.state(), HostState::Contested);
        facts.on_looked(Some("cannot add the address".to_owned()), Vec::new());
        assert_eq!(facts.state(), HostState::Incomplete);
        facts.on_looked(None, Vec::new());
        facts.on_contested(Instant::now());
        assert_eq!(facts.state(), HostState::Intact);
        facts.on_guard(GuardState::Unavailable, Vec::new(), Some("nft is not installed".to_owned()));
        assert_eq!(facts.state(), HostState::Incomplete);
        assert_eq!(facts.status().warnings, ["nft is not installed"]);
    }
}
