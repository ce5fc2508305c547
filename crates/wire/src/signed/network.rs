//! A network: what its members agree on.

use minicbor::{Decode, Encode};

use super::address::Pool;
use super::envelope::{Kind, Object};
use super::key::PublicKey;
use super::name::check_name;
use super::refused::Refused;

/// The most rendezvous that a network lists.
pub const MAX_RENDEZVOUS: usize = 8;
/// The longest URL of a rendezvous in bytes.
const MAX_URL_LEN: usize = 128;

/// A network, signed by its own key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Network {
    /// The network's key.
    #[n(0)]
    pub network: PublicKey,
    /// A higher one replaces a lower one.
    #[n(1)]
    pub sequence: u64,
    /// When it was signed, in milliseconds since 1970.
    #[n(2)]
    pub issued: u64,
    /// Its name.
    #[n(3)]
    pub name: String,
    /// The IPv4 addresses of its agents.
    #[n(4)]
    pub pool: Pool,
    /// Where its agents meet.
    #[n(5)]
    pub rendezvous: Vec<Rendezvous>,
    /// Whether only members may register: those with a token.
    #[n(6)]
    pub is_closed: bool,
}

/// One rendezvous of a network.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rendezvous {
    /// `https://HOST:PORT`.
    #[n(0)]
    pub url: String,
    /// The key that it must prove to have.
    #[n(1)]
    pub key: PublicKey,
}

impl Object for Network {
    const KIND: Kind = Kind::Network;

    fn signer(&self) -> &PublicKey {
        &self.network
    }

    fn keys(&self) -> Vec<&PublicKey> {
        std::iter::once(&self.network).chain(self.rendezvous.iter().map(|rendezvous| &rendezvous.key)).collect()
    }

    fn check(&self) -> Result<(), Refused> {
        check_name(&self.name).map_err(|_| Refused::BadName)?;
        self.pool.check()?;
        let are_good =
            self.rendezvous.len() <= MAX_RENDEZVOUS && self.rendezvous.iter().all(|rendezvous| is_url(&rendezvous.url));
        if are_good && self.sequence > 0 { Ok(()) } else { Err(Refused::BadValue) }
    }
}

/// Whether this is `https://HOST`, with a port and a path at most. A user, a query or a fragment is refused: people write
/// the keys of a rendezvous behind a `#`.
fn is_url(url: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#?@\\\"<>".contains(&byte);
    url.len() <= MAX_URL_LEN
        && url.bytes().all(is_plain)
        && url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':']))
}
