//! Receiving many trains in one system call.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use super::UdpSocket;
use crate::socket::{ControlBuffer, ControlMessage, MESSAGES_MAX, Outcome, RawAddress, control_messages, receive_many};

/// Length of one slot in bytes. No datagram and no joined train is longer.
const SLOT_LEN: usize = 65_536;

/// The two ECN bits of the traffic class (RFC 3168).
const ECN_MASK: u8 = 0b11;

impl UdpSocket {
    /// Receives waiting trains in one system call: at most `slots`, and at most as many as `batch` can hold. Returns
    /// how many there were, 0 if none. [`ReceiveBatch::iter_mut`] yields them.
    ///
    /// # Errors
    /// Fails if the system call fails for any reason except that nothing has arrived. The batch is then empty.
    pub fn receive(&self, batch: &mut ReceiveBatch, slots: usize) -> io::Result<usize> {
        batch.filled = 0;
        let slots = slots.min(batch.slots());
        let received = match receive_many(
            self.as_fd(),
            &mut batch.contents[..slots * SLOT_LEN],
            SLOT_LEN,
            &mut batch.sources[..slots],
            &mut batch.controls[..slots],
            &mut batch.outcomes[..slots],
        ) {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        batch.filled = received;
        for slot in 0..received {
            let mut beside = Beside { stride: batch.outcomes[slot].len, ..Beside::default() };
            for message in control_messages(&batch.controls[slot]) {
                match message {
                    ControlMessage::Stride(stride) => beside.stride = stride,
                    ControlMessage::Local(ip, interface) => beside.local = Some((ip, interface)),
                    ControlMessage::TrafficClass(class) => beside.ecn = class & ECN_MASK,
                    ControlMessage::HopLimit(_) | ControlMessage::Namespace(_) => {}
                }
            }
            batch.beside[slot] = beside;
        }
        let len: usize = batch.outcomes[..received].iter().map(|outcome| outcome.len).sum();
        batch.usual_len = len.checked_div(received).unwrap_or(batch.usual_len);
        Ok(received)
    }
}

/// Space for many trains, allocated once and reused for every receive.
#[derive(Debug)]
pub struct ReceiveBatch {
    contents: Box<[u8]>,
    sources: Box<[RawAddress]>,
    controls: Box<[ControlBuffer]>,
    outcomes: Box<[Outcome]>,
    beside: Box<[Beside]>,
    /// How many slots the last receive filled.
    filled: usize,
    /// The mean length of the trains in the last receive that returned any.
    usual_len: usize,
}

/// The content of one train's control messages.
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    stride: usize,
    local: Option<(IpAddr, u32)>,
    ecn: u8,
}

/// A received train: datagrams from one source, back to back.
#[derive(Debug)]
pub struct Received<'a> {
    /// All datagrams of the train.
    pub contents: &'a mut [u8],
    /// Length of each datagram except the last, in bytes. The last may be shorter. For a single datagram,
    /// `contents.len()`.
    pub stride: usize,
    /// The source address.
    pub source: SocketAddr,
    /// The local address that it was sent to, and the index of the incoming interface.
    pub local: Option<(IpAddr, u32)>,
    /// The two ECN bits of the outer header.
    pub ecn: u8,
    /// Whether the datagram was longer than a slot and was truncated.
    pub truncated: bool,
}

impl ReceiveBatch {
    /// Creates space for `slots` trains, 1 to 64, of 64 KiB each. Memory that is never written is never allocated.
    pub fn new(slots: usize) -> Self {
        let slots = slots.clamp(1, MESSAGES_MAX);
        Self {
            contents: vec![0; slots * SLOT_LEN].into(),
            sources: vec![RawAddress::default(); slots].into(),
            controls: vec![ControlBuffer::default(); slots].into(),
            outcomes: vec![Outcome::default(); slots].into(),
            beside: vec![Beside::default(); slots].into(),
            filled: 0,
            usual_len: 0,
        }
    }

    /// The most trains that one receive delivers.
    pub fn slots(&self) -> usize {
        self.outcomes.len()
    }

    /// How many trains to receive for about `len` bytes, from 1 to all slots, assuming that they are as long as the
    /// last ones.
    pub fn slots_for(&self, len: usize) -> usize {
        len.checked_div(self.usual_len).unwrap_or(usize::MAX).clamp(1, self.slots())
    }

    /// The trains of the last receive, in the order in which they arrived.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Received<'_>> {
        let about = self.sources.iter().zip(&self.outcomes).zip(&self.beside);
        self.contents.chunks_exact_mut(SLOT_LEN).zip(about).take(self.filled).filter_map(
            |(slot, ((source, outcome), beside))| {
                Some(Received {
                    contents: &mut slot[..outcome.len],
                    stride: beside.stride,
                    // Every UDP datagram has a source address.
                    source: source.decode()?,
                    local: beside.local,
                    ecn: beside.ecn,
                    truncated: outcome.truncated,
                })
            },
        )
    }
}
