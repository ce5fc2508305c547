//! A client that others lie to, and its bounds. `relay/tests/pair.rs` has the friendly world.

use overlay_wire::relay::MAX_CONTROL_LEN;
use overlay_wire::signed::MAX_LOWEST;

use super::channels::{MAX_CLOSING, MAX_WANTED};
use super::*;
use crate::relay::tests::pair::{World, config, paired};
use crate::relay::tests::{at, identity, key, network, permit, relay_key};

fn sent(client: &mut Client) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| client.poll_transmit()).collect()
}

fn say(client: &mut Client, reply: &Reply, now: Now) {
    assert_eq!(client.handle_datagram(&reply.datagram(), now), None);
}

#[test]
fn what_answers_nothing_of_ours_is_distrusted() {
    let (mut world, channel) = paired();
    let now = world.now();
    let client = &mut world.clients[0];
    while client.poll_event().is_some() {}
    let bound = Bound {
        nonce: [9; 16],
        token: [9; 8],
        observed: "203.0.113.1:1".parse().expect("an address"),
        lifetime: Duration::from_secs(9),
        rate: 0,
        daily: 0,
        daily_left: 0,
    };
    let second = Channel::new(channel.number() ^ 1).expect("a channel");
    let replies = [
        Reply::Challenge { nonce: [9; 16], cookie: [9; 16] },
        Reply::Bound(bound),
        Reply::Opened { request: [9; 8], channel: second, peer: identity(2), valid_for: Duration::ZERO },
        Reply::Opened { request: [0; 8], channel: second, peer: identity(3), valid_for: Duration::ZERO },
        Reply::Unbound { echo: [9; 8] },
        Reply::Unbound { echo: *b"\x41\0\0\x01\x04\0\0\0" },
        Reply::Unbound { echo: *b"\x85\x01\0\0\x09\x09\x09\x09" },
        Reply::Unbound { echo: *b"\x87\x01\0\0\0\0\0\x01" },
        Reply::Refused { answers: [9; 16], reason: Reason::Full, wait: Duration::ZERO },
    ];
    for reply in &replies {
        say(client, reply, now);
    }
    for bytes in [&b""[..], b"\x04\0\0\0", b"\x82", b"\x84\x01\0\0", b"\x41\0\0\0"] {
        assert_eq!(client.handle_datagram(bytes, now), None);
    }
    assert_eq!(client.distrusted(), replies.len() as u64 + 4, "empty data is nobody's");
    assert!(client.poll_event().is_none() && sent(client).is_empty() && client.is_bound());
    assert_eq!(client.channel_to(&identity(2)), Some(channel));
}

#[test]
fn hints_make_a_client_bind_once_a_second_at_most() {
    let (mut world, channel) = paired();
    let client = &mut world.clients[0];
    let mut echo = [4, 0, 0, 0, 4, 0, 0, 0];
    echo[..4].copy_from_slice(&channel.head());
    let mut hellos = 0;
    for ms in 0..10_000 {
        say(client, &Reply::Unbound { echo }, at(world.now + ms));
        hellos += sent(client).iter().filter(|datagram| datagram[0] == 0x81).count();
        // It is bound again at once, as far as it knows.
        client.attempt.rest(at(world.now + 60_000).monotonic);
    }
    assert_eq!(hellos, 10);
}

