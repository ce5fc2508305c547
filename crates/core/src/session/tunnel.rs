//! The tunnel to one peer: its keys, its sessions, its receiver indices, and when it is called.
//!
//! Its life: *idle* until a packet needs a session or persistent keepalive is set; *initiating*, one initiation every five
//! seconds; *connected* while a session is alive, with a new handshake every two minutes of traffic; *given up* after 90 s
//! without an answer. What happens then depends on why the peer is wanted. Traffic tries again every five seconds.
//! Persistent keepalive alone backs off to 25 s. Without either, the tunnel is idle.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::bucket::Bucket;
use crate::session::indices::Receivers;
use crate::session::preshared::PresharedKeys;
use crate::session::replays::Replays;
use crate::session::seam::Session;
use crate::session::timers::{MAX_JITTER, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT};
use crate::{Instant, PeerKey};

/// The longest interval between attempts to reach a silent peer that only persistent keepalive wants.
const MAX_BACK_OFF: Duration = Duration::from_secs(25);

pub(crate) struct Tunnel {
    /// The peer's public key.
    pub(crate) key: PeerKey,
    pub(crate) preshared: PresharedKeys,
    /// Which of our keys the session speaks as: the one that the peer last called, or the present one.
    pub(crate) own_key: Option<PeerKey>,
    /// Whether the peer has proved that it knows our present key. Noted while former keys are answered, too.
    pub(crate) knows_present_key: bool,
    pub(crate) persistent_keepalive: Option<Duration>,
    /// Whether the peer is reached at any time through a relay, so that persistent keepalive has no purpose.
    pub(crate) is_relayed: bool,
    /// Made when first needed, because a session takes 11 KB.
    pub(crate) session: Option<Box<Session>>,
    /// The replay state of forgotten sessions.
    pub(crate) remembered: Replays,
    /// Whether no handshake is possible, because we have no key, the peer's key is of low order, or the interface is down.
    pub(crate) is_mute: bool,
    pub(crate) receivers: Receivers,
    /// The receiver index in the last data message to the peer.
    pub(crate) peer_index: Option<u32>,
    /// Limits how many responses to an initiation of ours are examined while the node is under load.
    pub(crate) responses: Bucket,
    /// When the last initiation was sent, and when the last valid one was received.
    pub(crate) initiated: Option<Instant>,
    pub(crate) initiation_received: Option<Instant>,
    /// When a packet last needed a session and there was not one.
    wanted: Option<Instant>,
    /// The number of initiations since the peer was last heard, while only persistent keepalive wants it.
    attempts: u32,
    /// When an authenticated message last went either way. Persistent keepalive counts from here.
    traversed: Instant,
}

impl Tunnel {
    pub(crate) fn new(key: PeerKey, receivers: Receivers, now: Instant) -> Self {
        Self {
            key,
            preshared: PresharedKeys::default(),
            own_key: None,
            knows_present_key: false,
            persistent_keepalive: None,
            is_relayed: false,
            session: None,
            remembered: Replays::default(),
            is_mute: true,
            receivers,
            peer_index: None,
            responses: Bucket::FULL,
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

    pub(crate) fn is_initiating(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_initiating())
    }

    /// Handles a change of our own key, including its removal, and the interface coming up or going down.
    pub(crate) fn on_local_end(&mut self, can_speak: bool, has_staged: bool, now: Instant) {
        self.is_mute = !can_speak || self.key.is_low_order();
        self.forget_sessions(has_staged, now);
        // The next handshake need not wait for the earlier ones.
        self.initiated = None;
        self.attempts = 0;
    }

    /// Forgets the sessions, because the key of ours that they use is no longer answered or because they can no longer be
    /// used. Only the replay state is kept. `has_staged`: packets wait for the next session.
    pub(crate) fn forget_sessions(&mut self, has_staged: bool, now: Instant) {
        self.set_replays_aside();
        self.session = None;
        if has_staged {
            self.wanted = Some(now);
        }
    }

    /// Handles a change of the peer's key. `remembered` is the replay state of the new key. Returns that of the former one:
    /// its initiations are replays if it comes back. The sessions stay, but the caller ends them or renews the engine.
    pub(crate) fn on_key_changed(&mut self, remembered: Replays) -> Replays {
        self.set_replays_aside();
        self.initiation_received = None;
        std::mem::replace(&mut self.remembered, remembered)
    }

    /// Saves the replay state when the session is about to speak as a different key of ours.
    pub(crate) fn set_replays_aside(&mut self) {
        let newest = self.session.as_mut().and_then(|session| session.take_newest_initiation());
        self.remembered.add(newest.map(|initiation| *initiation));
    }

    /// All replay state, also that of the present session.
    pub(crate) fn replays(&self) -> Replays {
        let mut replays = self.remembered.clone();
        replays.add(self.session.as_ref().and_then(|session| session.newest_initiation().copied()));
        replays
    }

    /// Gives a session on trial the replay state of its key of ours.
    pub(crate) fn tell_replays(&self, trial: &mut Session, now: Instant) {
        for initiation in self.remembered.iter() {
            trial.remember(initiation, now);
        }
    }

    /// Moves the replay state of its key of ours to a session that begins now.
    pub(crate) fn remind(&mut self, session: &mut Session, now: Instant) {
        self.remembered.drop_if(|initiation| session.remember(initiation, now));
    }

    /// Does what [`Tunnel::remind`] does, for the existing session.
    pub(crate) fn remind_session(&mut self, now: Instant) {
        if let Some(mut session) = self.session.take() {
            self.remind(&mut session, now);
            self.session = Some(session);
        }
    }

    /// Records that a packet needed a session and there was not one. Ends the back-off of calls to the peer.
    pub(crate) fn on_wanted(&mut self, now: Instant, rng: &mut ChaCha8Rng) {
        self.wanted = Some(now);
        self.hasten(rng);
    }

    /// Records that no packet needs a session any more.
    pub(crate) fn on_unwanted(&mut self) {
        self.wanted = None;
    }

    /// Restarts calls, because our timestamps have changed.
    pub(crate) fn on_wall_clock_set(&mut self, rng: &mut ChaCha8Rng) {
        self.attempts = 0;
        self.hasten(rng);
    }

    /// Hastens the next initiation, because there is now a better reason to call the peer than when the last one was sent.
    pub(crate) fn hasten(&mut self, rng: &mut ChaCha8Rng) {
        if let Some(session) = &mut self.session {
            session.hasten(REKEY_TIMEOUT + jitter(rng));
        }
    }

    /// Whether the next initiation repeats one that was not answered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.attempts > 0
    }

