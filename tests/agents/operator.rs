//! What the operator of a network does at its rendezvous.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use overlay_wire::signed::JoinToken;

use super::*;
use crate::lab::Agents;

/// The states of the agents that have a name, as the operator sees them.
fn states(world: &Agents) -> Vec<(String, String)> {
    let agents = world.operator_asks("agents list")["agents"].as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut states: Vec<_> =
        agents.iter().filter_map(|agent| Some((text(&agent["name"])?, text(&agent["state"])?))).collect();
    states.sort();
    states
}

#[track_caller]
fn sees(world: &Agents, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect();
    within(RECONNECT, &format!("{expected:?}"), || (states(world) == expected).then_some(()));
}

/// Reconnects are spread over half a minute.
const RECONNECT: Duration = Duration::from_secs(60);

#[test]
fn a_network_is_closed_and_opened_and_its_agents_stay() {
    let Some(mut world) = Agents::new("closed, opened") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    world.kill();
    world.start_with("--closed");
    assert_eq!(world.operator_asks("stats")["is_closed"], true);
    sees(&world, &[("alice", "online"), ("bob", "online")]);
    alice.host.reaches(&bob.v4());
    let host = world.host("carol");
    Agent::init(&host, "carol", &world.url).succeeded("overlay init");
    let mut carol = Agent::of(&host);
    carol.start();
    let refusals = |world: &Agents| {
        let stats = world.operator_asks("stats");
        let refused = stats["refused"].as_array().expect("a list").clone();
        refused.iter().find(|pair| pair[0] == "not_a_member").and_then(|pair| pair[1].as_u64()).expect("a count")
    };
    within(SHORTLY, "carol to be refused", || (refusals(&world) > 0).then_some(()));
    sees(&world, &[("alice", "online"), ("bob", "online")]);
    // It stays closed until the operator opens it.
    world.kill();
    world.start();
    assert_eq!(world.operator_asks("stats")["is_closed"], true);
    world.kill();
    world.start_with("--open");
    sees(&world, &[("alice", "online"), ("bob", "online"), ("carol", "online")]);
}

/// Makes a token in a file of its own.
fn token(world: &Agents, options: &str) -> std::path::PathBuf {
    let file = world.lab.dir().join(format!("token{}", options.replace([' ', '-'], "_")));
    world.operator_asks(&format!("token create {options} -o {}", file.display()));
    file
}

/// Starts an agent that joins with a token. It may be refused.
fn joins(world: &mut Agents, name: &str, token: &std::path::Path) -> Agent {
    let host = world.host(name);
    let mut agent = Agent::of(&host);
    let (config, token) = (agent.config(), token.display());
    let line = format!("init {name} --rendezvous {} --token {token} -o {}", world.url, config.display());
    agent.verb(line).succeeded("overlay init");
    agent.start();
    agent
}

#[test]
fn a_closed_network_is_joined_once_with_each_token() {
    let Some(mut world) = Agents::new("closed, tokens") else { return };
    world.kill();
    world.start_with("--closed");
    let for_alice = token(&world, "--name alice --tag ops");
    let once = token(&world, "--for 2h");
    let alice = joins(&mut world, "alice", &for_alice);
    let bob = joins(&mut world, "bob", &once);
    sees(&world, &[("alice", "online"), ("bob", "online")]);
    let agents = world.operator_asks("agents list")["agents"].as_array().expect("a list").clone();
    let alice_shown = agents.iter().find(|agent| agent["name"] == "alice").expect("she is there");
    assert_eq!(
        (&alice_shown["attested_tags"], &alice_shown["tags"]),
        (&["ops"][..].into(), &Value::from(&[][..] as &[Value]))
    );
    befriend(&alice, "--want icmp", &bob, "");
    alice.host.reaches(&bob.v4());

    // The same token again, and once more after its agent is gone.
    let carol = joins(&mut world, "carol", &once);
    let is_told = |agent: &Agent| {
        within(RECONNECT, "the refusal", || {
            agent.ask("agents")["rendezvous"].as_str().is_some_and(|told| told.contains("does not count")).then_some(())
        });
    };
    is_told(&carol);
    world.operator_asks("agents remove bob");
    is_told(&bob);
    let dave = joins(&mut world, "dave", &once);
    is_told(&dave);
    sees(&world, &[("alice", "online")]);
    // The operator has no say in who trusts whom.
    alice.host.reaches(&bob.v4());

    // A new token lets a running agent in.
    let second = token(&world, "--uses 2");
    for (name, agent) in [("bob", &bob), ("carol", &carol)] {
        agent.verb(format!("join {}", second.display())).succeeded("overlay join");
        agent.is_registered(name);
    }
    sees(&world, &[("alice", "online"), ("bob", "online"), ("carol", "online")]);
    let third = dave.verb(format!("join {}", second.display()));
    assert_eq!(third.code, 0, "its use is known to the rendezvous alone: {}", third.stderr);
    is_told(&dave);
}

