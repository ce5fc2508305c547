//! How an agent is: its connection, its clock, and why there is no tunnel to a peer. `overlay doctor` judges it.
//!
//! A running agent tells it through the local API. The state folder tells most of it about an agent that does not run, and
//! reading it changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use ipnet::IpNet;
use overlay_wire::signed::PublicKey;

use super::beforehand::Beforehand;
use super::explain::bar;
use super::named::Named;
use super::request::{Bar, Health, PeerHealth, Times};
use super::shown::{Progress, shown_request};
use super::state::State;
use super::time::{HighWater, now};
use super::trust::{Moment, Relation};
use super::{Agent, own, tunnels};
use crate::config;
use crate::failure::Failure;
use crate::keys::encode_public;

/// Whether a person who writes this text means the peer.
pub(crate) fn is_meant(peer: &PeerHealth, text: &str) -> bool {
    let (Ok(named), Ok(identity)) = (Named::parse(text), peer.identity.parse()) else { return false };
    named.matches(&identity, &peer.name)
}

/// What the state folder of an agent that does not run tells.
#[derive(Debug)]
pub(crate) struct OnDisk {
    pub(crate) addresses: Vec<IpNet>,
    /// The prefixes in which only agents have addresses.
    pub(crate) pools: Vec<IpNet>,
    /// Every rendezvous that the network lists: its URL with its keys.
    pub(crate) rendezvous: Vec<String>,
    /// Why this machine may not run the agent.
    pub(crate) foreign: Option<Failure>,
    pub(crate) time: Times,
    pub(crate) peers: Vec<PeerHealth>,
}

impl OnDisk {
    /// Reads the state of the agent that the config names. Changes nothing, and needs no lock.
    pub(crate) fn read(config: &config::Agent, state_dir: &Path) -> Result<Self, Failure> {
        let state = State::of(config, state_dir)?;
        let me = state.keys()?.identity.public();
        let foreign = state.refusal_of_machine()?;
        let network = state.network()?.filter(|network| network.network == config.network_key);
        let record = state.record()?.filter(|record| record.identity == me && record.network == config.network_key);
        let relations = state.relations()?;
        let relations: Vec<_> = relations.iter().collect();
        let now = now();
        let latest = HighWater::new(state.time()?, now).read(now);
        let moment = Moment { wall: now.unix, latest };
        let beforehand = Beforehand::open(state.path())?;
        let ipv4 = record.and_then(|record| record.ipv4);
        Ok(Self {
            addresses: own::addresses(&config.network_key, &me, network.as_deref(), ipv4),
            pools: tunnels::pools(&config.network_key, network.as_ref().map(|network| &network.pool)),
            rendezvous: network.iter().flat_map(|network| super::meetings::listed(network)).collect(),
            foreign,
            time: Times { wall_ms: now.unix, latest_ms: latest, signed_by_peers_ms: newest_signed(&relations) },
            peers: peers(&relations, &beforehand, |_| None, state.is_restored(), moment),
        })
    }
}

impl Agent {
    pub(super) fn health(&self) -> Health {
        let (now, relations) = (self.moment(), self.book.relations().collect::<Vec<_>>());
        Health {
            name: self.config.name.clone(),
            rendezvous: self.meetings.health(super::time::now()),
            addresses: self.addresses(),
            time: Times { wall_ms: now.wall, latest_ms: now.latest, signed_by_peers_ms: newest_signed(&relations) },
            peers: peers(&relations, &self.beforehand, |relation| self.progress_of(relation), self.past.is_held(), now),
        }
    }
}

/// How this agent stands to every peer, those included that were trusted before they ask.
fn peers(
    relations: &[&Relation],
    beforehand: &Beforehand,
    progress: impl Fn(&Relation) -> Option<Progress>,
    is_held: bool,
    now: Moment,
) -> Vec<PeerHealth> {
    let known = relations.iter().map(|&relation| PeerHealth {
        name: relation.name().unwrap_or_default().to_owned(),
        identity: relation.identity.to_string(),
        tunnel_key: tunnels::tunnel_key(relation).map(|key| encode_public(&key)),
        request: shown_request(relation, progress(relation), now).map(str::to_owned),
        bar: bar_of(Some(relation), beforehand.entry(&relation.identity, now.latest).is_some(), is_held, now),
    });
    let identities: BTreeSet<_> = relations.iter().map(|relation| relation.identity).collect();
    let is_unknown = |key: &PublicKey| !identities.contains(key);
    let unknown = beforehand.entries(now.latest).filter(|(key, _)| is_unknown(key)).map(|(key, _)| PeerHealth {
        name: String::new(),
        identity: key.to_string(),
        tunnel_key: None,
        request: None,
        bar: bar_of(None, true, is_held, now),
    });
    known.chain(unknown).collect()
}

fn bar_of(relation: Option<&Relation>, is_beforehand: bool, is_held: bool, now: Moment) -> Option<Bar> {
    let judgement = bar(relation, is_beforehand, is_held, now)?;
    let mine = relation.and_then(|relation| relation.mine.as_ref());
    Some(Bar {
        side: judgement.side,
        reason: judgement.reason,
        since: judgement.since.map(|at| at / 1_000),
        is_granted_here: mine.is_some_and(|word| word.grant().is_some()),
    })
}

/// The newest time that a peer has signed, of those with a tunnel: strangers could write any.
fn newest_signed(relations: &[&Relation]) -> Option<u64> {
    let paired = relations.iter().filter(|relation| relation.is_paired());
    paired.filter_map(|relation| Some(relation.record.as_ref()?.issued)).max()
}
