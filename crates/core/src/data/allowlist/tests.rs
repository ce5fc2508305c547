//! What an allowlist admits: the life of a flow, every limit, and a model that it has to agree with.

use std::time::Duration;

use proptest::prelude::*;

use self::packets::*;
use super::flow::PEER_ALONE;
use super::flows::{FIRST_FLOWS, MAX_CHANCES, MAX_FLOWS_PER_HALF, ROOM, TIDY_INTERVAL};
use super::fragments::{MAX_VERDICTS, VERDICT_LIFETIME};
use super::*;
use crate::PeerTag;
use crate::data::budget::{Budget, Purse};

mod fragmented;
mod full;
mod memory;
mod model;
mod packets;

const SYN_ACK: u8 = SYN | ACK;
const FIN_ACK: u8 = FIN | ACK;

/// A time on the test clock, some time after its start.
fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(1_000_000 + seconds))
}

/// Creates an allowlist from rules in config syntax.
fn allow(rules: &[&str]) -> Allowlist {
    Allowlist::new(rules.iter().map(|text| rule(text)).collect(), 7, purse())
}

/// The peer's party, and a budget that nobody else uses.
fn purse() -> Purse {
    Purse { party: Party::peer(PeerTag(100), 7), budget: Budget::new(MAX_FLOWS) }
}

fn rule(text: &str) -> Rule {
    let (protocol, ports) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol {
        "icmp" => Protocol::Icmp,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        number => Protocol::Number(number.parse().unwrap()),
    };
    let ports = match ports.split_once('-') {
        None if ports.is_empty() => None,
        None => Some(ports.parse().unwrap()..=ports.parse().unwrap()),
        Some((low, high)) => Some(low.parse().unwrap()..=high.parse().unwrap()),
    };
    Rule { protocol, ports }
}

impl Allowlist {
    fn sees_out(&mut self, packet: &[u8], now: Instant) {
        self.on_outbound(&Packet::parse(packet).unwrap(), |_| Party::OWN, now);
    }

    /// Creates a list in which our half of the table is full.
    pub(crate) fn full_of_flows(now: Instant) -> Self {
        let mut list = allow(&[]);
        (0..MAX_FLOWS_PER_HALF as u16).for_each(|port| list.sees_out(&udp(V4, US, PEER, port, 53), now));
        list
    }

    fn asked(&mut self, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        self.admit(&Packet::parse(packet).unwrap(), now)
    }

    fn withdraw_all(&mut self) {
        self.set_rules(Vec::new());
    }
}

const ADMITTED: Result<(), DropReason> = Ok(());
const REFUSED: Result<(), DropReason> = Err(DropReason::NotAllowed);

