//! What the operator asks a running rendezvous, and what it answers: one line of JSON each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::failure::ServeError;

/// What the operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The agents above this key, at most [`MAX_SHOWN`](super::MAX_SHOWN): [`Told::Agents`].
    Agents {
        /// The last key of the answer before.
        after: Option<String>,
    },
    /// All tokens: [`Told::Tokens`].
    Tokens,
    /// The counters: [`Told::Stats`].
    Stats,
    /// A backup. The answer is its lines, and no [`Told`].
    Backup,
    /// A new process of this rendezvous wants the sockets: [`Told::Sockets`]. What follows is in `handover`.
    HandOver,
    /// Tells of a new token, as base64 of its envelope. Its secret half stays with the operator.
    AddToken {
        /// An envelope of kind `token`.
        token: String,
    },
    /// Ends a token.
    RevokeToken {
        /// Its key, or at least 16 characters of it.
        token: String,
    },
    /// Removes an agent.
    RemoveAgent {
        /// Its name, its key, or at least 16 characters of it.
        agent: String,
    },
    /// Removes an agent, which gets nothing here until the ban is lifted.
    BanAgent {
        /// Its name, its key, or at least 16 characters of it.
        agent: String,
    },
    /// Lifts a ban.
    UnbanAgent {
        /// The name that it had, its key, or at least 16 characters of it.
        agent: String,
    },
    /// Frees a name that its agent has given up.
    FreeName {
        /// The name.
        name: String,
    },
}

/// What the rendezvous answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Some agents, in the order of their keys.
    Agents {
        /// The agents.
        agents: Vec<AgentShown>,
        /// If there may be more: the key to ask with.
        next: Option<String>,
    },
    /// All tokens, in the order of their keys.
    Tokens {
        /// The tokens.
        tokens: Vec<TokenShown>,
    },
    /// The counters.
    Stats(StatsShown),
    /// It is done, and kept on disk.
    Done {
        /// The full key of the agent or the token, if it was about one.
        key: Option<String>,
    },
    /// The listening sockets, which come with this line, in this order.
    Sockets {
        /// Where agents connect.
        agents: SocketAddr,
        /// Where metrics are read.
        metrics: Option<SocketAddr>,
    },
    /// It is refused.
    Refused(ServeError),
}

/// An agent as the operator sees it. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentShown {
    /// Its key.
    pub identity: String,
    /// `online`, `offline`, `expired` (its record is not fresh any more), `left` or `banned`.
    pub state: String,
    /// Its name, if it is registered.
    pub name: Option<String>,
    /// Its IPv4 address.
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    pub ipv6: Option<String>,
    /// The tags that it claims.
    pub tags: Vec<String>,
    /// The tags that its token vouches for.
    pub attested_tags: Vec<String>,
    /// Whether it has shown a token.
    pub is_member: bool,
    /// Whether it vanishes when it is gone.
    pub is_ephemeral: bool,
    /// Until when its record is fresh.
    pub fresh_until: Option<u64>,
    /// When it left.
    pub left: Option<u64>,
    /// Since when it is banned.
    pub banned: Option<u64>,
}

/// A token as the operator sees it. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenShown {
    /// Its key. It is not secret.
    pub token: String,
    /// `valid`, `used_up`, `expired` or `revoked`.
    pub state: String,
    /// How many identities have used it.
    pub used: u32,
    /// How many may. `None`: any number, or it was used before this version knew.
    pub uses: Option<u32>,
    /// Until when it can be used.
    pub expires: Option<u64>,
    /// When it was signed.
    pub issued: Option<u64>,
    /// The only name that its identities may take.
    pub name: Option<String>,
    /// The tags that it vouches for.
    pub tags: Vec<String>,
    /// Whether its identities vanish when they are gone.
    pub is_ephemeral: bool,
    /// When it was revoked.
    pub revoked: Option<u64>,
}

/// The counters of a rendezvous since it started, and how much there is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsShown {
    /// The network's name.
    pub network: String,
    /// Whether only agents with a token may join.
    pub is_closed: bool,
    /// Agents that are registered, or left within 30 days.
    pub agents: usize,
    /// Agents that are connected.
    pub connections: usize,
    /// Where the registry is kept: `file`, or the cluster.
    pub store: String,
    /// For how many seconds the store has not answered, and why. Absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_silent: Option<(u64, String)>,
    /// The counters of the registry, by name.
    pub counters: Vec<(String, u64)>,
    /// Refused calls, by code.
    pub refused: Vec<(String, u64)>,
}
