//! Agent mode: this host's identity, whom it trusts, and what it tells and learns through a rendezvous.
//!
//! `Agent` is a concern of `up`. It joins pure machines (the book of trust, the client of the rendezvous) with the
//! state folder and the connection. What follows for the data plane is a set of peers (`Agent::part`), which `up` applies
//! as it applies a config.
//!
//! Everything works from the state folder alone. The rendezvous is needed to meet new agents, and to learn that an old
//! one has moved.

mod answers;
mod attested;
mod beforehand;
mod candidates;
mod claims;
pub mod connection;
mod decided;
pub mod decisions_log;
mod directory;
mod events;
pub mod explain;
mod friends;
pub(crate) mod health;
mod informed;
pub mod init;
mod join;
mod lan;
mod letters;
mod link;
mod mailbox_keys;
mod meetings;
mod named;
mod outside;
mod own;
mod places;
mod plane;
mod post;
mod questions;
mod reached;
mod refusals;
mod relays;
pub mod request;
mod restored;
mod rotation;
mod shown;
mod standing;
pub(crate) mod state;
mod tell;
mod time;
mod token;
pub(crate) mod trust;
mod tunnels;
mod twin;
pub(crate) mod watchers;

pub(crate) use self::claims::Claims;
pub use self::init::init;
pub use self::join::bind;
pub use self::refusals::REFUSALS;
pub(crate) use self::refusals::Refusals;
pub use self::state::STATE_DIR;
pub use self::token::read as read_token;
pub(crate) use self::twin::KEY_CLONE;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use overlay_core::{Candidate, Nat};
use overlay_os::netlink::Netlink;
use overlay_rendezvous::client::Query;
use overlay_rendezvous::ledger::LedgerKeys;
use overlay_rendezvous::protocol::MAX_WATCHED;
use overlay_wire::signed::{Attestation, Endpoints, Network, PublicKey, Record, Signed};

use self::answers::Answer;
use self::beforehand::Beforehand;
use self::candidates::{Candidates, Host};
use self::decisions_log::DecisionLog;
pub(crate) use self::friends::FriendCounts;
use self::friends::Friends;
use self::informed::Informed;
use self::lan::Lan;
pub(crate) use self::lan::LanCounts;
pub(crate) use self::letters::Said;
use self::link::LinkNews;
use self::meetings::{At, Brought, Meetings};
use self::outside::Outside;
use self::post::Post;
use self::questions::{Asked, Held};
use self::reached::Pace;
use self::relays::Relays;
use self::restored::Past;
use self::rotation::Rotation;
use self::shown::Progress;
use self::state::{Keys, State};
use self::time::{HighWater, now};
use self::trust::{Book, Moment, Relation};
use self::twin::Twin;
use self::watchers::Watchers;
use crate::config;
use crate::failure::{ExitKind, Failure};

/// How often the addresses of this host are looked at.
const LOOK_AROUND: Duration = Duration::from_secs(30);

/// How far the wall clock may be behind the latest time without a warning, in milliseconds.
const BEHIND: u64 = 10 * 60 * 1_000;

