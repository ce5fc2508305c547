//! The mailboxes: sealed messages that wait until their recipients acknowledge them.
//!
//! A mailbox has two halves of equal size. Strangers share one half, with one message for each. Friends have the other:
//! senders with a permit signed by the recipient, and those for whom the recipient has left a message or its endpoints. A half
//! that is full drops the oldest message of the same sender. If the sender has none there, the message is refused, so nobody
//! can push out what others sent.
//!
//! A message that was acknowledged leaves a receipt behind until its time is over. A sender that missed the push learns
//! from it, and the same message sent again is not delivered a second time.
//!
//! Left out: the store, time and who is connected. A message counts from the moment it is admitted, and is shown once
//! it is on disk ([`Mailboxes::on_kept`]).

mod ledgers;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use overlay_wire::signed::PublicKey;

pub(crate) use ledgers::{Entering, Ledgers};
pub(crate) use slots::{Placement, SlotKey, Slots};

/// The most messages in a half of a mailbox.
pub(crate) const MAX_HALF: usize = 32;
/// The most sealed bytes in a half of a mailbox.
pub(crate) const MAX_HALF_LEN: usize = 128 * 1_024;
/// The most receipts of a mailbox. The oldest one makes room.
pub(crate) const MAX_RECEIPTS: usize = 64;

/// What an entry costs in memory beside its sealed bytes. It counts towards the bound of all entries together.
pub(crate) const OVERHEAD: usize = 256;

/// The sender and the id of a message.
pub(crate) type MessageKey = (PublicKey, [u8; 16]);

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The sealed bytes. `None`: it was acknowledged, and this is its receipt.
    pub(crate) sealed: Option<Vec<u8>>,
    /// When it came, in milliseconds since 1970.
    pub(crate) arrived: u64,
    /// Whether its sender is a friend of the recipient.
    pub(crate) is_permitted: bool,
    /// Whether it is on disk.
    pub(crate) is_kept: bool,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It counts from now on. These messages were dropped for it.
    Admitted {
        /// Their senders and ids.
        dropped: Vec<MessageKey>,
    },
    /// It is here already, or was.
    Known {
        /// Whether it is on disk.
        is_kept: bool,
        /// Whether it was acknowledged.
        is_delivered: bool,
    },
    /// There is no room for this sender.
    Full,
}

/// All mailboxes.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    boxes: BTreeMap<PublicKey, BTreeMap<MessageKey, Message>>,
    /// The receipts of which each sender was not told: the recipient and the id.
    untold: BTreeMap<PublicKey, BTreeSet<(PublicKey, [u8; 16])>>,
    /// What all entries cost.
    len: usize,
    max_len: usize,
}

impl Mailboxes {
    /// Mailboxes whose messages and receipts cost at most `max_len` together.
    pub(crate) fn new(max_len: usize) -> Self {
        Self { boxes: BTreeMap::new(), untold: BTreeMap::new(), len: 0, max_len }
    }

    /// Decides about a new message.
    pub(crate) fn admit(&mut self, to: PublicKey, key: MessageKey, message: Message) -> Admission {
        let mailbox = self.boxes.entry(to).or_default();
        if let Some(known) = mailbox.get(&key) {
            return Admission::Known { is_kept: known.is_kept, is_delivered: known.sealed.is_none() };
        }
        let len = message.len();
        let half =
            || mailbox.iter().filter(|(_, other)| other.is_waiting() && other.is_permitted == message.is_permitted);
        let mut count = half().count();
        let mut sum: usize = half().map(|(_, other)| other.len()).sum();
        let mut own: Vec<_> = half()
            .filter(|((from, _), _)| *from == key.0)
            .map(|(own, other)| (other.arrived, *own, other.len()))
            .collect();
        own.sort_unstable();
        let mut own = own.into_iter();
        let mut dropped = Vec::new();
        let mut freed = 0;
        // A stranger's share is one message. It is full with the first.
        let mut is_over = !message.is_permitted && own.len() > 0;
        while is_over || count >= MAX_HALF || sum + len > MAX_HALF_LEN {
            let Some((_, oldest, oldest_len)) = own.next() else { return self.refuse(to) };
            dropped.push(oldest);
            (count, sum, freed) = (count - 1, sum - oldest_len, freed + OVERHEAD + oldest_len);
            is_over = !message.is_permitted && own.len() > 0;
        }
        if self.len - freed + OVERHEAD + len > self.max_len {
            return self.refuse(to);
        }
        for old in &dropped {
            mailbox.remove(old);
        }
        mailbox.insert(key, message);
        self.len = self.len - freed + OVERHEAD + len;
        Admission::Admitted { dropped }
    }

    /// The message is on disk: it may be shown.
    pub(crate) fn on_kept(&mut self, to: &PublicKey, key: &MessageKey) -> Option<&Message> {
        let message = self.boxes.get_mut(to)?.get_mut(key)?;
        message.is_kept = true;
        message.sealed.is_some().then_some(&*message)
    }

