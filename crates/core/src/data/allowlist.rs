//! What one peer may send us. A peer without an allowlist skips this check.
//!
//! A packet is admitted if it belongs to a flow that we opened, or if a rule lists its protocol and destination port.
//! Flows that the peer opened are tracked too, but not to admit their packets: each of those is judged by the rules in
//! force, so that withdrawing a rule stops running flows. They are tracked so that our replies in them are not mistaken
//! for flows that *we* opened. Such flows would outlive the rule.
//!
//! A flow is ours only if its beginning proves it, never because our side answered. TCP and ICMP echo have a beginning
//! on the wire: a SYN without ACK, an echo request. Any other packet that we send in an unknown TCP flow makes it the
//! peer's flow. After a restart, a TCP connection therefore needs a rule, or the flow table that the previous node
//! handed over ([`Allowlist::known_flows`]).
//!
//! Other protocols have no visible beginning. There the table itself is the proof: a live flow of the peer is in the
//! table, so the first packet of a flow that is not in the table begins it, and the flow is ours if we sent that
//! packet. After a restart, after a peer gets an allowlist or a new prefix, or while there is no room for
//! the peer's flows, the table is incomplete and proves nothing for two minutes. Within that time every older flow shows itself or
//! expires. Until then an unknown flow counts as the peer's, even if the peer only tries to continue it without being
//! admitted, and it stays the peer's while either side sends in it. The exception is UDP that we begin from an ephemeral
//! port that was not in use when the table became incomplete ([`HostPorts`]), so that DNS lookups work at once.
//!
//! A flow that we opened is a way in, so it ends when our side stops using it, whatever the peer sends: see the module
//! `flow` for how long it lives, and `refusal` for packets that end it at once.
//!
//! A packet that cannot be parsed with certainty is dropped, and each case has a drop reason of its own: extension
//! headers, fragments that hide ports, fragments whose first fragment was never seen.
//!
//! Left out: TCP sequence numbers, and helpers that read payloads to expect related flows (FTP, SIP).

mod doubt;
mod flow;
mod flows;
mod fragments;
mod known;
mod refusal;

use std::net::IpAddr;

use overlay_wire::icmp;
use overlay_wire::ip::{self, Fragment, Header, Opaque, Packet, Upper, Version};

use self::doubt::Doubt;
use self::flow::{ACK, FIN, Flow, Opener, RST, SYN, State, TCP_ESTABLISHED_TIMEOUT, UDP_TIMEOUT};
use self::flows::{End, FlowId, Flows};
use self::fragments::Fragments;
use crate::data::budget::Purse;
use crate::data::shares::Party;
use crate::{DropReason, Instant, Protocol, Rule};

pub(crate) use self::doubt::HostPorts;
pub use self::flow::TcpStage;
pub(crate) use self::flows::{FlowKey, MAX_FLOWS};
pub use self::known::{KnownFlow, PeerFlows};

/// How many withdrawn rules are remembered for a peer. The oldest are forgotten first. Nobody changes more than this in
/// two hours.
const MAX_WITHDRAWN: usize = 256;

/// The rules of one peer and its flows: at most 4,096 flows and 256 fragment verdicts. All peers together are bounded too.
#[derive(Debug)]
pub(crate) struct Allowlist {
    rules: Vec<Rule>,
    withdrawn: Withdrawn,
    flows: Flows,
    fragments: Fragments,
    /// The party that opens the peer's flows: the peer itself.
    party: Party,
    /// When the peer last opened a flow that there was no room for.
    unrecorded: Option<Instant>,
    /// The period during which live flows may be missing from the table.
    doubt: Option<Doubt>,
    /// When the last packet passed.
    clock: Instant,
}

impl Allowlist {
    /// Creates an allowlist without flows. `seed` keeps the peer from choosing flows that collide. `purse` holds the peer's
    /// party, and the budget for the flows of all peers. Allocates nothing.
    pub(crate) fn new(rules: Vec<Rule>, seed: u64, purse: Purse) -> Self {
        Self {
            rules,
            withdrawn: Withdrawn::default(),
            flows: Flows::new(seed, purse.budget),
            fragments: Fragments::new(seed),
            party: purse.party,
            unrecorded: None,
            doubt: None,
            clock: Instant::default(),
        }
    }

