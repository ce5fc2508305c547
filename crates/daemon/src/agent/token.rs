//! A join token as a person hands it over: read from a file, and judged before it is used.
//!
//! The text is a secret. No failure shows any of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use overlay_wire::signed::{BadJoinToken, JoinToken, MAX_JOIN_TEXT_LEN, PublicKey, Refused, Token};
use zeroize::Zeroizing;

use crate::dates;
use crate::failure::{ExitKind, Failure};
use crate::permission::denied;

/// The file name that stands for stdin.
const STDIN: &str = "-";
/// The most bytes that are read: the longest text, and the end of its line.
const MAX_READ: usize = MAX_JOIN_TEXT_LEN + 1;

/// Reads a token from a file, or from stdin if the file is `-`.
///
/// # Errors
/// [`ExitKind::Usage`] if it is not a token or is damaged. Otherwise the file cannot be read.
pub fn read(file: &Path) -> Result<JoinToken, Failure> {
    let is_stdin = file == Path::new(STDIN);
    let name = if is_stdin { "stdin".to_owned() } else { format!("`{}`", file.display()) };
    // As long as it can get, so that no part of it stays behind where it was before it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_READ));
    let read = if is_stdin {
        io::stdin().lock().take(MAX_READ as u64).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(MAX_READ as u64).read_to_end(&mut bytes))
    };
    read.map_err(|error| cannot_read(file, &name, &error))?;
    let text = str::from_utf8(bytes.trim_ascii()).map_err(|_| BadJoinToken::Text);
    text.and_then(JoinToken::parse).map_err(|bad| not_a_token(&name, bad))
}

/// Refuses a token that cannot be used in this network, under this name, and at this time in milliseconds since 1970.
///
/// # Errors
/// [`ExitKind::Usage`].
pub(super) fn check(token: &Token, network: &PublicKey, name: &str, now: u64) -> Result<(), Failure> {
    let failure = |what: &str, cause: String, hint: &str| {
        Err(Failure::new(ExitKind::Usage, what).with_cause(cause).with_hint(hint.to_owned()))
    };
    if token.network != *network {
        let cause =
            format!("it is for the network with the key {}, and this network has the key {network}", token.network);
        return failure(
            "the join token is for a different network",
            cause,
            "use a token and a URL that the same operator has handed out",
        );
    }
    if token.expires < now {
        let cause = format!("it could be used until {}", dates::rfc3339(token.expires));
        return failure("the join token has expired", cause, "ask the operator of the network for a new token");
    }
    match &token.name {
        Some(only) if only != name => failure(
            &format!("the join token is for the name `{only}`"),
            format!("this agent is called `{name}`"),
            "use that name, or ask the operator of the network for a different token",
        ),
        _ => Ok(()),
    }
}

fn cannot_read(file: &Path, name: &str, error: &io::Error) -> Failure {
    let what = format!("cannot read the join token from {name}");
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(ExitKind::NotFound, what)
            .with_cause("there is no such file")
            .with_hint("a token is given as a file, or as - for stdin; it is never an argument"),
        io::ErrorKind::PermissionDenied => {
            let denied = denied(file);
            Failure::new(ExitKind::Permission, what).with_cause(denied.cause).with_hint(denied.hint)
        }
        _ => Failure::new(ExitKind::Other, what).with_cause(error),
    }
}

fn not_a_token(name: &str, bad: BadJoinToken) -> Failure {
    // What was cut off in the middle has no form at all.
    let bad = if bad == BadJoinToken::Object(Refused::Malformed) { BadJoinToken::Damaged } else { bad };
    let (what, hint) = match bad {
        BadJoinToken::Text => {
            ("does not hold a join token", "use the line that the operator of the network handed out")
        }
        BadJoinToken::Damaged | BadJoinToken::Object(_) => (
            "holds a damaged join token",
            "copy the whole line again, or ask the operator of the network for a new token",
        ),
    };
    Failure::new(ExitKind::Usage, format!("{name} {what}")).with_cause(bad).with_hint(hint)
}

