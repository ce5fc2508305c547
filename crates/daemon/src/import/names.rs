//! Valid names that stay distinct if the originals were distinct.

use std::collections::HashSet;

/// The maximum length of an interface name, in bytes.
const MAX_INTERFACE: usize = 15;
/// The maximum length of a peer name, in bytes.
const MAX_PEER: usize = 63;

/// Derives an interface name from a file name that is not valid as one. Long names with the same beginning stay distinct.
pub(super) fn interface(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "_=+.-".contains(c) { c } else { '-' };
    let fitting: String = name.chars().map(fits).collect();
    let fitting = fitting.trim_start_matches(['-', '.']);
    match fitting {
        "" | "lo" | "all" | "default" => "overlay0".to_owned(),
        short if short.len() <= MAX_INTERFACE => short.to_owned(),
        long => format!("{}-{:04x}", &long[..MAX_INTERFACE - 5], checksum(name)),
    }
}

/// Returns a peer name that no earlier peer has, ignoring case.
pub(super) fn peer(wanted: &str, taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number: u32| {
        let suffix = format!("-{number}");
        format!("{}{suffix}", &wanted[..wanted.len().min(MAX_PEER - suffix.len())])
    });
    let mut candidates = std::iter::once(wanted.to_owned()).chain(numbered);
    let is_free = |name: &String| taken.insert(name.to_ascii_lowercase());
    candidates.find(is_free).expect("there are more numbers than peers")
}

/// Quotes a word for the shell.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=+:,@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Quotes a TOML string.
pub(super) fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// FNV-1a, folded to 16 bits.
fn checksum(text: &str) -> u16 {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_of_interfaces_stay_different() {
        let names = ["company-vpn-berlin-1", "company-vpn-berlin-2"].map(interface);
        assert!(names[0] != names[1] && names.iter().all(|name| name.len() == MAX_INTERFACE), "{names:?}");
        assert_eq!(interface("two words"), "two-words");
        assert_eq!(interface("lo"), "overlay0");
        assert_eq!(interface("-x"), "x");
    }

    #[test]
    fn peers_of_one_name_get_numbers() {
        let mut taken = HashSet::new();
        let long = "a".repeat(63);
        let names = ["bob", "Bob", "bob-2", "bob", &long, &long].map(|name| peer(name, &mut taken));
        assert_eq!(names[..4], ["bob", "Bob-2", "bob-2-2", "bob-3"]);
        assert_eq!(names[5], format!("{}-2", "a".repeat(61)));
    }

    #[test]
    fn words_of_the_shell_are_quoted_where_they_must_be() {
        let rows =
            [("/etc/wg0.conf", "/etc/wg0.conf"), ("two words", "'two words'"), ("it's", "'it'\\''s'"), ("", "''")];
        for (text, expected) in rows {
            assert_eq!(shell_word(text), expected);
        }
    }
}
