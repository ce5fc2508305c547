//! One relay: how far it is, how it sees us, and whether we are bound there.
//!
//! A question of STUN to the relay's port says how far it is and how it sees us. A binding says the latter again with each
//! renewal. A relay may have an address of each family. One of them is used, and the other one if it does not answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_core::Via;
use overlay_rendezvous::netcheck::{Outcome, Question};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::relay::client::{Client, Event};
use overlay_wire::relay::{Channel, Kind, kind};
use overlay_wire::signed::PublicKey;

use crate::engine::Datagram;

/// How often a relay is asked how far it is.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// How long after silence it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long an address is tried before the other one is: at first, and at most. It doubles.
const TRIED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// The channels with one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// The one that we opened.
    pub(super) ours: Option<Channel>,
    /// The one that the peer opened.
    pub(super) theirs: Option<Channel>,
}

/// One relay.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) key: PublicKey,
    /// The rendezvous that it is beside, if that is one of ours.
    pub(super) beside: Option<PublicKey>,
    addresses: Vec<SocketAddr>,
    /// Which of them is used.
    at: usize,
    question: Option<Question>,
    /// When it is asked next, by the monotonic clock.
    ask_at: Duration,
    round_trip: Option<Duration>,
    /// How it sees us.
    observed: Option<SocketAddr>,
    client: Option<Client>,
    was_bound: bool,
    was_silent: bool,
    /// Until when the address is tried, and for how long.
    tried: (Duration, Duration),
    channels: BTreeMap<PublicKey, Ends>,
}

/// What came of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// Whether it answers, and how far it is.
    Measured,
    /// We are bound, or no longer.
    Bound,
    /// It has stopped answering our binds, or answers again.
    Silent(PublicKey),
    /// It sees us at a new address.
    Observed,
    /// The channels with this peer.
    Channels(PublicKey),
    /// A peer has opened a channel.
    OpenedBy(PublicKey, Channel),
}

impl Relay {
    pub(super) fn new(key: PublicKey, addresses: Vec<SocketAddr>, beside: Option<PublicKey>) -> Self {
        Self {
            key,
            beside,
            addresses,
            at: 0,
            question: None,
            ask_at: Duration::ZERO,
            round_trip: None,
            observed: None,
            client: None,
            was_bound: false,
            was_silent: false,
            tried: (Duration::ZERO, TRIED.0),
            channels: BTreeMap::new(),
        }
    }