/// A token for tests.
#[cfg(test)]
pub(super) mod sample {
    use overlay_wire::signed::{SecretKey, Signed, Token};

    use super::*;

    pub(crate) const SECRET: [u8; 32] = [0x5a; 32];
    pub(crate) const ISSUED: u64 = 1_700_000_000_000;

    /// The key of the network in the tests of `init`: RFC 8032 section 7.1, test 2.
    pub(crate) fn network() -> SecretKey {
        SecretKey::from_bytes(&[
            0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b, 0x8a,
            0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
        ])
    }

    /// Signs a token for the tag `ops` that never expires, after `change`.
    pub(crate) fn token(change: impl FnOnce(&mut Token)) -> JoinToken {
        let (network, secret) = (network(), SecretKey::from_bytes(&SECRET));
        let mut token = Token {
            network: network.public(),
            token: secret.public(),
            issued: ISSUED,
            expires: u64::MAX,
            uses: 0,
            is_ephemeral: false,
            name: None,
            tags: vec!["ops".to_owned()],
        };
        change(&mut token);
        JoinToken::new(Signed::sign(token, &network).expect("a good token"), secret).expect("its secret")
    }
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;
    use overlay_wire::signed::SecretKey;

    use super::*;

    #[test]
    fn a_token_is_for_one_network_and_perhaps_one_name_and_ends() {
        let network = sample::network().public();
        let token = sample::token(|token| {
            token.name = Some("alice".to_owned());
            token.expires = sample::ISSUED + 1_000;
        });
        assert_eq!(check(token.token(), &network, "alice", sample::ISSUED + 1_000), Ok(()));
        assert_eq!(check(sample::token(|_| {}).token(), &network, "anybody", sample::ISSUED), Ok(()));
        let other = SecretKey::from_bytes(&[9; 32]).public();
        for (name, network, agent, now) in [
            ("a different network", other, "alice", sample::ISSUED),
            ("a different name", network, "bob", sample::ISSUED),
            ("expired", network, "alice", sample::ISSUED + 1_001),
        ] {
            let failure = check(token.token(), &network, agent, now).expect_err(name);
            assert_eq!(failure.code, ExitKind::Usage);
            golden(name, failure.lines());
        }
    }

    #[test]
    fn a_file_without_a_token_is_refused_and_none_of_it_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let good = sample::token(|_| {}).text();
        let refused = |content: &[u8]| {
            std::fs::write(&file, content).expect("our own file");
            let failure = read(&file).map(drop).expect_err("refused");
            let lines = failure.lines().replace(&folder.path().display().to_string(), "DIR");
            assert!(!lines.contains(&good[20..40]), "{lines}");
            (failure.code, lines)
        };
        std::fs::write(&file, &*good).expect("our own file");
        assert_eq!(read(&file).expect("a token").token().tags, ["ops"]);
        for end in ["\n", "\r\n"] {
            std::fs::write(&file, format!("{}{end}", &*good)).expect("our own file");
            assert!(read(&file).is_ok(), "{end:?}");
        }
        let changed = [&good[..100], if &good[100..101] == "A" { "B" } else { "A" }, &good[101..]].concat();
        for (name, content) in [
            ("damaged", &good.as_bytes()[..good.len() - 1]),
            ("changed", changed.as_bytes()),
            ("empty", b""),
            ("different", b"https://rv.example.net:7447\n"),
            ("binary", b"\xff\xfe"),
            ("too long", [good.as_bytes(), &[b'A'; MAX_READ]].concat().as_slice()),
        ] {
            let (code, lines) = refused(content);
            assert_eq!(code, ExitKind::Usage, "{name}");
            golden(name, lines);
        }
        std::fs::remove_file(&file).expect("our own file");
        let failure = read(&file).map(drop).expect_err("missing");
        assert_eq!(failure.code, ExitKind::NotFound);
        golden("missing", failure.lines().replace(&folder.path().display().to_string(), "DIR"));
    }
}
