//! What the operator of the network orders, and what the operator is shown.
//!
//! | order | effect |
//! |---|---|
//! | [`Order::AddToken`] | the token is known before it is used |
//! | [`Order::RevokeToken`] | nobody joins with it any more; those who have joined stay |
//! | [`Order::Remove`] | the agent's record goes, and its membership; its name and address are kept for it for 30 days |
//! | [`Order::Ban`] | the agent is removed, and gets nothing here until the ban is lifted |
//! | [`Order::Unban`] | the ban is lifted |
//! | [`Order::Free`] | a name that was given up is free at once |
//!
//! A rendezvous has no say in who trusts whom. Tunnels between agents that trust each other outlive a removal and a ban.

use minicbor::bytes::ByteVec;
use overlay_wire::signed::{PublicKey, Record, Signed, Token};

use super::agents::Membership;
use super::leave::{Claims, Left};
use super::stored::{StoredToken, agent_key, ban_key, name_key, to_bytes, token_key};
use super::{Asker, Effect, Output, Registry};
use crate::now::Now;
use crate::store::{Expected, Operation, Revision};

/// Names an order. The shell chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

/// What the operator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Tells of a new token.
    AddToken(Signed<Token>),
    /// Ends a token.
    RevokeToken(PublicKey),
    /// Removes an agent.
    Remove(PublicKey),
    /// Removes an agent for as long as the ban stands.
    Ban(PublicKey),
    /// Lifts a ban.
    Unban(PublicKey),
    /// Frees a name that its agent has given up.
    Free(String),
}

/// Why an order is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderRefused {
    /// There is no such agent, token, ban or name.
    NotFound,
    /// The token is of a different network.
    NotOurs,
    /// The name belongs to this agent.
    InUse(PublicKey),
    /// A change of the same thing is under way, or the store did not take it. Try again.
    Later,
}

/// A token that was used, or that the operator has told of.
#[derive(Clone, Debug)]
pub(super) struct KnownToken {
    /// The operation that wrote it.
    pub(super) revision: Revision,
    /// How many identities have used it.
    pub(super) count: u32,
    /// When it was revoked, in milliseconds since 1970.
    pub(super) revoked: Option<u64>,
    /// `None`: it was never shown to this version.
    pub(super) token: Option<Signed<Token>>,
}

/// What an order changes once it is on disk.
#[derive(Debug)]
pub(super) enum Change {
    Token(PublicKey, KnownToken),
    Left(Left),
    Banned(PublicKey, u64, Option<Left>),
    Unbanned(PublicKey),
    Freed(String),
}

/// An agent as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct AgentView<'a> {
    /// The agent.
    pub identity: &'a PublicKey,
    /// Its record, fresh or not. `None`: it has left.
    pub record: Option<&'a Signed<Record>>,
    /// Whether it has shown a token once.
    pub is_member: bool,
    /// Whether it vanishes when it is gone.
    pub is_ephemeral: bool,
    /// Whether it is connected, or was a moment ago.
    pub is_present: bool,
    /// When it left, in milliseconds since 1970.
    pub left: Option<u64>,
    /// Since when it is banned, in milliseconds since 1970.
    pub banned: Option<u64>,
}

/// A token as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct TokenView<'a> {
    /// The token's key.
    pub key: &'a PublicKey,
    /// The token. `None`: it was never shown to this version.
    pub token: Option<&'a Signed<Token>>,
    /// How many identities have used it.
    pub used: u32,
    /// When it was revoked, in milliseconds since 1970.
    pub revoked: Option<u64>,
}

impl KnownToken {
    /// A token that nobody has used.
    pub(super) fn new(token: Signed<Token>) -> Self {
        Self { revision: Revision(0), count: 0, revoked: None, token: Some(token) }
    }

    /// What stands in for a token that cannot be read.
    pub(super) fn used_up(revision: Revision) -> Self {
        Self { revision, count: u32::MAX, revoked: None, token: None }
    }

