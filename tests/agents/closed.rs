//! Join tokens at an agent: bound by `init` and by `join`, shown in its record, and judged by `auto_approve`.
//!
//! The network here is open, so a token brings nothing but its tags. The tests sign the tokens with the network's key. Even in
//! an open network a token that is shown must be good: one that is used up is refused.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_wire::signed::{JoinToken, SecretKey, Signed, Token};

use super::changes::configure;
use super::strangers::{Stranger, on};
use super::*;
use crate::lab::{Agents, Finished, services};

const HOUR: u64 = 3_600_000;

/// The network's key, as the rendezvous keeps it.
pub(super) fn network_key(world: &Agents) -> SecretKey {
    let text = std::fs::read_to_string(world.router.dir().join("lab/rendezvous/lab/network.key")).expect("its state");
    let secret = STANDARD.decode(text.split(' ').next().expect("a secret")).expect("base64");
    SecretKey::from_bytes(&secret.try_into().expect("32 bytes"))
}

/// Signs a token for the tag `ops` with this network key, after `change`.
pub(super) fn token(network: &SecretKey, change: impl FnOnce(&mut Token)) -> JoinToken {
    let mut secret = [0; 32];
    overlay_os::random::fill(&mut secret).expect("randomness");
    let secret = SecretKey::from_bytes(&secret);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let issued = u64::try_from(now).expect("soon enough") - HOUR;
    let mut token = Token {
        network: network.public(),
        token: secret.public(),
        issued,
        expires: issued + 2 * HOUR,
        uses: 0,
        is_ephemeral: false,
        name: None,
        tags: vec!["ops".to_owned()],
    };
    change(&mut token);
    JoinToken::new(Signed::sign(token, network).expect("a good token"), secret).expect("its secret")
}

/// Writes a token into a file of the host, as an operator would hand it out.
pub(super) fn hand_out(host: &Host, token: &JoinToken) -> PathBuf {
    host.write_secret("join.token", &format!("{}\n", &*token.text()))
}

/// Runs `overlay init` with more options.
fn init(host: &Host, name: &str, url: &str, options: &str) -> Finished {
    let agent = Agent::of(host);
    agent.verb(format!("init {name} --rendezvous {url} -o {} {options}", agent.config().display()))
}

/// Makes an agent with a token, and starts it. It may be refused by the rendezvous.
#[track_caller]
fn start_with(world: &mut Agents, name: &str, token: &JoinToken) -> Agent {
    let host = world.host(name);
    let file = hand_out(&host, token);
    init(&host, name, &world.url, &format!("--token {}", file.display())).succeeded("overlay init");
    std::fs::remove_file(file).expect("our own file");
    let mut agent = Agent::of(&host);
    agent.start_logging("trace");
    agent
}

/// Runs a command that reads a file as its stdin.
fn fed(mut command: Command, file: &Path) -> Finished {
    command.stdin(std::fs::File::open(file).expect("our own file"));
    command.output().expect("it runs").into()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { files.extend(self::files(&entry)) } else { files.push(entry) }
    }
    files
}