    /// Creates an allowlist for a peer whose flows may already be running. Unknown flows count as the peer's, see
    /// [`Allowlist::doubt`].
    pub(crate) fn restricting(
        rules: Vec<Rule>,
        seed: u64,
        purse: Purse,
        ports: Option<HostPorts>,
        now: Instant,
    ) -> Self {
        let everything = [Protocol::Tcp, Protocol::Udp].map(|protocol| Rule { protocol, ports: None });
        let mut allowlist = Self::new(everything.into(), seed, purse);
        allowlist.clock = now;
        allowlist.set_rules(rules);
        allowlist.doubt(ports, now);
        allowlist
    }

    /// Marks the flow table as incomplete from `now` on: the peer may have flows that this list has never seen, for
    /// example because it was given a new prefix.
    pub(crate) fn doubt(&mut self, ports: Option<HostPorts>, now: Instant) {
        self.doubt = Some(Doubt { until: now + UDP_TIMEOUT, ports });
    }

    /// Makes this the list of a different party: the peer was removed and added again.
    pub(crate) fn set_party(&mut self, party: Party) {
        self.party = party;
    }

    /// When to call [`Allowlist::tidy`], if ever.
    pub(crate) fn tidy_at(&self) -> Option<Instant> {
        self.flows.tidy_at()
    }

