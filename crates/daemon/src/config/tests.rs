//! Valid configs and their meaning, and invalid configs and the error text.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use overlay_core::{Joins, Protocol, Rule};
use zeroize::Zeroizing;

use super::*;
use crate::failure::{ExitKind, Failure};
use crate::{files, keys};

mod check;
mod document;
mod peers;
mod sections;
mod table;

/// The private key whose public key, according to `wg pubkey`, is [`OWN_PUBLIC`].
const OWN: &str = "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=";
const OWN_PUBLIC: &str = "R2iW4KAwjOrKGU3UKkqY5tSkxt8ai44r7GaojS2WBR4=";
const BOB: &str = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE=";
const CAROL: &str = "9PQpFWCg1eXHotsh05eJDQFmOnkhjnwxF6NL87AugHs=";
const PRESHARED: &str = "XLDg27A/60RZhnh2DjnlZ9FXgcQOV4iko8XKaOJWMxw=";

const INTERFACE: &str = r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
"#;

/// Reads `text` as the file `lab.toml`, with three key files beside it.
fn read(text: &str) -> Result<Config, ConfigError> {
    let file = |name: &str, content: &str| (name.to_owned(), Zeroizing::new(format!("{content}\n")));
    let files = [file("own.key", OWN), file("bob.psk", PRESHARED), file("bad.key", "shortsecret")];
    Config::parse_with(text, Path::new("lab.toml"), &KeyFiles::Memory(&files))
}