/// A running agent.
pub(crate) struct Agent {
    config: config::Agent,
    state: State,
    keys: Keys,
    /// The join token that was bound to this agent.
    attestation: Option<Attestation>,
    post: Post,
    rotation: Rotation,
    book: Book,
    network: Option<Signed<Network>>,
    /// The newest record of ours.
    record: Signed<Record>,
    /// Whether no record of ours was on disk.
    is_record_lost: bool,
    meetings: Meetings,
    /// The questions that wait for a look-up, and the look-ups of each.
    asked: BTreeMap<u64, Asked>,
    queries: BTreeMap<(At, Query), u64>,
    /// Questions that wait until this agent is registered.
    held: Vec<Held>,
    /// What is answered once the data plane follows.
    answers: Vec<Answer>,
    started: tokio::time::Instant,
    twin: Twin,
    past: Past,
    /// Since when, and how often, each peer was returned its word.
    returned: BTreeMap<PublicKey, (tokio::time::Instant, u8)>,
    /// The agent about whose tags the rendezvous was asked last.
    confirmed_last: Option<PublicKey>,
    /// Names that resolved to addresses which only agents have.
    fake_answers: Vec<(String, IpAddr)>,
    /// Where peers can be reached, as they have said.
    endpoints: BTreeMap<PublicKey, Signed<Endpoints>>,
    /// Peers that have said so since the data plane was told.
    moved: BTreeSet<PublicKey>,
    /// What the kernel says of this host, and the port of the node's sockets.
    host: Host,
    port: u16,
    /// Where this host can be reached, and which peers were told.
    candidates: Candidates,
    outside: Outside,
    told: BTreeSet<PublicKey>,
    /// What each of them was told last.
    told_places: BTreeMap<PublicKey, Signed<Endpoints>>,
    /// Peers that were told our private addresses, because they share a public one.
    shared: BTreeSet<PublicKey>,
    /// What the node knows of it.
    told_to_node: (Vec<Candidate>, Nat),
    relays: Relays,
    /// The addresses of relays that the node knows.
    told_relays: Vec<SocketAddr>,
    /// Whether the relays know the peers.
    is_tended: bool,
    /// Peers that have our answer to their request.
    informed: Informed,
    friends: Friends,
    lan: Lan,
    /// What to say to peers through their tunnels.
    words: Vec<Said>,
    /// How far our latest request to each peer came.
    progress: BTreeMap<PublicKey, ([u8; 16], Progress)>,
    time: HighWater,
    /// When the next grant ends, in milliseconds since 1970.
    expires_at: Option<u64>,
    /// Why the last change is not on disk.
    unsaved: Option<Failure>,
    /// Peers whose tunnel is closed here, but not on disk yet.
    unwritten: BTreeSet<PublicKey>,
    /// What the data plane could not follow.
    owed: Changed,
    look_at: tokio::time::Instant,
    pace: Pace,
    refusals: Arc<Refusals>,
    log: DecisionLog,
    beforehand: Beforehand,
    watchers: Watchers,
}

/// What the agent waits for.
pub(crate) enum News {
    Link(At, LinkNews),
    /// Somebody has announced itself on a link of this host.
    Lan(lan::Heard),
    /// Something of a client, a grant or this host is due.
    Due,
}

/// What has changed for the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The set of peers, or what one of them may do.
    pub(crate) peers: bool,
    /// The virtual IPs.
    pub(crate) addresses: bool,
    /// Where peers can be reached.
    pub(crate) endpoints: bool,
}

impl Changed {
    pub(crate) fn is_any(self) -> bool {
        self.peers || self.addresses || self.endpoints
    }

    fn and(self, other: Self) -> Self {
        Self {
            peers: self.peers || other.peers,
            addresses: self.addresses || other.addresses,
            endpoints: self.endpoints || other.endpoints,
        }
    }
}

const NOTHING: Changed = Changed { peers: false, addresses: false, endpoints: false };
const PEERS: Changed = Changed { peers: true, ..NOTHING };
const ADDRESSES: Changed = Changed { addresses: true, ..NOTHING };
const ENDPOINTS: Changed = Changed { endpoints: true, ..NOTHING };

