//! Clients in the world of a registry: each has a connection that the test can cut.

use std::time::Duration;

use overlay_wire::signed::PublicKey;

use crate::client::{Client, Event, Output};
use crate::registry::ConnectionId;
use crate::scene::{World, agent, network_secret, record, sign};

/// One agent and its client.
pub(super) struct Peer {
    pub(super) n: u32,
    pub(super) client: Client,
    pub(super) connection: Option<ConnectionId>,
    pub(super) events: Vec<Event>,
    /// The sequence of its record.
    pub(super) sequence: u64,
}

impl Peer {
    pub(super) fn new(n: u32) -> Self {
        let client = Client::new(network_secret().public(), agent(n), [n as u8; 32]);
        Self { n, client, connection: None, events: Vec::new(), sequence: 0 }
    }

    pub(super) fn identity(&self) -> PublicKey {
        agent(self.n)
    }

    /// Signs a record with the next sequence.
    pub(super) fn set_record(&mut self, ipv4: Option<[u8; 4]>, world: &World) {
        self.sequence += 1;
        let mut mine = record(self.n, &format!("agent{}", self.n), self.sequence, world.now);
        mine.ipv4 = ipv4;
        self.client.set_record(sign(self.n, mine), world.now);
    }

    /// Takes the events.
    pub(super) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// Carries everything between the clients and the registry until nothing moves. No time passes.
pub(super) fn settle(world: &mut World, peers: &mut [&mut Peer]) {
    loop {
        let mut is_quiet = true;
        for peer in &mut *peers {
            while let Some(output) = peer.client.poll_output() {
                is_quiet = false;
                match output {
                    Output::Connect => {
                        peer.connection = Some(world.connect(peer.identity(), 0));
                        peer.client.connected(crate::protocol::VERSION, world.now);
                    }
                    Output::Disconnect => cut(world, peer),
                    Output::Send(call) => {
                        let connection = peer.connection.expect("a client calls while it is connected");
                        world.registry.call(connection, call, world.now);
                        world.settle();
                    }
                    Output::Event(Event::NeedsIpv4 { address }) => peer.set_record(address, world),
                    Output::Event(event) => peer.events.push(event),
                }
            }
            let Some(connection) = peer.connection else { continue };
            for message in world.sent.remove(&connection).unwrap_or_default() {
                is_quiet = false;
                peer.client.received(message, world.now);
            }
            if world.closed.remove(&connection) {
                is_quiet = false;
                peer.connection = None;
                peer.client.lost(world.now);
            }
        }
        if is_quiet {
            return;
        }
    }
}

/// Ends a connection as the registry sees it.
fn cut(world: &mut World, peer: &mut Peer) {
    if let Some(connection) = peer.connection.take() {
        world.registry.disconnected(connection, world.now);
        world.sent.remove(&connection);
        world.settle();
    }
}

/// Ends a connection as both see it.
pub(super) fn lose(world: &mut World, peer: &mut Peer) {
    cut(world, peer);
    peer.client.lost(world.now);
}

/// Lets time pass for the registry and the clients.
pub(super) fn run(world: &mut World, peers: &mut [&mut Peer], time: Duration) {
    let end = world.now.monotonic + time;
    settle(world, peers);
    loop {
        let next = peers.iter().map(|peer| peer.client.deadline()).chain(world.registry.deadline(world.now));
        let at = next.min().filter(|at| *at <= end);
        let now = at.unwrap_or(end).max(world.now.monotonic);
        world.now.unix += (now - world.now.monotonic).as_millis() as u64;
        world.now.monotonic = now;
        if at.is_none() {
            return;
        }
        world.registry.handle_timeout(world.now);
        world.settle();
        for peer in &mut *peers {
            if peer.client.deadline() <= now {
                peer.client.handle_timeout(world.now);
            }
        }
        settle(world, peers);
    }
}

/// The registry crashes and starts again from its store. What it had not committed is lost, and so are the connections.
pub(super) fn crash(world: &mut World, peers: &mut [&mut Peer]) {
    world.restart();
    for peer in peers {
        peer.connection = None;
        peer.client.lost(world.now);
    }
}
