//! The messages between an agent and a rendezvous.
//!
//! A message is CBOR, at most [`MAX_MESSAGE_LEN`] bytes, and travels inside the Noise channel. An agent sends [`Call`]s,
//! and each gets one [`Answer`] with its id. The rendezvous also sends [`Push`]es, which nobody asked for.
//!
//! Enums are arrays of an index and their fields. A message with an unknown index is refused, and new ones need a new
//! [`VERSION`]. Both ends name the versions that they speak when they meet (`channel`), and use the newest of both.
//!
//! | version | what is new |
//! |---|---|
//! | 1 | |
//! | 2 | [`Verb::PutEntry`] and [`Verb::Entries`]: what an agent keeps for itself; [`Verb::Membership`] |
//! | 3 | [`Find::Matching`] |
//!
//! A new field at the end of a message that may be missing needs no new version: older releases skip it.

mod filter;
mod relay_at;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::signed::PublicKey;

pub use filter::Filter;
pub use relay_at::RelayAt;

/// The version of this protocol.
pub const VERSION: u16 = 3;
/// The first version in which an agent keeps entries for itself.
pub const ENTRIES_SINCE: u16 = 2;
/// The first version in which a rendezvous vouches for its members.
pub const MEMBERSHIP_SINCE: u16 = 2;
/// The first version in which records are looked for by more than one property.
pub const FILTERS_SINCE: u16 = 3;
/// The longest message in bytes.
pub const MAX_MESSAGE_LEN: usize = 8_192;
/// The longest sealed message in a mailbox, in bytes: with the rest of its call it fits [`MAX_MESSAGE_LEN`].
pub const MAX_SEALED_LEN: usize = 7_168;
/// The longest sealed object in a slot, in bytes.
pub const MAX_SLOT_LEN: usize = 1_024;
/// The longest sealed entry that an agent keeps for itself, in bytes: a word of the longest kind.
pub const MAX_ENTRY_LEN: usize = 2_304;
/// The most entries that an agent keeps for itself.
pub const MAX_ENTRIES: usize = 4_096;
/// The most records in one answer. The next ones are found with [`Verb::Find`]'s `after`.
pub const MAX_FOUND: usize = 8;
/// The most identities that one connection watches.
pub const MAX_WATCHED: usize = 4_096;
/// The most identities in one [`Verb::Watch`].
pub const MAX_WATCHED_AT_ONCE: usize = 128;

/// What an agent asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Call {
    /// Names the call among those of this connection.
    #[n(0)]
    pub id: u32,
    /// What is asked.
    #[n(1)]
    pub verb: Verb,
}

/// The kinds of calls.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Verb {
    /// Asks for the network object and what the rendezvous knows of the caller: [`Reply::Welcome`].
    #[n(0)]
    Hello,
    /// Registers the caller's record, or replaces it: [`Reply::Done`]. A first record without an IPv4 address is refused
    /// with [`Code::Ipv4`] and an address that is free; the caller signs it into its record and calls again.
    #[n(1)]
    Register {
        /// An envelope of kind `record`.
        #[n(0)]
        record: ByteVec,
    },
    /// Gives up the caller's name: [`Reply::Done`].
    #[n(2)]
    Release {
        /// An envelope of kind `release`.
        #[n(0)]
        release: ByteVec,
    },
    /// Looks for records: [`Reply::Found`].
    #[n(3)]
    Find {
        /// By what.
        #[n(0)]
        by: Find,
        /// Only identities above this one.
        #[n(1)]
        after: Option<PublicKey>,
    },
    /// Puts a sealed message into a mailbox: [`Reply::Done`] once it is kept.
    #[n(4)]
    Send {
        /// Whose mailbox.
        #[n(0)]
        to: PublicKey,
        /// Names the message between this pair. The same id again is the same message.
        #[cbor(n(1), with = "minicbor::bytes")]
        message: [u8; 16],
        /// The sealed bytes, at most [`MAX_SEALED_LEN`].
        #[n(2)]
        sealed: ByteVec,
        /// An envelope of kind `permit`, if there is one.
        #[n(3)]
        permit: Option<ByteVec>,
    },
    /// Says that these messages have arrived, so they are deleted: [`Reply::Done`].
    #[n(5)]
    Acknowledge {
        /// The sender.
        #[n(0)]
        from: PublicKey,
        /// Which of the sender's messages.
        #[cbor(n(1), with = "minicbor::bytes")]
        message: [u8; 16],
    },
    /// Replaces what the caller keeps for one other agent: [`Reply::Done`].
    #[n(6)]
    PutSlot {
        /// For whom.
        #[n(0)]
        to: PublicKey,
        /// Which slot of this pair.
        #[n(1)]
        slot: Slot,
        /// The sealed bytes, at most [`MAX_SLOT_LEN`].
        #[n(2)]
        sealed: ByteVec,
    },
    /// Adds identities to those whose records, presence and slots are pushed: [`Reply::Done`]. What is known of them is
    /// pushed before the answer, so whatever has not come by then does not exist.
    #[n(7)]
    Watch {
        /// At most [`MAX_WATCHED_AT_ONCE`].
        #[n(0)]
        identities: Vec<PublicKey>,
    },
    /// Removes identities from those that are watched: [`Reply::Done`].
    #[n(8)]
    Unwatch {
        /// At most [`MAX_WATCHED_AT_ONCE`].
        #[n(0)]
        identities: Vec<PublicKey>,
    },
    /// Keeps the lease and the connection: [`Reply::Revision`].
    #[n(9)]
    Ping,
    /// Replaces what the caller keeps for itself under a label: [`Reply::Done`].
    #[n(10)]
    PutEntry {
        /// Which entry. It means something to the caller alone.
        #[cbor(n(0), with = "minicbor::bytes")]
        label: Label,
        /// The sealed bytes, at most [`MAX_ENTRY_LEN`].
        #[n(1)]
        sealed: ByteVec,
    },
    /// Asks for what the caller keeps for itself: [`Reply::Entries`].
    #[n(11)]
    Entries {
        /// Only labels above this one.
        #[cbor(n(0), with = "minicbor::bytes")]
        after: Option<Label>,
    },
    /// Asks for proof that the caller is a member: [`Reply::Membership`].
    #[n(12)]
    Membership,
}

