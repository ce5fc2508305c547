//! What an allowlist admits: the life of a flow, every limit, and a model that it has to agree with.

use std::time::Duration;

use proptest::prelude::*;

use self::packets::*;
use super::flows::{MAX_CHANCES, MAX_FLOWS_PER_HALF, ROOM};
use super::fragments::{MAX_VERDICTS, VERDICT_LIFETIME};
use super::*;

mod fragmented;
mod packets;

const SYN_ACK: u8 = SYN | ACK;
const FIN_ACK: u8 = FIN | ACK;

/// A time on the test clock, some time after its start.
fn at(seconds: u64) -> Instant {
    Instant::from_start(Duration::from_secs(1_000_000 + seconds))
}

/// Creates an allowlist from rules in config syntax.
fn allow(rules: &[&str]) -> Allowlist {
    Allowlist::new(rules.iter().map(|text| rule(text)).collect(), 7)
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
        self.on_outbound(&Packet::parse(packet).unwrap(), |_| 0, now);
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
fn a_withdrawn_rule_stops_running_flows_however_much_we_answer() {
    for (rules, theirs, ours) in [
        ("tcp/22", tcp(V4, PEER, US, 40000, 22, ACK), tcp(V4, US, PEER, 22, 40000, ACK)),
        ("udp/53", udp(V6, PEER, US, 40000, 53), udp(V6, US, PEER, 53, 40000)),
        ("icmp", echo_request_packet(V4, PEER, US, 3), echo_reply_packet(V4, US, PEER, 3)),
        ("47", packet(V4, PEER, US, 47, &[0; 4]), packet(V4, US, PEER, 47, &[0; 4])),
    ] {
        let mut list = allow(&[rules]);
        assert_eq!(list.asked(&theirs, at(0)), ADMITTED);
        list.sees_out(&ours, at(0));
        list.withdraw_all();
        for second in 1..300 {
            list.sees_out(&ours, at(second));
            assert_eq!(list.asked(&theirs, at(second)), REFUSED, "{rules} after {second} s");
        }
        list.set_rules(vec![rule(rules)]);
        assert_eq!(list.asked(&theirs, at(300)), ADMITTED);
    }
}

#[test]
fn a_change_of_rules_leaves_the_flows_that_we_opened() {
    let mut list = allow(&["tcp/22"]);
    list.sees_out(&tcp(V4, US, PEER, 40000, 443, SYN), at(0));
    list.set_rules(vec![rule("udp/1")]);
    list.withdraw_all();
    assert_eq!(list.asked(&tcp(V4, PEER, US, 443, 40000, SYN_ACK), at(1)), ADMITTED);
}

#[test]
fn connections_that_we_opened_survive_our_restart_where_they_are_handed_over() {
    let (ours, answer) = (tcp(V4, US, PEER, 40000, 443, ACK), tcp(V4, PEER, US, 443, 40000, ACK));
    let mut before = allow(&["tcp/22"]);
    before.sees_out(&tcp(V4, US, PEER, 40000, 443, SYN), at(0));
    assert_eq!(before.asked(&answer, at(0)), ADMITTED);
    before.sees_out(&ours, at(0));
    before.sees_out(&tcp(V4, US, PEER, 40001, 443, SYN), at(0));
    assert_eq!(before.asked(&tcp(V4, PEER, US, 40000, 22, ACK), at(0)), ADMITTED);
    let (flows, is_complete) = before.known_flows(at(100));
    assert_eq!((flows.len(), is_complete), (3, true));

    let mut list = Allowlist::restricting(Vec::new(), 9, None, at(110));
    list.restore(flows.clone(), is_complete, at(110));
    assert_eq!(list.asked(&answer, at(7199)), ADMITTED, "established");
    assert_eq!(list.asked(&tcp(V4, PEER, US, 443, 40001, SYN_ACK), at(119)), ADMITTED, "half open");
    assert_eq!(list.asked(&tcp(V4, PEER, US, 40000, 22, ACK), at(119)), REFUSED, "the peer's");
    // Flows that expired on the way, or that claim to be from the future, are not restored.
    let mut list = Allowlist::restricting(Vec::new(), 9, None, at(7200));
    list.restore(flows.clone(), true, at(7200));
    assert_eq!(list.len(), 0);
    list.restore(flows, true, Instant::default());
    assert_eq!(list.len(), 0);

    // Otherwise the connection needs a rule, or a new SYN on the same ports.
    let mut list = allow(&["tcp/22"]);
    assert_eq!(list.asked(&answer, at(0)), REFUSED);
    list.sees_out(&ours, at(1));
    assert_eq!(list.asked(&answer, at(1)), REFUSED);
    list.sees_out(&tcp(V4, US, PEER, 40000, 443, SYN), at(2));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 443, 40000, SYN_ACK), at(2)), ADMITTED);
}