#[test]
fn the_transitions_of_a_flow() {
    use Opener::{Peer, Us};
    use State::{Icmp, TcpClosing, TcpEstablished, TcpOpening, Udp};

    // The opener is `Us`. The table is the same for both openers.
    for (packets, state) in [
        (&[][..], TcpOpening),
        (&[(Us, SYN)], TcpOpening),
        (&[(Us, SYN), (Us, SYN)], TcpOpening),
        (&[(Us, SYN), (Peer, SYN_ACK)], TcpOpening),
        (&[(Us, SYN), (Peer, RST | ACK)], TcpClosing),
        (&[(Us, SYN), (Peer, SYN_ACK), (Us, ACK)], TcpEstablished),
        (&[(Us, SYN), (Peer, SYN), (Us, SYN_ACK), (Peer, SYN_ACK), (Us, ACK)], TcpEstablished),
        (&[(Us, ACK)], TcpEstablished),
        (&[(Us, ACK), (Peer, SYN)], TcpEstablished),
        (&[(Us, ACK), (Peer, SYN_ACK)], TcpEstablished),
        (&[(Us, ACK), (Us, RST)], TcpClosing),
        (&[(Us, ACK), (Peer, RST)], TcpClosing),
        (&[(Us, ACK), (Us, FIN_ACK)], TcpEstablished),
        (&[(Us, ACK), (Us, FIN_ACK), (Us, FIN_ACK), (Peer, ACK)], TcpEstablished),
        (&[(Us, ACK), (Us, FIN_ACK), (Peer, FIN_ACK)], TcpClosing),
        (&[(Us, ACK), (Peer, FIN_ACK), (Us, FIN_ACK)], TcpClosing),
        (&[(Us, ACK), (Us, FIN_ACK), (Peer, FIN_ACK), (Us, ACK)], TcpClosing),
        (&[(Us, RST), (Us, ACK)], TcpClosing),
        (&[(Us, RST), (Peer, SYN_ACK)], TcpClosing),
        (&[(Us, RST), (Us, SYN)], TcpOpening),
        (&[(Us, FIN), (Peer, FIN), (Us, SYN), (Us, FIN)], TcpEstablished),
        (&[(Us, SYN | RST)], TcpClosing),
        (&[(Us, SYN | FIN), (Peer, SYN | FIN)], TcpOpening),
    ] {
        let mut flow = Flow::new(ip::TCP, Us, at(0));
        for &(from, flags) in packets {
            flow.on_packet(from, flags, at(0));
        }
        assert_eq!(flow.state, state, "{packets:?}");
    }
    for (protocol, state) in [(ip::UDP, Udp), (47, Udp), (ip::ICMP, Icmp), (ip::ICMPV6, Icmp)] {
        let mut flow = Flow::new(protocol, Us, at(0));
        assert_eq!(flow.state, state);
        flow.on_packet(Peer, 0, at(0));
        assert_eq!(flow.state, state);
    }
}

#[test]
fn the_peer_alone_establishes_no_connection_of_ours() {
    for flags in [ACK, FIN_ACK, SYN_ACK, SYN] {
        let mut flow = Flow::new(ip::TCP, Opener::Us, at(0));
        flow.on_packet(Opener::Us, SYN, at(0));
        (0..3).for_each(|_| flow.on_packet(Opener::Peer, flags, at(0)));
        assert_eq!(flow.state, State::TcpOpening, "{flags:#04x}");
    }
    // The peer completes its own connection.
    let mut flow = Flow::new(ip::TCP, Opener::Peer, at(0));
    for (from, flags) in [(Opener::Peer, SYN), (Opener::Us, SYN_ACK), (Opener::Peer, ACK)] {
        flow.on_packet(from, flags, at(0));
    }
    assert_eq!(flow.state, State::TcpEstablished);
}

#[test]
fn what_renews_a_flow_that_we_opened() {
    use Opener::{Peer, Us};
    let (opening, established, closing) = ([SYN].as_slice(), [SYN, ACK].as_slice(), [SYN, RST].as_slice());
    // The flags that we have sent at 0, the packet, when it passes, and whether it renews the flow.
    for (protocol, before, from, flags, second, renews) in [
        (ip::ICMP, [0].as_slice(), Us, 0, 20, true),
        (ip::ICMP, &[0], Peer, 0, 20, false),
        (ip::UDP, &[0], Us, 0, 100, true),
        (ip::UDP, &[0], Peer, 0, 100, true),
        (47, &[0], Peer, 0, 100, true),
        (ip::TCP, opening, Us, SYN, 100, true),
        (ip::TCP, opening, Us, SYN_ACK, 100, false),
        (ip::TCP, opening, Peer, SYN, 10, false),
        (ip::TCP, opening, Peer, SYN_ACK, 10, false),
        (ip::TCP, opening, Peer, ACK, 10, false),
        (ip::TCP, established, Us, ACK, 7_000, true),
        (ip::TCP, established, Peer, ACK, 7_000, false),
        (ip::TCP, closing, Us, ACK, 9, true),
        (ip::TCP, closing, Us, RST, 9, false),
        (ip::TCP, closing, Peer, ACK, 9, false),
        (ip::TCP, closing, Peer, RST, 9, false),
        // A change of state.
        (ip::TCP, opening, Peer, RST, 100, true),
        (ip::TCP, established, Peer, RST, 7_000, true),
        (ip::TCP, closing, Us, SYN, 9, true),
    ] {
        let mut flow = Flow::new(protocol, Us, at(0));
        before.iter().for_each(|&flags| flow.on_packet(Us, flags, at(0)));
        flow.on_packet(from, flags, at(second));
        let last = if renews { at(second) } else { at(0) };
        assert_eq!(flow.last(), last, "{protocol} {before:?} {from:?} {flags:#04x}");
        let of_us = if renews && from == Us { at(second) } else { at(0) };
        assert_eq!(flow.last_ours(), of_us, "{protocol} {before:?} {from:?} {flags:#04x}");
    }
    let mut flow = Flow::new(ip::UDP, Us, at(0));
    (1..100).for_each(|minute| flow.on_packet(Peer, 0, at(minute * 60)));
    assert_eq!(flow.last(), at(29 * 60), "half an hour after our last packet");
    let mut flow = Flow::new(ip::UDP, Peer, at(0));
    (1..100).for_each(|minute| flow.on_packet(Peer, 0, at(minute * 60)));
    assert_eq!(flow.last(), at(99 * 60), "what the peer opened stays known as the peer's");
}

