//! Registering: the checks of a record, and the operation that claims name, address and identity together.

use minicbor::bytes::ByteVec;
use overlay_wire::signed::{PublicKey, Record, Signed};

use super::agenda::Due;
use super::agents::{ABANDONED, Agent, Claim, Membership, QUARANTINE};
use super::operator::KnownToken;
use super::stored::{StoredAgent, StoredClaim, address_key, agent_key, name_key, to_bytes, token_key};
use super::{ConnectionId, Effect, MAX_AHEAD, Outcome, Refusal, Registry};
use crate::now::Now;
use crate::protocol::{Code, Push, Reply};
use crate::store::{Expected, Operation, Revision};

/// A record that is on its way to the disk.
#[derive(Debug)]
pub(super) struct Registered {
    record: Signed<Record>,
    membership: Membership,
    /// The name that the agent had before, and gives up.
    former_name: Option<String>,
    /// When it was called, in milliseconds since 1970.
    at: u64,
    /// The token, used once more.
    token: Option<(PublicKey, KnownToken)>,
}

impl Registry {
    pub(super) fn register(
        &mut self,
        asker: (ConnectionId, u32),
        caller: PublicKey,
        bytes: &[u8],
        now: Now,
    ) -> Outcome {
        let record = Signed::<Record>::open(bytes).map_err(|refused| self.bad_object(refused))?;
        if record.network != self.network.network || record.identity != caller {
            return Err(Code::NotYours.into());
        }
        if record.issued > now.unix.saturating_add(MAX_AHEAD) || !record.is_fresh(now.unix) {
            return Err(Code::Clock.into());
        }
        // While a change of this agent is under way, what is in memory is not the latest.
        let mut locks = vec![agent_key(&caller)];
        self.check_free(&locks)?;
        if self.is_registered_already(&record)? {
            return Ok(Some(Reply::Done));
        }
        if self.agents.find(&caller).is_none() && self.agents.len() >= self.limits.agents {
            return Err(Code::Full.into());
        }
        let mut operation = Operation::default();
        let (membership, token) = self.check_membership(&record, now, &mut operation)?;
        let former_name = self.claim_name(&record, now, &mut operation)?;
        self.claim_address(&record, now, &mut operation)?;
        // Every key of the operation is locked: the claims, the name that is given up, the token.
        locks.extend(operation.writes.iter().map(|write| write.key.clone()));
        self.check_free(&locks)?;

        let agent = StoredAgent::new(Some(bytes.to_vec().into()), record.sequence, membership, 0);
        let expected = self.agents.find(&caller).map_or(Expected::Absent, |agent| Expected::At(agent.revision));
        operation.push(agent_key(&caller), expected, Some(to_bytes(&agent)));
        let registered = Registered { record, membership, former_name, at: now.unix, token };
        self.commit(Some(asker.into()), operation, locks, Effect::Registered(Box::new(registered)));
        Ok(None)
    }

    /// Compares with what is registered. `true`: it is this very record.
    fn is_registered_already(&self, record: &Signed<Record>) -> Result<bool, Refusal> {
        let Some(agent) = self.agents.find(&record.identity) else { return Ok(false) };
        if record.sequence > agent.floor {
            return Ok(false);
        }
        match &agent.record {
            Some(registered) if record.sequence == registered.sequence => {
                if registered.bytes() == record.bytes() {
                    Ok(true)
                } else {
                    Err(Code::Fork.into())
                }
            }
            registered => {
                let record = registered.as_ref().map(|registered| ByteVec::from(registered.bytes().to_vec()));
                Err(Refusal { record, ..Code::TooOld.into() })
            }
        }
    }

    /// In a closed network, an agent shows a token with its first record. Its key is enough afterwards, also for those that
    /// came while the network was open. In any network, a token that is shown must count.
    fn check_membership(
        &self,
        record: &Record,
        now: Now,
        operation: &mut Operation,
    ) -> Result<(Membership, Option<(PublicKey, KnownToken)>), Refusal> {
        let identity = &record.identity;
        let attested = record.attestation.as_ref();
        let token = attested.and_then(|attestation| attestation.token(&record.network, identity).ok());
        let agent = self.agents.find(identity).filter(|agent| agent.membership.is_member);
        // A member that shows a different token is judged like a newcomer: the token vouches for tags.
        let is_same = |agent: &Agent| token.as_ref().is_none_or(|token| agent.membership.token == Some(token.token));
        if let Some(agent) = agent.filter(|agent| is_same(agent)) {
            return Ok((agent.membership, None));
        }
        let Some(token) = token else {
            let is_open = !self.network.is_closed || self.agents.is_registered(identity);
            return if is_open { Ok((Membership::default(), None)) } else { Err(Code::NotAMember.into()) };
        };
        let known = self.tokens.get(&token.token);
        let count = known.map_or(0, |known| known.count);
        let is_valid = now.unix <= token.expires
            && known.is_none_or(|known| known.revoked.is_none())
            && token.suits(&record.name)
            && (token.uses == 0 || count < token.uses)
            && count < u32::MAX;
        if !is_valid {
            return Err(Code::NotAMember.into());
        }
        let expected = known.map_or(Expected::Absent, |known| Expected::At(known.revision));
        let key = token.token;
        let membership = Membership { is_member: true, is_ephemeral: token.is_ephemeral, token: Some(key) };
        let used = KnownToken { count: count.saturating_add(1), ..KnownToken::new(token) };
        operation.push(token_key(&key), expected, Some(to_bytes(&used.stored())));
        Ok((membership, Some((key, used))))
    }