    /// `None` if the envelope in it is refused.
    pub(super) fn load(stored: StoredToken, revision: Revision) -> Option<Self> {
        let StoredToken { count, revoked, envelope } = stored;
        let token = match envelope {
            Some(bytes) => Some(Signed::<Token>::open(&bytes).ok()?),
            None => None,
        };
        Some(Self { revision, count, revoked, token })
    }

    pub(super) fn stored(&self) -> StoredToken {
        let envelope = self.token.as_ref().map(|token| ByteVec::from(token.bytes().to_vec()));
        StoredToken { count: self.count, revoked: self.revoked, envelope }
    }
}

/// What writes a token.
fn write_token(key: PublicKey, token: KnownToken, expected: Expected) -> (Operation, Change) {
    let mut operation = Operation::default();
    operation.push(token_key(&key), expected, Some(to_bytes(&token.stored())));
    (operation, Change::Token(key, token))
}

impl Registry {
    /// The operator orders something. [`Output::Ordered`] says what came of it.
    pub fn order(&mut self, id: OrderId, order: Order, now: Now) {
        let planned = self.plan(order, now).and_then(|planned| {
            let Some((operation, change)) = planned else { return Ok(None) };
            let mut locks: Vec<_> = operation.writes.iter().map(|write| write.key.clone()).collect();
            if let Change::Banned(identity, ..) = &change {
                // Its record may be on its way to the disk, or set out while the ban is.
                locks.push(agent_key(identity));
            }
            self.check_free(&locks).map_err(|_| OrderRefused::Later)?;
            Ok(Some((operation, locks, change)))
        });
        match planned {
            Ok(Some((operation, locks, change))) => {
                self.commit(Some(Asker::Order(id)), operation, locks, Effect::Ordered(Box::new(change)));
            }
            Ok(None) => self.outputs.push_back(Output::Ordered { order: id, result: Ok(()) }),
            Err(refused) => self.outputs.push_back(Output::Ordered { order: id, result: Err(refused) }),
        }
    }

    /// What an order writes. `None`: it is as ordered already.
    fn plan(&self, order: Order, now: Now) -> Result<Option<(Operation, Change)>, OrderRefused> {
        match order {
            Order::AddToken(token) => {
                if token.network != self.network.network {
                    return Err(OrderRefused::NotOurs);
                }
                if self.tokens.contains_key(&token.token) {
                    return Ok(None);
                }
                let key = token.token;
                Ok(Some(write_token(key, KnownToken::new(token), Expected::Absent)))
            }
            Order::RevokeToken(key) => {
                let known = self.tokens.get(&key).ok_or(OrderRefused::NotFound)?;
                if known.revoked.is_some() {
                    return Ok(None);
                }
                let revoked = KnownToken { revoked: Some(now.unix), ..known.clone() };
                Ok(Some(write_token(key, revoked, Expected::At(known.revision))))
            }
            Order::Remove(identity) => {
                let (operation, left) = self.removal(&identity, now).ok_or(OrderRefused::NotFound)?;
                Ok(Some((operation, Change::Left(left))))
            }
            Order::Ban(identity) => {
                if self.is_banned(&identity) {
                    return Ok(None);
                }
                let (mut operation, left) = match self.removal(&identity, now) {
                    Some((operation, left)) => (operation, Some(left)),
                    None => (Operation::default(), None),
                };
                operation.push(ban_key(&identity), Expected::Absent, Some(to_bytes(&now.unix)));
                Ok(Some((operation, Change::Banned(identity, now.unix, left))))
            }
            Order::Unban(identity) => {
                let (_, revision) = self.bans.get(&identity).ok_or(OrderRefused::NotFound)?;
                let mut operation = Operation::default();
                operation.push(ban_key(&identity), Expected::At(*revision), None);
                Ok(Some((operation, Change::Unbanned(identity))))
            }
            Order::Free(name) => {
                let claim = self.agents.names.find(&name).ok_or(OrderRefused::NotFound)?;
                if claim.released.is_none() {
                    return Err(OrderRefused::InUse(claim.owner));
                }
                let mut operation = Operation::default();
                operation.push(name_key(&name), Expected::At(claim.revision), None);
                Ok(Some((operation, Change::Freed(name))))
            }
        }
    }