#[test]
fn the_peer_alone_renews_for_half_an_hour_however_often_it_sends() {
    // The second clock passes 2^32 ms, where 32 bits of milliseconds begin again.
    for started in [Duration::from_micros(1_999_900), Duration::from_millis(1 << 32) - Duration::from_micros(500_100)] {
        let start = Instant::from_start(started);
        for step in [Duration::from_micros(300), Duration::from_micros(7_300)] {
            let mut flow = Flow::new(ip::UDP, Opener::Us, start);
            flow.on_packet(Opener::Us, 0, start);
            let mut now = start;
            while now < start + PEER_ALONE + Duration::from_secs(60) {
                now = now + step;
                flow.on_packet(Opener::Peer, 0, now);
            }
            let renewed = flow.last().since(start);
            assert!(renewed.abs_diff(PEER_ALONE) < step + Duration::from_millis(1), "{renewed:?}");
            assert!(flow.last_ours().since(start).max(start.since(flow.last_ours())) < Duration::from_millis(1));
        }
    }
}

#[test]
fn a_refusal_of_ours_ends_what_we_opened_and_nothing_else() {
    for (v, kind_and_code) in [(V4, [3, 3]), (V6, [1, 4]), (V4, [3, 2]), (V6, [4, 1])] {
        let refusal = |from: Host, to: Host, quoted: &[u8]| {
            let message = [&kind_and_code[..], &[0; 6], quoted].concat();
            packet(v, from, to, icmp_protocol(v), &message)
        };
        let (ours, answer) = (udp(v, US, PEER, 40000, 53), udp(v, PEER, US, 53, 40000));
        let mut list = allow(&["udp/53"]);
        list.sees_out(&ours, at(0));
        // A different flow, a different host, TCP, and what quotes a packet of ours.
        list.sees_out(&refusal(US, PEER, &udp(v, PEER, US, 54, 40000)), at(0));
        list.sees_out(&refusal(US_TOO, PEER, &answer), at(0));
        list.sees_out(&refusal(US, PEER_NET, &answer), at(0));
        list.sees_out(&refusal(US, PEER, &ours), at(0));
        assert_eq!(list.asked(&answer, at(0)), ADMITTED);
        list.sees_out(&refusal(US, PEER, &answer), at(0));
        assert_eq!(list.asked(&answer, at(0)), REFUSED);
        list.sees_out(&ours, at(1));
        assert_eq!(list.asked(&answer, at(1)), ADMITTED, "opened again");

        let (syn, syn_ack) = (tcp(v, US, PEER, 40000, 80, SYN), tcp(v, PEER, US, 80, 40000, SYN_ACK));
        list.sees_out(&syn, at(1));
        list.sees_out(&refusal(US, PEER, &syn_ack), at(1));
        assert_eq!(list.asked(&syn_ack, at(1)), ADMITTED);

        // A flow of the peer stays the peer's. Otherwise our next packet would make it ours.
        let theirs = udp(v, PEER, US, 1234, 53);
        assert_eq!(list.asked(&theirs, at(1)), ADMITTED);
        list.sees_out(&refusal(US, PEER, &theirs), at(1));
        list.withdraw_all();
        list.sees_out(&udp(v, US, PEER, 53, 1234), at(1));
        assert_eq!(list.asked(&theirs, at(1)), REFUSED);
    }
}

