//! Signed objects: what agents, networks and rendezvous say about themselves and each other.
//!
//! Every object is a CBOR map in an [`Envelope`] with an Ed25519 signature. The signature covers the kind of the object,
//! so a request can never be shown as a grant. An object is [`Signed`] once its signature and every one of its fields
//! were checked. It keeps the bytes as they came, because they are stored and forwarded, and never encoded again.
//!
//! `docs/objects.md` lists each kind field by field. `tests/vectors/objects.json` holds examples, which a program in a
//! different language verifies.
//!
//! Left out on purpose: time, and what is known from earlier. Whether an object is fresh, newer than the one before, or
//! trusted is decided where it is used.

mod address;
mod endpoints;
mod envelope;
mod form;
mod join;
mod key;
mod member;
mod name;
mod network;
mod record;
mod refused;
mod relay;
mod scope;
mod trust;
mod verify;

#[cfg(test)]
mod tests;

pub use address::{IPV4_CANDIDATES, Pool, ipv4_candidate, ipv6_address, is_ipv4_candidate, network_prefix};
pub use endpoints::{Endpoints, MAX_ENDPOINTS, MAX_RELAYS, Place, RelayPlace};
pub use envelope::{Envelope, Kind, MAX_ENVELOPE_LEN, Object, Signed};
pub use join::{BadJoinToken, JoinToken, MAX_JOIN_TEXT_LEN};
pub use key::{KEY_TEXT_LEN, NotAKey, PublicKey, SecretKey};
pub use member::{Attestation, Auth, Bind, MAX_MEMBERSHIP, Membership, Permit, Release, Role, Token};
pub use name::{BadName, MAX_NAME_LEN, MAX_TAGS, check_name, check_tag};
pub use network::{MAX_RENDEZVOUS, Network, Rendezvous};
pub use record::{
    Abilities, MAX_FRESH, MAX_SERVICES, Record, Service, Transport, TunnelKey, Visibility, XWING_KEY_LEN,
};
pub use refused::Refused;
pub use relay::{Lowest, MAX_LOWEST, MAX_RELAY_PERMIT, RelayBind, RelayPermit};
pub use scope::{BadScope, MAX_SCOPES, Ports, Protocol, Scope, ScopeList};
pub use trust::{Approval, Grant, MAX_REASON_LEN, MAX_REQUEST_LIFETIME, Request, Revoke, Share};
pub use verify::verification_code;
