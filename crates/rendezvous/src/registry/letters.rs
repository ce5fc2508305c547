//! Messages and slots: what agents leave for each other. The registry cannot read them.

use minicbor::bytes::ByteVec;
use overlay_wire::signed::{Permit, PublicKey, Signed};

use super::agenda::{Due, MESSAGE_LIFETIME};
use super::stored::{StoredMessage, StoredSlot, mail_key, slot_key, to_bytes};
use super::{A_MOMENT, ConnectionId, MAX_AHEAD, Outcome, Refusal, Registry};
use crate::mailbox::{Admission, Message, MessageKey, Placement, SlotKey};
use crate::now::Now;
use crate::protocol::{Code, MAX_SEALED_LEN, MAX_SLOT_LEN, Push, Reply, Slot};
use crate::store::{Expected, Operation};

/// A message that somebody sends.
pub(super) struct Letter {
    pub(super) from: PublicKey,
    pub(super) to: PublicKey,
    pub(super) id: [u8; 16],
    pub(super) sealed: ByteVec,
    pub(super) permit: Option<ByteVec>,
}

/// What is on its way to the disk.
#[derive(Debug)]
pub(super) enum Effect {
    /// A message.
    Kept { to: PublicKey, key: MessageKey },
    /// The receipt of a message. These older receipts are gone.
    Acknowledged { to: PublicKey, key: MessageKey, dropped: Vec<MessageKey> },
    /// A slot.
    Put { to: PublicKey, key: SlotKey, sealed: Vec<u8>, at: u64 },
}

impl Registry {
    pub(super) fn send(&mut self, asker: (ConnectionId, u32), letter: Letter, now: Now) -> Outcome {
        let Letter { from, to, id, sealed, permit } = letter;
        self.check_correspondents(&from, &to)?;
        if sealed.is_empty() || sealed.len() > MAX_SEALED_LEN {
            return Err(Code::TooLong.into());
        }
        let is_permitted = match permit {
            Some(permit) => self.check_permit(&permit, (&from, &to), now)?,
            None => self.has_written_to(&to, &from),
        };
        self.check_free(&[])?;
        let key = (from, id);
        let stored = StoredMessage { sealed: Some(sealed.clone()), arrived: now.unix, is_permitted };
        let message = Message { sealed: Some(sealed.into()), arrived: now.unix, is_permitted, is_kept: false };
        match self.mail.admit(to, key, message) {
            Admission::Admitted { dropped } => {
                self.stats.dropped_messages += dropped.len() as u64;
                let mut operation = Operation::default();
                for old in &dropped {
                    self.agenda.remove(&Due::Message(to, *old));
                    operation.push(mail_key(&to, old), Expected::Any, None);
                }
                operation.push(mail_key(&to, &key), Expected::Any, Some(to_bytes(&stored)));
                self.agenda.add(now.unix.saturating_add(MESSAGE_LIFETIME), Due::Message(to, key));
                self.commit(Some(asker.into()), operation, Vec::new(), super::Effect::Letter(Effect::Kept { to, key }));
                Ok(None)
            }
            Admission::Known { is_kept: false, .. } => Err(Refusal::later(A_MOMENT)),
            Admission::Known { is_delivered, .. } => {
                if is_delivered {
                    self.push(asker.0, Push::Delivered { to, message: id });
                    self.mail.on_told(&to, &key);
                }
                Ok(Some(Reply::Done))
            }
            Admission::Full => Err(Code::Full.into()),
        }
    }

    /// Both must be registered.
    fn check_correspondents(&self, from: &PublicKey, to: &PublicKey) -> Result<(), Refusal> {
        if !self.agents.is_registered(from) {
            return Err(Code::Unregistered.into());
        }
        if self.agents.is_registered(to) { Ok(()) } else { Err(Code::NotFound.into()) }
    }

    fn check_permit(&mut self, bytes: &[u8], (from, to): (&PublicKey, &PublicKey), now: Now) -> Result<bool, Refusal> {
        let permit = Signed::<Permit>::open(bytes).map_err(|refused| self.bad_object(refused))?;
        if permit.network != self.network.network || permit.issuer != *to || permit.subject != *from {
            return Err(Code::NotYours.into());
        }
        let is_valid = permit.issued <= now.unix.saturating_add(MAX_AHEAD) && now.unix <= permit.expires;
        if is_valid { Ok(true) } else { Err(Code::Clock.into()) }
    }

    /// Whether an agent has left a message or its endpoints for a different one, which makes that one a friend: an answer to its
    /// request finds room, and so does what its peers send, however many strangers write to it. A word alone makes nobody a
    /// friend: it may be a refusal.
    fn has_written_to(&self, writer: &PublicKey, to: &PublicKey) -> bool {
        self.mail.holds(to, writer) || self.slots.holds(to, &(*writer, Slot::Endpoints))
    }