/// Creates a list without earlier flows. Ports 53 and 123 were in use on our own address.
fn without_memory(rules: &[&str], now: Instant) -> Allowlist {
    let ports = HostPorts::new(&[US.v4.into(), US.v6.into()], vec![123, 53]);
    Allowlist::restricting(rules.iter().map(|text| rule(text)).collect(), 7, Some(ports), now)
}

#[test]
fn a_flow_is_not_ours_because_our_side_answered_after_memory_was_lost() {
    for (theirs, ours) in [
        (tcp(V4, PEER, US, 40000, 22, ACK), tcp(V4, US, PEER, 22, 40000, ACK)),
        (udp(V6, PEER, US, 40000, 53), udp(V6, US, PEER, 53, 40000)),
        // The ports of a host behind us are unknown, and GRE has no ports.
        (udp(V4, PEER, US_TOO, 40000, 5000), udp(V4, US_TOO, PEER, 5000, 40000)),
        (packet(V4, PEER, US, 47, &[0; 4]), packet(V4, US, PEER, 47, &[0; 4])),
    ] {
        // A server that sends all the time, one that is asked first, and one that waits until the time of doubt is
        // over.
        for first_answer in [0, 1, 119, 130, 400] {
            let mut list = without_memory(&[], at(0));
            if first_answer > 0 {
                (0..first_answer).step_by(50).for_each(|second| assert_eq!(list.asked(&theirs, at(second)), REFUSED));
            }
            for second in (first_answer..1_000).step_by(100) {
                list.sees_out(&ours, at(second));
                assert_eq!(list.asked(&theirs, at(second)), REFUSED, "{theirs:02x?} from {first_answer}, at {second}");
            }
        }
    }
}

#[test]
fn udp_that_we_begin_works_at_once_after_memory_was_lost() {
    let mut list = without_memory(&[], at(0));
    // A DNS lookup and QUIC: their ports were not in use when memory was lost.
    list.sees_out(&udp(V4, US, PEER, 40000, 53), at(0));
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 40000), at(0)), ADMITTED);
    // A flow from a port that was in use becomes ours after two minutes of silence.
    let (ours, answer) = (udp(V4, US, PEER, 123, 123), udp(V4, PEER, US, 123, 123));
    list.sees_out(&ours, at(1));
    assert_eq!(list.asked(&answer, at(1)), REFUSED);
    list.sees_out(&ours, at(121));
    assert_eq!(list.asked(&answer, at(121)), ADMITTED);
    // A flow that is new after the time of doubt is ours.
    list.sees_out(&udp(V4, US, PEER, 53, 5353), at(122));
    assert_eq!(list.asked(&udp(V4, PEER, US, 5353, 53), at(122)), ADMITTED);
}

#[test]
fn a_refused_flow_stays_the_peers_for_as_long_as_it_tries() {
    let (theirs, ours) = (udp(V4, PEER, US, 40000, 53), udp(V4, US, PEER, 53, 40000));
    let mut list = allow(&["udp/53"]);
    assert_eq!(list.asked(&theirs, at(0)), ADMITTED);
    list.withdraw_all();
    (1..10).for_each(|minute| assert_eq!(list.asked(&theirs, at(minute * 60)), REFUSED));
    list.sees_out(&ours, at(600));
    assert_eq!(list.asked(&theirs, at(600)), REFUSED);
}

#[test]
fn a_flow_that_found_no_room_stays_the_peers_after_its_rule_went() {
    let full = MAX_FLOWS_PER_HALF as u16;
    let (theirs, ours) = (udp(V4, PEER, US, full, 53), udp(V4, US, PEER, 53, full));
    let mut list = allow(&["udp/53"]);
    for port in 0..=full {
        assert_eq!(list.asked(&udp(V4, PEER, US, port, 53), at(0)), ADMITTED);
    }
    list.withdraw_all();
    for second in (1..9_000).step_by(50) {
        // All flows stay alive, so that there is no room.
        (0..full).for_each(|port| list.sees_out(&udp(V4, US, PEER, 53, port), at(second)));
        list.sees_out(&ours, at(second));
        assert_eq!(list.asked(&theirs, at(second)), REFUSED, "{second}");
    }
}

