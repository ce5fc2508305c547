//! The names of agents and networks, and tags.
//!
//! A name is a DNS label (RFC 1123) in lower case, with the limits that keep it from being taken for something else.

use std::collections::BTreeSet;

/// The longest name in bytes.
pub const MAX_NAME_LEN: usize = 32;
/// The most tags of a record or a token.
pub const MAX_TAGS: usize = 16;

/// Names that mean something else: in the DNS, on the command line, or to people.
const RESERVED: [&str; 26] = [
    "all",
    "any",
    "admin",
    "agent",
    "agents",
    "arpa",
    "broadcasthost",
    "config",
    "dns",
    "example",
    "gateway",
    "internal",
    "invalid",
    "isatap",
    "local",
    "localhost",
    "me",
    "network",
    "none",
    "ns",
    "overlay",
    "relay",
    "rendezvous",
    "self",
    "test",
    "wpad",
];

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// It is empty.
    Empty,
    /// It is longer than [`MAX_NAME_LEN`].
    TooLong,
    /// It has this character, which no name has.
    Character(char),
    /// It begins or ends with a hyphen.
    Hyphen,
    /// It consists of digits alone, so it could be taken for a number.
    Digits,
    /// It begins with `xn--`, which marks encoded international names.
    Encoded,
    /// It means something else.
    Reserved,
}

impl std::fmt::Display for BadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {MAX_NAME_LEN} characters"),
            Self::Character(found) if found.is_ascii_uppercase() => {
                write!(f, "it has the capital letter {found:?}: names are written in lower case")
            }
            Self::Character(found) => {
                write!(f, "it has the character {found:?}: a name has only a to z, 0 to 9 and hyphens")
            }
            Self::Hyphen => f.write_str("it begins or ends with a hyphen"),
            Self::Digits => f.write_str("it has only digits: a name needs a letter"),
            Self::Encoded => f.write_str("it begins with \"xn--\": names are plain ASCII"),
            Self::Reserved => f.write_str("it is reserved"),
        }
    }
}

impl std::error::Error for BadName {}

/// Checks the name of an agent or a network.
///
/// # Errors
/// Returns the first reason found.
pub fn check_name(name: &str) -> Result<(), BadName> {
    check_label(name)?;
    if name.starts_with("xn--") {
        return Err(BadName::Encoded);
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadName::Digits);
    }
    if RESERVED.contains(&name) { Err(BadName::Reserved) } else { Ok(()) }
}

/// Checks a tag or the name of a service. It may be a reserved word, and it may consist of digits.
///
/// # Errors
/// Returns the first reason found.
pub fn check_tag(tag: &str) -> Result<(), BadName> {
    check_label(tag)
}

/// Whether all values differ.
pub(super) fn are_different<T: Ord>(values: &[T]) -> bool {
    values.iter().collect::<BTreeSet<_>>().len() == values.len()
}

fn check_label(label: &str) -> Result<(), BadName> {
    if label.is_empty() {
        return Err(BadName::Empty);
    }
    if let Some(found) = label.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(BadName::Character(found));
    }
    if label.len() > MAX_NAME_LEN {
        return Err(BadName::TooLong);
    }
    if label.starts_with('-') || label.ends_with('-') { Err(BadName::Hyphen) } else { Ok(()) }
}
