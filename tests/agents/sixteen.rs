//! The sixteen states of trust. Either side may hold its own grant or not, and the other side's grant or not.
//!
//! Only the state with all four carries data. An agent that lacks one of its two grants is silent: it does not answer
//! a valid handshake, made with the very key of its peer, and not even the kernel answers for it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use overlay_sim::initiator::{Initiator, Pending, Refused, Timestamp};

use super::*;
use crate::lab::{Agents, Datagram, Frames, Lab, Process, StateFolder, datagram, installed};

/// How long each state is watched, and the pause between two initiations of the hand-written peer.
const WATCHED: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(150);
/// The outer addresses of the two agents, in each state, and the port of their daemons.
const ALICE: &str = "10.1.0.2";
const BOB: &str = "10.2.0.2";
const DAEMON: u16 = 51820;
/// What each agent serves.
const PORT: u16 = 8000;
/// The types of WireGuard's first two messages.
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;

/// What one side holds: its own grant, and the grant of the other side.
type Held = [bool; 2];
const KINDS: [Held; 4] = [[false, false], [true, false], [false, true], [true, true]];

/// State folders of one agent. There are two of each kind, which came about in different ways.
type Folders = [[StateFolder; 2]; 4];

/// The two agents and their folders. They have run, and no longer do.
struct Past {
    alice: Folders,
    bob: Folders,
    /// Their identities and their IPv4 addresses.
    identities: [String; 2],
    virtual_ips: [String; 2],
}

#[test]
fn one_of_the_sixteen_states_of_trust_carries_data_and_the_others_are_silent() {
    let name = "sixteen states";
    if !installed(name, &["tcpdump"]) {
        return;
    }
    let Some(world) = Agents::new(name) else { return };
    let (past, lab) = past(world);
    thread::scope(|scope| {
        for (a, b) in KINDS.iter().flat_map(|a| KINDS.iter().map(move |b| (*a, *b))) {
            let (past, lab) = (&past, &lab);
            thread::Builder::new()
                .name(format!("alice {a:?}, bob {b:?}"))
                .spawn_scoped(scope, move || State::begin(past, lab, a, b).is_as_it_must_be(past))
                .expect("a thread");
        }
    });
}

/// Lets two agents live through everything that makes the folders, with a rendezvous. It is gone afterwards.
#[track_caller]
fn past(mut world: Agents) -> (Past, Lab) {
    let (mut alice, mut bob) = world.two();
    let identities = [&alice, &bob].map(|agent| agent.ask("agents")["identity"].as_str().expect("a key").to_owned());
    let [alices, bobs] = identities.clone();
    let virtual_ips = [alice.v4(), bob.v4()];
    let dir = world.lab.dir().to_owned();
    let copy = |agent: &Agent, what: &str| StateFolder::copy(agent, &dir.join(format!("{}-{what}", agent.host.name())));
    let holds = |agent: &Agent, peer: &str, held: Held| {
        within(SHORTLY, &format!("{} to hold {held:?}", agent.host.name()), || {
            (StateFolder::of(agent).peer(peer)?.grants(unix_now()) == held).then_some(())
        });
    };

    let strangers = [&alice, &bob].map(|agent| copy(agent, "stranger"));

    alice.ask("handshake bob --want any --allow any");
    bob.is_asked_by("alice");
    let (alice_asked, bob_asked) = (copy(&alice, "asked"), copy(&bob, "pending"));

    // Bob's approval does not arrive before the copy.
    world.kill();
    bob.ask(&format!("approve {alices}"));
    let bob_approved = copy(&bob, "approved");
    restart(&mut world, [&mut alice, &mut bob]);
    alice.sees("bob", "trusted");
    alice.host.reaches(&virtual_ips[1]);
    for (agent, peer) in [(&alice, &bobs), (&bob, &alices)] {
        let knows = || StateFolder::of(agent).peer(peer)?.has_endpoints().then_some(());
        within(SHORTLY, "each to know where the other is", knows);
    }
    let trusted = [&alice, &bob].map(|agent| copy(agent, "trusted"));

    world.kill();
    bob.ask("untrust alice");
    let bob_revoked = copy(&bob, "revoked");
    restart(&mut world, [&mut alice, &mut bob]);
    holds(&alice, &bobs, [true, false]);
    let alice_was_told = copy(&alice, "told");
    alice.ask("untrust bob");
    holds(&alice, &bobs, [false, false]);
    holds(&bob, &alices, [false, false]);
    let enemies = [&alice, &bob].map(|agent| copy(agent, "enemy"));

    bob.ask("handshake alice --want any --allow any");
    alice.is_asked_by("bob");
    let (bob_asks, alice_is_asked) = (copy(&bob, "asks"), copy(&alice, "is-asked"));
    alice.ask("approve bob --for 3s");
    let has_key = || StateFolder::of(&bob).peer(&alices)?.preshared_key().map(drop);
    within(SHORTLY, "the approval to arrive, before or after it has expired", has_key);
    holds(&alice, &bobs, [false, true]);
    holds(&bob, &alices, [true, false]);
    let expired = [&alice, &bob].map(|agent| copy(agent, "expired"));
    alice.kill9();
    bob.kill9();
    world.kill();

    let [alice_stranger, bob_stranger] = strangers;
    let [alice_trusted, bob_trusted] = trusted;
    let [alice_enemy, bob_enemy] = enemies;
    let [alice_expired, bob_expired] = expired;
    let past = Past {
        alice: [
            [alice_stranger, alice_enemy],
            [alice_asked, alice_was_told],
            [alice_is_asked, alice_expired],
            [alice_trusted.clone(), alice_trusted],
        ],
        bob: [
            [bob_stranger, bob_enemy],
            [bob_asks, bob_expired],
            [bob_asked, bob_revoked],
            [bob_trusted, bob_approved],
        ],
        identities,
        virtual_ips,
    };
    (past, world.lab)
}