#[test]
fn each_state_has_its_idle_timeout() {
    let flow = |protocol, flags: &[u8]| {
        let mut flow = Flow::new(protocol, Opener::Peer, at(0));
        flags.iter().for_each(|&flags| flow.on_packet(Opener::Us, flags, at(100)));
        flow
    };
    for (flow, seconds) in [
        (flow(ip::ICMP, &[0]), 30),
        (flow(ip::UDP, &[0]), 120),
        (flow(50, &[0]), 120),
        (flow(ip::TCP, &[SYN]), 120),
        (flow(ip::TCP, &[ACK]), 7200),
        (flow(ip::TCP, &[RST]), 10),
    ] {
        assert!(flow.is_live(at(100 + seconds - 1)), "{flow:?}");
        assert!(!flow.is_live(at(100 + seconds)), "{flow:?}");
    }
    assert!(!flow(ip::UDP, &[]).is_live(at(120)), "the first packet starts it");
}

#[test]
fn a_rule_admits_its_protocol_and_ports_and_nothing_else() {
    let rules = ["icmp", "tcp/22", "tcp/8000-8010", "udp/53", "47", "0"];
    for (packet, verdict) in [
        (tcp(V4, PEER, US, 40000, 22, SYN), ADMITTED),
        (tcp(V6, PEER, US, 40000, 22, SYN), ADMITTED),
        (tcp(V4, PEER, US, 40000, 22, ACK), ADMITTED),
        (tcp(V4, PEER, US, 22, 40000, SYN), REFUSED),
        (tcp(V4, PEER, US, 40000, 23, SYN), REFUSED),
        (tcp(V4, PEER, US, 40000, 7999, SYN), REFUSED),
        (tcp(V4, PEER, US, 40000, 8000, SYN), ADMITTED),
        (tcp(V4, PEER, US, 40000, 8010, SYN), ADMITTED),
        (tcp(V4, PEER, US, 40000, 8011, SYN), REFUSED),
        (udp(V4, PEER, US, 40000, 53), ADMITTED),
        (udp(V6, PEER, US, 40000, 53), ADMITTED),
        (udp(V4, PEER, US, 40000, 22), REFUSED),
        (tcp(V4, PEER, US, 40000, 53, SYN), REFUSED),
        (echo_request_packet(V4, PEER, US, 1), ADMITTED),
        (echo_request_packet(V6, PEER, US, 1), ADMITTED),
        (icmp_packet(V6, PEER, US, 135), ADMITTED),
        (packet(V4, PEER, US, 47, &[0; 4]), ADMITTED),
        (packet(V6, PEER, US, 47, &[0; 4]), ADMITTED),
        (packet(V4, PEER, US, 50, &[0; 32]), REFUSED),
        // ICMP of the other address family does not count as ICMP.
        (packet(V4, PEER, US, 58, &[128, 0, 0, 0, 0, 1, 0, 1]), REFUSED),
        (packet(V6, PEER, US, 1, &[8, 0, 0, 0, 0, 1, 0, 1]), REFUSED),
        // "No next header" is treated like any other protocol.
        (packet(V6, PEER, US, 59, &[]), REFUSED),
        // The packet is too short for its header, so its port is unknown.
        (packet(V4, PEER, US, 6, &[0x9c, 0x40, 0, 22]), REFUSED),
    ] {
        assert_eq!(allow(&rules).asked(&packet, at(0)), verdict, "{packet:02x?}");
    }
    let all = ["tcp", "udp"];
    for port in [0, 1, 65535] {
        assert_eq!(allow(&all).asked(&tcp(V4, PEER, US, 1, port, SYN), at(0)), ADMITTED);
        assert_eq!(allow(&all).asked(&udp(V6, PEER, US, 1, port), at(0)), ADMITTED);
    }
    assert_eq!(allow(&all).asked(&echo_request_packet(V4, PEER, US, 1), at(0)), REFUSED);
}

