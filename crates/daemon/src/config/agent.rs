//! What a config says about agent mode: who this agent is, where agents meet, and whom the file trusts.

use std::fmt;

use ipnet::IpNet;
use overlay_core::PeerKey;
use overlay_wire::signed::{PublicKey, ScopeList, Service, Visibility};

use super::{Config, Peer, PrivateKey};

/// `[agent]` with every `[[trust]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// This agent's name, a valid one.
    pub name: String,
    /// The network's name, a valid one. The daemon needs it, and `overlay init` writes it.
    pub network: Option<String>,
    /// The network's key, which every entry of `rendezvous` names.
    pub network_key: PublicKey,
    /// Where agents meet, 1 to 8. All are used.
    pub rendezvous: Vec<RendezvousUrl>,
    /// What this agent says about itself: at most 16, all different.
    pub tags: Vec<String>,
    /// What this agent offers: at most 16, all different, without texts.
    pub services: Vec<Service>,
    /// The agents that may find this one.
    pub visibility: Visibility,
    /// What a grant gives if the verb does not say. Empty: only answers.
    pub allow: ScopeList,
    /// The agents whose requests are approved without asking a person, each once.
    pub auto_approve: Vec<Approved>,
    /// Which addresses this host tells its peers.
    pub candidates: Candidates,
    /// Whether this agent and its peers look for each other on the links of this host.
    pub lan: bool,
    /// The agents that the file trusts, each once.
    pub trust: Vec<Trust>,
}

/// An entry of `auto_approve`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Approved {
    /// The agent with this identity.
    Agent(PublicKey),
    /// Every agent for which the network's operator vouches with this tag. What an agent says about itself does not count.
    Tag(String),
}

/// One `[[trust]]`: an agent that the file trusts, whatever the state says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The agent's identity.
    pub key: PublicKey,
    /// What it may open here. Where the file does not say, this is [`Agent::allow`].
    pub allow: ScopeList,
    /// When the trust ends, in milliseconds since 1970.
    pub expires: Option<u64>,
}

/// Which addresses of this host its peers are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Candidates {
    /// Private addresses only where the peer has the same public one.
    #[default]
    Auto,
    /// Every address.
    All,
    /// No address. Peers are reached through relays alone.
    Relay,
}

/// Where agents meet, and the keys that are pinned: `https://HOST:PORT#RVKEY.NETKEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RendezvousUrl {
    /// `https://HOST:PORT`, at most 128 bytes.
    pub url: String,
    /// The name or the address in the URL, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
    /// The key that the rendezvous must prove to have.
    pub rendezvous: PublicKey,
    /// The network's key.
    pub network: PublicKey,
}

impl Agent {
    /// Whether requests of this agent are approved without asking a person. `attested` are the tags that the network's
    /// operator vouches for.
    pub fn auto_approves(&self, agent: &PublicKey, attested: &[String]) -> bool {
        self.auto_approve.iter().any(|approved| match approved {
            Approved::Agent(key) => key == agent,
            Approved::Tag(tag) => attested.contains(tag),
        })
    }
}

impl fmt::Display for RendezvousUrl {
    /// Formats the URL with its keys, as in the config.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}.{}", self.url, self.rendezvous, self.network)
    }
}

/// What agent mode adds to a config while the daemon runs.
#[derive(Clone, Debug)]
pub struct AgentPart {
    /// The tunnel key from the state.
    pub private_key: PrivateKey,
    /// The tunnel key before it, while it is still answered.
    pub former_key: Option<PrivateKey>,
    /// The virtual IPs, which follow from the identity.
    pub addresses: Vec<IpNet>,
    /// The agents that both sides trust.
    pub peers: Vec<Peer>,
}

/// What a peer of agent mode has beside what a file says of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPeer {
    /// The agent. Its tunnel key may change.
    pub identity: PublicKey,
    /// The tunnel key that the agent had before, while it still answers under it.
    pub former_key: Option<PeerKey>,
    /// The former tunnel key of this host, if the agent is not known to have learned of the present one.
    pub own_key: Option<PeerKey>,
}

impl Config {
    /// The config with everything that agent mode adds: key, addresses, and the agent's peers behind those of the file.
    /// A peer whose key the file has already stays as the file has it.
    pub fn in_force(&self, agent: AgentPart) -> Config {
        let mut config = self.clone();
        config.interface.private_key = Some(agent.private_key);
        config.former_keys = agent.former_key.into_iter().collect();
        config.interface.addresses = agent.addresses;
        let is_of_file = |peer: &Peer| self.peers.iter().any(|known| known.public_key == peer.public_key);
        config.peers.extend(agent.peers.into_iter().filter(|peer| !is_of_file(peer)));
        config
    }
}