/// Starts the rendezvous, and both agents anew, as agents that run reconnect only after a while.
#[track_caller]
fn restart(world: &mut Agents, agents: [&mut Agent; 2]) {
    world.start();
    for agent in agents {
        agent.kill9();
        agent.start();
    }
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500 million")
}

/// One of the sixteen states: two daemons, and nothing else on the wire between them.
struct State {
    held: [Held; 2],
    folders: [StateFolder; 2],
    alice: Agent,
    bob: Agent,
    frames: Frames,
    /// What each agent serves to the other.
    _servers: [TcpListener; 2],
}

/// What the hand-written peer heard.
#[derive(Debug, Default)]
struct Heard {
    sent: usize,
    answers: usize,
    /// Handshakes that were answered with the same preshared key, and with a different one.
    completed: usize,
    failed: usize,
}

impl State {
    /// Starts both agents from their folders.
    #[track_caller]
    fn begin(past: &Past, lab: &Lab, a: Held, b: Held) -> State {
        let [a_kind, b_kind] = [a, b].map(|held| KINDS.iter().position(|kind| *kind == held).expect("one of four"));
        // Both ways in which a folder came about are used.
        let way = (a_kind + b_kind) % 2;
        let folders = [past.alice[a_kind][way].clone(), past.bob[b_kind][way].clone()];
        for (folder, peer, held) in [(&folders[0], &past.identities[1], a), (&folders[1], &past.identities[0], b)] {
            let grants = folder.peer(peer).map_or([false, false], |peer| peer.grants(unix_now()));
            assert_eq!(grants, held, "{folder:?}");
        }

        let hosts = ["a", "b"].map(|side| lab.host(&format!("{side}{a_kind}{b_kind}")));
        let [on_alice, on_bob] = &hosts;
        lab.link(on_alice, on_bob, &[&format!("{ALICE}/24")], &[&format!("{BOB}/24")]);
        on_alice.ip(&format!("route add default dev {}", on_alice.link_to(on_bob)));
        on_bob.ip(&format!("route add default dev {}", on_bob.link_to(on_alice)));
        let frames = Frames::start(on_bob, &on_bob.link_to(on_alice), "", "");
        let [mut alice, mut bob] = [0, 1].map(|side| Agent::of_copy(&hosts[side], &folders[side]));
        // Bob comes first. The kernel says that his port is closed as long as he does not run.
        bob.start();
        alice.start();
        let listen = |host: &Host| inside(host, || TcpListener::bind(("::", PORT))).expect("a port of the host");
        let servers = [listen(on_alice), listen(on_bob)];
        State { held: [a, b], folders, alice, bob, frames, _servers: servers }
    }

