//! The values of `[agent]` and `[[trust]]`: names, tags, services, scopes and keys.

use overlay_wire::signed::{BadName, KEY_TEXT_LEN, PublicKey, Scope, Service, Transport, check_name, check_tag};

use super::{parse_port, parse_rule};
use crate::config::Approved;
use crate::config::problem::{Problem, quoted};
use crate::keys::ENCODED_LENGTH;

/// Checks the name of an agent or a network. `whose` is "an agent" or "a network".
pub(crate) fn check_agent_name(name: &str, whose: &str) -> Result<(), Problem> {
    check_name(name).map_err(|reason| {
        let message = format!("{} cannot be {whose}'s name: {reason}", quoted(name));
        let hint = match corrected(name).filter(|word| check_name(word).is_ok()) {
            Some(word) => format!("write \"{word}\""),
            None if reason == BadName::Reserved => "choose a different name, as \"alice\"".to_owned(),
            None => "use 1 to 32 of a-z, 0-9 and hyphens, as in \"alice\"".to_owned(),
        };
        Problem::new("bad_name", message).hint(hint)
    })
}

/// Parses one of `tags`.
pub(crate) fn parse_tag(text: &str) -> Result<String, Problem> {
    let tag = check_tag(text).map(|()| text.to_owned());
    tag.map_err(|reason| {
        let hint = match corrected(text).filter(|word| check_tag(word).is_ok()) {
            Some(word) => format!("write \"{word}\""),
            None => "use 1 to 32 of a-z, 0-9 and hyphens, as in \"gpu\"".to_owned(),
        };
        Problem::new("bad_tag", format!("{} cannot be a tag: {reason}", quoted(text))).hint(hint)
    })
}

/// The word in lower case and without anything that no name has, if that is a different one.
fn corrected(name: &str) -> Option<String> {
    let lower = name.trim().to_ascii_lowercase();
    let word: String =
        lower.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let word = word.trim_matches('-').to_owned();
    (word != name && name.is_ascii()).then_some(word)
}

/// Parses one of `services`: `tcp/443=https`.
pub(crate) fn parse_service(text: &str) -> Result<Service, Problem> {
    let bad = |reason: String, hint: String| {
        Problem::new("bad_service", format!("{} is not a valid service: {reason}", quoted(text))).hint(hint)
    };
    let Some((place, name)) = text.split_once('=') else {
        return Err(bad("it has no name".to_owned(), "write its name after it, as \"tcp/443=https\"".to_owned()));
    };
    let grammar = || "write a protocol, a port and a name, as \"tcp/443=https\"".to_owned();
    let Some((protocol, port)) = place.split_once('/') else {
        return Err(bad("there is no port".to_owned(), grammar()));
    };
    let transport = match protocol {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(bad(format!("{} is neither tcp nor udp", quoted(protocol)), grammar())),
    };
    let port = match parse_port(port) {
        Ok(port) => port,
        Err(_) if port.contains('-') => {
            return Err(bad("a service has one port".to_owned(), "write each port as an entry of its own".to_owned()));
        }
        Err(reason) => return Err(bad(reason, grammar())),
    };
    match check_tag(name) {
        Ok(()) => Ok(Service { name: name.to_owned(), transport, port, text: String::new() }),
        Err(reason) => {
            Err(bad(format!("its name {} does not fit: {reason}", quoted(name)), "use a-z, 0-9 and hyphens".to_owned()))
        }
    }
}

/// Parses an entry of an agent's `allow`: what a peer's `allow` may have, and `any`. The text is kept.
pub(crate) fn parse_scope(text: &str) -> Result<String, Problem> {
    let wanted = text.trim().to_ascii_lowercase();
    if matches!(wanted.as_str(), "any" | "all" | "*" | "everything") && text != "any" {
        let message = format!("{} is not a valid entry of `allow`", quoted(text));
        return Err(Problem::new("bad_allow", message).hint("write \"any\" to allow everything"));
    }
    if text != "any" {
        parse_rule(text)?;
    }
    // A scope is signed as text, so each has one spelling.
    Scope::parse(text).map(|_| text.to_owned()).map_err(|_| {
        Problem::new("bad_allow", format!("{} has a number that begins with 0", quoted(text)))
            .hint("write the number without it")
    })
}

/// Parses an entry of `auto_approve`: an identity, or `tag:` and a tag.
pub(crate) fn parse_approved(text: &str) -> Result<Approved, Problem> {
    const TAG: &str = "tag:";
    let Some(tag) = text.strip_prefix(TAG) else {
        return parse_identity(text).map(Approved::Agent).map_err(|problem| match check_tag(text) {
            Ok(()) => problem.hint(format!("write the whole identity of an agent, or \"{TAG}{text}\" for a tag")),
            Err(_) => problem,
        });
    };
    parse_tag(tag).map(Approved::Tag).map_err(|problem| {
        let corrected = corrected(tag).filter(|word| check_tag(word).is_ok());
        problem.hint(match corrected {
            Some(word) => format!("write \"{TAG}{word}\""),
            None => "use 1 to 32 of a-z, 0-9 and hyphens, as in \"tag:ops\"".to_owned(),
        })
    })
}

/// Parses the identity of an agent.
pub(crate) fn parse_identity(text: &str) -> Result<PublicKey, Problem> {
    parse_key(text).map_err(|reason| {
        let hint = match text.len() {
            ENCODED_LENGTH => {
                "this looks like the key of a tunnel; an agent is known by its identity, which `overlay init` prints"
            }
            _ => "copy the whole key again; `overlay init` prints it on that agent's host",
        };
        Problem::new("bad_key", format!("this key {reason}")).hint(hint)
    })
}

/// Parses a public key of an agent, a network or a rendezvous. The error continues a sentence whose subject is the key.
pub(super) fn parse_key(text: &str) -> Result<PublicKey, String> {
    let length = text.chars().count();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if length == 1 {
        return Err(format!("has 1 character; a key has {KEY_TEXT_LEN}"));
    }
    if length != KEY_TEXT_LEN {
        return Err(format!("has {length} characters; a key has {KEY_TEXT_LEN}"));
    }
    if let Some(at) = text.chars().position(|c| !matches!(c, 'a'..='z' | '2'..='7')) {
        return Err(format!("has a character at position {} that is not one of a to z and 2 to 7", at + 1));
    }
    let key: PublicKey =
        text.parse().map_err(|_| "cannot be 32 bytes: a character was mistyped or is missing".to_owned())?;
    match key.check() {
        Ok(()) => Ok(key),
        Err(_) => Err("is not a valid key: a character was mistyped, or anybody could sign with it".to_owned()),
    }
}
