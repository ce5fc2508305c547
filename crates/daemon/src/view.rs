//! What is shown of the running daemon: the one place that local API, UAPI and metrics read.
//!
//! Peers and our own side are in the device's table, and counters are read where the engine keeps them. A request for the
//! status therefore never waits for the packet path, and a slow reader costs no packet.

pub mod metrics;
mod path;
mod path_mtu;
mod status;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use overlay_core::{Instant, NodeStats};

pub use self::path::{NotDirect, PairState, PairStatus, PathStatus, WhyNotDirect};
pub use self::path_mtu::{MtuLimit, PathMtuState, PathMtuStatus, ProbedBy};
pub use self::status::{InterfaceStatus, PeerStatus, Status, rule_text};
use crate::agent::{FriendCounts, LanCounts, Refusals};
use crate::device::Device;
pub use crate::device::table::PeerState;
use crate::device::table::Table;
use crate::engine::{Offload, Offloads, QueueFigures, Queues, ShellStats, now};
use crate::host::HostFacts;
use crate::names::Shown as NamesShown;
pub use crate::path_kind::PathKind;
pub use crate::warnings::StatusWarning;
use crate::warnings::Warnings;

/// What is shown of the running daemon.
pub struct View {
    table: Arc<Table>,
    node: Arc<NodeStats>,
    shell: Arc<ShellStats>,
    queues: OnceLock<Arc<Queues>>,
    host: OnceLock<Arc<HostFacts>>,
    refusals: OnceLock<Arc<Refusals>>,
    friends: OnceLock<Arc<FriendCounts>>,
    lan: OnceLock<Arc<LanCounts>>,
    names: Mutex<Option<NamesShown>>,
    started: Instant,
    warnings: Warnings,
}

impl View {
    /// Creates the view of a device that has just been started.
    pub fn of(device: &Device) -> Arc<Self> {
        let view =
            Self::new(Arc::clone(device.table()), Arc::clone(device.node_stats()), Arc::clone(device.shell_stats()));
        view.watch(Arc::clone(device.queues()));
        view
    }

    fn new(table: Arc<Table>, node: Arc<NodeStats>, shell: Arc<ShellStats>) -> Arc<Self> {
        Arc::new(Self {
            table,
            node,
            shell,
            queues: OnceLock::new(),
            host: OnceLock::new(),
            refusals: OnceLock::new(),
            friends: OnceLock::new(),
            lan: OnceLock::new(),
            names: Mutex::default(),
            started: now(),
            warnings: Warnings::default(),
        })
    }

    /// Sets where the kernel's queues are read. Called once.
    fn watch(&self, queues: Arc<Queues>) {
        let _ = self.queues.set(queues);
    }

    /// Sets where the state of the footprint is read. Called once.
    pub fn attach_host(&self, facts: Arc<HostFacts>) {
        let _ = self.host.set(facts);
    }

    /// Sets where the agent counts what it refuses, what passes between it and its friends, and what is announced on links. Called
    /// once, in agent mode.
    pub(crate) fn attach_agent(&self, refusals: Arc<Refusals>, friends: Arc<FriendCounts>, lan: Arc<LanCounts>) {
        let _ = self.refusals.set(refusals);
        let _ = self.friends.set(friends);
        let _ = self.lan.set(lan);
    }

    /// Sets what is shown of the names of agents.
    pub(crate) fn set_names(&self, names: Option<NamesShown>) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Returns what is shown of the names of agents.
    pub(crate) fn names(&self) -> Option<NamesShown> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns everything that `overlay status` shows.
    pub fn status(&self) -> Status {
        self.status_at(now())
    }

    /// Returns what control knows about the device.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Replaces the warnings of `topic`.
    pub fn set_warnings(&self, topic: &'static str, warnings: Vec<StatusWarning>) {
        self.warnings.set(topic, warnings);
    }

    /// Returns all current warnings.
    pub(crate) fn warnings(&self) -> Vec<StatusWarning> {
        self.warnings.all()
    }

    /// Whether `topic` has a warning.
    pub(crate) fn has_warnings(&self, topic: &str) -> bool {
        self.warnings.has(topic)
    }

    pub(crate) fn node_stats(&self) -> &NodeStats {
        &self.node
    }

    pub(crate) fn shell_stats(&self) -> &ShellStats {
        &self.shell
    }

    /// Returns the state of the footprint on the host, or `None` for a daemon without one.
    pub(crate) fn host(&self) -> Option<&HostFacts> {
        self.host.get().map(Arc::as_ref)
    }

    /// Returns what the agent has refused, or `None` without an agent.
    pub(crate) fn refusals(&self) -> Option<&Refusals> {
        self.refusals.get().map(Arc::as_ref)
    }

    /// Returns what has passed between the agent and its friends, or `None` without an agent.
    pub(crate) fn friends(&self) -> Option<&FriendCounts> {
        self.friends.get().map(Arc::as_ref)
    }

    /// Returns what was announced on the links of this host, or `None` without an agent.
    pub(crate) fn lan(&self) -> Option<&LanCounts> {
        self.lan.get().map(Arc::as_ref)
    }

    /// Returns the current figures of the kernel's queues.
    pub(crate) fn queue_figures(&self) -> QueueFigures {
        self.queues.get().map(|queues| queues.read()).unwrap_or_default()
    }

    /// Returns which offloads are in use. Only the sockets know about segmentation.
    pub(crate) fn offloads(&self) -> &Offloads {
        if self.queues.get().is_some_and(|queues| !queues.all_segment()) {
            self.shell.offloads.on_fallen_back(Offload::UdpSegmentation);
        }
        &self.shell.offloads
    }
}

#[cfg(test)]
pub(crate) mod tests;
