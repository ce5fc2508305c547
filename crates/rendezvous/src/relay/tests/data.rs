//! What goes through a channel: whole trains, unchanged, and only from its ends.

use std::num::NonZeroU64;

use overlay_wire::relay::{Reply, Request};

use super::*;

struct World {
    relay: Relay,
    channel: Channel,
    tokens: [[u8; 8]; 2],
}

/// Agents 1 and 2 with a channel from 1 to 2.
fn world(limits: Limits) -> World {
    let mut relay = relay(limits);
    let tokens = [1, 2].map(|n| bound(&mut relay, n, at(0)).token);
    let channel = opened(&mut relay, 1, tokens[0], 2, 1, at(0));
    World { relay, channel, tokens }
}

impl World {
    fn train(&mut self, from: u8, contents: &[u8], stride: usize, ecn: u8, now: Now) {
        self.relay.handle_datagrams(Train { contents, stride, ecn }, leg(from), now);
    }
}

fn train(channel: Channel, datagrams: usize, len: usize) -> Vec<u8> {
    (0..datagrams).flat_map(|n| data(channel, len, n as u8)).collect()
}

#[test]
fn a_train_goes_through_byte_for_byte_in_both_directions() {
    let mut world = world(Limits::default());
    for (from, to) in [(1, 2), (2, 1)] {
        let mut contents = train(world.channel, 40, 1_440);
        contents.extend(data(world.channel, 100, 9));
        world.train(from, &contents, 1_440, 0b01, at(1));
        let [transmit] = &outputs(&mut world.relay, at(1))[..] else { panic!("one train") };
        assert_eq!((transmit.leg, transmit.stride, transmit.ecn), (leg(to), 1_440, 0b01));
        assert_eq!(transmit.contents, contents);
    }
    let stats = world.relay.stats();
    assert_eq!((stats.trains, stats.forwarded, stats.forwarded_bytes), (2, 82, 2 * (40 * 1_440 + 100)));
    assert_eq!((stats.dropped_unbound, stats.unbound, world.relay.queued_bytes()), (0, 0, 0));
}

#[test]
fn datagrams_that_come_one_by_one_leave_as_a_train() {
    let mut world = world(Limits::default());
    for n in 0..70 {
        world.train(1, &data(world.channel, 1_000, n), 1_000, 0, at(1));
    }
    world.train(1, &data(world.channel, 300, 70), 300, 0, at(1));
    // A shorter one ends a train. So does a different mark.
    world.train(1, &data(world.channel, 300, 71), 300, 0, at(1));
    world.train(1, &data(world.channel, 300, 72), 300, 0b10, at(1));
    let outputs = outputs(&mut world.relay, at(1));
    let shapes: Vec<_> = outputs.iter().map(|it| (it.datagrams(), it.stride, it.ecn)).collect();
    assert_eq!(shapes, [(64, 1_000, 0), (7, 1_000, 0), (1, 300, 0), (1, 300, 0b10)]);
    let fills: Vec<_> = outputs.iter().flat_map(|it| it.contents.chunks(it.stride).map(|it| it[4])).collect();
    assert_eq!(fills, (0..73).collect::<Vec<u8>>(), "in order");
}

#[test]
fn a_train_of_several_channels_is_taken_apart() {
    let mut world = world(Limits::default());
    let third = bound(&mut world.relay, 3, at(0)).token;
    let to_third = opened(&mut world.relay, 1, world.tokens[0], 3, 1, at(0));
    assert_ne!(third, world.tokens[0]);
    let close = Request::Close { channel: Channel::new(5).expect("one"), token: world.tokens[0] }.datagram();
    let (a, b) = (train(world.channel, 2, 16), train(to_third, 3, 16));
    let unknown = data(Channel::new(6).expect("one"), 16, 0);
    let all = [&a[..], &close, &b, &[0xff; 16], &a, &unknown, &unknown].concat();
    world.train(1, &all, 16, 0, at(1));
    let outputs = outputs(&mut world.relay, at(1));
    let hints = outputs.iter().filter(|it| matches!(Reply::parse(&it.contents), Ok(Reply::Unbound { .. })));
    assert_eq!(hints.map(|it| it.leg).collect::<Vec<_>>(), [leg(1); 2], "the close, and one for the unknown channel");
    let of = |n| outputs.iter().filter(|it| it.leg == leg(n)).map(Transmit::datagrams).collect::<Vec<_>>();
    // Agent 1 has one queue, and a run of one channel joins only what is right before it.
    assert_eq!((of(2), of(3)), (vec![2, 2], vec![3]));
    assert_eq!((world.relay.stats().dropped_foreign, world.relay.stats().dropped_unbound), (1, 2));
}

