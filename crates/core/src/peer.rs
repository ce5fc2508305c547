//! One peer: its configuration, what was learned of it, and what is due for it.
//!
//! The tunnel knows when the peer is called (`session/tunnel`), and `path/reach` knows whether it answers. A peer that does
//! not answer is *silent*, and is called at all known addresses. This file holds what concerns both.

use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::data::staged::Staged;
use crate::deadlines::{Armed, Deadlines, GRANULARITY};
use crate::instant::earlier;
use crate::local::Local;
use crate::news::News;
use crate::path::candidates::Candidates;
use crate::path::discovery::{Discovery, Way};
use crate::path::greeting::Greeting;
use crate::path::paths::Paths;
use crate::path::reach::Reach;
use crate::path::reassembly::Reassembly;
use crate::path::words::Words;
use crate::rights::Rights;
use crate::session::indices::Receivers;
use crate::session::tunnel::Tunnel;
use crate::{Instant, PeerKey, PeerStats, PeerTag};

/// The longest inner packet that needs no watch, in bytes. Every IPv4 path carries 576 outside (RFC 791 section 3.1), of
/// which 60 are headers around the packet. Any longer packet may be lost silently when the path MTU falls, because it must
/// not be fragmented.
const SMALL_PACKET: usize = 512;

/// One peer. The order of the fields and the alignment put what the routing of a packet reads into two cache lines: the end
/// of `tunnel`, the start of `paths`, and all fields between them. With thousands of peers, each further line is a miss.
#[repr(C, align(64))]
pub(crate) struct Peer {
    /// Keys, sessions and calls.
    pub(crate) tunnel: Tunnel,
    pub(crate) tag: PeerTag,
    /// Whether the MTU of its paths is searched for.
    pub(crate) discovers: bool,
    pub(crate) stats: Arc<PeerStats>,
    /// The inner prefixes and allowlist of the peer.
    pub(crate) rights: Rights,
    /// The paths to the peer.
    pub(crate) paths: Paths,
    /// Packets that wait for a session.
    pub(crate) staged: Staged,
    /// The addresses of its host name. `None` if it has no name, or if nothing was resolved yet.
    pub(crate) candidates: Option<Box<Candidates>>,
    /// Whether the peer answers.
    pub(crate) reach: Reach,
    /// Whether the peer is an overlay node.
    pub(crate) greeting: Greeting,
    /// Packets of the peer that arrived in pieces. Made for the first one.
    pub(crate) reassembly: Option<Box<Reassembly>>,
    /// The news about the peer for control, and when to report it.
    pub(crate) news: News,
    /// How often control has heard the peer lately.
    pub(crate) words: Words,
    pub(crate) armed: Armed,
}

/// The length of a cache line in bytes.
const LINE: usize = 64;
const _: () = assert!(offset_of!(Peer, paths) / LINE <= (offset_of!(Peer, tag) - 1) / LINE + 1);

impl Peer {
    pub(crate) fn new(tag: PeerTag, key: PeerKey, receivers: Receivers, now: Instant) -> Self {
        Self {
            tag,
            stats: Arc::default(),
            rights: Rights::default(),
            tunnel: Tunnel::new(key, receivers, now),
            staged: Staged::default(),
            paths: Paths::default(),
            candidates: None,
            reach: Reach::new(now),
            discovers: false,
            greeting: Greeting::default(),
            reassembly: None,
            news: News::default(),
            words: Words::default(),
            armed: Armed::default(),
        }
    }