fn accepted(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

#[track_caller]
fn refuses(text: &str, expected: &str) {
    let error = read(text).expect_err("the config is wrong");
    let rendered = error.render(false);
    assert_eq!(rendered, expected.trim_matches('\n'), "\n{rendered}");
    assert!(!rendered.contains(OWN) && !rendered.contains(PRESHARED), "a secret is shown");
}

#[track_caller]
fn warns(text: &str, expected: &str) {
    let config = accepted(text);
    let rendered: Vec<_> = config.warnings().iter().map(|warning| warning.render(false)).collect();
    let rendered = rendered.join("\n\n");
    assert_eq!(rendered, expected.trim_matches('\n'), "\n{rendered}");
}

/// Returns a config that is valid except for `lines` in [interface].
fn with_interface(lines: &str) -> String {
    format!(
        "{INTERFACE}{lines}\n\n[[peer]]\nname = \"bob\"\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\n"
    )
}

/// Returns a config with a peer of these `lines`.
fn with_peer(lines: &str) -> String {
    format!("{INTERFACE}\n[[peer]]\n{lines}\n")
}

#[test]
fn every_key_is_read_as_it_is_meant() {
    let config = accepted(&format!(
        r#"
[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24", "fd00:77::1/64", "10.78.0.1"]
listen_port = 0
mtu = 1420
forward = true
fwmark = 0x77
table = 1000
dns = "off"
guard = "strict"

[[peer]]
name = "bob"
public_key = "{BOB}"
preshared_key_file = "bob.psk"
endpoint = "[2001:db8::7]:51820"
allowed_ips = ["10.77.0.2/32", "fd00:77::2", "0.0.0.0/0"]
persistent_keepalive = 25
allow = ["icmp", "tcp/22", "udp/8000-8010", "47", "58"]

[[peer]]
public_key = "{CAROL}"
endpoint = "carol.example.net.:443"
allowed_ips = []
allow = []

[metrics]
listen = "127.0.0.1:9586"

[tuning]
udp_gso = "off"
tun_offload = "on"
scheduling = "realtime"
mtu_discovery = "off"
"#
    ));

    let Interface { name, private_key, addresses, listen_port, mtu, forward, fwmark, table, dns, guard } =
        &config.interface;
    assert_eq!((name.as_str(), *listen_port, *forward), ("overlay0", 0, true));
    assert_eq!(keys::encode_public(&private_key.public()), OWN_PUBLIC);
    let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.77.0.1/24", "fd00:77::1/64", "10.78.0.1/32"]);
    assert_eq!((*mtu, *fwmark, *table, *dns), (Mtu::Fixed(1420), Some(0x77), Table::Number(1000), Dns::Off));
    assert_eq!(*guard, Guard::Strict);

    let [bob, carol] = config.peers.as_slice() else { panic!("two peers") };
    assert_eq!(bob.name.as_deref(), Some("bob"));
    assert_eq!(keys::encode_public(&bob.public_key), BOB);
    assert_eq!(bob.preshared_key.as_ref().map(|key| keys::encode_secret(key).to_string()).as_deref(), Some(PRESHARED));
    assert_eq!(bob.endpoint, Some(Endpoint::Address("[2001:db8::7]:51820".parse::<SocketAddr>().unwrap())));
    let shown: Vec<_> = bob.allowed_ips.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.77.0.2/32", "fd00:77::2/128", "0.0.0.0/0"]);
    assert_eq!(bob.persistent_keepalive, Some(25));
    let rule = |protocol, ports| Rule { protocol, ports };
    let rules = [
        rule(Protocol::Icmp, None),
        rule(Protocol::Tcp, Some(22..=22)),
        rule(Protocol::Udp, Some(8000..=8010)),
        rule(Protocol::Number(47), None),
        rule(Protocol::Icmp, None),
    ];
    assert_eq!(bob.allow.as_deref(), Some(rules.as_slice()));
    assert_eq!(carol.name, None);
    assert_eq!(carol.endpoint, Some(Endpoint::Name { host: "carol.example.net".to_owned(), port: 443 }));
    assert_eq!(carol.allow.as_deref(), Some([].as_slice()));

    assert_eq!(config.metrics, Some("127.0.0.1:9586".parse().unwrap()));
    let tuning = Tuning {
        udp_gso: Switch::Off,
        tun_offload: Switch::On,
        scheduling: Scheduling::Realtime,
        mtu_discovery: MtuDiscovery::Off,
    };
    assert_eq!(config.tuning, tuning);
    assert!(!bob.mtu_discovery && !bob.to_core().mtu_discovery);
}

#[test]
fn what_is_left_out_has_the_defaults_of_wireguard() {
    let text = format!(
        "[interface]\nprivate_key_file = \"own.key\"\naddresses = [\"10.77.0.1/24\"]\n\
         [[peer]]\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\n"
    );
    let config = accepted(&text);
    assert_eq!(config.interface.name, "lab", "that of the file");
    assert_eq!(config.interface.listen_port, 51820);
    assert_eq!(
        (config.interface.mtu, config.interface.table, config.interface.dns, config.interface.guard),
        (Mtu::Auto, Table::Auto, Dns::Auto, Guard::Auto)
    );
    assert_eq!((config.interface.forward, config.interface.fwmark), (false, None));
    assert_eq!((config.metrics, config.tuning), (None, Tuning::default()));
    let peer = &config.peers[0];
    assert!(peer.mtu_discovery && peer.to_core().mtu_discovery);
    assert_eq!((&peer.name, &peer.endpoint, peer.persistent_keepalive), (&None, &None, None));
    assert!(peer.preshared_key.is_none() && peer.allow.is_none(), "no secret, and everything allowed");
    assert!(config.warnings().is_empty());
}

#[test]
fn zero_switches_a_number_off() {
    let config = accepted(&format!(
        "{INTERFACE}fwmark = 0\n\
         [[peer]]\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.2/32\"]\npersistent_keepalive = 0\n"
    ));
    assert_eq!((config.interface.fwmark, config.peers[0].persistent_keepalive), (None, None));
}

#[test]
fn the_node_gets_what_the_config_says() {
    let config = accepted(&format!(
        "{INTERFACE}forward = true\n\
         [[peer]]\npublic_key = \"{BOB}\"\npreshared_key_file = \"bob.psk\"\nendpoint = \"bob.example.net:51820\"\n\
         allowed_ips = [\"10.77.0.2/32\"]\npersistent_keepalive = 25\nallow = [\"icmp\"]\n"
    ));
    let node = config.to_node(MtuRange { start: 1400, max: 1440 }, Joins::NOTHING, [7; 32]);
    assert_eq!(node.addresses, ["10.77.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((node.mtu, node.max_mtu, node.forward, node.seed), (1400, 1440, true, [7; 32]));
    assert_eq!(*keys::encode_secret(&node.private_key.expect("a key")), OWN);

    let peer = config.peers[0].to_core();
    assert_eq!(peer.endpoint, None, "a name is no address: its addresses are told when they are known");
    assert_eq!(peer.persistent_keepalive, Some(Duration::from_secs(25)));
    assert_eq!(peer.preshared_key.map(|key| keys::encode_secret(&key).to_string()).as_deref(), Some(PRESHARED));
    assert_eq!(peer.allow, Some(vec![Rule { protocol: Protocol::Icmp, ports: None }]));
}

#[test]
fn a_literal_endpoint_is_where_the_node_begins() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nendpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"10.77.0.2/32\"]"
    )));
    assert_eq!(config.peers[0].to_core().endpoint, Some("203.0.113.7:51820".parse().unwrap()));
}

