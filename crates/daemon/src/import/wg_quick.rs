//! The grammar of a wg-quick config: sections, keys without regard to case, comments, and the names people write into
//! them.

use std::ops::RangeInclusive;

use ipnet::IpNet;

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
    /// From a comment.
    pub(super) name: Option<&'a str>,
    pub(super) entries: Vec<Entry<'a>>,
}

/// One `Key = Value`.
pub(super) struct Entry<'a> {
    pub(super) line: usize,
    /// In lower case.
    pub(super) key: String,
    /// As it stands in the file.
    pub(super) written: &'a str,
    pub(super) value: &'a str,
}

/// Cuts `text` into sections. Several `[Interface]` are one, as for wg-quick.
pub(super) fn parse(text: &str) -> Result<Document<'_>, ImportError> {
    let mut document = Document {
        interface: Part { line: 0, name: None, entries: Vec::new() },
        peers: Vec::new(),
        warnings: Vec::new(),
    };
    let mut section = None;
    // A word that stands alone in a comment: the name of the [Peer] that follows at once, else of the one it is in.
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
        if let Some(header) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(match header.trim().to_ascii_lowercase().as_str() {
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
        let (written, value) = (written.trim(), value.trim());
        let entry = Entry { line, key: written.to_ascii_lowercase(), written, value };
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

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Interface,
    Peer,
}

/// Gives the name from a comment to the peer it stands in, unless that has one.
fn settle<'a>(document: &mut Document<'a>, section: Option<Section>, word: Option<&'a str>) {
    if let (Some(Section::Peer), Some(peer)) = (section, document.peers.last_mut()) {
        peer.name = peer.name.or(word);
    }
}

/// `bob`, `Name = bob`, `friendly_name = bob`: what people and other tools write.
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

impl<'a> Entry<'a> {
    /// The values between commas.
    pub(super) fn list(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value.split(',').map(str::trim).filter(|value| !value.is_empty())
    }

    /// A decimal or hexadecimal number.
    pub(super) fn number(&self, range: RangeInclusive<u32>) -> Result<u32, ImportError> {
        let parsed = match self.value.strip_prefix("0x").or_else(|| self.value.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => self.value.parse(),
        };
        parsed.ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let message = format!("`{}` must be a number from {} to {}", self.written, range.start(), range.end());
            ImportError::new(self.line, message)
        })
    }

    /// A prefix whose host bits may be set, or a bare address.
    pub(super) fn prefix(&self, text: &str) -> Result<IpNet, ImportError> {
        crate::config::parse_net(text).map_err(|message| ImportError::new(self.line, message))
    }
}
