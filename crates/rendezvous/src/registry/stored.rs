//! What the registry keeps in the store, and under which keys.
//!
//! ```text
//! agent/ identity                    the record of an agent, or what is left of it
//! name/  name                        to whom a name belongs
//! ipv4/  address                     to whom an IPv4 address belongs
//! token/ token                       what is known of a token
//! ban/   identity                    since when an agent is banned
//! mail/  recipient sender id         a message or its receipt
//! slot/  recipient sender slot       a slot
//! entry/ identity label              what an agent keeps for itself
//! here/  identity                    to which process an agent is connected, if several share the store
//! ```
//!
//! Leases, watches and quotas are not kept. They end with the connections that a restart ends. `here/` ends with its process.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::signed::PublicKey;

use super::agents::Membership;
use crate::mailbox::{MessageKey, SlotKey};
use crate::protocol::{Label, Slot};

pub(super) const AGENTS: &[u8] = b"agent/";
pub(super) const NAMES: &[u8] = b"name/";
pub(super) const ADDRESSES: &[u8] = b"ipv4/";
pub(super) const TOKENS: &[u8] = b"token/";
pub(super) const BANS: &[u8] = b"ban/";
pub(super) const MAIL: &[u8] = b"mail/";
pub(super) const SLOTS: &[u8] = b"slot/";
pub(super) const ENTRIES: &[u8] = b"entry/";
pub(super) const PRESENCE: &[u8] = b"here/";

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredAgent {
    /// Its record. `None`: it has left.
    #[n(0)]
    pub(super) record: Option<ByteVec>,
    /// The sequence of its last word. Nothing lower is taken.
    #[n(1)]
    pub(super) floor: u64,
    /// Whether it has shown a token once. Its key is enough from then on.
    #[n(2)]
    pub(super) is_member: bool,
    /// Whether it vanishes when it is gone.
    #[n(3)]
    pub(super) is_ephemeral: bool,
    /// When it left, in milliseconds since 1970.
    #[n(4)]
    pub(super) left: u64,
    /// The token by which it is a member.
    #[n(5)]
    pub(super) token: Option<PublicKey>,
}

impl StoredAgent {
    pub(super) fn new(record: Option<ByteVec>, floor: u64, membership: Membership, left: u64) -> Self {
        let Membership { is_member, is_ephemeral, token } = membership;
        Self { record, floor, is_member, is_ephemeral, left, token }
    }
}

/// To whom a name or an address belongs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredClaim {
    /// The agent.
    #[n(0)]
    pub(super) owner: PublicKey,
    /// When the agent gave it up, in milliseconds since 1970.
    #[n(1)]
    pub(super) released: Option<u64>,
}

/// A message, or its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredMessage {
    /// The sealed bytes. `None`: it was acknowledged.
    #[n(0)]
    pub(super) sealed: Option<ByteVec>,
    /// When it came, in milliseconds since 1970.
    #[n(1)]
    pub(super) arrived: u64,
    /// Whether its sender had a permit.
    #[n(2)]
    pub(super) is_permitted: bool,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredSlot {
    /// The sealed bytes.
    #[n(0)]
    pub(super) sealed: ByteVec,
    /// When it was put, in milliseconds since 1970.
    #[n(1)]
    pub(super) put: u64,
}

/// What an agent keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredEntry {
    /// The sealed bytes.
    #[n(0)]
    pub(super) sealed: ByteVec,
}

/// A token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredToken {
    /// How many identities have used it.
    #[n(0)]
    pub(super) count: u32,
    /// When it was revoked, in milliseconds since 1970.
    #[n(1)]
    pub(super) revoked: Option<u64>,
    /// The envelope of kind `token`, if it was ever shown.
    #[n(2)]
    pub(super) envelope: Option<ByteVec>,
}

/// The key of an agent.
pub(super) fn agent_key(identity: &PublicKey) -> Vec<u8> {
    [AGENTS, &identity.0].concat()
}

/// The key of a name.
pub(super) fn name_key(name: &str) -> Vec<u8> {
    [NAMES, name.as_bytes()].concat()
}

/// The key of an IPv4 address.
pub(super) fn address_key(address: [u8; 4]) -> Vec<u8> {
    [ADDRESSES, &address].concat()
}

/// The key of a token.
pub(super) fn token_key(token: &PublicKey) -> Vec<u8> {
    [TOKENS, &token.0].concat()
}

/// The key of a ban.
pub(super) fn ban_key(identity: &PublicKey) -> Vec<u8> {
    [BANS, &identity.0].concat()
}

/// The key of a message.
pub(super) fn mail_key(to: &PublicKey, (from, id): &MessageKey) -> Vec<u8> {
    [MAIL, &to.0, &from.0, id].concat()
}

/// The key of a slot.
pub(super) fn slot_key(to: &PublicKey, (from, slot): &SlotKey) -> Vec<u8> {
    [SLOTS, &to.0, &from.0, &[slot_number(*slot)]].concat()
}

/// The key of an entry.
pub(super) fn entry_key(owner: &PublicKey, label: &Label) -> Vec<u8> {
    [ENTRIES, &owner.0, label].concat()
}

/// The entry that says to which process an agent is connected. Its value is the process's number, in 8 bytes, big-endian.
pub fn presence_key(identity: &PublicKey) -> Vec<u8> {
    [PRESENCE, &identity.0].concat()
}

/// Whether an entry says to which process an agent is connected.
pub fn is_presence_key(key: &[u8]) -> bool {
    key.starts_with(PRESENCE)
}

/// The agent of a key behind [`PRESENCE`].
pub(super) fn parse_presence_key(key: &[u8]) -> Option<PublicKey> {
    Some(PublicKey(key.try_into().ok()?))
}

/// The owner and the label of an entry's key, behind [`ENTRIES`].
pub(super) fn parse_entry_key(key: &[u8]) -> Option<(PublicKey, Label)> {
    let (owner, label) = key.split_first_chunk::<32>()?;
    Some((PublicKey(*owner), label.try_into().ok()?))
}

/// The recipient and the rest of a message's key, behind [`MAIL`].
pub(super) fn parse_mail_key(key: &[u8]) -> Option<(PublicKey, MessageKey)> {
    let (to, rest) = key.split_first_chunk::<32>()?;
    let (from, id) = rest.split_first_chunk::<32>()?;
    Some((PublicKey(*to), (PublicKey(*from), id.try_into().ok()?)))
}

/// The recipient and the rest of a slot's key, behind [`SLOTS`].
pub(super) fn parse_slot_key(key: &[u8]) -> Option<(PublicKey, SlotKey)> {
    let (to, rest) = key.split_first_chunk::<32>()?;
    let (from, number) = rest.split_first_chunk::<32>()?;
    let slot = Slot::ALL.into_iter().find(|slot| [slot_number(*slot)] == number)?;
    Some((PublicKey(*to), (PublicKey(*from), slot)))
}

fn slot_number(slot: Slot) -> u8 {
    match slot {
        Slot::Endpoints => 0,
        Slot::Word => 1,
    }
}

/// The bytes of a stored value.
pub(super) fn to_bytes(value: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}
