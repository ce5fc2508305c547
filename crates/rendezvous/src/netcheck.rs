//! The client's side of STUN: does UDP work here, from which addresses are we seen, and what does our NAT do?
//!
//! One check asks several servers once, and concludes for each family of addresses
//!
//! * whether UDP works, and the round trip to each server;
//! * our [`Mapping`]: does the address from which we are seen depend on where we send? Two servers show whether it does, or
//!   one server with a second address (RFC 5780 section 4.3);
//! * our [`Filtering`]: who may send to that address? A server with a second address shows it (section 4.4).
//!
//! ```text
//! every server: asking -> answered | refused | silent | unreachable
//! the first server that tells a second address is the guide. It is asked at its three other sockets, and from a socket of
//! our own that asks nobody else, to answer from them.
//! ```
//!
//! The questions of filtering need a socket of their own: whatever a socket sends to opens the filter for its answers, and
//! the questions of mapping go to all addresses of the guide (section 4.5). [`Socket`] says which socket is meant.
//!
//! Silence is a result only where the same address has answered otherwise. A server whose second address is down, or that
//! answers every request from where it came to, teaches nothing about our filter. The first guide stays the only one.
//!
//! Time and randomness come in. The caller has two sockets for each family, sends what [`Netcheck::poll_transmit`] returns,
//! and calls [`Netcheck::handle_timeout`] at [`Netcheck::poll_timeout`] until that is `None`: the check is over.
//!
//! Servers are believed nothing but what they say about our own address. A server that lies makes the result wrong, and one
//! that names a second address makes us send up to 8 small datagrams there. That address must be of the same reach as the
//! server's own, so that a server on the Internet sends us into nobody's private network.

mod conclude;
mod family;
mod question;

use std::net::SocketAddr;
use std::time::Duration;

use overlay_wire::stun::{Answer, Message, Refusal};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use family::Family;
pub use question::{Outcome, Question};

/// The most servers of one family that are asked. More are left out.
pub const MAX_SERVERS: usize = 16;

/// One of the two sockets of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Asks all servers.
    Mapping,
    /// Asks the guide alone, at one address.
    Filtering,
}

/// A datagram that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The socket, of the family of `to`.
    pub socket: Socket,
    /// Where it goes.
    pub to: SocketAddr,
    /// A binding request.
    pub contents: Vec<u8>,
}

/// How the address from which we are seen depends on where we send (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// It does not. What a server sees is where peers reach us.
    EndpointIndependent,
    /// It depends on the IP address there.
    AddressDependent,
    /// It depends on the IP address and the port there. Also where it changed with the address and no server showed two
    /// ports of one address: nearly every NAT that looks at the address looks at the port too.
    AddressAndPortDependent,
    /// Fewer than two addresses have answered.
    Unknown,
}

/// Which hosts may send to the address from which we are seen (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Everybody, once we have sent anything.
    EndpointIndependent,
    /// Every port of an IP address that we have sent to.
    AddressDependent,
    /// The addresses and ports that we have sent to.
    AddressAndPortDependent,
    /// No server has a second address that works.
    Unknown,
}

/// Whether a family of addresses works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No server has an address of this family.
    Untried,
    /// This host cannot send there.
    Unreachable,
    /// Nothing came back.
    Silent,
    /// A server has said something.
    Works,
}

/// What is known of one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyReport {
    /// Whether it works.
    pub standing: Standing,
    /// The addresses from which we are seen, without repetitions. More than one if the mapping depends on the server.
    pub mapped: Vec<SocketAddr>,
    /// How they depend on the server.
    pub mapping: Mapping,
    /// Which hosts may send to them.
    pub filtering: Filtering,
    /// Each server that was asked, in the order of [`Netcheck::new`].
    pub servers: Vec<(SocketAddr, Outcome)>,
}

/// What is known so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// IPv4.
    pub v4: FamilyReport,
    /// IPv6.
    pub v6: FamilyReport,
}

impl Report {
    /// Whether UDP works: `None` if nothing could be sent.
    pub fn udp(&self) -> Option<bool> {
        let both = [self.v4.standing, self.v6.standing];
        both.contains(&Standing::Works).then_some(true).or(both.contains(&Standing::Silent).then_some(false))
    }
}

/// Datagrams that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Not an answer in the form of STUN.
    pub malformed: u64,
    /// Their transaction id is not that of an open question.
    pub unasked: u64,
    /// They came from an address that has no part in their question.
    pub wrong_source: u64,
}

/// One check.
#[derive(Debug)]
pub struct Netcheck {
    v4: Family,
    v6: Family,
    rng: ChaCha8Rng,
    dropped: Dropped,
}

impl Netcheck {
    /// Begins to ask these servers, at most [`MAX_SERVERS`] of each family. `seed` makes the transaction ids, which keep out
    /// those who do not see our requests. `now` is monotonic.
    pub fn new(servers: &[SocketAddr], seed: [u8; 32], now: Duration) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let servers = servers.iter().map(|server| SocketAddr::new(server.ip().to_canonical(), server.port()));
        let (v4, v6): (Vec<_>, Vec<_>) = servers.partition(SocketAddr::is_ipv4);
        let (v4, v6) = (Family::new(v4, &mut rng, now), Family::new(v6, &mut rng, now));
        Self { v4, v6, rng, dropped: Dropped::default() }
    }

    /// The next datagram to send by now.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Transmit> {
        self.v4.poll_transmit(now).or_else(|| self.v6.poll_transmit(now))
    }

    /// When [`Self::handle_timeout`] is due. `None`: nothing is waited for any more.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.v4.deadline(), self.v6.deadline()].into_iter().flatten().min()
    }

    /// Time has passed: questions are asked again or given up.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.v4.handle_timeout(now);
        self.v6.handle_timeout(now);
    }

    /// A datagram came to one of the sockets of the family of `from`.
    pub fn handle_datagram(&mut self, socket: Socket, from: SocketAddr, datagram: &[u8], now: Duration) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let Some(heard) = Heard::parse(datagram) else {
            self.dropped.malformed += 1;
            return;
        };
        let family = if from.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        match family.handle(socket, from, &heard, now, &mut self.rng) {
            Taken::Used => {}
            Taken::Unasked => self.dropped.unasked += 1,
            Taken::WrongSource => self.dropped.wrong_source += 1,
        }
    }

    /// This host could not send to `to`: it has no route there, or no socket of that family.
    pub fn on_unreachable(&mut self, socket: Socket, to: SocketAddr) {
        let family = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        family.on_unreachable(socket, to);
    }

    /// What is known so far. It is final once [`Self::poll_timeout`] is `None`.
    pub fn report(&self) -> Report {
        Report { v4: self.v4.report(), v6: self.v6.report() }
    }

    /// What was dropped.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }
}

/// A message of a server.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Answer(Answer),
    Refusal(Refusal),
}

impl Heard {
    fn parse(datagram: &[u8]) -> Option<Self> {
        match Message::parse(datagram) {
            Ok(Message::Answer(answer)) => Some(Self::Answer(answer)),
            Ok(Message::Refusal(refusal)) => Some(Self::Refusal(refusal)),
            Ok(Message::Request(_) | Message::Other) | Err(_) => None,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Used,
    Unasked,
    WrongSource,
}

#[cfg(test)]
mod tests;
