//! Sending trains: many messages in one system call, and an alternative for each message that the kernel refuses.
//!
//! A train is cut into messages. A message is as many datagrams as UDP_SEGMENT takes at once, or a single datagram if
//! there is no segmentation. Messages of different trains, to any destination, share a system call. The kernel stops at
//! the first message that it refuses. That message is sent in a different way, or given up with the rest of its train,
//! and the others continue. DF is a setting of the socket, so all trains in a system call have the same setting.

use std::array;
use std::io;
use std::iter;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

use super::source::Leaving;
use super::{Family, SendError, Transmit, UdpSocket};
use crate::clock::boottime;
use crate::socket::{ControlBuffer, Outgoing, RawAddress, send_many};

/// The most messages in one system call. At this number, the cost of the call itself is small compared to theirs.
const BATCH_MAX: usize = 32;

/// The longest payload of one message over IPv4, in bytes: 65,535 minus the IP and UDP headers. IPv6 would allow 20
/// more.
const PAYLOAD_MAX: usize = 65_507;

impl UdpSocket {
    /// Sends trains in order, in as few system calls as the kernel allows, and returns how many it took. Never blocks.
    /// If a source address is no longer ours, it is dropped for that train and the routing table chooses.
    ///
    /// A train that cannot be sent is passed to `on_failed` once, and the trains after it are still sent. Some of its
    /// earlier datagrams may have gone out.
    pub fn send_batch<'a>(
        &self,
        transmits: impl IntoIterator<Item = Transmit<'a>>,
        on_failed: impl FnMut(&Transmit<'a>, SendError),
    ) -> usize {
        let mut batch = Batch::new(self, on_failed);
        for (number, transmit) in transmits.into_iter().enumerate() {
            batch.add(number, &transmit);
        }
        batch.send();
        batch.calls
    }

    /// The train with a source that the routing table agrees with, or without a source.
    fn with_living_source<'a>(&self, transmit: &Transmit<'a>) -> Transmit<'a> {
        let Transmit { source, destination: to, is_pinned, .. } = *transmit;
        let choose = |source| self.sources.choose(Leaving { source, to, is_pinned }, self.mark.load(Relaxed), boottime);
        Transmit { source: source.and_then(choose), ..*transmit }
    }

    /// How many bytes of a train go into one message.
    fn message_len(&self, transmit: &Transmit<'_>) -> usize {
        let segment_size = transmit.segment_size.max(1);
        let most = self.max_segments();
        if most > 1
            && !transmit.dont_fragment
            && transmit.contents.len() > segment_size
            && !self.narrow.may_fit(transmit.destination.ip(), segment_size, boottime)
        {
            self.sending.narrow_trains.fetch_add(1, Relaxed);
            return segment_size;
        }
        (PAYLOAD_MAX / segment_size).clamp(1, most) * segment_size
    }
}

/// Messages that wait for a system call.
struct Batch<'a, 's, F> {
    socket: &'s UdpSocket,
    on_failed: F,
    messages: [Option<Message<'a>>; BATCH_MAX],
    count: usize,
    /// The number of the train that failed last. The rest of it is not sent.
    failed: Option<usize>,
    /// The number of system calls so far.
    calls: usize,
}

/// One message: a whole train or a part of one.
#[derive(Debug)]
struct Message<'a> {
    transmit: Transmit<'a>,
    /// The position of its train in the batch.
    number: usize,
    contents: &'a [u8],
    destination: RawAddress,
    control: ControlBuffer,
}

impl<'a, F: FnMut(&Transmit<'a>, SendError)> Batch<'a, '_, F> {
    fn new<'s>(socket: &'s UdpSocket, on_failed: F) -> Batch<'a, 's, F> {
        let messages = array::from_fn(|_| None);
        Batch { socket, on_failed, messages, count: 0, failed: None, calls: 0 }
    }

    /// Adds a train, and sends the batch whenever it is full.
    fn add(&mut self, number: usize, transmit: &Transmit<'a>) {
        if transmit.destination.is_ipv4() != (self.socket.family == Family::V4) {
            let error = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
            return (self.on_failed)(transmit, error.into());
        }
        if transmit.dont_fragment != self.socket.dont_fragment.get() {
            self.send();
            if let Err(error) = self.socket.set_dont_fragment(transmit.dont_fragment) {
                return (self.on_failed)(transmit, error.into());
            }
        }
        let transmit = &self.socket.with_living_source(transmit);
        for contents in transmit.contents.chunks(self.socket.message_len(transmit)) {
            if self.count == BATCH_MAX {
                self.send();
            }
            if self.failed == Some(number) {
                return;
            }
            self.messages[self.count] = Some(Message::new(*transmit, number, contents));
            self.count += 1;
        }
    }

    /// Sends all waiting messages.
    fn send(&mut self) {
        let mut next = 0;
        while next < self.count {
            self.calls += 1;
            match send_many(
                self.socket.as_fd(),
                self.messages[next..self.count].iter().flatten().map(Message::outgoing),
            ) {
                Ok(sent) => next += sent,
                Err(error) => next += self.on_refused(next, error),
            }
        }
        self.count = 0;
    }

    /// Handles the refusal of the message at `at`. Returns how many messages are done: more than one if the rest of the
    /// train is given up.
    fn on_refused(&mut self, at: usize, error: io::Error) -> usize {
        let Some(message) = &self.messages[at] else { return 1 };
        let number = message.number;
        let Err(error) = self.socket.send_otherwise(message, error, &mut self.calls) else { return 1 };
        if error.raw_os_error() == Some(libc::EMSGSIZE) && message.transmit.dont_fragment {
            self.socket.send_last(message, &mut self.calls);
        }
        (self.on_failed)(&message.transmit, error.into());
        self.failed = Some(number);
        self.messages[at..self.count].iter().flatten().take_while(|message| message.number == number).count()
    }
}

