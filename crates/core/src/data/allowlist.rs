//! What one peer may open towards us. A peer without an allowlist is never asked.
//!
//! A packet comes in because it belongs to a flow that we opened, or because a rule lists its protocol and destination
//! port. The flows that the peer opened are remembered as well, not to admit them (each of their packets is judged by
//! the rules of the moment, so that a withdrawn rule stops running flows), but so that our own packets in them are not
//! taken for flows that *we* opened: those would outlive the rule.
//!
//! A flow is ours only where its beginning proves it, never because our side answered. TCP and echo have a beginning on the
//! wire: a SYN without ACK, a request. Any other packet of ours in an unknown TCP flow counts as the peer's, so that after a
//! restart a connection needs the rules, or the memory that was handed over ([`Allowlist::known_flows`]).
//!
//! Other protocols have no beginning. There the memory is the proof: a flow that is alive and was the peer's is in the
//! table, so the first packet of an unknown flow begins it, and it is ours if we sent it. Where memory is missing (a
//! restart, a peer that had no allowlist or another prefix before, a half that is full) this proves nothing for two minutes,
//! the time in which every flow from before has shown itself or is over. In these minutes such flows are the peer's, also
//! those that it only tries to go on with, and stay so while anybody sends in them; but for UDP from a port that was not in
//! use when memory was lost ([`HostPorts`]), since no earlier flow can end there: name look-ups work at once.
//!
//! Everything that cannot be read with certainty is dropped under its own name: extension headers, fragments that hide
//! ports, fragments whose first one was never seen.
//!
//! Left out: sequence numbers, and helpers that read payloads to expect further flows (FTP, SIP).

mod doubt;
mod flows;
mod fragments;
mod known;

use std::net::IpAddr;

use overlay_wire::icmp;
use overlay_wire::ip::{self, Fragment, Header, Opaque, Packet, Upper, Version};

use self::doubt::Doubt;
use self::flows::{ACK, End, FIN, Flow, FlowId, Flows, Opener, RST, SYN, State, TCP_ESTABLISHED_TIMEOUT, UDP_TIMEOUT};
use self::fragments::Fragments;
use crate::{DropReason, Instant, Protocol, Rule};

pub(crate) use self::doubt::HostPorts;
pub(crate) use self::flows::FlowKey;
pub use self::known::{KnownFlow, PeerFlows};

/// Withdrawn rules remembered for a peer, the latest; more than anyone changes within two hours.
const MAX_WITHDRAWN: usize = 256;

/// The rules of one peer and the flows with it: 4,096 flows, and 256 verdicts on fragments.
#[derive(Debug)]
pub(crate) struct Allowlist {
    rules: Vec<Rule>,
    withdrawn: Withdrawn,
    flows: Flows,
    fragments: Fragments,
    /// When the peer last opened a flow for which its half of the table had no room.
    unrecorded: Option<Instant>,
    /// Flows that may be alive from before there was memory.
    doubt: Option<Doubt>,
    /// When the last packet passed.
    clock: Instant,
}

impl Allowlist {
    /// An allowlist without flows; `seed` keeps the peer from choosing flows that collide. Allocates nothing.
    pub(crate) fn new(rules: Vec<Rule>, seed: u64) -> Self {
        Self {
            rules,
            withdrawn: Withdrawn::default(),
            flows: Flows::new(seed),
            fragments: Fragments::default(),
            unrecorded: None,
            doubt: None,
            clock: Instant::default(),
        }
    }

    /// An allowlist that knows nothing of the flows that may be running already: they count as the peer's, see
    /// [`Allowlist::doubt`].
    pub(crate) fn restricting(rules: Vec<Rule>, seed: u64, ports: Option<HostPorts>, now: Instant) -> Self {
        let everything = [Protocol::Tcp, Protocol::Udp].map(|protocol| Rule { protocol, ports: None });
        let mut allowlist = Self::new(everything.into(), seed);
        allowlist.clock = now;
        allowlist.set_rules(rules);
        allowlist.doubt(ports, now);
        allowlist
    }

    /// From now on flows may run that this list has never seen: its peer has a prefix that it did not have before.
    pub(crate) fn doubt(&mut self, ports: Option<HostPorts>, now: Instant) {
        self.doubt = Some(Doubt { until: now + UDP_TIMEOUT, ports });
    }

