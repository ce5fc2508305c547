//! What a flow remembers after the rules, or the node, have changed: a withdrawn right stays withdrawn.

use super::*;

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

    let mut list = Allowlist::restricting(Vec::new(), 9, purse(), None, at(110));
    list.restore(flows.clone(), is_complete, |_| Party::OWN, at(110));
    assert_eq!(list.asked(&answer, at(7199)), ADMITTED, "established");
    assert_eq!(list.asked(&tcp(V4, PEER, US, 443, 40001, SYN_ACK), at(119)), ADMITTED, "half open");
    assert_eq!(list.asked(&tcp(V4, PEER, US, 40000, 22, ACK), at(119)), REFUSED, "the peer's");
    // What died on the way, and what is said to come from the future, is not taken.
    let mut list = Allowlist::restricting(Vec::new(), 9, purse(), None, at(7200));
    list.restore(flows.clone(), true, |_| Party::OWN, at(7200));
    assert_eq!(list.len(), 0);
    list.restore(flows, true, |_| Party::OWN, Instant::default());
    assert_eq!(list.len(), 0);

    // Without that it needs a rule, or a new beginning on the same ports.
    let mut list = allow(&["tcp/22"]);
    assert_eq!(list.asked(&answer, at(0)), REFUSED);
    list.sees_out(&ours, at(1));
    assert_eq!(list.asked(&answer, at(1)), REFUSED);
    list.sees_out(&tcp(V4, US, PEER, 40000, 443, SYN), at(2));
    assert_eq!(list.asked(&tcp(V4, PEER, US, 443, 40000, SYN_ACK), at(2)), ADMITTED);
}

/// A list that knows nothing of what went on before. Ports 53, 123 and 50,000 were in use on our own address.
fn without_memory(rules: &[&str], now: Instant) -> Allowlist {
    let ports = HostPorts::new(&[US.v4.into(), US.v6.into()], vec![123, 50_000, 53], 32_768..=60_999);
    Allowlist::restricting(rules.iter().map(|text| rule(text)).collect(), 7, purse(), Some(ports), now)
}

#[test]
fn a_flow_is_not_ours_because_our_side_answered_after_memory_was_lost() {
    for (theirs, ours) in [
        (tcp(V4, PEER, US, 40000, 22, ACK), tcp(V4, US, PEER, 22, 40000, ACK)),
        (udp(V6, PEER, US, 40000, 53), udp(V6, US, PEER, 53, 40000)),
        (udp(V6, PEER, US, 40000, 50_000), udp(V6, US, PEER, 50_000, 40000)),
        // No socket has this port, but it may be redirected to a socket or a container that has a different one.
        (udp(V4, PEER, US, 40000, 443), udp(V4, US, PEER, 443, 40000)),
        // We cannot know the ports of a host behind us, and GRE has none.
        (udp(V4, PEER, US_TOO, 40000, 40000), udp(V4, US_TOO, PEER, 40000, 40000)),
        (
            packet(V4, PEER, US, 132, &udp_bytes(40000, 40000, 32)),
            packet(V4, US, PEER, 132, &udp_bytes(40000, 40000, 32)),
        ),
        (packet(V4, PEER, US, 47, &[0; 4]), packet(V4, US, PEER, 47, &[0; 4])),
    ] {
        // A server that speaks all the time, one that is asked first, and one that waits until the time of doubt is over.
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
    // A look-up, QUIC: their ports were not in use when memory was lost.
    for port in [32_768, 40_000, 60_999] {
        for v in [V4, V6] {
            list.sees_out(&udp(v, US, PEER, port, 53), at(0));
            assert_eq!(list.asked(&udp(v, PEER, US, 53, port), at(0)), ADMITTED);
        }
    }
    // The kernel gives these to nobody.
    for port in [1_024, 32_767, 61_000] {
        list.sees_out(&udp(V4, US, PEER, port, 53), at(0));
        assert_eq!(list.asked(&udp(V4, PEER, US, 53, port), at(0)), REFUSED);
    }
    // From a port that was in use a flow proves itself by two minutes in which nobody spoke.
    let (ours, answer) = (udp(V4, US, PEER, 123, 123), udp(V4, PEER, US, 123, 123));
    list.sees_out(&ours, at(1));
    assert_eq!(list.asked(&answer, at(1)), REFUSED);
    list.sees_out(&ours, at(121));
    assert_eq!(list.asked(&answer, at(121)), ADMITTED);
    // One that nobody had before the end of doubt is ours.
    list.sees_out(&udp(V4, US, PEER, 53, 5353), at(122));
    assert_eq!(list.asked(&udp(V4, PEER, US, 5353, 53), at(122)), ADMITTED);
}

#[test]
fn a_flow_that_the_peer_continues_first_after_memory_was_lost_is_older() {
    let (theirs, ours) = (udp(V4, PEER, US, 40000, 51_820), udp(V4, US, PEER, 51_820, 40000));
    let mut list = without_memory(&[], at(0));
    assert_eq!(list.asked(&theirs, at(0)), REFUSED);
    list.sees_out(&ours, at(1));
    assert_eq!(list.asked(&theirs, at(1)), REFUSED);
    // When the table is complete again, what the peer tries says nothing.
    let mut list = without_memory(&[], at(0));
    assert_eq!(list.asked(&theirs, at(120)), REFUSED);
    list.sees_out(&ours, at(121));
    assert_eq!(list.asked(&theirs, at(121)), ADMITTED);
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
        // All of them go on, so that there is no room.
        (0..full).for_each(|port| list.sees_out(&udp(V4, US, PEER, 53, port), at(second)));
        list.sees_out(&ours, at(second));
        assert_eq!(list.asked(&theirs, at(second)), REFUSED, "{second}");
    }
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
