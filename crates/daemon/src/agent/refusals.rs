//! What this agent refused to believe, counted by reason.
//!
//! A rendezvous, or a peer, that shows forged, old or foreign objects changes nothing. These counters are where that is
//! seen. The reasons are the words of the types that refuse, so a new one needs a row in [`REFUSALS`] and nothing else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use overlay_rendezvous::client::Client;
use overlay_wire::signed::{Network, Record, Signed};

use super::Agent;
use super::connection::ConnectError;
use super::trust::Refusal;

/// Every reason: its word, and a sentence that says what was refused.
pub const REFUSALS: [(&str, &str); 32] = [
    (
        "malformed",
        "It does not have the form of an object or letter of its kind, or an object inside a letter is refused.",
    ),
    ("too_long", "It is longer than its kind may be."),
    ("unknown_key", "It has an entry that must be understood, and this version does not know it."),
    ("bad_signature", "It was not signed by the agent that it names, or not as what it is shown as."),
    ("weak_key", "It contains a key that anybody could use."),
    ("bad_name", "A name or a tag has a form that is not allowed."),
    ("bad_scope", "An entry of a list of rights is not a right."),
    ("bad_value", "A value is outside its range, or contradicts a different one."),
    ("bad_part", "An object inside it is not what it must be."),
    ("sealed", "A letter was not sealed for this agent by the sender that the rendezvous names."),
    ("wrong_network", "It belongs to a different network."),
    ("not_ours", "It is not from the agent that it is shown as from, or not for this agent."),
    ("ourselves", "It is shown as a letter of this agent to itself."),
    ("not_asked", "A record does not match what was looked for."),
    ("not_watched", "It concerns an agent that this agent does not watch."),
    ("page", "A page of records goes back or stands still."),
    ("address", "The IPv4 address of a record does not follow from the identity."),
    ("other_key", "A record shows a different identity under the name of an agent that is trusted."),
    ("key_taken", "The tunnel key of a record belongs to a different agent that is trusted."),
    ("expired", "It has expired."),
    ("future", "It was signed more than ten minutes in the future."),
    ("rolled_back", "A record or the network object is older than the one that is known."),
    ("forked", "A record or the network object has the sequence of the one that is known, and different content."),
    ("replayed", "A letter is not newer than the newest one of its sender, which may have been a revoke."),
    ("unasked", "A letter answers nothing that this agent asked, or is from an agent without trust."),
    ("full", "Too many requests wait for a decision."),
    ("bad_object", "What the other end of a connection says of itself is not a signed object of that kind."),
    ("wrong_role", "The other end of a connection says of itself that it is an agent."),
    ("relayed", "The proof of the rendezvous was made for a different connection: it was relayed or replayed."),
    ("wrong_rendezvous", "The other end of a connection has a different key than the URL says."),
    ("unknown_version", "The other end of a connection speaks no version of the protocol that this agent speaks."),
    ("other", "Any other reason."),
];

/// The counters. The agent counts, and the metrics read.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// What the agent itself refused, in the order of [`REFUSALS`].
    agent: [AtomicU64; REFUSALS.len()],
    /// What its client of the rendezvous dropped before the agent saw it.
    client: [AtomicU64; REFUSALS.len()],
}

impl Default for Refusals {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self { agent: std::array::from_fn(zero), client: std::array::from_fn(zero) }
    }
}

impl Refusals {
    /// Counts one refusal. Returns whether it is the first one for this reason.
    pub(super) fn count(&self, reason: &str) -> bool {
        self.agent[place_of(reason)].fetch_add(1, Relaxed) == 0
    }

    /// Counts a connection that was refused for what its other end says of itself.
    pub(super) fn on_not_connected(&self, error: &ConnectError) {
        if matches!(error, ConnectError::BadAuth(_) | ConnectError::WrongRendezvous { .. }) {
            self.count(error.code());
        }
    }