    /// What is written when the operator removes an agent. A new token is needed to come back to a closed network.
    fn removal(&self, identity: &PublicKey, now: Now) -> Option<(Operation, Left)> {
        let floor = self.agents.record(identity)?.sequence;
        self.leaving(identity, floor, Membership::default(), Claims::Kept, now)
    }

    /// What the operator ordered is on disk.
    pub(super) fn on_ordered(&mut self, change: Change, revision: Revision) {
        match change {
            Change::Token(key, token) => {
                self.tokens.insert(key, KnownToken { revision, ..token });
            }
            Change::Left(left) => self.on_removed(left, revision),
            Change::Banned(identity, since, left) => {
                self.bans.insert(identity, (since, revision));
                match left {
                    Some(left) => self.on_removed(left, revision),
                    None => self.end_presence(&identity),
                }
            }
            Change::Unbanned(identity) => {
                self.bans.remove(&identity);
            }
            Change::Freed(name) => self.agents.remove_name(&name),
        }
    }

    fn on_removed(&mut self, left: Left, revision: Revision) {
        let identity = *left.identity();
        self.on_left(left, revision);
        self.end_presence(&identity);
    }

    /// Closes the connection of an agent, so those that watch it see it go.
    pub(super) fn end_presence(&mut self, identity: &PublicKey) {
        if !self.leases.is_present(identity) {
            return;
        }
        let connection = self.leases.connection(identity);
        self.leases.end(identity);
        if let Some(connection) = connection {
            self.close(connection);
        }
        self.push_absence(identity);
    }

    /// The agent that has a name now.
    pub fn owner_of_name(&self, name: &str) -> Option<&PublicKey> {
        self.agents.names.owner(&name.to_owned())
    }

    /// The agents above this one, in the order of their identities: those with a record, those that left within 30 days,
    /// and those that are banned.
    pub fn agents_after(&self, after: Option<PublicKey>, limit: usize) -> Vec<AgentView<'_>> {
        let mut views: Vec<_> = self
            .agents
            .after(after)
            .take(limit)
            .map(|(identity, agent)| AgentView {
                identity,
                record: agent.record.as_ref(),
                is_member: agent.membership.is_member,
                is_ephemeral: agent.membership.is_ephemeral,
                is_present: self.is_present(identity),
                left: agent.record.is_none().then_some(agent.left),
                banned: self.banned(identity),
            })
            .collect();
        let is_in_range = |identity: &PublicKey| after.is_none_or(|after| *identity > after);
        let unknown =
            self.bans.iter().filter(|(identity, _)| is_in_range(identity) && self.agents.find(identity).is_none());
        views.extend(unknown.map(|(identity, (since, _))| AgentView {
            identity,
            record: None,
            is_member: false,
            is_ephemeral: false,
            is_present: false,
            left: None,
            banned: Some(*since),
        }));
        views.sort_by_key(|view| view.identity);
        views.truncate(limit);
        views
    }

    /// The tokens that were used, or that the operator has told of.
    pub fn known_tokens(&self) -> impl Iterator<Item = TokenView<'_>> {
        self.tokens.iter().map(|(key, known)| TokenView {
            key,
            token: known.token.as_ref(),
            used: known.count,
            revoked: known.revoked,
        })
    }

    /// The banned agent that had a name when it was banned, and for which the name is still kept.
    pub fn banned_with_name(&self, name: &str) -> Option<&PublicKey> {
        let owner = &self.agents.names.find(&name.to_owned())?.owner;
        self.is_banned(owner).then_some(owner)
    }

    pub(super) fn is_banned(&self, identity: &PublicKey) -> bool {
        self.bans.contains_key(identity)
    }

    fn banned(&self, identity: &PublicKey) -> Option<u64> {
        self.bans.get(identity).map(|(since, _)| *since)
    }
}