/// Opens a connection from our side and establishes it.
fn established(list: &mut Allowlist, from: Host, port: u16, party: u64, now: Instant) {
    let mut out = |packet: &[u8]| list.on_outbound(&Packet::parse(packet).unwrap(), |_| party, now);
    out(&tcp(V4, from, PEER, port, 443, SYN));
    out(&tcp(V4, from, PEER, port, 443, ACK));
    assert_eq!(list.asked(&tcp(V4, PEER, from, 443, port, ACK), now), ADMITTED);
}

#[test]
fn datagrams_of_any_local_user_push_out_no_connection_and_no_answered_flow() {
    let mut list = allow(&[]);
    for port in 1..=100 {
        established(&mut list, US, port, 0, at(0));
    }
    list.sees_out(&udp(V4, US, PEER, 500, 53), at(0));
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 500), at(0)), ADMITTED);
    // The 2,100 flows of the original report, and then many more: UDP, half-open TCP, pings, other protocols.
    for n in 0..20_000u16 {
        list.sees_out(&udp(V4, US, PEER, n, 9), at(1));
        list.sees_out(&tcp(V4, US, PEER, n, 9, SYN), at(1));
        list.sees_out(&echo_request_packet(V4, US, PEER, n), at(1));
    }
    assert_eq!(list.flows.len(Opener::Us), MAX_FLOWS_PER_HALF);
    for port in 1..=100 {
        assert_eq!(list.asked(&tcp(V4, PEER, US, 443, port, ACK), at(2)), ADMITTED, "{port}");
    }
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 500), at(2)), ADMITTED);
}

#[test]
fn a_party_that_holds_most_of_a_class_loses_first() {
    // A host that we forward for opens connections that are answered. A different party did the same long ago.
    let mut list = allow(&[]);
    (1..=50).for_each(|port| established(&mut list, US, port, 1, at(0)));
    (0..3_000).for_each(|port| established(&mut list, US_TOO, port, 2, at(1)));
    assert_eq!(list.flows.len(Opener::Us), MAX_FLOWS_PER_HALF);
    for port in 1..=50 {
        assert_eq!(list.asked(&tcp(V4, PEER, US, 443, port, ACK), at(2)), ADMITTED, "{port}");
    }
    // The same with flows that nobody answers.
    let mut list = allow(&[]);
    let mut out = |packet: &[u8], party| list.on_outbound(&Packet::parse(packet).unwrap(), |_| party, at(0));
    out(&udp(V4, US, PEER, 1, 53), 1);
    (0..3_000).for_each(|port| out(&udp(V4, US_TOO, PEER, port, 53), 2));
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 1), at(1)), ADMITTED);
}

#[test]
fn each_class_of_flows_has_room_that_no_other_class_takes() {
    let full = MAX_FLOWS_PER_HALF as u16;
    let [attempts, look_ups, connections] = ROOM.map(|room| room as u16);
    // A half full of connections. Attempts take their room and no more, so the other connections stay.
    let mut list = allow(&[]);
    (0..full).for_each(|port| established(&mut list, US, port, 0, at(0)));
    (0..20_000).for_each(|port| list.sees_out(&tcp(V4, US, PEER, port, 9, SYN), at(1)));
    let stay = (0..full).filter(|port| list.asked(&tcp(V4, PEER, US, 443, *port, ACK), at(1)) == ADMITTED);
    assert_eq!(stay.count(), usize::from(full - attempts));
    for port in 20_000 - attempts..20_000 {
        assert_eq!(list.asked(&tcp(V4, PEER, US, 9, port, SYN_ACK), at(1)), ADMITTED, "{port}");
    }

    // Answered look-ups fill the half. A connection that is opened then gets its answer, however many follow.
    let mut list = allow(&[]);
    let look_up = |list: &mut Allowlist, port: u16| {
        list.sees_out(&udp(V4, US, PEER, port, 53), at(2));
        assert_eq!(list.asked(&udp(V4, PEER, US, 53, port), at(2)), ADMITTED, "{port}");
    };
    (0..full).for_each(|port| look_up(&mut list, port));
    (0..connections).for_each(|port| established(&mut list, US, port, 0, at(2)));
    (0..20_000).for_each(|port| look_up(&mut list, full + port));
    (0..20_000).for_each(|port| list.sees_out(&tcp(V4, US, PEER, port, 9, SYN), at(2)));
    for port in 0..connections {
        assert_eq!(list.asked(&tcp(V4, PEER, US, 443, port, ACK), at(2)), ADMITTED, "{port}");
    }
    for port in 20_000 - look_ups..20_000 {
        assert_eq!(list.asked(&udp(V4, PEER, US, 53, full + port), at(2)), ADMITTED, "{port}");
    }
}

