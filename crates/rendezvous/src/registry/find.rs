//! Looking for records.
//!
//! A hidden agent is found by its exact key and in no other way. Agents that are shown to members are found by callers
//! that are registered. Public ones are found by everybody. Nothing is shown once its record is no longer fresh.

use std::ops::Bound;

use overlay_wire::signed::{KEY_TEXT_LEN, PublicKey, Record, Signed, Visibility};

use super::{Outcome, Refusal, Registry};
use crate::now::Now;
use crate::protocol::{Code, Find, MAX_FOUND, MAX_MESSAGE_LEN, Reply};

/// The shortest beginning of a key by which it is found, in characters.
pub(super) const MIN_PREFIX_LEN: usize = 16;
/// The most records that one call looks at.
const MAX_LOOKED_AT: usize = 512;
/// What an answer needs beside its records, in bytes.
const ANSWER_OVERHEAD: usize = 64;
/// What a record needs beside its own bytes, in bytes.
const RECORD_OVERHEAD: usize = 3;

/// The agent that asks, and the time.
struct View {
    is_registered: bool,
    now: u64,
}

impl View {
    /// Whether a record may be shown to a caller that does not know its exact key.
    fn shows(&self, record: &Record) -> bool {
        let is_visible = match record.visibility {
            Visibility::Hidden => false,
            Visibility::Members => self.is_registered,
            Visibility::Public => true,
        };
        is_visible && record.is_fresh(self.now)
    }
}

impl Registry {
    pub(super) fn find(&self, caller: &PublicKey, by: &Find, after: Option<PublicKey>, now: Now) -> Outcome {
        let view = View { is_registered: self.agents.is_registered(caller), now: now.unix };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let one = |identity: Option<&PublicKey>| {
            let record = identity.and_then(|identity| self.agents.record(identity));
            answer(record.filter(|record| view.shows(record)).into_iter())
        };
        Ok(Some(match by {
            Find::Key(identity) => {
                let record = self.agents.record(identity).filter(|record| record.is_fresh(now.unix));
                answer(record.into_iter())
            }
            Find::Name(name) => one(self.agents.names.owner(name)),
            Find::Address(address) => one(self.by_address(address)?),
            Find::Tag(tag) => self.page(self.agents.tagged(tag, start), &view, |_| true),
            Find::All => self.page(self.agents.listed(start), &view, |_| true),
            Find::Matching(filter) if !filter.is_valid() => return Err(Code::Malformed.into()),
            Find::Matching(filter) => {
                let matches = |record: &Record| filter.matches(record);
                match &filter.tag {
                    Some(tag) => self.page(self.agents.tagged(tag, start), &view, matches),
                    None => self.page(self.agents.listed(start), &view, matches),
                }
            }
            Find::KeyPrefix(prefix) => {
                let first = first_key(prefix).ok_or(Code::Malformed)?;
                let start = match after {
                    Some(after) if after >= first => Bound::Excluded(after),
                    _ => Bound::Included(first),
                };
                let found = self.agents.listed(start);
                let found = found.take_while(|identity| identity.to_string().starts_with(prefix.as_str()));
                self.page(found, &view, |_| true)
            }
        }))
    }

    /// The agent with an address, if its record says so, too.
    fn by_address(&self, address: &[u8]) -> Result<Option<&PublicKey>, Refusal> {
        if let Ok(address) = <[u8; 4]>::try_from(address) {
            let owner = self.agents.addresses.owner(&address);
            return Ok(
                owner.filter(|owner| self.agents.record(owner).is_some_and(|record| record.ipv4 == Some(address)))
            );
        }
        let address = <[u8; 16]>::try_from(address).map_err(|_| Code::Malformed)?;
        Ok(self.agents.by_ipv6(&address))
    }

    /// As many records as one answer holds.
    fn page<'a>(
        &'a self,
        identities: impl Iterator<Item = &'a PublicKey>,
        view: &View,
        is_meant: impl Fn(&Record) -> bool,
    ) -> Reply {
        let mut records = Vec::new();
        let mut len = ANSWER_OVERHEAD;
        let mut last = None;
        for (looked_at, identity) in identities.enumerate() {
            let record = self.agents.record(identity).filter(|record| view.shows(record) && is_meant(record));
            let record_len = record.map_or(0, |record| record.bytes().len() + RECORD_OVERHEAD);
            if looked_at >= MAX_LOOKED_AT || records.len() >= MAX_FOUND || len + record_len > MAX_MESSAGE_LEN {
                return Reply::Found { records, next: last };
            }
            len += record_len;
            last = Some(*identity);
            records.extend(record.map(|record| record.bytes().to_vec().into()));
        }
        Reply::Found { records, next: None }
    }
}

fn answer<'a>(records: impl Iterator<Item = &'a Signed<Record>>) -> Reply {
    Reply::Found { records: records.map(|record| record.bytes().to_vec().into()).collect(), next: None }
}

/// The lowest key whose text begins with `prefix`. `None` if that is too short or too long, or no key begins like this.
fn first_key(prefix: &str) -> Option<PublicKey> {
    if !(MIN_PREFIX_LEN..=KEY_TEXT_LEN).contains(&prefix.len()) || !prefix.is_ascii() {
        return None;
    }
    format!("{prefix:a<KEY_TEXT_LEN$}").parse().ok()
}