    /// Whether a session with the peer can carry packets.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        self.tunnel.is_alive(now)
    }

    /// Whether the peer's endpoint, or a candidate for it, has this address and port.
    pub(crate) fn may_be_at(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let is_there = |at: SocketAddr| at.ip() == ip && port.is_none_or(|port| at.port() == port);
        self.paths.address().is_some_and(is_there)
            || self.candidates.as_ref().is_some_and(|candidates| candidates.iter().any(is_there))
    }

    /// How long packets to the peer may be.
    pub(crate) fn way(&self, local: &Local) -> Way {
        match self.paths.primary() {
            Some(path) => path.way(local.mtu, self.greeting.peer()),
            None => Way { mtu: local.mtu, is_proven: false, may_cut: false },
        }
    }

    /// The search for the MTU of its path, once there was a session.
    pub(crate) fn discovery(&mut self) -> Option<&mut Discovery> {
        self.paths.primary_mut().and_then(|path| path.discovery.as_deref_mut())
    }

    /// Ends the search for the MTU of its path.
    pub(crate) fn forget_path_mtu(&mut self) {
        if let Some(path) = self.paths.primary_mut() {
            path.discovery = None;
        }
        self.greeting = Greeting::default();
    }

    /// Handles a change of our own key, including its removal, and the interface coming up or going down.
    pub(crate) fn on_local_end(&mut self, can_speak: bool, now: Instant) {
        self.greeting.on_change();
        self.tunnel.on_local_end(can_speak, !self.staged.is_empty(), now);
        self.reach = Reach::new(now);
        if let Some(candidates) = &mut self.candidates {
            candidates.rest();
        }
    }

    /// Records that a packet is sent to the peer, `len` bytes long, or in segments of that length.
    pub(crate) fn on_large(&mut self, packet: &[u8], len: usize, now: Instant) {
        if len > SMALL_PACKET
            && let Some(discovery) = self.discovery()
        {
            discovery.on_large_sent(packet, len, now);
        }
    }

    /// Records that data or a response was sent, which the peer has to answer in time.
    pub(crate) fn on_data_sent(&mut self, now: Instant) {
        self.reach.on_owed(now);
        self.tunnel.on_sent(now);
    }

    /// Records that a message was authenticated. The peer is there, but may not hear us.
    pub(crate) fn on_authenticated(&mut self, now: Instant) {
        self.tunnel.on_authenticated(now);
        if let Some(candidates) = &mut self.candidates {
            candidates.on_authenticated();
        }
    }

    /// Records that the peer hears us. Returns whether it was silent before.
    pub(crate) fn on_heard(&mut self, now: Instant) -> bool {
        if let Some(candidates) = &mut self.candidates {
            candidates.on_heard();
        }
        self.reach.on_heard(now)
    }

    /// Records that an initiation was sent.
    pub(crate) fn on_initiated(&mut self, now: Instant) {
        self.tunnel.on_initiated(now);
        self.reach.on_owed(now);
    }

    /// Records that there is a session.
    pub(crate) fn on_connected(&mut self) {
        self.tunnel.on_connected();
        self.reach.on_connected();
        if let Some(candidates) = &mut self.candidates {
            candidates.on_connected();
        }
    }

    /// When the next initiation may be sent. The peer has neither a session nor a handshake under way, or it is kept alive
    /// and silent. `None`: nothing wants the peer, or it has no endpoint, or no handshake is possible.
    pub(crate) fn next_attempt(&self, now: Instant) -> Option<Instant> {
        self.next_attempt_if(self.is_alive(now), now)
    }

    fn next_attempt_if(&self, is_alive: bool, now: Instant) -> Option<Instant> {
        if !self.is_callable() {
            return None;
        }
        let is_lost = self.reach.is_silent() && self.tunnel.is_wanted_and_uncalled(now);
        self.tunnel.next_attempt(is_alive, is_lost, now)
    }

    /// Whether the peer turns silent now.
    pub(crate) fn falls_silent(&self, now: Instant) -> bool {
        self.reach.may_be_silent(now) && self.reach.silent_at(self.is_alive(now)).is_some_and(|at| at <= now)
    }

    /// When to ask whether the peer is there. Only a peer that is kept alive is asked, if its name may have a new address.
    pub(crate) fn ask_at(&self) -> Option<Instant> {
        let keepalive = self.tunnel.keepalive()?;
        let is_named = self.candidates.as_ref().is_some_and(|candidates| !candidates.is_empty());
        if is_named { self.reach.ask_at(keepalive) } else { None }
    }

    /// The earliest moment at which something is due for the peer.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        // Called after every train, when most of these are `None`.
        let is_alive = self.is_alive(now);
        let mut next = self.tunnel.session.as_ref().and_then(|session| session.deadline());
        next = earlier(next, self.reach.silent_at(is_alive));
        next = earlier(next, self.next_attempt_if(is_alive, now));
        next = earlier(next, self.news.deadline());
        next = earlier(next, self.rights.tidy_at());
        if let Some(candidates) = &self.candidates {
            next = earlier(next, candidates.deadline());
        }
        if let Some(agent) = &self.paths.agent {
            next = earlier(next, agent.any_due(is_alive));
        }
        if is_alive {
            next = earlier(next, self.tunnel.keepalive_at());
            next = earlier(next, self.ask_at());
            if let Some(discovery) = self.paths.primary().and_then(|path| path.discovery.as_ref()) {
                next = earlier(next, self.greeting.deadline());
                next = earlier(next, discovery.deadline());
            }
        }
        next
    }

    /// Whether a message about the MTU of its path is due.
    pub(crate) fn discovery_is_due(&self, now: Instant) -> bool {
        self.paths.primary().and_then(|path| path.discovery.as_ref()).is_some_and(|discovery| {
            [self.greeting.deadline(), discovery.deadline()].into_iter().flatten().any(|at| at <= now)
        })
    }

    /// Arms the peer's deadline for the next thing that may be due.
    pub(crate) fn arm(&mut self, deadlines: &mut Deadlines, now: Instant) {
        if let Some(at) = self.deadline(now) {
            // A deadline that stays in the past would never let the shell sleep.
            deadlines.arm(self.tag, &mut self.armed, at.max(now + GRANULARITY));
        }
    }
}
