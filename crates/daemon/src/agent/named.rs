//! How people name an agent, and the agent that they mean.
//!
//! A key names one agent. A name is believed where trust has pinned it, or where the rendezvous says whose it is: anybody
//! can write any name into a request.

use std::net::IpAddr;

use overlay_rendezvous::protocol::Find as By;
use overlay_wire::signed::{PublicKey, Record, Signed, check_name};

use super::Agent;
use super::shown::addresses;
use super::trust::{Impossible, Relation};
use crate::failure::{ExitKind, Failure};

/// The shortest part of a key that names an agent.
const MIN_PREFIX: usize = 16;

/// How a person names an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    Name(&'a str),
    /// A key, or the first part of one.
    Key(&'a str),
    /// A text that can be both.
    Either(&'a str),
    /// `NAME@KEYPREFIX`.
    Both(&'a str, &'a str),
}

impl<'a> Named<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Failure> {
        if let Some((name, prefix)) = text.split_once('@') {
            if prefix.len() < MIN_PREFIX {
                return Err(Failure::new(ExitKind::Usage, format!("`{text}` has too short a part of a key"))
                    .with_cause(format!("it has {} characters after the @", prefix.len()))
                    .with_hint(format!("write at least {MIN_PREFIX} characters of the key, or the whole key")));
            }
            return Ok(Self::Both(name, prefix));
        }
        let is_prefix = text.len() >= MIN_PREFIX && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'));
        Ok(match (is_prefix, check_name(text).is_ok()) {
            (true, true) => Self::Either(text),
            (true, false) => Self::Key(text),
            (false, _) => Self::Name(text),
        })
    }

    pub(super) fn matches(self, identity: &PublicKey, name: &str) -> bool {
        match self {
            Self::Both(wanted, _) => self.has_key(identity) && wanted == name,
            _ => self.has_key(identity) || self.has_name(name),
        }
    }

    fn has_key(self, identity: &PublicKey) -> bool {
        match self {
            Self::Name(_) => false,
            Self::Key(prefix) | Self::Either(prefix) | Self::Both(_, prefix) => {
                identity.to_string().starts_with(prefix)
            }
        }
    }

    fn has_name(self, name: &str) -> bool {
        match self {
            Self::Key(_) => false,
            Self::Name(wanted) | Self::Either(wanted) | Self::Both(wanted, _) => wanted == name,
        }
    }

    /// What to look for at the rendezvous, and what to look for if that is not found.
    pub(super) fn by(self) -> (By, Option<By>) {
        let key = |text: &str| text.parse().map_or_else(|_| By::KeyPrefix(text.to_owned()), By::Key);
        match self {
            Self::Name(name) | Self::Both(name, _) => (By::Name(name.to_owned()), None),
            Self::Key(text) => (key(text), None),
            Self::Either(text) => (By::Name(text.to_owned()), Some(key(text))),
        }
    }
}

/// The peer that a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) identity: PublicKey,
    /// Whether it is the one that the person means: named by its key, or by the name that trust has pinned.
    pub(super) is_certain: bool,
}

impl Agent {
    /// The record of the one agent that a text names, if it is known here for certain.
    pub(super) fn find_known(&self, text: &str) -> Result<Option<Signed<Record>>, Failure> {
        let named = Named::parse(text)?;
        let peers = self.book.relations().filter_map(|relation| Some((relation.is_paired(), relation.shown_record()?)));
        let mut matching = peers.chain([(true, &self.record)]).filter(|(is_pinned, record)| match named {
            Named::Both(..) => named.matches(&record.identity, &record.name),
            _ => named.has_key(&record.identity) || (*is_pinned && named.has_name(&record.name)),
        });
        match (matching.next(), matching.next()) {
            (Some((_, record)), None) => Ok(Some(record.clone())),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(ambiguous(text)),
        }
    }