#[test]
fn only_the_ends_of_a_channel_send_through_it() {
    let mut world = world(Limits::default());
    bound(&mut world.relay, 3, at(0));
    let datagram = data(world.channel, 36, 7);
    for from in [3, 9] {
        world.train(from, &train(world.channel, 5, 36), 36, 0, at(1));
        let [hint] = &outputs(&mut world.relay, at(1))[..] else { panic!("one hint for a train") };
        let echo = *train(world.channel, 1, 36).first_chunk().expect("long enough");
        assert_eq!((hint.leg, Reply::parse(&hint.contents)), (leg(from), Ok(Reply::Unbound { echo })));
    }
    // What is shorter than the answer gets silence.
    for len in 4..12 {
        assert!(send(&mut world.relay, leg(9), &data(world.channel, len, 0), at(1)).is_empty());
    }
    assert_eq!((world.relay.stats().dropped_unbound, world.relay.stats().unbound), (18, 2));
    // Where an end was before it moved, it is not any more.
    bound_as(&mut world.relay, 1, leg(4), at(2), |_| {});
    world.train(1, &datagram, 36, 0, at(2));
    assert_eq!(outputs(&mut world.relay, at(2))[0].leg, leg(1), "a hint to the old address");
    world.train(4, &datagram, 36, 0, at(2));
    assert_eq!(outputs(&mut world.relay, at(2))[0].leg, leg(2), "data from the new one");
    world.train(2, &datagram, 36, 0, at(2));
    assert_eq!(outputs(&mut world.relay, at(2))[0].leg, leg(4), "and to it");
}

#[test]
fn nothing_goes_on_after_the_end_of_a_binding() {
    let mut world = world(Limits::default());
    let datagram = data(world.channel, 36, 7);
    bound(&mut world.relay, 1, at(50_000));
    // Agent 2 is over, even before anybody has looked.
    world.train(1, &datagram, 36, 0, at(60_000));
    let [hint] = &outputs(&mut world.relay, at(60_000))[..] else { panic!("a hint") };
    assert_eq!(hint.leg, leg(1));
}

#[test]
fn answers_that_wait_are_bounded() {
    let mut world = world(Limits::default());
    let hello = Request::Hello { identity: identity(9), nonce: [9; 16] }.datagram();
    for _ in 0..2_000 {
        world.train(9, &hello, 160, 0, at(1));
    }
    assert_eq!(outputs(&mut world.relay, at(1)).len(), 1_024);
    assert_eq!(world.relay.stats().dropped_replies, 976);
}

#[test]
fn an_agent_has_its_bytes_of_the_day() {
    let daily = NonZeroU64::new(10_000);
    let mut world = world(Limits { daily, ..Limits::default() });
    for _ in 0..12 {
        world.train(1, &data(world.channel, 1_000, 0), 1_000, 0, at(1));
    }
    assert_eq!(world.relay.stats().dropped_over_daily, 2);
    assert!(outputs(&mut world.relay, at(1)).iter().all(|it| it.leg == leg(2)), "and no hint: the channel is there");
    // Bytes count against the sender, and the client is told what is left. Binding again gives nothing back.
    world.train(2, &data(world.channel, 1_000, 0), 1_000, 0, at(1));
    assert_eq!(outputs(&mut world.relay, at(1)).len(), 1);
    let left = |relay: &mut Relay, n, now| {
        let bound = bound(relay, n, now);
        (bound.daily, bound.daily_left)
    };
    assert_eq!(left(&mut world.relay, 1, at(2)), (10_000, 0));
    assert_eq!(left(&mut world.relay, 2, at(2)), (10_000, 9_000));
    world.relay.handle_timeout(at(100_000));
    assert_eq!(left(&mut world.relay, 1, at(100_000)), (10_000, 0));
}
