//! The agent's side of a relay: it gets bound, stays so, and keeps the channels open that the agent wants.
//!
//! The caller puts in what comes from the relay's address ([`Client::handle_datagram`]) and the time
//! ([`Client::handle_timeout`]), and takes datagrams ([`Client::poll_transmit`]) and events ([`Client::poll_event`]). It sends
//! data itself: the channel's head and the datagram.
//!
//! * A binding is renewed every [`RENEW`], which also keeps the mappings of NATs on the way. After a change of address the
//!   caller says [`Client::on_moved`].
//! * What the relay sends is not signed. It counts if it repeats a random number of ours. An `unbound` does not, so it is a
//!   hint: it makes us bind at most once a [`HINT_EVERY`], and open the channel again.
//! * A relay that has forgotten us hands out a new token. Then all channels are opened again.
//! * What an agent closes or takes back stays so only if its binds say it ([`Client::set_lowest`]): a relay forgets.

mod attempt;
mod channels;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use overlay_wire::relay::{Bound, Channel, DATA_HEAD_LEN, ECHO_LEN, Kind, Reason, Reply, Request, kind, open_data};
use overlay_wire::signed::{Lowest, PublicKey, Refused, RelayBind, RelayPermit, SecretKey, Signed};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::now::Now;
use attempt::{Attempt, Say};
use channels::Channels;

/// How often a binding is renewed, up to 2 s earlier: as often as WireGuard keeps a NAT's mapping.
pub const RENEW: Duration = Duration::from_secs(25);
/// How often a hint of the relay is followed.
pub const HINT_EVERY: Duration = Duration::from_secs(1);
/// When to bind again after a refusal that nothing but a change lifts.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// The shortest and the longest wait that a relay may ask for.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// The most events that wait. Beyond, the oldest is dropped: what is true now can be asked.
const MAX_EVENTS: usize = 8_192;

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The network's key.
    pub network: PublicKey,
    /// The relay's key.
    pub relay: PublicKey,
    /// The agent's key.
    pub identity: Arc<SecretKey>,
    /// An envelope of kind `membership`, which relays ask for that are not for everybody.
    pub membership: Option<Vec<u8>>,
    /// Where random numbers come from.
    pub seed: [u8; 32],
}

/// What the agent should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// We are bound, for the first time or once more.
    Bound(Bound),
    /// We are not bound any more.
    Lost,
    /// The relay does not bind us.
    Refused(Reason),
    /// There is a channel.
    Opened {
        /// Its number.
        channel: Channel,
        /// The other end, as the relay says.
        peer: PublicKey,
        /// Whether we asked for it.
        is_ours: bool,
    },
    /// A channel is gone.
    Closed {
        /// Its number.
        channel: Channel,
        /// The other end.
        peer: PublicKey,
    },
    /// A channel that we want is refused.
    OpenRefused {
        /// The agent to which we want it.
        peer: PublicKey,
        /// Why. If [`is_final`] says so, it is not asked for again without a newer permit.
        reason: Reason,
    },
}

/// A datagram that came through a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// The channel.
    pub channel: Channel,
    /// The other end, as the relay says. `None`: it has not said so yet.
    pub peer: Option<PublicKey>,
    /// The datagram inside.
    pub datagram: &'a [u8],
}

/// The error for something that cannot be asked of this relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWanted {
    /// The permit is for somebody else, a different relay or a different network.
    NotOurs,
    /// There is no room for one more.
    Full,
}

/// Whether a reason for a refused open stays until there is a newer permit.
pub fn is_final(reason: Reason) -> bool {
    !matches!(reason, Reason::NotHere | Reason::Full | Reason::TooOften | Reason::Unknown)
}

/// The client. See the module's text.
#[derive(Debug)]
pub struct Client {
    config: Config,
    rng: ChaCha8Rng,
    attempt: Attempt,
    session: Option<Session>,
    epoch: u64,
    lowest: u64,
    lowest_of: Vec<Lowest>,
    channels: Channels,
    /// When a hint was last followed.
    hinted: Option<Duration>,
    outputs: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    distrusted: u64,
}

