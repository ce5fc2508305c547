//! What surrounds a node in agent mode, as far as paths need it: the clients of its relays, the addresses at which it can be
//! reached, and what it tells the agents that it trusts.
//!
//! ```text
//! unstarted --on_started--> started: bound at its relays, asks them by STUN how it is seen, tells its peers
//! ```
//!
//! An agent tells each peer a whole set ([`Notice`]): its candidates, and a permit for each of its own relays. It does so at its
//! start, and whenever the set differs from what this peer was told last. Private addresses go only to a peer that was seen at
//! our own public address. A peer's permits are used at once: the agent gets bound at the peer's relays, and opens a channel
//! there.
//!
//! The machine is pure: the caller brings datagrams, notices and the time, and carries [`Act`]s away.
//!
//! Left out: the rendezvous itself. Notices are as authentic as sealed ones, and take as long as the world says.

mod leg;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_core::{Candidate, CandidateKind, Instant, Remote};
use overlay_rendezvous::relay::client::{self, Client, Event};
use overlay_wire::relay::Channel;
use overlay_wire::signed::{PublicKey, RelayPermit, SecretKey, Signed};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::clocks;
use crate::place::RelayId;
use leg::Leg;

/// How long a permit holds, in milliseconds: a day.
const PERMIT_LIFETIME: u64 = 24 * 3_600 * 1_000;

/// A relay, as an agent knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownRelay {
    pub(crate) id: RelayId,
    pub(crate) key: PublicKey,
    /// Its IPv4 and its IPv6 address.
    pub(crate) addresses: [SocketAddr; 2],
}

/// What an agent tells a peer, by way of the rendezvous.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// A higher one replaces a lower one.
    sequence: u64,
    /// Where the agent can be reached.
    candidates: Vec<SocketAddr>,
    /// Its relays, and the permits to send to it there.
    permits: Vec<(KnownRelay, Signed<RelayPermit>)>,
}

/// What the world does for an agent.
#[derive(Debug)]
pub(crate) enum Act {
    /// Send this from the node's socket.
    Send { to: SocketAddr, bytes: Vec<u8> },
    /// Tell the node its relays.
    SetRelays(Vec<SocketAddr>),
    /// Tell the node where this host may be reached.
    SetLocalCandidates(Vec<Candidate>),
    /// Tell the node where the peer may be reached.
    SetRemote { peer: PublicKey, remote: Remote },
    /// Tell the peer.
    Publish { to: PublicKey, notice: Notice },
}

/// What is known of a peer.
#[derive(Default)]
struct Peer {
    /// The last notice that came from it.
    heard: Option<(u64, Vec<SocketAddr>)>,
    /// The channels to it, in the order in which they were opened.
    channels: Vec<(RelayId, Channel)>,
    /// What it was told last.
    told: Option<Notice>,
    permits: BTreeMap<RelayId, Signed<RelayPermit>>,
}

/// The agent. See the module's text.
pub(crate) struct Agent {
    network: PublicKey,
    identity: Arc<SecretKey>,
    /// The relays at which it wants to be found.
    homes: Vec<KnownRelay>,
    rng: ChaCha8Rng,
    is_started: bool,
    /// The addresses of its host.
    host: Vec<SocketAddr>,
    legs: Vec<Leg>,
    peers: BTreeMap<PublicKey, Peer>,
    sequence: u64,
    /// The addresses of ours that the node was told last.
    told_candidates: Vec<SocketAddr>,
    acts: VecDeque<Act>,
}

impl Agent {
    pub(crate) fn new(network: PublicKey, homes: Vec<KnownRelay>, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let identity = Arc::new(SecretKey::from_bytes(&random(&mut rng)));
        Self {
            network,
            identity,
            homes,
            rng,
            is_started: false,
            host: Vec::new(),
            legs: Vec::new(),
            peers: BTreeMap::new(),
            sequence: 0,
            told_candidates: Vec::new(),
            acts: VecDeque::new(),
        }
    }

    pub(crate) fn identity(&self) -> PublicKey {
        self.identity.public()
    }

    /// It trusts this agent, which trusts it.
    pub(crate) fn on_trust(&mut self, peer: PublicKey, now: Instant) {
        self.peers.entry(peer).or_default();
        self.publish(now);
    }

