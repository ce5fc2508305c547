//! Where the node's outputs go: sockets, TUN, timer and control.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::iter;
use std::net::SocketAddr;
use std::sync::Arc;

use overlay_core::{Command, Instant, Node, Output, PacketOut, PathTag, PeerTag, Transmit};
use overlay_os::poll::Timer;
use overlay_os::tun::Tun;
use overlay_os::udp::{self, SendError};

use super::datagrams::Datagram;
use super::refusals::Refusals;
use super::reports::Events;
use super::shell::{ShellStats, add};
use super::{Sockets, now};

/// How many times the node may answer a refusal with an output that is refused again, before packets get their turn. A
/// search that our own kernel refuses has about twenty steps. Remaining refusals are reported in the next turn.
const REFUSED_ROUNDS: usize = 32;

/// The tag of a datagram whose failure concerns no peer.
const NOBODY: u64 = u64::MAX;

/// Carries the node's outputs.
pub(super) struct Carrier {
    pub(super) tun: Tun,
    pub(super) sockets: Sockets,
    pub(super) timer: Timer,
    pub(super) stats: Arc<ShellStats>,
    pub(super) refusals: Refusals,
    /// Datagrams that were too long for the outgoing device, to be reported to the node: their path and length.
    pub(super) too_long: RefCell<Vec<(PathTag, usize)>>,
    /// Initiations that this host could not send, to be reported to the node: their peer and destination.
    pub(super) unsent: RefCell<Vec<(PeerTag, SocketAddr)>>,
}

impl Carrier {
    /// Carries all outputs. Reports failures to the node, and carries its further outputs.
    pub(super) fn carry(&self, node: &mut Node, events: &mut Events) -> io::Result<()> {
        self.carry_once(node, events)?;
        for _ in 0..REFUSED_ROUNDS {
            if self.too_long.borrow().is_empty() && self.unsent.borrow().is_empty() {
                break;
            }
            for (peer, destination) in self.unsent.take() {
                node.handle_unsent(peer, destination, now());
            }
            for (path, len) in self.too_long.take() {
                node.handle_refused(path, len, now());
            }
            self.carry_once(node, events)?;
        }
        Ok(())
    }

    /// Carries the outputs once. Consecutive datagrams share a system call.
    fn carry_once(&self, node: &mut Node, events: &mut Events) -> io::Result<()> {
        let mut outputs = node.poll_outputs().peekable();
        while let Some(output) = outputs.next() {
            match output {
                Output::Transmit(first) => {
                    let is_v4 = first.destination.is_ipv4();
                    let next = || match outputs.next_if(|output| is_transmit(output, is_v4)) {
                        Some(Output::Transmit(next)) => Some(next),
                        _ => None,
                    };
                    self.transmit(is_v4, iter::once(first).chain(iter::from_fn(next)));
                }
                Output::Packet(packet) => self.deliver(&packet),
                Output::Foreign(foreign) => {
                    if !events.incoming.push(&foreign) {
                        add(&self.stats.foreign_datagrams_dropped, 1);
                    }
                }
                Output::Event(event) => {
                    if !events.push(event) {
                        add(&self.stats.events_merged, 1);
                    }
                }
                Output::Timeout(at) => self.timer.set(at.map(Instant::since_start))?,
            }
        }
        drop(outputs);
        if let Some(joins) = self.refusals.take_news() {
            // This command cannot fail.
            let _ = node.handle_command(Command::SetJoins(joins), now());
        }
        Ok(())
    }

