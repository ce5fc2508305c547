//! What records are looked for by.

use minicbor::{Decode, Encode};
use overlay_wire::signed::Record;

use super::Find;

/// The longest text to search for, in bytes.
const MAX_TEXT_LEN: usize = 64;

/// What agents must have in common with all of this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Filter {
    /// A claimed tag.
    #[n(0)]
    pub tag: Option<String>,
    /// The name of a service.
    #[n(1)]
    pub service: Option<String>,
    /// A part of the name, of a tag, or of the name or the text of a service. Capitals do not count.
    #[n(2)]
    pub text: Option<String>,
}

impl Filter {
    /// Whether an agent is looked for.
    pub fn matches(&self, record: &Record) -> bool {
        let has_tag = |tag: &String| record.tags.contains(tag);
        let has_service = |name: &String| record.services.iter().any(|service| service.name == *name);
        self.tag.as_ref().is_none_or(has_tag)
            && self.service.as_ref().is_none_or(has_service)
            && self.text.as_deref().is_none_or(|text| mentions(record, text))
    }

    /// Whether it can be looked for.
    pub fn is_valid(&self) -> bool {
        [&self.tag, &self.service, &self.text].into_iter().flatten().all(|text| text.len() <= MAX_TEXT_LEN)
    }
}

impl Find {
    /// Whether a record is what is looked for.
    pub fn matches(&self, record: &Record) -> bool {
        match self {
            Self::Key(key) => record.identity == *key,
            Self::Name(name) => record.name == *name,
            Self::Tag(tag) => record.tags.contains(tag),
            Self::Address(address) => {
                record.ipv4.is_some_and(|ipv4| ipv4[..] == address[..]) || record.ipv6().octets()[..] == address[..]
            }
            Self::All => true,
            Self::KeyPrefix(prefix) => record.identity.to_string().starts_with(prefix.as_str()),
            Self::Matching(filter) => filter.matches(record),
        }
    }

    /// What a rendezvous without filters can be asked for it. What it finds has to be filtered here.
    pub(crate) fn without_filter(&self) -> Self {
        match self {
            Self::Matching(filter) => filter.tag.clone().map_or(Self::All, Self::Tag),
            by => by.clone(),
        }
    }
}

fn mentions(record: &Record, text: &str) -> bool {
    let text = text.to_lowercase();
    let services = record.services.iter().flat_map(|service| [&service.name, &service.text]);
    let mut all = std::iter::once(&record.name).chain(&record.tags).chain(services);
    all.any(|part| part.to_lowercase().contains(&text))
}
