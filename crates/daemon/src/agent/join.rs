//! What `overlay join` does: an agent that exists already gets a join token.
//!
//! The program that reads the token binds it to this agent's identity. The daemon sees the result and never the secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_wire::signed::{Attestation, JoinToken, PublicKey, Signed, Token};

use super::request::{Join, Joined};
use super::time::unix_now;
use super::{Agent, own, token};
use crate::failure::{ExitKind, Failure};

/// Binds a token to an agent with this identity, as the daemon of that agent reports it.
///
/// # Errors
/// [`ExitKind::Other`] if the identity is not a key.
pub fn bind(token: &JoinToken, identity: &str) -> Result<Join, Failure> {
    let refused = || Failure::new(ExitKind::Other, "the join token cannot be bound to this agent");
    let identity: PublicKey = identity.parse().map_err(|error| refused().with_cause(error))?;
    let mut nonce = [0; 16];
    overlay_os::random::fill(&mut nonce).map_err(|error| refused().with_cause(error))?;
    let attestation = token.attest(&identity, nonce).map_err(|error| refused().with_cause(error))?;
    Ok(Join { token: STANDARD.encode(attestation.token), bind: STANDARD.encode(attestation.bind) })
}

impl Agent {
    /// Takes a token that was bound to this agent. It is on disk when this returns. The record with it is registered then.
    pub(super) fn join(&mut self, join: &Join, uid: u32) -> Result<Joined, Failure> {
        let decode = |text: &str| STANDARD.decode(text).ok();
        let attestation = decode(&join.token).zip(decode(&join.bind));
        let attestation = attestation.map(|(token, bind)| Attestation { token, bind });
        let network = &self.config.network_key;
        let token = attestation.as_ref().and_then(|it| Signed::<Token>::open(&it.token).ok()).ok_or_else(not_bound)?;
        token::check(&token, network, &self.config.name, unix_now())?;
        let attestation = attestation.filter(|it| it.token(network, &self.book.me()).is_ok()).ok_or_else(not_bound)?;
        let (shown, before) = (Some(&attestation), Some(&self.record));
        let record = own::record(&self.config, &self.keys, shown, before, self.record.ipv4, unix_now());
        let record = record.map_err(|refused| {
            Failure::new(ExitKind::Refused, "the record of this agent has no room for the token").with_cause(refused)
        })?;
        self.state.set_attestation(&attestation)?;
        self.attestation = Some(attestation);
        self.record = record;
        self.offer_record();
        tracing::info!(uid, tags = ?token.tags, "a join token was given to this agent");
        Ok(Joined { tags: token.tags.clone() })
    }
}

fn not_bound() -> Failure {
    Failure::new(ExitKind::Refused, "this is not a join token that was bound to this agent")
        .with_hint("sudo overlay join FILE binds the token in FILE")
}
