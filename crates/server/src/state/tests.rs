//! What a state folder keeps, and that nothing of it is replaced in silence.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use overlay_golden::golden;
use overlay_rendezvous::now::Now;
use overlay_wire::signed::{Network, Pool, Rendezvous, Signed};

use super::*;

const LISTENS: &str = "https://192.0.2.1:7447";
const NAMED: &str = "https://rv.example.net:7447";
const NOW: Now = Now { unix: 1_000, monotonic: Duration::ZERO };

fn pool() -> Pool {
    Pool::new(Ipv4Addr::new(10, 64, 0, 0), 16).expect("a pool")
}

fn wanted(name: &str) -> Wanted<'_> {
    Wanted { name, pool: None, is_closed: None, url: None, listens: LISTENS, object: None }
}

fn open(dir: &tempfile::TempDir) -> State {
    State::open(dir.path(), "lab").expect("our own folder")
}

fn made() -> (tempfile::TempDir, Identity) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let identity = open(&dir).make(&wanted("lab"), pool(), NOW).expect("a new network");
    (dir, identity)
}

fn path_of(state_dir: &Path, network: &str, name: &str) -> PathBuf {
    state_dir.join("rendezvous").join(network).join(name)
}

fn load(dir: &tempfile::TempDir) -> Result<Identity, ServeError> {
    start(&open(dir), &wanted("lab"))
}

fn start(state: &State, wanted: &Wanted<'_>) -> Result<Identity, ServeError> {
    state.carry_out(state.plan(wanted, NOW)?)
}

/// What a start comes to that is given this object.
fn take(state: &State, name: &str, object: &Signed<Network>) -> Result<Identity, ServeError> {
    start(state, &Wanted { object: Some(object), ..wanted(name) })
}

#[test]
fn what_was_made_is_found_again_and_nobody_else_can_read_it() {
    let (dir, made) = made();
    let found = load(&dir).expect("what was made");
    assert_eq!((found.key.public(), found.network.bytes()), (made.key.public(), made.network.bytes()));
    assert!(!open(&dir).is_new().expect("readable"));
    let folder = path_of(dir.path(), "lab", "");
    assert_eq!(fs::metadata(&folder).expect("there").mode() & 0o777, 0o700);
    for entry in fs::read_dir(&folder).expect("there").flatten() {
        assert_eq!(entry.metadata().expect("there").mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    let network_key = open(&dir).key(NETWORK_KEY).expect("a good key").expect("a key");
    assert_eq!(network_key.public(), made.network.network);
}

#[test]
fn a_second_rendezvous_of_the_network_is_refused() {
    let (dir, _) = made();
    let first = open(&dir);
    let refused = State::open(dir.path(), "lab").expect_err("it is running");
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(State::open(dir.path(), "other").is_ok());
    drop(first);
    assert!(State::open(dir.path(), "lab").is_ok());
}

#[test]
fn a_damaged_or_missing_file_is_refused_by_name_and_left_alone() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, &str, Damage); 7] = [
        ("empty key", RENDEZVOUS_KEY, Vec::clear),
        ("torn key", RENDEZVOUS_KEY, |content| content.truncate(60)),
        ("key of zeros", RENDEZVOUS_KEY, |content| content.fill(0)),
        ("changed key", RENDEZVOUS_KEY, |content| content[5] = if content[5] == b'A' { b'B' } else { b'A' }),
        ("empty network", NETWORK, Vec::clear),
        ("torn network", NETWORK, |content| content.truncate(100)),
        ("changed network", NETWORK, |content| *content.last_mut().expect("a signature") ^= 1),
    ];
    for (what, name, damage) in damages {
        let (dir, _) = made();
        let path = path_of(dir.path(), "lab", name);
        let mut content = fs::read(&path).expect("there");
        damage(&mut content);
        fs::write(&path, &content).expect("ours");
        let refused = load(&dir).expect_err(what);
        golden(what, shown(&refused, &dir));
        assert_eq!(fs::read(&path).expect("still there"), content, "{what}");
        assert!(!open(&dir).is_new().expect("readable"), "{what}: no new network is made");
    }
    for name in [RENDEZVOUS_KEY, NETWORK] {
        let (dir, _) = made();
        fs::remove_file(path_of(dir.path(), "lab", name)).expect("there");
        golden(format!("missing {name}"), shown(&load(&dir).expect_err("missing"), &dir));
        assert!(!open(&dir).is_new().expect("readable"), "{name}: no new network is made");
    }
}

#[test]
fn what_an_interrupted_restore_left_is_not_a_beginning() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let state = open(&dir);
    assert!(state.is_new().expect("readable"));
    drop(state.store().expect("a new store"));
    assert!(!state.is_new().expect("readable"));
}