    /// Replaces the rules. Flows that we opened live on; those that the peer opened are judged by the new rules from
    /// their next packet. The same rules again change nothing.
    pub(crate) fn set_rules(&mut self, rules: Vec<Rule>) {
        if rules == self.rules {
            return;
        }
        let before = std::mem::replace(&mut self.rules, rules);
        self.withdrawn.add(before, self.clock);
        self.fragments.clear();
    }

    /// A packet leaves for the peer: the first of each outbound train. `party` says who of our side is behind an inner
    /// source: it is asked for new flows only.
    pub(crate) fn on_outbound(&mut self, packet: &Packet<'_>, party: impl FnOnce(IpAddr) -> u64, now: Instant) {
        self.clock = now;
        let Ok(Upper { protocol, header, .. }) = packet.upper() else { return };
        let Some(key) = sent(protocol, header, ends(packet)) else { return };
        let flags = tcp_flags(header);
        let role = Role::of(packet.version(), header);
        if let Some((id, Flow { opener, state, .. })) = self.flows.find(&key, now) {
            // We open a connection over one of the peer's that our kernel knows no more, unless both open at once.
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

    /// Whether a packet from the peer may come in.
    ///
    /// # Errors
    /// `NotAllowed`, also for a packet that ends before its headers do; `ExtensionHeaders`; `FragmentEvasion`;
    /// `FragmentOrphan`. A later fragment is dropped under the name of its first.
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

    /// The verdict on a packet whose upper header is there.
    fn judge(&mut self, packet: &Packet<'_>, upper: Upper, now: Instant) -> Result<(), DropReason> {
        let Upper { protocol, header, .. } = upper;
        if self.is_error_of_a_flow(packet, header, now) {
            return Ok(());
        }
        let key = sent(protocol, header, ends(packet)).map(FlowKey::reversed);
        let flags = tcp_flags(header);
        let role = Role::of(packet.version(), header);
        let found = key.and_then(|key| self.flows.find(&key, now));

        if let Some((id, Flow { opener: Opener::Us, state, .. })) = found {
            // Somebody who opens does not answer, unless both open at once (RFC 9293 section 3.5): the rules decide.
            if role != Role::Opens || state == State::TcpOpening {
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
                self.open(key, flow, 0, now);
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer goes on with a flow, of a protocol without beginnings, that the rules do not admit: it stays the peer's for
    /// as long as it tries. Otherwise two silent minutes of our side would make it ours.
    fn on_refused(&mut self, key: FlowKey, found: Option<(FlowId, Flow)>, now: Instant) {
        match found {
            Some((id, Flow { opener: Opener::Peer, .. })) => self.flows.on_packet(id, Opener::Peer, 0, now),
            None if self.may_be_theirs(&key, now) => {
                let mut flow = Flow::new(key.protocol, Opener::Peer, now);
                flow.on_packet(Opener::Peer, 0, now);
                self.open(key, flow, 0, now);
            }
            _ => {}
        }
    }

    fn open(&mut self, key: FlowKey, flow: Flow, party: u64, now: Instant) {
        if self.flows.open(key, flow, party, now) {
            return;
        }
        self.unrecorded = Some(now);
        // What explains the flow counts for as long as flows are not recorded.
        if !self.withdrawn.rules(now).is_empty() {
            self.withdrawn.at = now;
        }
    }

    /// The verdict on a later fragment: that on its first.
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
        // A protocol that is listed by its number has no ports to hide. In IPv6 a later fragment's protocol says nothing.
        let listed = |rule: &Rule| rule.protocol == Protocol::Number(upper.protocol) && rule.ports.is_none();
        match packet.version() {
            Version::V4 if self.rules.iter().any(listed) => Ok(()),
            _ => Err(DropReason::FragmentOrphan),
        }
    }

    /// Whether this is an ICMP error about a packet that we sent in a living flow. Redirects are left to the rules: no
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

    /// Whether an unknown flow, of a protocol without beginnings, may be one that the peer opened.
    fn may_be_theirs(&self, key: &FlowKey, now: Instant) -> bool {
        let is_doubtful = self.doubt.as_ref().is_some_and(|doubt| doubt.covers(key, now));
        let may_open = || admits_reverse(&self.rules, key) || admits_reverse(self.withdrawn.rules(now), key);
        is_doubtful || self.is_overflowing(now) && may_open()
    }

    /// Whether flows of the peer may be alive that are not in the table.
    fn is_overflowing(&self, now: Instant) -> bool {
        self.unrecorded.is_some_and(|at| now.since(at) < UDP_TIMEOUT)
    }
}

/// The flow of an inbound packet, if the next packet of the same flow is sure to get the same verdict: not for
/// fragments, ICMP errors, and TCP packets that begin or end a flow.
pub(crate) fn flow_key(packet: &Packet<'_>) -> Option<FlowKey> {
    let Upper { protocol, fragment, header, .. } = packet.upper().ok()?;
    if fragment.is_some() || tcp_flags(header) & (SYN | FIN | RST) != 0 {
        return None;
    }
    sent(protocol, header, ends(packet)).map(FlowKey::reversed)
}

/// Rules that were withdrawn while flows they had admitted may still be alive.
#[derive(Debug, Default)]
struct Withdrawn {
    rules: Vec<Rule>,
    /// The last packet before the last withdrawal: no flow from before it was heard of later.
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

    /// Those that matter still.
    fn rules(&self, now: Instant) -> &[Rule] {
        if now.since(self.at) < TCP_ESTABLISHED_TIMEOUT { &self.rules } else { &[] }
    }
}

/// A packet's place in its flow, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It begins one: a bare SYN, an echo request.
    Opens,
    /// It may be the first of a flow or not: UDP, TCP in mid-stream.
    Continues,
    /// It never begins one: SYN with ACK, RST, an echo reply, and all ICMP that has no flows.
    Answers,
}

impl Role {
    fn of(version: Version, header: Header) -> Self {
        match header {
            Header::Tcp { flags, .. } if flags & RST != 0 => Self::Answers,
            Header::Tcp { flags, .. } if flags & SYN == 0 => Self::Continues,
            Header::Tcp { flags, .. } if flags & ACK == 0 => Self::Opens,
            Header::Tcp { .. } => Self::Answers,
            Header::Icmp { kind, .. } if kind == echo_request(version) => Self::Opens,
            Header::Icmp { .. } | Header::LaterFragment => Self::Answers,
            Header::Udp { .. } | Header::Other => Self::Continues,
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

/// The flow of a packet that we send; that of a packet that we receive is its [`FlowKey::reversed`]. `None` for what has
/// no flow: ICMP other than echo, and later fragments.
fn sent(protocol: u8, header: Header, (source, destination): (IpAddr, IpAddr)) -> Option<FlowKey> {
    let version = if source.is_ipv4() { Version::V4 } else { Version::V6 };
    let (our_port, their_port) = match header {
        Header::Tcp { source, destination, .. } | Header::Udp { source, destination } => {
            (Some(source), Some(destination))
        }
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

/// The port that rules list.
fn destination_port(header: Header) -> Option<u16> {
    match header {
        Header::Tcp { destination, .. } | Header::Udp { destination, .. } => Some(destination),
        _ => None,
    }
}

/// Whether a rule lists this protocol and destination port.
fn admits(rules: &[Rule], version: Version, protocol: u8, port: Option<u16>) -> bool {
    rules.iter().any(|rule| {
        let number = match (rule.protocol, version) {
            (Protocol::Icmp, Version::V4) => ip::ICMP,
            (Protocol::Icmp, Version::V6) => ip::ICMPV6,
            (Protocol::Tcp, _) => ip::TCP,
            (Protocol::Udp, _) => ip::UDP,
            (Protocol::Number(number), _) => number,
        };
        let holds = |ports: &std::ops::RangeInclusive<u16>| port.is_some_and(|port| ports.contains(&port));
        number == protocol && rule.ports.as_ref().is_none_or(holds)
    })
}

/// Whether a rule lets the peer open this flow.
fn admits_reverse(rules: &[Rule], key: &FlowKey) -> bool {
    let version = if key.ours.address.is_ipv4() { Version::V4 } else { Version::V6 };
    admits(rules, version, key.protocol, key.ours.port)
}

#[cfg(test)]
mod tests;
