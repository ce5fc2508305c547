//! What `overlay init` makes, and what it refuses before it has written anything.

use std::fs;

use overlay_golden::golden;

use super::*;
use crate::agent::token::sample;
use crate::keys::{encode_secret, generate_identity};

/// Public keys of RFC 8032 section 7.1.
/// Port 1 of this host, where nothing listens.
const URL: &str = "https://127.0.0.1:1#25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena\
                   .hvabpq7iioevvevxbktu2g36xsojqlgpf3cjndgazvk7ckxumyga";

fn wanted(folder: &Path) -> Wanted {
    Wanted {
        name: "alice".to_owned(),
        rendezvous: URL.to_owned(),
        network: Some("lab".to_owned()),
        config: folder.join("alice.toml"),
        state_dir: folder.join("state"),
        ..Wanted::default()
    }
}

/// A folder that only its owner may write to, as state needs it.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test]
async fn an_agent_begins_with_an_identity_and_a_config_that_is_valid() {
    let folder = folder();
    let wanted = Wanted {
        tags: vec!["gpu".to_owned(), "eu".to_owned()],
        services: vec!["tcp/8000=http".to_owned()],
        visibility: Visibility::Hidden,
        ..wanted(folder.path())
    };
    let made = init(&wanted).await.expect("a new agent");
    let config = Config::load(&wanted.config).unwrap_or_else(|error| panic!("{}", error.render(false)));
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    assert_eq!((config.interface.name.as_str(), made.interface.as_str()), ("alice", "alice"));
    let agent = config.agent.expect("agent mode");
    assert_eq!((agent.name.as_str(), agent.network.as_deref()), ("alice", Some("lab")));
    assert_eq!((agent.rendezvous[0].to_string(), &agent.rendezvous[0]), (URL.to_owned(), &made.rendezvous));
    assert_eq!((agent.tags, agent.visibility), (wanted.tags.clone(), Visibility::Hidden));
    assert_eq!((agent.services[0].name.as_str(), agent.services[0].port), ("http", 8000));

    let state = State::open(&wanted.state_dir, "lab").expect("readable").expect("it was made");
    assert_eq!(state.keys().expect("keys").identity.public(), made.identity);
    assert_eq!(made.ipv6, ipv6_address(&agent.network_key, &made.identity));
    let text = fs::read_to_string(&wanted.config).expect("a config");
    assert!(text.contains(&made.identity.to_string()) && text.contains(&made.ipv6.to_string()), "{text}");
    let keyless = text.replace(&made.identity.to_string(), "IDENTITY").replace(&made.ipv6.to_string(), "IPV6");
    golden("a config of an agent", keyless);
}

#[tokio::test]
async fn a_file_whose_name_no_interface_can_have_gets_a_name_that_one_can() {
    let folder = folder();
    let wanted = Wanted { config: folder.path().join("sixteen-letters0.toml"), ..wanted(folder.path()) };
    assert_eq!(init(&wanted).await.expect("a new agent").interface, "overlay0");
    assert_eq!(Config::load(&wanted.config).expect("valid").interface.name, "overlay0");
}

#[tokio::test]
async fn nothing_that_exists_is_replaced() {
    let folder = folder();
    let wanted = wanted(folder.path());
    let made = init(&wanted).await.expect("a new agent");
    let config = fs::read(&wanted.config).expect("a config");
    let failure = init(&wanted).await.expect_err("the config exists");
    assert_eq!(failure.code, ExitKind::Conflict);
    golden("the config exists", without(folder.path(), &failure));

    fs::remove_file(&wanted.config).expect("our own file");
    let failure = init(&wanted).await.expect_err("the state exists");
    assert_eq!(failure.code, ExitKind::Conflict);
    golden("the state exists", without(folder.path(), &failure));
    assert!(!wanted.config.exists(), "no config without its state");
    let state = State::open(&wanted.state_dir, "lab").expect("readable").expect("it is there");
    assert_eq!(state.keys().expect("keys").identity.public(), made.identity, "the identity stays");
    assert!(!config.is_empty());
}

