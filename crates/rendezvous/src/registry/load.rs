//! The start: everything that a store holds is read once.

use minicbor::Decode;
use overlay_wire::signed::{PublicKey, Record, Signed};

use super::agenda::{Due, MESSAGE_LIFETIME};
use super::agents::{ABANDONED, Agent, Claim, Membership, QUARANTINE};
use super::operator::KnownToken;
use super::stored::{
    ADDRESSES, AGENTS, BANS, ENTRIES, MAIL, NAMES, SLOTS, StoredAgent, StoredClaim, StoredEntry, StoredMessage,
    StoredSlot, StoredToken, TOKENS, parse_entry_key, parse_mail_key, parse_slot_key,
};
use super::{Config, Registry};
use crate::mailbox::Message;
use crate::now::Now;
use crate::store::{Entry, Store};

/// How many entries one scan returns.
const PAGE: usize = 512;

impl Registry {
    /// A registry with everything that a store holds. An entry that cannot be read is counted, and spoils nothing else.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open<S: Store>(config: Config, store: &S, now: Now) -> Result<Self, S::Error> {
        let mut registry = Self::new(config);
        registry.revision = store.revision()?;
        for prefix in [AGENTS, NAMES, ADDRESSES, TOKENS, BANS, MAIL, SLOTS, ENTRIES] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = store.scan(prefix, after.as_deref(), PAGE)?;
                for (key, entry) in &page {
                    let key = &key[prefix.len()..];
                    if registry.load(prefix, key, entry, now).is_none() {
                        registry.stats.damaged_entries += 1;
                        registry.stand_in(prefix, key, entry, now);
                    }
                }
                let Some((last, _)) = page.into_iter().next_back() else { break };
                after = Some(last);
            }
        }
        Ok(registry)
    }

    /// Takes in one entry. `None` if it cannot be read.
    pub(super) fn load(&mut self, prefix: &[u8], key: &[u8], entry: &Entry, now: Now) -> Option<()> {
        match prefix {
            AGENTS => self.load_agent(PublicKey(key.try_into().ok()?), entry, now),
            NAMES => {
                let name = String::from_utf8(key.to_vec()).ok()?;
                let claim = claim(entry)?;
                if let Some(at) = claim.released {
                    self.agenda.add(at.saturating_add(QUARANTINE), Due::Name(name.clone()));
                }
                self.agents.set_name(name, claim);
                Some(())
            }
            ADDRESSES => {
                let address = key.try_into().ok()?;
                let claim = claim(entry)?;
                if let Some(at) = claim.released {
                    self.agenda.add(at.saturating_add(QUARANTINE), Due::Address(address));
                }
                self.agents.set_address(address, claim);
                Some(())
            }
            TOKENS => {
                // The release before this one kept the count alone.
                let stored = decode::<StoredToken>(&entry.value)
                    .or_else(|| Some(StoredToken { count: decode(&entry.value)?, ..StoredToken::default() }))?;
                self.tokens.insert(PublicKey(key.try_into().ok()?), KnownToken::load(stored, entry.revision)?);
                Some(())
            }
            BANS => {
                self.bans.insert(PublicKey(key.try_into().ok()?), (decode(&entry.value)?, entry.revision));
                Some(())
            }
            MAIL => {
                let (to, key) = parse_mail_key(key)?;
                let StoredMessage { sealed, arrived, is_permitted } = decode(&entry.value)?;
                let sealed = sealed.map(Vec::from);
                self.agenda.add(arrived.saturating_add(MESSAGE_LIFETIME), Due::Message(to, key));
                self.mail.restore(to, key, Message { sealed, arrived, is_permitted, is_kept: true });
                Some(())
            }
            SLOTS => {
                let (to, key) = parse_slot_key(key)?;
                let StoredSlot { sealed, put } = decode(&entry.value)?;
                self.slots.restore(to, key, sealed.into(), put);
                Some(())
            }
            ENTRIES => {
                let (owner, label) = parse_entry_key(key)?;
                let StoredEntry { sealed } = decode(&entry.value)?;
                self.ledgers.restore(owner, label, sealed.into());
                Some(())
            }
            _ => None,
        }
    }

    /// Puts something in the place of an entry that cannot be read. An agent may register again. A name or an address is
    /// free after the usual time. A token is used up. An agent whose ban cannot be read stays banned. What an agent keeps
    /// for itself is shown as an entry without content, so that it knows that something is lost.
    pub(super) fn stand_in(&mut self, prefix: &[u8], key: &[u8], entry: &Entry, now: Now) -> Option<()> {
        let revision = entry.revision;
        let end = now.unix.saturating_add(QUARANTINE);
        let claim = Claim { revision, owner: PublicKey([0; 32]), released: Some(now.unix) };
        match prefix {
            AGENTS => {
                let identity = PublicKey(key.try_into().ok()?);
                let membership = Membership::default();
                let agent = Agent { revision, record: None, floor: 0, membership, left: now.unix };
                self.agenda.add(end, Due::Agent(identity));
                self.agents.set(identity, agent);
            }
            NAMES => {
                let name = String::from_utf8(key.to_vec()).ok()?;
                self.agenda.add(end, Due::Name(name.clone()));
                self.agents.set_name(name, claim);
            }
            ADDRESSES => {
                let address = key.try_into().ok()?;
                self.agenda.add(end, Due::Address(address));
                self.agents.set_address(address, claim);
            }
            TOKENS => {
                self.tokens.insert(PublicKey(key.try_into().ok()?), KnownToken::used_up(revision));
            }
            BANS => {
                self.bans.insert(PublicKey(key.try_into().ok()?), (now.unix, revision));
            }
            ENTRIES => {
                let (owner, label) = parse_entry_key(key)?;
                self.ledgers.restore(owner, label, Vec::new());
            }
            _ => {}
        }
        Some(())
    }

    fn load_agent(&mut self, identity: PublicKey, entry: &Entry, now: Now) -> Option<()> {
        let StoredAgent { record, floor, is_member, is_ephemeral, left, token } = decode(&entry.value)?;
        let record = match record {
            Some(bytes) => Some(Signed::<Record>::open(&bytes).ok()?),
            None => None,
        };
        if record.as_ref().is_some_and(|record| record.identity != identity) {
            return None;
        }
        match &record {
            Some(record) => {
                self.agenda.add(record.fresh_until.saturating_add(ABANDONED), Due::Abandoned(identity));
            }
            None => self.agenda.add(left.saturating_add(QUARANTINE), Due::Agent(identity)),
        }
        let shown = || record.as_ref()?.attestation.as_ref()?.token(&self.network.network, &identity).ok();
        let token = token.or_else(|| Some(is_member.then(shown)??.token));
        let membership = Membership { is_member, is_ephemeral, token };
        let agent = Agent { revision: entry.revision, record, floor, membership, left };
        self.agents.set(identity, agent);
        // Nobody is connected yet: an ephemeral agent has the usual time to come back.
        self.note_absence(identity, now);
        Some(())
    }
}

fn claim(entry: &Entry) -> Option<Claim> {
    let StoredClaim { owner, released } = decode(&entry.value)?;
    Some(Claim { revision: entry.revision, owner, released })
}

fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Option<T> {
    minicbor::decode(bytes).ok()
}