    /// The record of the agent that has this virtual IP here.
    pub(super) fn with_address(&self, address: IpAddr) -> Option<&Signed<Record>> {
        if self.addresses().iter().any(|own| own.addr() == address) {
            return Some(&self.record);
        }
        let has_it = |relation: &&Relation| match address {
            IpAddr::V4(address) => relation.ipv4 == Some(address.octets()),
            IpAddr::V6(_) => relation.shown_record().is_some_and(|record| addresses(record).contains(&address)),
        };
        self.book.relations().find(has_it).and_then(Relation::shown_record)
    }

    /// The peer that a decision is about: one with this key, else one of this name that we have decided about, else one
    /// of this name that asks.
    pub(super) fn choose(&self, text: &str) -> Result<Chosen, Failure> {
        let named = Named::parse(text)?;
        let rank = |relation: &Relation| {
            let name = relation.name().unwrap_or_default();
            match named {
                Named::Both(..) => named.matches(&relation.identity, name).then_some(0),
                _ if named.has_key(&relation.identity) => Some(0),
                _ if named.has_name(name) => Some(if relation.is_stranger() { 2 } else { 1 }),
                _ => None,
            }
        };
        let ranked = || self.book.relations().filter_map(|relation| Some((rank(relation)?, relation)));
        let best = ranked().map(|(rank, _)| rank).min();
        let mut matching = ranked().filter(|(rank, _)| Some(*rank) == best);
        match (matching.next(), matching.next()) {
            (Some((rank, relation)), None) => {
                Ok(Chosen { identity: relation.identity, is_certain: rank == 0 || relation.is_paired() })
            }
            (None, _) => Err(impossible(text, Impossible::NothingAsked)),
            (Some(_), Some(_)) => Err(ambiguous(text)),
        }
    }
}

pub(super) fn unknown(text: &str) -> Failure {
    Failure::new(ExitKind::NotFound, format!("no agent is called `{text}`"))
        .with_hint("overlay agents lists the known ones, and overlay find those of the rendezvous")
}

pub(super) fn ambiguous(text: &str) -> Failure {
    Failure::new(ExitKind::Conflict, format!("`{text}` names more than one agent"))
        .with_hint("write the full key, or NAME@KEYPREFIX; overlay agents shows them")
}

pub(super) fn impossible(text: &str, error: Impossible) -> Failure {
    let ask = || Some(format!("overlay handshake {text}"));
    let (code, cause, hint) = match error {
        Impossible::Ourselves => (ExitKind::Usage, "that is this agent itself", None),
        Impossible::NothingAsked => (ExitKind::NotFound, "it has not asked, and is not trusted", ask()),
        Impossible::Expired => (ExitKind::Refused, "its request has expired", ask()),
        Impossible::NotTrusted => (ExitKind::NotFound, "there is nothing to take back", None),
        Impossible::KeyTaken => {
            (ExitKind::Refused, "its tunnel key is this agent's own, or belongs to a different peer", None)
        }
        Impossible::BadValue => (ExitKind::Usage, "a list or the reason is too long, or an entry is not a right", None),
    };
    let failure = Failure::new(code, format!("nothing was decided about `{text}`")).with_cause(cause);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_an_agent_by_name_by_key_or_by_both() {
        let key = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst";
        for (text, expected) in [
            ("bob", Named::Name("bob")),
            ("abcdefghijklmno", Named::Name("abcdefghijklmno")),
            ("abcdefghijklmnop", Named::Either("abcdefghijklmnop")),
            ("search-tool-of-lab", Named::Name("search-tool-of-lab")),
            (key, Named::Key(key)),
            ("bob@abcdefghijklmnop", Named::Both("bob", "abcdefghijklmnop")),
        ] {
            assert_eq!(Named::parse(text).expect("a good text"), expected, "{text}");
        }
        for text in ["bob@", "bob@abcdefghijklmno"] {
            assert_eq!(Named::parse(text).expect_err("too short").code, ExitKind::Usage, "{text}");
        }
    }
}
