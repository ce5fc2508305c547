//! A relay as operators run it, and two agents that reach each other through nothing else.
//!
//! The agents are the client of `overlay_rendezvous::relay` on sockets of their own. What they send is WireGuard's to a relay:
//! bytes behind a head.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "runs a relay and sends to it")]

mod lab;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use overlay_os::udp::{BindOptions, ReceiveBatch, Transmit, UdpSocket};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::relay::client::{Client, Config, Event};
use overlay_wire::relay::{Channel, Kind, Reason, kind, open_data};
use overlay_wire::signed::{MAX_MEMBERSHIP, Membership, PublicKey, RelayPermit, SecretKey, Signed};
use serde_json::Value;

use lab::{Host, Process, SHORTLY, Star, inside, within};

const PORT: u16 = 7447;
/// How many datagrams a train has, and how long each is with its head: as in WireGuard over a path of 1,500 bytes.
const TRAIN: usize = 40;
const LEN: usize = 1_440;

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

fn network() -> PublicKey {
    key(1).public()
}

fn rendezvous() -> SecretKey {
    key(2)
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Now { unix: unix.as_millis() as u64, monotonic: overlay_os::clock::boottime() }
}

/// A relay on host `a` of a star.
struct Relay {
    process: Process,
    key: PublicKey,
}

impl Relay {
    #[track_caller]
    fn start(host: &Host, more: &str) -> Self {
        let state = host.dir().join("state");
        let line = format!(
            "--json --state-dir {} relay serve --network lab --listen 0.0.0.0:{PORT} --metrics 127.0.0.1:9100 {more}",
            state.display()
        );
        let process = host.start(host.overlay_command(line), "overlay relay serve");
        let ready: Value = within(SHORTLY, "the relay's line", || serde_json::from_str(process.stdout().trim()).ok());
        assert_eq!((&ready["schema"], &ready["status"]), (&"overlay.relay.serve.v1".into(), &"ready".into()));
        assert_eq!(ready["network"], "lab");
        let key = ready["key"].as_str().expect("a text").parse().expect("a key");
        let address: SocketAddr = ready["address"].as_str().expect("a text").parse().expect("an address");
        assert_eq!(address.port(), PORT);
        Self { process, key }
    }

