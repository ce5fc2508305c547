//! Keeps secrets out of messages: someone who pastes a key into the wrong place must not find it in a log afterwards.
//!
//! Whatever may be a secret is overwritten with `*` of the same length, in values that messages quote and in the text
//! that problems are drawn into. It errs on the side of silence.

use std::ops::Range;

use crate::keys::ENCODED_LENGTH;

/// A value of the file, fit to stand in a message: in back quotes, escaped, cut to 60 characters, secrets overwritten.
pub(super) fn quoted(value: &str) -> String {
    let shown: String = conceal(value).escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    match shown.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}...`", &shown[..cut]),
        None => format!("`{shown}`"),
    }
}

/// `text` with every byte overwritten that may belong to a secret: what follows `private_key =` and its like to the
/// end of the line, and anything as long as a key that does not follow `public_key =`. Lengths stay, so that spans fit.
pub(super) fn conceal(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut line_start = 0;
    for line in text.split_inclusive('\n') {
        for range in secrets_of(line) {
            let found = &mut bytes[line_start + range.start..line_start + range.end];
            found
                .iter_mut()
                .filter(|byte| !byte.is_ascii_whitespace() && !b"\"'".contains(byte))
                .for_each(|byte| *byte = b'*');
        }
        line_start += line.len();
    }
    String::from_utf8(bytes).expect("whole characters were overwritten by ASCII")
}

fn secrets_of(line: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut is_public = false;
    let mut run = 0;
    for (at, byte) in line.bytes().chain(std::iter::once(b'\n')).enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_') {
            run += 1;
            continue;
        }
        let word = line.get(at - run..at).unwrap_or_default();
        if run >= SHORTEST_SECRET && !is_public {
            secrets.push(at - run..at);
        }
        if byte == b'=' {
            let name = line[..at].trim_end_matches([' ', '\t', '"', '\'']);
            let name =
                name.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).next().unwrap_or(word);
            let name = name.to_ascii_lowercase().replace(['_', '-'], "");
            if is_secret_name(&name) {
                secrets.push(at + 1..line.len());
                break;
            }
            // The `=` at the end of a key is no assignment.
            is_public = if name.len() < SHORTEST_SECRET { name.contains("public") } else { is_public };
        }
        run = 0;
    }
    secrets
}

/// A run of base64 of this length or more is taken for a key, even if the pasting lost some of it.
const SHORTEST_SECRET: usize = 40;

/// Whether a name of a key, in lower case and without `_` and `-`, announces a secret rather than the file of one.
pub(super) fn is_secret_name(name: &str) -> bool {
    let announces = ["privatekey", "presharedkey", "privkey", "secret", "psk"].iter().any(|word| name.contains(word));
    announces && !name.ends_with("file")
}

/// Whether a value is a whole key in base64 rather than a name of something.
pub(super) fn looks_like_key(value: &str) -> bool {
    let value = value.trim();
    value.len() == ENCODED_LENGTH
        && value.ends_with('=')
        && value[..ENCODED_LENGTH - 1].bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
