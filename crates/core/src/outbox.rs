//! Datagrams, packets and events that wait to be carried away, in order. Their bytes lie in one arena that is reused once
//! it was drained.
//!
//! A message is written in the outbox's *room* ([`Outbox::room`]) and becomes a value there ([`Draft`]). That value is then
//! judged, transmitted or delivered. It owns its bytes: everything that is sent before it lies behind it in the arena. A
//! draft that is dropped leaves a hole in the arena until the arena is drained.

use std::net::SocketAddr;
use std::ops::Range;
use std::vec;

use overlay_wire::offload::VirtioHeader;
use overlay_wire::relay::DATA_HEAD_LEN;

use crate::output::{Foreign, Output, PacketOut, Transmit, Via};
use crate::{Event, Instant, PathTag, PeerTag};

/// The most datagrams in one train, and the most bytes: the limits of one UDP_SEGMENT send on every kernel.
const TRAIN_DATAGRAMS: usize = 64;
const TRAIN_LEN: usize = 65_507;

/// All outputs that wait, in order. [`Output::Timeout`] is the last. Their bytes are lent together, so that many can be
/// sent with one system call. Outputs that are not taken are lost.
pub struct Outputs<'a> {
    arena: &'a [u8],
    parts: &'a [Range<usize>],
    entries: vec::Drain<'a, Entry>,
    timeout: Option<Option<Instant>>,
}

impl<'a> Iterator for Outputs<'a> {
    type Item = Output<'a>;

    fn next(&mut self) -> Option<Output<'a>> {
        let Some(entry) = self.entries.next() else { return self.timeout.take().map(Output::Timeout) };
        Some(match entry {
            Entry::Transmit { heading, range, segment_size, call_for } => Output::Transmit(Transmit {
                destination: heading.destination,
                via: heading.via,
                contents: &self.arena[range],
                segment_size,
                traffic_class: heading.traffic_class,
                ttl: heading.ttl,
                whole_for: heading.whole_for,
                call_for,
            }),
            Entry::Packet { header, parts } => {
                Output::Packet(PacketOut { header, arena: self.arena, parts: &self.parts[parts] })
            }
            Entry::Foreign { source, via, range } => {
                Output::Foreign(Foreign { source, via, contents: &self.arena[range] })
            }
            Entry::Event(event) => Output::Event(event),
        })
    }
}

#[derive(Default)]
pub(crate) struct Outbox {
    arena: Vec<u8>,
    used: usize,
    /// The pieces of all packets.
    parts: Vec<Range<usize>>,
    entries: Vec<Entry>,
}

enum Entry {
    Transmit { heading: Heading, range: Range<usize>, segment_size: usize, call_for: Option<PeerTag> },
    Packet { header: VirtioHeader, parts: Range<usize> },
    Foreign { source: SocketAddr, via: Via, range: Range<usize> },
    Event(Event),
}

/// Where a datagram goes, and how. See [`Transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub(crate) destination: SocketAddr,
    pub(crate) via: Via,
    pub(crate) traffic_class: u8,
    pub(crate) ttl: Option<u8>,
    pub(crate) whole_for: Option<PathTag>,
}

/// A message or packet that was written and not yet sent.
#[derive(Debug)]
#[must_use]
pub(crate) struct Draft {
    start: usize,
    len: usize,
}

impl Draft {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The same draft, cut to its first `len` bytes.
    pub(crate) fn truncated(self, len: usize) -> Self {
        Self { len: self.len.min(len), ..self }
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// A packet that waits in the outbox; valid until the next output is taken.
#[derive(Clone, Copy)]
pub(crate) struct PacketId(usize);

impl Outbox {
    /// Returns room for `len` bytes after those in use. [`Outbox::draft`] keeps what was written there.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.arena.len() < end {
            self.arena.resize(end, 0);
        }
        &mut self.arena[self.used..end]
    }

    /// Keeps the first `len` bytes of the room, which were just written.
    pub(crate) fn draft(&mut self, len: usize) -> Draft {
        if self.used == 0 {
            // The earlier contents were carried away with the arena.
            self.parts.clear();
        }
        let start = self.used;
        self.used = self.arena.len().min(start + len);
        Draft { start, len: self.used - start }
    }