#[test]
fn a_longer_prefix_inside_a_shorter_one_is_fine() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.0/16\"]\n\n\
         [[peer]]\npublic_key = \"{CAROL}\"\nallowed_ips = [\"10.77.3.0/24\"]"
    )));
    assert!(config.warnings().is_empty());
}

#[test]
fn a_route_over_an_endpoint_is_left_to_whoever_marks_or_routes() {
    let peer = format!(
        "[[peer]]\npublic_key = \"{BOB}\"\nendpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"203.0.113.0/24\"]\n"
    );
    let warned = |text: &str| !accepted(text).warnings().is_empty();
    assert!(warned(&format!("{INTERFACE}{peer}")), "the host's own routes decide");
    assert!(!warned(&format!("{INTERFACE}fwmark = 7\n{peer}")));
    assert!(!warned(&format!("{INTERFACE}table = \"off\"\n{peer}")));
    accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nendpoint = \"203.0.113.7:51820\"\nallowed_ips = [\"0.0.0.0/0\", \"::/0\"]"
    )));
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_endpoint() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\nendpoint = \"[::ffff:203.0.113.7]:51820\"\nallowed_ips = [\"10.77.0.2/32\"]"
    )));
    assert_eq!(config.peers[0].endpoint, Some(Endpoint::Address("203.0.113.7:51820".parse().unwrap())));
}

#[test]
fn an_error_in_one_line_names_file_line_and_column() {
    let error = read(&with_interface("listen_port = 70000\nmtu = 1")).expect_err("two mistakes");
    assert_eq!(error.to_string(), "lab.toml:5:15: `listen_port` is 70000, which is out of range");
    let found: Vec<_> = error.problems().iter().map(|problem| (problem.kind, problem.line, problem.column)).collect();
    assert_eq!(found, [("bad_port", 5, 15), ("bad_mtu", 6, 7)]);
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let error = read("[interface]\n\"größe\" = 1\n").expect_err("an unknown key");
    let error = error.problems().iter().find(|problem| problem.line == 2).expect("in line 2");
    assert_eq!(error.column, 1);
    let error =
        read(&with_peer(&format!("public_key = \"{BOB}\"\nallowed_ips = [\"größe\", \"x\"]"))).expect_err("bad");
    assert_eq!(error.problems()[1].column, 25);
}

#[test]
fn a_terminal_gets_colour_and_a_pipe_none() {
    let error = read(&with_interface("listen_port = 70000")).expect_err("a mistake");
    assert!(error.render(true).contains("\u{1b}["));
    assert!(!error.render(false).contains('\u{1b}'));
}