#[test]
fn a_key_or_a_folder_that_others_can_read_is_refused() {
    let (dir, _) = made();
    let path = path_of(dir.path(), "lab", RENDEZVOUS_KEY);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
    let refused = load(&dir).expect_err("readable");
    assert_eq!(refused.kind, Kind::Permission);
    golden("a readable key", shown(&refused, &dir));

    let folder = path_of(dir.path(), "lab", "");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).expect("ours");
    let refused = State::open(dir.path(), "lab").expect_err("readable");
    assert_eq!(refused.kind, Kind::Permission);
    golden("a readable folder", shown(&refused, &dir));
}

#[test]
fn where_it_listens_is_signed_while_the_network_key_is_there() {
    let (dir, made) = made();
    let moved = start(&open(&dir), &Wanted { listens: "https://192.0.2.2:1", ..wanted("lab") }).expect("a new object");
    assert_eq!(moved.network.network, made.network.network);
    assert_eq!(moved.network.sequence, made.network.sequence + 1);
    assert_eq!(moved.network.rendezvous.len(), 1);
    assert_eq!(moved.network.rendezvous[0].url, "https://192.0.2.2:1");

    fs::remove_file(path_of(dir.path(), "lab", NETWORK_KEY)).expect("there");
    let kept = load(&dir).expect("the key may be elsewhere");
    assert_eq!(kept.network.bytes(), moved.network.bytes());
}

#[test]
fn what_the_operator_has_said_about_the_url_is_kept() {
    let (dir, made) = made();
    let state = open(&dir);
    let url = |identity: &Identity| identity.network.rendezvous[0].url.clone();
    assert_eq!(url(&made), LISTENS);
    let named = start(&state, &Wanted { url: Some(NAMED), ..wanted("lab") }).expect("a new object");
    assert_eq!((url(&named), named.url.as_str()), (NAMED.to_owned(), NAMED));
    for listens in [LISTENS, "https://10.0.0.1:7447"] {
        let again = start(&state, &Wanted { listens, ..wanted("lab") }).expect("nothing is asked");
        assert_eq!((again.network.bytes(), again.url.as_str()), (named.network.bytes(), NAMED));
    }
    // An object that was signed elsewhere says it, too, although the key is here.
    let key = state.key(NETWORK_KEY).expect("readable").expect("a key");
    let mut other = named.network.clone().into_value();
    (other.sequence, other.rendezvous[0].url) = (other.sequence + 1, "https://other.example.net:7447".to_owned());
    let other = Signed::sign(other, &key).expect("a good object");
    take(&state, "lab", &other).expect("a newer one");
    let again = start(&state, &wanted("lab")).expect("nothing is asked");
    assert_eq!((again.network.bytes(), again.url.as_str()), (other.bytes(), "https://other.example.net:7447"));

    let damages = ["", "https://rv.example.net:7447", "rv.example.net\n", "http://rv.example.net:7447\n"];
    let refused = damages.map(|damage| {
        fs::write(path_of(dir.path(), "lab", URL), damage).expect("ours");
        shown(&start(&state, &wanted("lab")).expect_err("damaged"), &dir)
    });
    assert!(refused.iter().all(|told| *told == refused[0]), "{refused:?}");
    golden("a damaged URL", &refused[0]);
}

#[test]
fn a_plan_writes_nothing() {
    let (dir, _) = made();
    let state = open(&dir);
    let before = fs::read(path_of(dir.path(), "lab", NETWORK)).expect("there");
    let wanted = Wanted { url: Some(NAMED), is_closed: Some(true), ..wanted("lab") };
    let plan = state.plan(&wanted, NOW).expect("it can be done");
    assert_eq!(fs::read(path_of(dir.path(), "lab", NETWORK)).expect("there"), before);
    assert!(!path_of(dir.path(), "lab", URL).exists());
    assert!(state.carry_out(plan).expect("written").network.is_closed);
    assert_ne!(fs::read(path_of(dir.path(), "lab", NETWORK)).expect("there"), before);
}

#[test]
fn a_different_name_or_pool_is_refused() {
    let (dir, _) = made();
    let other = Pool::new(Ipv4Addr::new(10, 65, 0, 0), 16);
    golden(
        "pool",
        shown(&start(&open(&dir), &Wanted { pool: other, ..wanted("lab") }).expect_err("a different pool"), &dir),
    );
    fs::rename(path_of(dir.path(), "lab", ""), path_of(dir.path(), "prod", "")).expect("ours");
    let state = State::open(dir.path(), "prod").expect("our own folder");
    golden("name", shown(&start(&state, &wanted("prod")).expect_err("a different name"), &dir));
}