    /// Takes over what the clients have counted.
    pub(super) fn follow<'a>(&self, clients: impl Iterator<Item = &'a Client>) {
        let mut counts = [0; REFUSALS.len()];
        for (reason, count) in clients.flat_map(Client::distrusted_by_reason) {
            counts[place_of(reason)] += count;
        }
        self.client.iter().zip(counts).for_each(|(shown, count)| shown.store(count, Relaxed));
    }

    /// Every reason, with how often it occurred.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.agent.iter().zip(&self.client).map(|(ours, its)| ours.load(Relaxed) + its.load(Relaxed));
        REFUSALS.iter().map(|(reason, _)| *reason).zip(counts)
    }
}

/// Where a reason is counted. One without a row is `other`, the last.
fn place_of(reason: &str) -> usize {
    REFUSALS.iter().position(|(known, _)| *known == reason).unwrap_or(REFUSALS.len() - 1)
}

impl Agent {
    /// Counts something that is refused.
    pub(super) fn refuse(&self, refusal: Refusal, what: &str) {
        self.refusals.count(refusal.code());
        tracing::debug!(reason = refusal.code(), "a {what} is refused");
    }

    /// Counts a network object that is older than the known one, or has its sequence and different content.
    pub(super) fn note_former_network(&self, network: &Signed<Network>) {
        match self.network.as_ref().filter(|known| *known != network) {
            Some(known) if known.sequence == network.sequence => self.refuse(Refusal::Forked, "network"),
            Some(_) => self.refuse(Refusal::RolledBack, "network"),
            None => {}
        }
    }

    /// Returns the records that may be shown and pinned, out of those that the rendezvous has found.
    pub(super) fn judge_found(&self, mut records: Vec<Signed<Record>>) -> Vec<Signed<Record>> {
        self.note_other_keys(&records);
        records.retain(|record| {
            let judged = self.book.check_found(record, self.moment());
            judged.map_err(|refusal| self.refuse(refusal, "record")).is_ok()
        });
        records
    }

    /// Reports records that show a different identity under the name of a trusted agent. They are never followed, because
    /// a peer is its identity. Only the first one is a line in the log: a rendezvous could send many.
    pub(super) fn note_other_keys<'a>(&self, records: impl IntoIterator<Item = &'a Signed<Record>>) {
        for record in records {
            let is_other = self.book.trusted().any(|peer| peer.name == record.name && peer.identity != record.identity);
            if is_other && self.refusals.count("other_key") {
                tracing::warn!("the rendezvous shows a different key for the name of a trusted agent: overlay agents");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_rendezvous::channel;
    use overlay_wire::signed::Refused;

    use super::*;

    #[test]
    fn every_reason_has_a_row_of_its_own() {
        let refused = [
            Refused::Malformed,
            Refused::TooLong,
            Refused::UnknownKey,
            Refused::BadSignature,
            Refused::WeakKey,
            Refused::BadName,
            Refused::BadScope,
            Refused::BadValue,
            Refused::BadPart,
        ];
        let refusals = [
            Refusal::Malformed,
            Refusal::NotOurs,
            Refusal::Ourselves,
            Refusal::Replayed,
            Refusal::RolledBack,
            Refusal::Forked,
            Refusal::Unasked,
            Refusal::Expired,
            Refusal::Future,
            Refusal::Address,
            Refusal::KeyTaken,
            Refusal::Full,
        ];
        let client = ["wrong_network", "not_ours", "not_asked", "not_watched", "page"];
        let words = refused.map(Refused::code).into_iter().chain(refusals.map(Refusal::code));
        let words = words.chain(channel::Refusal::ALL.map(channel::Refusal::code)).chain(client);
        for word in words {
            assert!(REFUSALS.iter().any(|(reason, _)| *reason == word), "{word}");
        }
        let mut reasons = REFUSALS.map(|(reason, _)| reason);
        reasons.sort_unstable();
        assert!(reasons.windows(2).all(|pair| pair[0] != pair[1]), "{reasons:?}");
    }

    #[test]
    fn what_has_no_row_is_counted_as_other() {
        let refusals = Refusals::default();
        assert!(refusals.count("replayed") && !refusals.count("replayed") && refusals.count("unheard of"));
        let counted: Vec<_> = refusals.list().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("replayed", 2), ("other", 1)]);
    }
}
