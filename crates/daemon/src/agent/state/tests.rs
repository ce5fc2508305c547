//! State that survives, and state that is refused by name.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::failure::ExitKind;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/root").or_else(|_| tempfile::tempdir()).expect("a folder")
}

#[test]
fn keys_are_made_once_and_read_again() {
    let folder = folder();
    let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    let made = state.keys().expect("just written");
    let state = State::open(folder.path(), "lab").expect("readable").expect("there");
    let read = state.keys().expect("readable");
    assert_eq!(made.identity.public(), read.identity.public());
    assert_eq!(made.tunnel.public(), read.tunnel.public());
    assert_eq!(made.mailbox.public_x25519(), read.mailbox.public_x25519());
    for name in [IDENTITY, TUNNEL, MAILBOX] {
        let mode = fs::metadata(state.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(state.path()).expect("there").permissions().mode() & 0o7777, 0o700);
    let error = State::create(folder.path(), "lab", Beginning::default()).err().expect("never a second identity");
    assert_eq!(error.code, ExitKind::Conflict);
    assert_eq!(state.keys().expect("untouched").identity.public(), read.identity.public());
    assert!(State::open(folder.path(), "other").expect("readable").is_none());
}

#[test]
fn a_damaged_file_is_refused_by_name_and_never_replaced() {
    for name in [IDENTITY, TUNNEL, MAILBOX] {
        for damage in ["", "\n", "AAAA\n", "not base64 at all, but as long as a key would be\n"] {
            let folder = folder();
            let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
            let path = state.path().join(name);
            fs::write(&path, damage).expect("our own file");
            let error = state.keys().err().expect("damaged");
            assert_eq!(error.code, ExitKind::Config);
            assert!(error.error.contains(name), "{}", error.error);
            assert_eq!(fs::read_to_string(&path).expect("there"), damage, "left for its owner to see");
        }
    }
}

#[test]
fn a_key_that_was_replaced_is_read_with_the_one_before_it() {
    let folder = folder();
    let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    let first = state.keys().expect("just written");
    assert!(first.former_tunnel.is_none() && first.former_mailbox.is_none() && first.mailbox_since.is_none());

    let second = PrivateKey::generate();
    let former = FormerKey { key: first.tunnel.clone(), replaced: 1_795_824_000_000 };
    state.set_tunnel_keys(&second, Some(&former)).expect("written");
    let secret = [7; SECRET_LEN];
    let mailbox = MailboxKeys::from_secret(&secret).expect("any bytes");
    state.set_mailbox_keys(&mailbox, 1_795_824_000_001, Some(&first.mailbox)).expect("written");
    let read = state.keys().expect("readable");
    assert_eq!(read.tunnel.public(), second.public());
    let before = read.former_tunnel.expect("the former key");
    assert_eq!((before.key.public(), before.replaced), (first.tunnel.public(), 1_795_824_000_000));
    assert_eq!(read.mailbox.public_x25519(), mailbox.public_x25519());
    assert_eq!(read.former_mailbox.expect("the former keys").public_x25519(), first.mailbox.public_x25519());
    assert_eq!(read.mailbox_since, Some(1_795_824_000_001));
    for name in [TUNNEL, MAILBOX] {
        let mode = fs::metadata(state.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }

    // Without a former key, the file is as it always was.
    state.set_tunnel_keys(&second, None).expect("written");
    let text = fs::read_to_string(state.path().join(TUNNEL)).expect("there");
    assert_eq!(text, format!("{}\n", *second.to_base64()));
}

#[test]
fn a_former_key_without_its_time_is_damage() {
    let folder = folder();
    let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    let path = state.path().join(TUNNEL);
    let text = fs::read_to_string(&path).expect("there");
    fs::write(&path, format!("{text}former {text}")).expect("our own file");
    let error = state.keys().err().expect("damaged");
    assert!(error.code == ExitKind::Config && error.error.contains(TUNNEL), "{}", error.error);
}

#[test]
fn the_users_of_a_key_are_those_of_that_key_alone() {
    let folder = folder();
    let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    let keys = [PrivateKey::generate().public(), PrivateKey::generate().public()];
    assert!(state.users_of(&keys[0]).expect("nothing is noted").is_empty());
    let users: BTreeSet<_> = [1, 2, 3].map(|byte| SecretKey::from_bytes(&[byte; 32]).public()).into();
    state.set_users_of(&keys[0], &users).expect("written");
    assert_eq!(state.users_of(&keys[0]).expect("readable"), users);
    assert!(state.users_of(&keys[1]).expect("readable").is_empty(), "a different key");
    fs::write(state.path().join(ROTATION), "half a li").expect("our own file");
    assert!(state.users_of(&keys[0]).expect("readable").is_empty());
}

#[test]
fn files_that_others_could_have_written_are_refused() {
    let folder = folder();
    let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    let path = state.path().join(IDENTITY);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("our own file");
    assert_eq!(state.keys().err().expect("refused").code, ExitKind::Permission);
}

#[test]
fn a_state_whose_making_was_interrupted_is_made_to_the_end() {
    let folder = folder();
    let complete = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    let before = complete.keys().expect("just written");
    fs::remove_file(complete.path().join(IDENTITY)).expect("the file that is written last");
    fs::write(complete.path().join(TEMPORARY), "half").expect("our own folder");
    let state =
        State::create(folder.path(), "lab", Beginning::default()).expect("nobody has seen the identity that was to be");
    assert_ne!(state.keys().expect("complete").identity.public(), before.identity.public());
}

#[test]
fn an_identity_that_was_in_use_is_never_replaced_in_silence() {
    for trace in [NETWORK, RECORD, "peers/trace"] {
        let folder = folder();
        let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
        fs::remove_file(state.path().join(IDENTITY)).expect("our own file");
        fs::write(state.path().join(trace), "seen").expect("our own folder");
        let error = State::create(folder.path(), "lab", Beginning::default()).err().expect("refused");
        assert_eq!(error.code, ExitKind::Config, "{trace}");
        assert!(error.error.contains(IDENTITY), "{}", error.error);
        assert!(!state.path().join(IDENTITY).exists(), "{trace}");
    }
}

#[test]
fn a_signed_object_that_is_damaged_counts_as_missing_and_a_time_or_a_relation_does_not() {
    let folder = folder();
    let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
    for damage in ["", "half", "neither CBOR nor signed"] {
        for name in [NETWORK, RECORD] {
            fs::write(state.path().join(name), damage).expect("our own folder");
        }
        assert!(state.network().expect("no error").is_none() && state.record().expect("no error").is_none());
        assert_eq!(fs::read_to_string(state.path().join(RECORD)).expect("there"), damage);
    }
    for (time, expected) in
        [("1700000000000\n", Some(Some(1_700_000_000_000))), ("1700000", None), ("", None), ("\n", None)]
    {
        fs::write(state.path().join(TIME), time).expect("our own folder");
        assert_eq!(state.time().ok(), expected, "{time:?}");
    }
    let peer = SecretKey::from_bytes(&[5; 32]).public();
    let path = state.path().join(PEERS).join(peer.to_string());
    fs::write(&path, "").expect("our own folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    assert_eq!(state.relations().map(drop).expect_err("damaged").code, ExitKind::Config);
}

#[test]
fn no_hint_tells_anybody_to_remove_a_file_of_the_state() {
    for mode in [0o644, 0o620, 0o602] {
        let folder = folder();
        let state = State::create(folder.path(), "lab", Beginning::default()).expect("a new state");
        fs::set_permissions(state.path().join(IDENTITY), fs::Permissions::from_mode(mode)).expect("our own file");
        let failure = state.keys().err().expect("refused");
        let hint = failure.hint.unwrap_or_default();
        assert!(failure.code == ExitKind::Permission && hint.contains("chmod 600") && !hint.contains("rm "), "{hint}");
    }
}
