//! The client: an agent's side of one rendezvous.
//!
//! The agent says what it wants once: its record, whom it watches, what it keeps for others, what it sends. The client
//! gets it there, over as many connections as it takes. After each connection it says hello, registers, watches in
//! chunks, and repeats whatever was not acknowledged, with the same ids. Then it pings.
//!
//! ```text
//! waiting --time--> connecting --connected--> up --lost, silent, told to reconnect--> waiting
//! ```
//!
//! * The first connection is made at once. Later ones are spread over [`RECONNECT`], because all clients of a rendezvous
//!   that restarts lose it together. If it has several addresses of one kind, a different process probably serves at one of them, and the
//!   time is shorter: [`ELSEWHERE`].
//! * Silence is judged by answers to pings alone. A connection on which nothing comes for [`SILENCE`] is given up, even if
//!   the kernel calls it alive. The next one is made at once.
//! * A call that is refused for now is repeated when the rendezvous said so. So is a watch, a slot or an entry for which
//!   there was no room, after at least half a minute. A call that is refused for good becomes an [`Event::Refused`].
//! * A record that is refused is registered again after half a minute, and then ever more rarely: somebody may lift a ban, or
//!   set a clock right.
//! * [`Event::Synced`] is not told while a watch stands refused: nothing is known of that agent.
//!
//! Every wait that a rendezvous asks for has a lower and an upper bound, and so has what is repeated because of its
//! answers: it cannot make the client call without pause.
//!
//! Nothing is believed because the rendezvous says so: records are opened, compared with what was asked, and dropped if
//! the agent does not watch them. Whether a record is newer than one that is pinned is decided where it is used.
//!
//! Left out: sockets, channels, and what the sealed bytes mean.

mod answers;
mod asked;
mod distrust;
mod event;
mod pushes;
#[cfg(test)]
mod tests;
mod work;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use overlay_wire::signed::{PublicKey, Record, Signed};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::now::Now;
use crate::protocol::{
    Call, ENTRIES_SINCE, FILTERS_SINCE, Find, FromServer, Label, MAX_ENTRY_LEN, MAX_MESSAGE_LEN, MAX_SEALED_LEN,
    MAX_SLOT_LEN, MEMBERSHIP_SINCE, Slot, Verb, encode,
};

use asked::{Asked, Outstanding};
use distrust::Distrusted;
use work::{Can, Class, Work};

pub use event::{Event, Output, Query, Subject, TooMuch};
pub use work::{Outgoing, Task};

/// How often a connection is pinged.
pub const PING: Duration = Duration::from_secs(15);
/// A connection without an answer to a ping for this long is given up: two pings went unanswered.
pub const SILENCE: Duration = Duration::from_secs(35);
/// The shortest and the longest time until the next connection.
pub const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The same, for a rendezvous with several addresses of one kind.
pub const ELSEWHERE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// How long a connection may take to come about.
const CONNECTING: Duration = Duration::from_secs(30);
/// The longest wait that a rendezvous may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The most calls without an answer, beside pings.
const MAX_OUTSTANDING: usize = 32;

/// The client. See the module's text.
#[derive(Debug)]
pub struct Client {
    network: PublicKey,
    identity: PublicKey,
    rng: ChaCha8Rng,
    /// Whether different processes probably serve at different addresses.
    has_several: bool,
    state: State,
    work: Work,
    /// Whether what is said to others, and what is kept, may be written: see [`Client::hold_writes`].
    may_write: bool,
    outputs: VecDeque<Output>,
    /// What did not match what was asked for, or could not be opened.
    distrusted: Distrusted,
}

#[derive(Debug)]
enum State {
    Waiting { until: Duration },
    Connecting { since: Duration },
    Up(Session),
}

/// One connection.
#[derive(Debug)]
struct Session {
    outstanding: Outstanding,
    /// The version of the protocol.
    version: u16,
    /// Whether the rendezvous has said welcome.
    is_welcome: bool,
    /// Whether it has a record of ours.
    is_registered: bool,
    /// How often the record had to be registered once more.
    unregistered: u32,
    /// Whether all that is watched has been told once.
    is_synced: bool,
    /// When to say hello again, if the rendezvous refused it for now.
    next_hello: Option<Duration>,
    /// When to register again, if the rendezvous refused the record, and how often it has.
    next_register: Option<Duration>,
    refused_records: u32,
    next_ping: Duration,
    /// When the last answer to a ping came, or else the connection.
    heard: Duration,
    /// Until when calls of each class are held back.
    held: [Duration; Class::COUNT],
}

