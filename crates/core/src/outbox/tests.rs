//! Which datagrams travel together.

use std::net::Ipv4Addr;

use super::*;

/// Datagrams to one destination, each with its traffic class and whether it may not be fragmented; the trains they make,
/// as the number of datagrams in each.
fn trains(datagrams: &[(u8, bool)]) -> Vec<usize> {
    let mut outbox = Outbox::default();
    for &(traffic_class, is_whole) in datagrams {
        outbox.room(100).fill(traffic_class);
        let destination = (Ipv4Addr::new(203, 0, 113, 2), 51_820).into();
        let whole_for = is_whole.then_some(PathTag::from_bits(7));
        let draft = outbox.draft(100);
        outbox.transmit(draft, 100, Heading { destination, via: Via::ANY, traffic_class, whole_for, ttl: None });
    }
    outbox
        .outputs(None)
        .filter_map(|output| match output {
            Output::Transmit(transmit) => Some(transmit.contents.len() / transmit.segment_size),
            _ => None,
        })
        .collect()
}

#[test]
fn only_datagrams_that_are_sent_in_the_same_way_join_a_train() {
    assert_eq!(trains(&[(0, false), (0, false), (0, false)]), [3]);
    assert_eq!(trains(&[(0, true), (0, true), (0, false), (0, true)]), [2, 1, 1]);
    assert_eq!(trains(&[(0, false), (1, false), (1, false)]), [1, 2]);
}

#[test]
fn a_train_carries_whether_it_may_be_fragmented() {
    let mut outbox = Outbox::default();
    for whole_for in [Some(PathTag::from_bits(7)), None] {
        outbox.room(10);
        let draft = outbox.draft(10);
        let destination = (Ipv4Addr::LOCALHOST, 1).into();
        outbox.transmit(draft, 10, Heading { destination, via: Via::ANY, traffic_class: 0, whole_for, ttl: None });
    }
    let kinds: Vec<_> = outbox
        .outputs(None)
        .filter_map(|output| match output {
            Output::Transmit(transmit) => Some(transmit.whole_for),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, [Some(PathTag::from_bits(7)), None]);
}
