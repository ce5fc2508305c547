//! Discovery of the MTU of one path: which kind of probe the peer answers, and what the search has found.
//!
//! An overlay node answers control frames. Any other WireGuard peer answers an echo to its virtual IP, if its host does.
//! Until the peer answers one of the two, packets keep to the MTU that every path starts with, and datagrams may be
//! fragmented on their way. This is never worse than no search at all.

use std::net::IpAddr;
use std::time::Duration;

use overlay_wire::control::Abilities;
use overlay_wire::ip::Packet;
use rand_chacha::ChaCha8Rng;

use crate::instant::earlier;
use crate::path::greeting::Acquaintance;
use crate::path::mtu::{Limit, Phase, Probe, Search};
use crate::path::recent::Recent;
use crate::{Instant, MtuLimit, PathMtu, PathMtuState, ProbedBy};

/// The shortest time between two changes of the ceiling to the MTU of the peer's interface. Each change may start a new
/// search, whose first probe is much longer than the hello. A real interface never changes more often.
const CEILING_INTERVAL: Duration = Duration::from_secs(1);

/// The search on one path.
pub(crate) struct Discovery {
    prober: Prober,
    search: Search,
    /// Whether a large packet was sent on this path. Before the first one no peer is probed by echoes. A search costs up to
    /// ten probes of 1,260 bytes, too much for each of ten thousand plain WireGuard peers that are only connected.
    is_used: bool,
    /// Whether the first search on this path has found a size that counts. A size counts if it is at least the assumed one,
    /// if it is the largest possible, or if the assumed one does not get through. Until then packets are sent as if nothing
    /// were known, because Linux would remember for ten minutes that it was told to send less.
    is_in_force: bool,
    /// When a hello last changed the ceiling, and whether a later one waits for its turn.
    ceiling_moved: Option<Instant>,
    is_ceiling_behind: bool,
    /// The last report to control.
    told: Option<PathMtu>,
    /// The senders to tell when the path carries less than before. Made for the first large packet.
    recent: Option<Box<Recent>>,
}

/// How probes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prober {
    /// The peer is not probed: its kind is unknown, or there is no address to send an echo to.
    None,
    Frames,
    Echoes(EchoEnds),
}

/// The addresses of an echo: one of our virtual IPs, and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EchoEnds {
    pub(crate) ours: IpAddr,
    pub(crate) theirs: IpAddr,
}

/// How long packets on a path may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The longest inner packet, in bytes.
    pub(crate) mtu: usize,
    /// Whether a packet of this length has arrived, and the peer did not fall silent since. Only then are datagrams sent
    /// with DF, so that nobody may fragment them.
    pub(crate) is_proven: bool,
    /// Whether the peer reassembles packets that come in pieces, and still answers.
    pub(crate) may_cut: bool,
}

/// A probe to send to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Probe(Probe),
    Echo(EchoEnds, Probe),
}

impl Discovery {
    /// `max_mtu`: the largest inner packet worth trying.
    pub(crate) fn new(max_mtu: usize, now: Instant) -> Self {
        Self {
            prober: Prober::None,
            search: Search::new(max_mtu, now),
            is_used: false,
            is_in_force: false,
            ceiling_moved: None,
            is_ceiling_behind: false,
            told: None,
            recent: None,
        }
    }