impl Client {
    /// A client that connects with its first [`Client::handle_timeout`].
    pub fn new(network: PublicKey, identity: PublicKey, seed: [u8; 32]) -> Self {
        Self {
            network,
            identity,
            rng: ChaCha8Rng::from_seed(seed),
            has_several: false,
            state: State::Waiting { until: Duration::ZERO },
            work: Work::default(),
            may_write: true,
            outputs: VecDeque::new(),
            distrusted: Distrusted::default(),
        }
    }

    /// The connection that was asked for is up: TLS, WebSocket and the channel inside, in which both ends speak this version.
    pub fn connected(&mut self, version: u16, now: Now) {
        let State::Connecting { .. } = self.state else {
            // It was given up meanwhile.
            return self.outputs.push_back(Output::Disconnect);
        };
        let mut session = Session {
            outstanding: Outstanding::default(),
            version,
            is_welcome: false,
            is_registered: false,
            unregistered: 0,
            is_synced: false,
            next_hello: None,
            next_register: None,
            refused_records: 0,
            next_ping: now.monotonic + PING,
            heard: now.monotonic,
            held: [Duration::ZERO; Class::COUNT],
        };
        self.outputs.push_back(Output::Send(session.call(Asked::Hello, Verb::Hello, now)));
        self.state = State::Up(session);
    }

    /// A message came.
    pub fn received(&mut self, message: FromServer, now: Now) {
        let State::Up(_) = self.state else { return };
        match message {
            FromServer::Answer(answer) => self.on_answer(answer.id, answer.reply, now),
            FromServer::Push(push) => self.on_push(push, now),
        }
        self.pump(now);
    }

    /// The connection has ended, or did not come about.
    pub fn lost(&mut self, now: Now) {
        // The time of the next connection is set already, perhaps by the rendezvous.
        if let State::Waiting { .. } = self.state {
            return;
        }
        let wait = self.spread();
        self.go_offline(now.monotonic + wait);
    }

    /// The rendezvous was looked up.
    pub fn on_resolved(&mut self, addresses: &[SocketAddr]) {
        // One host often has an address of each kind.
        let count = |is_v4| addresses.iter().filter(|address| address.is_ipv4() == is_v4).count();
        self.has_several = count(true) > 1 || count(false) > 1;
    }

    /// The host has a new address or a new way out, so the connection is probably dead: connects again at once.
    pub fn on_network_changed(&mut self, now: Now) {
        self.disconnect(now.monotonic);
        self.handle_timeout(now);
    }

    /// This process was copied while it ran, so somebody else may have the connection, too: connects again at once. `seed` is
    /// new randomness.
    pub fn renew(&mut self, seed: [u8; 32], now: Now) {
        self.rng = ChaCha8Rng::from_seed(seed);
        self.on_network_changed(now);
    }

    /// The time that [`Client::deadline`] named has come.
    pub fn handle_timeout(&mut self, now: Now) {
        match &mut self.state {
            State::Waiting { until } if *until <= now.monotonic => {
                self.state = State::Connecting { since: now.monotonic };
                self.outputs.push_back(Output::Connect);
            }
            State::Waiting { .. } => {}
            State::Connecting { since } if *since + CONNECTING <= now.monotonic => self.give_up(now),
            State::Connecting { .. } => {}
            // Others have given theirs up at other times, as they have pinged at other times.
            State::Up(session) if session.heard + SILENCE <= now.monotonic => self.on_network_changed(now),
            State::Up(session) => {
                if session.next_ping <= now.monotonic {
                    session.next_ping = now.monotonic + PING;
                    let ping = session.call(Asked::Ping, Verb::Ping, now);
                    self.outputs.push_back(Output::Send(ping));
                }
                if session.next_hello.is_some_and(|at| at <= now.monotonic) {
                    session.next_hello = None;
                    let hello = session.call(Asked::Hello, Verb::Hello, now);
                    self.outputs.push_back(Output::Send(hello));
                }
                if session.next_register.is_some_and(|at| at <= now.monotonic) {
                    session.next_register = None;
                    self.work.register_again();
                }
                self.pump(now);
            }
        }
    }

    /// When [`Client::handle_timeout`] is wanted, by the monotonic clock.
    pub fn deadline(&self) -> Duration {
        match &self.state {
            State::Waiting { until } => *until,
            State::Connecting { since } => *since + CONNECTING,
            State::Up(session) => {
                let held = Class::ALL
                    .into_iter()
                    .filter(|class| {
                        session.is_ready() && self.work.first(*class, session.can(self.may_write)).is_some()
                    })
                    .map(|class| session.held[class as usize]);
                let held = held.filter(|until| !until.is_zero());
                let later = held.chain(session.next_hello).chain(session.next_register);
                later.fold(session.next_ping.min(session.heard + SILENCE), Duration::min)
            }
        }
    }

