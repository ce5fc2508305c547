//! Agents and relays in memory, with delays between them.

use std::collections::BTreeMap;

use overlay_core::Via;
use overlay_rendezvous::relay::{self as server, Leg, Limits, Members, Train};
use overlay_rendezvous::stun::{self, Gate};
use overlay_wire::relay::Channel;
use overlay_wire::signed::{MAX_MEMBERSHIP, Membership, Signed};
use overlay_wire::wireguard;

use super::*;

const START: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 3_600 * 1_000;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

fn identity(byte: u8) -> PublicKey {
    key(byte).public()
}

fn network() -> PublicKey {
    identity(250)
}

/// The relay with this number is beside the rendezvous with this number.
fn rendezvous(number: u8) -> SecretKey {
    key(200 + number)
}

fn relay_key(number: u8) -> PublicKey {
    identity(220 + number)
}

fn address_of(relay: u8) -> SocketAddr {
    ([192, 0, 2, relay], 7447).into()
}

/// A relay, and how far it is from everybody in milliseconds.
struct Server {
    relay: server::Relay,
    gate: Gate,
    delay: u64,
    is_up: bool,
}

/// A relay that knows nobody. `seed`: what it draws from.
fn started(number: u8, seed: u8) -> server::Relay {
    let members = Members::VouchedBy((0..9).map(|n| rendezvous(n).public()).collect());
    server::Relay::new(server::Config { key: relay_key(number), members, limits: Limits::default(), seed: [seed; 32] })
}

struct World {
    now: u64,
    servers: BTreeMap<u8, Server>,
    agents: BTreeMap<u8, Relays>,
    addresses: BTreeMap<u8, SocketAddr>,
    /// When what arrives where, from where.
    air: Vec<(u64, SocketAddr, SocketAddr, Box<[u8]>)>,
    /// How many datagrams an agent has sent to each relay.
    sent: BTreeMap<(u8, SocketAddr), usize>,
}

