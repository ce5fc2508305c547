//! The file of a key that is replaced from time to time.
//!
//! ```text
//! KEY in base64
//! since MILLISECONDS          when the key was made, since 1970
//! former KEY in base64        the key before it, while that is still of use
//! ```
//!
//! The first line is the whole file of a key that was never replaced. Both keys are in one file, because a file is
//! replaced as a whole: after a power cut it holds the state before a change or the state after it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// A secret key of `N` bytes and the one before it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyFile<const N: usize> {
    pub(super) key: Zeroizing<[u8; N]>,
    /// When the key was made, in milliseconds since 1970.
    pub(super) since: Option<u64>,
    pub(super) former: Option<Zeroizing<[u8; N]>>,
}

impl<const N: usize> KeyFile<N> {
    /// A key that was not replaced yet.
    pub(super) fn first(key: Zeroizing<[u8; N]>) -> Self {
        Self { key, since: None, former: None }
    }

    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let base64 = |key: &Zeroizing<[u8; N]>| Zeroizing::new(STANDARD.encode(&key[..]));
        let mut text = Zeroizing::new(Vec::with_capacity(64 + 3 * N));
        let mut line = |parts: [&str; 2]| {
            parts.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
            text.push(b'\n');
        };
        line(["", &base64(&self.key)]);
        if let Some(since) = self.since {
            line(["since ", &since.to_string()]);
        }
        if let Some(former) = &self.former {
            line(["former ", &base64(former)]);
        }
        text
    }

    /// Reads a file. `None` if any line is not what it must be.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(bytes).ok()?.trim_ascii().lines();
        let mut file = Self::first(key(lines.next()?)?);
        for line in lines {
            match line.split_once(' ')? {
                ("since", at) if file.since.is_none() => file.since = Some(at.parse().ok()?),
                ("former", text) if file.former.is_none() => file.former = Some(key(text)?),
                _ => return None,
            }
        }
        Some(file)
    }
}

fn key<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let bytes = STANDARD.decode(text.trim_ascii()).map(Zeroizing::new).ok()?;
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8) -> Zeroizing<[u8; 4]> {
        Zeroizing::new([byte; 4])
    }

    #[test]
    fn a_file_of_one_line_is_a_key_that_was_never_replaced() {
        let file = KeyFile::first(bytes(1));
        assert_eq!(&file.write()[..], b"AQEBAQ==\n");
        for text in ["AQEBAQ==", "AQEBAQ==\n", "\n AQEBAQ== \n"] {
            assert!(KeyFile::read(text.as_bytes()) == Some(file.clone()), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_was_replaced_has_its_time_and_the_key_before_it() {
        let text = "AQEBAQ==\nsince 1795824000000\nformer AgICAg==\n";
        let file = KeyFile { key: bytes(1), since: Some(1_795_824_000_000), former: Some(bytes(2)) };
        assert_eq!(&file.write()[..], text.as_bytes());
        assert!(KeyFile::read(text.as_bytes()) == Some(file));
    }

    #[test]
    fn a_file_with_anything_else_in_it_is_damaged() {
        let damaged = [
            "",
            "\n",
            "AQEB",
            "AQEBAQEB",
            "AQEBAQ==\nsince\n",
            "AQEBAQ==\nsince yesterday\n",
            "AQEBAQ==\nsince 1\nsince 2\n",
            "AQEBAQ==\nsince 1\nformer AgIC\n",
            "AQEBAQ==\nsince 1\nformer AgICAg==\nformer AgICAg==\n",
            "AQEBAQ==\nsince 1\nlater 2\n",
            "AQEBAQ==\nsince 1\nformer \n",
        ];
        for text in damaged {
            assert!(KeyFile::<4>::read(text.as_bytes()).is_none(), "{text:?}");
        }
        assert!(KeyFile::<4>::read(b"AQEBAQ==\n\xff\n").is_none());
    }
}