#[test]
fn an_empty_list_admits_answers_to_what_we_opened_only() {
    for v in [V4, V6] {
        for (ours, answer, stranger) in [
            (
                tcp(v, US, PEER, 40000, 80, SYN),
                tcp(v, PEER, US, 80, 40000, SYN_ACK),
                tcp(v, PEER, US, 81, 40000, SYN_ACK),
            ),
            (udp(v, US, PEER, 40000, 53), udp(v, PEER, US, 53, 40000), udp(v, PEER_NET, US, 53, 40000)),
            (echo_request_packet(v, US, PEER, 9), echo_reply_packet(v, PEER, US, 9), echo_reply_packet(v, PEER, US, 8)),
            (packet(v, US, PEER, 47, &[0; 4]), packet(v, PEER, US, 47, &[0; 4]), packet(v, PEER, US, 50, &[0; 4])),
        ] {
            let mut list = allow(&[]);
            assert_eq!(list.asked(&answer, at(0)), REFUSED, "before we opened it");
            list.sees_out(&ours, at(0));
            assert_eq!(list.asked(&stranger, at(0)), REFUSED, "another flow");
            assert_eq!(list.asked(&answer, at(1)), ADMITTED);
        }
    }
}

#[test]
fn what_we_only_answer_opens_nothing() {
    for v in [V4, V6] {
        for (ours, theirs) in [
            (tcp(v, US, PEER, 22, 40000, RST), tcp(v, PEER, US, 40000, 22, ACK)),
            (tcp(v, US, PEER, 22, 40000, RST | ACK), tcp(v, PEER, US, 40000, 22, ACK)),
            (tcp(v, US, PEER, 22, 40000, SYN_ACK), tcp(v, PEER, US, 40000, 22, ACK)),
            (tcp(v, US, PEER, 22, 40000, ACK), tcp(v, PEER, US, 40000, 22, ACK)),
            (echo_reply_packet(v, US, PEER, 9), echo_request_packet(v, PEER, US, 9)),
            (icmp_packet(v, US, PEER, 133), icmp_packet(v, PEER, US, 134)),
            (icmp_error(v, US, PEER, unreachable_kind(v), &udp(v, PEER, US, 40000, 53)), udp(v, PEER, US, 40000, 53)),
        ] {
            let mut list = allow(&[]);
            list.sees_out(&ours, at(0));
            assert_eq!(list.asked(&theirs, at(0)), REFUSED, "{ours:02x?}");
            assert_eq!(list.flows.len(Opener::Us), 0);
        }
    }
}

#[test]
fn a_flow_lives_as_long_as_packets_pass_in_either_direction() {
    let (query, answer) = (udp(V4, US, PEER, 40000, 53), udp(V4, PEER, US, 53, 40000));
    let mut list = allow(&[]);
    list.sees_out(&query, at(0));
    assert_eq!(list.asked(&answer, at(119)), ADMITTED);
    assert_eq!(list.asked(&answer, at(238)), ADMITTED);
    list.sees_out(&query, at(357));
    assert_eq!(list.asked(&answer, at(476)), ADMITTED);
    assert_eq!(list.asked(&answer, at(596)), REFUSED);
    assert_eq!(list.asked(&answer, at(597)), REFUSED, "a refused packet keeps nothing alive");
}

