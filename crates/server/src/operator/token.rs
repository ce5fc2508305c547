//! New join tokens, signed with the network key that lies in the state folder of a rendezvous, or elsewhere.

use std::path::Path;

use data_encoding::BASE64;
use overlay_wire::signed::{JoinToken, SecretKey, Signed, Token};
use zeroize::Zeroizing;

use super::protocol::Ask;
use crate::clock::now;
use crate::failure::{Kind, ServeError};
use crate::network;
use crate::state::{NETWORK_KEY, folder_of};

/// The kind of token that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How many identities may use it. 0: any number.
    pub uses: u32,
    /// For how many milliseconds from now it can be used.
    pub lifetime: u64,
    /// Whether its identities vanish when they are gone.
    pub is_ephemeral: bool,
    /// The only name that its identities may take.
    pub name: Option<String>,
    /// The tags that it vouches for.
    pub tags: Vec<String>,
}

/// A new token, and what the rendezvous is told of it.
#[derive(Debug)]
pub struct Made {
    /// The token with its secret half.
    pub join: JoinToken,
    /// What the rendezvous is told, which is not secret.
    pub tell: Ask,
}

/// Makes a token. `key_file` holds the network key if it is not in the state folder.
///
/// # Errors
/// The key is missing or damaged, or the token would be refused.
pub fn make(state_dir: &Path, network: &str, key_file: Option<&Path>, wanted: &Wanted) -> Result<Made, ServeError> {
    let key = network_key(state_dir, network, key_file)?;
    let mut secret = Zeroizing::new([0; 32]);
    overlay_os::random::fill(&mut *secret)
        .map_err(|error| ServeError::new(Kind::Other, "the kernel gives no randomness").with_cause(error))?;
    let secret = SecretKey::from_bytes(&secret);
    let now = now().unix;
    let token = Token {
        network: key.public(),
        token: secret.public(),
        issued: now,
        expires: now.saturating_add(wanted.lifetime),
        uses: wanted.uses,
        is_ephemeral: wanted.is_ephemeral,
        name: wanted.name.clone(),
        tags: wanted.tags.clone(),
    };
    let refused = |refused| ServeError::new(Kind::Config, "such a token is refused").with_cause(refused);
    let token = Signed::sign(token, &key).map_err(refused)?;
    let tell = Ask::AddToken { token: BASE64.encode(token.bytes()) };
    let join = JoinToken::new(token, secret)
        .map_err(|error| ServeError::new(Kind::Other, "the token cannot be made").with_cause(error))?;
    Ok(Made { join, tell })
}

fn network_key(state_dir: &Path, network: &str, file: Option<&Path>) -> Result<SecretKey, ServeError> {
    let in_state = || folder_of(state_dir, network).join(NETWORK_KEY);
    let path = file.map_or_else(in_state, Path::to_owned);
    network::key(&path).map_err(|error| match error.kind {
        Kind::NotFound => ServeError::new(Kind::NotFound, format!("the network key `{}` is missing", path.display()))
            .with_hint("name the file that holds it: --network-key FILE"),
        _ => error,
    })
}