#[test]
fn an_attested_tag_is_approved_and_a_claimed_one_waits() {
    let Some(mut world) = Agents::new("attested tags") else { return };
    let bob = world.agent("bob");
    configure(&bob, "allow = [\"tcp/8000\"]\nauto_approve = [\"tag:ops\"]", "");
    let _server = bob.serves();
    let v4 = bob.v4();
    let token = token(&network_key(&world), |_| {});
    let alice = start_with(&mut world, "alice", &token);
    alice.is_registered("alice");
    alice.ask("handshake bob --want any");
    alice.sees("bob", "trusted");
    gets_page(&alice, &v4);
    is_refused_at_once(&alice.host, &v4, 22);
    let decisions = bob.ask("decisions --peer alice");
    let decision = &decisions["decisions"][0];
    assert_eq!(
        (&decision["decision"], &decision["rule"]),
        (&"approved".into(), &"auto_approve".into()),
        "{decisions:#}"
    );

    // An agent that only says so is a stranger as ever.
    let host = world.host("mallory");
    init(&host, "mallory", &world.url, "--tag ops").succeeded("overlay init");
    let mut mallory = Agent::of(&host);
    mallory.start();
    mallory.is_registered("mallory");
    mallory.ask("handshake bob --want any");
    let request = bob.is_asked_by("mallory");
    assert_eq!(request["attested_tags"], Value::from(&[] as &[&str]), "{request:#}");
    assert_eq!((&bob.peer("mallory")["state"], &mallory.peer("bob")["state"]), (&"pending".into(), &"asked".into()));
    is_refused_at_once(&mallory.host, &v4, services::HTTP);

    // The tags are shown as what they are.
    for (name, tags, attested) in [("alice", &[][..], &["ops"][..]), ("mallory", &["ops"][..], &[][..])] {
        for verb in ["find", "whois"] {
            let found = bob.ask(&format!("{verb} {name}"));
            let shown = (&found["agents"][0]["tags"], &found["agents"][0]["attested_tags"]);
            assert_eq!(shown, (&tags.into(), &attested.into()), "{found:#}");
        }
        assert_eq!(bob.peer(name)["attested_tags"], Value::from(attested));
    }
    assert_eq!(alice.ask("agents")["attested_tags"], Value::from(&["ops"][..]));
    assert!(bob.verb("whois alice").succeeded("overlay whois").contains("ops (attested)"));

    // What travels and what stays is not the secret.
    let text = token.text();
    let (head, tail) = text.split_at("overlay-join-1.".len() + 40);
    let secret = &head[head.len() - 40..];
    assert!(!tail.is_empty());
    let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(secret).expect("base64url");
    let in_base64 = STANDARD.encode(&raw);
    for file in files(&alice.state()).into_iter().chain([alice.config()]) {
        let content = std::fs::read(&file).expect("our own file");
        for secret in [secret.as_bytes(), in_base64.as_bytes(), &raw] {
            assert!(!content.windows(secret.len()).any(|part| part == secret), "{}", file.display());
        }
    }
    let log = alice.daemon().log();
    assert!(log.contains("connected to the rendezvous") && !log.contains(secret) && !log.contains(&in_base64));
}

#[test]
fn a_token_that_the_rendezvous_would_not_take_approves_nobody() {
    let Some(mut world) = Agents::new("an expired token") else { return };
    let bob = world.agent("bob");
    configure(&bob, "auto_approve = [\"tag:ops\"]", "");
    let me = bob.ask("agents")["identity"].as_str().expect("a key").parse().expect("a key");
    let url = world.url.parse().expect("the URL of a rendezvous");
    let host = world.host("mallory");
    let network = network_key(&world);
    let expired = token(&network, |token| token.expires = token.issued + HOUR / 2);
    let attested = on(&host, async || {
        // It is registered without the token, and shows the token to bob alone.
        let mut mallory = Stranger::new(&url, 1).await;
        mallory.shows(&expired);
        mallory.asks(&me, "").await;
        bob.is_asked_by("stranger-1")["attested_tags"].clone()
    });
    assert_eq!(attested, Value::from(&["ops"][..]), "the token is bound to it");
    // A request that comes later is approved, so the answer of the rendezvous about the first one has come.
    let alice = start_with(&mut world, "alice", &token(&network, |_| {}));
    alice.is_registered("alice");
    alice.ask("handshake bob");
    alice.sees("bob", "trusted");
    assert_eq!(bob.peer("stranger-1")["state"], "pending");
}

