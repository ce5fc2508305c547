//! Users of a relay who mean harm.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use overlay_rendezvous::relay::client::Event;
use overlay_wire::relay::{Reason, Reply, Request};
use overlay_wire::signed::{PublicKey, RelayBind, RelayPermit, SecretKey, Signed};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

use crate::agent::{Agent, PORT, Relay, key, membership, network, now, paired, rendezvous, until};
use crate::lab::{SHORTLY, Star, inside, within};

/// What the relay answers to one request. `None`: nothing.
fn ask(agent: &mut Agent, request: &Request<'_>) -> Option<Reply> {
    let datagram = request.datagram();
    agent.send(&datagram, datagram.len());
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        if agent.socket.receive(&mut agent.batch, 1).expect("a socket that can be read") > 0 {
            let answer = agent.batch.iter_mut().next().map(|received| received.contents.to_vec()).unwrap_or_default();
            assert!(answer.len() <= datagram.len(), "{} bytes for {}", answer.len(), datagram.len());
            return Some(Reply::parse(&answer).expect("an answer of the relay"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

fn refusal(answer: Option<Reply>) -> Reason {
    let Some(Reply::Refused { reason, .. }) = answer else { panic!("not refused: {answer:?}") };
    reason
}

/// The cookie of an identity at the agent's address.
fn cookie(agent: &mut Agent, identity: PublicKey) -> [u8; 16] {
    let answer = ask(agent, &Request::Hello { identity, nonce: [1; 16] });
    let Some(Reply::Challenge { cookie, .. }) = answer else { panic!("no challenge: {answer:?}") };
    cookie
}

/// An object in the name of `claimed`, which has the signature of `signer`.
fn in_the_name_of(claimed: PublicKey, signer: &SecretKey, envelope: &[u8]) -> Vec<u8> {
    let own = signer.public().0;
    let mut forged = envelope.to_vec();
    let places: Vec<_> = (0..forged.len().saturating_sub(31)).filter(|at| forged[*at..*at + 32] == own).collect();
    assert!(!places.is_empty(), "the object names its signer");
    for at in places {
        forged[at..at + 32].copy_from_slice(&claimed.0);
    }
    forged
}

#[test]
fn nobody_is_bound_in_the_name_of_somebody_else() {
    let Some(star) = Star::new("nobody_is_bound_in_the_name_of_somebody_else") else { return };
    let relay = Relay::start(&star.a, &format!("--rendezvous {}", rendezvous().public()));
    let mut mallory = Agent::new(&star.b, 13, ("10.2.0.1", relay.key), true);
    let mut carol = Agent::new(&star.c, 14, ("10.3.0.1", relay.key), true);
    let (own, victim) = (key(13), key(11).public());
    let said = |identity, cookie, membership| RelayBind {
        network: network(),
        relay: relay.key,
        identity,
        epoch: 1,
        nonce: [1; 16],
        cookie,
        membership,
        lowest: 0,
        lowest_of: Vec::new(),
    };
    let sign = |said: RelayBind| Signed::sign(said, &own).expect("a good bind").bytes().to_vec();
    fn bind<'a>(identity: PublicKey, cookie: [u8; 16], envelope: &'a [u8]) -> Request<'a> {
        Request::Bind { identity, nonce: [1; 16], cookie, envelope }
    }
    // With a key that is not its own: the signature is wrong, or the bind is somebody else's.
    let theirs = cookie(&mut mallory, victim);
    let good = sign(said(own.public(), theirs, Some(membership(own.public()))));
    let forged = in_the_name_of(victim, &own, &good);
    assert_eq!(refusal(ask(&mut mallory, &bind(victim, theirs, &forged))), Reason::BadObject);
    assert_eq!(refusal(ask(&mut mallory, &bind(victim, theirs, &good))), Reason::BadObject);
    // With a membership that it has made itself, or none.
    let ours = cookie(&mut mallory, own.public());
    let self_made = Signed::sign(
        overlay_wire::signed::Membership {
            network: network(),
            rendezvous: own.public(),
            identity: own.public(),
            issued: now().unix,
            expires: now().unix + 3_600_000,
        },
        &own,
    );
    let self_made = self_made.expect("a good membership").bytes().to_vec();
    for membership in [Some(self_made), None] {
        let said = sign(said(own.public(), ours, membership));
        assert_eq!(refusal(ask(&mut mallory, &bind(own.public(), ours, &said))), Reason::NotAMember);
    }
    // With the cookie of a different address, which gets silence.
    let good = sign(said(own.public(), ours, Some(membership(own.public()))));
    assert_eq!(ask(&mut carol, &bind(own.public(), ours, &good)), None);
    assert_eq!(relay.counted(&star.a, "dropped_bad_cookie_total"), 1);
    assert_eq!((relay.counted(&star.a, "bindings"), relay.counted(&star.a, "bound_total")), (0, 0));
    // The same bytes from where they belong bind.
    assert!(matches!(ask(&mut mallory, &bind(own.public(), ours, &good)), Some(Reply::Bound(_))));
}

#[test]
fn a_permit_opens_only_what_its_signer_allowed() {
    let Some(star) = Star::new("a_permit_opens_only_what_its_signer_allowed") else { return };
    let relay = Relay::start(&star.a, &format!("--rendezvous {}", rendezvous().public()));
    let mut agents = [
        Agent::new(&star.b, 11, ("10.2.0.1", relay.key), true),
        Agent::new(&star.c, 12, ("10.3.0.1", relay.key), true),
    ];
    until(&mut agents, "both to be bound", |agents| agents.iter().all(|agent| agent.client.is_bound()));
    let [mut mallory, bob] = agents;
    let token =
        mallory.events.iter().find_map(|event| if let Event::Bound(it) = event { Some(it.token) } else { None });
    let token = token.expect("it is bound");
    let good = || bob.permit(&mallory, relay.key, 1).into_value();
    let sign = |permit: RelayPermit| Signed::sign(permit, &bob.key).expect("a good permit").bytes().to_vec();
    // Signed by mallory, in the name of bob.
    let helper = key(13);
    let by_helper = RelayPermit { issuer: helper.public(), ..good() };
    let by_helper = Signed::sign(by_helper, &helper).expect("a good permit").bytes().to_vec();
    let an_hour_ago = now().unix - 3_600_000;
    for (permit, reason) in [
        (sign(RelayPermit { relay: key(9).public(), ..good() }), Reason::WrongRelay),
        (sign(RelayPermit { subject: helper.public(), ..good() }), Reason::NotYours),
        (sign(RelayPermit { issued: an_hour_ago, expires: an_hour_ago + 1_000, ..good() }), Reason::Expired),
        (in_the_name_of(bob.key.public(), &helper, &by_helper), Reason::BadObject),
        (by_helper, Reason::NotHere),
    ] {
        let request = Request::Open { token, request: [7; 8], permit: &permit };
        assert_eq!(refusal(ask(&mut mallory, &request)), reason);
        assert!(relay.counted(&star.a, &format!("refused_total{{reason=\"{}\"}}", reason.word())) >= 1);
    }
    assert_eq!((relay.counted(&star.a, "channels"), relay.counted(&star.a, "opened_total")), (0, 0));
}

/// How many hellos a second come from addresses that are nobody's, and for how long.
const HELLOS: f64 = 10_000.0;
const FLOOD: Duration = Duration::from_secs(10);
/// 10.200.0.0/16, which is routed to the attacker.
const SPOOFED: u32 = 0x0ac8_0000;

#[test]
fn rate_ten_thousand_spoofed_hellos_a_second_cost_nobody_anything() {
    /// Datagrams a second of the two agents that the relay is for: 6 Mb/s.
    const RATE: f64 = 500.0;
    /// How much more memory the relay may hold: an allocator's pages.
    const SLACK: u64 = 1 << 20;
    let Some(star) = Star::new("rate_ten_thousand_spoofed_hellos_a_second_cost_nobody_anything") else { return };
    star.a.ip("route add 10.200.0.0/16 via 10.4.0.2");
    // Answers to nobody are dropped there without a word.
    star.d.shell("nft 'table ip silent { chain in { type filter hook input priority 0; udp sport 7447 drop; }; }'");
    let relay = Relay::start(&star.a, "--open");
    let (mut agents, channel) = paired(&star, relay.key, false);
    let raw = inside(&star.d, || {
        // The kernel lets us write the IP header on this socket.
        socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))
    });
    let raw = raw.expect("we are root");
    let (is_over, hellos) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut sent, mut first) = (0_u64, None);
    thread::scope(|scope| {
        scope.spawn(|| flood(&raw, &is_over, &hellos));
        let began = Instant::now();
        while began.elapsed() < FLOOD {
            let due = (began.elapsed().as_secs_f64() * RATE) as u64;
            for _ in sent..due {
                agents[0].send(&[&channel.head()[..], &[7; 1_436]].concat(), 1_440);
            }
            sent = due;
            agents.iter_mut().for_each(Agent::turn);
            if first.is_none() && began.elapsed() > FLOOD / 5 {
                first = Some(resident(&relay));
            }
            thread::sleep(Duration::from_millis(1));
        }
        is_over.store(true, Relaxed);
    });
    let last = resident(&relay);
    let all = sent as usize * 1_440;
    let deadline = Instant::now() + Duration::from_secs(2);
    while agents[1].arrived.len() < all && Instant::now() < deadline {
        agents.iter_mut().for_each(Agent::turn);
    }
    let lost = 1.0 - agents[1].arrived.len() as f64 / all as f64;
    let (first, challenges) = (first.expect("long enough"), relay.counted(&star.a, "challenges_total"));
    eprintln!(
        "{} hellos, {challenges} challenges; {:.2} % of {sent} datagrams lost; {first} bytes, then {last}",
        hellos.load(Relaxed),
        lost * 100.0
    );
    assert!(challenges as f64 >= HELLOS * FLOOD.as_secs_f64() * 0.9, "{challenges} challenges");
    assert!(lost < 0.01, "{:.2} % lost", lost * 100.0);
    assert!(last <= first + SLACK, "from {first} to {last} bytes");
    assert_eq!(relay.counted(&star.a, "bindings"), 2);
    within(SHORTLY, "empty queues", || (relay.counted(&star.a, "queued_bytes") == 0).then_some(()));
}

