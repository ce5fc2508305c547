//! A full table: which party loses a flow, and that the table never holds more than its limit.

use super::*;

/// The party of a peer. Peers 1 and 2 are told apart.
fn peer(place: u32) -> Party {
    Party::peer(PeerTag(place), 7)
}

/// A connection that we opened, established.
fn established(list: &mut Allowlist, from: Host, port: u16, party: Party, now: Instant) {
    let mut out = |packet: &[u8]| list.on_outbound(&Packet::parse(packet).unwrap(), |_| party, now);
    out(&tcp(V4, from, PEER, port, 443, SYN));
    out(&tcp(V4, from, PEER, port, 443, ACK));
    assert_eq!(list.asked(&tcp(V4, PEER, from, 443, port, ACK), now), ADMITTED);
}

#[test]
fn datagrams_of_any_local_user_push_out_no_connection_and_no_answered_flow() {
    let mut list = allow(&[]);
    for port in 1..=100 {
        established(&mut list, US, port, Party::OWN, at(0));
    }
    list.sees_out(&udp(V4, US, PEER, 500, 53), at(0));
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 500), at(0)), ADMITTED);
    // The finding's 2,100, and then many more: UDP, half-open TCP, pings, other protocols.
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
    // A host that we forward for opens connections that are answered; so did somebody else, long ago.
    let mut list = allow(&[]);
    (1..=50).for_each(|port| established(&mut list, US, port, peer(1), at(0)));
    (0..3_000).for_each(|port| established(&mut list, US_TOO, port, peer(2), at(1)));
    assert_eq!(list.flows.len(Opener::Us), MAX_FLOWS_PER_HALF);
    for port in 1..=50 {
        assert_eq!(list.asked(&tcp(V4, PEER, US, 443, port, ACK), at(2)), ADMITTED, "{port}");
    }
    // The same among flows that nobody answers.
    let mut list = allow(&[]);
    let mut out = |packet: &[u8], party| list.on_outbound(&Packet::parse(packet).unwrap(), |_| party, at(0));
    out(&udp(V4, US, PEER, 1, 53), peer(1));
    (0..3_000).for_each(|port| out(&udp(V4, US_TOO, PEER, port, 53), peer(2)));
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 1), at(1)), ADMITTED);
}

#[test]
fn each_class_of_flows_has_room_that_no_other_class_takes() {
    let full = MAX_FLOWS_PER_HALF as u16;
    let [attempts, look_ups, connections] = ROOM.map(|room| room as u16);
    // A half full of connections. Attempts take their room and no more, so the other connections stay.
    let mut list = allow(&[]);
    (0..full).for_each(|port| established(&mut list, US, port, Party::OWN, at(0)));
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
    (0..connections).for_each(|port| established(&mut list, US, port, Party::OWN, at(2)));
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
    // After a restart, our answer comes first, and then the rule goes.
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

    // Nor does one whose rule went long ago.
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

    // The ping dies after 30 s: it makes room although UDP flows were silent for longer.
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

    // What is certainly ours is still opened.
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

    // One query a second, each on a new port: about as many slots as a flow lives seconds.
    let mut list = allow(&[]);
    (0..5000).for_each(|second| list.sees_out(&udp(V4, US, PEER, second, 53), at(u64::from(second))));
    assert!(list.flows.slots() <= 122, "{}", list.flows.slots());
}

#[test]
fn flows_that_fill_the_table_spread_over_its_buckets() {
    // Ports are what a peer varies: consecutive ones must not meet in a few chains.
    let mut list = allow(&["udp"]);
    for port in 0..MAX_FLOWS_PER_HALF as u16 {
        list.asked(&udp(V4, PEER, US, port, 53), at(0)).unwrap();
    }
    assert!(list.flows.longest_chain() <= 10, "{}", list.flows.longest_chain());
}

