//! How long a flow that we opened lets the peer in. A flow that nobody on our side uses any more closes, whatever the peer
//! sends, and whatever our kernel answers.
//!
//! Alice opens something towards mallory, who may open nothing. Then the program on alice's side is gone.

use std::time::Duration;

use overlay_core::{Command, PeerFlows};
use overlay_sim::initiator::Session;
use overlay_sim::packet::Ends;
use overlay_sim::{HostId, HostOptions, Outsider, World, millis, minutes, seconds};
use overlay_wire::checksum;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const GRE: u8 = 47;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Alice's end of a tunnel, and mallory, who may open nothing through it.
struct Tunnel {
    world: World,
    alice: HostId,
    mallory: Outsider,
    /// From mallory to alice.
    v4: Ends,
    v6: Ends,
}

impl Tunnel {
    fn new() -> Self {
        Self::with(HostOptions::default(), None)
    }

    /// A daemon that starts after `kill -9`. On alice's host, sockets have these UDP ports.
    fn after_a_kill(ports: Vec<u16>) -> Self {
        let ports = Command::HostPorts { taken: ports, ephemeral: 32_768..=60_999 };
        Self::with(HostOptions::default(), Some(ports))
    }

    fn with(options: HostOptions, ports: Option<Command>) -> Self {
        let mut world = World::new(7);
        let alice = world.host_with(options);
        if let Some(ports) = ports {
            world.command(alice, ports).expect("never refused");
        }
        let mut mallory = world.outsider_with(alice, |peer| peer.allow = Some(Vec::new()));
        let v4 = world.from_outsider(&mallory);
        let v6 = Ends::new(mallory.inner[1], world.v6(alice, alice).source);
        world.connect(&mut mallory);
        world.run_for(seconds(1));
        Self { world, alice, mallory, v4, v6 }
    }

    /// Alice's host sends a packet.
    fn send(&mut self, packet: Vec<u8>) {
        self.world.send(self.alice, packet);
    }

    /// Mallory sends a packet in a session of its own, because the last one may have expired. Returns whether it gets in.
    fn gets_in(&mut self, packet: &[u8]) -> bool {
        let mut session = self.session();
        let before = self.world.received(self.alice).len();
        self.world.inject(self.mallory.address, self.alice, &session.seal(packet));
        self.world.received(self.alice).len() > before
    }

    fn session(&mut self) -> Session {
        // Handshakes at once would count as a flood.
        self.world.run_for(millis(50));
        let pending = self.mallory.initiate();
        let answers = self.world.ask(self.mallory.address, self.alice, &pending.message);
        let response = answers.iter().find(|answer| answer[0] == 2).expect("a response");
        let mut session = self.mallory.initiator.complete(&pending, response).expect("a good response");
        self.world.inject(self.mallory.address, self.alice, &session.seal(&[]));
        session
    }

    /// Mallory sends this packet at this interval, and alice's host answers if it got in. Returns how many got in.
    fn insists(&mut self, packet: &[u8], answer: Option<&[u8]>, every: Duration, times: usize) -> usize {
        let mut count = 0;
        for _ in 0..times {
            if self.gets_in(packet) {
                count += 1;
                answer.into_iter().for_each(|answer| self.send(answer.to_vec()));
            }
            self.world.run_for(every);
        }
        count
    }

    /// The node ends in order, and its successor takes over the flows.
    fn restart(&mut self) {
        let known: Vec<PeerFlows> = self.world.known_flows(self.alice);
        self.world.restart(self.alice);
        for known in known {
            self.world.command(self.alice, Command::RestoreFlows(known)).expect("a peer");
        }
    }
}

fn segment(ends: Ends, from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    ends.ip(TCP, &[&ports[..], &[0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]].concat())
}

/// A message of SCTP or DCCP, whose type stands at this byte.
fn message(ends: Ends, protocol: u8, [from, to]: [u16; 2], (at, kind): (usize, u8)) -> Vec<u8> {
    let mut bytes = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 20]].concat();
    bytes[at] = kind;
    ends.ip(protocol, &bytes)
}