fn flood(raw: &OwnedFd, is_over: &AtomicBool, hellos: &AtomicU64) {
    let began = Instant::now();
    let to = SocketAddr::from(([10, 4, 0, 1], PORT));
    while !is_over.load(Relaxed) {
        let due = (began.elapsed().as_secs_f64() * HELLOS) as u64;
        for number in hellos.load(Relaxed)..due {
            // Every source differs from the previous one, and none repeats soon.
            let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let source = Ipv4Addr::from(SPOOFED | (scattered >> 48) as u32);
            let hello = Request::Hello { identity: PublicKey([scattered as u8; 32]), nonce: [scattered as u8; 16] };
            let hello = hello.datagram();
            let mut datagram = Vec::with_capacity(8 + hello.len());
            datagram.extend([1_024 | (scattered >> 32) as u16, PORT].iter().flat_map(|port| port.to_be_bytes()));
            datagram.extend((8 + hello.len() as u16).to_be_bytes());
            // Without a checksum, which IPv4 allows.
            datagram.extend([0, 0]);
            datagram.extend(hello);
            let ends = overlay_sim::packet::Ends { source: IpAddr::V4(source), destination: to.ip() };
            let _ = sendto(raw, &ends.ip(17, &datagram), SendFlags::empty(), &to);
            hellos.store(number + 1, Relaxed);
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// The memory that the relay holds, in bytes.
fn resident(relay: &Relay) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.process.pid())).expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line for each process");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}
