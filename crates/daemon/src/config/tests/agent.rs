//! `[agent]` and `[[trust]]`: what they mean, and each refusal with the text that the user sees.

use overlay_wire::signed::{Service, Transport, Visibility};

use super::*;

#[test]
fn every_key_of_agent_mode_is_read_as_it_is_meant() {
    let config = accepted(&format!(
        r#"
[agent]
name = "alice"
network = "lab"
rendezvous = [
    "https://RV.example.net:7447#{RENDEZVOUS}.{NETWORK}",
    "https://[2001:db8::7]:443#{DAVE}.{NETWORK}",
]
tags = ["gpu", "test"]
services = ["tcp/443=https", "udp/8000=mcp"]
visibility = "hidden"
allow = ["any"]
auto_approve = ["{ERIN}", "tag:ops"]
candidates = "all"

[[trust]]
key = "{DAVE}"
allow = ["tcp/22", "icmp"]
expires = 2027-01-01T01:00:00+01:00

[[trust]]
key = "{ERIN}"

[[peer]]
public_key = "{BOB}"
allowed_ips = ["10.77.0.2/32"]
"#
    ));
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    assert_eq!((config.interface.name.as_str(), config.interface.private_key.as_ref()), ("lab", None));
    assert!(config.interface.addresses.is_empty());
    assert_eq!(config.peers.len(), 1, "static peers may be mixed in");

    let key = |text: &str| text.parse().expect("a key");
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let agent = config.agent.expect("agent mode");
    assert_eq!((agent.name.as_str(), agent.network.as_deref()), ("alice", Some("lab")));
    assert_eq!(agent.network_key, key(NETWORK));
    let [first, second] = agent.rendezvous.as_slice() else { panic!("two rendezvous") };
    assert_eq!(
        (first.url.as_str(), first.host.as_str(), first.port),
        ("https://rv.example.net:7447", "rv.example.net", 7447)
    );
    assert_eq!((first.rendezvous, first.network), (key(RENDEZVOUS), key(NETWORK)));
    assert_eq!((second.host.as_str(), second.port, second.rendezvous), ("2001:db8::7", 443, key(DAVE)));
    assert_eq!(second.to_string(), format!("https://[2001:db8::7]:443#{DAVE}.{NETWORK}"));
    assert_eq!(agent.tags, ["gpu", "test"]);
    let service = |name: &str, transport, port| Service { name: name.to_owned(), transport, port, text: String::new() };
    assert_eq!(agent.services, [service("https", Transport::Tcp, 443), service("mcp", Transport::Udp, 8000)]);
    assert_eq!((agent.visibility, agent.candidates), (Visibility::Hidden, Candidates::All));
    assert_eq!(
        (agent.allow.0, agent.auto_approve),
        (text(&["any"]), vec![Approved::Agent(key(ERIN)), Approved::Tag("ops".to_owned())])
    );
    let [dave, erin] = agent.trust.as_slice() else { panic!("two that are trusted") };
    assert_eq!((dave.key, dave.allow.0.clone()), (key(DAVE), text(&["tcp/22", "icmp"])));
    assert_eq!(dave.expires, Some(1_798_761_600_000), "2027-01-01 in UTC");
    assert_eq!((erin.key, erin.allow.0.clone(), erin.expires), (key(ERIN), text(&["any"]), None), "as [agent] says");
}

#[test]
fn an_agent_without_further_keys_has_the_defaults() {
    let agent = accepted(&with_agent("")).agent.expect("agent mode");
    assert_eq!((agent.network, agent.visibility, agent.candidates), (None, Visibility::Members, Candidates::Auto));
    assert!(agent.tags.is_empty() && agent.services.is_empty() && agent.allow.0.is_empty());
    assert!(agent.auto_approve.is_empty() && agent.trust.is_empty());
    assert!(accepted(INTERFACE).agent.is_none(), "static mode");
}

#[test]
fn expiry_is_the_same_moment_in_every_notation() {
    let rows = [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T23:59:59.5Z", 951_868_799_500),
        ("2000-03-01 00:00:00Z", 951_868_800_000),
        ("2100-03-01T00:00:00Z", 4_107_542_400_000),
        ("2027-06-30T12:00:00-05:30", 1_814_376_600_000),
    ];
    for (written, millis) in rows {
        let config = accepted(&with_agent(&format!("[[trust]]\nkey = \"{DAVE}\"\nexpires = {written}")));
        assert_eq!(config.agent.expect("agent mode").trust[0].expires, Some(millis), "{written}");
    }
}