    /// Letters, slots and entries wait from now on: an agent whose state may be an old one must not replace its newer words.
    pub fn hold_writes(&mut self) {
        self.may_write = false;
    }

    /// Letters, slots and entries are written again.
    pub fn let_write(&mut self, now: Now) {
        self.may_write = true;
        self.pump(now);
    }

    /// The next thing to do, or to know.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Replaces the agent's record, which is registered now and after each connection.
    pub fn set_record(&mut self, record: Signed<Record>, now: Now) {
        self.work.set_record(record);
        self.pump(now);
    }

    /// Gives up the agent's name, with an envelope of kind `release`. The record is not registered any more.
    pub fn release(&mut self, release: Vec<u8>, now: Now) {
        self.work.set_release(release);
        self.pump(now);
    }

    /// Looks for records. The answer is an [`Event::Found`] with the same number.
    ///
    /// # Errors
    /// It is too long, or too many queries wait.
    pub fn find(&mut self, by: Find, after: Option<PublicKey>, now: Now) -> Result<Query, TooMuch> {
        check_len(Verb::Find { by: by.clone(), after })?;
        let query = self.work.add_find(by, after)?;
        self.pump(now);
        Ok(query)
    }

    /// Sends a message until the rendezvous has kept it.
    ///
    /// # Errors
    /// It is too long, or too many messages wait.
    pub fn send(&mut self, to: PublicKey, id: [u8; 16], outgoing: Outgoing, now: Now) -> Result<(), TooMuch> {
        if outgoing.sealed.len() > MAX_SEALED_LEN {
            return Err(TooMuch);
        }
        let (sealed, permit) = (outgoing.sealed.clone().into(), outgoing.permit.clone().map(Into::into));
        check_len(Verb::Send { to, message: id, sealed, permit })?;
        self.work.add_send(to, id, outgoing)?;
        self.pump(now);
        Ok(())
    }

    /// Replaces what the agent keeps for one other agent, now and after each connection.
    ///
    /// # Errors
    /// It is too long, or there are too many slots.
    pub fn put_slot(&mut self, to: PublicKey, slot: Slot, sealed: Vec<u8>, now: Now) -> Result<(), TooMuch> {
        if sealed.len() > MAX_SLOT_LEN {
            return Err(TooMuch);
        }
        self.work.put_slot(to, slot, sealed)?;
        self.pump(now);
        Ok(())
    }

    /// Ends keeping anything for one other agent. What the rendezvous has stays until the other agent leaves.
    pub fn forget_slots(&mut self, to: &PublicKey) {
        self.work.forget_slots(to);
    }

    /// Replaces what the agent keeps for itself under a label, now and after each connection to a rendezvous that keeps it.
    /// `is_kept`: this one holds these bytes already. Returns whether it replaces a different entry.
    ///
    /// # Errors
    /// It is too long, or there are too many entries.
    pub fn put_entry(&mut self, label: Label, sealed: Vec<u8>, is_kept: bool, now: Now) -> Result<bool, TooMuch> {
        if sealed.len() > MAX_ENTRY_LEN {
            return Err(TooMuch);
        }
        let is_replaced = self.work.put_entry(label, sealed, is_kept)?;
        self.pump(now);
        Ok(is_replaced)
    }

    /// Asks for what the agent keeps for itself, page by page. The answer is an [`Event::Entries`], or an
    /// [`Event::Refused`]. A rendezvous that keeps nothing ([`Event::Online`]) is not asked.
    pub fn read_entries(&mut self, after: Option<Label>, now: Now) {
        self.work.read_entries(after);
        self.pump(now);
    }

    /// Whether a question for entries was not answered yet.
    pub fn is_reading(&self) -> bool {
        self.work.reading().is_some()
    }

    /// Asks for proof that the agent is a member, once it is registered. The answer is an [`Event::Membership`], or an
    /// [`Event::Refused`]. `rendezvous` is the key of this rendezvous, which signs it. One that does not vouch for its
    /// members, as the release before this one, does not answer.
    pub fn ask_membership(&mut self, rendezvous: PublicKey, now: Now) {
        self.work.ask_membership(rendezvous);
        self.pump(now);
    }