#[test]
fn tokens_are_made_listed_and_revoked_and_their_secrets_are_kept_nowhere() {
    let Some(mut world) = Agents::new("tokens") else { return };
    let made = world.operator_asks("token create --name carol --tag ops --tag gpu --for 2h");
    assert_eq!((&made["schema"], &made["is_known"]), (&"overlay.rendezvous.token.create.v1".into(), &true.into()));
    let join = JoinToken::parse(made["join"].as_str().expect("a text")).expect("a join token");
    let key = join.token().token.to_string();
    assert_eq!(made["token"], key);
    let file = world.state().join("fleet.token");
    let fleet = world.operator_asks(&format!("token create --reusable --ephemeral -o {}", file.display()));
    assert_eq!((&fleet["join"], &fleet["file"]), (&Value::Null, &file.display().to_string().into()));
    let text = std::fs::read_to_string(&file).expect("the token");
    assert!(JoinToken::parse(text.trim_end()).is_ok_and(|join| join.token().is_ephemeral && join.token().uses == 0));
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).expect("it")) & 0o777, 0o600);
    std::fs::remove_file(&file).expect("it");

    let listed = |world: &Agents| {
        let tokens = world.operator_asks("token list")["tokens"].as_array().expect("a list").clone();
        tokens.iter().find(|token| token["token"] == key).expect("it is listed").clone()
    };
    let token = listed(&world);
    assert_eq!((&token["state"], &token["used"], &token["uses"]), (&"valid".into(), &0.into(), &1.into()));
    assert_eq!((&token["name"], &token["tags"]), (&"carol".into(), &["ops", "gpu"][..].into()));
    let revoked = world.operator_asks(&format!("token revoke {}", &key[..16]));
    assert_eq!((&revoked["done"], &revoked["key"]), (&"revoked".into(), &key.clone().into()));
    world.kill();
    world.start();
    assert_eq!(listed(&world)["state"], "revoked");

    // The rendezvous need not run: it knows its network's signature.
    world.kill();
    let offline = world.operator("token create");
    assert!(offline.code == 0 && offline.stderr.contains("not running"), "{}", offline.stderr);
    for secret in [text.trim_end(), made["join"].as_str().expect("a text"), offline.stdout.trim_end()] {
        let (_, encoded) = secret.split_once('.').expect("a join token");
        let secret = URL_SAFE_NO_PAD.decode(encoded).expect("base64")[..32].to_vec();
        let encoded = STANDARD.encode(&secret).into_bytes();
        let raw = files_below(&world.state());
        for wanted in [secret, encoded] {
            assert!(!raw.iter().any(|bytes| bytes.windows(wanted.len()).any(|part| part == wanted)));
        }
    }
}

