//! The entries of `allow`: protocols and ports that a peer may open towards us.

use std::ops::RangeInclusive;

use overlay_core::{Protocol, Rule};

use super::parse_port;
use crate::config::problem::{Problem, quoted};

/// What a text is to be, in the words of its problems.
pub(super) struct Wording {
    /// The noun.
    pub(super) noun: &'static str,
    /// What can be written.
    pub(super) grammar: &'static str,
}

const ENTRY: Wording = Wording {
    noun: "entry of `allow`",
    grammar: "write \"icmp\", \"tcp\", \"udp\", \"tcp/22\", \"udp/8000-8010\" or the number of an IP protocol",
};

/// Parses an entry of `allow`: `icmp`, `tcp`, `udp`, `tcp/22`, `udp/8000-8010`, or an IP protocol number.
pub(crate) fn parse_rule(text: &str) -> Result<Rule, Problem> {
    parse_worded(text, &ENTRY)
}

/// Parses a rule. Its problems are told in these words.
pub(super) fn parse_worded(text: &str, words: &Wording) -> Result<Rule, Problem> {
    let noun = words.noun;
    let bad = |message: String, hint: String| Err(Problem::new("bad_allow", message).hint(hint));
    let shown = quoted(text);
    let (word, ports) = match text.split_once('/') {
        Some((word, ports)) => (word, Some(ports)),
        None => (text, None),
    };
    let protocol = match word {
        "icmp" => Protocol::Icmp,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) => protocol_number(text, word)?,
        _ => {
            return bad(
                format!("{shown} is not a valid {noun}: there is no protocol {}", quoted(word)),
                correction(text, words),
            );
        }
    };
    let Some(ports) = ports else { return Ok(Rule { protocol, ports: None }) };
    if word.starts_with(|c: char| c.is_ascii_digit()) && matches!(ports, "tcp" | "udp") {
        return bad(format!("{shown} is not a valid {noun}: the protocol comes first"), correction(text, words));
    }
    if !matches!(protocol, Protocol::Tcp | Protocol::Udp) {
        let what = if protocol == Protocol::Icmp { "icmp" } else { "this protocol" };
        return bad(format!("{shown}: {what} takes no port"), format!("write \"{word}\""));
    }
    let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    if ports.contains(',') {
        let entries: Vec<_> = ports.split(',').map(|port| format!("\"{name}/{}\"", port.trim())).collect();
        return bad(
            format!("{shown} is not a valid {noun}: it lists several ports"),
            format!("write each as an entry of its own: {}", entries.join(", ")),
        );
    }
    match parse_ports(ports) {
        Ok(range) => Ok(Rule { protocol, ports: Some(range) }),
        Err(PortsError::Reversed(first, last)) => bad(
            format!("{shown} is not a valid {noun}: its range ends before it begins"),
            format!("write \"{name}/{last}-{first}\""),
        ),
        Err(PortsError::Port(reason)) => bad(
            format!("{shown} is not a valid {noun}: {reason}"),
            format!(
                "write a port or a range of them, as \"{name}/22\" or \"{name}/8000-8010\"; \"{name}\" is all ports"
            ),
        ),
    }
}

/// IPv6 extension headers that precede the protocol and hide what follows them (RFC 8200 section 4.1).
const EXTENSION_HEADERS: [u8; 4] = [0, 43, 44, 60];

fn protocol_number(text: &str, word: &str) -> Result<Protocol, Problem> {
    match word.parse::<u8>() {
        Ok(1 | 58) => Ok(Protocol::Icmp),
        Ok(6) => Ok(Protocol::Tcp),
        Ok(17) => Ok(Protocol::Udp),
        Ok(number) if EXTENSION_HEADERS.contains(&number) => {
            Err(Problem::new("bad_allow", format!("{} is an IPv6 extension header, not a protocol", quoted(text)))
                .hint("leave it out: extension headers are passed with the protocol they carry"))
        }
        Ok(number) => Ok(Protocol::Number(number)),
        Err(_) => Err(Problem::new(
            "bad_allow",
            format!("{} is not an IP protocol number: they go from 0 to 255", quoted(word)),
        )
        .hint(format!("a port is written with its protocol, as \"tcp/{word}\""))),
    }
}

/// Suggests what was meant by an entry with an unknown protocol.
fn correction(text: &str, words: &Wording) -> String {
    let grammar = words.grammar;
    let lower = text.trim().to_ascii_lowercase().replace(' ', "");
    if matches!(lower.as_str(), "all" | "any" | "*" | "everything") {
        return "leave `allow` out to allow everything".to_owned();
    }
    if matches!(lower.as_str(), "none" | "nothing" | "") {
        return "write allow = [] to allow nothing but answers".to_owned();
    }
    let separated = lower.replacen(':', "/", 1);
    let (first, second) = match separated.split_once('/') {
        Some((first, second)) => (first, Some(second)),
        None => (separated.as_str(), None),
    };
    let known = |word: &str| match word {
        "icmpv6" | "icmp6" | "icmpv4" | "ping" => Some("icmp"),
        _ => ["icmp", "tcp", "udp"].into_iter().find(|known| strsim::damerau_levenshtein(known, word) <= 1),
    };
    let meant = match (known(first), second.and_then(known)) {
        (Some(protocol), _) => match second {
            Some(ports) => format!("{protocol}/{ports}"),
            None => protocol.to_owned(),
        },
        (None, Some(protocol)) => format!("{protocol}/{first}"),
        (None, None) => return grammar.to_owned(),
    };
    if parse_rule(&meant).is_ok() { format!("did you mean \"{meant}\"?") } else { grammar.to_owned() }
}

enum PortsError {
    Reversed(u16, u16),
    Port(String),
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, PortsError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = parse_port(first).map_err(PortsError::Port)?;
    let last = parse_port(last).map_err(PortsError::Port)?;
    if first <= last { Ok(first..=last) } else { Err(PortsError::Reversed(first, last)) }
}