#[test]
fn a_bind_with_everything_fits_in_one_datagram() {
    let mut client = Client::new(config(1));
    let lowest = |n| Lowest { subject: identity(n), sequence: u64::MAX };
    let all: Vec<_> = (10..).take(MAX_LOWEST).map(lowest).collect();
    client.set_lowest(u64::MAX - 1, all.clone(), at(0)).expect("it is good");
    let hello = sent(&mut client).pop().expect("a hello");
    let Ok(Request::Hello { nonce, .. }) = Request::parse(&hello) else { panic!("a hello") };
    say(&mut client, &Reply::Challenge { nonce, cookie: [7; 16] }, at(0));
    let bind = sent(&mut client).pop().expect("a bind");
    let Ok(Request::Bind { envelope, .. }) = Request::parse(&bind) else { panic!("a bind") };
    assert!(bind.len() <= MAX_CONTROL_LEN && bind.len() > 1_000, "{} bytes", bind.len());
    assert_eq!(Signed::<RelayBind>::open(envelope).expect("our own").lowest_of, all);
    // What a relay would refuse is refused here, and changes nothing.
    let more: Vec<_> = (10..).take(MAX_LOWEST + 1).map(lowest).collect();
    for bad in [more, vec![lowest(1)], vec![lowest(9), lowest(9)]] {
        assert_eq!(client.set_lowest(1, bad, at(1)), Err(Refused::BadValue));
    }
    assert_eq!((client.lowest, client.lowest_of.len()), (u64::MAX - 1, MAX_LOWEST));
}

#[test]
fn only_permits_for_us_here_are_taken() {
    let mut client = Client::new(config(1));
    let sign = |permit: RelayPermit| Signed::sign(permit, &key(2)).expect("a good permit");
    let good = || permit(2, 1, 5).into_value();
    for bad in [
        RelayPermit { subject: identity(3), ..good() },
        RelayPermit { relay: network(), ..good() },
        RelayPermit { network: relay_key(), ..good() },
    ] {
        assert_eq!(client.open(sign(bad), at(0)), Err(NotWanted::NotOurs));
    }
    assert_eq!(client.open(sign(good()), at(0)), Ok(()));
}

#[test]
fn an_epoch_rises_although_the_clock_is_set_back() {
    let mut client = Client::new(config(1));
    let mut epochs = Vec::new();
    for (ms, unix) in [(0, 1_000), (1, 500), (2, 2_000)] {
        let now = Now { unix, ..at(ms) };
        client.on_moved(now);
        let hello = sent(&mut client).pop().expect("a hello");
        let Ok(Request::Hello { nonce, .. }) = Request::parse(&hello) else { panic!("a hello") };
        say(&mut client, &Reply::Challenge { nonce, cookie: [7; 16] }, now);
        let bind = sent(&mut client).pop().expect("a bind");
        let Ok(Request::Bind { envelope, .. }) = Request::parse(&bind) else { panic!("a bind") };
        epochs.push(Signed::<RelayBind>::open(envelope).expect("our own").epoch);
    }
    assert_eq!(epochs, [1_000, 1_001, 2_000]);
}

#[test]
fn what_a_client_keeps_is_bounded() {
    let mut world = World::new(1);
    world.settle();
    let now = world.now();
    let client = &mut world.clients[0];
    // One permit for each issuer: their keys come from numbers.
    let issued = |n: u32| {
        let mut secret = [77; 32];
        secret[..4].copy_from_slice(&n.to_be_bytes());
        let issuer = SecretKey::from_bytes(&secret);
        let permit = RelayPermit { issuer: issuer.public(), ..permit(2, 1, 5).into_value() };
        Signed::sign(permit, &issuer).expect("a good permit")
    };
    for n in 0..MAX_WANTED as u32 {
        assert_eq!(client.open(issued(n), now), Ok(()));
    }
    assert_eq!(client.open(issued(u32::MAX), now), Err(NotWanted::Full));
    for number in 1..=2 * MAX_CLOSING as u32 {
        client.close(Channel::new(number).expect("a channel"), now);
    }
    sent(client);
    // Nobody answers: each close is said four times, and given up.
    let mut closes = 0;
    for ms in (0..60_000).step_by(100) {
        client.handle_timeout(at(world.now + ms));
        closes += sent(client).iter().filter(|datagram| datagram[0] == 0x87).count();
    }
    assert_eq!(closes, 3 * MAX_CLOSING);
    for _ in 0..2 * MAX_EVENTS {
        client.tell(Event::Lost);
    }
    assert_eq!(client.events.len(), MAX_EVENTS);
}