/// The content of each file of a folder and the folders in it. Sockets have none.
fn files_below(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            Ok(kind) if kind.is_file() => vec![std::fs::read(entry.path()).expect("a file")],
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn agents_are_removed_and_banned_and_each_order_is_logged() {
    let Some(mut world) = Agents::new("banned") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    let key = bob.ask("agents")["identity"].as_str().expect("a key").to_owned();
    let banned = world.operator_asks("agents ban bob");
    assert_eq!((&banned["done"], &banned["key"]), (&"banned".into(), &key.clone().into()));
    assert_eq!(alice.ask("find bob")["agents"], Value::from(&[][..] as &[Value]));
    sees(&world, &[("alice", "online")]);
    // Trust is between the two. The rendezvous has no say in it.
    alice.host.reaches(&bob.v4());
    // The order is on disk.
    world.kill();
    world.start();
    let state = |world: &Agents| {
        let agents = world.operator_asks("agents list")["agents"].as_array().expect("a list").clone();
        agents.iter().find(|agent| agent["identity"] == key).map(|agent| agent["state"].clone())
    };
    assert_eq!(state(&world), Some("banned".into()));
    world.operator_asks(&format!("agents unban {}", &key[..16]));
    sees(&world, &[("alice", "online"), ("bob", "online")]);
    // The name that it had means a banned agent too.
    world.operator_asks("agents ban bob");
    world.operator_asks("agents unban bob");
    sees(&world, &[("alice", "online"), ("bob", "online")]);
    assert_eq!(alice.peer("bob")["state"], "trusted");

    // Without a token, an agent comes back to an open network by itself.
    world.operator_asks("agents remove bob");
    sees(&world, &[("alice", "online"), ("bob", "online")]);
    let in_use = world.operator("release bob");
    assert_eq!(in_use.code, 9, "{}", in_use.stderr);
    assert_eq!(world.operator("agents remove nobody").code, 6);
    assert_eq!(world.operator("release nobody").code, 6);
    assert_eq!(world.operator(&format!("agents ban {}", &key[..15])).code, 6, "15 characters are too few");

    let log = std::fs::read_to_string(world.state().join("rendezvous/lab/audit.log")).expect("the log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().expect("a text") == "done").collect();
    assert_eq!(outcomes, [true, true, true, true, true, false, false, false, false], "{log}");
    assert!(lines.iter().all(|line| line["uid"] == 0));
    assert_eq!(
        (&lines[0]["order"], &lines[0]["key"]),
        (&serde_json::json!({ "ban_agent": { "agent": "bob" } }), &key.into())
    );
}

#[test]
fn an_operator_is_told_which_rendezvous_is_missing() {
    let Some(mut world) = Agents::new("operator alone") else { return };
    let stats = world.operator("stats");
    assert!(stats.code == 0 && stats.stdout.contains("open: any agent may join"), "{}", stats.stdout);
    world.kill();
    let refused = world.operator("stats");
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("no rendezvous of `lab` is running here"), "{}", refused.stderr);
    assert_eq!(world.operator("stats --network other").code, 3);
    std::fs::create_dir(world.state().join("rendezvous/prod")).expect("a second network");
    let several = world.operator("agents list");
    assert!(several.code == 2 && several.stderr.contains("`lab`, `prod`"), "{}", several.stderr);
    std::fs::remove_dir_all(world.state().join("rendezvous")).expect("it");
    assert_eq!(world.operator("agents list").code, 3);
}

#[test]
fn a_backup_of_a_running_rendezvous_makes_the_same_one_elsewhere() {
    let Some(mut world) = Agents::new("backup") else { return };
    let (alice, bob) = world.two();
    world.operator_asks("token create");
    world.operator_asks("agents ban bob");
    let file = world.lab.dir().join("backup.jsonl");
    let made = world.operator_asks(&format!("backup {}", file.display()));
    assert_eq!(made["files"], 4, "{made}");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).expect("it")) & 0o777, 0o600);
    let again = world.operator(&format!("backup {}", file.display()));
    assert_eq!(again.code, 9, "a file is never replaced: {}", again.stderr);
    let before = (world.operator_asks("agents list"), world.operator_asks("token list"));
    let in_the_way = world.operator(&format!("restore {}", file.display()));
    assert_eq!(in_the_way.code, 9, "{}", in_the_way.stderr);

    // The host's disk is lost.
    world.kill();
    std::fs::remove_dir_all(world.state()).expect("it");
    // What is cut or changed is refused, and leaves nothing behind.
    let text = std::fs::read_to_string(&file).expect("lines");
    let lines: Vec<_> = text.lines().collect();
    let without =
        |at: usize| lines.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, line)| *line).collect::<Vec<_>>();
    let (first, last) = (without(0), without(lines.len() - 1));
    for (what, harmed) in [
        ("no head", first),
        ("no end", last),
        ("a line is missing", without(lines.len() / 2)),
        ("a line twice", [&lines[..], &lines[lines.len() - 2..]].concat()),
        ("half a line", vec![lines[0], &lines[1][..40]]),
        ("empty", Vec::new()),
    ] {
        let bad = world.lab.dir().join("bad.jsonl");
        std::fs::write(&bad, harmed.join("\n")).expect("a file");
        let refused = world.operator(&format!("restore {}", bad.display()));
        assert_eq!(refused.code, 5, "{what}: {}", refused.stderr);
        assert!(!world.state().join("rendezvous/lab").exists(), "{what}");
    }
    world.operator_asks(&format!("restore {} --network lab", file.display()));
    world.start();
    sees(&world, &[("alice", "online")]);
    let tokens = |listed: &Value| listed["tokens"].clone();
    assert_eq!(tokens(&world.operator_asks("token list")), tokens(&before.1));
    let banned = |listed: &Value| {
        let agents = listed["agents"].as_array().expect("a list").clone();
        agents
            .into_iter()
            .filter(|agent| agent["state"] == "banned")
            .map(|agent| agent["identity"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(banned(&world.operator_asks("agents list")), banned(&before.0));
    assert_eq!(banned(&before.0), [bob.ask("agents")["identity"].clone()]);
    assert_eq!(alice.ask("agents")["rendezvous"], "connected");
}