    /// The address that is used.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(self.at).copied()
    }

    /// All its addresses.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes its addresses. Returns whether they are new.
    pub(super) fn set_addresses(&mut self, addresses: Vec<SocketAddr>, now: Now) -> bool {
        if addresses.is_empty() || self.addresses == addresses {
            return false;
        }
        let used = self.address();
        // What has not answered yet gives way to what is said to be better.
        let kept = addresses.iter().position(|address| Some(*address) == used).filter(|_| self.is_bound());
        self.at = kept.unwrap_or(0);
        self.addresses = addresses;
        if self.address() != used {
            self.start_over(now);
        }
        true
    }

    /// How far it is. `None`: it does not answer.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How it sees us.
    pub(super) fn observed(&self) -> Option<SocketAddr> {
        self.observed
    }

    pub(super) fn client(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    pub(super) fn has_client(&self) -> bool {
        self.client.is_some()
    }

    pub(super) fn is_bound(&self) -> bool {
        self.client.as_ref().is_some_and(Client::is_bound)
    }

    /// Whether it does not answer our binds.
    pub(super) fn is_silent(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_bound() && client.is_silent())
    }

    /// The channels with a peer.
    pub(super) fn ends(&self, peer: &PublicKey) -> Ends {
        self.channels.get(peer).copied().unwrap_or_default()
    }

    /// The peers with a channel.
    pub(super) fn peers(&self) -> impl Iterator<Item = &PublicKey> {
        self.channels.keys()
    }

    /// Gets bound from now on.
    pub(super) fn bind(&mut self, client: Client) {
        self.client = Some(client);
    }

    /// Is not bound any more. Returns the peers that had channels.
    pub(super) fn unbind(&mut self) -> Vec<PublicKey> {
        (self.client, self.was_bound, self.was_silent) = (None, false, false);
        std::mem::take(&mut self.channels).into_keys().collect()
    }

    /// Our own address may have changed.
    pub(super) fn on_moved(&mut self, now: Now) {
        match &mut self.client {
            Some(client) => client.on_moved(now),
            None => self.ask_at = now.monotonic,
        }
    }

    /// When something is due, by the monotonic clock.
    pub(super) fn due(&self) -> Duration {
        let question = self.question.as_ref().map(|question| question.deadline().unwrap_or_default());
        let question = question.or(self.beside.is_some().then_some(self.ask_at)).unwrap_or(Duration::MAX);
        self.client.as_ref().map_or(question, |client| client.poll_timeout().min(question))
    }

    /// Does what is due. `id`: a random number for a question. What is to be sent goes into `out`.
    pub(super) fn handle_timeout(&mut self, id: [u8; 11], now: Now, out: &mut Vec<Datagram>, facts: &mut Vec<Fact>) {
        let Some(address) = self.address() else { return };
        if self.beside.is_some() && self.question.is_none() && self.ask_at <= now.monotonic {
            self.question = Some(Question::with_id(address, id, now.monotonic));
        }
        if let Some(question) = &mut self.question {
            question.handle_timeout(now.monotonic);
            while let Some(request) = question.poll_attempt(now.monotonic) {
                out.push(Datagram { remote: address, via: Via::ANY, contents: request.into() });
            }
        }
        self.settle_question(now, facts);
        if let Some(client) = &mut self.client {
            client.handle_timeout(now);
        }
        self.settle_client(now, out, facts);
        let is_silent = self.client.as_ref().is_some_and(Client::is_silent);
        if std::mem::replace(&mut self.was_silent, is_silent) != is_silent {
            facts.push(Fact::Silent(self.key));
        }
        if is_silent {
            self.on_silent(now, facts);
        }
    }

    /// Takes in a datagram from its address.
    pub(super) fn handle_datagram(
        &mut self,
        datagram: &Datagram,
        now: Now,
        out: &mut Vec<Datagram>,
        facts: &mut Vec<Fact>,
    ) {
        match kind(&datagram.contents) {
            Kind::Other => {
                if let Some(question) = &mut self.question {
                    question.handle_datagram(datagram.remote, &datagram.contents, now.monotonic);
                }
                self.settle_question(now, facts);
            }
            // What is in channels is the node's.
            Kind::Data => {}
            Kind::Control => {
                if let Some(client) = &mut self.client {
                    client.handle_datagram(&datagram.contents, now);
                }
                self.settle_client(now, out, facts);
            }
        }
    }

    fn settle_question(&mut self, now: Now, facts: &mut Vec<Fact>) {
        match self.question.as_ref().map(Question::outcome) {
            None | Some(Outcome::Asking) => return,
            Some(Outcome::Answered { mapped, round_trip }) => {
                self.round_trip = Some(round_trip);
                self.ask_at = now.monotonic + ASK_EVERY;
                self.observe(mapped, facts);
            }
            Some(_) => {
                self.round_trip = self.round_trip.filter(|_| self.client.as_ref().is_some_and(Client::is_bound));
                self.ask_at = now.monotonic + ASK_AGAIN;
                if self.client.is_none() {
                    self.next_address();
                }
            }
        }
        self.question = None;
        facts.push(Fact::Measured);
    }

    /// Takes what the client has to say.
    pub(super) fn settle_client(&mut self, now: Now, out: &mut Vec<Datagram>, facts: &mut Vec<Fact>) {
        let Some(remote) = self.address() else { return };
        let mut events = Vec::new();
        if let Some(client) = &mut self.client {
            events.extend(std::iter::from_fn(|| client.poll_event()));
            let said = std::iter::from_fn(|| client.poll_transmit());
            out.extend(said.map(|contents| Datagram { remote, via: Via::ANY, contents: contents.into() }));
        }
        for event in events {
            self.on_event(event, now, facts);
        }
        if self.was_bound != self.is_bound() {
            self.was_bound = self.is_bound();
            facts.push(Fact::Bound);
        }
    }

    fn on_event(&mut self, event: Event, now: Now, facts: &mut Vec<Fact>) {
        match event {
            Event::Bound(bound) => {
                self.tried = (Duration::ZERO, TRIED.0);
                self.observe(bound.observed, facts);
                if self.round_trip.is_none() {
                    self.ask_at = now.monotonic;
                }
            }
            Event::Lost => {}
            Event::Refused(reason) => {
                tracing::debug!(relay = %self.key, ?reason, "a relay does not bind us");
                self.round_trip = None;
                facts.push(Fact::Measured);
            }
            Event::Opened { channel, peer, is_ours } => {
                let ends = self.channels.entry(peer).or_default();
                *(if is_ours { &mut ends.ours } else { &mut ends.theirs }) = Some(channel);
                if !is_ours {
                    facts.push(Fact::OpenedBy(peer, channel));
                }
                facts.push(Fact::Channels(peer));
            }
            Event::Closed { channel, peer } => self.forget_channel(channel, peer, facts),
            Event::OpenRefused { peer, reason } => {
                tracing::debug!(relay = %self.key, %peer, ?reason, "a relay opens no channel to a peer");
            }
        }
    }

    /// A channel is gone.
    pub(super) fn forget_channel(&mut self, channel: Channel, peer: PublicKey, facts: &mut Vec<Fact>) {
        let Some(ends) = self.channels.get_mut(&peer) else { return };
        ends.ours = ends.ours.filter(|ours| *ours != channel);
        ends.theirs = ends.theirs.filter(|theirs| *theirs != channel);
        if *ends == Ends::default() {
            self.channels.remove(&peer);
        }
        facts.push(Fact::Channels(peer));
    }

    /// Notes how the relay sees us.
    fn observe(&mut self, observed: SocketAddr, facts: &mut Vec<Fact>) {
        if self.observed.replace(observed) != Some(observed) {
            facts.push(Fact::Observed);
        }
    }

    /// The relay does not answer our binds.
    fn on_silent(&mut self, now: Now, facts: &mut Vec<Fact>) {
        if self.round_trip.take().is_some() {
            facts.push(Fact::Measured);
        }
        let (until, time) = self.tried;
        if until == Duration::ZERO {
            self.tried.0 = now.monotonic + time;
        } else if until <= now.monotonic && self.next_address() {
            let time = (time * 2).min(TRIED.1);
            self.tried = (now.monotonic + time, time);
            self.start_over(now);
        }
    }

    /// Uses the next address. Returns whether there is a different one.
    fn next_address(&mut self) -> bool {
        let used = self.at;
        self.at = (self.at + 1) % self.addresses.len().max(1);
        self.at != used
    }

    /// A new address is used.
    fn start_over(&mut self, now: Now) {
        (self.question, self.ask_at) = (None, now.monotonic);
        if let Some(client) = &mut self.client {
            client.on_moved(now);
        }
    }
}
