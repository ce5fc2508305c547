//! What people and programs ask of the agent through the local API, and what they are answered.

mod event;
mod health;
mod question;
mod stream;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::failure::Failure;

pub use self::event::{AgentEvent, Happened};
pub use self::health::{Bar, Health, PeerHealth, RendezvousHealth, Times};
pub use self::question::{About, Decisions, Granted, Logged, Packets, PeerRules, Question, Verified};
pub use self::stream::{EventReceiver, EventSender, MAX_WAITING};
use super::explain::Explained;

/// A request to the agent. Peers are named by name, by the full key, by at least 16 characters of the key, or as
/// `NAME@KEYPREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentRequest {
    /// Ask a peer for trust.
    Handshake(Handshake),
    /// Approve a request, or change what a trusted peer may open.
    Approve(Approve),
    /// Refuse a request.
    Reject(Named),
    /// Take trust back, or refuse a request.
    Untrust(Named),
    /// Grant something to an agent before it asks.
    Trust(Approve),
    /// The requests that wait for a decision.
    Pending,
    /// This agent and its peers.
    Peers,
    /// A question that needs nobody else.
    Ask(Question),
    /// Look for agents at the rendezvous.
    Find(Find),
    /// The agent with this virtual IP, name or key.
    Whois(String),
    /// Replace the tunnel key.
    RotateKey(RotateKey),
    /// Take a join token.
    Join(Join),
    /// Say that a restored state is the newest one.
    Confirm,
}

/// A request, and the user that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCall {
    /// What is asked.
    pub request: AgentRequest,
    /// The user id of the caller, as the kernel reports it.
    pub uid: u32,
}

/// Where the answer to a call goes.
pub(crate) type Reply = oneshot::Sender<Result<AgentReply, Failure>>;

/// The body of `POST /v1/agent/handshake`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// The agent to ask.
    pub peer: String,
    /// The reason, in at most 256 bytes.
    #[serde(default)]
    pub reason: String,
    /// What this agent would like to open there, as `tcp/8000`.
    #[serde(default)]
    pub want: Vec<String>,
    /// What the peer may open here. Left out: what `[agent] allow` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// For how many seconds the grant holds. Left out: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The body of `POST /v1/agent/approve`, and of `POST /v1/agent/trust`, which takes a whole key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The agent to approve.
    pub peer: String,
    /// What the peer may open here. Left out: what it asked for, or for `trust` what `[agent] allow` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// For how many seconds the grant holds. Left out: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// The body of `POST /v1/agent/reject` and `POST /v1/agent/untrust`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Which peer.
    pub peer: String,
}

/// The query of `GET /v1/agent/find`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// Only agents with this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only agents that claim this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Only agents that offer a service of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only agents whose name, tags or services contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Only those after this key: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// The body of `POST /v1/agent/key/rotate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// The present key is known to others: it is answered no more at once, and every session ends. Otherwise it is still
    /// answered until every trusted peer has used the new one.
    #[serde(default)]
    pub compromised: bool,
}

/// The body of `POST /v1/agent/join`: a join token that was bound to the identity of this agent. Neither half is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The envelope of kind `token`, in base64.
    pub token: String,
    /// The envelope of kind `bind`, in base64.
    pub bind: String,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentReply {
    /// What became of a handshake, an approval or an untrust.
    Decided(Decided),
    /// The requests that wait for a decision.
    Pending(Vec<PendingRequest>),
    /// This agent and its peers.
    Peers(Box<AgentStatus>),
    /// The agents that were found.
    Found(Found),
    /// The tunnel key was replaced.
    Rotated(Rotated),
    /// The join token was taken.
    Joined(Joined),
    /// The restored state counts.
    Confirmed(Confirmed),
    /// Which rule decides.
    Explained(Box<About<Explained>>),
    /// The rules between this agent and a peer.
    Rules(Box<About<PeerRules>>),
    /// The newest decisions.
    Decisions(Logged),
    /// How this agent is.
    Health(Box<Health>),
    /// The code of two agents.
    Verified(Box<Verified>),
    /// The requests that wait when a stream begins.
    Watching(Vec<AgentEvent>),
}

/// What a join token has brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// The tags that the network's operator vouches for.
    pub tags: Vec<String>,
}

/// What a restored state has opened again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// The names of the peers that are trusted again.
    pub peers: Vec<String>,
}