#[test]
fn mid_stream_tcp_that_the_peer_may_have_opened_counts_as_the_peers() {
    let (theirs, ours) = (tcp(V4, PEER, US, 40000, 22, ACK), tcp(V4, US, PEER, 22, 40000, ACK));
    // After a restart our answer comes first, and then the rule is withdrawn.
    let mut list = allow(&["tcp/22"]);
    list.sees_out(&ours, at(0));
    assert_eq!(list.asked(&theirs, at(0)), ADMITTED);
    list.withdraw_all();
    list.sees_out(&ours, at(1));
    assert_eq!(list.asked(&theirs, at(1)), REFUSED);
}

#[test]
fn a_flow_that_a_forged_rst_aged_does_not_come_back_as_ours() {
    let ours = tcp(V4, US, PEER, 22, 40000, ACK);
    let mut list = allow(&["tcp/22"]);
    assert_eq!(list.asked(&tcp(V4, PEER, US, 40000, 22, ACK), at(0)), ADMITTED);
    assert_eq!(list.asked(&tcp(V4, PEER, US, 40000, 22, RST), at(1)), ADMITTED);
    list.withdraw_all();
    list.sees_out(&ours, at(60));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 40000, 22, ACK), at(60)), REFUSED);

    // The same holds for a rule that was withdrawn long ago.
    let mut list = allow(&["tcp/22"]);
    list.sees_out(&tcp(V4, US, PEER, 1, 1, RST), at(0));
    list.withdraw_all();
    list.sees_out(&ours, at(7200));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 40000, 22, ACK), at(7200)), REFUSED);
}

#[test]
fn a_full_half_of_ours_gives_up_the_most_silent_flow_and_dead_ones_first() {
    let ours = |port| udp(V4, US, PEER, port, 53);
    let answer = |port| udp(V4, PEER, US, 53, port);
    let ping = echo_request_packet(V4, US, PEER, 1);
    let full = MAX_FLOWS_PER_HALF as u16;

    let mut list = allow(&[]);
    (0..full).for_each(|port| list.sees_out(&ours(port), at(u64::from(port) / 100)));
    list.sees_out(&ours(0), at(30));
    assert_eq!(list.flows.len(Opener::Us), MAX_FLOWS_PER_HALF);
    list.sees_out(&ours(full), at(30));
    assert_eq!(list.flows.len(Opener::Us), MAX_FLOWS_PER_HALF);
    assert_eq!(list.asked(&answer(full), at(30)), ADMITTED);
    assert_eq!(list.asked(&answer(1), at(30)), REFUSED, "the most silent one went");
    assert_eq!(list.asked(&answer(0), at(30)), ADMITTED, "the oldest one spoke since");

    // The ping dies after 30 s. It makes room although UDP flows have been silent for longer.
    let mut list = allow(&[]);
    (1..full).for_each(|port| list.sees_out(&ours(port), at(0)));
    list.sees_out(&ping, at(1));
    list.sees_out(&ours(full), at(31));
    list.sees_out(&ours(full + 1), at(31));
    assert_eq!(list.asked(&answer(2), at(31)), ADMITTED);
    assert_eq!(list.asked(&answer(1), at(31)), REFUSED, "only one was dead");
}