    /// Whether the peer was probed by control frames and does not answer them any more.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.prober == Prober::Frames && self.search.is_quiet()
    }

    /// Returns what is due by `now`. Call it until it returns `None`. `ends` are the echo addresses for a peer that is not
    /// an overlay node.
    pub(crate) fn poll(
        &mut self,
        ceiling: Ceiling,
        ends: impl FnOnce() -> Option<EchoEnds>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Option<Due> {
        if ceiling.acquaintance == Acquaintance::Other {
            match ends() {
                // Either address may have changed.
                Some(ends) if self.prober == Prober::Echoes(ends) => {}
                Some(ends) => self.ask_by(Prober::Echoes(ends), ceiling, now),
                None => self.prober = Prober::None,
            }
        }
        if self.ceiling_due().is_some_and(|at| at <= now) {
            self.follow(ceiling, now);
        }
        match self.prober {
            Prober::Frames => self.search.poll(now, rng).map(Due::Probe),
            Prober::Echoes(ends) if self.is_used => self.search.poll(now, rng).map(|probe| Due::Echo(ends, probe)),
            Prober::Echoes(_) | Prober::None => None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let search = match self.prober {
            Prober::Frames => self.search.deadline(),
            Prober::Echoes(_) => self.search.deadline().filter(|_| self.is_used),
            Prober::None => None,
        };
        earlier(search, self.ceiling_due())
    }

    /// Records that a probe from the peer arrived, `size` bytes long.
    pub(crate) fn on_probe(&mut self, size: usize, now: Instant) {
        if self.prober == Prober::Frames {
            self.search.on_arrived(size, now);
        }
    }

    /// Records that the peer says it received a probe of `size` bytes.
    pub(crate) fn on_probe_reply(&mut self, id: u32, size: usize, now: Instant) {
        if self.prober == Prober::Frames {
            self.search.on_reply(id, size, now);
        }
    }

    /// Records an echo reply from the peer. Returns whether it answers a probe. The reply may be fragmented, so its length
    /// means nothing.
    pub(crate) fn on_echo_reply(&mut self, source: IpAddr, id: u32, now: Instant) -> bool {
        matches!(self.prober, Prober::Echoes(ends) if ends.theirs == source) && self.search.on_echo(id, now)
    }

    /// Whether an echo reply may answer one of our probes.
    pub(crate) fn sends_echoes(&self) -> bool {
        matches!(self.prober, Prober::Echoes(_))
    }

    /// Records that our own kernel refused datagrams with inner packets of `size` bytes.
    pub(crate) fn on_refused(&mut self, size: usize, now: Instant) {
        self.search.on_refused(size, now);
    }

    /// Records an unverified ICMP "too big" that names an inner MTU of `mtu` bytes.
    pub(crate) fn on_too_big(&mut self, mtu: usize) {
        self.search.on_too_big(mtu);
    }

    /// Records that a large packet is sent, `len` bytes long, or in segments of that length.
    pub(crate) fn on_large_sent(&mut self, packet: &[u8], len: usize, now: Instant) {
        self.is_used = true;
        if self.prober == Prober::None {
            return;
        }
        self.search.on_large_sent(now);
        self.recent.get_or_insert_default().keep(packet, len);
    }

    /// Takes the last packets sent that were too long for `mtu`, with the MTU that their senders are told.
    pub(crate) fn take_recent(&mut self, mtu: usize) -> impl Iterator<Item = (Packet<'_>, usize)> {
        self.recent.iter_mut().flat_map(move |recent| recent.take_longer_than(mtu))
    }

    /// Handles a move of the peer. Nothing is proven any more.
    pub(crate) fn on_path_change(&mut self, ceiling: Ceiling, now: Instant) {
        self.is_in_force = false;
        self.is_used = false;
        self.search.on_path_change(ceiling.size(), now);
    }

    /// Handles a change of the MTU of our own interface.
    pub(crate) fn on_local_mtu(&mut self, ceiling: Ceiling, now: Instant) {
        self.search.on_ceiling(ceiling.size(), now);
    }

    /// Ends the search on this path.
    pub(crate) fn on_end(&mut self) {
        self.prober = Prober::None;
    }

    /// How long packets may be, and `assumed` if nothing is known. If the peer stopped answering probes, a different
    /// program may be there, behind a different path. The size is then kept, but packets that depend on it being proven are
    /// not sent.
    pub(crate) fn way(&self, assumed: usize, acquaintance: Acquaintance) -> Way {
        let (proven, is_there) = (self.proven(), !self.search.is_silent());
        Way {
            mtu: proven.unwrap_or(assumed),
            is_proven: proven.is_some() && is_there,
            may_cut: acquaintance.understands(Abilities::FRAGMENTS) && is_there,
        }
    }

    /// The largest packet that is known to arrive, in bytes. `None` if nothing is known.
    fn proven(&self) -> Option<usize> {
        self.search.mtu().filter(|_| self.is_in_force && self.prober != Prober::None)
    }

    /// Returns what control must be told, if it is news, and whether packets no longer get through that did before.
    /// `assumed` is the MTU if nothing is known, and `max_mtu` the largest that our interface takes.
    pub(crate) fn report(&mut self, assumed: usize, max_mtu: usize, now: Instant) -> Option<(PathMtu, bool)> {
        let search = self.search.state();
        // Nobody is told to send less while it is unknown whether the assumed size gets through.
        let is_refuted = match search.limit {
            Limit::Ceiling(_) => false,
            Limit::Refused(size) | Limit::Unanswered(size) => search.phase != Phase::Unanswered && size <= assumed,
        };
        let is_confirmed = self.search.mtu().is_some_and(|mtu| mtu >= assumed);
        self.is_in_force |= search.phase == Phase::Found || is_refuted || is_confirmed;
        let proven = self.proven();
        let mtu = u16::try_from(proven.unwrap_or(assumed)).unwrap_or(u16::MAX);
        let state = match (proven, search.phase) {
            (None, _) => PathMtuState::Assumed,
            (Some(_), Phase::Unanswered | Phase::Searching) => PathMtuState::Searching,
            (Some(_), Phase::Found | Phase::Doubted) => PathMtuState::Found,
        };
        let probed_by = match self.prober {
            Prober::None => ProbedBy::Nothing,
            Prober::Frames => ProbedBy::ControlFrames,
            Prober::Echoes(_) => ProbedBy::Echoes,
        };
        let limit = match search.limit {
            _ if proven.is_none() => MtuLimit::Interface,
            Limit::Ceiling(size) if size < max_mtu => MtuLimit::Peer,
            Limit::Ceiling(_) => MtuLimit::Interface,
            Limit::Refused(_) => MtuLimit::Host,
            Limit::Unanswered(_) => MtuLimit::Path,
        };
        let before = self.told;
        let since = before.filter(|told| told.mtu == mtu).map_or(now, |told| told.since);
        let report = PathMtu { mtu, state, probed_by, limit, since };
        if before == Some(report) || before.is_none() && probed_by == ProbedBy::Nothing {
            return None;
        }
        self.told = Some(report);
        Some((report, usize::from(mtu) < before.map_or(assumed, |told| told.mtu.into())))
    }

    /// Records that the peer is an overlay node. A search by control frames continues, up to a different ceiling if the
    /// peer's interface has changed.
    pub(crate) fn on_acquainted(&mut self, ceiling: Ceiling, now: Instant) {
        if self.prober != Prober::Frames {
            self.ask_by(Prober::Frames, ceiling, now);
        } else {
            self.is_ceiling_behind = self.search.ceiling() != ceiling.size();
            if self.ceiling_due().is_some_and(|at| at <= now) {
                self.follow(ceiling, now);
            }
            self.search.on_heard();
        }
    }

    /// When the search may adopt the ceiling of the last hello.
    fn ceiling_due(&self) -> Option<Instant> {
        self.is_ceiling_behind.then(|| self.ceiling_moved.map_or(Instant::default(), |at| at + CEILING_INTERVAL))
    }

    fn follow(&mut self, ceiling: Ceiling, now: Instant) {
        self.is_ceiling_behind = false;
        self.ceiling_moved = Some(now);
        self.search.on_ceiling(ceiling.size(), now);
    }

    fn ask_by(&mut self, prober: Prober, ceiling: Ceiling, now: Instant) {
        self.prober = prober;
        self.is_in_force = false;
        self.search.on_path_change(ceiling.size(), now);
    }
}

/// What limits the search from above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceiling {
    /// The largest inner packet that our interface takes, in bytes.
    pub(crate) ours: usize,
    /// What is known of the peer, which may say what its interface takes.
    pub(crate) acquaintance: Acquaintance,
}

impl Ceiling {
    /// The largest size worth trying: the smaller limit of the two ends.
    fn size(self) -> usize {
        match self.acquaintance {
            Acquaintance::Overlay { mtu, .. } => self.ours.min(mtu.into()),
            Acquaintance::Unknown | Acquaintance::Other => self.ours,
        }
    }
}
