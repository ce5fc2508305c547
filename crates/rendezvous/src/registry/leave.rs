//! Leaving: an agent gives up its name, is gone for good, was ephemeral, or is removed by the operator.
//!
//! What is left of an agent is the sequence of its last word, for 30 days, so an old record does not bring it back. Its
//! name and its address are kept for it for as long. Those of an ephemeral agent are free at once.

use overlay_wire::signed::{PublicKey, Release, Signed};

use super::agenda::Due;
use super::agents::{ABANDONED, Agent, Claim, Membership, QUARANTINE};
use super::stored::{StoredAgent, StoredClaim, address_key, agent_key, name_key, to_bytes};
use super::{ConnectionId, Effect, MAX_AHEAD, Outcome, Refusal, Registry};
use crate::now::Now;
use crate::protocol::Code;
use crate::store::{Expected, Operation, Revision};

/// How long an ephemeral agent is kept after its lease, in milliseconds: ten minutes.
const EPHEMERAL: u64 = 10 * 60 * 1_000;

/// An agent that is about to leave.
#[derive(Debug)]
pub(super) struct Left {
    identity: PublicKey,
    name: String,
    address: Option<[u8; 4]>,
    floor: u64,
    membership: Membership,
    claims: Claims,
    at: u64,
}

/// What becomes of the name and the address of an agent that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    /// They are kept for it.
    Kept,
    /// They are free.
    Freed,
}

impl Left {
    pub(super) fn identity(&self) -> &PublicKey {
        &self.identity
    }
}

impl Registry {
    /// The caller gives up its name, and with it its record and its address.
    pub(super) fn release(&mut self, asker: (ConnectionId, u32), caller: PublicKey, bytes: &[u8], now: Now) -> Outcome {
        let release = Signed::<Release>::open(bytes).map_err(|refused| self.bad_object(refused))?;
        if release.network != self.network.network || release.identity != caller {
            return Err(Code::NotYours.into());
        }
        if release.issued > now.unix.saturating_add(MAX_AHEAD) {
            return Err(Code::Clock.into());
        }
        let record = self.agents.record(&caller).ok_or(Code::NotFound)?;
        if record.name != release.name {
            return Err(Code::NotFound.into());
        }
        if release.sequence <= record.sequence {
            let record = Some(record.bytes().to_vec().into());
            return Err(Refusal { record, ..Code::TooOld.into() });
        }
        self.leave(Some(asker), &caller, release.sequence, Claims::Kept, now)?;
        Ok(None)
    }

    /// The record ended long ago. `None` if that cannot be handled now.
    pub(super) fn on_abandoned(&mut self, identity: &PublicKey, now: Now) -> Option<()> {
        let Some(record) = self.agents.record(identity) else { return Some(()) };
        let is_abandoned = now.unix >= record.fresh_until.saturating_add(ABANDONED);
        if !is_abandoned {
            return Some(());
        }
        let sequence = record.sequence;
        self.leave(None, identity, sequence, Claims::Kept, now).ok()
    }

    /// The agent's lease has ended.
    pub(super) fn note_absence(&mut self, identity: PublicKey, now: Now) {
        if self.agents.find(&identity).is_some_and(|agent| agent.membership.is_ephemeral && agent.record.is_some()) {
            self.agenda.add(now.unix.saturating_add(EPHEMERAL), Due::Ephemeral(identity));
        }
    }

    /// An ephemeral agent has been away for a while, or came back meanwhile. `None` if that cannot be handled now.
    pub(super) fn on_ephemeral_gone(&mut self, identity: &PublicKey, now: Now) -> Option<()> {
        let record = self.agents.record(identity).filter(|_| !self.is_present(identity));
        let Some(sequence) = record.map(|record| record.sequence) else { return Some(()) };
        self.leave(None, identity, sequence, Claims::Freed, now).ok()
    }

    fn leave(
        &mut self,
        asker: Option<(ConnectionId, u32)>,
        identity: &PublicKey,
        floor: u64,
        claims: Claims,
        now: Now,
    ) -> Result<(), Refusal> {
        let membership = self.agents.find(identity).map(|agent| agent.membership).unwrap_or_default();
        let Some((operation, left)) = self.leaving(identity, floor, membership, claims, now) else { return Ok(()) };
        let locks: Vec<_> = operation.writes.iter().map(|write| write.key.clone()).collect();
        self.check_free(&locks)?;
        self.commit(asker.map(Into::into), operation, locks, Effect::Left(Box::new(left)));
        Ok(())
    }

    /// What is written when a registered agent leaves. `membership` is what it comes back with.
    pub(super) fn leaving(
        &self,
        identity: &PublicKey,
        floor: u64,
        membership: Membership,
        claims: Claims,
        now: Now,
    ) -> Option<(Operation, Left)> {
        let agent = self.agents.find(identity)?;
        let name = agent.record.as_ref()?.name.clone();
        let address = self.agents.address_of(identity);
        let stored = StoredAgent::new(None, floor, membership, now.unix);
        let claim = match claims {
            Claims::Kept => Some(to_bytes(&StoredClaim { owner: *identity, released: Some(now.unix) })),
            Claims::Freed => None,
        };
        let expected = |claim: Option<&Claim>| claim.map_or(Expected::Absent, |claim| Expected::At(claim.revision));
        let mut operation = Operation::default();
        operation.push(agent_key(identity), Expected::At(agent.revision), Some(to_bytes(&stored)));
        operation.push(name_key(&name), expected(self.agents.names.find(&name)), claim.clone());
        if let Some(address) = address {
            operation.push(address_key(address), expected(self.agents.addresses.find(&address)), claim);
        }
        Some((operation, Left { identity: *identity, name, address, floor, membership, claims, at: now.unix }))
    }

    /// What is left of the agent is on disk.
    pub(super) fn on_left(&mut self, left: Left, revision: Revision) {
        let Left { identity, name, address, floor, membership, claims, at } = left;
        let end = at.saturating_add(QUARANTINE);
        match claims {
            Claims::Kept => {
                let claim = Claim { revision, owner: identity, released: Some(at) };
                self.agenda.add(end, Due::Name(name.clone()));
                self.agents.set_name(name, claim);
                if let Some(address) = address {
                    self.agenda.add(end, Due::Address(address));
                    self.agents.set_address(address, claim);
                }
            }
            Claims::Freed => {
                self.agents.remove_name(&name);
                if let Some(address) = address {
                    self.agents.remove_address(address);
                }
            }
        }
        self.agenda.add(end, Due::Agent(identity));
        self.agents.set(identity, Agent { revision, record: None, floor, membership, left: at });
    }
}
