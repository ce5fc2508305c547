//! What agents keep for themselves: their latest words, so that an older state of theirs brings nothing back.
//!
//! The registry cannot read it, and cannot tell whom an entry concerns. Entries stay as long as anything is left of the
//! agent, so neither its own leaving nor an order of the operator takes from it what it needs to know after a restore.

use overlay_wire::signed::PublicKey;

use super::stored::{StoredEntry, entry_key, to_bytes};
use super::{ConnectionId, Effect, Outcome, Registry};
use crate::mailbox::Entering;
use crate::protocol::{Code, Label, MAX_ENTRY_LEN, Reply};
use crate::store::{Expected, Operation};

/// An entry on its way to the disk.
#[derive(Debug)]
pub(super) struct Put {
    owner: PublicKey,
    label: Label,
    sealed: Vec<u8>,
}

impl Registry {
    pub(super) fn put_entry(
        &mut self,
        asker: (ConnectionId, u32),
        owner: PublicKey,
        label: Label,
        sealed: Vec<u8>,
    ) -> Outcome {
        if !self.agents.is_registered(&owner) {
            return Err(Code::Unregistered.into());
        }
        if sealed.is_empty() || sealed.len() > MAX_ENTRY_LEN {
            return Err(Code::TooLong.into());
        }
        self.check_free(&[])?;
        match self.ledgers.place(owner, label, &sealed) {
            Entering::Room => {
                let mut operation = Operation::default();
                let stored = StoredEntry { sealed: sealed.clone().into() };
                operation.push(entry_key(&owner, &label), Expected::Any, Some(to_bytes(&stored)));
                let effect = Effect::Entry(Put { owner, label, sealed });
                self.commit(Some(asker.into()), operation, Vec::new(), effect);
                Ok(None)
            }
            Entering::Same => Ok(Some(Reply::Done)),
            Entering::Full => Err(Code::Full.into()),
        }
    }

    /// What the caller keeps. An agent that was removed may ask, too: it is about to register again.
    pub(super) fn entries(&self, caller: &PublicKey, after: Option<Label>) -> Reply {
        let (entries, next) = self.ledgers.page(caller, after);
        Reply::Entries { entries, next }
    }

    pub(super) fn on_entry_committed(&mut self, Put { owner, label, sealed }: Put) {
        self.ledgers.on_kept(&owner, &label, sealed);
    }

    pub(super) fn on_entry_lost(&mut self, put: &Put) {
        self.ledgers.on_lost(&put.owner, &put.label);
    }
}
