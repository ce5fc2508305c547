//! Keeps secrets out of messages: a user who pastes a key into the wrong place must not find it in a log afterwards.
//!
//! Anything that may be a secret is overwritten with `*` of the same length, in values that messages quote and in the
//! text in which problems are shown. In case of doubt, text is hidden.

use std::ops::Range;

use overlay_wire::signed::KEY_TEXT_LEN;

use crate::keys::ENCODED_LENGTH;

/// Formats a value for a message: in back quotes, escaped, cut to 60 characters, with secrets overwritten.
pub(super) fn quoted(value: &str) -> String {
    let shown: String = conceal(value).escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match shown.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}...`", &shown[..cut]),
        None => format!("`{shown}`"),
    }
}

/// Overwrites every byte of `text` that may belong to a secret: what follows `private_key =` and similar names,
/// including further lines of a broken pasted key, and anything as long as a key that does not follow `public_key =`.
/// Lengths are kept, so that spans remain valid.
pub(super) fn conceal(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut line_start = 0;
    let mut goes_on = false;
    for line in text.split_inclusive('\n') {
        let (mut secrets, opens) = secrets_of(line);
        if goes_on && !begins_anew(line) {
            secrets.push(0..line.len());
        } else {
            goes_on = opens;
        }
        for range in secrets {
            let found = bytes[line_start + range.start..line_start + range.end].iter_mut();
            found.filter(|byte| !byte.is_ascii_whitespace() && !b"\"'".contains(byte)).for_each(|byte| *byte = b'*');
        }
        line_start += line.len();
    }
    String::from_utf8(bytes).expect("whole characters were overwritten by ASCII")
}

/// A run of base64 of at least this length is taken for a key, even if some of it was lost when pasting.
const SHORTEST_SECRET: usize = 40;

/// The longest name of a key in a config, in characters. Anything longer is part of something else.
const LONGEST_NAME: usize = 24;

/// Returns the places of secrets in a line, and whether the last of them may continue in the next line.
fn secrets_of(line: &str) -> (Vec<Range<usize>>, bool) {
    let mut secrets = Vec::new();
    // Neither a public key nor a long path is a secret.
    let mut is_shown = false;
    let mut run = 0;
    for (at, byte) in line.bytes().chain(std::iter::once(b'\n')).enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_') {
            run += 1;
            continue;
        }
        if run >= SHORTEST_SECRET && !is_shown && !is_identity(&line[at - run..at]) {
            secrets.push(at - run..at);
        }
        run = 0;
        if byte != b'=' {
            continue;
        }
        let name = name_before(&line[..at]);
        let value = &line[at + 1..];
        let is_broken = value.matches('"').count() % 2 == 1;
        let is_key = value.split(['"', '\'']).any(looks_like_key);
        if is_secret_name(&name) || (is_secret_file(&name) && (is_broken || is_key)) {
            secrets.push(at + 1..line.len());
            return (secrets, true);
        }
        // The `=` at the end of a base64 key is not an assignment.
        if name.len() <= LONGEST_NAME {
            is_shown = name.contains("public") || is_secret_file(&name);
        }
    }
    (secrets, false)
}

/// Whether a run is the text of an agent's, a network's or a rendezvous' key, which is public. Base64 of a secret has
/// other characters too.
fn is_identity(run: &str) -> bool {
    run.len() == KEY_TEXT_LEN && run.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

/// Returns the name that precedes a `=` after `text`, in lower case and without `_` and `-`.
fn name_before(text: &str) -> String {
    let name = text.trim_end_matches([' ', '\t', '"', '\'']);
    let start = name
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    name[start..].to_ascii_lowercase().replace(['_', '-'], "")
}

/// Whether a line is a header, a comment or a new assignment, rather than the rest of an earlier string.
fn begins_anew(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with('[') || line.starts_with('#') {
        return true;
    }
    line.split_once('=').is_some_and(|(name, value)| {
        let is_name = name.trim().chars().all(|c| c.is_ascii_alphanumeric() || "_-.\"'".contains(c));
        is_name && name.len() <= LONGEST_NAME && !value.trim_matches([' ', '"', '\'', '=']).is_empty()
    })
}

/// Whether the name of a key, in lower case and without `_` and `-`, stands for a secret rather than for its file.
pub(super) fn is_secret_name(name: &str) -> bool {
    announces_secret(name) && !name.ends_with("file")
}

fn is_secret_file(name: &str) -> bool {
    announces_secret(name) && name.ends_with("file")
}

fn announces_secret(name: &str) -> bool {
    ["privatekey", "presharedkey", "privkey", "secret", "psk"].iter().any(|word| name.contains(word))
}

/// Whether a file name is actually a key, possibly a damaged one. It is nearly as long as a key, and it either ends in
/// `=` or mixes characters like random data, without a leading folder or a suffix.
pub(super) fn looks_like_key(value: &str) -> bool {
    let value = value.trim();
    let has = |kind: fn(&char) -> bool| value.chars().any(|c| kind(&c));
    let is_mixed = has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase) && has(char::is_ascii_digit);
    let is_path = value.starts_with(['/', '.', '~']) || value.contains('.');
    let is_near = value.chars().count().abs_diff(ENCODED_LENGTH) <= 6;
    is_near && (value.ends_with('=') || (is_mixed && !is_path))
}