    /// The caller has a message, so only its receipt is kept. What is not there was acknowledged earlier, or its time was over.
    pub(super) fn acknowledge(&mut self, asker: (ConnectionId, u32), caller: PublicKey, key: MessageKey) -> Outcome {
        let Some(message) = self.mail.find(&caller, &key).filter(|message| message.sealed.is_some()) else {
            return Ok(Some(Reply::Done));
        };
        let receipt = StoredMessage { sealed: None, arrived: message.arrived, is_permitted: message.is_permitted };
        self.check_free(&[])?;
        let mut operation = Operation::default();
        let dropped = self.mail.oldest_receipts(&caller);
        for old in &dropped {
            operation.push(mail_key(&caller, old), Expected::Any, None);
        }
        operation.push(mail_key(&caller, &key), Expected::Any, Some(to_bytes(&receipt)));
        let effect = Effect::Acknowledged { to: caller, key, dropped };
        self.commit(Some(asker.into()), operation, Vec::new(), super::Effect::Letter(effect));
        Ok(None)
    }

    pub(super) fn put_slot(
        &mut self,
        asker: (ConnectionId, u32),
        key: SlotKey,
        to: PublicKey,
        sealed: Vec<u8>,
        now: Now,
    ) -> Outcome {
        self.check_correspondents(&key.0, &to)?;
        if sealed.is_empty() || sealed.len() > MAX_SLOT_LEN {
            return Err(Code::TooLong.into());
        }
        self.check_free(&[])?;
        let recipient = self.leases.connection(&to);
        let watches = &self.watches;
        let is_watched = |from: &PublicKey| recipient.is_some_and(|recipient| watches.is_watched_by(recipient, from));
        match self.slots.place(to, key, (&sealed, now.unix), is_watched) {
            Placement::Room { dropped } => {
                let mut operation = Operation::default();
                if let Some(dropped) = dropped {
                    self.stats.dropped_slots += 1;
                    operation.push(slot_key(&to, &dropped), Expected::Any, None);
                }
                let stored = StoredSlot { sealed: sealed.clone().into(), put: now.unix };
                operation.push(slot_key(&to, &key), Expected::Any, Some(to_bytes(&stored)));
                let effect = Effect::Put { to, key, sealed, at: now.unix };
                self.commit(Some(asker.into()), operation, Vec::new(), super::Effect::Letter(effect));
                Ok(None)
            }
            Placement::Same => Ok(Some(Reply::Done)),
            Placement::Full => Err(Code::Full.into()),
        }
    }

    /// It is on disk: now it is shown.
    pub(super) fn on_letter_committed(&mut self, effect: Effect) {
        match effect {
            Effect::Kept { to, key } => {
                let sealed = self.mail.on_kept(&to, &key).and_then(|message| message.sealed.clone());
                let recipient = self.leases.connection(&to).filter(|recipient| self.is_greeted(*recipient));
                if let (Some(sealed), Some(recipient)) = (sealed, recipient) {
                    self.push(recipient, Push::Message { from: key.0, message: key.1, sealed: sealed.into() });
                }
            }
            Effect::Acknowledged { to, key, dropped } => {
                for old in &dropped {
                    self.remove_letter(&to, old);
                }
                if self.mail.on_delivered(&to, &key)
                    && let Some(sender) = self.leases.connection(&key.0).filter(|sender| self.is_greeted(*sender))
                {
                    self.mail.on_told(&to, &key);
                    self.push(sender, Push::Delivered { to, message: key.1 });
                }
            }
            Effect::Put { to, key, sealed, at } => {
                if !self.slots.on_kept(&to, &key, sealed.clone(), at) {
                    return;
                }
                let recipient = self.leases.connection(&to);
                if let Some(recipient) = recipient.filter(|it| self.watches.is_watched_by(*it, &key.0)) {
                    self.push(recipient, Push::Slot { from: key.0, slot: key.1, sealed: sealed.into() });
                }
            }
        }
    }

    /// It is not on disk.
    pub(super) fn on_letter_lost(&mut self, effect: Effect) {
        match effect {
            Effect::Kept { to, key } => self.remove_letter(&to, &key),
            Effect::Acknowledged { .. } => {}
            Effect::Put { to, key, .. } => self.slots.on_lost(&to, &key),
        }
    }

    /// Forgets a message or a receipt that is not in the store any more.
    pub(super) fn remove_letter(&mut self, to: &PublicKey, key: &MessageKey) {
        self.mail.remove(to, key);
        self.agenda.remove(&Due::Message(*to, *key));
    }

    /// Pushes the messages that wait for an agent, and what became of its own while it was away.
    pub(super) fn push_waiting(&mut self, connection: ConnectionId, caller: &PublicKey) {
        for ((from, message), sealed) in self.mail.waiting(caller) {
            self.push(connection, Push::Message { from, message, sealed: sealed.into() });
        }
        for (to, message) in self.mail.take_untold(caller) {
            self.push(connection, Push::Delivered { to, message });
        }
    }
}
