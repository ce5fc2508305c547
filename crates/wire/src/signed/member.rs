//! Membership and connections: tokens, attestations, permits, names given up, and who is at the other end.

use minicbor::{Decode, Encode};

use super::envelope::{Envelope, Kind, Object, Signed};
use super::key::PublicKey;
use super::name::{MAX_TAGS, are_different, check_name, check_tag};
use super::refused::Refused;

/// The longest time for which a membership is valid, in milliseconds: seven days.
pub const MAX_MEMBERSHIP: u64 = 7 * 24 * 3_600 * 1_000;
/// The most protocol versions that one end lists.
const MAX_VERSIONS: usize = 8;

/// The right to join a closed network, signed by the network. What the operator hands out is this and the secret half of
/// `token`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Token {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The token's own key. Its holder signs with it ([`Bind`]), so nothing that travels can be used by somebody else.
    #[n(1)]
    pub token: PublicKey,
    /// When it was signed, in milliseconds since 1970.
    #[n(2)]
    pub issued: u64,
    /// Until when it can be used, in milliseconds since 1970.
    #[n(3)]
    pub expires: u64,
    /// How many identities may use it. 0: any number.
    #[n(4)]
    pub uses: u32,
    /// Whether its identities vanish when they are gone.
    #[n(5)]
    pub is_ephemeral: bool,
    /// The only name that its identities may take.
    #[n(6)]
    pub name: Option<String>,
    /// The tags that the network's operator vouches for.
    #[n(7)]
    pub tags: Vec<String>,
}

impl Token {
    /// Whether its identities may take this name.
    pub fn suits(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|only| only == name)
    }
}

/// That a token is used for one identity, signed by the token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Bind {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The token's key.
    #[n(1)]
    pub token: PublicKey,
    /// The identity that uses it.
    #[n(2)]
    pub identity: PublicKey,
    /// A random number.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
}

/// A token and its use by one identity: the network's operator vouches for that identity's tags.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attestation {
    /// An envelope of kind `token`.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub token: Vec<u8>,
    /// An envelope of kind `bind`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bind: Vec<u8>,
}

impl Attestation {
    /// The token, if it is one of `network` and bound to `identity`.
    ///
    /// # Errors
    /// [`Refused::BadPart`].
    pub fn token(&self, network: &PublicKey, identity: &PublicKey) -> Result<Signed<Token>, Refused> {
        let token = Signed::<Token>::open(&self.token).map_err(|_| Refused::BadPart)?;
        let bind = Signed::<Bind>::open(&self.bind).map_err(|_| Refused::BadPart)?;
        let is_theirs = token.network == *network
            && bind.network == *network
            && bind.token == token.token
            && bind.identity == *identity;
        if is_theirs { Ok(token) } else { Err(Refused::BadPart) }
    }

    /// The token of an attestation that was verified before, by [`Attestation::token`].
    pub(super) fn verified_token(&self) -> Option<Token> {
        minicbor::decode(Envelope::parse(&self.token).ok()?.payload).ok()
    }
}

/// That an identity is a member, signed by a rendezvous.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Membership {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The rendezvous that says so.
    #[n(1)]
    pub rendezvous: PublicKey,
    /// The member.
    #[n(2)]
    pub identity: PublicKey,
    /// When it was signed, in milliseconds since 1970.
    #[n(3)]
    pub issued: u64,
    /// Until when it is valid, in milliseconds since 1970: at most seven days later.
    #[n(4)]
    pub expires: u64,
}

/// The right of `subject` to send `issuer` messages, signed by `issuer`, who receives them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Permit {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent that receives.
    #[n(1)]
    pub issuer: PublicKey,
    /// The agent that sends.
    #[n(2)]
    pub subject: PublicKey,
    /// When it was signed, in milliseconds since 1970.
    #[n(3)]
    pub issued: u64,
    /// Until when it is valid, in milliseconds since 1970.
    #[n(4)]
    pub expires: u64,
}

/// That an agent gives up its name, signed by the agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Release {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent.
    #[n(1)]
    pub identity: PublicKey,
    /// In the same sequence as its records.
    #[n(2)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(3)]
    pub issued: u64,
    /// The name.
    #[n(4)]
    pub name: String,
}

/// The identity of one end of a connection, signed by that end.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Auth {
    /// Which end signs.
    #[n(0)]
    pub role: Role,
    /// The protocol versions that it speaks, the newest first.
    #[n(1)]
    pub versions: Vec<u16>,
    /// The network's key.
    #[n(2)]
    pub network: PublicKey,
    /// The rendezvous.
    #[n(3)]
    pub rendezvous: PublicKey,
    /// The agent. The server does not know it when it signs, and repeats its own key.
    #[n(4)]
    pub identity: PublicKey,
    /// The value that the last connection handed out. 0: none.
    #[n(5)]
    pub epoch: u64,
    /// The hash of the Noise handshake, which no other connection has.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// The time at the signer, in milliseconds since 1970.
    #[n(7)]
    pub issued: u64,
}

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// The agent.
    #[n(0)]
    Client,
    /// The rendezvous.
    #[n(1)]
    Server,
}

impl Object for Token {
    const KIND: Kind = Kind::Token;

    fn signer(&self) -> &PublicKey {
        &self.network
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.token]
    }

    fn check(&self) -> Result<(), Refused> {
        self.name.as_deref().map_or(Ok(()), check_name).map_err(|_| Refused::BadName)?;
        self.tags.iter().try_for_each(|tag| check_tag(tag)).map_err(|_| Refused::BadName)?;
        let is_good = self.expires > self.issued && self.tags.len() <= MAX_TAGS && are_different(&self.tags);
        if is_good { Ok(()) } else { Err(Refused::BadValue) }
    }
}

impl Object for Bind {
    const KIND: Kind = Kind::Bind;

    fn signer(&self) -> &PublicKey {
        &self.token
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.token, &self.identity]
    }

    fn check(&self) -> Result<(), Refused> {
        Ok(())
    }
}

impl Object for Membership {
    const KIND: Kind = Kind::Membership;

    fn signer(&self) -> &PublicKey {
        &self.rendezvous
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.rendezvous, &self.identity]
    }

    fn check(&self) -> Result<(), Refused> {
        let is_good = self.expires > self.issued && self.expires - self.issued <= MAX_MEMBERSHIP;
        if is_good { Ok(()) } else { Err(Refused::BadValue) }
    }
}

impl Object for Permit {
    const KIND: Kind = Kind::Permit;

    fn signer(&self) -> &PublicKey {
        &self.issuer
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.issuer, &self.subject]
    }

    fn check(&self) -> Result<(), Refused> {
        if self.expires > self.issued && self.issuer != self.subject { Ok(()) } else { Err(Refused::BadValue) }
    }
}

impl Object for Release {
    const KIND: Kind = Kind::Release;

    fn signer(&self) -> &PublicKey {
        &self.identity
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.identity]
    }

    fn check(&self) -> Result<(), Refused> {
        check_name(&self.name).map_err(|_| Refused::BadName)?;
        if self.sequence > 0 { Ok(()) } else { Err(Refused::BadValue) }
    }
}

impl Object for Auth {
    const KIND: Kind = Kind::Auth;

    fn signer(&self) -> &PublicKey {
        match self.role {
            Role::Client => &self.identity,
            Role::Server => &self.rendezvous,
        }
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.rendezvous, &self.identity]
    }

    fn check(&self) -> Result<(), Refused> {
        if (1..=MAX_VERSIONS).contains(&self.versions.len()) { Ok(()) } else { Err(Refused::BadValue) }
    }
}