/// What the kernel of a packet's destination answers if nobody listens. `ends` are those of the answer.
fn refusal(ends: Ends, kind_and_code: [u8; 2], refused: &[u8]) -> Vec<u8> {
    let mut message = [&kind_and_code[..], &[0; 6], refused].concat();
    let protocol = if ends.source.is_ipv4() { ICMP } else { ICMPV6 };
    if protocol == ICMP {
        let sum = checksum::finish(checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    ends.ip(protocol, &message)
}

#[test]
fn a_service_behind_a_redirected_port_is_not_a_client_of_ours() {
    // UDP 443 is redirected to port 8443, or to a container: no socket of ours is bound to 443.
    let mut tunnel = Tunnel::after_a_kill(vec![8_443]);
    // The right was withdrawn meanwhile, and the service goes on with what it did not open.
    for _ in 0..10 {
        for ends in [tunnel.v4, tunnel.v6] {
            tunnel.send(ends.reversed().udp_between(443, 4_000, b"more of it"));
            assert!(!tunnel.gets_in(&ends.udp_between(4_000, 443, b"more of it")));
        }
        tunnel.world.run_for(seconds(100));
    }
}

#[test]
fn a_peer_that_goes_on_proves_that_a_flow_is_older_than_our_memory() {
    // A port inside the ephemeral range can be redirected as well. Here the peer speaks first, as clients do.
    let mut tunnel = Tunnel::after_a_kill(vec![8_443]);
    let request = tunnel.v4.udp_between(4_000, 51_820, b"more of it");
    assert!(!tunnel.gets_in(&request));
    tunnel.send(tunnel.v4.reversed().udp_between(51_820, 4_000, b"what was asked"));
    assert!(!tunnel.gets_in(&request));
}

#[test]
fn a_look_up_closes_when_our_kernel_says_that_nobody_listens() {
    let mut tunnel = Tunnel::new();
    for (ends, port_unreachable) in [(tunnel.v4, [3, 3]), (tunnel.v6, [1, 4])] {
        tunnel.send(ends.reversed().udp_between(40_000, 53, b"name?"));
        assert!(tunnel.gets_in(&ends.udp_between(53, 40_000, b"name.")));
        let late = ends.udp_between(53, 40_000, b"and another thing");
        let refused = refusal(ends.reversed(), port_unreachable, &late);
        assert_eq!(tunnel.insists(&late, Some(&refused), seconds(100), 200), 1, "in five and a half hours");
        // The next program that asks gets its answer.
        tunnel.send(ends.reversed().udp_between(40_000, 53, b"name?"));
        assert!(tunnel.gets_in(&late));
    }
    // A protocol without ports.
    for (ends, protocol_unreachable) in [(tunnel.v4, [3, 2]), (tunnel.v6, [4, 1])] {
        tunnel.send(ends.reversed().ip(GRE, &[0; 8]));
        let late = ends.ip(GRE, &[0; 8]);
        let refused = refusal(ends.reversed(), protocol_unreachable, &late);
        assert_eq!(tunnel.insists(&late, Some(&refused), seconds(1), 10), 1);
    }
}

#[test]
fn only_the_host_that_was_spoken_to_can_say_that_nobody_listens() {
    let mut tunnel = Tunnel::with(HostOptions { forward: true, ..HostOptions::default() }, None);
    let ends = tunnel.v4;
    let neighbour = Ends { source: [192, 168, 1, 1].into(), ..ends.reversed() };
    let answer = ends.udp_between(53, 40_000, b"name.");
    let other = ends.udp_between(53, 40_001, b"name.");
    for said in [
        refusal(neighbour, [3, 3], &answer),
        refusal(ends.reversed(), [3, 3], &other),
        // What a router says for a while, and what a host says of a packet that it sent.
        refusal(ends.reversed(), [3, 1], &answer),
        refusal(ends.reversed(), [3, 3], &ends.reversed().udp_between(40_000, 53, b"name?")),
    ] {
        tunnel.send(ends.reversed().udp_between(40_000, 53, b"name?"));
        tunnel.send(said);
        assert!(tunnel.gets_in(&answer));
    }
}

#[test]
fn a_stream_that_we_never_answer_ends_after_half_an_hour() {
    let mut tunnel = Tunnel::new();
    for (ours, theirs) in [
        (tunnel.v4.reversed().udp_between(40_000, 5_004, b"play"), tunnel.v4.udp_between(5_004, 40_000, b"music")),
        (tunnel.v6.reversed().ip(GRE, &[0; 8]), tunnel.v6.ip(GRE, &[0; 8])),
    ] {
        tunnel.send(ours.clone());
        let count = tunnel.insists(&theirs, None, seconds(60), 200);
        assert!((30..=33).contains(&count), "{count} minutes");
        // A report every 25 minutes is enough.
        for _ in 0..4 {
            tunnel.send(ours.clone());
            assert_eq!(tunnel.insists(&theirs, None, seconds(60), 25), 25);
        }
    }
}

#[test]
fn an_association_that_our_kernel_refuses_to_know_is_over() {
    const SCTP_DATA: (usize, u8) = (12, 0);
    const SCTP_ABORT: (usize, u8) = (12, 6);
    const SCTP_SHUTDOWN_COMPLETE: (usize, u8) = (12, 14);
    const DCCP_DATA: (usize, u8) = (8, 2 << 1);
    const DCCP_RESET: (usize, u8) = (8, 7 << 1);
    for (protocol, data, end) in
        [(SCTP, SCTP_DATA, SCTP_ABORT), (SCTP, SCTP_DATA, SCTP_SHUTDOWN_COMPLETE), (DCCP, DCCP_DATA, DCCP_RESET)]
    {
        let mut tunnel = Tunnel::new();
        for ends in [tunnel.v4, tunnel.v6] {
            tunnel.send(message(ends.reversed(), protocol, [40_000, 3_868], data));
            let late = message(ends, protocol, [3_868, 40_000], data);
            let end = message(ends.reversed(), protocol, [40_000, 3_868], end);
            assert_eq!(tunnel.insists(&late, Some(&end), seconds(100), 50), 1, "{protocol}");
            // A second one, about a packet that was already on its way, opens nothing.
            tunnel.send(end);
            assert!(!tunnel.gets_in(&late));
        }
    }
}

#[test]
fn a_failed_attempt_of_ours_is_not_a_way_in() {
    let mut tunnel = Tunnel::new();
    let ends = tunnel.v4;
    let (ours, theirs) =
        (|flags| segment(ends.reversed(), 40_000, 443, flags), |flags| segment(ends, 443, 40_000, flags));
    // Both open at once.
    tunnel.send(ours(SYN));
    assert!(tunnel.gets_in(&theirs(SYN)));
    // Nobody answers, and the program gives up. Later another program listens on that port, and answers.
    assert!(tunnel.insists(&theirs(SYN), Some(&ours(SYN | ACK)), seconds(30), 100) <= 3, "64 s are enough for it");
    tunnel.world.run_for(minutes(5));
    // Neither an ACK nor a SYN with ACK makes a connection of the attempt.
    for flags in [ACK, SYN | ACK] {
        tunnel.send(ours(SYN));
        assert!(tunnel.insists(&theirs(flags), None, seconds(30), 100) <= 4, "two minutes: {flags:#04x}");
    }
}

#[test]
fn what_our_kernel_resets_stays_closed() {
    let mut tunnel = Tunnel::new();
    let ends = tunnel.v4;
    let (ours, theirs) =
        (|flags| segment(ends.reversed(), 40_000, 443, flags), |flags| segment(ends, 443, 40_000, flags));
    tunnel.send(ours(SYN));
    assert!(tunnel.gets_in(&theirs(SYN | ACK)));
    tunnel.send(ours(ACK));
    assert!(tunnel.gets_in(&theirs(ACK)));
    // The program was killed. The kernel answers each segment with a RST.
    assert!(tunnel.insists(&theirs(ACK), Some(&ours(RST)), seconds(5), 100) <= 3);
}

#[test]
fn a_connection_that_our_kernel_is_silent_about_ends_after_two_hours() {
    let mut tunnel = Tunnel::new();
    let ends = tunnel.v4;
    tunnel.send(segment(ends.reversed(), 40_000, 443, SYN));
    assert!(tunnel.gets_in(&segment(ends, 443, 40_000, SYN | ACK)));
    tunnel.send(segment(ends.reversed(), 40_000, 443, ACK));
    let count = tunnel.insists(&segment(ends, 443, 40_000, ACK), None, minutes(10), 50);
    assert_eq!(count, 12);
}

#[test]
fn answers_to_a_ping_that_has_ended_stop() {
    let mut tunnel = Tunnel::new();
    for (ends, kind) in [(tunnel.v4, 0), (tunnel.v6, 129)] {
        tunnel.send(ends.reversed().echo_request(9, 1, b"ping"));
        let reply = refusal(ends, [kind, 0], &[]);
        let reply = [&reply[..reply.len() - 4], &[0, 9, 0, 1]].concat();
        assert_eq!(tunnel.insists(&reply, None, seconds(10), 20), 3);
    }
}

#[test]
fn a_flow_that_is_handed_over_is_no_younger_than_it_was() {
    let mut tunnel = Tunnel::new();
    let ends = tunnel.v4;
    let (ours, theirs) =
        (|flags| segment(ends.reversed(), 40_000, 443, flags), |flags| segment(ends, 443, 40_000, flags));
    // A connection that is closed, and that a SYN of the peer must not open.
    tunnel.send(ours(SYN));
    assert!(tunnel.gets_in(&theirs(RST | ACK)));
    tunnel.restart();
    assert!(!tunnel.gets_in(&theirs(SYN)));
    tunnel.world.run_for(seconds(10));
    assert!(!tunnel.gets_in(&theirs(ACK)), "ten seconds after its end");
    // An attempt, 60 s old.
    tunnel.send(ours(SYN));
    tunnel.world.run_for(seconds(60));
    tunnel.restart();
    assert!(tunnel.gets_in(&theirs(SYN)));
    tunnel.world.run_for(seconds(5));
    assert!(!tunnel.gets_in(&theirs(SYN)));
    // A stream whose receiver went 25 minutes ago.
    tunnel.send(ends.reversed().udp_between(40_000, 5_004, b"play"));
    let theirs = ends.udp_between(5_004, 40_000, b"music");
    assert_eq!(tunnel.insists(&theirs, None, seconds(60), 25), 25);
    tunnel.restart();
    let count = tunnel.insists(&theirs, None, seconds(60), 100);
    assert!((5..=8).contains(&count), "{count} minutes more");
}
