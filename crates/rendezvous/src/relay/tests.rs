//! A relay, its agents and the time, in memory.

mod admission;
mod data;
mod opening;
pub(super) mod pair;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use overlay_wire::relay::{Bound, Channel, Reason, Reply, Request};
use overlay_wire::signed::{Lowest, MAX_MEMBERSHIP, Membership, PublicKey, RelayBind, RelayPermit, SecretKey, Signed};

use super::{Config, Leg, Limits, Members, Relay, Train, Transmit};
use crate::now::Now;

/// When the world begins, in milliseconds since 1970.
pub(super) const START: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 3_600 * 1_000;

/// So many milliseconds after the beginning.
pub(super) fn at(ms: u64) -> Now {
    Now { unix: START + ms, monotonic: Duration::from_secs(1_000) + Duration::from_millis(ms) }
}

/// The key of agent `n`.
pub(super) fn key(n: u8) -> Arc<SecretKey> {
    Arc::new(SecretKey::from_bytes(&[n; 32]))
}

pub(super) fn identity(n: u8) -> PublicKey {
    key(n).public()
}

pub(super) fn network() -> PublicKey {
    identity(200)
}

pub(super) fn relay_key() -> PublicKey {
    identity(201)
}

fn rendezvous() -> Arc<SecretKey> {
    key(202)
}

/// Where agent `n` is.
pub(super) fn leg(n: u8) -> Leg {
    SocketAddr::from(([192, 0, 2, n], 7_000)).into()
}

/// A relay for members, with these limits.
pub(super) fn relay(limits: Limits) -> Relay {
    let members = Members::VouchedBy(vec![rendezvous().public()]);
    Relay::new(Config { key: relay_key(), members, limits, seed: [7; 32] })
}

/// A relay for everybody.
fn open_relay(limits: Limits) -> Relay {
    Relay::new(Config { key: relay_key(), members: Members::Everybody, limits, seed: [7; 32] })
}

pub(super) fn membership(n: u8) -> Vec<u8> {
    vouched(n, &rendezvous(), at(0).unix, MAX_MEMBERSHIP)
}

fn vouched(n: u8, by: &SecretKey, issued: u64, lifetime: u64) -> Vec<u8> {
    let membership = Membership {
        network: network(),
        rendezvous: by.public(),
        identity: identity(n),
        issued,
        expires: issued + lifetime,
    };
    Signed::sign(membership, by).expect("a good membership").bytes().to_vec()
}

/// The permit of `issuer` for `subject`.
pub(super) fn permit(issuer: u8, subject: u8, sequence: u64) -> Signed<RelayPermit> {
    let permit = RelayPermit {
        network: network(),
        relay: relay_key(),
        issuer: identity(issuer),
        subject: identity(subject),
        sequence,
        issued: START,
        expires: START + DAY,
    };
    Signed::sign(permit, &key(issuer)).expect("a good permit")
}

/// Puts a datagram in, and returns all that comes out.
fn send(relay: &mut Relay, from: Leg, datagram: &[u8], now: Now) -> Vec<Transmit> {
    relay.handle_datagrams(Train::single(datagram), from, now);
    outputs(relay, now)
}

fn outputs(relay: &mut Relay, now: Now) -> Vec<Transmit> {
    std::iter::from_fn(|| relay.poll_output(now)).collect()
}

/// As [`send`], for control messages: what each address is answered.
fn ask(relay: &mut Relay, from: Leg, request: &Request<'_>, now: Now) -> Vec<(Leg, Reply)> {
    let outputs = send(relay, from, &request.datagram(), now);
    outputs.into_iter().map(|output| (output.leg, Reply::parse(&output.contents).expect("a reply"))).collect()
}

/// The cookie of agent `n` at an address, for the nonce that it always uses here.
fn cookie(relay: &mut Relay, n: u8, from: Leg, now: Now) -> [u8; 16] {
    let hello = Request::Hello { identity: identity(n), nonce: [n; 16] };
    let answer = ask(relay, from, &hello, now);
    let [(to, Reply::Challenge { nonce, cookie })] = answer[..] else { panic!("{answer:?}") };
    assert_eq!((to, nonce), (from, [n; 16]));
    cookie
}

/// What agent `n` signs in a bind.
fn said(n: u8, cookie: [u8; 16], epoch: u64) -> RelayBind {
    RelayBind {
        network: network(),
        relay: relay_key(),
        identity: identity(n),
        nonce: [n; 16],
        cookie,
        epoch,
        lowest: 0,
        lowest_of: Vec::new(),
        membership: Some(membership(n)),
    }
}

/// Sends a bind of agent `n`, signed as it is, and returns the answer.
fn bind(relay: &mut Relay, n: u8, from: Leg, said: RelayBind, now: Now) -> Vec<(Leg, Reply)> {
    let (identity, nonce, cookie) = (said.identity, said.nonce, said.cookie);
    let envelope = Signed::sign(said, &key(n)).expect("a good bind");
    ask(relay, from, &Request::Bind { identity, nonce, cookie, envelope: envelope.bytes() }, now)
}

/// Binds agent `n`, with a change of what it signs.
fn bound_as(relay: &mut Relay, n: u8, from: Leg, now: Now, change: impl FnOnce(&mut RelayBind)) -> Bound {
    let cookie = cookie(relay, n, from, now);
    let mut bind = said(n, cookie, now.unix);
    change(&mut bind);
    let answer = self::bind(relay, n, from, bind, now);
    let [(to, Reply::Bound(bound))] = answer[..] else { panic!("{answer:?}") };
    assert_eq!(to, from);
    bound
}

/// Binds agent `n` at its address.
fn bound(relay: &mut Relay, n: u8, now: Now) -> Bound {
    bound_as(relay, n, leg(n), now, |_| {})
}

fn refusal(answer: &[(Leg, Reply)]) -> Reason {
    let [(_, Reply::Refused { reason, .. })] = answer[..] else { panic!("{answer:?}") };
    reason
}

/// Opens a channel with a permit, and returns all answers.
fn open(relay: &mut Relay, from: Leg, token: [u8; 8], permit: &[u8], now: Now) -> Vec<(Leg, Reply)> {
    ask(relay, from, &Request::Open { token, request: *b"12345678", permit }, now)
}

/// The channel from agent `a` to agent `b`, who are both bound.
fn opened(relay: &mut Relay, a: u8, token: [u8; 8], b: u8, sequence: u64, now: Now) -> Channel {
    let answer = open(relay, leg(a), token, permit(b, a, sequence).bytes(), now);
    let [(_, Reply::Opened { channel, .. }), _] = answer[..] else { panic!("{answer:?}") };
    channel
}

/// A datagram of a channel.
fn data(channel: Channel, len: usize, fill: u8) -> Vec<u8> {
    [&channel.head()[..], &vec![fill; len - 4]].concat()
}

fn lowest(n: u8, sequence: u64) -> Lowest {
    Lowest { subject: identity(n), sequence }
}
