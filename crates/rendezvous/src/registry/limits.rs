//! What a registry is made of, and how much it takes.

use overlay_wire::signed::{Network, SecretKey, Signed};

use crate::protocol::{RelayAt, Verb};
use crate::quota::{Class, Rates};

/// What a registry is made of.
#[derive(Debug)]
pub struct Config {
    /// The network that it serves.
    pub network: Signed<Network>,
    /// The key of the rendezvous, which vouches for members.
    pub key: SecretKey,
    /// The relay that agents are told of.
    pub relay: Option<RelayAt>,
    /// How much it takes.
    pub limits: Limits,
    /// Where the epochs come from.
    pub seed: [u8; 32],
}

/// How much a registry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most agents that are registered, or have left within 30 days. Each costs up to 5 KiB of memory.
    pub agents: usize,
    /// The most connections.
    pub connections: usize,
    /// The most pairs of a connection and an agent that it watches. Each costs about 150 bytes of memory.
    pub watches: usize,
    /// What all messages and receipts together may cost, in bytes: their sealed bytes, and 256 for each.
    pub mailbox_len: usize,
    /// What all slots together may cost, in bytes: their sealed bytes, and 256 for each.
    pub slots_len: usize,
    /// What agents keep for themselves may cost together, in bytes: the sealed bytes, and 256 for each entry.
    pub ledgers_len: usize,
    /// How often one identity may ask.
    pub identity_rates: Rates,
    /// How often one address may ask.
    pub address_rates: Rates,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            agents: 100_000,
            connections: 100_000,
            watches: 2_000_000,
            mailbox_len: 256 << 20,
            slots_len: 256 << 20,
            ledgers_len: 256 << 20,
            identity_rates: Rates::IDENTITY,
            address_rates: Rates::ADDRESS,
        }
    }
}

/// What a call takes from the quotas. What makes the registry send more costs more.
pub(super) fn cost(verb: &Verb) -> (Class, u32) {
    match verb {
        Verb::Register { .. } | Verb::Release { .. } | Verb::Send { .. } => (Class::Write, 1),
        Verb::PutSlot { .. } | Verb::PutEntry { .. } => (Class::Slot, 1),
        Verb::Watch { identities } => (Class::LookUp, 1 + (identities.len() / 8).min(16) as u32),
        // A message that is acknowledged has already cost its sender a write.
        Verb::Acknowledge { .. }
        | Verb::Hello
        | Verb::Find { .. }
        | Verb::Unwatch { .. }
        | Verb::Entries { .. }
        | Verb::Membership
        | Verb::Ping => (Class::LookUp, 1),
    }
}