impl Agent {
    /// Reads the state of the agent that the config names.
    pub(crate) fn open(config: &config::Agent, state_dir: &Path) -> Result<Self, Failure> {
        let mut state = State::of(config, state_dir)?;
        state.lock()?;
        let keys = state.keys()?;
        let me = keys.identity.public();
        let attestation = own::attestation(&state, config, &me)?;
        let network = state.network()?.filter(|network| network.network == config.network_key);
        let stored = state.record()?;
        let before = stored.clone().filter(|record| record.identity == me && record.network == config.network_key);
        let (is_record_lost, ipv4) = (before.is_none(), before.as_ref().and_then(|record| record.ipv4));
        let (now, attested) = (now(), attestation.as_ref());
        // A new one at each start: see `twin`.
        let record = own::record(config, &keys, attested, stored.as_ref(), ipv4, now.unix)
            .map_err(|refused| Failure::new(ExitKind::Config, "[agent] makes no valid record").with_cause(refused))?;
        let relations = state.relations()?;
        let book = Book::new(config.network_key, own::copy(&keys.identity), own::tunnel_keys(&keys), relations);
        let endpoints = book.relations().filter_map(|relation| Some((relation.identity, relation.endpoints.clone()?)));
        let endpoints = endpoints.collect();
        let places = (config.network_key, network.as_deref());
        let mut meetings = Meetings::new(&config.rendezvous, places, own::copy(&keys.identity))?;
        meetings.set_memberships(state.memberships());
        let on_disk = before.map(|record| record.sequence);
        let past = Past::new(
            LedgerKeys::new(config.network_key, &keys.identity),
            (on_disk, state.registered()),
            state.is_restored(),
        );
        let time = HighWater::new(state.time()?, now);
        if time.read(now) > now.unix.saturating_add(BEHIND) {
            tracing::warn!(
                "the clock is behind the latest time that this agent has reached, which goes on ending grants: set the clock, or \
                 remove {} if that time was wrong",
                state.path().join(state::TIME).display()
            );
        }
        let (read, rotation, outside) = (state.keys()?, Rotation::open(&state, &keys), state.outside());
        let post = Post::new(config.network_key, me, read.mailbox, read.former_mailbox);
        let identity = own::copy(&keys.identity);
        let mut agent = Self {
            log: DecisionLog::open(state.path())?,
            beforehand: Beforehand::open(state.path())?,
            watchers: Watchers::new(book.relations(), Moment { wall: now.unix, latest: time.read(now) }),
            config: config.clone(),
            state,
            keys,
            attestation,
            post,
            rotation,
            book,
            network,
            record,
            is_record_lost,
            meetings,
            asked: BTreeMap::new(),
            queries: BTreeMap::new(),
            held: Vec::new(),
            answers: Vec::new(),
            started: tokio::time::Instant::now(),
            twin: Twin::default(),
            past,
            returned: BTreeMap::new(),
            confirmed_last: None,
            fake_answers: Vec::new(),
            endpoints,
            moved: BTreeSet::new(),
            host: Host::default(),
            port: 0,
            candidates: Candidates::default(),
            outside,
            shared: BTreeSet::new(),
            told_to_node: Default::default(),
            told: BTreeSet::new(),
            told_places: BTreeMap::new(),
            relays: Relays::new(config.network_key, own::copy(&identity)),
            told_relays: Vec::new(),
            is_tended: false,
            informed: Informed::default(),
            friends: Friends::default(),
            lan: Lan::default(),
            words: Vec::new(),
            progress: BTreeMap::new(),
            time,
            expires_at: None,
            unsaved: None,
            unwritten: BTreeSet::new(),
            owed: NOTHING,
            look_at: tokio::time::Instant::now(),
            pace: Pace::default(),
            refusals: Arc::default(),
        };
        agent.book.set_pool(agent.network.as_ref().map(|network| network.pool));
        // Letters wait until it is known how old this state is: see `restored`.
        if !agent.past.is_held() {
            agent.grant_pinned();
        }
        // There is no tunnel yet to say them in.
        agent.words.clear();
        agent.expires_at = agent.book.next_expiry(agent.moment());
        Ok(agent)
    }

    /// Takes what `reload` may change.
    pub(crate) fn on_config(&mut self, config: &config::Config) -> Changed {
        self.on_file_peers(&config.peers);
        if let Some(new) = &config.agent {
            self.config.allow.clone_from(&new.allow);
            self.config.auto_approve.clone_from(&new.auto_approve);
            self.config.trust.clone_from(&new.trust);
            let trusted: Vec<_> = new.trust.iter().map(|trust| trust.key).collect();
            self.watch(&trusted);
            for peer in trusted {
                let effects = self.book.lift_withdrawal(&peer);
                self.carry_out(effects);
            }
        }
        self.unsaved = None;
        let changed = if self.past.is_held() { NOTHING } else { self.grant_pinned() };
        self.settle(changed)
    }

    /// Watches the peers that we have a word for and those that the config trusts, as many as there is room for. Peers with a
    /// tunnel come first.
    fn watch_peers(&mut self) {
        let now = self.moment();
        let is_ours = |relation: &&Relation| !relation.is_stranger();
        let (open, closed): (Vec<_>, Vec<_>) =
            self.book.relations().filter(is_ours).partition(|relation| relation.is_open(now));
        let known = open.into_iter().chain(closed).map(|relation| relation.identity);
        let mut wanted: Vec<_> = known.chain(self.config.trust.iter().map(|trust| trust.key)).collect();
        if wanted.len() > MAX_WATCHED {
            tracing::warn!("there are {} peers: the rendezvous is asked about {MAX_WATCHED} of them", wanted.len());
            wanted.truncate(MAX_WATCHED);
        }
        self.watch(&wanted);
    }

    /// What the agent refused, for the metrics.
    pub(crate) fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Refuses state that was used on a different machine. With `adopt` it belongs to this one from now on.
    pub(crate) fn check_machine(&self, adopt: bool) -> Result<(), Failure> {
        self.state.check_machine(adopt)
    }

    /// The folder that the agent writes to.
    pub(crate) fn folder(&self) -> &Path {
        self.state.path()
    }