#[test]
fn the_config_in_force_has_the_key_the_addresses_and_the_peers_of_the_agent() {
    let config =
        accepted(&format!("{}[[peer]]\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\n", with_agent("")));
    let peer = |key: &str| Peer::of(keys::decode_public(key).expect("a key"));
    let private_key = PrivateKey::from_base64(OWN).expect("a key");
    let addresses: Vec<IpNet> = vec!["fd00::1/128".parse().expect("a prefix")];
    let peers = vec![peer(CAROL), Peer { name: Some("twice".to_owned()), ..peer(BOB) }];
    let in_force = config.in_force(AgentPart { private_key, former_key: None, addresses: addresses.clone(), peers });
    assert_eq!((public_key_of(&in_force).as_str(), &in_force.interface.addresses), (OWN_PUBLIC, &addresses));
    let names: Vec<_> = in_force.peers.iter().map(Peer::label).collect();
    assert_eq!(names, [BOB, CAROL], "the peer of the file stays as the file has it");
    assert_eq!(in_force.agent, config.agent);
    assert_eq!(keys_for_next_up(&config, &in_force), [] as [&str; 0]);
}

#[test]
fn agent_mode_without_peers_is_no_warning() {
    assert!(accepted(&with_agent("")).warnings().is_empty());
}

#[test]
fn what_agent_mode_needs_is_named() {
    refuses("[agent]\n", &["missing_key 1:1", "missing_key 1:1"]);
}

#[test]
fn a_misspelled_agent_does_not_lead_to_the_keys_of_static_mode() {
    refuses("[agnet]\nname = \"alice\"\n", &["unknown_key 1:2"]);
}

#[test]
fn trust_without_an_agent_is_refused() {
    refuses(&format!("{INTERFACE}\n[[trust]]\nkey = \"{DAVE}\"\n"), &["agent_mode_only 6:1"]);
}

#[test]
fn one_trust_that_is_no_list_is_refused() {
    refuses(&with_agent(&format!("[trust]\nkey = \"{DAVE}\"")), &["wrong_type 4:1"]);
}

#[test]
fn names_that_agents_cannot_have_are_refused_with_the_reason() {
    let text = |name: &str| with_agent("").replace("\"alice\"", &format!("\"{name}\""));
    for name in ["", "Alice", "my agent", "-alice", "123", "xn--alice", "localhost", &"a".repeat(33), "ålice"] {
        refuses(&text(name), &["bad_name 2:8"]);
    }
    refuses(&with_agent("network = \"LAB\""), &["bad_name 4:11"]);
}

#[test]
fn a_rendezvous_is_refused_with_what_is_wrong_and_what_is_right() {
    let keys = format!("{RENDEZVOUS}.{NETWORK}");
    let weak = "aeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let urls = [
        String::new(),
        "rv.example.net:7447".to_owned(),
        format!("http://rv.example.net:7447#{keys}"),
        format!("https://rv.example.net#{keys}"),
        format!("https://rv.example.net:#{keys}"),
        format!("https://rv.example.net:74470#{keys}"),
        format!("https://[2001:db8::7]#{keys}"),
        format!("https://2001:db8::7#{keys}"),
        format!("https://rv.example.net:7447/#{keys}"),
        format!("https://alice@rv.example.net:7447#{keys}"),
        format!("https://rv_!.example.net:7447#{keys}"),
        format!("https://0.0.0.0:7447#{keys}"),
        format!("https://{}.example.net:7447#{keys}", "a".repeat(120)),
        "https://rv.example.net:7447".to_owned(),
        format!("https://rv.example.net:7447#{RENDEZVOUS}"),
        format!("https://rv.example.net:7447#{RENDEZVOUS}."),
        format!("https://rv.example.net:7447#{}.{NETWORK}", &RENDEZVOUS[1..]),
        format!("https://rv.example.net:7447#{RENDEZVOUS}.{}", NETWORK.to_uppercase()),
        format!("https://rv.example.net:7447#{RENDEZVOUS}.{weak}"),
    ];
    for url in urls {
        refuses(&format!("[agent]\nname = \"alice\"\nrendezvous = [\"{url}\"]\n"), &["bad_rendezvous 3:15"]);
    }
}

#[test]
fn rendezvous_of_two_networks_and_one_that_stands_twice_are_refused() {
    refuses(
        &format!(
            "[agent]\nname = \"alice\"\nrendezvous = [\n  \"https://a.example:1#{RENDEZVOUS}.{NETWORK}\",\n  \
             \"https://b.example:1#{RENDEZVOUS}.{DAVE}\",\n  \"https://A.example:1#{ERIN}.{NETWORK}\",\n]\n"
        ),
        &["two_networks 5:3", "duplicate_rendezvous 6:3"],
    );
    refuses("[agent]\nname = \"alice\"\nrendezvous = []\n", &["missing_value 3:14"]);
}

#[test]
fn bad_tags_and_services_are_refused_one_by_one() {
    refuses(
        &with_agent("tags = [\"GPU\", \"a b\", \"x\", \"x\", \"\"]"),
        &["bad_tag 4:9", "bad_tag 4:16", "duplicate_tag 4:28", "bad_tag 4:33"],
    );
    let services =
        ["tcp/443", "https", "https=tcp/443", "sctp/1=a", "tcp/0=a", "tcp/1-2=a", "tcp/x=a", "tcp/1=", "tcp/1=A"];
    let lines: Vec<_> = services.iter().map(|service| format!("  \"{service}\",")).collect();
    let problems: Vec<_> = (0..services.len()).map(|at| format!("bad_service {}:3", at + 5)).collect();
    let problems: Vec<_> = problems.iter().map(String::as_str).collect();
    refuses(&with_agent(&format!("services = [\n{}\n]", lines.join("\n"))), &problems);
}