#[test]
fn an_escape_sequence_in_the_file_does_not_reach_the_terminal() {
    let escape = "\\u001b[31m";
    let error = read(&format!(
        "[interface]\nname = \"{escape}\"\nprivate_key_file = \"{escape}\"\naddresses = \"{escape}\"\n\
         # \u{1b}[31m\n\"{escape}\" = 1\n[[peer]]\nendpoint = \"{escape}\"\n"
    ));
    let error = error.expect_err("nothing in it is right");
    assert!(!error.render(false).contains('\u{1b}') && !error.to_string().contains('\u{1b}'));
    let hints: String = error.problems().iter().filter_map(|problem| problem.hint.as_deref()).collect();
    assert!(!hints.contains(char::is_control), "{hints:?}");
}

#[test]
fn the_long_path_of_a_key_file_is_no_secret() {
    let path = "/home/somebody/projects/overlay/deployments/production/own.key";
    let text = INTERFACE.replace("own.key", path);
    let rendered = read(&text).expect_err("there is none").render(false);
    assert_eq!(rendered.matches(path).count(), 3, "in the message, the line and the hint: {rendered}");
}

#[test]
fn no_debug_output_shows_a_secret() {
    let config = accepted(&with_peer(&format!(
        "public_key = \"{BOB}\"\npreshared_key_file = \"bob.psk\"\nallowed_ips = [\"10.77.0.2/32\"]"
    )));
    let shown = format!("{config:?}");
    assert!(shown.contains("PrivateKey(redacted)") && shown.contains("preshared_key: Some(\"redacted\")"), "{shown}");
    let key = format!("{:?}", &*config.interface.private_key.to_bytes());
    assert!(!shown.contains(&key), "{shown}");
}

#[test]
fn no_damage_to_a_config_makes_the_reader_panic_or_tell_a_secret() {
    let whole = format!(
        "[interface]\nname = \"overlay0\"\nprivate_key = \"{OWN}\"\naddresses = [\"10.77.0.1/24\", \"fd00::1/64\"]\nmtu = 1420\n\
         [[peer]]\nname = \"größe\"\npublic_key = \"{BOB}\"\npreshared_key_file = \"{PRESHARED}\"\n\
         endpoint = \"[2001:db8::7]:51820\"\nallowed_ips = [\"10.77.0.2/32\", '::/0']\nallow = [\"tcp/8000-8010\", \"47\"]\n"
    );
    let at_each = whole.char_indices().flat_map(|(at, c)| {
        let (before, after) = (&whole[..at], &whole[at + c.len_utf8()..]);
        let replaced =
            ["", "=", "\"", "\n", "[", "/", "-", "9", "ß", "\u{0}"].map(|with| format!("{before}{with}{after}"));
        replaced.into_iter().chain([before.to_owned()])
    });
    for text in at_each {
        let error = read(&text).expect_err("the private key stands in it, or nothing does");
        let shown = format!("{}{error}{error:?}", error.render(false));
        // A third of a key is enough to recognise it.
        assert!(!shown.contains(&OWN[15..30]) && !shown.contains(&PRESHARED[15..30]), "{text}\n{shown}");
    }
}

#[test]
fn what_deserves_a_look_is_said_without_refusing() {
    warns(
        INTERFACE,
        r#"
warning[no_peers]: there is no [[peer]]: nobody can be reached
 --> lab.toml:1:1
  |
1 | [interface]
  | ^^^^^^^^^^^
  |
  = hint: write a [[peer]] with its public_key and allowed_ips
"#,
    );
    warns(
        &with_peer(&format!("name = \"bob\"\npublic_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.1/32\"]")),
        r#"
warning[own_address]: 10.77.0.1/32 is this host's own address, not one of peer `bob`
 --> lab.toml:9:16
  |
9 | allowed_ips = ["10.77.0.1/32"]
  |                ^^^^^^^^^^^^^^
  |
  = hint: write the peer's virtual IP
"#,
    );
    warns(
        &with_peer(&format!(
            "public_key = \"{BOB}\"\nendpoint = \"10.77.0.9:51820\"\nallowed_ips = [\"10.77.0.2/32\"]"
        )),
        r#"
warning[endpoint_in_network]: the endpoint 10.77.0.9 of peer number 1 lies in 10.77.0.0/24, which this address connects to the tunnel
 --> lab.toml:4:14
  |
4 | addresses = ["10.77.0.1/24"]
  |              ^^^^^^^^^^^^^^
  |
  = hint: use a longer prefix or another range
"#,
    );
}