    /// It begins, at these addresses.
    pub(crate) fn on_started(&mut self, host: &[SocketAddr], now: Instant) {
        self.is_started = true;
        self.host = host.to_vec();
        for relay in self.homes.clone() {
            self.use_relay(relay, now);
        }
        self.publish(now);
        self.handle_timeout(now);
    }

    /// Its host has these addresses now.
    pub(crate) fn on_addresses(&mut self, host: &[SocketAddr], now: Instant) {
        if !self.is_started {
            return;
        }
        self.host = host.to_vec();
        for leg in &mut self.legs {
            leg.on_moved(host, random(&mut self.rng), now);
        }
        self.tell_relays();
        self.publish(now);
        self.handle_timeout(now);
    }

    /// The node begins anew: it hears everything once more.
    pub(crate) fn on_node_restarted(&mut self) {
        self.tell_relays();
        self.told_candidates.clear();
        self.tell_candidates();
        self.peers.keys().copied().collect::<Vec<_>>().into_iter().for_each(|peer| self.tell_remote(peer));
    }

    /// A notice of a peer arrives.
    pub(crate) fn on_notice(&mut self, from: PublicKey, notice: Notice, now: Instant) {
        let Notice { sequence, candidates, permits } = notice;
        let Some(peer) = self.peers.get_mut(&from).filter(|_| self.is_started) else { return };
        if peer.heard.as_ref().is_some_and(|(heard, _)| *heard >= sequence) {
            return;
        }
        peer.heard = Some((sequence, candidates));
        self.tell_remote(from);
        for (relay, permit) in permits {
            self.use_relay(relay, now);
            let leg = self.legs.iter_mut().find(|leg| leg.relay.id == relay.id);
            leg.into_iter().for_each(|leg| leg.open(permit.clone(), now));
        }
        self.publish(now);
        self.handle_timeout(now);
    }

