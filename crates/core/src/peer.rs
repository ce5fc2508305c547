//! One peer: what it was configured with, what was learned of it, and what is due for it.
//!
//! Its life: *idle* until a packet wants out or persistent keepalive is set; *initiating*, one initiation every five
//! seconds; *connected* while a session is alive, with a new handshake every two minutes of traffic; *silent* while it does
//! not answer (`path/reach`), which calls it at all addresses that are known; after 90 s without an answer it is *given up*. What happens then depends on who wants it ([`Peer::next_attempt`]): traffic tries again
//! every five seconds, persistent keepalive alone backs off to 25 s, nobody leaves it idle.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use overlay_wire::wireguard::INITIATION_LEN;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use zeroize::Zeroizing;

use crate::context::Local;
use crate::data::allowlist::Allowlist;
use crate::data::reassembly::Reassembly;
use crate::data::session::{MAX_JITTER, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT, Session};
use crate::data::source_limit::Bucket;
use crate::data::staged::Staged;
use crate::news::News;
use crate::path::candidates::Candidates;
use crate::path::discovery::{Discovery, Way};
use crate::path::endpoint::Endpoint;
use crate::path::reach::Reach;
use crate::peers::PeerId;
use crate::timer::Armed;
use crate::{Instant, PeerKey, PeerStats, Via};

/// Persistent keepalive alone tries a silent peer this often at last.
const MAX_BACK_OFF: Duration = Duration::from_secs(25);

/// Of this many keys of our own replays are remembered.
const MAX_REMEMBERED: usize = 4;

/// The longest inner packet that needs no watch, in bytes: every IPv4 path carries 576 outside (RFC 791 section 3.1), and 60
/// of them are around it. All others may be lost in silence when a path falls, for nobody may fragment them.
const SMALL_PACKET: usize = 512;

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) key: PeerKey,
    pub(crate) preshared_key: Option<Zeroizing<[u8; 32]>>,
    pub(crate) endpoint: Option<Endpoint>,
    /// The addresses of its name; `None`: it is not reached by name, or nothing was resolved yet.
    pub(crate) candidates: Option<Box<Candidates>>,
    /// Whether it answers.
    pub(crate) reach: Reach,
    /// What this peer owns in the table of all peers.
    pub(crate) allowed_ips: BTreeSet<IpNet>,
    pub(crate) persistent_keepalive: Option<Duration>,
    /// Boxed: most peers of a large network have none, and it is a third of what a peer weighs.
    pub(crate) allowlist: Option<Box<Allowlist>>,
    /// Made by [`crate::Command::SetPeer`], from a file, and not in WireGuard's way: link-local sources are not covered by
    /// a shorter prefix.
    pub(crate) is_declared: bool,
    pub(crate) stats: Arc<PeerStats>,
    /// Made when first needed: a session is 11 KB.
    pub(crate) session: Option<Box<Session>>,
    /// The newest good initiations of sessions that were forgotten, one for each of our last keys: they are replays still
    /// when such a key comes back.
    remembered: Vec<[u8; INITIATION_LEN]>,
    /// No handshake is possible: we have no key, the peer's is of low order, or the interface is down.
    pub(crate) is_mute: bool,
    /// The upper 24 bits of its receiver indices, and those of sessions under preshared keys of before.
    pub(crate) index: u32,
    pub(crate) former_indices: Vec<u32>,
    /// The receiver index that the last data to it bore.
    pub(crate) peer_index: Option<u32>,
    /// How many responses to an initiation of ours are looked at while the node is under load.
    pub(crate) responses: Bucket,
    pub(crate) staged: Staged,
    /// Packets of the peer that came in pieces; made for the first one.
    pub(crate) reassembly: Option<Box<Reassembly>>,
    /// Whether its path is searched, and what is known of it since the first session.
    pub(crate) discovers: bool,
    pub(crate) discovery: Option<Box<Discovery>>,
    /// What control is to be told of it, and when.
    pub(crate) news: News,
    pub(crate) armed: Armed,
    /// When the last initiation was sent, and the last good one received.
    pub(crate) initiated: Option<Instant>,
    pub(crate) initiation_received: Option<Instant>,
    /// When a packet last wanted out and found no session.
    wanted: Option<Instant>,
    /// Initiations since anything was heard, while only persistent keepalive wants the peer.
    attempts: u32,
    /// When anything authenticated last went either way: persistent keepalive counts from here.
    traversed: Instant,
}