    /// A counter of the relay.
    fn counted(&self, host: &Host, name: &str) -> u64 {
        let text = inside(host, || {
            let mut stream = TcpStream::connect("127.0.0.1:9100").expect("the metrics");
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n").expect("sent");
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an answer");
            text
        });
        let begin = format!("overlay_relay_{name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&begin));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }
}

/// An agent with a socket on a host.
struct Agent {
    key: Arc<SecretKey>,
    client: Client,
    socket: UdpSocket,
    batch: ReceiveBatch,
    relay: SocketAddr,
    /// What came through channels, with the heads, and the strides of the trains.
    arrived: Vec<u8>,
    strides: Vec<usize>,
    events: Vec<Event>,
}

impl Agent {
    /// `byte`: of its key. `relay`: the address at which this host reaches it.
    fn new(host: &Host, byte: u8, relay: (&str, PublicKey), is_member: bool) -> Self {
        let key = Arc::new(self::key(byte));
        let socket = inside(host, open_socket);
        let config = Config {
            network: network(),
            relay: relay.1,
            identity: Arc::clone(&key),
            membership: is_member.then(|| membership(key.public())),
            seed: [byte; 32],
        };
        let relay = SocketAddr::new(relay.0.parse::<IpAddr>().expect("an address"), PORT);
        let batch = ReceiveBatch::new(16);
        let client = Client::new(config);
        Self { key, client, socket, batch, relay, arrived: Vec::new(), strides: Vec::new(), events: Vec::new() }
    }

    /// Reads and sends what there is.
    fn turn(&mut self) {
        self.client.handle_timeout(now());
        while self.socket.receive(&mut self.batch, 16).expect("a socket that can be read") > 0 {
            for received in self.batch.iter_mut() {
                assert_eq!(received.source, self.relay, "an answer leaves from where the question went");
                if kind(received.contents) == Kind::Data {
                    self.strides.push(received.stride);
                    self.arrived.extend_from_slice(received.contents);
                    continue;
                }
                for datagram in received.contents.chunks(received.stride) {
                    // Data behind an answer in one train has the same length by chance.
                    if self.client.handle_datagram(datagram, now()).is_some() {
                        self.strides.push(datagram.len());
                        self.arrived.extend_from_slice(datagram);
                    }
                }
            }
        }
        while let Some(datagram) = self.client.poll_transmit() {
            self.send(&datagram, datagram.len());
        }
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    fn send(&self, contents: &[u8], segment_size: usize) {
        let transmit = Transmit {
            destination: self.relay,
            source: None,
            contents,
            segment_size,
            traffic_class: 0,
            ttl: None,
            dont_fragment: true,
            tag: 0,
        };
        self.socket.send(&transmit).expect("the kernel takes it");
    }

    /// What this agent signs so that the other may send to it.
    fn permit(&self, subject: &Agent, relay: PublicKey, sequence: u64) -> Signed<RelayPermit> {
        let issued = now().unix;
        let (issuer, subject) = (self.key.public(), subject.key.public());
        let expires = issued + 3_600_000;
        let permit = RelayPermit { network: network(), relay, issuer, subject, sequence, issued, expires };
        Signed::sign(permit, &self.key).expect("a good permit")
    }
}

fn open_socket() -> UdpSocket {
    let options = BindOptions {
        port: 0,
        fwmark: None,
        receive_buffer: 4 << 20,
        send_buffer: 4 << 20,
        segmentation: true,
        coalescing: true,
    };
    UdpSocket::bind(overlay_os::udp::Family::V4, &options).expect("a free port")
}

fn membership(identity: PublicKey) -> Vec<u8> {
    let issued = now().unix;
    let (rendezvous, expires) = (rendezvous(), issued + MAX_MEMBERSHIP);
    let membership = Membership { network: network(), rendezvous: rendezvous.public(), identity, issued, expires };
    Signed::sign(membership, &rendezvous).expect("a good membership").bytes().to_vec()
}

/// Lets all agents work until `condition` holds.
#[track_caller]
fn until(agents: &mut [Agent], what: &str, mut condition: impl FnMut(&mut [Agent]) -> bool) {
    within(SHORTLY, what, || {
        agents.iter_mut().for_each(Agent::turn);
        condition(agents).then_some(())
    });
}

/// A train through a channel, of which each datagram is different.
fn train(channel: Channel, first: u8) -> Vec<u8> {
    (0..TRAIN).flat_map(|n| [&channel.head()[..], &[first.wrapping_add(n as u8); LEN - 4]].concat()).collect()
}

#[test]
fn two_agents_exchange_trains_through_the_relay() {
    let Some(star) = Star::new("two_agents_exchange_trains_through_the_relay") else { return };
    let relay = Relay::start(&star.a, &format!("--rendezvous {}", rendezvous().public()));
    // The hosts of a star have no way to each other: each reaches the relay at an address of its own.
    let mut agents = [
        Agent::new(&star.b, 11, ("10.2.0.1", relay.key), true),
        Agent::new(&star.c, 12, ("10.3.0.1", relay.key), true),
    ];
    until(&mut agents, "both to be bound", |agents| agents.iter().all(|agent| agent.client.is_bound()));
    let permit = agents[1].permit(&agents[0], relay.key, 1);
    agents[0].client.open(permit, now()).expect("it is ours");
    let peer = agents[1].key.public();
    until(&mut agents, "a channel", |agents| agents[0].client.channel_to(&peer).is_some());
    let channel = agents[0].client.channel_to(&peer).expect("it is there");
    let opened = Event::Opened { channel, peer: agents[0].key.public(), is_ours: false };
    until(&mut agents, "the other end to be told", |agents| agents[1].events.contains(&opened));

    for (from, to) in [(0, 1), (1, 0)] {
        let trains: Vec<_> = (0..20).map(|n| train(channel, n)).collect();
        let all = trains.concat();
        for train in &trains {
            agents[from].send(train, LEN);
        }
        until(&mut agents, "every byte", |agents| agents[to].arrived.len() >= all.len());
        assert_eq!(agents[to].arrived, all, "in order, and unchanged");
        assert!(agents[to].strides.iter().all(|stride| *stride == LEN));
        // Over a veth, trains stay whole on both legs: neither we nor the relay made 800 system calls.
        assert!(agents[to].strides.len() <= 200, "{} trains", agents[to].strides.len());
        assert!(agents[to].arrived.chunks(LEN).all(|datagram| open_data(datagram).is_some_and(|it| it.0 == channel)));
    }
    let counted = |name| relay.counted(&star.a, name);
    assert_eq!((counted("bindings"), counted("channels"), counted("forwarded_total")), (2, 1, 40 * TRAIN as u64));
    assert_eq!(counted("forwarded_bytes_total"), (40 * TRAIN * LEN) as u64);
    assert_eq!((counted("dropped_unbound_total"), counted("dropped_queue_full_total")), (0, 0));
    // The relay took them in as trains, too.
    assert!(counted("trains_total") < 40 * TRAIN as u64 / 2, "{} trains", counted("trains_total"));
}

#[test]
fn agents_find_a_relay_again_that_was_killed() {
    let Some(star) = Star::new("agents_find_a_relay_again_that_was_killed") else { return };
    let line = format!("--rendezvous {}", rendezvous().public());
    let relay = Relay::start(&star.a, &line);
    let mut agents = [
        Agent::new(&star.b, 11, ("10.2.0.1", relay.key), true),
        Agent::new(&star.c, 12, ("10.3.0.1", relay.key), true),
    ];
    let permit = agents[1].permit(&agents[0], relay.key, 1);
    agents[0].client.open(permit, now()).expect("it is ours");
    let peer = agents[1].key.public();
    until(&mut agents, "a channel", |agents| agents[0].client.channel_to(&peer).is_some());
    let before = agents[0].client.channel_to(&peer).expect("it is there");

    let key = relay.key;
    drop(relay);
    let relay = Relay::start(&star.a, &line);
    assert_eq!(relay.key, key, "its key is on disk");
    // Both send, as agents do that have traffic, and the relay's hints make them bind.
    let mut datagram = 0_u8;
    until(&mut agents, "data to arrive again", |agents| {
        for agent in agents.iter() {
            let channel = agents[0].client.channel_to(&peer).unwrap_or(before);
            agent.send(&[&channel.head()[..], &[datagram; 100]].concat(), 104);
        }
        datagram = datagram.wrapping_add(1);
        agents.iter().all(|agent| !agent.arrived.is_empty())
    });
    assert_eq!(relay.counted(&star.a, "bindings"), 2);
}

/// The agents look for the path MTU themselves. A relay that fragments would hide it from them.
#[test]
fn what_does_not_fit_the_second_leg_is_dropped_and_counted() {
    let Some(star) = Star::new("what_does_not_fit_the_second_leg_is_dropped_and_counted") else { return };
    let relay = Relay::start(&star.a, "--open");
    let mut agents = [
        Agent::new(&star.b, 11, ("10.2.0.1", relay.key), false),
        Agent::new(&star.c, 12, ("10.3.0.1", relay.key), false),
    ];
    let permit = agents[1].permit(&agents[0], relay.key, 1);
    agents[0].client.open(permit, now()).expect("it is ours");
    let peer = agents[1].key.public();
    until(&mut agents, "a channel", |agents| agents[0].client.channel_to(&peer).is_some());
    let channel = agents[0].client.channel_to(&peer).expect("it is there");
    star.a.ip(&format!("link set {} mtu 1300", star.a.link_to(&star.c)));
    let short = [&channel.head()[..], &[7; 500]].concat();
    let train = [&train(channel, 0)[..], &short].concat();
    agents[0].send(&train, LEN);
    until(&mut agents, "the one that fits", |agents| !agents[1].arrived.is_empty());
    assert_eq!(agents[1].arrived, short);
    assert_eq!(relay.counted(&star.a, "unsent_total{reason=\"too_long\"}"), 1);
    // Nothing else suffers.
    agents[1].arrived.clear();
    agents[0].send(&short.repeat(10), short.len());
    until(&mut agents, "a train of those", |agents| agents[1].arrived.len() == 10 * short.len());
}

#[test]
fn a_stranger_is_refused_and_bytes_that_mean_nothing_get_silence() {
    let Some(star) = Star::new("a_stranger_is_refused_and_bytes_that_mean_nothing_get_silence") else { return };
    let mut relay = Relay::start(&star.a, &format!("--rendezvous {}", rendezvous().public()));
    let mut agents = [Agent::new(&star.b, 11, ("10.2.0.1", relay.key), false)];
    until(&mut agents, "a refusal", |agents| agents[0].events.contains(&Event::Refused(Reason::NotAMember)));
    assert!(!agents[0].client.is_bound());
    let initiation = [&[1, 0, 0, 0][..], &[7; 144]].concat();
    for bytes in [&initiation[..], &[0x41; 11], &[0x81; 159], &[0xff; 1_000], &[0x40; 64]] {
        agents[0].send(bytes, bytes.len());
    }
    within(SHORTLY, "all to be counted", || {
        let counted = |name| relay.counted(&star.a, name);
        let dropped = counted("dropped_foreign_total") + counted("dropped_malformed_total");
        (dropped + counted("dropped_unbound_total") == 5).then_some(())
    });
    assert_eq!(relay.counted(&star.a, "unbound_total"), 0);
    assert!(relay.process.ended().is_none());
    // It ends in order.
    relay.process.signal(rustix::process::Signal::TERM);
    let ended = within(SHORTLY, "the relay's end", || relay.process.ended());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

/// The port that relays also says how an agent is seen, on the same socket.
#[test]
fn a_relay_answers_stun_on_its_port() {
    let Some(star) = Star::new("a_relay_answers_stun_on_its_port") else { return };
    let relay = Relay::start(&star.a, "--open");
    let asked = star.b.overlay(format!("--json netcheck --server 10.2.0.1:{PORT}"));
    let seen: Value = serde_json::from_str(&asked.succeeded("overlay netcheck")).expect("JSON");
    assert_eq!(seen["udp"], true, "{seen:#}");
    // One address shows nothing about it.
    assert_eq!((&seen["mapping"], &seen["filtering"]), (&"unknown".into(), &"unknown".into()));
    let mapped = seen["ipv4"]["mapped"][0].as_str().expect("an address");
    assert!(mapped.starts_with("10.2.0."), "{mapped}");
    assert!(relay.counted(&star.a, "stun_answered_total") >= 1);
    // An indication is never answered.
    let socket = inside(&star.b, || std::net::UdpSocket::bind("0.0.0.0:0").expect("a free port"));
    let indication = [&[0x00, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    socket.send_to(&indication, ("10.2.0.1", PORT)).expect("sent");
    within(SHORTLY, "the counter", || {
        (relay.counted(&star.a, "stun_unanswered_total{reason=\"not_a_request\"}") == 1).then_some(())
    });
}