    /// Frees what dead flows occupy, if that is due.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.flows.tidy(now);
    }

    /// Replaces the rules. Flows that we opened live on. Flows that the peer opened are judged by the new rules from
    /// their next packet. Setting the same rules again changes nothing.
    pub(crate) fn set_rules(&mut self, rules: Vec<Rule>) {
        if rules == self.rules {
            return;
        }
        let before = std::mem::replace(&mut self.rules, rules);
        self.withdrawn.add(before, self.clock);
        self.fragments.clear();
    }

    /// Whether the peer may open flows to this port of ours, so that a packet from it may be an answer.
    pub(crate) fn lists(&self, version: Version, protocol: u8, port: Option<u16>) -> bool {
        admits(&self.rules, version, protocol, port)
    }

    /// Records an outbound packet to the peer. Called with the first packet of each train. `party` maps an inner source
    /// to the party on our side that it belongs to. It is called for new flows only.
    pub(crate) fn on_outbound(&mut self, packet: &Packet<'_>, party: impl FnOnce(IpAddr) -> Party, now: Instant) {
        self.clock = now;
        let Ok(upper) = packet.upper() else { return };
        if let Some(key) = refusal::refused(packet, &upper) {
            return self.close(&key, now);
        }
        let Upper { protocol, header, .. } = upper;
        let Some(key) = sent(protocol, header, ends(packet)) else { return };
        let flags = tcp_flags(header);
        let role = Role::of(packet.version(), header);
        if let Some((id, Flow { opener, state, .. })) = self.flows.find(&key, now) {
            // A SYN of ours opens a connection over one of the peer's that our kernel has forgotten, except in a
            // simultaneous open.
            let takes_over = role == Role::Opens && opener == Opener::Peer && state != State::TcpOpening;
            if !takes_over || protocol != ip::TCP {
                self.flows.on_packet(id, Opener::Us, flags, now);
                return;
            }
        }
        let opener = match role {
            Role::Opens => Opener::Us,
            Role::Continues if protocol == ip::TCP || self.may_be_theirs(&key, now) => Opener::Peer,
            Role::Continues => Opener::Us,
            Role::Answers => return,
        };
        let mut flow = Flow::new(protocol, opener, now);
        flow.on_packet(Opener::Us, flags, now);
        self.open(key, flow, party(packet.source()), now);
    }

    /// Ends a flow that we opened and that nobody on our side uses any more. A flow of the peer stays known as the peer's.
    /// TCP has an end of its own.
    fn close(&mut self, key: &FlowKey, now: Instant) {
        if let Some((id, Flow { opener: Opener::Us, state: State::Udp, .. })) = self.flows.find(key, now) {
            self.flows.remove(id);
        }
    }

    /// Decides whether a packet from the peer may come in.
    ///
    /// # Errors
    /// Returns `NotAllowed`, also for a packet that is truncated inside its headers, `ExtensionHeaders`,
    /// `FragmentEvasion` or `FragmentOrphan`. A later fragment is dropped for the same reason as its first.
    pub(crate) fn admit(&mut self, packet: &Packet<'_>, now: Instant) -> Result<(), DropReason> {
        self.clock = now;
        let upper = packet.upper().map_err(|opaque| match opaque {
            Opaque::UnknownExtension | Opaque::ChainTooLong => DropReason::ExtensionHeaders,
            Opaque::ShortFirstFragment | Opaque::TcpAtOffsetOne => DropReason::FragmentEvasion,
            Opaque::Truncated => DropReason::NotAllowed,
        })?;
        match upper.fragment {
            None => self.judge(packet, upper, now),
            Some(fragment) if upper.header == Header::LaterFragment => self.follow(packet, upper, fragment, now),
            Some(fragment) => {
                let verdict = self.judge(packet, upper, now);
                self.fragments.on_first(packet, &upper, fragment, verdict, now);
                verdict
            }
        }
    }

    /// Judges a packet whose upper header is present.
    fn judge(&mut self, packet: &Packet<'_>, upper: Upper, now: Instant) -> Result<(), DropReason> {
        let Upper { protocol, header, .. } = upper;
        if self.is_error_of_a_flow(packet, header, now) {
            return Ok(());
        }
        let key = sent(protocol, header, ends(packet)).map(FlowKey::reversed);
        let flags = tcp_flags(header);
        let role = Role::of(packet.version(), header);
        let found = key.and_then(|key| self.flows.find(&key, now));

        if let Some((id, flow @ Flow { opener: Opener::Us, .. })) = found {
            // A peer that opens a connection does not answer ours, so the rules decide, except in a simultaneous open.
            if role != Role::Opens || flow.admits_syn(now) {
                self.flows.on_packet(id, Opener::Peer, flags, now);
                return Ok(());
            }
        }
        if !admits(&self.rules, packet.version(), protocol, destination_port(header)) {
            if let Some(key) = key.filter(|key| !matches!(key.protocol, ip::TCP | ip::ICMP | ip::ICMPV6)) {
                self.on_refused(key, found, now);
            }
            return Err(DropReason::NotAllowed);
        }
        match (found, key) {
            (Some((id, Flow { opener: Opener::Peer, .. })), _) => {
                self.flows.on_packet(id, Opener::Peer, flags, now);
            }
            (_, Some(key)) if role != Role::Answers => {
                let mut flow = Flow::new(protocol, Opener::Peer, now);
                flow.on_packet(Opener::Peer, flags, now);
                self.open(key, flow, self.party, now);
            }
            _ => {}
        }
        Ok(())
    }

    /// Handles a refused packet of a protocol without a visible beginning. The flow stays the peer's for as long as the
    /// peer keeps trying. Otherwise two minutes of silence on our side would make the flow ours. While the table is
    /// incomplete, a peer that goes on first has an older flow, whatever our ports say.
    fn on_refused(&mut self, key: FlowKey, found: Option<(FlowId, Flow)>, now: Instant) {
        match found {
            Some((id, Flow { opener: Opener::Peer, .. })) => self.flows.on_packet(id, Opener::Peer, 0, now),
            None if self.is_in_doubt(now) || self.may_be_theirs(&key, now) => {
                let mut flow = Flow::new(key.protocol, Opener::Peer, now);
                flow.on_packet(Opener::Peer, 0, now);
                self.open(key, flow, self.party, now);
            }
            _ => {}
        }
    }

    fn open(&mut self, key: FlowKey, flow: Flow, party: Party, now: Instant) {
        if self.flows.open(key, flow, party, now) || flow.opener == Opener::Us {
            return;
        }
        self.unrecorded = Some(now);
        // While flows go unrecorded, the withdrawn rules that may explain them stay in use.
        if !self.withdrawn.rules(now).is_empty() {
            self.withdrawn.at = now;
        }
    }

    /// Judges a later fragment: it shares the verdict of its first fragment.
    fn follow(
        &mut self,
        packet: &Packet<'_>,
        upper: Upper,
        fragment: Fragment,
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(verdict) = self.fragments.on_later(packet, &upper, fragment, now) {
            return verdict;
        }
        // A protocol that is listed by number has no ports to hide. In IPv6 the protocol in a later fragment proves
        // nothing.
        let listed = |rule: &Rule| rule.protocol == Protocol::Number(upper.protocol) && rule.ports.is_none();
        match packet.version() {
            Version::V4 if self.rules.iter().any(listed) => Ok(()),
            _ => Err(DropReason::FragmentOrphan),
        }
    }

    /// Whether this is an ICMP error about a packet that we sent in a live flow. Redirects are left to the rules: no
    /// flow needs them, and they change routes.
    fn is_error_of_a_flow(&self, packet: &Packet<'_>, header: Header, now: Instant) -> bool {
        const REDIRECT_V4: u8 = 5;
        match header {
            Header::Icmp { kind: REDIRECT_V4, .. } if packet.version() == Version::V4 => return false,
            Header::Icmp { kind, .. } if icmp::is_error(packet.version(), kind) => {}
            _ => return false,
        }
        let Some(quoted) = icmp::quoted(packet) else { return false };
        if quoted.source != packet.destination() {
            return false;
        }
        let ends = (quoted.source, quoted.destination);
        let Some(key) = sent(quoted.protocol, quoted.header, ends) else { return false };
        match self.flows.find(&key, now) {
            Some((_, Flow { opener: Opener::Us, .. })) => true,
            Some((_, Flow { opener: Opener::Peer, .. })) => admits_reverse(&self.rules, &key),
            None => self.is_overflowing(now) && admits_reverse(&self.rules, &key),
        }
    }

    /// Whether an unknown flow of a protocol without a visible beginning may have been opened by the peer.
    fn may_be_theirs(&self, key: &FlowKey, now: Instant) -> bool {
        let is_doubtful = self.doubt.as_ref().is_some_and(|doubt| doubt.covers(key, now));
        let may_open = || admits_reverse(&self.rules, key) || admits_reverse(self.withdrawn.rules(now), key);
        is_doubtful || self.is_overflowing(now) && may_open()
    }

    /// Whether flows that are older than the table may be missing in it.
    fn is_in_doubt(&self, now: Instant) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| now < doubt.until)
    }

    /// Whether live flows of the peer may be missing because there was no room for them.
    fn is_overflowing(&self, now: Instant) -> bool {
        self.unrecorded.is_some_and(|at| now.since(at) < UDP_TIMEOUT)
    }
}

