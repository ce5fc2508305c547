//! A relay as operators run it, and agents: the client of `overlay_rendezvous::relay` on sockets of their own. What they send
//! is WireGuard's to a relay: bytes behind a head.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use overlay_os::udp::{BindOptions, ReceiveBatch, Transmit, UdpSocket};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::relay::client::{Client, Config, Event};
use overlay_wire::relay::{Channel, Kind, kind};
use overlay_wire::signed::{MAX_MEMBERSHIP, Membership, PublicKey, RelayPermit, SecretKey, Signed};
use serde_json::Value;

use crate::lab::{Host, Process, SHORTLY, inside, within};

/// The relay's port.
pub(crate) const PORT: u16 = 7447;
pub(crate) fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32])
}

pub(crate) fn network() -> PublicKey {
    key(1).public()
}

pub(crate) fn rendezvous() -> SecretKey {
    key(2)
}

pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Now { unix: unix.as_millis() as u64, monotonic: overlay_os::clock::boottime() }
}

/// A relay on host `a` of a star.
pub(crate) struct Relay {
    pub(crate) process: Process,
    pub(crate) key: PublicKey,
}

impl Relay {
    #[track_caller]
    pub(crate) fn start(host: &Host, more: &str) -> Self {
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
    pub(crate) fn counted(&self, host: &Host, name: &str) -> u64 {
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
pub(crate) struct Agent {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) client: Client,
    pub(crate) socket: UdpSocket,
    pub(crate) batch: ReceiveBatch,
    pub(crate) relay: SocketAddr,
    /// What came through channels, with the heads, and the strides and lengths of the trains.
    pub(crate) arrived: Vec<u8>,
    pub(crate) strides: Vec<usize>,
    pub(crate) lens: Vec<usize>,
    pub(crate) events: Vec<Event>,
}

impl Agent {
    /// `byte`: of its key. `relay`: the address at which this host reaches it.
    pub(crate) fn new(host: &Host, byte: u8, relay: (&str, PublicKey), is_member: bool) -> Self {
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
        let (batch, arrived) = (ReceiveBatch::new(16), Vec::new());
        let client = Client::new(config);
        Self { key, client, socket, batch, relay, arrived, strides: Vec::new(), lens: Vec::new(), events: Vec::new() }
    }

    /// Reads and sends what there is.
    pub(crate) fn turn(&mut self) {
        self.client.handle_timeout(now());
        while self.socket.receive(&mut self.batch, 16).expect("a socket that can be read") > 0 {
            for received in self.batch.iter_mut() {
                assert_eq!(received.source, self.relay, "an answer leaves from where the question went");
                if kind(received.contents) == Kind::Data {
                    self.strides.push(received.stride);
                    self.lens.push(received.contents.len());
                    self.arrived.extend_from_slice(received.contents);
                    continue;
                }
                for datagram in received.contents.chunks(received.stride) {
                    // Data behind an answer in one train has the same length by chance.
                    if self.client.handle_datagram(datagram, now()).is_some() {
                        self.strides.push(datagram.len());
                        self.lens.push(datagram.len());
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

    pub(crate) fn send(&self, contents: &[u8], segment_size: usize) {
        let transmit = Transmit { dont_fragment: true, ..Transmit::to(self.relay, contents, segment_size) };
        self.socket.send(&transmit).expect("the kernel takes it");
    }

    /// What this agent signs so that the other may send to it.
    pub(crate) fn permit(&self, subject: &Agent, relay: PublicKey, sequence: u64) -> Signed<RelayPermit> {
        let issued = now().unix;
        let (issuer, subject) = (self.key.public(), subject.key.public());
        let expires = issued + 3_600_000;
        let permit = RelayPermit { network: network(), relay, issuer, subject, sequence, issued, expires };
        Signed::sign(permit, &self.key).expect("a good permit")
    }
}

/// A socket with everything that the kernel offers, on any free port.
pub(crate) fn open_socket() -> UdpSocket {
    open_socket_at(0)
}

/// The same, on this port.
pub(crate) fn open_socket_at(port: u16) -> UdpSocket {
    let options = BindOptions {
        port,
        fwmark: None,
        receive_buffer: 4 << 20,
        send_buffer: 4 << 20,
        segmentation: true,
        coalescing: true,
    };
    UdpSocket::bind(overlay_os::udp::Family::V4, &options).expect("a free port")
}

pub(crate) fn membership(identity: PublicKey) -> Vec<u8> {
    let issued = now().unix;
    let (rendezvous, expires) = (rendezvous(), issued + MAX_MEMBERSHIP);
    let membership = Membership { network: network(), rendezvous: rendezvous.public(), identity, issued, expires };
    Signed::sign(membership, &rendezvous).expect("a good membership").bytes().to_vec()
}

/// Lets all agents work until `condition` holds.
#[track_caller]
pub(crate) fn until(agents: &mut [Agent], what: &str, mut condition: impl FnMut(&mut [Agent]) -> bool) {
    within(SHORTLY, what, || {
        agents.iter_mut().for_each(Agent::turn);
        condition(agents).then_some(())
    });
}

/// The first two agents of a star, at `b` and `c`, with a channel from the first to the second.
pub(crate) fn paired(star: &crate::lab::Star, relay: PublicKey, is_member: bool) -> ([Agent; 2], Channel) {
    // The hosts of a star have no way to each other: each reaches the relay at an address of its own.
    let mut agents = [
        Agent::new(&star.b, 11, ("10.2.0.1", relay), is_member),
        Agent::new(&star.c, 12, ("10.3.0.1", relay), is_member),
    ];
    let permit = agents[1].permit(&agents[0], relay, 1);
    agents[0].client.open(permit, now()).expect("it is ours");
    let peer = agents[1].key.public();
    until(&mut agents, "a channel", |agents| agents[0].client.channel_to(&peer).is_some());
    let channel = agents[0].client.channel_to(&peer).expect("it is there");
    (agents, channel)
}