#[tokio::test]
async fn bad_arguments_are_refused_and_nothing_is_written() {
    let folder = folder();
    let good = wanted(folder.path());
    let word = |text: &str| text.to_owned();
    let cases = [
        (Wanted { name: word("Alice"), ..good.clone() }, ExitKind::Usage),
        (Wanted { name: word("localhost"), ..good.clone() }, ExitKind::Usage),
        (Wanted { network: Some(word("12")), ..good.clone() }, ExitKind::Usage),
        (Wanted { rendezvous: word("rv.example.net"), ..good.clone() }, ExitKind::Usage),
        (Wanted { rendezvous: word("https://rv.example.net:7447"), ..good.clone() }, ExitKind::Usage),
        (Wanted { rendezvous: URL[..URL.len() - 1].to_owned(), ..good.clone() }, ExitKind::Usage),
        (Wanted { tags: vec![word("GPU")], ..good.clone() }, ExitKind::Usage),
        (Wanted { tags: vec![word("\"\n")], ..good.clone() }, ExitKind::Usage),
        (Wanted { tags: vec![word("gpu"), word("gpu")], ..good.clone() }, ExitKind::Usage),
        (Wanted { services: vec![word("443")], ..good.clone() }, ExitKind::Usage),
        (Wanted { services: vec![word("tcp/1=a"); 17], ..good.clone() }, ExitKind::Usage),
        (Wanted { config: folder.path().join("missing/alice.toml"), ..good.clone() }, ExitKind::NotFound),
        (Wanted { network: None, ..good.clone() }, ExitKind::Timeout),
    ];
    for (wanted, code) in cases {
        let failure = init(&wanted).await.expect_err("refused");
        assert_eq!(failure.code, code, "{failure:?}");
        golden(failure.error.replace(&folder.path().display().to_string(), "DIR"), without(folder.path(), &failure));
    }
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
}

#[test]
fn the_rendezvous_decides_how_its_network_is_called() {
    let named = |network: Option<&str>| Wanted { network: network.map(str::to_owned), ..wanted(Path::new("/tmp")) };
    let contact = || Ok(Contact { network: "lab".to_owned(), is_closed: false });
    assert_eq!(network_name(contact(), &named(None)).expect("its name"), "lab");
    assert_eq!(network_name(contact(), &named(Some("lab"))).expect("its name"), "lab");
    let failure = network_name(contact(), &named(Some("prod"))).expect_err("a different name");
    assert_eq!(failure.code, ExitKind::Refused);
    golden("a different name", failure.lines());
    // A rendezvous with the wrong key is no reason to believe what was typed.
    let refused = || Err(Failure::new(ExitKind::Refused, "the rendezvous has a different key"));
    assert_eq!(network_name(refused(), &named(Some("lab"))).expect_err("refused").code, ExitKind::Refused);
}

fn without(folder: &Path, failure: &Failure) -> String {
    failure.lines().replace(&folder.display().to_string(), "DIR")
}

/// Writes a token into the folder, and returns what is wanted with it.
fn with_token(folder: &Path, token: &JoinToken) -> Wanted {
    let file = folder.join("token");
    fs::write(&file, format!("{}\n", &*token.text())).expect("our own folder");
    Wanted { token: Some(file), ..wanted(folder) }
}

#[tokio::test]
async fn a_token_is_bound_to_the_new_identity() {
    let folder = folder();
    let token = sample::token(|token| token.name = Some("alice".to_owned()));
    let made = init(&with_token(folder.path(), &token)).await.expect("a new agent");
    let state = State::open(&folder.path().join("state"), "lab").expect("readable").expect("it was made");
    let attestation = state.attestation(&made.rendezvous.network, &made.identity).expect("good").expect("there");
    let bound = attestation.token(&made.rendezvous.network, &made.identity).expect("it is ours");
    assert_eq!(bound.bytes(), token.token().bytes());
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_refused_before_anything_is_written() {
    for token in [
        sample::token(|token| token.expires = sample::ISSUED + 1),
        sample::token(|token| token.name = Some("bob".to_owned())),
    ] {
        let folder = folder();
        let wanted = with_token(folder.path(), &token);
        let failure = init(&wanted).await.expect_err("refused");
        assert_eq!(failure.code, ExitKind::Usage, "{failure:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "the token alone");
    }
}

#[tokio::test]
async fn an_identity_that_was_made_before_is_used() {
    let folder = folder();
    let file = folder.path().join("identity");
    let key = generate_identity();
    fs::write(&file, format!("{}\n", &*encode_secret(&key.to_bytes()))).expect("our own folder");
    let wanted = Wanted { identity: Some(file.clone()), ..wanted(folder.path()) };
    let made = init(&wanted).await.expect("a new agent");
    assert_eq!(made.identity, key.public());
    let written = fs::read_to_string(made.state.join("identity.key")).expect("there");
    assert_eq!(written, fs::read_to_string(&file).expect("there"), "the same form");

    for (name, content) in [("short", "AAAA"), ("zero", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")] {
        let folder = self::folder();
        fs::write(&file, content).expect("our own folder");
        let failure = init(&Wanted { identity: Some(file.clone()), ..self::wanted(folder.path()) }).await;
        let failure = failure.expect_err("refused");
        assert_eq!(failure.code, ExitKind::Usage, "{name}");
        golden(name, failure.lines().replace(&file.display().to_string(), "FILE"));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }
}
