//! One flow: the side that opened it, its state, and how long it lives.
//!
//! A TCP flow starts as `TcpOpening` with a SYN. It becomes `TcpEstablished` with the first packet without a SYN (or
//! starts there if it is picked up in mid-stream), and `TcpClosing` after a RST or a FIN from both sides. Other
//! protocols have a single state. TCP flags are believed without checking sequence numbers: only the peer itself could
//! forge them.
//!
//! Each state has an idle timeout. A flow that was not renewed for that long is dead, even if it is still in the table.
//! Every packet renews a flow that the peer opened. A flow that we opened lets the peer in, so the peer alone does not
//! keep it open:
//!
//! * Packets of ours renew it, but not those that our kernel sends when no program listens: a RST in a closed
//!   connection, a SYN with ACK in one that we are still opening.
//! * A change of state renews it once. Nothing that the peer sends establishes a connection that we are opening.
//! * Packets of the peer renew it only in protocols without a visible end, and only for [`PEER_ALONE`] after our last
//!   packet. TCP acknowledges what it receives, and each ping has its own reply, so there a live program renews it.

use std::time::Duration;

use overlay_wire::ip;

use crate::Instant;

/// How long an established TCP flow may be silent before it is dead.
pub(super) const TCP_ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// The timeout before the TCP handshake completes. Longer than SYN retransmission takes (63 s by default on Linux).
pub(super) const TCP_OPENING_TIMEOUT: Duration = Duration::from_secs(120);
/// The timeout after a RST or both FINs. It leaves time for the last retransmissions.
pub(super) const TCP_CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout for UDP and every other protocol without a visible end.
pub(super) const UDP_TIMEOUT: Duration = Duration::from_secs(120);
/// The timeout for ICMP echo.
pub(super) const ICMP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after our last packet the peer's packets renew a flow without a visible end. A NAT may ignore what comes from
/// outside (RFC 4787 section 4.3), so programs for the internet send every two minutes: half an hour is 15 times as long,
/// for receivers of media that seldom report.
pub(super) const PEER_ALONE: Duration = Duration::from_secs(30 * 60);
/// How long after our last SYN a SYN of the peer may be a simultaneous open (RFC 9293 section 3.5). Linux waits at most
/// this long for an answer to a SYN.
pub(super) const SIMULTANEOUS_OPEN: Duration = Duration::from_secs(64);

/// The side that sent the first packet of a flow. Also used for the sender of a single packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opener {
    Us,
    Peer,
}

/// The state of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Icmp,
    Udp,
    TcpOpening,
    TcpEstablished,
    TcpClosing,
}

impl State {
    pub(super) const COUNT: usize = 5;

    pub(super) const fn timeout(self) -> Duration {
        match self {
            Self::Icmp => ICMP_TIMEOUT,
            Self::Udp => UDP_TIMEOUT,
            Self::TcpOpening => TCP_OPENING_TIMEOUT,
            Self::TcpEstablished => TCP_ESTABLISHED_TIMEOUT,
            Self::TcpClosing => TCP_CLOSING_TIMEOUT,
        }
    }
}

/// The stage of a TCP connection, for the node that it is handed over to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpStage {
    /// Not all of the handshake was seen.
    Opening,
    /// Both sides have sent packets.
    Established,
    /// After a RST, or after a FIN of each side.
    Closing,
}

/// How valuable a flow is when the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Unanswered, half open or closed. Anyone could create such a flow alone.
    Unproven,
    /// Both sides have sent packets, in a protocol without connections.
    Answered,
    /// An established TCP connection.
    Established,
}

impl Class {
    pub(super) const COUNT: usize = 3;
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// What is known about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) opener: Opener,
    pub(super) state: State,
    /// The sides that have sent a packet.
    seen: Sides,
    /// The sides that have sent a FIN.
    finished: Sides,
    /// When a packet of ours last renewed it. Used only for flows that we opened.
    ours: Millis,
    /// When the flow was last renewed.
    last: Instant,
}

// All tables together hold half a million flows.
const _: () = assert!(size_of::<Flow>() == 16);

impl Flow {
    /// Creates a flow before its first packet.
    pub(super) fn new(protocol: u8, opener: Opener, now: Instant) -> Self {
        let state = match protocol {
            ip::TCP => State::TcpOpening,
            ip::ICMP | ip::ICMPV6 => State::Icmp,
            _ => State::Udp,
        };
        Self { opener, state, seen: Sides::NEITHER, finished: Sides::NEITHER, ours: Millis::of(now), last: now }
    }

