//! What the verbs of agent mode ask a daemon.

use std::fmt::Write as _;
use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CHANGE_PATIENCE, Client, LOOK_PATIENCE};
use crate::agent::explain::Explain;
use crate::agent::request::{Approve, Decisions, Find, Handshake, Join, Named, RotateKey};
use crate::api::agent::{
    AgentAnswer, AgentsAnswer, ConfirmedAnswer, DecidedAnswer, DecisionsAnswer, HealthAnswer, JoinedAnswer,
    PendingAnswer, RotatedAnswer, VerifiedAnswer,
};
use crate::api::explain::{ExplainedAnswer, RulesAnswer};
use crate::failure::Failure;
use crate::view::PathStatus;

/// How long a daemon may take to answer a request for which it asks the rendezvous.
const SEARCH_PATIENCE: Duration = Duration::from_secs(20);

/// Every function fails as [`Client::status`] does, and with the failure that the agent returns.
impl Client {
    /// Asks a peer for trust.
    ///
    /// # Errors
    ///
    /// Those of every request, and what the agent says.
    pub async fn handshake(&self, handshake: &Handshake) -> Result<DecidedAnswer, Failure> {
        self.decide("/v1/agent/handshake", handshake).await
    }

    /// Approves a request, or changes what a trusted peer may open.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn approve(&self, approve: &Approve) -> Result<DecidedAnswer, Failure> {
        self.decide("/v1/agent/approve", approve).await
    }

    /// Refuses a request. What a trusted peer has stays.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn reject(&self, named: &Named) -> Result<DecidedAnswer, Failure> {
        self.decide("/v1/agent/reject", named).await
    }

    /// Takes trust back, or refuses a request.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn untrust(&self, named: &Named) -> Result<DecidedAnswer, Failure> {
        self.decide("/v1/agent/untrust", named).await
    }

    /// Replaces the tunnel key.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn rotate_key(&self, rotate: &RotateKey) -> Result<RotatedAnswer, Failure> {
        self.decide("/v1/agent/key/rotate", rotate).await
    }

    /// Gives the agent a join token that was bound to it.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn join(&self, join: &Join) -> Result<JoinedAnswer, Failure> {
        self.decide("/v1/agent/join", join).await
    }

    /// Fetches the requests that wait for a decision.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn pending(&self) -> Result<PendingAnswer, Failure> {
        self.ask(Method::GET, "/v1/agent/pending", LOOK_PATIENCE).await
    }

    /// Fetches what is known of this agent and its peers.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn agent(&self) -> Result<AgentAnswer, Failure> {
        self.ask(Method::GET, "/v1/agent/peers", LOOK_PATIENCE).await
    }

    /// Fetches how this agent is.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn health(&self) -> Result<HealthAnswer, Failure> {
        self.ask(Method::GET, "/v1/agent/health", LOOK_PATIENCE).await
    }

    /// Looks for agents at the rendezvous.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn find_agents(&self, find: &Find) -> Result<AgentsAnswer, Failure> {
        let parameters = [
            ("name", find.name.as_deref()),
            ("tag", find.tag.as_deref()),
            ("service", find.service.as_deref()),
            ("search", find.search.as_deref()),
            ("after", find.after.as_deref()),
        ];
        self.search("/v1/agent/find", &parameters).await
    }

    /// Looks for the agent with this virtual IP, name or key.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn whois(&self, agent: &str) -> Result<AgentsAnswer, Failure> {
        self.search("/v1/agent/whois", &[("agent", Some(agent))]).await
    }

    /// Grants something to an agent before it asks.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn trust(&self, trust: &Approve) -> Result<DecidedAnswer, Failure> {
        self.decide("/v1/agent/trust", trust).await
    }

    /// Says that a restored state is the newest one.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn confirm(&self) -> Result<ConfirmedAnswer, Failure> {
        self.ask(Method::POST, "/v1/agent/confirm", CHANGE_PATIENCE).await
    }

    /// Fetches the code by which two people compare keys.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn verify(&self, peer: &str) -> Result<VerifiedAnswer, Failure> {
        self.search("/v1/agent/verify", &[("peer", Some(peer))]).await
    }

    /// Fetches the newest decisions.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn decisions(&self, decisions: &Decisions) -> Result<DecisionsAnswer, Failure> {
        let last = decisions.last.map(|last| last.to_string());
        let parameters = [("peer", decisions.peer.as_deref()), ("last", last.as_deref())];
        self.search("/v1/agent/decisions", &parameters).await
    }

    /// Asks which rule decides.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn explain(&self, explain: &Explain) -> Result<ExplainedAnswer, Failure> {
        let Explain { from, to, what } = explain;
        self.search("/v1/explain", &[("from", Some(from)), ("to", Some(to)), ("what", Some(what))]).await
    }

    /// Fetches the rules between this side and a peer.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`].
    pub async fn rules(&self, peer: &str) -> Result<RulesAnswer, Failure> {
        self.search("/v1/rules", &[("peer", Some(peer))]).await
    }

    /// Fetches how a peer is reached.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::handshake`], [`ExitKind::Refused`](crate::failure::ExitKind::Refused) if there is no tunnel, and
    /// [`ExitKind::Config`](crate::failure::ExitKind::Config) if overlay does not look for paths to this peer.
    pub async fn path(&self, peer: &str) -> Result<PathStatus, Failure> {
        self.ask(Method::GET, &format!("/v1/peers/{}/path", encoded(peer)), LOOK_PATIENCE).await
    }

    async fn decide<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).expect("a request is plain data");
        self.ask_with(Method::POST, path, body.into(), CHANGE_PATIENCE).await
    }

    async fn search<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, Option<&str>)]) -> Result<T, Failure> {
        let given = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?))));
        let query = given.collect::<Vec<_>>().join("&");
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.ask(Method::GET, &path, SEARCH_PATIENCE).await
    }
}

/// Encodes a value for a URI (RFC 3986 section 2).
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ => write!(text, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_stays_one_value_of_the_query() {
        assert_eq!(encoded("bob@abc-7.x_~"), "bob%40abc-7.x_~");
        assert_eq!(encoded("a&name=b #?/%\r\nü"), "a%26name%3Db%20%23%3F%2F%25%0D%0A%C3%BC");
    }
}