impl World {
    /// Relays with these delays, numbered from 0, and no agents.
    fn new(delays: &[u64]) -> Self {
        let server = |(number, delay): (u8, &u64)| {
            (number, Server { relay: started(number, 1), gate: Gate::default(), delay: *delay, is_up: true })
        };
        Self {
            now: 1_000,
            servers: (0..).zip(delays).map(server).collect(),
            agents: BTreeMap::new(),
            addresses: BTreeMap::new(),
            air: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now { unix: START + self.now, monotonic: Duration::from_millis(self.now) }
    }

    /// An agent that uses the rendezvous with these numbers.
    fn agent(&mut self, number: u8, at: &[u8]) {
        let mut relays = Relays::new(network(), key(number));
        for place in at {
            let membership = Membership {
                network: network(),
                rendezvous: rendezvous(*place).public(),
                identity: identity(number),
                issued: START,
                expires: START + MAX_MEMBERSHIP,
            };
            let signed = Signed::sign(membership, &rendezvous(*place)).expect("a good membership");
            relays.on_relay(relay_key(*place), rendezvous(*place).public(), vec![address_of(*place)], self.now());
            relays.on_membership(rendezvous(*place).public(), signed.bytes(), self.now());
        }
        self.agents.insert(number, relays);
        self.addresses.insert(number, ([198, 51, 100, number], 51_820).into());
    }

    /// Lets time pass.
    fn wait(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now();
        for (number, agent) in &mut self.agents {
            if agent.deadline() <= now.monotonic {
                agent.handle_timeout(|| [*number; 32], now);
            }
        }
        self.collect();
        let (due, later) = std::mem::take(&mut self.air).into_iter().partition(|(at, ..)| *at <= self.now);
        self.air = later;
        let due: Vec<(u64, SocketAddr, SocketAddr, Box<[u8]>)> = due;
        for (_, from, to, contents) in due {
            self.deliver(from, to, contents);
        }
        for number in self.servers.keys().copied().collect::<Vec<_>>() {
            let server = self.servers.get_mut(&number).expect("it is there");
            server.relay.handle_timeout(now);
            let (delay, is_up) = (server.delay, server.is_up);
            while let Some(output) = server.relay.poll_output(now) {
                for datagram in output.contents.chunks(output.stride).filter(|_| is_up) {
                    self.air.push((self.now + delay, address_of(number), output.leg.remote, datagram.into()));
                }
            }
        }
    }

    fn collect(&mut self) {
        for (number, agent) in &mut self.agents {
            for datagram in agent.take_outgoing() {
                *self.sent.entry((*number, datagram.remote)).or_default() += 1;
                let place = self.servers.iter().find(|(place, _)| address_of(**place) == datagram.remote);
                let delay = place.map_or(0, |(_, server)| server.delay);
                self.air.push((self.now + delay, self.addresses[number], datagram.remote, datagram.contents));
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, contents: Box<[u8]>) {
        let now = self.now();
        if let Some((number, _)) = self.addresses.iter().find(|(_, address)| **address == to) {
            let Some(agent) = self.agents.get_mut(number) else { return };
            agent.handle_datagram(&Datagram { remote: from, via: Via::ANY, contents }, now);
            return self.collect();
        }
        let server = self.servers.iter_mut().find(|(number, server)| address_of(**number) == to && server.is_up);
        let Some((_, server)) = server else { return };
        let leg = Leg { remote: from, local: None };
        if wireguard::kind(&contents) == wireguard::Kind::Stun {
            let answer = stun::answer(&contents, from, now.monotonic, &mut server.gate);
            answer.into_iter().for_each(|answer| server.relay.answer(answer, leg));
        } else {
            server.relay.handle_datagrams(Train { contents: &contents, stride: contents.len(), ecn: 0 }, leg, now);
        }
    }

    fn relays(&mut self, agent: u8) -> &mut Relays {
        self.agents.get_mut(&agent).expect("an agent")
    }

    /// The numbers of the relays at which an agent is reached, the home relay first.
    fn bound(&self, agent: u8) -> Vec<u8> {
        let number = |relay: &Relay| (0..9).find(|number| relay_key(*number) == relay.key).expect("one of ours");
        self.agents[&agent].bound().map(number).collect()
    }

    /// Each of these agents is open for the others, and knows what they say now.
    fn trust(&mut self, agents: &[u8]) {
        for agent in agents {
            let mut peers = BTreeMap::new();
            for peer in agents.iter().filter(|peer| *peer != agent) {
                let unix = self.now().unix;
                let places = self.relays(*peer).places_for(&identity(*agent), None, unix);
                peers.insert(identity(*peer), places.unwrap_or_default());
            }
            let now = self.now();
            self.relays(*agent).set_peers(peers, now);
        }
    }

    fn relayed(&self, agent: u8, peer: u8) -> Vec<(SocketAddr, Channel)> {
        self.agents[&agent].relayed(&identity(peer))
    }
}

#[test]
fn an_agent_is_bound_at_the_nearest_relay_and_at_a_spare() {
    let mut world = World::new(&[60, 20, 40]);
    world.agent(1, &[0, 1, 2]);
    assert!(!world.relays(1).can_tell(), "it may be bound soon");
    world.wait(1_000);
    assert_eq!(world.bound(1), [1, 2]);
    assert!(world.relays(1).can_tell() && world.relays(1).take_news().places);
    assert_eq!(world.relays(1).observed(), [world.addresses[&1]]);
    assert_eq!(world.relays(1).addresses().len(), 3, "the node hears all that are asked");
}

#[test]
fn without_an_answer_peers_are_told_after_two_seconds() {
    let mut world = World::new(&[]);
    world.agent(1, &[0]);
    world.wait(1_900);
    assert!(!world.relays(1).can_tell());
    world.wait(200);
    assert!(world.relays(1).can_tell() && world.bound(1).is_empty());
    assert_eq!(world.relays(1).places_for(&identity(2), None, START), None);
}

#[test]
fn open_peers_reach_each_other_through_channels_at_both_homes() {
    let mut world = World::new(&[5]);
    world.agent(1, &[0]);
    world.agent(2, &[0]);
    world.wait(200);
    world.trust(&[1, 2]);
    world.wait(200);
    let (one, two) = (world.relayed(1, 2), world.relayed(2, 1));
    assert_eq!((one.len(), two.len()), (2, 2), "a channel of each");
    assert_eq!((one[0], one[1]), (two[1], two[0]), "each prefers its own");
    assert!(one.iter().all(|(relay, _)| *relay == address_of(0)));
    let news = world.relays(1).take_news();
    assert_eq!(news.peers.into_iter().collect::<Vec<_>>(), [identity(2)]);
}

#[test]
fn a_peer_is_reached_at_its_own_home() {
    let mut world = World::new(&[5, 5]);
    world.agent(1, &[0]);
    world.agent(2, &[1]);
    world.wait(200);
    world.trust(&[1, 2]);
    world.wait(300);
    assert_eq!((world.bound(1), world.bound(2)), (vec![0], vec![1]));
    let first = |ways: Vec<(SocketAddr, Channel)>| ways.first().map(|(relay, _)| *relay);
    assert_eq!(first(world.relayed(1, 2)), Some(address_of(1)));
    assert_eq!(first(world.relayed(2, 1)), Some(address_of(0)));
    // It is no longer open, so there is no reason to be bound there.
    let now = world.now();
    world.relays(1).set_peers(BTreeMap::new(), now);
    world.wait(100);
    assert_eq!(world.relays(1).addresses(), [address_of(0)]);
}

#[test]
fn what_was_taken_back_is_closed_and_stays_so() {
    let mut world = World::new(&[5]);
    world.agent(1, &[0]);
    world.agent(2, &[0]);
    world.wait(200);
    world.trust(&[1, 2]);
    world.wait(200);
    let now = world.now();
    world.relays(1).withdraw(vec![(identity(2), now.unix)], now);
    world.relays(1).set_peers(BTreeMap::new(), now);
    assert_eq!(world.relayed(1, 2), []);
    world.wait(100);
    assert_eq!(world.servers[&0].relay.channels(), 0);
    // The relay forgets all, and the other end asks with the permit that it has.
    world.servers.get_mut(&0).expect("it is there").relay = started(0, 2);
    world.wait(60_000);
    assert_eq!((world.bound(1), world.bound(2)), (vec![0], vec![0]));
    assert_eq!(world.servers[&0].relay.channels(), 0);
    assert_eq!(world.relayed(2, 1), []);
}

#[test]
fn a_channel_of_somebody_without_a_tunnel_is_closed() {
    let mut world = World::new(&[5]);
    world.agent(1, &[0]);
    world.agent(2, &[0]);
    world.wait(200);
    let now = world.now();
    let places = world.relays(1).places_for(&identity(2), None, now.unix).expect("it is bound");
    world.relays(2).set_peers([(identity(1), places)].into(), now);
    world.wait(200);
    assert_eq!((world.relayed(1, 2), world.servers[&0].relay.channels()), (vec![], 0));
    let stats = world.servers[&0].relay.stats();
    assert_eq!((stats.opened, stats.closed), (1, 1));
}

#[test]
fn a_spare_takes_over_when_the_home_relay_is_silent() {
    let mut world = World::new(&[5, 30]);
    world.agent(1, &[0, 1]);
    world.agent(2, &[0, 1]);
    world.wait(12_000);
    assert_eq!(world.bound(1), [0, 1]);
    world.trust(&[1, 2]);
    world.wait(500);
    assert_eq!(world.relayed(1, 2).len(), 4, "at both relays");
    world.servers.get_mut(&0).expect("it is there").is_up = false;
    world.relays(1).take_news();
    world.wait(30_000);
    assert_eq!(world.bound(1)[0], 1);
    assert!(world.relays(1).take_news().places, "peers are told");
    world.wait(60_000);
    assert_eq!(world.bound(1), [1]);
    assert!(world.relayed(1, 2).iter().all(|(relay, _)| *relay == address_of(1)));
    // The binding has ended at the other side, too. When the relay is back, it is the spare at first.
    world.servers.get_mut(&0).expect("it is there").is_up = true;
    world.wait(120_000);
    assert_eq!(world.bound(1), [1, 0]);
}

#[test]
fn nobody_waits_for_a_relay_that_is_silent() {
    let mut world = World::new(&[5]);
    world.agent(1, &[0]);
    world.agent(2, &[0]);
    world.wait(1_000);
    world.trust(&[1, 2]);
    world.wait(500);
    let told = world.relays(2).places_for(&identity(1), None, START).expect("agent 2 is bound");
    world.servers.get_mut(&0).expect("it is there").is_up = false;
    // Agent 1 begins anew, and knows from before where agent 2 is reached.
    world.agents.insert(1, Relays::new(network(), key(1)));
    let now = world.now();
    world.relays(1).set_peers(BTreeMap::from([(identity(2), told)]), now);
    world.wait(1_000);
    assert!(!world.relays(1).are_silent(&identity(2)));
    world.relays(1).take_news();
    world.wait(4_000);
    assert!(world.relays(1).are_silent(&identity(2)));
    assert!(world.relays(1).take_news().peers.contains(&identity(2)), "the node is told");
    world.servers.get_mut(&0).expect("it is there").is_up = true;
    world.wait(30_000);
    assert!(!world.relays(1).are_silent(&identity(2)));
}

#[test]
fn an_idle_agent_sends_six_datagrams_a_minute_to_a_relay_at_most() {
    let mut world = World::new(&[5, 30]);
    for number in 1..=4 {
        world.agent(number, &[0, 1]);
    }
    world.wait(12_000);
    world.trust(&[1, 2, 3, 4]);
    world.wait(2_000);
    world.sent.clear();
    world.wait(600_000);
    // The question how far it is comes once in ten minutes.
    assert!(world.sent.values().all(|count| *count <= 61), "{:?}", world.sent);
}

#[test]
fn we_are_bound_at_a_limited_number_of_relays_of_peers() {
    let mut world = World::new(&[]);
    world.agent(1, &[]);
    let peers = (0..20).map(|number: u8| {
        let mut theirs = Relays::new(network(), key(number + 10));
        let relay = identity(100 + number);
        let from = (network(), relay, &key(number + 10));
        let permit = theirs.permits.sign(from, identity(1), Some(START + DAY), START).expect("a good permit");
        let place = RelayPlace::new(&[([203, 0, 113, number], 7447).into()], &permit).expect("an address");
        (identity(number + 10), vec![place])
    });
    let (peers, now) = (peers.collect(), world.now());
    world.relays(1).set_peers(peers, now);
    world.wait(100);
    assert_eq!(world.relays(1).addresses().len(), MAX_FOREIGN);
    for number in 0..40 {
        let addresses = vec![address_of(number)];
        world.relays(1).on_relay(identity(60 + number), identity(1), addresses, now);
    }
    assert_eq!(world.relays(1).addresses().len(), MAX_RELAYS);
}

#[test]
fn only_relays_that_answer_say_what_our_nat_does() {
    let mut world = World::new(&[20, 40]);
    world.agent(1, &[0, 1]);
    world.wait(2_000);
    let seen = world.addresses[&1];
    assert_eq!(world.relays(1).views(), [seen; 2]);
    world.servers.get_mut(&0).expect("a relay").is_up = false;
    world.wait(120_000);
    assert_eq!(world.relays(1).views(), [seen]);
}

#[test]
fn after_a_move_the_relays_see_us_elsewhere() {
    let mut world = World::new(&[5, 30]);
    world.agent(1, &[0, 1]);
    world.wait(12_000);
    let moved: SocketAddr = "198.51.100.99:4000".parse().expect("one");
    world.addresses.insert(1, moved);
    let now = world.now();
    world.relays(1).on_moved(now);
    world.wait(500);
    assert_eq!(world.relays(1).observed(), [moved]);
    assert!(world.relays(1).take_news().places);
}

#[test]
fn a_peer_that_is_away_is_asked_for_ever_more_rarely() {
    let mut world = World::new(&[5]);
    world.agent(1, &[0]);
    world.agent(2, &[0]);
    world.wait(200);
    world.trust(&[1, 2]);
    let away = world.agents.remove(&2).expect("an agent");
    // Its binding ends, and with it the channels.
    world.wait(61_000);
    world.servers.get_mut(&0).expect("it is there").relay = started(0, 2);
    world.wait(30_000);
    world.sent.clear();
    world.wait(600_000);
    let sent = world.sent.values().sum::<usize>();
    assert!(sent <= 61 + 7, "{sent}");
    // A rendezvous says that it is back.
    world.agents.insert(2, away);
    world.wait(3_000);
    let now = world.now();
    world.relays(1).on_present(&identity(2), now);
    world.wait(100);
    assert!(!world.relayed(1, 2).is_empty());
}
