//! The grammar of a wg-quick config: sections, keys in any case, comments, and the peer names that people write into comments.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::ImportError;
use crate::config::is_peer_name;

/// The sections of a config.
pub(super) struct Document<'a> {
    pub(super) interface: Part<'a>,
    pub(super) peers: Vec<Part<'a>>,
    pub(super) warnings: Vec<String>,
}

/// One section.
pub(super) struct Part<'a> {
    pub(super) line: usize,
    /// The name, taken from a comment.
    pub(super) name: Option<&'a str>,
    pub(super) entries: Vec<Entry>,
}

/// One `Key = Value`.
pub(super) struct Entry {
    pub(super) line: usize,
    /// The section that contains it.
    pub(super) section: &'static str,
    /// The key in lower case, without blanks.
    pub(super) key: String,
    /// The key as written in the file, without blanks.
    pub(super) written: String,
    /// The value. As in the originals, blanks are removed from values that `wg` reads, and kept inside values that
    /// wg-quick reads.
    pub(super) value: Zeroizing<String>,
}

/// The keys that wg-quick reads itself. They exist in [Interface] only.
const OF_WG_QUICK: [&str; 9] =
    ["address", "mtu", "dns", "table", "preup", "postup", "predown", "postdown", "saveconfig"];

/// Splits `text` into sections. Several `[Interface]` sections count as one, as in wg-quick.
pub(super) fn parse(text: &str) -> Result<Document<'_>, ImportError> {
    let mut document = Document {
        interface: Part { line: 0, name: None, entries: Vec::new() },
        peers: Vec::new(),
        warnings: Vec::new(),
    };
    let mut section = None;
    // A single word in a comment. It names the [Peer] that follows immediately, or otherwise the one that contains it.
    let mut word = None;
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = index + 1;
        let (content, comment) = raw.split_once('#').map_or((raw, ""), |(content, comment)| (content, comment));
        let content = content.trim();
        let named = name_in(comment.trim_start_matches('#').trim());
        if content.is_empty() {
            if named.is_some() || comment.is_empty() {
                settle(&mut document, section, word.take());
            }
            word = named.or(word);
            continue;
        }
        let bare = without_blanks(content);
        if let Some(header) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(match header.to_ascii_lowercase().as_str() {
                "interface" => {
                    document.interface.line = line;
                    Section::Interface
                }
                "peer" => {
                    document.peers.push(Part { line, name: named.or(word.take()), entries: Vec::new() });
                    Section::Peer
                }
                _ => {
                    return Err(ImportError::new(line, format!("there is no section [{header}] in a wg-quick config")));
                }
            });
            word = None;
            continue;
        }
        settle(&mut document, section, word.take());
        let Some((written, value)) = content.split_once('=') else {
            return Err(ImportError::new(line, "this is neither `Key = Value` nor a [Section]"));
        };
        let written = without_blanks(written);
        let key = written.to_ascii_lowercase();
        let is_of_wg_quick = section == Some(Section::Interface) && OF_WG_QUICK.contains(&key.as_str());
        let value = if is_of_wg_quick { value.trim().to_owned() } else { without_blanks(value) };
        let name = if section == Some(Section::Peer) { "Peer" } else { "Interface" };
        let entry = Entry { line, section: name, key, written: written.clone(), value: Zeroizing::new(value) };
        match (section, document.peers.last_mut()) {
            (Some(Section::Interface), _) => document.interface.entries.push(entry),
            (Some(Section::Peer), Some(peer)) => peer.entries.push(entry),
            _ => return Err(ImportError::new(line, format!("`{written}` stands before any [Section]"))),
        }
    }
    settle(&mut document, section, word);
    if document.interface.line == 0 {
        return Err(ImportError::new(0, "there is no [Interface]: this is not a wg-quick config"));
    }
    Ok(document)
}

/// Removes all blanks, as `wg` does.
fn without_blanks(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_whitespace() && *c != '\u{b}').collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Interface,
    Peer,
}

/// Gives the name from a comment to the peer that contains it, unless that peer has a name.
fn settle<'a>(document: &mut Document<'a>, section: Option<Section>, word: Option<&'a str>) {
    if let (Some(Section::Peer), Some(peer)) = (section, document.peers.last_mut()) {
        peer.name = peer.name.or(word);
    }
}

/// Returns the name in a comment, in the forms that people and other tools write: `bob`, `Name = bob`, `friendly_name = bob`.
fn name_in(comment: &str) -> Option<&str> {
    let name = match comment.split_once(['=', ':']) {
        Some((key, name)) if ["name", "friendly_name"].contains(&key.trim().to_ascii_lowercase().as_str()) => {
            name.trim()
        }
        Some(_) => return None,
        None => comment,
    };
    is_peer_name(name).then_some(name)
}

impl Entry {
    /// Returns the values between commas and, for keys that wg-quick reads, also between blanks.
    pub(super) fn list(&self) -> impl Iterator<Item = &str> {
        self.value.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|value| !value.is_empty())
    }

    /// Parses a decimal or hexadecimal number.
    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Result<u32, ImportError> {
        number(&self.value).filter(|number| range.contains(number)).ok_or_else(|| {
            let message = format!("`{}` must be a number from {} to {}", self.written, range.start(), range.end());
            ImportError::new(self.line, message)
        })
    }

    /// Parses a prefix whose host bits may be set, or a bare address. Leading zeros in the length are accepted, as in `wg`.
    pub(super) fn prefix(&self, text: &str) -> Result<IpNet, ImportError> {
        let usual = match text.split_once('/') {
            Some((address, length)) if length.len() > 1 && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let digits = length.trim_start_matches('0');
                format!("{address}/{}", if digits.is_empty() { "0" } else { digits })
            }
            _ => text.to_owned(),
        };
        crate::config::parse_net(&usual).map_err(|message| ImportError::new(self.line, message))
    }
}

/// Parses a decimal number, or a hexadecimal number after `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