/// Returns the flow of an inbound packet if the next packet of that flow is sure to get the same verdict. That excludes
/// fragments, ICMP errors, and TCP packets that begin or end a flow.
pub(crate) fn flow_key(packet: &Packet<'_>) -> Option<FlowKey> {
    let Upper { protocol, fragment, header, .. } = packet.upper().ok()?;
    if fragment.is_some() || tcp_flags(header) & (SYN | FIN | RST) != 0 {
        return None;
    }
    sent(protocol, header, ends(packet)).map(FlowKey::reversed)
}

/// Rules that were withdrawn while flows that they admitted may still be alive.
#[derive(Debug, Default)]
struct Withdrawn {
    rules: Vec<Rule>,
    /// The time of the last packet before the last withdrawal. A flow of these rules was last heard from at this time
    /// or earlier.
    at: Instant,
}

impl Withdrawn {
    fn add(&mut self, rules: Vec<Rule>, at: Instant) {
        if self.rules(at).is_empty() {
            self.rules.clear();
        }
        self.rules.retain(|rule| !rules.contains(rule));
        self.rules.extend(rules);
        self.rules.drain(..self.rules.len().saturating_sub(MAX_WITHDRAWN));
        self.at = at;
    }

    /// Returns the withdrawn rules that still matter.
    fn rules(&self, now: Instant) -> &[Rule] {
        if now.since(self.at) < TCP_ESTABLISHED_TIMEOUT { &self.rules } else { &[] }
    }
}

