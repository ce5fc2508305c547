//! Scopes: what a peer may open, in requests and grants. The grammar is that of `allow`, and `any`.

use overlay_wire::signed::Scope;

use super::rule::{Wording, parse_worded};
use crate::config::problem::{Problem, quoted};

const SCOPE: Wording = Wording {
    noun: "scope",
    grammar: "write \"any\", \"icmp\", \"tcp\", \"udp\", \"tcp/22\", \"udp/8000-8010\" or the number of an IP protocol",
};

/// Checks a scope as people write it.
///
/// # Errors
/// What is wrong with it, and what to write instead. What passes is a scope for [`Scope::parse`] too.
pub fn check_scope(text: &str) -> Result<(), Problem> {
    let bad = |message: String, hint: &str| Err(Problem::new("bad_scope", message).hint(hint));
    let shown = quoted(text);
    match text.trim().to_ascii_lowercase().as_str() {
        "any" if text == "any" => return Ok(()),
        "any" | "all" | "*" | "everything" => {
            return bad(format!("{shown} is not a valid scope"), "write \"any\" for everything");
        }
        "" | "none" | "nothing" => {
            return bad(format!("{shown} is not a valid scope"), "an empty list of scopes allows nothing but answers");
        }
        _ => {}
    }
    if text.contains(',') {
        return bad(
            format!("{shown} lists several scopes"),
            &format!("give each of them by itself: {}", each_of(text)),
        );
    }
    parse_worded(text, &SCOPE)?;
    // What is signed has one form for each number.
    match Scope::parse(text) {
        Ok(_) => Ok(()),
        Err(_) => bad(
            format!("{shown} is not a valid scope: it has a number that begins with 0"),
            "write numbers without leading zeros",
        ),
    }
}

/// The scopes of a list with commas. A port without a protocol is one of the protocol before it: `tcp/22,80`.
fn each_of(list: &str) -> String {
    let mut protocol = None;
    let scopes = list.split(',').map(str::trim).map(|scope| match (scope.split_once('/'), protocol) {
        (Some((word, _)), _) => {
            protocol = Some(word);
            quoted(scope)
        }
        (None, Some(word)) if scope.starts_with(|first: char| first.is_ascii_digit()) => {
            quoted(&format!("{word}/{scope}"))
        }
        (None, _) => quoted(scope),
    });
    scopes.collect::<Vec<_>>().join(" and ")
}
