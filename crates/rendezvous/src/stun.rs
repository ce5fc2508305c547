//! The server's side of STUN: a stranger asks from which address it is seen (RFC 8489), and what its NAT does (RFC 5780).
//!
//! A source address of UDP can be forged, so every answer may go to a victim. Therefore
//!
//! * a plain request is answered with one address: [`LONGEST_PLAIN`] bytes at most, and 32 over IPv4;
//! * an answer with more than that is never longer than its request, which the client has to pad;
//! * one IPv4 address, or one IPv6 /64, gets [`RATE`] and no more;
//! * everything else gets silence, and each reason has its counter in [`Stats`].
//!
//! An answer is never answered, so two servers cannot be set on each other.
//!
//! DEVIATION: RFC 8489 section 6.3.1 answers an attribute that is not known with error 420, and RFC 5780 section 6.1 repeats
//! the PADDING of a request. Both would let a stranger choose what we send.
//!
//! RFC 5780 needs four sockets: two IP addresses of one family, with two ports each. A server that has them says for each
//! datagram to which of them it came ([`Place`]), and sends the answer from the socket that [`answer_at`] names.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use overlay_wire::stun::{Answer, Change, Message, Request};

use crate::quota::{AddressQuota, Rate};

/// The longest answer to a request without padding, in bytes: one IPv6 address.
pub const LONGEST_PLAIN: usize = 44;
/// How often one IPv4 address or IPv6 /64 is answered. A whole office may be behind it, with one request each 25 seconds
/// for each agent. A victim would get 14 KB a second of plain answers, and the attacker would have to send 10.
pub const RATE: Rate = Rate { per_second: 200, burst: 400 };

/// What keeps a server from answering too much, and what it counts.
#[derive(Debug)]
pub struct Gate {
    quota: AddressQuota,
    /// The counters.
    pub stats: Stats,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(RATE)
    }
}

impl Gate {
    /// A gate that lets through so many for each source.
    pub fn new(rate: Rate) -> Self {
        Self { quota: AddressQuota::new(rate), stats: Stats::default() }
    }
}

/// One of the four sockets of a server with two addresses (RFC 5780 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The socket to which a datagram came.
    pub at: SocketAddr,
    /// The socket that differs in both IP address and port.
    pub other: SocketAddr,
}

/// Answers a datagram that came to a server with one address, from the socket to which it came. Returns nothing if it gets
/// silence. `now` is monotonic.
pub fn answer(datagram: &[u8], from: SocketAddr, now: Duration, gate: &mut Gate) -> Option<Vec<u8>> {
    let (bytes, _) = judged(datagram, from, None, now, gate)?;
    Some(bytes)
}

/// Answers a datagram that came to one of a server's four sockets. Returns the answer, and the socket that has to send it.
pub fn answer_at(
    datagram: &[u8],
    from: SocketAddr,
    place: Place,
    now: Duration,
    gate: &mut Gate,
) -> Option<(Vec<u8>, SocketAddr)> {
    let (bytes, change) = judged(datagram, from, Some(place), now, gate)?;
    Some((bytes, place.after(change)))
}

fn judged(
    datagram: &[u8],
    from: SocketAddr,
    place: Option<Place>,
    now: Duration,
    gate: &mut Gate,
) -> Option<(Vec<u8>, Change)> {
    match judge(datagram, from, place, now, &mut gate.quota) {
        Ok((answer, change)) => {
            gate.stats.answered += 1;
            gate.stats.answered_from_other += u64::from(change != Change::NOTHING);
            let mut bytes = Vec::with_capacity(answer.written_len());
            answer.write(&mut bytes);
            Some((bytes, change))
        }
        Err(silence) => {
            gate.stats.on_silence(silence);
            None
        }
    }
}

/// The cheapest check first.
fn judge(
    datagram: &[u8],
    from: SocketAddr,
    place: Option<Place>,
    now: Duration,
    quota: &mut AddressQuota,
) -> Result<(Answer, Change), Silence> {
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    if !is_a_source(from) {
        return Err(Silence::BadSource);
    }
    let request = match Message::parse(datagram) {
        Ok(Message::Request(request)) => request,
        Ok(_) => return Err(Silence::NotARequest),
        Err(_) => return Err(Silence::Malformed),
    };
    let Request { id, change, is_understood } = request;
    if !is_understood {
        return Err(Silence::NotUnderstood);
    }
    let plain = Answer { id, mapped: from, origin: None, other: None };
    let full = place.map(|place| Answer { origin: Some(place.after(change)), other: Some(place.other), ..plain });
    let fitting = full.filter(|full| full.written_len() <= datagram.len());
    let answer = match (change, full, fitting) {
        (_, _, Some(fitting)) => fitting,
        (Change::NOTHING, ..) => plain,
        (_, Some(_), None) => return Err(Silence::Unpadded),
        (_, None, None) => return Err(Silence::NoSecondAddress),
    };
    if quota.take(from.ip(), now) { Ok((answer, change)) } else { Err(Silence::OverRate) }
}

impl Place {
    /// The socket that differs in what is to change.
    fn after(self, change: Change) -> SocketAddr {
        let of = |is_other| if is_other { self.other } else { self.at };
        SocketAddr::new(of(change.ip).ip(), of(change.port).port())
    }
}

/// Whether a host can have sent from this address. An answer to others would reach many hosts, or nobody.
fn is_a_source(from: SocketAddr) -> bool {
    let is_one_host = match from.ip() {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && ip.octets()[0] != 0,
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    is_one_host && from.port() != 0
}

/// Why a datagram gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody can have sent from its source address.
    BadSource,
    /// It is not a STUN message of the right form.
    Malformed,
    /// It is an answer, an indication, or a request of an extension such as TURN.
    NotARequest,
    /// The request has an attribute that must be understood and is not.
    NotUnderstood,
    /// The request wants an answer from an address that this server does not have.
    NoSecondAddress,
    /// The request wants an answer from a different address, and is shorter than that answer.
    Unpadded,
    /// The source has had as many answers as it gets.
    OverRate,
}

impl Silence {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BadSource,
        Self::Malformed,
        Self::NotARequest,
        Self::NotUnderstood,
        Self::NoSecondAddress,
        Self::Unpadded,
        Self::OverRate,
    ];

    /// The name of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadSource => "bad_source",
            Self::Malformed => "malformed",
            Self::NotARequest => "not_a_request",
            Self::NotUnderstood => "not_understood",
            Self::NoSecondAddress => "no_second_address",
            Self::Unpadded => "unpadded",
            Self::OverRate => "over_rate",
        }
    }
}

/// Counters since the server started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that were answered.
    pub answered: u64,
    /// Those of them whose answer was sent from a socket that the request did not come to.
    pub answered_from_other: u64,
    silent: [u64; Silence::ALL.len()],
}

impl Stats {
    /// How many datagrams got no answer for this reason.
    pub fn silent(&self, reason: Silence) -> u64 {
        self.silent[reason as usize]
    }

    fn on_silence(&mut self, reason: Silence) {
        self.silent[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests;