impl UdpSocket {
    /// Sends a message that was refused with `error` in a different way, if that error leaves one.
    fn send_otherwise(&self, message: &Message<'_>, error: io::Error, calls: &mut usize) -> io::Result<()> {
        let error = match error.raw_os_error() {
            Some(libc::EIO) if message.is_segmented() => {
                self.on_segmentation_broken();
                self.send_singly(message, calls)
            }
            // A datagram does not fit the route's MTU. The kernel does not fragment the datagrams of a train, but it
            // does fragment single ones unless DF is set. Segmentation stays on, because the next route may be wider.
            // Older kernels return EINVAL.
            Some(libc::EINVAL | libc::EMSGSIZE) if message.is_segmented() => {
                let sent = self.send_singly(message, calls);
                if sent.is_ok() && !message.transmit.dont_fragment {
                    self.on_narrow_way(message.transmit.destination.ip(), message.segment_size());
                }
                sent
            }
            _ => Err(error),
        };
        match error {
            Err(error) if message.source().is_some() && is_stale_source(&error) => {
                let transmit = Transmit { source: None, ..message.transmit };
                let message = Message::new(transmit, message.number, message.contents);
                *calls += 1;
                match send_many(self.as_fd(), iter::once(message.outgoing())) {
                    Ok(_) => Ok(()),
                    Err(error) => self.send_otherwise(&message, error, calls),
                }
            }
            result => result,
        }
    }

    /// Sends the datagrams of a message separately, as many as possible in one system call.
    fn send_singly(&self, message: &Message<'_>, calls: &mut usize) -> io::Result<()> {
        let (segment_size, control) = (message.segment_size(), message.control_of_one());
        let mut rest = message.contents;
        while !rest.is_empty() {
            let one = |contents| Outgoing { destination: &message.destination, contents, control: &control };
            *calls += 1;
            let sent = send_many(self.as_fd(), rest.chunks(segment_size).map(one))?;
            rest = rest.get(sent * segment_size..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sends the last datagram of a train whose datagrams are too long. The last one may be shorter and fit.
    fn send_last(&self, refused: &Message<'_>, calls: &mut usize) {
        let (contents, segment_size) = (refused.transmit.contents, refused.segment_size());
        let last = &contents[contents.len() - contents.len() % segment_size..];
        // The refused message was the last datagram itself.
        if last.is_empty() || refused.contents.len() < segment_size {
            return;
        }
        *calls += 1;
        let control = refused.control_of_one();
        // If this fails too, its loss has already been reported with the train.
        let _ = send_many(
            self.as_fd(),
            iter::once(Outgoing { destination: &refused.destination, contents: last, control: &control }),
        );
    }
}

impl<'a> Message<'a> {
    fn new(transmit: Transmit<'a>, number: usize, contents: &'a [u8]) -> Self {
        let destination = RawAddress::new(transmit.destination);
        let mut message = Self { transmit, number, contents, destination, control: ControlBuffer::default() };
        message.control = message.control_of_one();
        // A message with two or more datagrams has at most 65,507 bytes, so the conversion always succeeds.
        if message.is_segmented()
            && let Ok(size) = u16::try_from(message.segment_size())
        {
            message.control.push_segment_size(size);
        }
        message
    }

    /// The control messages for a single datagram of this message.
    fn control_of_one(&self) -> ControlBuffer {
        let mut control = ControlBuffer::default();
        if let Some((ip, interface)) = self.source() {
            control.push_source(ip, interface);
        }
        if self.transmit.traffic_class != 0 {
            control.push_traffic_class(self.transmit.destination.is_ipv4(), self.transmit.traffic_class);
        }
        if let Some(ttl) = self.transmit.ttl {
            control.push_hop_limit(self.transmit.destination.is_ipv4(), ttl);
        }
        control
    }

    fn source(&self) -> Option<(IpAddr, u32)> {
        self.transmit.source.filter(|(ip, _)| ip.is_ipv4() == self.transmit.destination.is_ipv4())
    }

    fn segment_size(&self) -> usize {
        self.transmit.segment_size.max(1)
    }

    fn is_segmented(&self) -> bool {
        self.contents.len() > self.segment_size()
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing { destination: &self.destination, contents: self.contents, control: &self.control }
    }
}

/// Whether the kernel's error means that a source address or its interface is gone.
fn is_stale_source(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENODEV | libc::ENETDOWN
        )
    )
}

#[cfg(test)]
mod tests;
