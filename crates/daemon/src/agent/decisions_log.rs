//! The log of decisions about trust: who decided what, when, and by what right.
//!
//! `decisions.log` in the state folder has one line of JSON for each decision of this side. It is appended to and synced
//! before the decision is answered. What peers decide is not in it, so no peer can push a person's decision out of it by
//! making many of its own. What the config decides when a peer asks is held to 16 an hour for each peer.
//!
//! A decision holds whether or not it can be logged: a full disk must not keep anybody from taking trust back. What could
//! not be logged is counted.
//!
//! At 4 MiB the file is renamed to `decisions.log.1`, in place of the one before it.

use std::collections::BTreeMap;
use std::path::Path;

use overlay_os::folder::Folder;
use overlay_os::line_log::LineLog;
use overlay_wire::signed::PublicKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dates::rfc3339;
use crate::failure::{ExitKind, Failure};

const NAME: &str = "decisions.log";
const OLD: &str = "decisions.log.1";
/// The longest file in bytes: about 12,000 decisions.
const MAX_LEN: u64 = 4 * 1024 * 1024;
/// How many decisions of the config about one peer are logged in an hour.
const MAX_AUTOMATIC: u32 = 16;
/// How many peers are counted for that.
const MAX_COUNTED: usize = 4_096;
const HOUR: u64 = 3_600_000;
/// How many decisions one answer lists at most.
pub const MAX_LISTED: usize = 1_000;

/// One decision about a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// When, by RFC 3339 in UTC.
    pub time: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What: `asked`, `approved`, `changed`, `granted` (beforehand), `rejected`, `untrusted`, `expired` or `confirmed`
    /// (a restored state counts).
    pub decision: String,
    /// The user who decided, as the kernel reports it. Left out if no user did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// What decided if no user did: `[[trust]]`, `auto_approve`, `trust` (a grant beforehand), `again` (the peer has the
    /// same as before), `restored` (found after a restore) or `expiry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The peer's name.
    pub name: String,
    /// The peer's whole key.
    pub identity: String,
    /// What the peer may open here from then on. Left out if it has no grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// When the grant ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

impl Decision {
    /// The user or the rule that decided, for people.
    pub fn by(&self) -> String {
        match (self.uid, &self.rule) {
            (Some(uid), _) => format!("uid {uid}"),
            (None, Some(rule)) => rule.clone(),
            (None, None) => "-".to_owned(),
        }
    }
}

/// The open log.
pub(super) struct DecisionLog {
    lines: LineLog,
    unwritten: u64,
    /// Why the last decision could not be logged.
    failure: Option<String>,
    automatic: BTreeMap<PublicKey, Rate>,
}

/// How often the config decided about a peer in the current hour.
struct Rate {
    since: u64,
    count: u32,
}

impl DecisionLog {
    /// Opens the log of a state folder. The file is created with the first decision.
    pub(super) fn open(state: &Path) -> Result<Self, Failure> {
        let folder = Folder::trusted(state, &[]).map_err(|error| {
            Failure::new(ExitKind::Permission, format!("cannot use {}", state.display())).with_cause(error)
        })?;
        Ok(Self {
            lines: LineLog::new(folder, NAME, OLD, MAX_LEN),
            unwritten: 0,
            failure: None,
            automatic: BTreeMap::new(),
        })
    }

    /// How many decisions could not be logged since the start.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Logs a decision that was made at `now`. It is on disk when this returns, or else counted.
    pub(super) fn note(&mut self, decision: Decision, now: u64) {
        let decision = Decision { time: rfc3339(now), unix_ms: now, ..decision };
        let Ok(mut line) = serde_json::to_vec(&decision) else { return };
        line.push(b'\n');
        let written = self.lines.append(&line);
        if let Err(error) = &written {
            self.unwritten += 1;
            let path = self.lines.folder().path_of(NAME);
            tracing::warn!(%error, "a decision holds, but cannot be logged in {}", path.display());
        }
        self.failure = written.err().map(|error| error.to_string());
    }

    /// Why the last decision could not be logged. `None`: it was.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Logs what the config decided about a peer, unless that was logged too often in the last hour.
    pub(super) fn note_automatic(&mut self, peer: PublicKey, decision: Decision, now: u64) {
        self.automatic.retain(|_, rate| now.saturating_sub(rate.since) < HOUR);
        if self.automatic.len() >= MAX_COUNTED && !self.automatic.contains_key(&peer) {
            self.unwritten += 1;
            return;
        }
        let rate = self.automatic.entry(peer).or_insert(Rate { since: now, count: 0 });
        rate.count += 1;
        if rate.count > MAX_AUTOMATIC {
            self.unwritten += 1;
        } else {
            self.note(decision, now);
        }
    }

    /// The newest decisions, newest first: all, or those about one peer.
    pub(super) fn newest(&self, peer: Option<&PublicKey>, limit: usize) -> Vec<Decision> {
        let key = peer.map(PublicKey::to_string);
        let mut found = Vec::new();
        for text in self.lines.newest_first() {
            let lines = text.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            // A line that is not whole was not logged.
            let decisions = lines.filter_map(|line| {
                let text = std::str::from_utf8(line).ok()?;
                let is_meant = key.as_ref().is_none_or(|key| text.contains(key.as_str()));
                is_meant.then(|| serde_json::from_str::<Decision>(text).ok())?
            });
            let decisions = decisions.filter(|decision| key.as_ref().is_none_or(|key| decision.identity == *key));
            found.extend(decisions.take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        found
    }

    /// The last decision that gave a peer what it has.
    pub(super) fn last(&self, peer: &PublicKey) -> Option<Decision> {
        self.newest(Some(peer), 1).pop()
    }
}

#[cfg(test)]
mod tests;
