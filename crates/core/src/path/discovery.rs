//! What is known of the MTU of one path, and how it is found out: who answers, and by what.
//!
//! An overlay node answers control frames. Any other WireGuard answers an echo to its virtual IP, if its host does. Until
//! one of the two was answered, the path is held to the MTU that every path starts with and its datagrams may be fragmented on
//! their way: nothing is worse than without a search.

use std::net::IpAddr;
use std::time::Duration;

use overlay_wire::control::Abilities;
use overlay_wire::ip::Packet;
use rand_chacha::ChaCha8Rng;

use crate::path::greeting::Acquaintance;
use crate::path::mtu::{Limit, Phase, Probe, Search};
use crate::path::recent::Recent;
use crate::{Instant, MtuLimit, PathMtu, PathMtuState, ProbedBy};

/// The search follows another MTU of the peer's interface this often at most. Each may begin it anew, from a probe that is
/// much longer than the hello, and nobody changes an interface more often.
const CEILING_INTERVAL: Duration = Duration::from_secs(1);

/// The search on one path.
pub(crate) struct Discovery {
    prober: Prober,
    search: Search,
    /// Whether a large packet went out on this path. Before the first one no peer is probed by echoes: a search costs up
    /// to ten probes of 1,260 bytes, too much for each of ten thousand stock peers that are only connected.
    is_used: bool,
    /// Whether the first search on this path has come to a size that means something: one that is no less than what was
    /// assumed, or the largest there is, or what was assumed does not get through. Before that packets go as if nothing were
    /// known: Linux would remember for ten minutes that it was told to send less.
    is_in_force: bool,
    /// When a hello last changed the ceiling, and whether a later one waits for its turn.
    ceiling_moved: Option<Instant>,
    is_ceiling_behind: bool,
    /// What was last reported.
    told: Option<PathMtu>,
    /// Whom to tell when the path carries less than before: made for the first large packet.
    recent: Option<Box<Recent>>,
}

/// How probes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prober {
    /// Not at all: the peer is unknown, or has no address to send an echo to.
    None,
    Frames,
    Echoes(EchoEnds),
}

/// From one of our virtual IPs to the peer's.
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
    /// Whether one as long has arrived, and the peer did not fall silent since. Only then nobody may fragment a datagram on
    /// its way.
    pub(crate) is_proven: bool,
    /// Whether the peer puts packets together that come in pieces, and is there to do so.
    pub(crate) may_cut: bool,
}

/// What is to be sent to the peer.
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

    /// Whether the peer was asked by control frames and does not answer them any more.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.prober == Prober::Frames && self.search.is_quiet()
    }

    /// What is due by `now`; to be asked until there is nothing more. `ends` are for a peer that is not an overlay node.
    pub(crate) fn poll(
        &mut self,
        ceiling: Ceiling,
        ends: impl FnOnce() -> Option<EchoEnds>,
        now: Instant,
        rng: &mut ChaCha8Rng,
    ) -> Option<Due> {
        if ceiling.acquaintance == Acquaintance::Other {
            match ends() {
                // The address of either may have changed.
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
        [search, self.ceiling_due()].into_iter().flatten().min()
    }

    /// The peer probes, and `size` bytes arrived.
    pub(crate) fn on_probe(&mut self, size: usize, now: Instant) {
        if self.prober == Prober::Frames {
            self.search.on_arrived(size, now);
        }
    }

    /// The peer received a probe of `size` bytes, it says.
    pub(crate) fn on_probe_reply(&mut self, id: u32, size: usize, now: Instant) {
        if self.prober == Prober::Frames {
            self.search.on_reply(id, size, now);
        }
    }

    /// An echo reply from the peer: whether it answers a probe. It may be fragmented, so that its length says nothing.
    pub(crate) fn on_echo_reply(&mut self, source: IpAddr, id: u32, now: Instant) -> bool {
        matches!(self.prober, Prober::Echoes(ends) if ends.theirs == source) && self.search.on_echo(id, now)
    }

    /// Whether echo replies may be ours.
    pub(crate) fn sends_echoes(&self) -> bool {
        matches!(self.prober, Prober::Echoes(_))
    }

    /// Our own kernel refused datagrams with inner packets of `size` bytes.
    pub(crate) fn on_refused(&mut self, size: usize, now: Instant) {
        self.search.on_refused(size, now);
    }

    /// Routers are said to have said that packets of more than `mtu` bytes are too big.
    pub(crate) fn on_too_big(&mut self, mtu: usize) {
        self.search.on_too_big(mtu);
    }

    /// A packet is sent that is `len` bytes long, or in segments as long, and large.
    pub(crate) fn on_large_sent(&mut self, packet: &[u8], len: usize, now: Instant) {
        self.is_used = true;
        if self.prober == Prober::None {
            return;
        }
        self.search.on_large_sent(now);
        self.recent.get_or_insert_default().keep(packet, len);
    }

    /// The packets sent last that were too long for `mtu`, and what their senders are told.
    pub(crate) fn take_recent(&mut self, mtu: usize) -> impl Iterator<Item = (Packet<'_>, usize)> {
        self.recent.iter_mut().flat_map(move |recent| recent.take_longer_than(mtu))
    }

    /// The peer is somewhere else: nothing is proven any more.
    pub(crate) fn on_path_change(&mut self, ceiling: Ceiling, now: Instant) {
        self.is_in_force = false;
        self.is_used = false;
        self.search.on_path_change(ceiling.size(), now);
    }

    /// Our interface takes packets of a different length.
    pub(crate) fn on_local_mtu(&mut self, ceiling: Ceiling, now: Instant) {
        self.search.on_ceiling(ceiling.size(), now);
    }

    /// The path is no longer to be searched.
    pub(crate) fn on_end(&mut self) {
        self.prober = Prober::None;
    }

    /// How long packets may be; `assumed` where nothing is known. A peer that answers no probe any more may be another
    /// program behind another path: the size stays, but nothing is sent that only the one of before was good for.
    pub(crate) fn way(&self, assumed: usize, acquaintance: Acquaintance) -> Way {
        let (proven, is_there) = (self.proven(), !self.search.is_silent());
        Way {
            mtu: proven.unwrap_or(assumed),
            is_proven: proven.is_some() && is_there,
            may_cut: acquaintance.understands(Abilities::FRAGMENTS) && is_there,
        }
    }

    /// The largest packet that is known to arrive. `None`: nothing is known.
    fn proven(&self) -> Option<usize> {
        self.search.mtu().filter(|_| self.is_in_force && self.prober != Prober::None)
    }

    /// What control is to know, where it is news; and whether packets go through no longer that did before. `assumed` is
    /// the MTU that holds where nothing is known, and `max_mtu` the most that our interface takes.
    pub(crate) fn report(&mut self, assumed: usize, max_mtu: usize, now: Instant) -> Option<(PathMtu, bool)> {
        let search = self.search.state();
        // While it is open whether what was assumed gets through, nobody is told to send less.
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

    /// The peer said that it is an overlay node. A search by frames goes on, up to a different ceiling where the peer's
    /// interface has changed.
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

    /// When the search may follow what the last hello said.
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
    /// The largest size worth trying: what either end does not take is not.
    fn size(self) -> usize {
        match self.acquaintance {
            Acquaintance::Overlay { mtu, .. } => self.ours.min(mtu.into()),
            Acquaintance::Unknown | Acquaintance::Other => self.ours,
        }
    }
}