#[test]
fn a_missing_file_is_named_with_the_way_to_make_one() {
    let error = Config::load(Path::new("/nonexistent/lab.toml")).expect_err("there is none");
    assert_eq!(error.to_string(), "there is no config `/nonexistent/lab.toml`");
    let expected = r#"
error[missing_file]: there is no config `/nonexistent/lab.toml`
 |
 = hint: `overlay config init -o /nonexistent/lab.toml` writes a commented one to start from
"#;
    assert_eq!(error.render(false), expected.trim_matches('\n'));
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(folder.path()).expect_err("a folder");
    assert_eq!(error.to_string(), format!("the config `{}` cannot be read: is a directory", folder.path().display()));
    assert_eq!(error.problems()[0].kind, "unreadable_file");

    let binary = folder.path().join("lab.toml");
    std::fs::write(&binary, b"[interface]\nname = \"\xff\"\n").unwrap();
    let error = Config::load(&binary).expect_err("not text");
    assert_eq!(error.to_string(), format!("the config `{}` is not UTF-8: see line 2", binary.display()));
}

#[test]
fn a_file_of_another_user_is_a_matter_of_permission_and_not_of_the_config() {
    let forbidden = Problem::permission("the key file `own.key`", Path::new("own.key"));
    let failure = Failure::from(ConfigError::of_file(Path::new("lab.toml"), forbidden));
    assert_eq!((failure.code, failure.cause, failure.details), (ExitKind::Permission, None, None));
    assert_eq!(failure.error, "the key file `own.key` cannot be read: permission denied");
    assert_eq!(failure.hint, Some(crate::permission::denied(Path::new("own.key")).hint));
}

#[test]
fn key_files_are_looked_for_beside_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, with_interface("")).unwrap();
    let error = Config::load(&path).expect_err("no key yet");
    let key = folder.path().join("own.key");
    assert_eq!(error.problems()[0].message, format!("there is no key file `{}`", key.display()));

    files::write_secret(&key, OWN).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(keys::encode_public(&config.interface.private_key.public()), OWN_PUBLIC);
    assert!(config.warnings().is_empty());
}

#[test]
fn a_key_file_that_others_can_read_is_accepted_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = (folder.path().join("lab.toml"), folder.path().join("own.key"));
    std::fs::write(&path, with_interface("")).unwrap();
    std::fs::write(&key, OWN).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let config = Config::load(&path).unwrap();
    let [warning] = config.warnings() else { panic!("one warning") };
    let (path, key) = (path.display(), key.display());
    let expected = format!("{path}:3:20: the key file `{key}` can be read by others than its owner; `chmod 600 {key}`");
    assert_eq!(warning.to_string(), expected);
    assert_eq!(warning.problem().hint, Some(format!("`chmod 600 {key}`")));
}

#[test]
fn a_key_file_that_is_a_folder_or_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    let key = folder.path().join("own.key");
    std::fs::create_dir(&key).unwrap();
    let error = Config::parse(&with_interface(""), &path).expect_err("a folder");
    let message = format!("the key file `{}` cannot be read: is a directory", key.display());
    assert_eq!(error.problems()[0].message, message);

    std::fs::remove_dir(&key).unwrap();
    std::fs::write(&key, [0xff; 44]).unwrap();
    let error = Config::parse(&with_interface(""), &path).expect_err("no text");
    let message = "the key in `own.key` has a character at position 1 that base64 does not have";
    assert_eq!(error.problems()[0].message, message);
}