#[test]
fn pings_in_opposite_directions_are_different_flows() {
    for v in [V4, V6] {
        let mut list = allow(&[]);
        list.sees_out(&echo_request_packet(v, US, PEER, 9), at(0));
        assert_eq!(list.asked(&echo_request_packet(v, PEER, US, 9), at(0)), REFUSED);
        assert_eq!(list.asked(&echo_reply_packet(v, PEER, US, 9), at(0)), ADMITTED);
        assert_eq!(list.asked(&echo_reply_packet(v, PEER, US, 9), at(30)), REFUSED);
    }
}

#[test]
fn a_syn_does_not_ride_on_a_flow_that_we_opened() {
    let syn = tcp(V4, PEER, US, 80, 40000, SYN);
    let mut list = allow(&[]);
    list.sees_out(&tcp(V4, US, PEER, 40000, 80, SYN), at(0));
    assert_eq!(list.asked(&syn, at(0)), ADMITTED, "both open at once");
    list.sees_out(&tcp(V4, US, PEER, 40000, 80, ACK), at(0));
    assert_eq!(list.asked(&syn, at(0)), REFUSED);
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, ACK), at(0)), ADMITTED, "the flow is as it was");

    // If a rule admits the SYN, the flow is the peer's from then on.
    list.set_rules(vec![rule("tcp/40000")]);
    assert_eq!(list.asked(&syn, at(1)), ADMITTED);
    list.withdraw_all();
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, ACK), at(1)), REFUSED);
}

#[test]
fn a_closed_connection_goes_soon_and_its_ports_can_be_used_again() {
    let mut list = allow(&[]);
    list.sees_out(&tcp(V4, US, PEER, 40000, 80, SYN), at(0));
    list.sees_out(&tcp(V4, US, PEER, 40000, 80, FIN_ACK), at(1));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, ACK), at(3600)), ADMITTED, "half closed");
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, FIN_ACK), at(3600)), ADMITTED);
    list.sees_out(&tcp(V4, US, PEER, 40000, 80, ACK), at(3601));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, ACK), at(3610)), ADMITTED);
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, ACK), at(3620)), REFUSED);

    list.sees_out(&tcp(V4, US, PEER, 40000, 80, SYN), at(3621));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, RST | ACK), at(3621)), ADMITTED);
    list.sees_out(&tcp(V4, US, PEER, 40000, 80, SYN), at(3622));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 80, 40000, SYN_ACK), at(3640)), ADMITTED);
}

#[test]
fn icmp_errors_pass_when_they_quote_a_living_flow() {
    for v in [V4, V6] {
        let kind = unreachable_kind(v);
        let query = udp(v, US, PEER_NET, 40000, 53);
        let syn = tcp(v, US, PEER, 40000, 80, SYN);
        let ping = echo_request_packet(v, US, PEER, 5);
        let answer = udp(v, US, PEER, 53, 1234);
        let mut list = allow(&["udp/53"]);
        for quoted in [&query, &syn, &ping, &answer] {
            assert_eq!(list.asked(&icmp_error(v, PEER, US, kind, quoted), at(0)), REFUSED, "before the flow");
        }
        for packet in [&query, &syn, &ping] {
            list.sees_out(packet, at(0));
        }
        assert_eq!(list.asked(&udp(v, PEER, US, 1234, 53), at(0)), ADMITTED);
        for quoted in [&query, &syn, &ping, &answer] {
            assert_eq!(list.asked(&icmp_error(v, PEER, US, kind, quoted), at(1)), ADMITTED, "{quoted:02x?}");
        }
        // A router in the peer's network may report the error, but only to the sender of the quoted packet.
        assert_eq!(list.asked(&icmp_error(v, PEER_NET, US, kind, &syn), at(1)), ADMITTED);
        assert_eq!(list.asked(&icmp_error(v, PEER, US_TOO, kind, &syn), at(1)), REFUSED);
        // Packets in the other direction of the flow were not sent by us.
        let reply = udp(v, PEER_NET, US, 53, 40000);
        assert_eq!(list.asked(&icmp_error(v, PEER, US, kind, &reply), at(1)), REFUSED);
        assert_eq!(list.asked(&icmp_error(v, PEER, US, kind, &udp(v, US, PEER_NET, 40000, 54)), at(1)), REFUSED);
        // Errors keep no flow alive, and are admitted only as long as the flow lives.
        assert_eq!(list.asked(&icmp_error(v, PEER, US, kind, &query), at(119)), ADMITTED);
        assert_eq!(list.asked(&icmp_error(v, PEER, US, kind, &query), at(120)), REFUSED);
    }
}

