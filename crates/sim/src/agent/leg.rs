//! An agent and one relay: the client that keeps it bound there, and the question from which address it is seen.

use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::Instant;
use overlay_rendezvous::relay::client::{Client, Event};
use overlay_wire::signed::{RelayPermit, Signed};
use overlay_wire::stun::{self, Change, Message, TransactionId};

use super::KnownRelay;
use crate::clocks;

/// When a question of STUN is repeated for the first time. The wait doubles each time (RFC 8489 section 6.2.1).
const FIRST_REPEAT: Duration = Duration::from_millis(500);
/// How often a question is asked in all (RFC 8489 section 6.2.1).
const MAX_ASKED: u32 = 7;

/// A relay that an agent uses.
pub(super) struct Leg {
    pub(super) relay: KnownRelay,
    /// The address of the relay that we use.
    pub(super) address: SocketAddr,
    /// From which address the relay sees us.
    pub(super) reflexive: Option<SocketAddr>,
    client: Client,
    question: Option<Question>,
    outputs: Vec<Vec<u8>>,
}

/// A question of STUN that was not answered yet.
struct Question {
    id: TransactionId,
    asked: u32,
    next: Instant,
}

impl Leg {
    /// The relay as seen from a host with these addresses. `id`: what the first question of STUN is told by.
    pub(super) fn new(relay: KnownRelay, client: Client, host: &[SocketAddr], id: [u8; 12], now: Instant) -> Self {
        let address = address_for(relay, host);
        let mut new = Self { relay, address, reflexive: None, client, question: None, outputs: Vec::new() };
        new.ask(id, now);
        new
    }

    /// The host has these addresses now.
    pub(super) fn on_moved(&mut self, host: &[SocketAddr], id: [u8; 12], now: Instant) {
        self.address = address_for(self.relay, host);
        self.reflexive = None;
        self.client.on_moved(clocks::both(now));
        self.ask(id, now);
    }

    /// Wants a channel to the agent that signed the permit.
    pub(super) fn open(&mut self, permit: Signed<RelayPermit>, now: Instant) {
        self.client.open(permit, clocks::both(now)).expect("a permit for us, at this relay");
    }

    /// The relay says from where it sees us. If that is new, STUN is asked too.
    pub(super) fn on_bound(&mut self, observed: SocketAddr, id: [u8; 12], now: Instant) {
        if self.reflexive.is_some_and(|known| known != observed) && self.question.is_none() {
            self.ask(id, now);
            self.handle_timeout(now);
        }
    }

    /// Takes what came from the relay. Returns whether we are seen from a different address than before.
    pub(super) fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> bool {
        match Message::parse(datagram) {
            Ok(Message::Answer(answer)) if self.question.as_ref().is_some_and(|asked| asked.id == answer.id) => {
                self.question = None;
                self.reflexive.replace(answer.mapped) != Some(answer.mapped)
            }
            Ok(_) => false,
            Err(_) => {
                let data = self.client.handle_datagram(datagram, clocks::both(now));
                assert!(data.is_none(), "a node keeps what belongs to its peers");
                false
            }
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if Instant::from_start(self.client.poll_timeout()) <= now {
            self.client.handle_timeout(clocks::both(now));
        }
        let Some(question) = self.question.as_mut().filter(|question| question.next <= now) else { return };
        let mut request = Vec::new();
        stun::write_request(question.id, Change::NOTHING, &mut request);
        self.outputs.push(request);
        question.next = now + FIRST_REPEAT * 2u32.pow(question.asked);
        question.asked += 1;
        if question.asked >= MAX_ASKED {
            self.question = None;
        }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Instant {
        let client = Instant::from_start(self.client.poll_timeout());
        self.question.iter().map(|question| question.next).fold(client, Instant::min)
    }

    /// The next datagram for the relay.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.client.poll_transmit().or_else(|| self.outputs.pop())
    }

    /// What happened at the relay.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.client.poll_event()
    }

    /// How many datagrams answered nothing of ours.
    pub(super) fn distrusted(&self) -> u64 {
        self.client.distrusted()
    }

    fn ask(&mut self, id: [u8; 12], now: Instant) {
        self.question = Some(Question { id: TransactionId(id), asked: 0, next: now });
    }
}

/// The relay's address of a family that the host has.
fn address_for(relay: KnownRelay, host: &[SocketAddr]) -> SocketAddr {
    let of_family = |address: &&SocketAddr| host.iter().any(|own| own.is_ipv4() == address.is_ipv4());
    *relay.addresses.iter().find(of_family).unwrap_or(&relay.addresses[0])
}
