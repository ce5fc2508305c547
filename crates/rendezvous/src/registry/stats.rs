//! What the registry counts. The shell shows these.

use crate::protocol::Code;

/// Counters since the registry started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls that were taken in.
    pub calls: u64,
    /// Pushes that were sent.
    pub pushes: u64,
    /// Operations that are on disk.
    pub commits: u64,
    /// Operations whose conditions were not met: a different process wrote to the store.
    pub conflicts: u64,
    /// Operations of which the store told nothing.
    pub failures: u64,
    /// Calls over the rate of their identity.
    pub over_identity_rate: u64,
    /// Calls over the rate of their address.
    pub over_address_rate: u64,
    /// Signed objects that were refused for their form, their fields or their signature.
    pub bad_objects: u64,
    /// Connections that presented an old epoch: two agents share a key.
    pub stale_epochs: u64,
    /// Connections that a newer one of the same identity replaced.
    pub replaced_connections: u64,
    /// Connections that were closed because they were silent.
    pub silent_connections: u64,
    /// Connections for which there was no room.
    pub refused_connections: u64,
    /// Messages that were dropped for a newer one of the same sender.
    pub dropped_messages: u64,
    /// Messages and receipts whose time was over.
    pub expired_messages: u64,
    /// Slots that were dropped for one of a watched agent.
    pub dropped_slots: u64,
    /// Entries of the store that could not be read.
    pub damaged_entries: u64,
    /// Changes of entries that other processes over the same store have written.
    pub followed: u64,
    /// Refused calls, by code.
    refused: [u64; Code::ALL.len()],
}

impl Stats {
    /// How many calls were refused with this code.
    pub fn refused(&self, code: Code) -> u64 {
        self.refused[code as usize]
    }

    /// Every counter but the refusals by code, with its name.
    pub fn named(&self) -> [(&'static str, u64); 17] {
        [
            ("calls", self.calls),
            ("pushes", self.pushes),
            ("commits", self.commits),
            ("conflicts", self.conflicts),
            ("failures", self.failures),
            ("over_identity_rate", self.over_identity_rate),
            ("over_address_rate", self.over_address_rate),
            ("bad_objects", self.bad_objects),
            ("stale_epochs", self.stale_epochs),
            ("replaced_connections", self.replaced_connections),
            ("silent_connections", self.silent_connections),
            ("refused_connections", self.refused_connections),
            ("dropped_messages", self.dropped_messages),
            ("expired_messages", self.expired_messages),
            ("dropped_slots", self.dropped_slots),
            ("damaged_entries", self.damaged_entries),
            ("followed", self.followed),
        ]
    }

    pub(super) fn on_refused(&mut self, code: Code) {
        self.refused[code as usize] += 1;
    }
}