#[test]
fn a_bare_name_is_a_config_of_the_system() {
    assert_eq!(resolve_path("lab"), Path::new("/etc/overlay/lab.toml"));
    assert_eq!(resolve_path("lab.toml"), Path::new("lab.toml"));
    assert_eq!(resolve_path("wg0.conf"), Path::new("wg0.conf"));
    assert_eq!(resolve_path("lab.eu"), Path::new("/etc/overlay/lab.eu.toml"));
    assert_eq!(resolve_path("./lab"), Path::new("./lab"));
    assert_eq!(resolve_path("/srv/lab"), Path::new("/srv/lab"));
}

#[test]
fn an_argument_made_for_a_file_means_that_file() {
    let rows = [
        ("/etc/overlay/lab.toml", "lab"),
        ("/etc/overlay/lab", "/etc/overlay/lab"),
        ("/etc/overlay/a/lab.toml", "/etc/overlay/a/lab.toml"),
        ("/etc/overlay/lab.toml.toml", "/etc/overlay/lab.toml.toml"),
        ("lab.toml", "lab.toml"),
        ("lab", "./lab"),
        ("lab.eu", "./lab.eu"),
        ("../lab", "../lab"),
    ];
    for (file, argument) in rows {
        assert_eq!(argument_for(Path::new(file)), argument);
        assert_eq!(std::path::absolute(resolve_path(argument)).unwrap(), std::path::absolute(file).unwrap());
    }
}

#[test]
fn the_template_is_right_as_it_is_and_with_its_comments_removed() {
    let key_file = "own.key".to_owned();
    let text = template(&Template {
        private_key_file: key_file,
        public_key: Some(OWN_PUBLIC.to_owned()),
        ..Template::default()
    });
    let config = accepted(&text);
    assert_eq!(config.interface.name, "overlay0");
    assert!(text.contains(OWN_PUBLIC));

    let is_config = |line: &&str| {
        line.starts_with("[[")
            || line.starts_with("[m")
            || line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let uncommented: Vec<_> =
        text.lines().map(|line| line.strip_prefix("# ").filter(is_config).unwrap_or(line)).collect();
    let filled =
        uncommented.join("\n").replace("\"...\"", &format!("{BOB:?}")).replace("/etc/overlay/bob.psk", "bob.psk");
    let config = accepted(&filled);
    assert_eq!((config.peers.len(), config.interface.fwmark), (1, Some(0x77)), "{filled}");
    assert!(config.metrics.is_some());
}

#[test]
fn ten_thousand_peers_are_read_in_a_moment() {
    let mut text = INTERFACE.to_owned();
    for number in 0..10_000u32 {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let address = std::net::Ipv4Addr::from(0x0a80_0000 + number);
        let key = keys::encode_public(&PeerKey(key));
        text += &format!(
            "[[peer]]\nname = \"p{number}\"\npublic_key = \"{key}\"\n\
             endpoint = \"203.0.113.7:{}\"\nallowed_ips = [\"{address}/32\"]\n",
            number + 1
        );
    }
    let started = std::time::Instant::now();
    assert_eq!(accepted(&text).peers.len(), 10_000);
    // This takes a tenth of a second. Comparing every pair would take minutes.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn every_example_config_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            // Every key file that exists. The examples name those under /etc/overlay.
            let names = text.split('"').filter(|word| word.ends_with(".key") || word.ends_with(".psk"));
            let files: Vec<_> = names.map(|name| (name.to_owned(), Zeroizing::new(OWN.to_owned()))).collect();
            let config = Config::parse_with(&text, &path, &KeyFiles::Memory(&files));
            let config = config.unwrap_or_else(|error| panic!("{}", error.render(false)));
            assert!(config.warnings().is_empty(), "{path:?}: {:?}", config.warnings());
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen} examples");
}