/// What a packet says about its place in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The packet begins a flow: a bare SYN, an echo request.
    Opens,
    /// The packet may or may not be the first of a flow: UDP, TCP in mid-stream.
    Continues,
    /// The packet never begins a flow: SYN with ACK, RST, an echo reply, and all ICMP without flows.
    Answers,
}

impl Role {
    pub(crate) fn of(version: Version, header: Header) -> Self {
        match header {
            Header::Tcp { flags, .. } if flags & RST != 0 => Self::Answers,
            Header::Tcp { flags, .. } if flags & SYN == 0 => Self::Continues,
            Header::Tcp { flags, .. } if flags & ACK == 0 => Self::Opens,
            Header::Tcp { .. } => Self::Answers,
            Header::Icmp { kind, .. } if kind == echo_request(version) => Self::Opens,
            Header::Icmp { .. } | Header::LaterFragment => Self::Answers,
            Header::Udp { .. } | Header::Ports { .. } | Header::Other => Self::Continues,
        }
    }
}

const fn echo_request(version: Version) -> u8 {
    match version {
        Version::V4 => 8,
        Version::V6 => 128,
    }
}

const fn echo_reply(version: Version) -> u8 {
    match version {
        Version::V4 => 0,
        Version::V6 => 129,
    }
}

/// Returns the flow of a packet that we send. The flow of a packet that we receive is its [`FlowKey::reversed`].
/// Returns `None` for packets without a flow: ICMP other than echo, and later fragments.
fn sent(protocol: u8, header: Header, (source, destination): (IpAddr, IpAddr)) -> Option<FlowKey> {
    let version = if source.is_ipv4() { Version::V4 } else { Version::V6 };
    let (our_port, their_port) = match header {
        Header::Tcp { source, destination, .. }
        | Header::Udp { source, destination }
        | Header::Ports { source, destination } => (Some(source), Some(destination)),
        Header::Icmp { kind, id, .. } if kind == echo_request(version) => (Some(id), None),
        Header::Icmp { kind, id, .. } if kind == echo_reply(version) => (None, Some(id)),
        Header::Other => (None, None),
        Header::Icmp { .. } | Header::LaterFragment => return None,
    };
    Some(FlowKey {
        protocol,
        ours: End { address: source, port: our_port },
        theirs: End { address: destination, port: their_port },
    })
}

fn ends(packet: &Packet<'_>) -> (IpAddr, IpAddr) {
    (packet.source(), packet.destination())
}

fn tcp_flags(header: Header) -> u8 {
    match header {
        Header::Tcp { flags, .. } => flags,
        _ => 0,
    }
}

/// Returns the port that rules are matched against.
pub(crate) fn destination_port(header: Header) -> Option<u16> {
    match header {
        Header::Tcp { destination, .. } | Header::Udp { destination, .. } | Header::Ports { destination, .. } => {
            Some(destination)
        }
        _ => None,
    }
}

/// Whether a rule lists this protocol and destination port.
pub(crate) fn admits(rules: &[Rule], version: Version, protocol: u8, port: Option<u16>) -> bool {
    rules.iter().any(|rule| rule.lists(version, protocol, port))
}

/// Whether a rule lets the peer open this flow.
fn admits_reverse(rules: &[Rule], key: &FlowKey) -> bool {
    let version = if key.ours.address.is_ipv4() { Version::V4 } else { Version::V6 };
    admits(rules, version, key.protocol, key.ours.port)
}

#[cfg(test)]
mod tests;