#[test]
fn a_token_that_cannot_be_used_is_refused_by_init_and_nothing_is_written() {
    let Some(mut world) = Agents::new("refused tokens") else { return };
    let host = world.host("alice");
    let network = network_key(&world);
    let foreign = SecretKey::from_bytes(&[7; 32]);
    for (what, token) in [
        ("for the name `bob`", token(&network, |token| token.name = Some("bob".to_owned()))),
        ("for a different network", token(&foreign, |_| {})),
        ("has expired", token(&network, |token| token.expires = token.issued + HOUR / 2)),
    ] {
        let file = hand_out(&host, &token);
        let refused = init(&host, "alice", &world.url, &format!("--token {}", file.display()));
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(what) && refused.stderr.contains("\nhint: "), "{}", refused.stderr);
        assert!(!refused.stderr.contains(&token.text()[15..40]), "{}", refused.stderr);
        let agent = Agent::of(&host);
        assert!(!agent.state().exists() && !agent.config().exists(), "{what}");
    }
    let file = host.write_secret("join.token", "overlay-join-1.AAAA\n");
    let refused = init(&host, "alice", &world.url, &format!("--token {}", file.display()));
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("damaged"), "{}", refused.stderr);

    // From stdin, too.
    let file = hand_out(&host, &token(&network, |token| token.name = Some("alice".to_owned())));
    let agent = Agent::of(&host);
    let line = format!(
        "--state-dir {} init alice --rendezvous {} -o {} --token -",
        agent.state().display(),
        world.url,
        agent.config().display()
    );
    let command = host.overlay_command(line);
    fed(command, &file).succeeded("overlay init");
    assert!(agent.state().join("lab/attestation").exists());
}

#[test]
fn a_token_that_is_used_up_is_reported_and_replaced_by_join() {
    let Some(mut world) = Agents::new("used up") else { return };
    let network = network_key(&world);
    let once = token(&network, |token| token.uses = 1);
    let alice = start_with(&mut world, "alice", &once);
    alice.is_registered("alice");
    let bob = start_with(&mut world, "bob", &once);
    let said = within(SHORTLY, "bob to be refused", || {
        let said = bob.ask("agents")["rendezvous"].as_str().expect("a text").to_owned();
        said.contains("not_a_member").then_some(said)
    });
    assert!(said.contains("used up, revoked, expired") && said.contains("overlay join FILE"), "{said}");
    let refused = bob.verb("find alice");
    assert!(refused.code != 0 && refused.stderr.contains("used up, revoked, expired"), "{}", refused.stderr);

    let file = hand_out(&bob.host, &token(&network, |token| token.tags = vec!["eu".to_owned()]));
    let joined = bob.ask(&format!("join {}", file.display()));
    assert_eq!(joined["tags"], Value::from(&["eu"][..]), "{joined:#}");
    bob.is_registered("bob");
    assert_eq!(bob.ask("agents")["rendezvous"], "connected");
    assert_eq!(alice.ask("find bob")["agents"][0]["attested_tags"], Value::from(&["eu"][..]));
    let foreign = hand_out(&bob.host, &token(&SecretKey::from_bytes(&[7; 32]), |_| {}));
    assert_eq!(bob.verb(format!("join {}", foreign.display())).code, 2);
}

#[test]
fn an_identity_that_was_made_before_is_the_agent() {
    let Some(mut world) = Agents::new("identity") else { return };
    let host = world.host("alice");
    let file = host.dir().join("alice.identity");
    let printed = host.overlay(format!("key gen --identity -o {}", file.display())).succeeded("overlay key gen");
    init(&host, "alice", &world.url, &format!("--identity {}", file.display())).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    alice.start();
    alice.is_registered("alice");
    assert_eq!(alice.ask("agents")["identity"], printed.trim());
    let key = std::fs::read(&file).expect("our own file");
    assert_eq!(std::fs::read(alice.state().join("lab/identity.key")).expect("its key"), key);
    let command = host.overlay_command("key pub --identity");
    assert_eq!(fed(command, &file).succeeded("overlay key pub"), printed);
}
