//! Letters and how they are sealed: for a mailbox, or for a slot.
//!
//! Slots are sealed with X25519 alone, because an X-Wing key is longer than a slot. What they hold (endpoints, and words
//! that are signed) contains no secret that must last.

use hpke::rand_core::UnwrapErr;
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::{MAX_SLOT_LEN, Slot};
use overlay_rendezvous::sealed::{self, Heading, MailboxKeys, SHORT_OVERHEAD};
use overlay_wire::Malformed;
use overlay_wire::signed::{PublicKey, Record};

/// This agent's end of all letters.
pub(super) struct Post {
    network: PublicKey,
    me: PublicKey,
    keys: MailboxKeys,
    /// The keys before those. Letters may still be sealed for them.
    former: Option<MailboxKeys>,
}

impl Post {
    pub(super) fn new(network: PublicKey, me: PublicKey, keys: MailboxKeys, former: Option<MailboxKeys>) -> Self {
        Self { network, me, keys, former }
    }

    /// Seals a message.
    pub(super) fn seal_message(&self, to: &Record, id: &[u8; 16], letter: &Letter) -> Result<Vec<u8>, Malformed> {
        let plaintext = letter.write();
        sealed::seal(to, self.heading_to(&to.identity, id), &plaintext, &mut UnwrapErr(getrandom::SysRng))
    }

    /// Seals what is kept in a slot.
    pub(super) fn seal_slot(&self, to: &Record, slot: Slot, letter: &Letter) -> Result<Vec<u8>, Malformed> {
        let plaintext = letter.write();
        let heading = self.heading_to(&to.identity, label_of(slot));
        sealed::seal_short(to, heading, &plaintext, &mut UnwrapErr(getrandom::SysRng))
    }

    /// Whether a letter fits in a slot once it is sealed.
    pub(super) fn fits_slot(&self, letter: &Letter) -> bool {
        letter.write().len() + SHORT_OVERHEAD <= MAX_SLOT_LEN
    }

    /// Opens a message.
    pub(super) fn open_message(&self, from: &PublicKey, id: &[u8; 16], bytes: &[u8]) -> Result<Letter, Malformed> {
        self.open(self.heading_from(from, id), bytes)
    }

    /// Opens what a peer keeps in a slot.
    pub(super) fn open_slot(&self, from: &PublicKey, slot: Slot, bytes: &[u8]) -> Result<Letter, Malformed> {
        self.open(self.heading_from(from, label_of(slot)), bytes)
    }

    fn open(&self, heading: Heading<'_>, bytes: &[u8]) -> Result<Letter, Malformed> {
        let opened = self.keys.open(heading, bytes);
        let opened = opened.or_else(|malformed| match &self.former {
            Some(former) => former.open(heading, bytes),
            None => Err(malformed),
        });
        Letter::read(&opened?)
    }

    fn heading_to<'a>(&'a self, recipient: &'a PublicKey, label: &'a [u8]) -> Heading<'a> {
        Heading { network: &self.network, sender: &self.me, recipient, label }
    }

    fn heading_from<'a>(&'a self, sender: &'a PublicKey, label: &'a [u8]) -> Heading<'a> {
        Heading { network: &self.network, sender, recipient: &self.me, label }
    }
}

fn label_of(slot: Slot) -> &'static [u8] {
    match slot {
        Slot::Endpoints => b"endpoints",
        Slot::Word => b"word",
    }
}