    /// Claims the record's name and gives up the former one, which is returned.
    fn claim_name(&self, record: &Record, now: Now, operation: &mut Operation) -> Result<Option<String>, Refusal> {
        let identity = record.identity;
        let former = self.agents.record(&identity).map(|former| former.name.clone());
        if former.as_ref() == Some(&record.name) {
            return Ok(None);
        }
        let claimable = self.agents.names.claimable(&record.name, &identity, now.unix);
        let expected = claimable.ok_or(Code::NameTaken)?;
        let claim = StoredClaim { owner: identity, released: None };
        operation.push(name_key(&record.name), expected, Some(to_bytes(&claim)));
        let is_own = self.agents.names.find(&record.name).is_some_and(|claim| claim.owner == identity);
        if let Some(oldest) = self.agents.oldest_release_in_the_way(&identity).filter(|_| !is_own) {
            let wait = oldest.saturating_add(QUARANTINE).saturating_sub(now.unix);
            return Err(Refusal::later(std::time::Duration::from_millis(wait)));
        }
        let Some(former) = former else { return Ok(None) };
        let expected = self.agents.names.find(&former).map_or(Expected::Absent, |claim| Expected::At(claim.revision));
        let claim = StoredClaim { owner: identity, released: Some(now.unix) };
        operation.push(name_key(&former), expected, Some(to_bytes(&claim)));
        Ok(Some(former))
    }

    /// Claims the record's address, and gives back a different one that the agent had. An agent without an address is told
    /// which it can have. If none of its candidates is free, or it has one, a record that shows none is taken.
    ///
    /// Any free candidate will do, not only the first: an agent registers the same record with several rendezvous, and
    /// the first one may be taken there.
    fn claim_address(&self, record: &Record, now: Now, operation: &mut Operation) -> Result<(), Refusal> {
        let identity = &record.identity;
        let own = self.agents.address_of(identity);
        let has_one = own.is_some_and(|own| self.agents.addresses.owner(&own).is_some());
        let offer = || {
            let is_locked = |address| self.locks.contains(&address_key(address));
            self.agents.free_address(identity, now.unix, is_locked)
        };
        let Some(address) = record.ipv4 else {
            let offered = if has_one { None } else { offer() };
            return offered.map_or(Ok(()), |offered| Err(Refusal { ipv4: Some(offered), ..Code::Ipv4.into() }));
        };
        if own == Some(address) && has_one {
            return Ok(());
        }
        let is_candidate = self.agents.is_candidate(identity, address);
        let claimable = self.agents.addresses.claimable(&address, identity, now.unix);
        let Some(expected) = claimable.filter(|_| is_candidate) else {
            return Err(Refusal { ipv4: offer(), ..Code::Ipv4.into() });
        };
        let claim = StoredClaim { owner: *identity, released: None };
        operation.push(address_key(address), expected, Some(to_bytes(&claim)));
        // An agent has one address, given up or not, so nobody hoards them.
        if let Some(own) = own.filter(|own| *own != address) {
            let expected = self.agents.addresses.find(&own).map_or(Expected::Any, |own| Expected::At(own.revision));
            operation.push(address_key(own), expected, None);
        }
        Ok(())
    }

    /// The record is on disk.
    pub(super) fn on_registered(
        &mut self,
        registered: Registered,
        revision: Revision,
        asker: Option<ConnectionId>,
        now: Now,
    ) {
        let Registered { record, membership, former_name, at, token } = registered;
        let identity = record.identity;
        if let Some((key, used)) = token {
            self.tokens.insert(key, KnownToken { revision, ..used });
        }
        let had_name = self.agents.record(&identity).is_some_and(|former| former.name == record.name);
        let claim = Claim { revision, owner: identity, released: None };
        if !had_name {
            self.agents.set_name(record.name.clone(), claim);
        }
        if let Some(former) = former_name {
            self.agenda.add(at.saturating_add(QUARANTINE), Due::Name(former.clone()));
            self.agents.set_name(former, Claim { released: Some(at), ..claim });
        }
        if let Some(address) = record.ipv4.filter(|address| self.agents.addresses.owner(address) != Some(&identity)) {
            if let Some(former) = self.agents.address_of(&identity) {
                self.agents.remove_address(former);
            }
            self.agents.set_address(address, claim);
        }
        self.agenda.add(record.fresh_until.saturating_add(ABANDONED), Due::Abandoned(identity));
        let bytes = ByteVec::from(record.bytes().to_vec());
        let was_registered = self.agents.is_registered(&identity);
        let agent = Agent { revision, floor: record.sequence, membership, left: 0, record: Some(record) };
        self.agents.set(identity, agent);
        for connection in self.watches.watchers(&identity) {
            self.push(connection, Push::Record { record: bytes.clone() });
        }
        if !was_registered && let Some(asker) = asker.filter(|asker| self.is_greeted(*asker)) {
            self.push_waiting(asker, &identity);
        }
        if !self.is_present(&identity) {
            self.note_absence(identity, now);
        }
    }
}
