//! Two clients and a relay: what agents see of it.

use overlay_wire::relay::Kind;

use super::*;
use crate::relay::client::{self, Client, Event};

/// A relay, its clients, and what is in the air between them.
pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) clients: Vec<Client>,
    pub(crate) legs: Vec<Leg>,
    pub(crate) now: u64,
    /// Whether datagrams arrive.
    pub(crate) is_up: bool,
}

impl World {
    /// Agents 1 to `count`, which have not begun.
    pub(crate) fn new(count: u8) -> Self {
        let clients = (1..=count).map(|n| Client::new(config(n))).collect();
        let legs = (1..=count).map(leg).collect();
        Self { relay: relay(Limits::default()), clients, legs, now: 0, is_up: true }
    }

    pub(crate) fn now(&self) -> Now {
        at(self.now)
    }

    /// Carries everything until nothing is left.
    pub(crate) fn settle(&mut self) {
        let now = self.now();
        loop {
            let mut was_quiet = true;
            for (client, leg) in self.clients.iter_mut().zip(&self.legs) {
                client.handle_timeout(now);
                while let Some(datagram) = client.poll_transmit() {
                    was_quiet = false;
                    if self.is_up {
                        self.relay.handle_datagrams(Train::single(&datagram), *leg, now);
                    }
                }
            }
            for output in outputs(&mut self.relay, now) {
                was_quiet = false;
                if let Some(at) = self.legs.iter().position(|leg| *leg == output.leg).filter(|_| self.is_up) {
                    for datagram in output.contents.chunks(output.stride) {
                        self.clients[at].handle_datagram(datagram, now);
                    }
                }
            }
            if was_quiet {
                return;
            }
        }
    }

    /// Lets time pass, and does what is due on the way.
    pub(crate) fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now = (self.now + 100).min(end);
            self.relay.handle_timeout(self.now());
            self.settle();
        }
    }

    pub(crate) fn events(&mut self, n: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.clients[n - 1].poll_event()).collect()
    }

    pub(crate) fn open(&mut self, from: usize, to: u8, sequence: u64) {
        let now = self.now();
        self.clients[from - 1].open(permit(to, from as u8, sequence), now).expect("it is ours");
        self.settle();
    }

    /// Sends a datagram through a channel, and returns what the other clients get, with the number of the client.
    pub(crate) fn send(&mut self, from: usize, channel: Channel, datagram: &[u8]) -> Vec<(usize, Option<PublicKey>)> {
        let now = self.now();
        let whole = [&channel.head()[..], datagram].concat();
        self.relay.handle_datagrams(Train::single(&whole), self.legs[from - 1], now);
        let mut arrived = Vec::new();
        for output in outputs(&mut self.relay, now) {
            let at = self.legs.iter().position(|leg| *leg == output.leg).expect("one of ours");
            let data = self.clients[at].handle_datagram(&output.contents, now);
            if let Some(data) = data {
                assert_eq!((data.channel, data.datagram), (channel, datagram));
                arrived.push((at + 1, data.peer));
            } else {
                assert_eq!(overlay_wire::relay::kind(&output.contents), Kind::Control);
            }
        }
        self.settle();
        arrived
    }
}

pub(crate) fn config(n: u8) -> client::Config {
    client::Config {
        network: network(),
        relay: relay_key(),
        identity: key(n),
        membership: Some(membership(n)),
        seed: [n; 32],
    }
}

/// Agents 1 and 2 with a channel from 1 to 2.
pub(crate) fn paired() -> (World, Channel) {
    let mut world = World::new(2);
    world.settle();
    world.open(1, 2, 5);
    let channel = world.clients[0].channel_to(&identity(2)).expect("a channel");
    (world, channel)
}

#[test]
fn two_agents_exchange_datagrams_through_the_relay() {
    let (mut world, channel) = paired();
    let bound = |events: &[Event]| matches!(events[0], Event::Bound(bound) if bound.lifetime.as_secs() == 60);
    for (n, peer, is_ours) in [(1, 2, true), (2, 1, false)] {
        let events = world.events(n);
        assert!(bound(&events) && events.len() == 2, "{events:?}");
        assert_eq!(events[1], Event::Opened { channel, peer: identity(peer), is_ours });
        assert!(world.clients[n - 1].is_bound());
    }
    assert_eq!(world.send(1, channel, b"ping, in a datagram"), [(2, Some(identity(1)))]);
    assert_eq!(world.send(2, channel, b"pong, in a datagram"), [(1, Some(identity(2)))]);
}

#[test]
fn a_binding_is_kept_for_as_long_as_the_client_lives() {
    let (mut world, channel) = paired();
    world.wait(600_000);
    assert_eq!((world.relay.stats().bound, world.relay.stats().lapsed, world.relay.stats().opened), (2, 0, 1));
    let renewed = world.relay.stats().renewed;
    assert!((48..=54).contains(&renewed), "every 23 to 25 s: {renewed}");
    assert_eq!(world.send(1, channel, b"still there, after ten minutes").len(), 1);
}