    /// What the node handed to control. False if it comes from none of our relays.
    pub(crate) fn handle_foreign(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.address == source) else { return false };
        if leg.handle_datagram(datagram, now) {
            self.publish(now);
        }
        self.pump(now);
        true
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for leg in &mut self.legs {
            leg.handle_timeout(now);
        }
        self.pump(now);
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.legs.iter().map(Leg::deadline).min()
    }

    /// The next thing to do for it.
    pub(crate) fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// Where the peer says that it can be reached.
    pub(crate) fn candidates_of(&self, peer: &PublicKey) -> &[SocketAddr] {
        let heard = self.peers.get(peer).and_then(|peer| peer.heard.as_ref());
        heard.map_or(&[], |(_, candidates)| candidates)
    }

    /// What this peer was told last.
    pub(crate) fn told(&self, peer: &PublicKey) -> Option<Notice> {
        self.peers.get(peer)?.told.clone()
    }

    /// How relays see it, without doubles.
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen: Vec<_> = self.legs.iter().filter_map(|leg| leg.reflexive).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// How many datagrams its relays sent that answered nothing.
    pub(crate) fn distrusted(&self) -> u64 {
        self.legs.iter().map(Leg::distrusted).sum()
    }

    /// Where it may be reached: the addresses of its host, and those that relays see.
    pub(crate) fn candidates(&self) -> Vec<SocketAddr> {
        let reflexive = self.reflexive().into_iter().filter(|seen| !self.host.contains(seen));
        self.host.iter().copied().chain(reflexive).collect()
    }

    /// Gets bound at a relay, unless it is already.
    fn use_relay(&mut self, relay: KnownRelay, now: Instant) {
        if self.legs.iter().any(|leg| leg.relay.id == relay.id) {
            return;
        }
        let config = client::Config {
            network: self.network,
            relay: relay.key,
            identity: Arc::clone(&self.identity),
            membership: None,
            seed: random(&mut self.rng),
        };
        let leg = Leg::new(relay, Client::new(config), &self.host, random(&mut self.rng), now);
        self.legs.push(leg);
        self.tell_relays();
    }

    /// Tells the node where the peer may be reached: at the addresses that it names, and through channels, the oldest first,
    /// because both ends have known that one for longest.
    fn tell_remote(&mut self, peer: PublicKey) {
        let Some(known) = self.peers.get(&peer) else { return };
        let candidates = known.heard.as_ref().map(|(_, candidates)| candidates.clone()).unwrap_or_default();
        let address = |id: &RelayId| self.legs.iter().find(|leg| leg.relay.id == *id).map(|leg| leg.address);
        let relayed: Vec<_> =
            known.channels.iter().filter_map(|(id, channel)| Some((address(id)?, *channel))).collect();
        let awaits_relay = relayed.is_empty() && !self.legs.is_empty();
        self.acts.push_back(Act::SetRemote { peer, remote: Remote { candidates, relayed, awaits_relay } });
    }

    /// Tells the node where this host may be reached, if that is new.
    fn tell_candidates(&mut self) {
        let candidates = self.candidates();
        if self.told_candidates != candidates {
            self.told_candidates.clone_from(&candidates);
            let candidate = |address| {
                let is_own = self.host.contains(&address);
                let kind = if is_own { CandidateKind::Host } else { CandidateKind::ServerReflexive };
                Candidate { address, kind, base: None }
            };
            self.acts.push_back(Act::SetLocalCandidates(candidates.into_iter().map(candidate).collect()));
        }
    }

    fn tell_relays(&mut self) {
        self.acts.push_back(Act::SetRelays(self.legs.iter().map(|leg| leg.address).collect()));
    }

    /// Tells each peer what it was not told yet.
    fn publish(&mut self, now: Instant) {
        if !self.is_started {
            return;
        }
        self.tell_candidates();
        let candidates = self.candidates();
        let ours: Vec<IpAddr> = candidates.iter().map(SocketAddr::ip).filter(|ip| !is_private(*ip)).collect();
        for (identity, peer) in &mut self.peers {
            let theirs = peer.heard.iter().flat_map(|(_, candidates)| candidates).map(SocketAddr::ip);
            let are_neighbours = theirs.filter(|ip| !is_private(*ip)).any(|ip| ours.contains(&ip));
            let is_for_it = |address: &SocketAddr| are_neighbours || !is_private(address.ip());
            let candidates: Vec<_> = candidates.iter().copied().filter(is_for_it).collect();
            if peer.told.as_ref().is_some_and(|told| told.candidates == candidates) {
                continue;
            }
            let permits = self.homes.iter().map(|relay| {
                let permit = peer.permits.entry(relay.id);
                let sign = || sign_permit(&self.identity, self.network, relay.key, *identity, now);
                (*relay, permit.or_insert_with(sign).clone())
            });
            let permits = permits.collect();
            self.sequence += 1;
            let notice = Notice { sequence: self.sequence, candidates, permits };
            peer.told = Some(notice.clone());
            self.acts.push_back(Act::Publish { to: *identity, notice });
        }
    }

    /// Takes what the clients say and send.
    fn pump(&mut self, now: Instant) {
        let mut changed = Vec::new();
        for leg in &mut self.legs {
            while let Some(event) = leg.poll_event() {
                match event {
                    Event::Opened { channel, peer, .. } => {
                        let Some(known) = self.peers.get_mut(&peer) else { continue };
                        known.channels.push((leg.relay.id, channel));
                        changed.push(peer);
                    }
                    Event::Closed { channel, peer } => {
                        let Some(known) = self.peers.get_mut(&peer) else { continue };
                        known.channels.retain(|it| *it != (leg.relay.id, channel));
                        changed.push(peer);
                    }
                    Event::Bound(bound) => leg.on_bound(bound.observed, random(&mut self.rng), now),
                    Event::Lost | Event::Refused(_) | Event::OpenRefused { .. } => {}
                }
            }
            while let Some(bytes) = leg.poll_transmit() {
                self.acts.push_back(Act::Send { to: leg.address, bytes });
            }
        }
        changed.dedup();
        changed.into_iter().for_each(|peer| self.tell_remote(peer));
    }
}

/// The permit for `subject` to send to the owner of `issuer` at a relay.
fn sign_permit(
    issuer: &SecretKey,
    network: PublicKey,
    relay: PublicKey,
    subject: PublicKey,
    now: Instant,
) -> Signed<RelayPermit> {
    let issued = clocks::both(now).unix;
    let permit = RelayPermit {
        network,
        relay,
        issuer: issuer.public(),
        subject,
        sequence: 1,
        issued,
        expires: issued + PERMIT_LIFETIME,
    };
    Signed::sign(permit, issuer).expect("a good permit")
}

/// Whether an address means something only within one network: RFC 1918, RFC 6598 and RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_private() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

fn random<const N: usize>(rng: &mut ChaCha8Rng) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}