/// Names an entry among those that an agent keeps for itself.
pub type Label = [u8; 16];

/// What an agent keeps for itself. It is replaced, and never deleted while the agent is known.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Its name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub label: Label,
    /// The sealed bytes.
    #[n(1)]
    pub sealed: ByteVec,
}

/// By what records are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Find {
    /// The exact key. This finds hidden agents, too.
    #[n(0)]
    Key(#[n(0)] PublicKey),
    /// The exact name.
    #[n(1)]
    Name(#[n(0)] String),
    /// A claimed tag.
    #[n(2)]
    Tag(#[n(0)] String),
    /// The exact IPv4 or IPv6 address, 4 or 16 bytes.
    #[n(3)]
    Address(#[n(0)] ByteVec),
    /// All that the caller may see.
    #[n(4)]
    All,
    /// Keys whose text begins like this, at least 16 characters.
    #[n(5)]
    KeyPrefix(#[n(0)] String),
    /// All that the caller may see and that match.
    #[n(6)]
    Matching(#[n(0)] Filter),
}

/// What one agent keeps for one other agent. It is replaced, never queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Slot {
    /// An envelope of kind `endpoints`, sealed.
    #[n(0)]
    Endpoints,
    /// An envelope of kind `grant` or `revoke`, sealed: the latest word of this pair.
    #[n(1)]
    Word,
}

impl Slot {
    /// All slots of a pair.
    pub const ALL: [Self; 2] = [Self::Endpoints, Self::Word];
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// The id of the call.
    #[n(0)]
    pub id: u32,
    /// What came of it.
    #[n(1)]
    pub reply: Reply,
}

/// The kinds of answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// It is done, and kept on disk.
    #[n(0)]
    Done,
    /// It is refused.
    #[n(1)]
    Refused {
        /// Why.
        #[n(0)]
        code: Code,
        /// A free IPv4 address with [`Code::Ipv4`], 4 bytes.
        #[cbor(n(1), with = "minicbor::bytes")]
        ipv4: Option<[u8; 4]>,
        /// The newer record of the caller with [`Code::TooOld`], an envelope of kind `record`.
        #[n(2)]
        record: Option<ByteVec>,
        /// With [`Code::Later`]: in how many milliseconds.
        #[n(3)]
        wait: Option<u32>,
    },
    /// The answer to [`Verb::Hello`].
    #[n(2)]
    Welcome {
        /// An envelope of kind `network`.
        #[n(0)]
        network: ByteVec,
        /// The caller's record, if it is registered.
        #[n(1)]
        record: Option<ByteVec>,
        /// The value to present at the next connection.
        #[n(2)]
        epoch: u64,
        /// The address that the caller's connection comes from, 4 or 16 bytes.
        #[n(3)]
        seen_from: ByteVec,
        /// Its relay, if it has one and says so.
        #[n(4)]
        relay: Option<RelayAt>,
    },
    /// The answer to [`Verb::Find`].
    #[n(3)]
    Found {
        /// Envelopes of kind `record`, in the order of their identities, at most [`MAX_FOUND`].
        #[n(0)]
        records: Vec<ByteVec>,
        /// If there may be more: the `after` to ask with.
        #[n(1)]
        next: Option<PublicKey>,
    },
    /// The answer to [`Verb::Ping`].
    #[n(4)]
    Revision {
        /// How many changes the store has seen.
        #[n(0)]
        revision: u64,
        /// The time at the rendezvous, in milliseconds since 1970.
        #[n(1)]
        time: u64,
    },
    /// The answer to [`Verb::Entries`].
    #[n(5)]
    Entries {
        /// In the order of their labels, as many as fit.
        #[n(0)]
        entries: Vec<Entry>,
        /// If there may be more: the `after` to ask with.
        #[cbor(n(1), with = "minicbor::bytes")]
        next: Option<Label>,
    },
    /// The answer to [`Verb::Membership`].
    #[n(6)]
    Membership {
        /// An envelope of kind `membership`, signed by this rendezvous.
        #[n(0)]
        membership: ByteVec,
    },
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Code {
    /// The call cannot be read, or an object in it is refused.
    #[n(0)]
    Malformed,
    /// The object is not the caller's, or not of this network.
    #[n(1)]
    NotYours,
    /// The name belongs to a different identity.
    #[n(2)]
    NameTaken,
    /// The record needs an IPv4 address: the one in the answer is free.
    #[n(3)]
    Ipv4,
    /// A newer record is registered. It is in the answer.
    #[n(4)]
    TooOld,
    /// A different record with the same sequence is registered.
    #[n(5)]
    Fork,
    /// The object is from the future, or no longer fresh.
    #[n(6)]
    Clock,
    /// Nobody with this key is registered.
    #[n(7)]
    NotFound,
    /// The recipient's mailbox has no room for this sender.
    #[n(8)]
    Full,
    /// Too many calls. Try again later.
    #[n(9)]
    Later,
    /// The network is closed, and the record has no valid attestation.
    #[n(10)]
    NotAMember,
    /// The message, or a list in it, is too long.
    #[n(11)]
    TooLong,
    /// The caller has to register first.
    #[n(12)]
    Unregistered,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::NotYours,
        Self::NameTaken,
        Self::Ipv4,
        Self::TooOld,
        Self::Fork,
        Self::Clock,
        Self::NotFound,
        Self::Full,
        Self::Later,
        Self::NotAMember,
        Self::TooLong,
        Self::Unregistered,
    ];

    /// The code as one word, for counters and for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotYours => "not_yours",
            Self::NameTaken => "name_taken",
            Self::Ipv4 => "ipv4",
            Self::TooOld => "too_old",
            Self::Fork => "fork",
            Self::Clock => "clock",
            Self::NotFound => "not_found",
            Self::Full => "full",
            Self::Later => "later",
            Self::NotAMember => "not_a_member",
            Self::TooLong => "too_long",
            Self::Unregistered => "unregistered",
        }
    }
}

/// What a rendezvous says on its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Push {
    /// A message in the mailbox. It is pushed at every connection until it is acknowledged.
    #[n(0)]
    Message {
        /// The sender.
        #[n(0)]
        from: PublicKey,
        /// Which of the sender's messages.
        #[cbor(n(1), with = "minicbor::bytes")]
        message: [u8; 16],
        /// The sealed bytes.
        #[n(2)]
        sealed: ByteVec,
    },
    /// A message of ours was acknowledged by its recipient.
    #[n(1)]
    Delivered {
        /// The recipient.
        #[n(0)]
        to: PublicKey,
        /// Which message.
        #[cbor(n(1), with = "minicbor::bytes")]
        message: [u8; 16],
    },
    /// What a watched agent keeps for us.
    #[n(2)]
    Slot {
        /// The agent that keeps it.
        #[n(0)]
        from: PublicKey,
        /// Which slot.
        #[n(1)]
        slot: Slot,
        /// The sealed bytes.
        #[n(2)]
        sealed: ByteVec,
    },
    /// The record of a watched agent.
    #[n(3)]
    Record {
        /// An envelope of kind `record`.
        #[n(0)]
        record: ByteVec,
    },
    /// Whether a watched agent is connected.
    #[n(4)]
    Presence {
        /// Which agent.
        #[n(0)]
        identity: PublicKey,
        /// Whether it has a lease.
        #[n(1)]
        is_present: bool,
    },
    /// The rendezvous is about to end, or has too much to do: reconnect after this many milliseconds.
    #[n(5)]
    Reconnect {
        /// In milliseconds.
        #[n(0)]
        wait: u32,
    },
}

/// What a rendezvous sends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FromServer {
    /// The answer to a call.
    #[n(0)]
    Answer(#[n(0)] Answer),
    /// Something that nobody asked for.
    #[n(1)]
    Push(#[n(0)] Push),
}

/// Encodes a message.
pub fn encode(message: &impl Encode<()>) -> Vec<u8> {
    minicbor::to_vec(message).unwrap_or_default()
}

/// Decodes a message, which must be exactly as long as `bytes`.
///
/// # Errors
/// [`overlay_wire::Malformed`].
pub fn decode<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) -> Result<T, overlay_wire::Malformed> {
    if bytes.len() > MAX_MESSAGE_LEN {
        return Err(overlay_wire::Malformed);
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode().map_err(|_| overlay_wire::Malformed)?;
    if decoder.position() == bytes.len() { Ok(message) } else { Err(overlay_wire::Malformed) }
}