#[test]
fn a_full_half_of_the_peer_admits_by_rule_and_remembers_no_more() {
    let theirs = |port| udp(V4, PEER, US, port, 53);
    let answer = |port| udp(V4, US, PEER, 53, port);
    let full = MAX_FLOWS_PER_HALF as u16;
    let mut list = allow(&["udp/53"]);
    list.sees_out(&udp(V4, US, PEER, 40000, 99), at(0));
    for port in 0..=full {
        assert_eq!(list.asked(&theirs(port), at(0)), ADMITTED);
        list.sees_out(&answer(port), at(0));
    }
    assert_eq!(list.flows.len(Opener::Peer), MAX_FLOWS_PER_HALF);
    assert_eq!(list.flows.len(Opener::Us), 1, "the answer that matched nothing did not become ours");
    assert_eq!(list.asked(&udp(V4, PEER, US, 99, 40000), at(1)), ADMITTED, "our half is not touched");

    list.withdraw_all();
    for port in [0, full] {
        list.sees_out(&answer(port), at(2));
        assert_eq!(list.asked(&theirs(port), at(2)), REFUSED, "port {port}");
    }

    // Flows that are certainly ours are still opened.
    list.sees_out(&tcp(V4, US, PEER, 53, 1000, SYN), at(3));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 1000, 53, SYN_ACK), at(3)), ADMITTED);
    list.sees_out(&udp(V4, US, PEER, 54, 1000), at(3));
    assert_eq!(list.asked(&udp(V4, PEER, US, 1000, 54), at(3)), ADMITTED);
}

#[test]
fn dead_flows_of_the_peer_make_room() {
    let mut list = allow(&["udp"]);
    for port in 0..=MAX_FLOWS_PER_HALF as u16 {
        assert_eq!(list.asked(&udp(V4, PEER, US, port, 53), at(0)), ADMITTED);
    }
    assert_eq!(list.asked(&udp(V4, PEER, US, 9999, 53), at(120)), ADMITTED);
    let (_, flow) =
        list.flows.find(&flow_key(&Packet::parse(&udp(V4, PEER, US, 9999, 53)).unwrap()).unwrap(), at(120)).unwrap();
    assert_eq!(flow.opener, Opener::Peer);
    assert_eq!(list.flows.len(Opener::Peer), MAX_FLOWS_PER_HALF);
}

#[test]
fn the_table_never_holds_more_than_4096_flows_and_uses_dead_ones_again() {
    let mut list = allow(&["tcp"]);
    for port in 1..=5000 {
        list.sees_out(&udp(V4, US, PEER, port, 53), at(0));
        assert_eq!(list.asked(&tcp(V6, PEER, US, port, 22, SYN), at(0)), ADMITTED);
    }
    assert_eq!(list.flows.slots(), 2 * MAX_FLOWS_PER_HALF);

    // One query a second, each on a new port. The table needs about as many slots as a flow lives seconds.
    let mut list = allow(&[]);
    (0..5000).for_each(|second| list.sees_out(&udp(V4, US, PEER, second, 53), at(u64::from(second))));
    assert!(list.flows.slots() <= 122, "{}", list.flows.slots());
}