/// The tunnel keys after one was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rotated {
    /// The new public key, in base64.
    pub tunnel_key: String,
    /// The one before it, if it is still answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_key: Option<String>,
    /// Until when the one before is answered at most, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// How many trusted peers have not used the new key yet.
    pub waits_for_count: usize,
    /// The names of the first 16 of them.
    pub waits_for: Vec<String>,
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// The peer's name.
    pub name: String,
    /// The peer's key.
    pub identity: String,
    /// `asked`, `approved`, `changed`, `trusted` (both sides have granted), `rejected`, `untrusted`, `granted` (beforehand).
    pub state: String,
    /// What the peer may open here.
    pub allow: Vec<String>,
    /// When the grant ends, in seconds since 1970. Left out: it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// A request that waits for a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingRequest {
    /// The asker's name.
    pub name: String,
    /// The asker's key.
    pub identity: String,
    /// The asker's virtual IPs.
    pub addresses: Vec<IpAddr>,
    /// The tags that the network's operator vouches for.
    #[serde(default)]
    pub attested_tags: Vec<String>,
    /// The reason, as the asker wrote it. It may hold any character.
    pub reason: String,
    /// What the asker would like to open here.
    pub want: Vec<String>,
    /// What the asker lets this agent open.
    pub gives: Vec<String>,
    /// When the request was signed, in seconds since 1970.
    pub issued: u64,
    /// Until when it can be approved, in seconds since 1970.
    pub expires: u64,
}

/// This agent and its peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentStatus {
    /// This agent's name.
    pub name: String,
    /// This agent's key.
    pub identity: String,
    /// The network's name.
    pub network: String,
    /// This agent's virtual IPs.
    pub addresses: Vec<IpAddr>,
    /// The tags of this agent that the network's operator vouches for.
    #[serde(default)]
    pub attested_tags: Vec<String>,
    /// The rendezvous together: `connected` if one is, or else `connecting`, or why not.
    pub rendezvous: String,
    /// Every rendezvous that this agent uses.
    #[serde(default)]
    pub meetings: Vec<Meeting>,
    /// Why what this agent has granted is held, after its state was restored. Left out: it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The tunnel keys, while the former one is still answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotated>,
    /// Every peer that something is known of.
    pub peers: Vec<AgentPeer>,
}

/// A rendezvous that this agent uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Meeting {
    /// `https://HOST:PORT`.
    pub url: String,
    /// `connected`, `connecting`, or why not.
    pub state: String,
    /// Since when it is connected, or is not, in seconds since 1970.
    pub since: u64,
    /// Until when it has vouched for this agent's membership, in seconds since 1970. Left out if it never has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_until: Option<u64>,
}

/// A peer of this agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentPeer {
    /// The peer's name.
    pub name: String,
    /// The peer's key.
    pub identity: String,
    /// The peer's virtual IPs.
    pub addresses: Vec<IpAddr>,
    /// The tags that the network's operator vouches for.
    #[serde(default)]
    pub attested_tags: Vec<String>,
    /// `trusted`, `asked` (waits for the peer), `pending` (waits for us), `untrusted`, `expired`,
    /// `granted` (trusted beforehand), `held` (trusted by a state that was restored).
    pub state: String,
    /// How far our request came, if one is not answered: `waiting` (for the rendezvous), `sent` (it lies in the peer's mailbox),
    /// `delivered` (the peer has it), `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What the peer may open here, if there is a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// What this agent may open there, if there is a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Vec<String>>,
    /// When the first of both grants ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// Agents that were looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// One page of them.
    pub agents: Vec<AgentRecord>,
    /// The `after` of the next page, if there may be one.
    pub next: Option<String>,
}

/// An agent as the rendezvous shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentRecord {
    /// Its name.
    pub name: String,
    /// Its key.
    pub identity: String,
    /// Its virtual IPs.
    pub addresses: Vec<IpAddr>,
    /// What it says about itself.
    pub tags: Vec<String>,
    /// The tags that the network's operator vouches for.
    #[serde(default)]
    pub attested_tags: Vec<String>,
    /// What it offers, as `tcp/8000=http`.
    pub services: Vec<String>,
    /// How this agent stands to it: as [`AgentPeer::state`], `self`, or `unknown`.
    pub state: String,
    /// The rendezvous that has shown the record. Left out: it was known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendezvous: Option<String>,
    /// When the agent signed the record, in seconds since 1970.
    #[serde(default)]
    pub issued: u64,
}