    /// Restores a flow that a previous node knew, with the times of its last renewal and of our last renewal.
    pub(super) fn known(protocol: u8, opener: Opener, tcp: Option<TcpStage>, last: Instant, ours: Instant) -> Self {
        let flow = Self { ours: Millis::of(ours.min(last)), ..Self::new(protocol, opener, last) };
        match (flow.state, tcp) {
            (State::TcpOpening, Some(TcpStage::Established)) => {
                Self { state: State::TcpEstablished, seen: Sides::BOTH, ..flow }
            }
            (State::TcpOpening, Some(TcpStage::Closing)) => Self { state: State::TcpClosing, ..flow },
            _ => flow,
        }
    }

    /// The stage of a TCP connection. One in which only one side has sent packets is still opening.
    pub(super) fn tcp_stage(&self) -> Option<TcpStage> {
        match self.state {
            State::Icmp | State::Udp => None,
            State::TcpEstablished if self.class() == Class::Established => Some(TcpStage::Established),
            State::TcpOpening | State::TcpEstablished => Some(TcpStage::Opening),
            State::TcpClosing => Some(TcpStage::Closing),
        }
    }

    /// When the flow was last renewed.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// When a packet of ours last renewed the flow, to the millisecond.
    pub(super) fn last_ours(&self) -> Instant {
        self.last - self.ours.until(self.last)
    }

    /// Records a packet of the flow. `flags` are the TCP flags, and 0 for other protocols.
    pub(super) fn on_packet(&mut self, from: Opener, flags: u8, now: Instant) {
        self.seen.add(from);
        let before = self.state;
        if !matches!(before, State::Icmp | State::Udp) {
            self.on_segment(from, flags);
        }
        if self.state != before || self.is_renewed_by(from, flags, now) {
            self.last = now;
            if from == Opener::Us {
                self.ours = Millis::of(now);
            }
        }
    }

    fn on_segment(&mut self, from: Opener, flags: u8) {
        if flags & RST != 0 {
            self.state = State::TcpClosing;
        } else if flags & SYN != 0 {
            // A SYN after the close reuses the ports for a new connection. Any other SYN is a retransmission.
            if flags & ACK == 0 && self.state == State::TcpClosing {
                self.state = State::TcpOpening;
                self.finished = Sides::NEITHER;
            }
        } else if self.state != State::TcpClosing {
            if flags & FIN != 0 {
                self.finished.add(from);
            }
            let is_ours_to_complete = self.state == State::TcpOpening && self.opener == Opener::Us;
            if self.finished == Sides::BOTH {
                self.state = State::TcpClosing;
            } else if from == Opener::Us || !is_ours_to_complete {
                self.state = State::TcpEstablished;
            }
        }
    }

    /// Whether a packet that leaves the state as it is renews the flow.
    fn is_renewed_by(&self, from: Opener, flags: u8, now: Instant) -> bool {
        match (self.opener, from, self.state) {
            (Opener::Peer, ..) => true,
            (Opener::Us, Opener::Us, State::TcpOpening) => flags & ACK == 0,
            (Opener::Us, Opener::Us, State::TcpClosing) => flags & RST == 0,
            (Opener::Us, Opener::Us, _) => true,
            (Opener::Us, Opener::Peer, State::Udp) => self.ours.until(now) < PEER_ALONE,
            (Opener::Us, Opener::Peer, _) => false,
        }
    }

    /// Whether a SYN of the peer may be part of a flow that we opened: if both sides open the connection at once.
    pub(super) fn admits_syn(&self, now: Instant) -> bool {
        self.state == State::TcpOpening && self.ours.until(now) < SIMULTANEOUS_OPEN
    }

    /// How valuable the flow is when the table is full.
    pub(super) fn class(&self) -> Class {
        match self.state {
            _ if self.seen != Sides::BOTH => Class::Unproven,
            State::TcpOpening | State::TcpClosing => Class::Unproven,
            State::Icmp | State::Udp => Class::Answered,
            State::TcpEstablished => Class::Established,
        }
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        now.since(self.last) < self.state.timeout()
    }
}

/// None, one or both of the sides of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sides(u8);

impl Sides {
    const NEITHER: Self = Self(0);
    const BOTH: Self = Self(1 << Opener::Us as u8 | 1 << Opener::Peer as u8);

    fn add(&mut self, side: Opener) {
        self.0 |= 1 << side as u8;
    }
}

/// A moment in milliseconds since the clock's start, modulo 2^32. It takes half the memory of an [`Instant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Millis(u32);

impl Millis {
    fn of(at: Instant) -> Self {
        Self(at.millis() as u32)
    }

    /// Returns the time from this moment to `later`. Correct up to 49 days, and a flow that we opened dies within hours of
    /// our last packet.
    fn until(self, later: Instant) -> Duration {
        Duration::from_millis(Self::of(later).0.wrapping_sub(self.0).into())
    }
}