    /// Records that a data message for the peer was sealed.
    pub(crate) fn on_sealed(&mut self, message: &[u8]) {
        self.peer_index = message.get(4..8).and_then(|index| Some(u32::from_le_bytes(index.try_into().ok()?)));
    }

    /// Records that something was sent inside a session.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.traversed = now;
    }

    /// Records that something authentic came from the peer.
    pub(crate) fn on_authenticated(&mut self, now: Instant) {
        self.traversed = now;
        self.attempts = 0;
    }

    /// Records that an initiation was sent.
    pub(crate) fn on_initiated(&mut self, now: Instant) {
        self.initiated = Some(now);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Records that there is a session, so nothing waits for one any more.
    pub(crate) fn on_connected(&mut self) {
        self.wanted = None;
        self.attempts = 0;
    }

    /// When the next initiation may be sent. The peer has neither a session nor a handshake under way, or it is lost: it is
    /// wanted, and silent although there is a session. `None`: nothing wants the peer, or no handshake is possible.
    pub(crate) fn next_attempt(&self, is_alive: bool, is_lost: bool, now: Instant) -> Option<Instant> {
        if self.is_mute || is_alive && !is_lost || self.is_initiating() {
            return None;
        }
        let earliest = |pause| self.initiated.map_or(now, |at| at + pause);
        if self.is_wanted_by_traffic(now) || is_lost && self.keepalive().is_none() {
            Some(earliest(REKEY_TIMEOUT))
        } else {
            self.keepalive().map(|_| earliest(self.back_off()))
        }
    }

    /// Whether the peer is wanted, and its session will not send an initiation by itself now or very soon.
    pub(crate) fn is_wanted_and_uncalled(&self, now: Instant) -> bool {
        self.session.as_ref().is_some_and(|session| {
            let is_wanted = self.keepalive().is_some() || session.is_owed_answer();
            is_wanted && !session.will_call_by(now + MAX_JITTER)
        })
    }

    /// Persistent keepalive, if it is in force.
    pub(crate) fn keepalive(&self) -> Option<Duration> {
        self.persistent_keepalive.filter(|_| !self.is_relayed)
    }

    /// When an empty packet must be sent to keep NAT mappings and the session alive.
    pub(crate) fn keepalive_at(&self) -> Option<Instant> {
        Some(self.traversed + self.keepalive()?)
    }

    /// How long to wait, before jitter, for the answer to an initiation sent now.
    pub(crate) fn pause(&self, now: Instant) -> Duration {
        let kept_only = self.keepalive().is_some() && !self.is_wanted_by_traffic(now);
        if kept_only && !self.is_alive(now) { self.back_off() } else { REKEY_TIMEOUT }
    }

    /// Whether a packet recently needed a session and there was not one.
    pub(crate) fn is_wanted_by_traffic(&self, now: Instant) -> bool {
        self.wanted.is_some_and(|at| now.since(at) < REKEY_ATTEMPT_TIME)
    }

    /// The retry interval: five seconds for the first 90 s, then five more each time, up to 25 s.
    fn back_off(&self) -> Duration {
        let quick = (REKEY_ATTEMPT_TIME.as_secs() / REKEY_TIMEOUT.as_secs()) as u32;
        (REKEY_TIMEOUT * (1 + self.attempts.saturating_sub(quick).min(4))).min(MAX_BACK_OFF)
    }
}

/// A random delay that spreads retries.
pub(crate) fn jitter(rng: &mut ChaCha8Rng) -> Duration {
    Duration::from_millis(u64::from(rng.next_u32()) % (MAX_JITTER.as_millis() as u64 + 1))
}
