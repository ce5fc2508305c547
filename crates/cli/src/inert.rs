//! Texts of strangers made harmless for a terminal: control characters, ANSI sequences, and characters that cannot be
//! seen or that change the direction of writing are shown as escapes.

use std::fmt::Write as _;

/// The text on one line: what cannot be printed becomes `\n`, `\u{1b}` and so on. A backslash becomes two, so that a text
/// cannot pretend to hold an escape.
pub(crate) fn text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\\' {
            shown.push_str("\\\\");
        } else if is_inert(letter) {
            shown.push(letter);
        } else {
            shown.extend(letter.escape_debug());
        }
    }
    shown
}

/// The same for text that is JSON already: what cannot be printed becomes `\u001b` and so on, which is the same value.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_inert(letter) {
            shown.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            write!(shown, "\\u{unit:04x}").expect("a string takes everything");
        }
    }
    shown
}

/// Whether a terminal shows this character and does nothing else.
fn is_inert(letter: char) -> bool {
    if letter.is_ascii() {
        return !letter.is_ascii_control();
    }
    // Behind a letter, marks that combine with it are left as they are: several scripts need them.
    let mut behind_a_letter = [0; 5];
    behind_a_letter[0] = b'x';
    let length = 1 + letter.encode_utf8(&mut behind_a_letter[1..]).len();
    let text = std::str::from_utf8(&behind_a_letter[..length]).expect("two characters in UTF-8");
    text.escape_debug().nth(1) == Some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_ansi_and_invisible_ones_are_shown_as_escapes() {
        let cases = [
            ("plain, \"quoted\" and it's ünïcode नमस्ते 🙂", "plain, \"quoted\" and it's ünïcode नमस्ते 🙂"),
            ("\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0"),
            // CSI in one character, which some terminals obey.
            ("\u{9b}31m\x7f", "\\u{9b}31m\\u{7f}"),
            // Right to left, zero width, a line separator, a tag.
            ("\u{202e}txt\u{200b}\u{2028}\u{e0041}", "\\u{202e}txt\\u{200b}\\u{2028}\\u{e0041}"),
            ("a\\u{1b}", "a\\\\u{1b}"),
        ];
        for (found, shown) in cases {
            assert_eq!(text(found), shown);
        }
    }

    #[test]
    fn json_keeps_its_value() {
        let value = "\x1b\u{9b}\x7f\u{202e}\u{e0041} \\ \"ü\"\n";
        let written = json(&serde_json::to_string(value).expect("plain data"));
        assert_eq!(written, r#""\u001b\u009b\u007f\u202e\udb40\udc41 \\ \"ü\"\n""#);
        assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), value);
    }
}
