//! What a relay is made of, and how much it takes.

use std::num::NonZeroU64;
use std::time::Duration;

use overlay_wire::signed::PublicKey;

/// How long an agent is bound.
pub const BOUND_FOR: Duration = Duration::from_secs(60);

/// What a relay is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its key, which binds and permits name.
    pub key: PublicKey,
    /// The agents that it serves.
    pub members: Members,
    /// How much it takes.
    pub limits: Limits,
    /// Where cookies, tokens and channel numbers come from.
    pub seed: [u8; 32],
}

/// The agents that a relay serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Every agent that has a key.
    Everybody,
    /// Agents that show a membership signed by one of these rendezvous.
    VouchedBy(Vec<PublicKey>),
}

/// How much a relay takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most agents that are bound at once. Each costs about 1 KiB of memory.
    pub bindings: usize,
    /// The most agents that are bound from one IPv4 address or one IPv6 /56, at a relay for everybody. Where a rendezvous
    /// vouches for each agent, a whole company may come from one address.
    pub bindings_of_prefix: usize,
    /// The most channels.
    pub channels: usize,
    /// The most channels that one agent opens.
    pub channels_of_agent: usize,
    /// How many bytes per second one agent may send. `None`: no limit.
    pub rate: Option<NonZeroU64>,
    /// How many bytes one agent may send in a day, which ends at midnight UTC. `None`: no limit.
    pub daily: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bindings: 16_384,
            bindings_of_prefix: 256,
            channels: 262_144,
            channels_of_agent: 1_024,
            rate: None,
            daily: None,
        }
    }
}
