//! Trust between two agents: grants, their end, and how two agents exchange them.
//!
//! A grant is signed by its issuer alone and contains no secret. Requests and approvals carry a grant and half of the
//! secret from which the tunnel's preshared key is made, so they travel only sealed.

use minicbor::{Decode, Encode};

use super::envelope::{Kind, MAX_ENVELOPE_LEN, Object, Signed};
use super::key::PublicKey;
use super::refused::Refused;
use super::scope::ScopeList;

/// The longest reason of a request in bytes.
pub const MAX_REASON_LEN: usize = 256;
/// The longest time for which a request is valid, in milliseconds: 30 days.
pub const MAX_REQUEST_LIFETIME: u64 = 30 * 24 * 3_600 * 1_000;

/// Half of the secret from which a preshared key is made.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Share(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("share")
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// What the subject may open at the issuer, signed by the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent that grants.
    #[n(1)]
    pub issuer: PublicKey,
    /// The agent that is granted it.
    #[n(2)]
    pub subject: PublicKey,
    /// A higher one replaces a lower one. Revokes of the same pair count in the same sequence.
    #[n(3)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(4)]
    pub issued: u64,
    /// When it ends, in milliseconds since 1970. `None`: when it is revoked.
    #[n(5)]
    pub expires: Option<u64>,
    /// What the subject may open. Empty: nothing, so it gets answers only.
    #[n(6)]
    pub allow: ScopeList,
    /// The request that it answers.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub request: Option<[u8; 16]>,
}

/// The end of a grant, signed by the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revoke {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent that granted.
    #[n(1)]
    pub issuer: PublicKey,
    /// The agent that is granted it.
    #[n(2)]
    pub subject: PublicKey,
    /// Ends every grant of this pair with a lower one.
    #[n(3)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(4)]
    pub issued: u64,
}

/// A wish to be trusted, signed by the asker.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent that asks.
    #[n(1)]
    pub from: PublicKey,
    /// The agent that is asked.
    #[n(2)]
    pub to: PublicKey,
    /// A random number that names the request.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// When it was signed, in milliseconds since 1970.
    #[n(4)]
    pub issued: u64,
    /// Until when it may be answered, in milliseconds since 1970: at most [`MAX_REQUEST_LIFETIME`] later.
    #[n(5)]
    pub expires: u64,
    /// The reason, for people. Any text: show it with its control characters escaped.
    #[n(6)]
    pub reason: String,
    /// What the asker would like to open.
    #[n(7)]
    pub want: ScopeList,
    /// What the asker grants: an envelope of kind `grant` from `from` to `to`.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub grant: Vec<u8>,
    /// The asker's half of the secret.
    #[n(9)]
    pub psk_share: Share,
}

/// The answer to a request, signed by the agent that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Approval {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// The agent that approves.
    #[n(1)]
    pub from: PublicKey,
    /// The agent that is approved.
    #[n(2)]
    pub to: PublicKey,
    /// The request that is approved.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub request: [u8; 16],
    /// What is granted: an envelope of kind `grant` from `from` to `to`.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub grant: Vec<u8>,
    /// The approver's half of the secret.
    #[n(5)]
    pub psk_share: Share,
}

impl Request {
    /// The grant inside.
    ///
    /// # Errors
    /// None for a request that was checked.
    pub fn grant(&self) -> Result<Signed<Grant>, Refused> {
        grant_between(&self.grant, &self.network, &self.from, &self.to)
    }
}

impl Approval {
    /// The grant inside.
    ///
    /// # Errors
    /// None for an approval that was checked.
    pub fn grant(&self) -> Result<Signed<Grant>, Refused> {
        grant_between(&self.grant, &self.network, &self.from, &self.to)
    }
}

/// Opens a grant that must be from `from` to `to`.
fn grant_between(
    bytes: &[u8],
    network: &PublicKey,
    from: &PublicKey,
    to: &PublicKey,
) -> Result<Signed<Grant>, Refused> {
    let grant = Signed::<Grant>::open(bytes).map_err(|_| Refused::BadPart)?;
    let is_theirs = grant.network == *network && grant.issuer == *from && grant.subject == *to;
    if is_theirs { Ok(grant) } else { Err(Refused::BadPart) }
}

impl Object for Grant {
    const KIND: Kind = Kind::Grant;

    fn signer(&self) -> &PublicKey {
        &self.issuer
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.issuer, &self.subject]
    }

    fn check(&self) -> Result<(), Refused> {
        self.allow.check()?;
        let is_good = self.sequence > 0
            && self.issuer != self.subject
            && self.expires.is_none_or(|expires| expires > self.issued);
        if is_good { Ok(()) } else { Err(Refused::BadValue) }
    }
}

impl Object for Revoke {
    const KIND: Kind = Kind::Revoke;

    fn signer(&self) -> &PublicKey {
        &self.issuer
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.issuer, &self.subject]
    }

    fn check(&self) -> Result<(), Refused> {
        if self.sequence > 0 && self.issuer != self.subject { Ok(()) } else { Err(Refused::BadValue) }
    }
}

impl Object for Request {
    const KIND: Kind = Kind::Request;

    fn signer(&self) -> &PublicKey {
        &self.from
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.from, &self.to]
    }

    fn check(&self) -> Result<(), Refused> {
        self.want.check()?;
        let is_good = self.expires > self.issued
            && self.expires - self.issued <= MAX_REQUEST_LIFETIME
            && self.reason.len() <= MAX_REASON_LEN
            && self.grant.len() <= MAX_ENVELOPE_LEN;
        if !is_good {
            return Err(Refused::BadValue);
        }
        self.grant().map(drop)
    }
}

impl Object for Approval {
    const KIND: Kind = Kind::Approval;

    fn signer(&self) -> &PublicKey {
        &self.from
    }

    fn keys(&self) -> Vec<&PublicKey> {
        vec![&self.network, &self.from, &self.to]
    }

    fn check(&self) -> Result<(), Refused> {
        let grant = self.grant()?;
        if grant.request == Some(self.request) { Ok(()) } else { Err(Refused::BadPart) }
    }
}