    #[track_caller]
    fn is_as_it_must_be(&self, past: &Past) {
        let [to_alice, to_bob] = &past.virtual_ips;
        let (alice, bob) = (&self.alice.host, &self.bob.host);
        let both_ways = [(alice, to_bob), (bob, to_alice)];
        let is_open = self.held == [[true, true]; 2];
        let heard = if is_open {
            for (from, to) in both_ways {
                from.reaches(to);
                connect(from, to, PORT).0.expect("a connection");
            }
            self.knock(past)
        } else {
            let pings: Vec<_> = both_ways.into_iter().map(|(from, to)| pings(from, to)).collect();
            let heard = self.knock(past);
            for ping in pings {
                let said = ping.finish_within(SHORTLY).stdout;
                assert!(said.contains(" 0 received"), "{said}");
            }
            for (from, to) in both_ways {
                connect(from, to, PORT).0.expect_err("a connection in a state without all grants");
            }
            heard
        };
        eprintln!("{:?}: {heard:?}", self.held);
        let [alice_may, bob_may] = self.held.map(|held| held == [true, true]);
        let frames = self.frames.all();
        if bob_may {
            assert!(heard.answers > 0, "{heard:?}");
        } else {
            assert_eq!(heard.answers, 0);
            is_silent(&frames, self.mac_of_bob());
            let dropped = self.bob.daemon().dropped("handshake_unknown_peer");
            assert!(dropped >= heard.sent as u64, "{dropped} of {} initiations were valid", heard.sent);
        }
        // Alice's tunnel key alone is not enough: the preshared key of her state folder counts too.
        assert_eq!([heard.completed > 0, heard.failed > 0], [is_open, bob_may && !is_open], "{heard:?}");

        let from_alice = frames.iter().filter_map(|frame| datagram(frame));
        let from_alice: Vec<_> = from_alice.filter(|datagram| datagram.source == at(ALICE, DAEMON)).collect();
        if alice_may {
            // Where both hold everything, bob may call first, and is answered.
            let is_called = from_alice.iter().any(is_initiation);
            let is_answered = is_open && from_alice.iter().any(is_response);
            assert!(is_called || is_answered, "alice calls bob, as she holds both grants");
        } else {
            assert_eq!(from_alice, []);
        }
        let from_peer = frames.iter().filter_map(|frame| datagram(frame)).filter(|datagram| {
            datagram.source.ip() == at(ALICE, 0).ip() && datagram.source.port() != DAEMON && is_initiation(datagram)
        });
        assert_eq!(from_peer.count(), heard.sent, "the capture sees everything");
        let answers = frames.iter().filter_map(|frame| datagram(frame));
        let answers = answers.filter(|datagram| datagram.target.port() != DAEMON && is_response(datagram)).count();
        assert_eq!(answers > 0, bob_may, "the capture sees answers where there are some");
    }

    /// Sends valid initiations to bob, as if it were alice: with her tunnel key, and with her preshared key if she has one.
    fn knock(&self, past: &Past) -> Heard {
        let (private, _) = self.folders[0].tunnel_key();
        let (_, bob) = self.folders[1].tunnel_key();
        let mut initiator = Initiator::new(private, bob, 1);
        let alices_file = self.folders[0].peer(&past.identities[1]);
        if let Some(key) = alices_file.and_then(|file| file.preshared_key()) {
            initiator.set_preshared_key(key);
        }
        let socket = inside(&self.alice.host, || UdpSocket::bind((ALICE, 0))).expect("a port of the host");
        socket.connect((BOB, DAEMON)).expect("a route");
        socket.set_read_timeout(Some(PAUSE)).expect("a time is set");
        let (mut heard, mut pending) = (Heard::default(), Vec::<Pending>::new());
        let until = Instant::now() + WATCHED;
        while Instant::now() < until {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            // Newer than those of alice's daemon, which counts leap seconds.
            let timestamp = Timestamp::from_unix(now.as_secs() + 60, now.subsec_nanos());
            let initiation = initiator.initiate(timestamp, 0x100 + heard.sent as u32);
            socket.send(&initiation.message).expect("bob's port is open, so there is no error by ICMP");
            pending.push(initiation);
            heard.sent += 1;
            let next = Instant::now() + PAUSE;
            let mut answer = [0; 2048];
            while Instant::now() < next {
                let Ok(len) = socket.recv(&mut answer) else { continue };
                heard.answers += 1;
                for result in pending.iter().map(|pending| initiator.complete(pending, &answer[..len])) {
                    match result {
                        Ok(_) => heard.completed += 1,
                        Err(Refused::Tag) => heard.failed += 1,
                        Err(_) => {}
                    }
                }
            }
        }
        heard
    }

    /// The Ethernet address of bob's end of the wire.
    #[track_caller]
    fn mac_of_bob(&self) -> [u8; 6] {
        let link = self.bob.host.link_to(&self.alice.host);
        let json: Value = serde_json::from_str(&self.bob.host.ip(&format!("-j link show dev {link}"))).expect("JSON");
        let text = json[0]["address"].as_str().expect("an address").to_owned();
        let bytes: Vec<_> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
        bytes.try_into().expect("six bytes")
    }
}

/// Requires that a host with this Ethernet address has sent nothing but what finds neighbours on the link.
#[track_caller]
fn is_silent(frames: &[Vec<u8>], mac: [u8; 6]) {
    for frame in frames.iter().filter(|frame| frame[6..12] == mac) {
        let is_arp = frame[12..14] == [0x08, 0x06];
        // Multicast listener reports come with a hop-by-hop header. Neighbour discovery has the types 133 to 137.
        let is_ipv6 = frame[12..14] == [0x86, 0xdd];
        let is_discovery = is_ipv6 && (frame[20] == 0 || frame[20] == 58 && (133..=137).contains(&frame[54]));
        assert!(is_arp || is_discovery, "bob sent {frame:02x?}");
    }
}

fn pings(from: &Host, to: &str) -> Process {
    let count = WATCHED.as_secs() * 2;
    from.spawn(format!("ping -n -q -i 0.5 -c {count} -W 1 {to}"))
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn is_initiation(datagram: &Datagram) -> bool {
    datagram.contents.first() == Some(&INITIATION)
}

fn is_response(datagram: &Datagram) -> bool {
    datagram.contents.first() == Some(&RESPONSE)
}
