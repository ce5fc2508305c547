//! Binding: by what proof, for how long, and what it costs the relay before.

use overlay_wire::relay::{HELLO_LEN, Reason, Reply, Request};
use overlay_wire::signed::{MAX_MEMBERSHIP, RelayBind, Signed};

use super::*;
use crate::relay::BOUND_FOR;

/// What an agent is to the relay, and what each message makes of it.
#[test]
fn every_transition_is_in_this_table() {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum State {
        Stranger,
        Bound,
        Lapsed,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Message {
        Hello,
        Bind,
        BindAgain,
        OlderBind,
        BadCookie,
        Open,
        Close,
        Data,
        Silence,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Answer {
        Nothing,
        Challenge,
        Bound,
        Unbound,
        OldEpoch,
        NotHere,
    }
    use {Answer as A, Message as M, State as S};
    const TABLE: &[(State, Message, State, Answer)] = &[
        (S::Stranger, M::Hello, S::Stranger, A::Challenge),
        (S::Stranger, M::Bind, S::Bound, A::Bound),
        (S::Stranger, M::BindAgain, S::Bound, A::Bound),
        (S::Stranger, M::OlderBind, S::Bound, A::Bound),
        (S::Stranger, M::BadCookie, S::Stranger, A::Nothing),
        (S::Stranger, M::Open, S::Stranger, A::Unbound),
        (S::Stranger, M::Close, S::Stranger, A::Unbound),
        (S::Stranger, M::Data, S::Stranger, A::Unbound),
        (S::Stranger, M::Silence, S::Stranger, A::Nothing),
        (S::Bound, M::Hello, S::Bound, A::Challenge),
        (S::Bound, M::Bind, S::Bound, A::Bound),
        (S::Bound, M::BindAgain, S::Bound, A::Bound),
        (S::Bound, M::OlderBind, S::Bound, A::OldEpoch),
        (S::Bound, M::BadCookie, S::Bound, A::Nothing),
        (S::Bound, M::Open, S::Bound, A::NotHere),
        (S::Bound, M::Close, S::Bound, A::Unbound),
        (S::Bound, M::Data, S::Bound, A::Unbound),
        (S::Bound, M::Silence, S::Lapsed, A::Nothing),
        (S::Lapsed, M::Hello, S::Lapsed, A::Challenge),
        (S::Lapsed, M::Bind, S::Bound, A::Bound),
        (S::Lapsed, M::OlderBind, S::Bound, A::Bound),
        (S::Lapsed, M::Open, S::Lapsed, A::Unbound),
        (S::Lapsed, M::Data, S::Lapsed, A::Unbound),
    ];
    for (from, message, to, expected) in TABLE {
        let mut relay = relay(Limits::default());
        let (leg, epoch) = (leg(1), 500);
        let mut token = [0; 8];
        if *from != S::Stranger {
            token = bound_as(&mut relay, 1, leg, at(0), |bind| bind.epoch = epoch).token;
        }
        let mut now = at(100);
        if *from == S::Lapsed {
            now = at(61_000);
            relay.handle_timeout(now);
        }
        let mut bind = |epoch| {
            let cookie = cookie(&mut relay, 1, leg, now);
            self::bind(&mut relay, 1, leg, said(1, cookie, epoch), now)
        };
        let channel = Channel::new(9).expect("a channel");
        let answer = match message {
            M::Hello => ask(&mut relay, leg, &Request::Hello { identity: identity(1), nonce: [1; 16] }, now),
            M::Bind => bind(epoch + 1),
            M::BindAgain => bind(epoch),
            M::OlderBind => bind(epoch - 1),
            M::BadCookie => self::bind(&mut relay, 1, leg, said(1, [9; 16], epoch + 1), now),
            M::Open => open(&mut relay, leg, token, permit(2, 1, 1).bytes(), now),
            M::Close => ask(&mut relay, leg, &Request::Close { channel, token }, now),
            M::Data => {
                let outputs = send(&mut relay, leg, &data(channel, 36, 0), now);
                outputs.into_iter().map(|it| (it.leg, Reply::parse(&it.contents).expect("a reply"))).collect()
            }
            M::Silence => {
                now = at(61_000);
                relay.handle_timeout(now);
                Vec::new()
            }
        };
        let found = match answer[..] {
            [] => A::Nothing,
            [(_, Reply::Challenge { .. })] => A::Challenge,
            [(_, Reply::Bound(_))] => A::Bound,
            [(_, Reply::Unbound { .. })] => A::Unbound,
            [(_, Reply::Refused { reason: Reason::OldEpoch, .. })] => A::OldEpoch,
            [(_, Reply::Refused { reason: Reason::NotHere, .. })] => A::NotHere,
            _ => panic!("{from:?}, {message:?}: {answer:?}"),
        };
        assert_eq!(found, *expected, "{from:?}, {message:?}");
        assert!(answer.iter().all(|(to, _)| *to == leg));
        assert_eq!(relay.bindings() == 1, *to == S::Bound, "{from:?}, {message:?}");
    }
}

#[test]
fn a_stranger_leaves_nothing_behind() {
    let mut relay = relay(Limits::default());
    for n in 0..=255 {
        let hello = Request::Hello { identity: identity(1), nonce: [n; 16] };
        assert_eq!(ask(&mut relay, leg(n), &hello, at(0)).len(), 1);
        let forged = said(1, [n; 16], 1);
        assert!(bind(&mut relay, 1, leg(n), forged, at(0)).is_empty());
    }
    assert_eq!((relay.stats().challenges, relay.stats().dropped_bad_cookie), (256, 256));
    assert!(relay.prefixes.is_empty() && relay.bindings() == 0 && relay.poll_timeout().is_none());
}

#[test]
fn a_cookie_is_for_one_address_and_one_minute() {
    let mut relay = relay(Limits::default());
    let cookie = cookie(&mut relay, 1, leg(1), at(0));
    let other_port = SocketAddr::from(([192, 0, 2, 1], 7_001)).into();
    for (from, now) in [(leg(2), at(0)), (other_port, at(0)), (leg(1), at(60_000))] {
        assert!(bind(&mut relay, 1, from, said(1, cookie, 1), now).is_empty());
    }
    // Nor does a different agent get in with it.
    let bind = said(2, cookie, 1);
    assert!(self::bind(&mut relay, 2, leg(1), bind, at(0)).is_empty());
    assert_eq!(relay.stats().dropped_bad_cookie, 4);
}

#[test]
fn every_reason_to_refuse_a_bind_has_its_name() {
    let mut relay = relay(Limits::default());
    let cookie = cookie(&mut relay, 1, leg(1), at(0));
    let good = || said(1, cookie, 1);
    let with = |membership| RelayBind { membership, ..good() };
    let by = |issued, lifetime| with(Some(vouched(1, &rendezvous(), issued, lifetime)));
    for (bind, reason) in [
        (RelayBind { relay: identity(9), ..good() }, Reason::WrongRelay),
        (with(None), Reason::NotAMember),
        (with(Some(vouched(1, &key(9), START, MAX_MEMBERSHIP))), Reason::NotAMember),
        (by(START - DAY, DAY), Reason::Expired),
        (by(START + DAY, DAY), Reason::Expired),
    ] {
        assert_eq!(refusal(&self::bind(&mut relay, 1, leg(1), bind, at(0))), reason);
    }
    // What is signed must be what is around it, and signed by the agent.
    let envelope = |bind: RelayBind| Signed::sign(bind, &key(1)).expect("a good bind").bytes().to_vec();
    let elsewhere = envelope(RelayBind { cookie: [9; 16], ..good() });
    let other = envelope(RelayBind { nonce: [9; 16], ..good() });
    let mut forged = envelope(good());
    *forged.last_mut().expect("not empty") ^= 1;
    for envelope in [&elsewhere[..], &other, &forged, &[0; 100]] {
        let request = Request::Bind { identity: identity(1), nonce: [1; 16], cookie, envelope };
        assert_eq!(refusal(&ask(&mut relay, leg(1), &request, at(0))), Reason::BadObject);
    }
    assert_eq!(relay.bindings(), 0);
    for (reason, count) in [(Reason::BadObject, 4), (Reason::NotAMember, 2), (Reason::Expired, 2)] {
        assert_eq!(relay.stats().refused(reason), count);
    }
}

#[test]
fn a_binding_lasts_a_minute_and_no_longer_than_the_membership() {
    let mut relay = relay(Limits::default());
    let bound = bound(&mut relay, 1, at(0));
    assert_eq!((bound.observed, bound.lifetime), (leg(1).remote, BOUND_FOR));
    assert_eq!((bound.rate, bound.daily, bound.daily_left), (0, 0, 0));
    let short = bound_as(&mut relay, 2, leg(2), at(0), |bind| {
        bind.membership = Some(vouched(2, &rendezvous(), START - DAY, DAY + 20_000));
    });
    assert_eq!(short.lifetime.as_secs(), 20);
    relay.handle_timeout(at(59_000));
    assert_eq!(relay.bindings(), 1);
    relay.handle_timeout(at(61_000));
    assert_eq!((relay.bindings(), relay.stats().lapsed), (0, 2));
    relay.handle_timeout(at(120_000));
    assert!(relay.poll_timeout().is_none(), "nothing is left to do");
}

#[test]
fn a_repeated_bind_is_answered_alike_and_prolongs_nothing() {
    let mut relay = relay(Limits::default());
    let cookie = cookie(&mut relay, 1, leg(1), at(0));
    let first = bind(&mut relay, 1, leg(1), said(1, cookie, 5), at(0));
    let again = bind(&mut relay, 1, leg(1), said(1, cookie, 5), at(20_000));
    let ([(_, Reply::Bound(first))], [(_, Reply::Bound(again))]) = (&first[..], &again[..]) else { panic!() };
    assert_eq!((first.token, first.lifetime.as_secs(), again.lifetime.as_secs()), (again.token, 60, 40));
    assert_eq!((relay.stats().bound, relay.stats().renewed), (1, 0));
}

#[test]
fn a_new_address_takes_the_binding_along() {
    let mut relay = relay(Limits::default());
    let first = bound(&mut relay, 1, at(0));
    let second = bound_as(&mut relay, 1, leg(2), at(1), |_| {});
    assert_eq!((first.token, second.observed), (second.token, leg(2).remote));
    assert_eq!((relay.bindings(), relay.stats().moved), (1, 1));
    assert_eq!([1, 2].map(|n| relay.prefixes.bindings(leg(n).remote.ip())), [0, 1]);
    // The old address is not the agent's any more.
    let answer = open(&mut relay, leg(1), first.token, permit(2, 1, 1).bytes(), at(2));
    assert!(matches!(answer[..], [(_, Reply::Unbound { .. })]));
    // An old bind does not bring it back.
    let cookie = cookie(&mut relay, 1, leg(1), at(3));
    let answer = bind(&mut relay, 1, leg(1), said(1, cookie, at(0).unix), at(3));
    assert_eq!(refusal(&answer), Reason::OldEpoch);
}

#[test]
fn full_tables_refuse_newcomers_and_evict_nobody() {
    let mut relay = relay(Limits { bindings: 3, ..Limits::default() });
    for n in 1..=3 {
        bound(&mut relay, n, at(0));
    }
    let cookie = cookie(&mut relay, 4, leg(4), at(1));
    let answer = bind(&mut relay, 4, leg(4), said(4, cookie, 1), at(1));
    assert!(matches!(answer[..], [(_, Reply::Refused { reason: Reason::Full, wait, .. })] if !wait.is_zero()));
    bound(&mut relay, 3, at(2));
    assert_eq!(relay.bindings(), 3);
}

#[test]
fn at_a_relay_for_everybody_no_address_takes_all_the_room() {
    let mut relay = open_relay(Limits { bindings_of_prefix: 2, ..Limits::default() });
    let from = |port: u16| SocketAddr::from(([192, 0, 2, 1], port)).into();
    for n in 1..=2 {
        bound_as(&mut relay, n, from(n.into()), at(0), |bind| bind.membership = None);
    }
    let cookie = cookie(&mut relay, 3, from(3), at(0));
    assert_eq!(refusal(&bind(&mut relay, 3, from(3), said(3, cookie, 1), at(0))), Reason::Full);
    bound(&mut relay, 4, at(0));
    // Agents for whom a rendezvous vouches may all come from one address.
    let mut relay = self::relay(Limits { bindings_of_prefix: 2, ..Limits::default() });
    for n in 1..=9 {
        bound_as(&mut relay, n, from(n.into()), at(0), |_| {});
    }
}

#[test]
fn one_address_cannot_make_the_relay_verify_without_end() {
    let mut relay = relay(Limits::default());
    let cookie = cookie(&mut relay, 1, leg(1), at(0));
    let bad = Request::Bind { identity: identity(1), nonce: [1; 16], cookie, envelope: &[0; 100] };
    let reasons: Vec<_> = (0..600).map(|_| refusal(&ask(&mut relay, leg(1), &bad, at(0)))).collect();
    assert_eq!(reasons.iter().filter(|reason| **reason == Reason::BadObject).count(), 512);
    assert_eq!(reasons.iter().filter(|reason| **reason == Reason::TooOften).count(), 88);
    bound(&mut relay, 2, at(0));
}

#[test]
fn no_answer_is_longer_than_its_question() {
    let mut relay = relay(Limits::default());
    let cookie = cookie(&mut relay, 1, leg(1), at(0));
    let envelope = Signed::sign(RelayBind { membership: None, ..said(1, cookie, 1) }, &key(1)).expect("a good bind");
    let token = bound(&mut relay, 2, at(0)).token;
    let other = bound(&mut relay, 3, at(0)).token;
    let channel = opened(&mut relay, 2, token, 3, 1, at(0));
    let permit = permit(3, 2, 1);
    for (n, request) in [
        (1, Request::Hello { identity: identity(1), nonce: [1; 16] }),
        (1, Request::Bind { identity: identity(1), nonce: [1; 16], cookie, envelope: envelope.bytes() }),
        (2, Request::Open { token, request: [1; 8], permit: permit.bytes() }),
        (2, Request::Open { token, request: [1; 8], permit: &[0; 52] }),
        (2, Request::Close { channel, token: other }),
        (3, Request::Close { channel, token: other }),
        (2, Request::Open { token: [0; 8], request: [1; 8], permit: permit.bytes() }),
    ] {
        let len = request.datagram().len();
        let sent: usize = send(&mut relay, leg(n), &request.datagram(), at(0)).iter().map(|it| it.contents.len()).sum();
        assert!(sent > 0 && sent <= len, "{request:?}: {sent} bytes for {len}");
    }
    for len in 0..HELLO_LEN {
        for first in [0x41, 0x40, 0x7f, 0x80, 0x81, 0x83, 0x85, 0x87, 0xbf, 0xc0, 0x00, 0x01, 0x04] {
            let datagram: Vec<u8> = [first, 1, 0, 9].into_iter().chain([0; HELLO_LEN]).take(len).collect();
            let sent = send(&mut relay, leg(9), &datagram, at(0));
            assert!(sent.iter().map(|it| it.contents.len()).sum::<usize>() <= len);
            assert!(sent.is_empty() || first == 0x41 || first >= 0x85, "{first:#x}, {len} bytes");
        }
    }
}

#[test]
fn any_bytes_get_silence_or_a_hint() {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore as _, SeedableRng as _};
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let mut relay = relay(Limits::default());
    let token = bound(&mut relay, 1, at(0)).token;
    bound(&mut relay, 2, at(0));
    let channel = opened(&mut relay, 1, token, 2, 1, at(0));
    for n in 0..20_000u32 {
        let mut train = vec![0; 1 + rng.next_u32() as usize % 400];
        rng.fill_bytes(&mut train);
        // Mostly what begins like something of ours.
        if let (true, Some(head)) = (n % 4 < 3, train.first_chunk_mut::<4>()) {
            *head = if n % 2 == 0 { channel.head() } else { [0x80 | (head[0] % 12), 1, 0, 0] };
        }
        let stride = 1 + rng.next_u32() as usize % train.len();
        let from = leg(1 + (n % 3) as u8);
        relay.handle_datagrams(Train { contents: &train, stride, ecn: (n % 4) as u8 }, from, at(n.into()));
        let sent: usize = outputs(&mut relay, at(n.into())).iter().map(|it| it.contents.len()).sum();
        assert!(sent <= train.len());
    }
    assert_eq!((relay.bindings(), relay.channels()), (2, 1));
}
