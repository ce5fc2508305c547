//! How the footprint fares, for whoever asks: what was put back, what is missing, what the guard does and has dropped.
//!
//! The host writes it while it looks after the footprint; status and metrics read it whenever they like.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use overlay_os::nft::{self, Counters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of thing that `up` adds to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An address of the interface.
    Address,
    /// That the interface is up.
    Link,
    /// The interface's MTU.
    Mtu,
    /// A route, or the MTU it says.
    Route,
    /// A policy rule.
    Rule,
    /// The nft table.
    NftTable,
}

/// What was found missing and put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutBack(BTreeMap<Part, u64>);

/// Whether everything that `up` adds to the host is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// All of it.
    Intact,
    /// Another program keeps taking some of it away; it is put back, but more and more slowly.
    Contested,
    /// Some of it is missing and cannot be put back, or this host cannot have it; `warnings` say what.
    Incomplete,
}

/// What the guard does: the nft table that drops packets to virtual IPs from elsewhere, and with a /0 what would leave past
/// the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardState {
    /// It stands.
    On,
    /// The config has switched it off.
    Off,
    /// This host cannot have it.
    Unavailable,
}

/// How the footprint on the host fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// Whether everything that `up` adds is there.
    pub state: HostState,
    /// How often something was put back that another program had taken away: `address`, `link`, `mtu`, `route`, `rule`,
    /// `nft_table`.
    pub restored: BTreeMap<String, u64>,
    /// What the nft table does.
    pub guard: GuardState,
    /// Packets that the nft table dropped: `weak_host` (to a virtual IP, by another interface), `outside_tunnel` (covered by
    /// a /0, on their way out by another interface).
    pub guard_drops: BTreeMap<String, u64>,
    /// Other interfaces by which the virtual IPs are reached: this host's own containers.
    pub own_interfaces: Vec<String>,
    /// What is missing, and what follows from that.
    pub warnings: Vec<String>,
}

/// What is known of the footprint of a running daemon.
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
    /// Why the guard cannot be had.
    without_guard: Option<String>,
    /// What the last look could not put back.
    failed: Option<String>,
    /// Routes that another program has put its own in the place of.
    replaced: Vec<String>,
    contested_until: Option<Instant>,
    /// What the nft table had counted when it was last asked.
    counted: Counters,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Address, Self::Link, Self::Mtu, Self::Route, Self::Rule, Self::NftTable];

    /// Its name in metrics and JSON.
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
    /// `2 policy rules, the nft table`.
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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Intact, Self::Contested, Self::Incomplete];

    /// Its name in metrics and JSON.
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
                contested_until: None,
                counted: Counters::default(),
            }),
        }
    }

    /// For status.
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

    /// Whether everything is there.
    pub fn state(&self) -> HostState {
        self.read().state()
    }

    /// How often each part was put back.
    pub fn restored(&self) -> impl Iterator<Item = (Part, u64)> {
        Part::ALL.into_iter().zip(self.restored.iter().map(|count| count.load(Relaxed)))
    }

    /// What the nft table has dropped, as the kernel says now.
    pub fn guard_drops(&self) -> [(&'static str, u64); 2] {
        // Where it does not answer, the table is gone for the moment and counts on from here.
        let counted = nft::counters(&self.interface).ok().flatten().unwrap_or_else(|| self.counted());
        self.write().counted = counted;
        [("weak_host", counted.weak_host), ("outside_tunnel", counted.outside_tunnel)]
    }

    /// What the nft table had counted when it was last asked.
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

    /// What a look could not put back; `None`: all of it is there.
    pub(super) fn on_looked(&self, failed: Option<String>, replaced: Vec<String>) {
        let mut told = self.write();
        (told.failed, told.replaced) = (failed, replaced);
    }

    pub(super) fn on_guard(&self, guard: GuardState, own_interfaces: Vec<String>, without: Option<String>) {
        let mut told = self.write();
        (told.guard, told.own_interfaces, told.without_guard) = (guard, own_interfaces, without);
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
            "another program keeps taking away what overlay adds to this host: it is put back less and less often"
                .to_owned()
        });
        let replaced = match self.replaced.as_slice() {
            [] => None,
            replaced => Some(format!("another program's route is in the place of ours: {}", replaced.join(", "))),
        };
        [self.without_guard.clone(), self.failed.clone(), contested, replaced].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert_eq!(
            put_back.to_string(),
            "1 address, the interface, which was down, the MTU of the interface, 1 route, 2 policy rules, the nft table"
        );
    }

    #[test]
    fn the_state_is_the_worst_of_what_is_known() {
        let facts = HostFacts::new("no such interface");
        facts.on_guard(GuardState::On, vec!["br0".to_owned()], None);
        assert_eq!((facts.state(), facts.status().warnings.len()), (HostState::Intact, 0));
        facts.on_looked(None, vec!["10.1.0.0/16".to_owned()]);
        let status = facts.status();
        assert_eq!(status.state, HostState::Intact, "the other program has it as it wants it");
        assert_eq!(status.warnings, ["another program's route is in the place of ours: 10.1.0.0/16"]);
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