impl Peer {
    pub(crate) fn new(id: PeerId, key: PeerKey, index: u32, now: Instant) -> Self {
        Self {
            id,
            key,
            preshared_key: None,
            endpoint: None,
            candidates: None,
            reach: Reach::new(now),
            allowed_ips: BTreeSet::new(),
            persistent_keepalive: None,
            allowlist: None,
            is_declared: false,
            stats: Arc::default(),
            session: None,
            remembered: Vec::new(),
            is_mute: true,
            index,
            former_indices: Vec::new(),
            peer_index: None,
            responses: Bucket::FULL,
            staged: Staged::default(),
            reassembly: None,
            discovers: false,
            discovery: None,
            news: News::default(),
            armed: Armed::default(),
            initiated: None,
            initiation_received: None,
            wanted: None,
            attempts: 0,
            traversed: now,
        }
    }

    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_alive(now))
    }

    /// Whether its endpoint, or a candidate for it, has this address and port.
    pub(crate) fn may_be_at(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let is_there = |at: SocketAddr| at.ip() == ip && port.is_none_or(|port| at.port() == port);
        self.endpoint.is_some_and(|endpoint| is_there(endpoint.address))
            || self.candidates.as_ref().is_some_and(|candidates| candidates.iter().any(is_there))
    }

    /// How long packets to it may be.
    pub(crate) fn way(&self, local: &Local) -> Way {
        let discovery = self.discovery.as_ref();
        discovery.map_or(Way { mtu: local.mtu, is_proven: false, may_cut: false }, |discovery| discovery.way(local.mtu))
    }

    fn is_initiating(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_initiating())
    }

    /// Our own key is another one, or there is none, or the interface came up or went down.
    pub(crate) fn on_local_end(&mut self, can_speak: bool, now: Instant) {
        self.is_mute = !can_speak || self.key.is_low_order();
        if let Some(discovery) = &mut self.discovery {
            discovery.on_change();
        }
        self.forget_sessions(now);
        self.reach = Reach::new(now);
        if let Some(candidates) = &mut self.candidates {
            candidates.rest();
        }
        // The next handshake owes nothing to those of before.
        self.initiated = None;
        self.attempts = 0;
    }

    /// Our key changed, or nothing comes of the sessions any more: nothing is left of them but the memory of replays. What
    /// is staged waits for the next one.
    pub(crate) fn forget_sessions(&mut self, now: Instant) {
        if let Some(mut session) = self.session.take() {
            self.remembered.extend(session.take_newest_initiation().map(|initiation| *initiation));
            let surplus = self.remembered.len().saturating_sub(MAX_REMEMBERED);
            self.remembered.drain(..surplus);
        }
        if !self.staged.is_empty() {
            self.wanted = Some(now);
        }
    }

    /// A session that begins now takes over what there is to remember under our present key.
    pub(crate) fn remind(&mut self, session: &mut Session, now: Instant) {
        self.remembered.retain(|initiation| !session.remember(initiation, now));
    }

    /// A packet wanted out and there was no session. Whoever was called at leisure so far is called in earnest.
    pub(crate) fn on_wanted(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.wanted = Some(now);
        self.hasten(rng);
    }

    /// No packet wants out any more.
    pub(crate) fn on_unwanted(&mut self) {
        self.wanted = None;
    }

    /// It is to be reached here from now on, until it is heard from somewhere else.
    pub(crate) fn set_endpoint(&mut self, address: SocketAddr, rng: &mut ChaCha8Rng) {
        self.endpoint = Some(Endpoint::configured(address));
        self.hasten(rng);
    }

    /// Our timestamps are other ones from now on: calls begin anew.
    pub(crate) fn on_wall_clock_set(&mut self, rng: &mut ChaCha8Rng) {
        self.attempts = 0;
        self.hasten(rng);
    }

    /// There is a better reason to call the peer than there was when the last initiation was sent.
    fn hasten(&mut self, rng: &mut ChaCha8Rng) {
        if let Some(session) = &mut self.session {
            session.hasten(REKEY_TIMEOUT + jitter(rng));
        }
    }

    /// An initiation went unanswered: the local address it left from may be gone, so the kernel chooses again.
    pub(crate) fn on_silence(&mut self) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.via = Via::ANY;
        }
    }

    /// Whether the next initiation repeats one that was not answered.
    pub(crate) fn is_silent(&self) -> bool {
        self.attempts > 0
    }

    /// A packet `len` bytes long, or in segments as long, goes to the peer.
    pub(crate) fn on_large(&mut self, packet: &[u8], len: usize, now: Instant) {
        if len > SMALL_PACKET
            && let Some(discovery) = &mut self.discovery
        {
            discovery.on_large_sent(packet, len, now);
        }
    }

    /// Data or a response was sent, which the peer has to answer in time.
    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        self.reach.on_owed(now);
        self.on_sent(now);
    }

    /// A data message for the peer was made.
    pub(crate) fn on_sealed(&mut self, message: &[u8]) {
        self.peer_index = message.get(4..8).and_then(|index| Some(u32::from_le_bytes(index.try_into().ok()?)));
    }

    /// Something was sent inside a session.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.traversed = now;
    }

    /// The peer called: it is there, but perhaps does not hear us.
    pub(crate) fn on_called(&mut self, now: Instant) {
        self.traversed = now;
        self.attempts = 0;
        if let Some(candidates) = &mut self.candidates {
            candidates.on_called();
        }
    }

    /// Something was authenticated: the peer is there. True: it was silent before.
    pub(crate) fn on_authenticated(&mut self, now: Instant) -> bool {
        self.traversed = now;
        self.attempts = 0;
        if let Some(candidates) = &mut self.candidates {
            candidates.on_heard();
        }
        self.reach.on_heard(now)
    }

    pub(crate) fn on_initiated(&mut self, now: Instant) {
        self.initiated = Some(now);
        self.attempts = self.attempts.saturating_add(1);
        self.reach.on_owed(now);
    }

    /// A session is there: what waited for it no longer does.
    pub(crate) fn on_connected(&mut self) {
        self.wanted = None;
        self.attempts = 0;
        self.reach.on_connected();
        if let Some(candidates) = &mut self.candidates {
            candidates.on_connected();
        }
    }

    /// When the next initiation may be sent for a peer that has no session and none under way, or one that is kept alive and
    /// silent. `None`: nobody wants it, or it has no endpoint, or no handshake is possible.
    pub(crate) fn next_attempt(&self, now: Instant) -> Option<Instant> {
        self.next_attempt_if(self.is_alive(now), now)
    }

    fn next_attempt_if(&self, is_alive: bool, now: Instant) -> Option<Instant> {
        self.endpoint?;
        let is_lost = self.is_lost(now);
        if self.is_mute || is_alive && !is_lost || self.is_initiating() {
            return None;
        }
        let earliest = |pause| self.initiated.map_or(now, |at| at + pause);
        if self.is_wanted_by_traffic(now) || is_lost && self.persistent_keepalive.is_none() {
            Some(earliest(REKEY_TIMEOUT))
        } else {
            self.persistent_keepalive.map(|_| earliest(self.back_off()))
        }
    }

    /// Whether the peer is silent and wanted, and its session will not call it by itself now or in a moment.
    fn is_lost(&self, now: Instant) -> bool {
        let Some(session) = self.session.as_ref().filter(|_| self.reach.is_silent()) else { return false };
        let is_wanted = self.persistent_keepalive.is_some() || session.is_owed_answer();
        is_wanted && !session.will_call_by(now + MAX_JITTER)
    }

    /// When an empty packet has to be sent to keep mappings and session alive.
    pub(crate) fn keepalive_due(&self, now: Instant) -> Option<Instant> {
        let interval = self.persistent_keepalive?;
        self.is_alive(now).then(|| self.traversed + interval)
    }

    /// Whether it is silent from now on.
    pub(crate) fn falls_silent(&self, now: Instant) -> bool {
        self.reach.may_be_silent(now) && self.reach.silent_at(self.is_alive(now)).is_some_and(|at| at <= now)
    }

    /// When it is to be asked whether it is there: a peer that is kept alive, where its name may have another answer.
    pub(crate) fn ask_at(&self, now: Instant) -> Option<Instant> {
        let keepalive = self.persistent_keepalive?;
        let is_named = self.candidates.as_ref().is_some_and(|candidates| !candidates.is_empty());
        let is_asked = is_named && self.is_alive(now);
        if is_asked { self.reach.ask_at(keepalive) } else { None }
    }

    /// How long to wait, and jitter more, for the answer to an initiation sent now.
    pub(crate) fn pause(&self, now: Instant) -> Duration {
        let kept_only = self.persistent_keepalive.is_some() && !self.is_wanted_by_traffic(now);
        if kept_only && !self.is_alive(now) { self.back_off() } else { REKEY_TIMEOUT }
    }

    /// The earliest moment at which something is due.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        // Asked after every train, and most of these are nothing.
        let is_alive = self.is_alive(now);
        let mut next = self.session.as_ref().and_then(|session| session.deadline());
        let mut consider = |at: Option<Instant>| {
            if let Some(at) = at
                && next.is_none_or(|next| at < next)
            {
                next = Some(at);
            }
        };
        consider(self.reach.silent_at(is_alive));
        consider(self.next_attempt_if(is_alive, now));
        consider(self.news.deadline());
        if let Some(candidates) = &self.candidates {
            consider(candidates.deadline());
        }
        if is_alive && let Some(interval) = self.persistent_keepalive {
            consider(Some(self.traversed + interval));
            consider(self.ask_at(now));
        }
        if is_alive && let Some(discovery) = &self.discovery {
            consider(discovery.deadline());
        }
        next
    }

    /// Whether a packet asked for the peer lately, and found no session.
    pub(crate) fn is_wanted_by_traffic(&self, now: Instant) -> bool {
        self.wanted.is_some_and(|at| now.since(at) < REKEY_ATTEMPT_TIME)
    }

    /// Five seconds for the first 90 s, then five more each time, 25 s at last.
    fn back_off(&self) -> Duration {
        let quick = (REKEY_ATTEMPT_TIME.as_secs() / REKEY_TIMEOUT.as_secs()) as u32;
        (REKEY_TIMEOUT * (1 + self.attempts.saturating_sub(quick).min(4))).min(MAX_BACK_OFF)
    }
}

/// What spreads repetitions.
pub(crate) fn jitter(rng: &mut ChaCha8Rng) -> Duration {
    Duration::from_millis(u64::from(rng.next_u32()) % (MAX_JITTER.as_millis() as u64 + 1))
}