    /// Copies `bytes` into the room as a draft.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Draft {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.draft(bytes.len())
    }

    /// Returns the bytes of a draft.
    pub(crate) fn read(&self, draft: &Draft) -> &[u8] {
        &self.arena[draft.range()]
    }

    /// Returns the bytes of a draft, to be changed.
    pub(crate) fn edit(&mut self, draft: &Draft) -> &mut [u8] {
        &mut self.arena[draft.range()]
    }

    /// Sends a message as one datagram, behind what a relay needs in front of it.
    pub(crate) fn send(&mut self, message: Draft, heading: Heading) {
        let datagram = self.led(message, heading.via);
        let len = datagram.len();
        self.transmit(datagram, len, heading);
    }

    /// The message behind what a relay needs in front of it.
    fn led(&mut self, message: Draft, via: Via) -> Draft {
        let Some(channel) = via.channel else { return message };
        let len = DATA_HEAD_LEN + message.len;
        let start = self.used;
        self.room(len)[..DATA_HEAD_LEN].copy_from_slice(&channel.head());
        self.arena.copy_within(message.range(), start + DATA_HEAD_LEN);
        self.draft(len)
    }

    /// Sends a draft as datagrams of `segment_size` bytes, with what a relay needs in front of each. They join the train before
    /// them if they go the same way. So packets that are too small or too few for a super-packet still travel together.
    pub(crate) fn transmit(&mut self, draft: Draft, segment_size: usize, heading: Heading) {
        let (len, range) = (draft.len, draft.range());
        if let Some(Entry::Transmit { heading: same, range: train, segment_size: stride, call_for: None }) =
            self.entries.last_mut()
            && (*same, *stride) == (heading, segment_size)
            && train.end == range.start
            && train.len() % segment_size == 0
            && train.len() + len <= TRAIN_LEN.min(TRAIN_DATAGRAMS * segment_size)
        {
            train.end = range.end;
            return;
        }
        self.entries.push(Entry::Transmit { heading, range, segment_size, call_for: None });
    }

    /// Sends a copy of a draft of datagrams of `segment_size` bytes on a different way. `lead`: how many bytes of each are what a
    /// relay needs in front of it.
    pub(crate) fn mirror(&mut self, draft: &Draft, (segment_size, lead): (usize, usize), heading: Heading) {
        let head = heading.via.channel.map(|channel| channel.head());
        let head = head.as_ref().map_or(&[][..], |head| &head[..]);
        let start = self.used;
        let mut at = draft.start;
        let end = draft.start + draft.len;
        while at < end {
            let range = at + lead..end.min(at + segment_size);
            self.room(head.len() + range.len())[..head.len()].copy_from_slice(head);
            self.arena.copy_within(range.clone(), self.used + head.len());
            self.used += head.len() + range.len();
            at += segment_size;
        }
        let copy = Draft { start, len: self.used - start };
        let segment_size = segment_size - lead + head.len();
        self.entries.push(Entry::Transmit { heading, range: copy.range(), segment_size, call_for: None });
    }

    /// Sends a message as one separate datagram, which is an initiation to this peer.
    pub(crate) fn call(&mut self, message: Draft, heading: Heading, peer: PeerTag) {
        let range = self.led(message, heading.via).range();
        let segment_size = range.len();
        self.entries.push(Entry::Transmit { heading, range, segment_size, call_for: Some(peer) });
    }

    /// Writes a draft to TUN. Returns the id of the packet for [`Outbox::extend`].
    pub(crate) fn packet(&mut self, header: VirtioHeader, draft: Draft) -> PacketId {
        let first = self.parts.len();
        self.parts.push(draft.range());
        self.entries.push(Entry::Packet { header, parts: first..first + 1 });
        PacketId(self.entries.len() - 1)
    }

    /// Returns the first piece of a packet, and the bytes of a draft.
    pub(crate) fn packet_and_draft(&self, id: PacketId, draft: &Draft) -> Option<(&[u8], &[u8])> {
        let Some(Entry::Packet { parts, .. }) = self.entries.get(id.0) else { return None };
        let first = self.parts.get(parts.start)?.clone();
        Some((&self.arena[first], self.read(draft)))
    }

    /// Appends a draft, without its first `skip` bytes, to a packet. Returns the draft if that packet is full or is not the
    /// last one.
    pub(crate) fn extend(&mut self, id: PacketId, skip: usize, draft: Draft) -> Result<(), Draft> {
        let end = self.parts.len();
        match self.entries.get_mut(id.0) {
            Some(Entry::Packet { parts, .. }) if parts.end == end && parts.len() < PacketOut::MAX_PARTS => {
                parts.end += 1;
            }
            _ => return Err(draft),
        }
        let range = draft.range();
        self.parts.push(range.start + skip..range.end);
        Ok(())
    }

    /// Gives a packet its final headers: the virtio header, and whatever `finish` changes in its first piece.
    pub(crate) fn complete(&mut self, id: PacketId, finish: impl FnOnce(&mut [u8]) -> VirtioHeader) {
        if let Some(Entry::Packet { header, parts }) = self.entries.get_mut(id.0)
            && let Some(first) = self.parts.get(parts.start)
        {
            *header = finish(&mut self.arena[first.clone()]);
        }
    }

    /// Tells control of a datagram that belongs to no peer.
    pub(crate) fn foreign(&mut self, source: SocketAddr, via: Via, datagram: &[u8]) {
        let range = self.copy(datagram).range();
        self.entries.push(Entry::Foreign { source, via, range });
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.entries.push(Entry::Event(event));
    }

    /// Returns all outputs that wait, then `timeout`. The arena is empty afterwards.
    pub(crate) fn outputs(&mut self, timeout: Option<Instant>) -> Outputs<'_> {
        self.used = 0;
        let entries = self.entries.drain(..);
        Outputs { arena: &self.arena, parts: &self.parts, entries, timeout: Some(timeout) }
    }
}

#[cfg(test)]
mod tests;
