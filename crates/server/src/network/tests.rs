//! Networks whose key is kept elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use overlay_golden::golden;

use super::*;

fn rendezvous(byte: u8) -> Rendezvous {
    let key = SecretKey::from_bytes(&[byte; 32]).public();
    Rendezvous { url: format!("https://rv{byte}.example.net:7447"), key }
}

fn shown(error: &ServeError, dir: &Path) -> String {
    let line = |label: &str, text: &Option<String>| text.as_ref().map(|text| format!("\n{label}: {text}"));
    let [cause, hint] = [line("cause", &error.cause), line("hint", &error.hint)].map(Option::unwrap_or_default);
    format!("error: {}{cause}{hint}", error.error).replace(&dir.display().to_string(), "DIR")
}

#[tokio::test]
async fn a_network_is_made_and_changed_without_a_rendezvous() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (key, file) = (dir.path().join("network.key"), dir.path().join("lab.network"));
    let pool = Pool::new(std::net::Ipv4Addr::new(10, 66, 0, 0), 16);
    let add =
        |bytes: &[u8]| Change { rendezvous: bytes.iter().map(|byte| rendezvous(*byte)).collect(), ..Change::default() };
    let made = init("lab", (&key, &file), pool, &add(&[1])).await.expect("new files");
    assert_eq!((made.name.as_str(), made.pool, made.is_closed), ("lab", pool.expect("a pool"), false));
    assert_eq!(made.rendezvous, [rendezvous(1)]);
    assert_eq!(fs::metadata(&key).expect("there").mode() & 0o777, 0o600);
    assert_eq!(open(&file).expect("what was written").bytes(), made.bytes());

    let changed = sign(&file, &key, &Change { is_closed: Some(true), ..add(&[2, 3]) }).expect("the key is there");
    assert!(changed.sequence > made.sequence && changed.is_closed);
    let removed = Change { removed: vec![rendezvous(2).key], ..Change::default() };
    let changed = sign(&file, &key, &removed).expect("it is there");
    assert_eq!(changed.rendezvous, [rendezvous(1), rendezvous(3)]);
    assert!(changed.is_closed, "what is not named stays");
    let mut moved = rendezvous(1);
    moved.url = "https://elsewhere.example.net:443".to_owned();
    let change = Change { rendezvous: vec![moved.clone()], ..Change::default() };
    assert_eq!(sign(&file, &key, &change).expect("a new URL").rendezvous, [moved, rendezvous(3)]);
    assert_eq!(open(&file).expect("the last one").rendezvous.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_signed_changes_nothing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    let (key, file) = (path("network.key"), path("lab.network"));
    let none = Change::default();
    let crowd = Change { rendezvous: (1..=9).map(rendezvous).collect(), ..Change::default() };
    let refused = init("lab", (&key, &file), None, &crowd).await.expect_err("eight are the most");
    golden("too many rendezvous", shown(&refused, dir.path()));
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0, "neither file is left");

    init("lab", (&key, &file), None, &none).await.expect("new files");
    let before = fs::read(&file).expect("there");
    for (what, refused) in [
        ("the key exists", init("lab", (&key, &path("new")), None, &none).await),
        ("the object exists", init("lab", (&path("new"), &file), None, &none).await),
    ] {
        golden(what, shown(&refused.expect_err(what), dir.path()));
    }
    let unknown = Change { removed: vec![rendezvous(1).key], ..Change::default() };
    golden("an unknown rendezvous", shown(&sign(&file, &key, &unknown).expect_err("not in it"), dir.path()));
    golden("no key", shown(&sign(&file, &path("missing"), &none).expect_err("no key"), dir.path()));
    init("other", (&path("other.key"), &path("other.network")), None, &none).await.expect("new files");
    let refused = sign(&file, &path("other.key"), &none).expect_err("a different network");
    assert!(shown(&refused, dir.path()).contains("is the key of a different network"));
    fs::write(path("torn"), &before[..40]).expect("ours");
    golden("a torn object", shown(&open(&path("torn")).expect_err("torn"), dir.path()));
    assert_eq!(fs::read(&file).expect("there"), before);
}

#[test]
fn a_rendezvous_is_named_by_url_and_key() {
    let key = rendezvous(1).key;
    let parsed = parse_rendezvous(&format!("https://rv1.example.net:7447#{key}")).expect("complete");
    assert_eq!(parsed, rendezvous(1));
    let default = parse_rendezvous(&format!("https://rv1.example.net#{key}")).expect("the default port");
    assert_eq!(default.url, "https://rv1.example.net:443");
    for (what, text) in [
        ("no key", "https://rv1.example.net:7447".to_owned()),
        ("a bad key", "https://rv1.example.net:7447#abc".to_owned()),
        ("no scheme", format!("rv1.example.net:7447#{key}")),
        ("a path", format!("https://rv1.example.net:7447/x#{key}")),
    ] {
        golden(format!("named by {what}"), parse_rendezvous(&text).expect_err(what));
    }
}