#[test]
fn a_client_that_moves_keeps_its_channels() {
    let (mut world, channel) = paired();
    world.legs[1] = leg(77);
    assert!(world.send(2, channel, b"from a new address that is unknown").is_empty());
    let now = world.now();
    world.clients[1].on_moved(now);
    world.settle();
    assert_eq!(world.send(1, channel, b"to the new address").len(), 1);
    assert_eq!(world.send(2, channel, b"from the new address").len(), 1);
    assert_eq!((world.relay.stats().opened, world.relay.stats().moved), (1, 1));
}

#[test]
fn an_address_that_changes_unnoticed_is_repaired_by_the_hint() {
    let (mut world, channel) = paired();
    // A router on the way has lost its mapping.
    world.legs[0] = leg(77);
    assert!(world.send(1, channel, b"the relay does not know this address").is_empty());
    assert_eq!(world.send(1, channel, b"and now it does, without a wait").len(), 1);
    assert_eq!(world.relay.stats().moved, 1);
}

#[test]
fn a_relay_that_was_restarted_gets_everything_again() {
    let (mut world, channel) = paired();
    world.relay = Relay::new(Config { seed: [8; 32], ..world.relay.config.clone() });
    world.wait(1_000);
    assert_eq!(world.relay.bindings(), 0);
    assert!(world.send(1, channel, b"a hint comes back, and agent 1 binds").is_empty());
    assert_eq!(world.relay.bindings(), 1);
    // Agent 2 renews its binding, and agent 1 asks again until then.
    world.wait(40_000);
    assert_eq!((world.relay.bindings(), world.relay.channels()), (2, 1));
    let channel = world.clients[0].channel_to(&identity(2)).expect("a channel");
    assert_eq!(world.send(1, channel, b"all is well").len(), 1);
    assert_eq!(world.send(2, channel, b"in both directions").len(), 1);
}

#[test]
fn a_relay_that_is_away_is_found_again() {
    let (mut world, _) = paired();
    world.is_up = false;
    world.wait(300_000);
    assert!(!world.clients[0].is_bound() && world.events(1).contains(&Event::Lost));
    assert_eq!((world.relay.bindings(), world.relay.channels()), (0, 0));
    world.is_up = true;
    world.wait(20_000);
    let channel = world.clients[0].channel_to(&identity(2)).expect("a channel");
    assert_eq!(world.send(1, channel, b"all is well again").len(), 1);
}

#[test]
fn what_one_agent_closes_the_other_learns_and_cannot_undo() {
    let (mut world, channel) = paired();
    let now = world.now();
    world.clients[1].set_lowest(0, vec![lowest(1, 6)], now).expect("it is good");
    world.settle();
    assert_eq!(world.relay.channels(), 0);
    world.events(1);
    assert!(world.send(1, channel, b"the relay hints, and agent 1 asks again").is_empty());
    let refused = Event::OpenRefused { peer: identity(2), reason: Reason::TakenBack };
    assert!(world.events(1).contains(&refused));
    assert!(client::is_final(Reason::TakenBack));
    world.wait(120_000);
    assert_eq!((world.relay.channels(), world.relay.stats().refused(Reason::TakenBack)), (0, 1), "asked once");
    world.open(1, 2, 6);
    assert_eq!(world.relay.channels(), 1);
}

#[test]
fn a_channel_that_is_not_wanted_any_more_is_closed() {
    let (mut world, channel) = paired();
    let now = world.now();
    world.clients[0].forget(&identity(2), now);
    world.settle();
    assert_eq!((world.relay.channels(), world.clients[0].channel_to(&identity(2))), (0, None));
    // The other end learns it once it sends, binds, and sends again.
    world.events(2);
    for ms in [0, 1_100] {
        world.wait(ms);
        assert!(world.send(2, channel, b"is anybody there?").is_empty());
    }
    assert!(world.events(2).contains(&Event::Closed { channel, peer: identity(1) }));
    // It wanted no channel of its own, so none comes back.
    world.wait(60_000);
    assert_eq!(world.relay.channels(), 0);
}

#[test]
fn an_agent_that_is_not_there_is_asked_for_ever_more_rarely_until_it_comes() {
    let mut world = World::new(2);
    world.clients.truncate(1);
    world.settle();
    world.open(1, 2, 5);
    let refused = Event::OpenRefused { peer: identity(2), reason: Reason::NotHere };
    assert!(world.events(1).contains(&refused));
    world.wait(60_000);
    let asked = world.relay.stats().refused(Reason::NotHere);
    assert!((4..=5).contains(&asked), "after 5, 10, 20 and 40 seconds: {asked}");
    world.clients.push(Client::new(config(2)));
    let now = world.now();
    world.clients[0].on_present(&identity(2), now);
    world.wait(6_000);
    assert_eq!(world.relay.channels(), 1);
}

#[test]
fn an_agent_without_a_membership_is_told_and_tries_rarely() {
    let mut world = World::new(1);
    world.clients[0] = Client::new(client::Config { membership: None, ..config(1) });
    world.settle();
    assert_eq!(world.events(1), [Event::Refused(Reason::NotAMember)]);
    world.wait(300_000);
    assert!(world.relay.stats().refused(Reason::NotAMember) <= 6);
    let now = world.now();
    world.clients[0].set_membership(membership(1), now);
    world.settle();
    assert!(world.clients[0].is_bound());
}