    /// Watches these agents, too.
    ///
    /// # Errors
    /// They would be too many. None of them is watched then.
    pub fn watch(&mut self, identities: &[PublicKey], now: Now) -> Result<(), TooMuch> {
        self.work.watch(identities)?;
        self.pump(now);
        Ok(())
    }

    /// Watches these agents no longer.
    pub fn unwatch(&mut self, identities: &[PublicKey], now: Now) {
        self.work.unwatch(identities);
        self.pump(now);
    }

    /// Says that a message has arrived and is safe, so the rendezvous deletes it.
    ///
    /// # Errors
    /// Too many acknowledgements wait. The message comes again with the next connection.
    pub fn acknowledge(&mut self, from: PublicKey, id: [u8; 16], now: Now) -> Result<(), TooMuch> {
        self.work.acknowledge(from, id)?;
        self.pump(now);
        Ok(())
    }

    /// Whether the rendezvous has said welcome on the connection that is up.
    pub fn is_online(&self) -> bool {
        matches!(&self.state, State::Up(session) if session.is_welcome)
    }

    /// How long a call has waited for its answer on the connection that is up, pings and greetings left aside.
    pub fn waits(&self, now: Now) -> Option<Duration> {
        let State::Up(session) = &self.state else { return None };
        session.outstanding.since().map(|since| now.monotonic.saturating_sub(since))
    }

    /// Sends what can be sent now.
    fn pump(&mut self, now: Now) {
        let State::Up(session) = &mut self.state else { return };
        for class in Class::ALL {
            if session.held[class as usize] > now.monotonic {
                continue;
            }
            session.held[class as usize] = Duration::ZERO;
            while session.is_ready() && !(class == Class::Watch && session.outstanding.is_watching()) {
                let Some((tasks, verb)) = self.work.take(class, session.can(self.may_write)) else { break };
                self.outputs.push_back(Output::Send(session.call(Asked::Tasks(tasks), verb, now)));
            }
        }
        let is_told =
            !session.outstanding.is_watching() && !self.work.wants(Class::Watch) && !self.work.is_watch_refused();
        let is_done = session.is_registered && is_told;
        if is_done && !std::mem::replace(&mut session.is_synced, true) {
            self.outputs.push_back(Output::Event(Event::Synced));
        }
    }

    /// Gives up a connection that is silent, did not come about, or does not keep to the protocol.
    fn give_up(&mut self, now: Now) {
        let wait = self.spread();
        self.disconnect(now.monotonic + wait);
    }

    fn disconnect(&mut self, until: Duration) {
        if !matches!(self.state, State::Waiting { .. }) {
            self.outputs.push_back(Output::Disconnect);
        }
        self.go_offline(until);
    }

    fn go_offline(&mut self, until: Duration) {
        if self.is_online() {
            self.outputs.push_back(Output::Event(Event::Offline));
        }
        self.state = State::Waiting { until };
        self.work.on_connection_lost();
    }

    fn spread(&mut self) -> Duration {
        let (shortest, longest) = if self.has_several { ELSEWHERE } else { RECONNECT };
        let range = (longest - shortest).as_millis() as u64 + 1;
        shortest + Duration::from_millis(self.rng.next_u64() % range)
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// Whether a call can be sealed. One that cannot would end this connection, and each one after it.
fn check_len(verb: Verb) -> Result<(), TooMuch> {
    let call = Call { id: u32::MAX, verb };
    if encode(&call).len() <= MAX_MESSAGE_LEN { Ok(()) } else { Err(TooMuch) }
}

impl Session {
    fn call(&mut self, asked: Asked, verb: Verb, now: Now) -> Call {
        Call { id: self.outstanding.add(asked, now.monotonic), verb }
    }

    /// Holds calls of a class back until then.
    fn hold(&mut self, class: Class, until: Duration) {
        let held = &mut self.held[class as usize];
        *held = (*held).max(until);
    }

    /// What can be done on this connection.
    fn can(&self, may_write: bool) -> Can {
        Can {
            is_registered: self.is_registered,
            may_write,
            keeps_entries: self.keeps_entries(),
            vouches: self.version >= MEMBERSHIP_SINCE,
            filters: self.version >= FILTERS_SINCE,
        }
    }

    /// Whether the rendezvous keeps what an agent keeps for itself. The release before this one did not.
    fn keeps_entries(&self) -> bool {
        self.version >= ENTRIES_SINCE
    }

    /// Whether one more call may be made.
    fn is_ready(&self) -> bool {
        self.is_welcome && self.outstanding.len() < MAX_OUTSTANDING
    }
}