#[test]
fn icmp_errors_about_the_peers_own_flows_need_its_rule() {
    let mut list = allow(&["udp/53"]);
    let error = icmp_error(V4, PEER, US, 3, &udp(V4, US, PEER, 53, 1234));
    assert_eq!(list.asked(&udp(V4, PEER, US, 1234, 53), at(0)), ADMITTED);
    assert_eq!(list.asked(&error, at(0)), ADMITTED);
    list.withdraw_all();
    assert_eq!(list.asked(&error, at(0)), REFUSED);
    list.set_rules(vec![rule("icmp")]);
    assert_eq!(list.asked(&error, at(0)), ADMITTED);
}

#[test]
fn a_redirect_needs_the_icmp_rule() {
    let syn = tcp(V4, US, PEER, 40000, 80, SYN);
    let mut list = allow(&[]);
    list.sees_out(&syn, at(0));
    assert_eq!(list.asked(&icmp_error(V4, PEER, US, 5, &syn), at(0)), REFUSED);
    list.set_rules(vec![rule("icmp")]);
    assert_eq!(list.asked(&icmp_error(V4, PEER, US, 5, &syn), at(0)), ADMITTED);
}

#[test]
fn an_ipv4_mapped_address_is_another_address() {
    let mapped = Host { v6: "::ffff:10.77.0.2".parse().unwrap(), ..PEER };
    let us = Host { v6: "::ffff:10.77.0.1".parse().unwrap(), ..US };
    let mut list = allow(&[]);
    list.sees_out(&udp(V4, US, PEER, 40000, 53), at(0));
    assert_eq!(list.asked(&udp(V6, mapped, us, 53, 40000), at(0)), REFUSED);
}

#[test]
fn the_flow_key_is_equal_for_packets_that_share_a_verdict() {
    let key = |packet: &[u8]| flow_key(&Packet::parse(packet).unwrap());
    let ack = key(&tcp(V4, PEER, US, 40000, 22, ACK));
    assert!(ack.is_some());
    assert_eq!(ack, key(&tcp(V4, PEER, US, 40000, 22, ACK | 0x08)));
    for other in [
        tcp(V4, PEER, US, 40000, 23, ACK),
        tcp(V4, PEER, US, 40001, 22, ACK),
        tcp(V4, PEER, US_TOO, 40000, 22, ACK),
        tcp(V4, PEER_NET, US, 40000, 22, ACK),
        udp(V4, PEER, US, 40000, 22),
    ] {
        assert_ne!(ack, key(&other));
        assert!(key(&other).is_some());
    }
    assert_ne!(key(&echo_request_packet(V4, PEER, US, 1)), key(&echo_reply_packet(V4, PEER, US, 1)));
    for none in [
        tcp(V4, PEER, US, 40000, 22, SYN),
        tcp(V4, PEER, US, 40000, 22, SYN_ACK),
        tcp(V4, PEER, US, 40000, 22, FIN_ACK),
        tcp(V4, PEER, US, 40000, 22, RST),
        icmp_packet(V4, PEER, US, 13),
        icmp_error(V4, PEER, US, 3, &udp(V4, US, PEER, 1, 2)),
        fragment(V4, PEER, US, 17, 7, 0, true, &udp_bytes(1, 2, 24)),
        fragment(V4, PEER, US, 17, 7, 3, false, &[0; 8]),
    ] {
        assert_eq!(key(&none), None, "{none:02x?}");
    }
}