/// Lists of different peers that share a budget: 100 flows for each party, and 2,500 for all.
fn sharing(count: usize) -> (Budget, Vec<Allowlist>) {
    let budget = Budget::new(5_000);
    let list = || Allowlist::new(vec![rule("udp")], 7, Purse { party: peer(100), budget: budget.clone() });
    let lists = std::iter::repeat_with(list).take(count).collect();
    (budget, lists)
}

#[test]
fn a_party_that_calls_many_peers_uses_up_no_room_of_others() {
    let (budget, mut lists) = sharing(100);
    let out = |list: &mut Allowlist, packet: &[u8], party| {
        list.on_outbound(&Packet::parse(packet).unwrap(), |_| party, at(1));
    };
    let last = lists.last_mut().unwrap();
    (1..=50).for_each(|port| established(last, US_TOO, port, peer(1), at(1)));
    for list in &mut lists {
        (0..500).for_each(|port| out(list, &udp(V4, US_TOO, PEER, port, 9), peer(1)));
    }
    let most = 100 + 1_250;
    assert!((most - 10..=most).contains(&budget.used()), "{}", budget.used());
    // It keeps its connections, and gives up attempts of its own for later ones, in the same table.
    let last = lists.last_mut().unwrap();
    assert!(last.len() >= 50, "{}", last.len());
    for port in 1..=50 {
        assert_eq!(last.asked(&tcp(V4, PEER, US_TOO, 443, port, ACK), at(1)), ADMITTED, "{port}");
    }
    // We can still open flows in each table, and lose none.
    for list in &mut lists[98..] {
        (0..40).for_each(|port| list.sees_out(&udp(V4, US, PEER, port, 53), at(1)));
        (0..500).for_each(|port| out(list, &udp(V4, US_TOO, PEER, 1_000 + port, 9), peer(1)));
    }
    for list in &mut lists[98..] {
        for port in 0..40 {
            assert_eq!(list.asked(&udp(V4, PEER, US, 53, port), at(1)), ADMITTED, "{port}");
        }
    }
    drop(lists);
    assert_eq!(budget.used(), 0);
}

#[test]
fn flows_that_a_peer_opened_are_refused_where_the_budget_ends() {
    let (budget, mut lists) = sharing(2);
    for list in &mut lists {
        (0..2_000).for_each(|port| assert_eq!(list.asked(&udp(V4, PEER, US, port, 53), at(0)), ADMITTED));
    }
    assert_eq!(budget.used(), 100 + 1_250);
    assert_eq!(lists[1].flows.len(Opener::Peer), FIRST_FLOWS);
    // A flow that is not in the table does not become ours.
    lists[1].withdraw_all();
    lists[1].sees_out(&udp(V4, US, PEER, 53, 1_999), at(1));
    assert_eq!(lists[1].asked(&udp(V4, PEER, US, 1_999, 53), at(1)), REFUSED);
}

#[test]
fn dead_flows_give_back_their_room_and_memory() {
    let (budget, mut lists) = sharing(1);
    let list = &mut lists[0];
    assert_eq!(list.tidy_at(), None);
    established(list, US, 1, Party::OWN, at(0));
    (0..1_000).for_each(|port| list.sees_out(&udp(V4, US, PEER, port, 53), at(0)));
    assert_eq!(list.tidy_at(), Some(at(0) + TIDY_INTERVAL));
    list.sees_out(&udp(V4, US, PEER, 7, 53), at(100));
    list.tidy(at(119));
    assert_eq!(budget.used(), 1_001 - FIRST_FLOWS, "not due yet");
    list.tidy(at(120));
    assert_eq!((list.len(), list.flows.slots(), list.tidy_at()), (2, 2, None));
    assert!(budget.used() <= 1, "{}", budget.used());
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 7), at(120)), ADMITTED);
    assert_eq!(list.asked(&udp(V4, PEER, US, 53, 8), at(120)), ADMITTED, "by rule");
    assert_eq!(list.asked(&tcp(V4, PEER, US, 443, 1, ACK), at(120)), ADMITTED);
}