    /// The acknowledgement of a message is on disk. Returns whether it was waiting until now.
    pub(crate) fn on_delivered(&mut self, to: &PublicKey, key: &MessageKey) -> bool {
        let Some(message) = self.boxes.get_mut(to).and_then(|mailbox| mailbox.get_mut(key)) else { return false };
        self.len -= message.len();
        let was_waiting = message.sealed.take().is_some();
        if was_waiting {
            self.untold.entry(key.0).or_default().insert((*to, key.1));
        }
        was_waiting
    }

    /// Removes a message or its receipt.
    pub(crate) fn remove(&mut self, to: &PublicKey, key: &MessageKey) -> Option<Message> {
        let mailbox = self.boxes.get_mut(to)?;
        let removed = mailbox.remove(key)?;
        self.len -= OVERHEAD + removed.len();
        if mailbox.is_empty() {
            self.boxes.remove(to);
        }
        self.on_told(to, key);
        Some(removed)
    }

    /// Puts back what the store holds.
    pub(crate) fn restore(&mut self, to: PublicKey, key: MessageKey, message: Message) {
        self.len += OVERHEAD + message.len();
        if message.sealed.is_none() {
            self.untold.entry(key.0).or_default().insert((to, key.1));
        }
        if let Some(former) = self.boxes.entry(to).or_default().insert(key, message) {
            self.len -= OVERHEAD + former.len();
        }
    }

    /// A message or a receipt.
    pub(crate) fn find(&self, to: &PublicKey, key: &MessageKey) -> Option<&Message> {
        self.boxes.get(to)?.get(key)
    }

    /// Whether a message of this sender waits for a recipient, or its receipt is still there.
    pub(crate) fn holds(&self, to: &PublicKey, from: &PublicKey) -> bool {
        let all = (*from, [0; 16])..=(*from, [u8::MAX; 16]);
        self.boxes.get(to).is_some_and(|mailbox| mailbox.range(all).next().is_some())
    }

    /// What waits for a recipient and is on disk, the oldest first.
    pub(crate) fn waiting(&self, to: &PublicKey) -> Vec<(MessageKey, Vec<u8>)> {
        let mailbox = self.boxes.get(to).into_iter().flatten();
        let mut waiting: Vec<_> = mailbox
            .filter(|(_, message)| message.is_kept)
            .filter_map(|(key, message)| Some((message.arrived, *key, message.sealed.clone()?)))
            .collect();
        waiting.sort_unstable_by_key(|(arrived, key, _)| (*arrived, *key));
        waiting.into_iter().map(|(_, key, sealed)| (key, sealed)).collect()
    }

    /// The receipts that must go so that there is room for one more, the oldest first.
    pub(crate) fn oldest_receipts(&self, to: &PublicKey) -> Vec<MessageKey> {
        let mailbox = self.boxes.get(to).into_iter().flatten();
        let mut receipts: Vec<_> = mailbox
            .filter(|(_, message)| message.sealed.is_none())
            .map(|(key, message)| (message.arrived, *key))
            .collect();
        receipts.sort_unstable();
        let surplus = (receipts.len() + 1).saturating_sub(MAX_RECEIPTS);
        receipts.into_iter().take(surplus).map(|(_, key)| key).collect()
    }

    /// The sender was told that the message was acknowledged. Returns whether it had not been told before.
    pub(crate) fn on_told(&mut self, to: &PublicKey, key: &MessageKey) -> bool {
        let Some(untold) = self.untold.get_mut(&key.0) else { return false };
        let is_new = untold.remove(&(*to, key.1));
        if untold.is_empty() {
            self.untold.remove(&key.0);
        }
        is_new
    }

    /// The recipients and ids of messages that were acknowledged while their sender was away. It is told now.
    pub(crate) fn take_untold(&mut self, from: &PublicKey) -> BTreeSet<(PublicKey, [u8; 16])> {
        self.untold.remove(from).unwrap_or_default()
    }

    /// Up to `limit` messages and receipts of a recipient, in no particular order.
    pub(crate) fn some_of(&self, to: &PublicKey, limit: usize) -> Vec<MessageKey> {
        self.boxes.get(to).into_iter().flatten().map(|(key, _)| *key).take(limit).collect()
    }

    /// Leaves no empty mailbox behind.
    fn refuse(&mut self, to: PublicKey) -> Admission {
        if self.boxes.get(&to).is_some_and(BTreeMap::is_empty) {
            self.boxes.remove(&to);
        }
        Admission::Full
    }
}

impl Message {
    fn len(&self) -> usize {
        self.sealed.as_ref().map_or(0, Vec::len)
    }

    fn is_waiting(&self) -> bool {
        self.sealed.is_some()
    }
}