/// An object that names the rendezvous of a folder under this URL, signed by a key that is elsewhere.
fn signed_elsewhere(state: &State, sequence: u64, edit: impl FnOnce(&mut Network)) -> Signed<Network> {
    let key = SecretKey::from_bytes(&[7; 32]);
    let mut network = Network {
        network: key.public(),
        sequence,
        issued: 1_000,
        name: "lab".to_owned(),
        pool: pool(),
        rendezvous: vec![Rendezvous { url: NAMED.to_owned(), key: state.rendezvous_key().expect("a key") }],
        is_closed: true,
    };
    edit(&mut network);
    Signed::sign(network, &key).expect("a good object")
}

#[test]
fn an_object_that_was_signed_elsewhere_is_taken_and_says_where_we_are() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let state = open(&dir);
    let key = state.rendezvous_key().expect("a key");
    assert_eq!(state.rendezvous_key().expect("the same one"), key);
    golden("no object", shown(&start(&state, &wanted("lab")).expect_err("no object"), &dir));
    for sequence in [5, 5, 6] {
        let object = signed_elsewhere(&state, sequence, |_| {});
        take(&state, "lab", &object).expect("the first one, the same one, a newer one");
        let identity = start(&state, &wanted("lab")).expect("complete");
        assert_eq!(identity.network.bytes(), object.bytes());
        assert_eq!((identity.key.public(), identity.url.as_str()), (key, NAMED));
    }
    let elsewhere = Wanted { url: Some(LISTENS), ..wanted("lab") };
    let refused = shown(&start(&state, &elsewhere).expect_err("no key to sign with"), &dir);
    golden("moved without the key", refused.replace(&key.to_string(), "KEY"));
    let closed = Wanted { is_closed: Some(false), ..wanted("lab") };
    golden("opened without the key", shown(&start(&state, &closed).expect_err("no key to sign with"), &dir));
}

#[test]
fn an_object_that_does_not_follow_the_known_one_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let state = open(&dir);
    let known = signed_elsewhere(&state, 5, |_| {});
    take(&state, "lab", &known).expect("the first one");
    type Edit = fn(&mut Network);
    let other = || SecretKey::from_bytes(&[8; 32]);
    let cases: [(&str, u64, Edit); 4] = [
        ("an older object", 4, |_| {}),
        ("a different object of the same sequence", 5, |network| network.is_closed = false),
        ("an object with a different pool", 6, |network| {
            network.pool = Pool::new(Ipv4Addr::new(10, 65, 0, 0), 16).expect("a pool");
        }),
        ("an object without this rendezvous", 6, |network| network.rendezvous.clear()),
    ];
    let key = state.rendezvous_key().expect("a key").to_string();
    for (what, sequence, edit) in cases {
        let refused = take(&state, "lab", &signed_elsewhere(&state, sequence, edit)).expect_err(what);
        golden(what, shown(&refused, &dir).replace(&key, "KEY"));
    }
    let mut foreign = signed_elsewhere(&state, 6, |_| {}).into_value();
    foreign.network = other().public();
    let foreign = Signed::sign(foreign, &other()).expect("a good object");
    golden(
        "an object of a different network",
        shown(&take(&state, "lab", &foreign).expect_err("a different key"), &dir),
    );
    assert_eq!(start(&state, &wanted("lab")).expect("unchanged").network.bytes(), known.bytes());

    // A lost object is not replaced by one that may be of a different network. Nor is one written that is refused.
    let (dir, _) = made();
    let state = open(&dir);
    fs::remove_file(path_of(dir.path(), "lab", NETWORK)).expect("there");
    let refused = take(&state, "lab", &signed_elsewhere(&state, 5, |_| {})).expect_err("a lost object");
    golden("a lost object", shown(&refused, &dir));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let state = State::open(dir.path(), "prod").expect("our own folder");
    state.rendezvous_key().expect("a key");
    let refused = take(&state, "prod", &signed_elsewhere(&state, 5, |_| {})).expect_err("a different name");
    golden("an object with a different name", shown(&refused, &dir));
    assert!(!state.has(NETWORK).expect("readable"));
}

fn shown(error: &ServeError, dir: &tempfile::TempDir) -> String {
    let line = |label: &str, text: &Option<String>| text.as_ref().map(|text| format!("\n{label}: {text}"));
    let [cause, hint] = [line("cause", &error.cause), line("hint", &error.hint)].map(Option::unwrap_or_default);
    format!("error: {}{cause}{hint}", error.error).replace(&dir.path().display().to_string(), "DIR")
}
