//! The messages of a relay, and a relay that strangers and its own agents send anything to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_rendezvous::now::Now;
use overlay_rendezvous::relay::client::{self, Client};
use overlay_rendezvous::relay::{Config, Leg, Limits, Members, Relay, Train};
use overlay_wire::relay::{Channel, Reply, Request, open_data};
use overlay_wire::signed::{RelayPermit, SecretKey, Signed};

use super::Input;

const START: u64 = 1_800_000_000_000;

/// The first byte of the input says what is called: the parsers, a relay, or the agent's side of it.
pub fn relay(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => messages(&data[1.min(data.len())..]),
        1 => trains(&mut input),
        _ => replies(&mut input),
    }
}

/// What parses is written in bytes that say the same.
fn messages(datagram: &[u8]) {
    if let Ok(request) = Request::parse(datagram) {
        assert_eq!(Request::parse(&request.datagram()), Ok(request));
    }
    if let Ok(reply) = Reply::parse(datagram) {
        assert_eq!(Reply::parse(&reply.datagram()), Ok(reply));
        assert!(Request::parse(datagram).is_err(), "both an agent and a relay say it");
    }
    if let Some((channel, inside)) = open_data(datagram) {
        assert_eq!([&channel.head()[..], inside].concat(), datagram);
    }
}

/// Trains from both agents and from a stranger: the answers are never longer, and no stranger ends a binding or a channel.
fn trains(input: &mut Input<'_>) {
    let mut world = World::new();
    let mut ms = 0;
    while !input.is_empty() {
        let (from, stride) = (usize::from(input.byte() % 3), usize::from(input.word()));
        let mut contents = input.part().to_vec();
        if from < 2
            && stride % 2 == 0
            && let Some(head) = contents.first_chunk_mut::<4>()
        {
            *head = world.channel.head();
        }
        ms += 1;
        let now = at(ms);
        let before = (world.relay.bindings(), world.relay.channels());
        world.relay.handle_datagrams(Train { contents: &contents, stride, ecn: (ms % 4) as u8 }, leg(from), now);
        let mut len = 0;
        while let Some(output) = world.relay.poll_output(now) {
            len += output.contents.len();
            world.relay.recycle(output);
        }
        assert!(len <= contents.len(), "{len} bytes for {}", contents.len());
        assert_eq!((world.relay.bindings(), world.relay.channels()), before);
    }
}

/// Anything from the relay's address: an agent that is bound stays so, and sends little because of it.
fn replies(input: &mut Input<'_>) {
    let world = World::new();
    let [mut client, _] = world.clients;
    let (mut sent, mut got) = (0, 0);
    while !input.is_empty() {
        got += 1;
        let _ = client.handle_datagram(input.part(), at(got));
        sent += std::iter::from_fn(|| client.poll_transmit()).count() as u64;
    }
    assert!(client.is_bound());
    // A hint is followed once a second, by a hello and an open, which are repeated ever more rarely.
    assert!(sent <= 20 + got / 50, "{sent} for {got}");
}

/// A relay for everybody, two agents, and a channel between them.
struct World {
    relay: Relay,
    clients: [Client; 2],
    channel: Channel,
}

impl World {
    fn new() -> Self {
        let key = |byte| Arc::new(SecretKey::from_bytes(&[byte; 32]));
        let (network, relay) = (key(1).public(), key(6).public());
        let config = Config { key: relay, members: Members::Everybody, limits: Limits::default(), seed: [7; 32] };
        let mut world_relay = Relay::new(config);
        let mut clients = [2, 3].map(|byte| {
            let identity = key(byte);
            Client::new(client::Config { network, relay, identity, membership: None, seed: [byte; 32] })
        });
        let (issuer, subject) = (key(3).public(), key(2).public());
        let expires = START + 3_600_000;
        let permit = RelayPermit { network, relay, issuer, subject, sequence: 1, issued: START, expires };
        let permit = Signed::sign(permit, &key(3)).expect("a good permit");
        settle(&mut world_relay, &mut clients);
        clients[0].open(permit, at(0)).expect("it is ours");
        settle(&mut world_relay, &mut clients);
        let channel = clients[0].channel_to(&issuer).expect("an honest relay opens it");
        Self { relay: world_relay, clients, channel }
    }
}

/// Carries everything until nothing is left.
fn settle(relay: &mut Relay, clients: &mut [Client; 2]) {
    loop {
        let mut was_quiet = true;
        for (number, client) in clients.iter_mut().enumerate() {
            client.handle_timeout(at(0));
            while let Some(datagram) = client.poll_transmit() {
                was_quiet = false;
                relay.handle_datagrams(Train::single(&datagram), leg(number), at(0));
            }
        }
        while let Some(output) = relay.poll_output(at(0)) {
            was_quiet = false;
            let to = usize::from(output.leg != leg(0));
            clients[to].handle_datagram(&output.contents, at(0));
        }
        if was_quiet {
            return;
        }
    }
}

fn at(ms: u64) -> Now {
    Now { unix: START + ms, monotonic: Duration::from_secs(1_000) + Duration::from_millis(ms) }
}

/// Agents 0 and 1, and a stranger.
fn leg(number: usize) -> Leg {
    SocketAddr::from(([192, 0, 2, number as u8 + 1], 7)).into()
}
