//! What agents sign for relays: where they are ([`RelayBind`]), and who may send them datagrams there ([`RelayPermit`]).

use minicbor::{Decode, Encode};

use super::envelope::{Envelope, Kind, Object, Signed};
use super::key::PublicKey;
use super::member::Membership;
use super::name::are_different;
use super::refused::Refused;

/// The longest time for which a permit is valid, in milliseconds: 30 days.
pub const MAX_RELAY_PERMIT: u64 = 30 * 24 * 3_600 * 1_000;
/// The most subjects that a bind names. With all of them, a bind still fits in one datagram that no path fragments.
pub const MAX_LOWEST: usize = 12;

/// That an agent is at the address that a relay's cookie names, signed by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayBind {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The relay.
    #[n(1)]
    pub relay: PublicKey,
    /// The agent.
    #[n(2)]
    pub identity: PublicKey,
    /// The random number of the agent's hello.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// The relay's answer to that hello.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub cookie: [u8; 16],
    /// A higher one replaces a lower one.
    #[n(5)]
    pub epoch: u64,
    /// Permits of this agent with a lower sequence are not valid any more.
    #[n(6)]
    pub lowest: u64,
    /// At most [`MAX_LOWEST`] subjects whose permits must have an even higher sequence.
    #[n(7)]
    pub lowest_of: Vec<Lowest>,
    /// An envelope of kind `membership`, as relays ask for it that are not open.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub membership: Option<Vec<u8>>,
}

/// The lowest sequence of the permits of one subject that are still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lowest {
    /// The agent that may send.
    #[n(0)]
    pub subject: PublicKey,
    /// Its permits with a lower sequence are not valid any more.
    #[n(1)]
    pub sequence: u64,
}

impl RelayBind {
    /// The lowest sequence that a permit for this subject may have.
    pub fn lowest_for(&self, subject: &PublicKey) -> u64 {
        let named = self.lowest_of.iter().find(|lowest| lowest.subject == *subject);
        named.map_or(self.lowest, |lowest| lowest.sequence)
    }

    /// The membership of a bind that was verified before, by [`Signed::open`].
    pub fn verified_membership(&self) -> Option<Membership> {
        minicbor::decode(Envelope::parse(self.membership.as_ref()?).ok()?.payload).ok()
    }
}

/// The right of `subject` to send `issuer` datagrams through a relay, signed by `issuer`, who receives them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayPermit {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The relay.
    #[n(1)]
    pub relay: PublicKey,
    /// The agent that receives.
    #[n(2)]
    pub issuer: PublicKey,
    /// The agent that sends.
    #[n(3)]
    pub subject: PublicKey,
    /// A higher one replaces a lower one.
    #[n(4)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(5)]
    pub issued: u64,
    /// Until when it is valid, in milliseconds since 1970: at most 30 days later.
    #[n(6)]
    pub expires: u64,
}

impl Object for RelayBind {
    const KIND: Kind = Kind::RelayBind;

    fn signer(&self) -> &PublicKey {
        &self.identity
    }

    fn keys(&self) -> Vec<&PublicKey> {
        let subjects = self.lowest_of.iter().map(|lowest| &lowest.subject);
        [&self.network, &self.relay, &self.identity].into_iter().chain(subjects).collect()
    }

    fn check(&self) -> Result<(), Refused> {
        let subjects: Vec<_> = self.lowest_of.iter().map(|lowest| lowest.subject).collect();
        let is_good = self.epoch > 0
            && subjects.len() <= MAX_LOWEST
            && are_different(&subjects)
            && self.lowest_of.iter().all(|lowest| lowest.subject != self.identity && lowest.sequence > self.lowest);
        if !is_good {
            return Err(Refused::BadValue);
        }
        let Some(membership) = &self.membership else { return Ok(()) };
        let membership = Signed::<Membership>::open(membership).map_err(|_| Refused::BadPart)?;
        let is_theirs = membership.network == self.network && membership.identity == self.identity;
        if is_theirs { Ok(()) } else { Err(Refused::BadPart) }
    }
}

impl Object for RelayPermit {
    const KIND: Kind = Kind::RelayPermit;

    fn signer(&self) -> &PublicKey {
        &self.issuer
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.relay, &self.issuer, &self.subject]
    }

    fn check(&self) -> Result<(), Refused> {
        let is_good = self.sequence > 0
            && self.issuer != self.subject
            && self.expires > self.issued
            && self.expires - self.issued <= MAX_RELAY_PERMIT;
        if is_good { Ok(()) } else { Err(Refused::BadValue) }
    }
}