#[test]
fn withdrawn_rules_are_bounded_and_kept_once() {
    let mut list = allow(&[]);
    for port in 0..1000u16 {
        list.set_rules(vec![Rule { protocol: Protocol::Tcp, ports: Some(port..=port) }]);
    }
    assert_eq!(list.withdrawn.rules.len(), MAX_WITHDRAWN);
    assert_eq!(list.withdrawn.rules[MAX_WITHDRAWN - 1].ports, Some(998..=998));
    let mut list = allow(&["tcp/1"]);
    for text in ["tcp/2", "tcp/1", "tcp/2", "tcp/1"] {
        list.set_rules(vec![rule(text)]);
    }
    assert_eq!(list.withdrawn.rules.len(), 2);
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

#[test]
fn flows_that_fill_the_table_spread_over_its_buckets() {
    // Peers vary ports most: consecutive ports must not collide in a few chains.
    let mut list = allow(&["udp"]);
    for port in 0..MAX_FLOWS_PER_HALF as u16 {
        list.asked(&udp(V4, PEER, US, port, 53), at(0)).unwrap();
    }
    assert!(list.flows.longest_chain() <= 10, "{}", list.flows.longest_chain());
}

/// A model of the table: flows in lists that are searched from end to end.
#[derive(Default)]
struct Model {
    /// Ordered by the last packet.
    flows: Vec<(FlowKey, Flow)>,
    /// Our flows, in the order in which they entered their class or last had a chance, with their class and whether
    /// they have spoken since.
    ranks: Vec<(FlowKey, usize, bool)>,
}

impl Model {
    fn forget(&mut self, gone: impl Fn(&FlowKey, &Flow) -> bool) {
        let gone: Vec<_> = self.flows.extract_if(.., |(key, flow)| gone(key, flow)).map(|(key, _)| key).collect();
        self.ranks.retain(|(key, ..)| !gone.contains(key));
    }

    fn open(&mut self, key: FlowKey, flow: Flow, now: Instant) -> bool {
        self.forget(|k, f| *k == key || !f.is_live(now));
        if self.flows.iter().filter(|(_, f)| f.opener == flow.opener).count() == MAX_FLOWS_PER_HALF {
            if flow.opener == Opener::Peer {
                return false;
            }
            let gone = self.least(flow.class() as usize);
            self.forget(|k, _| *k == gone);
        }
        self.flows.push((key, flow));
        if flow.opener == Opener::Us {
            self.ranks.push((key, flow.class() as usize, false));
        }
        true
    }

    fn least(&mut self, newcomer: usize) -> FlowKey {
        let classes = || self.ranks.iter().map(|(_, class, _)| *class).chain([newcomer]);
        let len = |class| classes().filter(|of| *of == class).count();
        let least = (0..ROOM.len()).find(|class| len(*class) > ROOM[*class]).unwrap();
        let of_class: Vec<_> = self.ranks.iter().filter(|(_, class, _)| *class == least).copied().collect();
        for (key, class, has_spoken) in of_class.iter().take(MAX_CHANCES) {
            if !has_spoken {
                return *key;
            }
            self.ranks.retain(|(k, ..)| k != key);
            self.ranks.push((*key, *class, false));
        }
        of_class.get(MAX_CHANCES).unwrap_or(&of_class[0]).0
    }

    fn find(&self, key: &FlowKey, now: Instant) -> Option<Flow> {
        self.flows.iter().find(|(k, f)| k == key && f.is_live(now)).map(|(_, flow)| *flow)
    }

    fn on_packet(&mut self, key: &FlowKey, from: Opener, flags: u8, now: Instant) {
        let at = self.flows.iter().position(|(k, _)| k == key).unwrap();
        let (key, mut flow) = self.flows.remove(at);
        let class = flow.class();
        flow.on_packet(from, flags, now);
        self.flows.push((key, flow));
        if let Some(at) = self.ranks.iter().position(|(k, ..)| *k == key) {
            self.ranks[at].2 = true;
            if flow.class() != class {
                self.ranks.remove(at);
                self.ranks.push((key, flow.class() as usize, false));
            }
        }
    }
}

#[test]
fn the_table_agrees_with_a_list_that_is_searched_from_end_to_end() {
    let (mut flows, mut model) = (Flows::new(3), Model::default());
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut now = at(0);
    let (mut refused, mut hits) = (0, 0);
    for step in 0..60_000u64 {
        // Bursts fill both halves, and pauses let short-lived flows expire.
        now = now + Duration::from_millis(if step % 20_000 > 15_000 { 40 } else { 1 });
        let protocol = [ip::TCP, ip::UDP, ip::ICMP][next(3) as usize];
        let key = FlowKey {
            protocol,
            ours: End { address: US.v4.into(), port: Some(next(2600) as u16) },
            theirs: End { address: PEER.v4.into(), port: None },
        };
        let from = [Opener::Us, Opener::Peer][next(2) as usize];
        let flags = [SYN, ACK, ACK, FIN, RST][next(5) as usize];
        let found = flows.find(&key, now);
        assert_eq!(found.map(|(_, flow)| flow), model.find(&key, now), "step {step}");
        match found {
            Some((id, _)) if next(10) == 0 => {
                flows.remove(id);
                model.forget(|k, _| *k == key);
            }
            Some((id, _)) => {
                hits += 1;
                flows.on_packet(id, from, flags, now);
                model.on_packet(&key, from, flags, now);
            }
            None => {
                let flow = Flow::new(protocol, from, now);
                let opened = flows.open(key, flow, 0, now);
                assert_eq!(opened, model.open(key, flow, now), "step {step}");
                refused += usize::from(!opened);
            }
        }
    }
    assert!(refused > 100 && hits > 10_000, "the run reaches what it is for: {refused} {hits}");
    assert!(flows.slots() <= 2 * MAX_FLOWS_PER_HALF);
}