    /// Waits for news. Can be cancelled.
    pub(crate) async fn next(&mut self) -> News {
        let now = now();
        let due = self.meetings.deadline().min(self.relays.deadline());
        let due = due
            .min(self.friends.due(self.relays.can_tell(), now.monotonic).unwrap_or(Duration::MAX))
            .saturating_sub(now.monotonic);
        let expiry = self.expires_at.map_or(LOOK_AROUND, |at| {
            // A wall clock that is set is noticed after half a minute at the latest.
            Duration::from_millis(at.saturating_sub(self.moment().latest)).min(LOOK_AROUND)
        });
        let sooner = self
            .question_due()
            .into_iter()
            .chain(self.pace.due())
            .chain(self.rotation.due_at())
            .chain(self.past.due())
            .chain(self.informed.due());
        let look_at = sooner.fold(self.look_at, tokio::time::Instant::min);
        tokio::select! {
            (at, news) = self.meetings.next() => News::Link(at, news),
            heard = self.lan.next() => News::Lan(heard),
            () = tokio::time::sleep(due.min(expiry)) => News::Due,
            () = tokio::time::sleep_until(look_at) => News::Due,
        }
    }

    /// Handles news.
    pub(crate) async fn on_news(&mut self, news: News, netlink: &Netlink, port: u16) -> Changed {
        let now = now();
        let expired = self.end_expired();
        let (mut resolved, mut found) = (NOTHING, NOTHING);
        match news {
            News::Link(at, news) => match self.meetings.on_link(&at, news, now) {
                Brought::Nothing => {}
                Brought::Resolved(host, addresses) => resolved = self.on_resolved(&host, &addresses),
                Brought::Failed(error) => self.refusals.on_not_connected(&error),
            },
            News::Lan(heard) => found = self.on_announcement(&heard),
            News::Due => {}
        }
        let rotated = self.on_rotation_due();
        self.meetings.handle_timeout(now);
        let tended = self.tend_past().and(self.tend_informed());
        let mut changed = tended.and(self.drain()).and(rotated).and(resolved).and(found).and(expired);
        if self.look_at <= tokio::time::Instant::now() {
            self.look_at = tokio::time::Instant::now() + LOOK_AROUND;
            changed = changed.and(self.look_around(netlink, port).await);
            changed = changed.and(self.tend_tunnel_keys()).and(self.tend_mailbox()).and(self.confirm_waiting());
            changed = changed.and(std::mem::take(&mut self.owed));
            self.note_expired();
        }
        changed = changed.and(self.follow_late_endpoints());
        changed = changed.and(self.give_up_questions());
        self.pass_on_held();
        self.settle(changed)
    }

    /// The data plane could not follow what changed. It is told again with the next look around.
    pub(crate) fn on_not_followed(&mut self, changed: Changed) {
        self.owed = self.owed.and(changed);
    }

    /// Sends what follows from a change, and returns it with what else has changed.
    fn settle(&mut self, changed: Changed) -> Changed {
        self.log_automatic();
        self.expires_at = self.book.next_expiry(self.moment());
        if self.expires_at.is_some() && self.time.lags() {
            self.write_time();
        }
        let changed = changed.and(self.tend_relays(changed));
        self.tell_places();
        self.tend_friends();
        changed.and(self.drain())
    }

    /// Ends what has expired, before anything is decided by what is left.
    fn end_expired(&mut self) -> Changed {
        self.time.note(now());
        if self.expires_at.is_none_or(|at| at > self.time.reached()) {
            return NOTHING;
        }
        self.note_expired();
        self.write_time();
        self.expires_at = self.book.next_expiry(self.moment());
        PEERS
    }

    /// The time by both clocks, for the book.
    fn moment(&self) -> Moment {
        let now = now();
        Moment { wall: now.unix, latest: self.time.read(now) }
    }

    /// Writes the latest time, which ends grants after a reboot with a clock that is behind.
    fn write_time(&mut self) {
        let reached = self.time.reached();
        match self.state.set_time(reached) {
            Ok(()) => self.time.on_written(reached),
            Err(failure) => tracing::error!("{failure}"),
        }
    }

    /// Does what the clients want, until they want nothing.
    fn drain(&mut self) -> Changed {
        let mut changed = NOTHING;
        while let Some((at, event)) = self.meetings.next_event() {
            changed = changed.and(self.on_event(&at, event));
        }
        self.refusals.follow(self.meetings.clients());
        changed
    }
}

#[cfg(test)]
mod tests;