    /// Sends trains to destinations of one address family.
    fn transmit<'a>(&self, is_v4: bool, transmits: impl Iterator<Item = Transmit<'a>>) {
        let Some(socket) = (if is_v4 { &self.sockets.v4 } else { &self.sockets.v6 }) else {
            let count = transmits.inspect(|transmit| self.on_unsent(transmit.call_for, transmit.destination)).count();
            return add(&self.stats.udp_send_no_socket, count as u64);
        };
        let mut trains = 0;
        let trains_to_send = transmits.inspect(|_| trains += 1).map(|transmit| {
            let Transmit { destination, via, contents, segment_size, traffic_class, ttl, whole_for, call_for } =
                transmit;
            let dont_fragment = whole_for.is_some();
            let called = call_for.map(|peer| u64::from(peer.to_bits()));
            let tag = whole_for.map(PathTag::to_bits).or(called).unwrap_or(NOBODY);
            udp::Transmit {
                destination,
                source: via.local,
                is_pinned: via.is_pinned,
                contents,
                segment_size,
                traffic_class,
                ttl,
                dont_fragment,
                tag,
            }
        });
        let calls = socket.send_batch(trains_to_send, |transmit, error| self.on_failed(transmit, &error));
        add(&self.stats.udp_sends, calls as u64);
        add(&self.stats.udp_sent_trains, trains);
    }

    /// Sends a datagram of control. It is lost if this host cannot send there.
    pub(super) fn send(&self, datagram: &Datagram) {
        let Datagram { remote, via, contents } = datagram;
        let whole = Transmit {
            destination: *remote,
            via: *via,
            contents,
            segment_size: contents.len(),
            traffic_class: 0,
            ttl: None,
            whole_for: None,
            call_for: None,
        };
        add(&self.stats.control_datagrams, 1);
        self.transmit(remote.is_ipv4(), iter::once(whole));
    }

    fn on_failed(&self, transmit: &udp::Transmit<'_>, error: &SendError) {
        match error {
            SendError::WouldBlock => add(&self.stats.udp_send_would_block, 1),
            SendError::MessageTooLong => {
                add(&self.stats.udp_too_long, 1);
                if transmit.dont_fragment {
                    let len = transmit.segment_size.min(transmit.contents.len());
                    self.too_long.borrow_mut().push((PathTag::from_bits(transmit.tag), len));
                }
            }
            error => {
                tracing::debug!(%error, destination = %transmit.destination, "not sent");
                add(&self.stats.udp_send_errors, 1);
                let is_call = !transmit.dont_fragment && transmit.tag != NOBODY;
                self.on_unsent(is_call.then(|| PeerTag::from_bits(transmit.tag as u32)), transmit.destination);
            }
        }
    }

    fn on_unsent(&self, call_for: Option<PeerTag>, destination: SocketAddr) {
        self.unsent.borrow_mut().extend(call_for.map(|peer| (peer, destination)));
    }

    fn deliver(&self, packet: &PacketOut<'_>) {
        let header = packet.header.encode();
        let skipped = if self.tun.has_offload() { 0 } else { 1 };
        let mut parts = [IoSlice::new(&[]); PacketOut::MAX_PARTS + 1];
        let mut count = 0;
        for part in iter::once(&header[..]).chain(packet.parts()).skip(skipped) {
            parts[count] = IoSlice::new(part);
            count += 1;
        }
        add(&self.stats.tun_writes, 1);
        match self.tun.write(&parts[..count]) {
            Ok(_) => self.refusals.on_taken(&packet.header),
            Err(error) => self.deliver_otherwise(packet, error),
        }
    }

    fn deliver_otherwise(&self, packet: &PacketOut<'_>, error: io::Error) {
        match self.refusals.on_refused(&self.tun, &packet.header, packet.parts(), error, &self.stats) {
            Ok(segments) => add(&self.stats.tun_writes, segments as u64),
            Err(error) => {
                tracing::debug!(%error, "not written to TUN");
                add(&self.stats.tun_write_errors, 1);
            }
        }
    }
}

/// Whether the next output goes to the same socket.
fn is_transmit(output: &Output<'_>, is_v4: bool) -> bool {
    matches!(output, Output::Transmit(transmit) if transmit.destination.is_ipv4() == is_v4)
}