#[test]
fn a_service_that_stands_twice_is_refused() {
    accepted(&with_agent("services = [\"tcp/53=dns\", \"udp/53=dns\", \"tcp/53=doh\"]"));
    refuses(&with_agent("services = [\"tcp/53=dns\", \"tcp/53=dns\"]"), &["duplicate_service 4:27"]);
}

#[test]
fn lists_have_an_end() {
    let list = |entry: fn(usize) -> String, length: usize| {
        let entries: Vec<_> = (0..length).map(|number| format!("\"{}\"", entry(number))).collect();
        format!("[{}]", entries.join(", "))
    };
    let tag = |number| format!("t{number}");
    accepted(&with_agent(&format!("tags = {}", list(tag, 16))));
    refuses(&with_agent(&format!("tags = {}", list(tag, 17))), &["too_many 4:8"]);
    let service = |number| format!("tcp/{}=http", number + 1);
    accepted(&with_agent(&format!("services = {}", list(service, 16))));
    refuses(&with_agent(&format!("services = {}", list(service, 17))), &["too_many 4:12"]);
    let scope = |number| format!("tcp/{}", number + 1);
    accepted(&with_agent(&format!("allow = {}", list(scope, 32))));
    refuses(&with_agent(&format!("allow = {}", list(scope, 33))), &["too_many 4:9"]);
    let rendezvous = |number| format!("https://rv{number}.example:1#{RENDEZVOUS}.{NETWORK}");
    let text = |length| format!("[agent]\nname = \"alice\"\nrendezvous = {}\n", list(rendezvous, length));
    accepted(&text(8));
    refuses(&text(9), &["too_many 3:14"]);
}

#[test]
fn bad_scopes_are_refused_one_by_one() {
    refuses(
        &with_agent("allow = [\n  \"all\",\n  \"any/22\",\n  \"tpc/22\",\n  \"tcp/022\",\n  \"047\",\n]"),
        &["bad_allow 5:3", "bad_allow 6:3", "bad_allow 7:3", "bad_allow 8:3", "bad_allow 9:3"],
    );
}

#[test]
fn bad_identities_and_tags_are_refused() {
    refuses(
        &with_agent(&format!(
            "auto_approve = [\n  \"ops\",\n  \"bob\",\n  \"{BOB}\",\n  \"{DAVE}\",\n  \"{DAVE}\",\n]"
        )),
        &["bad_key 5:3", "bad_key 6:3", "bad_key 7:3", "duplicate_key 9:3"],
    );
    refuses(
        &with_agent("auto_approve = [\"tag:Ops\", \"tag:\", \"tag:tag:ops\", \"tag:ops\", \"tag:ops\"]"),
        &["bad_tag 4:17", "bad_tag 4:28", "bad_tag 4:36", "duplicate_key 4:62"],
    );
    let trust = |key: &str| with_agent(&format!("[[trust]]\nkey = \"{key}\""));
    refuses(&trust(&DAVE.to_uppercase()), &["bad_key 5:7"]);
    refuses(&trust(&DAVE.replace("sq", "sr")), &["bad_key 5:7"]);
    refuses(&format!("{}[[trust]]\nkey = \"{DAVE}\"\n", trust(DAVE)), &["duplicate_key 7:7"]);
    refuses(&with_agent("[[trust]]\nallow = []"), &["missing_key 4:1"]);
}

#[test]
fn an_expiry_that_is_not_one_moment_is_refused() {
    let expires = |value: &str| with_agent(&format!("[[trust]]\nkey = \"{DAVE}\"\nexpires = {value}"));
    for value in ["2027-01-01", "2027-01-01T00:00:00", "00:00:00", "1969-12-31T23:59:59Z"] {
        refuses(&expires(value), &["bad_time 6:11"]);
    }
    for value in ["\"2027-01-01T00:00:00Z\"", "\"24h\"", "1798761600"] {
        refuses(&expires(value), &["wrong_type 6:11"]);
    }
}

#[test]
fn words_of_agent_mode_that_do_not_exist_are_refused() {
    refuses(&with_agent("visibility = \"private\""), &["bad_value 4:14"]);
    refuses(&with_agent("candidates = \"none\""), &["bad_value 4:14"]);
    refuses(&with_agent("proxy = \"env\""), &["unknown_key 4:1"]);
}

#[test]
fn public_keys_of_agents_are_shown_and_secrets_are_not() {
    let error = read(&with_agent(&format!("private_key = \"{OWN}\"\nmtu = 1"))).expect_err("two mistakes");
    let rendered = error.render(false);
    assert!(!rendered.contains(OWN), "{rendered}");
    let error = read(&with_agent(&format!("[[trust]]\nkey = \"{DAVE}\"\nexpires = 1"))).expect_err("a mistake");
    assert!(!error.render(false).contains("***"), "{}", error.render(false));
}