/// A binding.
#[derive(Clone, Copy, Debug)]
struct Session {
    token: [u8; 8],
    /// When it was renewed last.
    bound: Duration,
    until: Duration,
}

impl Client {
    /// A client that is not bound yet, and begins at the first [`Self::handle_timeout`].
    pub fn new(config: Config) -> Self {
        Self {
            rng: ChaCha8Rng::from_seed(config.seed),
            config,
            attempt: Attempt::Resting { until: Duration::ZERO },
            session: None,
            epoch: 0,
            lowest: 0,
            lowest_of: Vec::new(),
            channels: Channels::default(),
            hinted: None,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            distrusted: 0,
        }
    }

    /// Takes in a datagram from the relay's address. Returns what is inside, if it is data.
    pub fn handle_datagram<'a>(&mut self, datagram: &'a [u8], now: Now) -> Option<Data<'a>> {
        match kind(datagram) {
            Kind::Data => {
                let (channel, inside) = open_data(datagram)?;
                let peer = self.channels.known(channel).map(|known| known.peer);
                return Some(Data { channel, peer, datagram: inside });
            }
            Kind::Control => match Reply::parse(datagram) {
                Ok(reply) => {
                    let is_believed = self.on_reply(reply, now);
                    self.distrusted += u64::from(!is_believed);
                    self.handle_timeout(now);
                }
                Err(_) => self.distrusted += 1,
            },
            Kind::Other => self.distrusted += 1,
        }
        None
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.session.is_some_and(|session| session.until <= now.monotonic) {
            self.session = None;
            self.tell(Event::Lost);
            self.lose_channels(now);
        }
        if self.attempt.due() <= now.monotonic {
            let fresh = self.fresh();
            let say = match self.attempt.on_due(fresh, now.monotonic) {
                Say::Hello(nonce) => Request::Hello { identity: self.config.identity.public(), nonce }.datagram(),
                Say::Bind(bind) => bind,
            };
            self.outputs.push_back(say);
        }
        if let Some(Session { token, .. }) = self.session {
            for (request, permit) in self.channels.opens(now.monotonic) {
                self.outputs.push_back(Request::Open { token, request, permit: &permit }.datagram());
            }
            for channel in self.channels.closes(now.monotonic) {
                self.outputs.push_back(Request::Close { channel, token }.datagram());
            }
        }
    }

    /// The next datagram for the relay.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outputs.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`] again, by the monotonic clock.
    pub fn poll_timeout(&self) -> Duration {
        let session = self.session.map(|session| session.until);
        let channels = self.session.and_then(|_| self.channels.due());
        [session, channels].into_iter().flatten().fold(self.attempt.due(), Duration::min)
    }

    /// Our own address may have changed: the relay has to know the new one.
    pub fn on_moved(&mut self, now: Now) {
        self.attempt.hurry(true, now.monotonic);
        self.handle_timeout(now);
    }

    /// Shows the relay this membership from now on.
    pub fn set_membership(&mut self, membership: Vec<u8>, now: Now) {
        self.config.membership = Some(membership);
        if self.session.is_none() {
            self.on_moved(now);
        }
    }

    /// Says which of our permits are still valid: those with at least this sequence, and for some subjects a higher one. The
    /// relay is told at once.
    ///
    /// # Errors
    /// The reason why a relay would refuse the bind. Nothing has changed then.
    pub fn set_lowest(&mut self, lowest: u64, of: Vec<Lowest>, now: Now) -> Result<(), Refused> {
        let old = (self.lowest, std::mem::take(&mut self.lowest_of));
        (self.lowest, self.lowest_of) = (lowest, of);
        if let Err(refused) = self.sign([0; 16], [0; 16], 1) {
            (self.lowest, self.lowest_of) = old;
            return Err(refused);
        }
        self.on_moved(now);
        Ok(())
    }

    /// Wants a channel to the agent that signed the permit, until [`Self::forget`] or [`Self::close`].
    ///
    /// # Errors
    /// See [`NotWanted`].
    pub fn open(&mut self, permit: Signed<RelayPermit>, now: Now) -> Result<(), NotWanted> {
        let Config { network, relay, identity, .. } = &self.config;
        if permit.network != *network || permit.relay != *relay || permit.subject != identity.public() {
            return Err(NotWanted::NotOurs);
        }
        let request = self.fresh();
        if !self.channels.want(permit, request, now.monotonic) {
            return Err(NotWanted::Full);
        }
        self.handle_timeout(now);
        Ok(())
    }

    /// Does not want a channel to this agent any more.
    pub fn forget(&mut self, peer: &PublicKey, now: Now) {
        if let Some(channel) = self.channels.forget(peer) {
            self.close(channel, now);
        }
    }

    /// This agent may be there now. A channel to it that was refused is asked for again.
    pub fn on_present(&mut self, peer: &PublicKey, now: Now) {
        self.channels.hurry(peer, now.monotonic);
        self.handle_timeout(now);
    }

    /// Closes a channel, ours or somebody else's.
    pub fn close(&mut self, channel: Channel, now: Now) {
        self.channels.close(channel, now.monotonic);
        self.handle_timeout(now);
    }

    /// Whether the relay has bound us.
    pub fn is_bound(&self) -> bool {
        self.session.is_some()
    }

    /// Whether the relay has not answered for a while: two seconds or more.
    pub fn is_silent(&self) -> bool {
        self.attempt.is_unanswered()
    }

    /// The channel that we opened to an agent.
    pub fn channel_to(&self, peer: &PublicKey) -> Option<Channel> {
        self.channels.to(peer)
    }

    /// How many datagrams answered nothing of ours.
    pub fn distrusted(&self) -> u64 {
        self.distrusted
    }

    /// Returns whether the reply is one that we wait for.
    fn on_reply(&mut self, reply: Reply, now: Now) -> bool {
        match reply {
            Reply::Challenge { nonce, cookie } if self.attempt.awaits_challenge(&nonce) => {
                self.on_challenge(nonce, cookie, now);
                true
            }
            Reply::Bound(bound) if self.attempt.awaits_bound(&bound.nonce) => {
                self.on_bound(bound, now);
                true
            }
            Reply::Refused { answers, reason, wait } if self.attempt.awaits_bound(&answers) => {
                let wait = if wait.is_zero() { REFUSED_FOR } else { wait.clamp(WAITS.0, WAITS.1) };
                self.attempt.rest(now.monotonic + wait);
                self.tell(Event::Refused(reason));
                true
            }
            Reply::Refused { answers, reason, wait } => {
                let wait = (!is_final(reason)).then(|| wait.clamp(WAITS.0, WAITS.1));
                let Some((peer, gone)) = self.channels.on_refused(&answers[8..], wait, now.monotonic) else {
                    return false;
                };
                if let Some(channel) = gone {
                    self.tell(Event::Closed { channel, peer });
                }
                self.tell(Event::OpenRefused { peer, reason });
                true
            }
            Reply::Opened { request, channel, peer, .. } => self.on_opened(&request, channel, peer),
            Reply::Unbound { echo } => self.on_unbound(echo, now),
            Reply::Challenge { .. } | Reply::Bound(_) => false,
        }
    }

    fn on_challenge(&mut self, nonce: [u8; 16], cookie: [u8; 16], now: Now) {
        self.epoch = now.unix.max(self.epoch + 1);
        match self.sign(nonce, cookie, self.epoch) {
            Ok(envelope) => {
                let identity = self.config.identity.public();
                let bind = Request::Bind { identity, nonce, cookie, envelope: envelope.bytes() }.datagram();
                self.outputs.push_back(bind.clone());
                self.attempt.on_challenged(bind, now.monotonic);
            }
            // The membership is not one. There may be a new one.
            Err(_) => {
                self.attempt.rest(now.monotonic + REFUSED_FOR);
                self.tell(Event::Refused(Reason::BadObject));
            }
        }
    }

    fn sign(&self, nonce: [u8; 16], cookie: [u8; 16], epoch: u64) -> Result<Signed<RelayBind>, Refused> {
        let Config { network, relay, identity, membership, .. } = &self.config;
        let bind = RelayBind {
            network: *network,
            relay: *relay,
            identity: identity.public(),
            nonce,
            cookie,
            epoch,
            lowest: self.lowest,
            lowest_of: self.lowest_of.clone(),
            membership: membership.clone(),
        };
        Signed::sign(bind, identity)
    }

    fn on_bound(&mut self, bound: Bound, now: Now) {
        let is_known = self.session.is_some_and(|session| session.token == bound.token);
        if self.session.is_some() && !is_known {
            // It had forgotten us.
            self.lose_channels(now);
        }
        let until = now.monotonic + bound.lifetime;
        self.session = Some(Session { token: bound.token, bound: now.monotonic, until });
        let early = Duration::from_millis(u64::from(self.rng.next_u32() % 2_000));
        let rest = (RENEW - early).min(bound.lifetime / 2).max(WAITS.0);
        self.attempt.rest(now.monotonic + rest);
        self.tell(Event::Bound(bound));
    }

    fn on_opened(&mut self, request: &[u8; 8], channel: Channel, peer: PublicKey) -> bool {
        if self.session.is_some_and(|session| session.token == *request) {
            if self.channels.on_noticed(peer, channel) {
                self.tell(Event::Opened { channel, peer, is_ours: false });
            }
            return true;
        }
        let Some((is_new, gone)) = self.channels.on_opened(request, peer, channel) else { return false };
        if let Some(channel) = gone {
            self.tell(Event::Closed { channel, peer });
        }
        if is_new {
            self.tell(Event::Opened { channel, peer, is_ours: true });
        }
        true
    }

    /// Something of ours was refused: data of a channel, an open, or a close.
    fn on_unbound(&mut self, echo: [u8; ECHO_LEN], now: Now) -> bool {
        let Some(Session { token, bound, .. }) = self.session else { return false };
        if let Some(channel) = closed(&echo) {
            return self.channels.on_closed(channel);
        }
        let channel = open_data(&echo).map(|(channel, _)| channel).filter(|it| self.channels.known(*it).is_some());
        let is_open = Request::Open { token, request: [0; 8], permit: &[] }.datagram()[..ECHO_LEN] == echo;
        if channel.is_none() && !is_open {
            return false;
        }
        if self.hinted.is_some_and(|at| now.monotonic < at + HINT_EVERY) {
            return true;
        }
        self.hinted = Some(now.monotonic);
        self.attempt.hurry(false, now.monotonic);
        if let Some(channel) = channel {
            let request = self.fresh();
            if let Some(peer) = self.channels.on_doubted(channel, request, bound, now.monotonic) {
                self.tell(Event::Closed { channel, peer });
            }
        }
        true
    }

    fn lose_channels(&mut self, now: Now) {
        let rng = &mut self.rng;
        let fresh = || random(rng);
        for (channel, peer) in self.channels.on_lost(fresh, now.monotonic) {
            self.tell(Event::Closed { channel, peer });
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn fresh<const N: usize>(&mut self) -> [u8; N] {
        random(&mut self.rng)
    }
}

fn random<const N: usize>(rng: &mut ChaCha8Rng) -> [u8; N] {
    let mut number = [0; N];
    rng.fill_bytes(&mut number);
    number
}

/// The channel of a close that begins with these bytes.
fn closed(echo: &[u8; ECHO_LEN]) -> Option<Channel> {
    let (head, number) = echo.split_first_chunk::<DATA_HEAD_LEN>()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    let channel = Channel::new(number)?;
    let close = Request::Close { channel, token: [0; 8] }.datagram();
    close.starts_with(head).then_some(channel)
}
