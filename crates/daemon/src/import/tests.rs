//! The configs that wg-quick configs are converted to.

use overlay_golden::golden;

use super::*;
use crate::config::{Config, Endpoint, Table};

const PRIVATE: &str = "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=";
const PRESHARED: &str = "XLDg27A/60RZhnh2DjnlZ9FXgcQOV4iko8XKaOJWMxw=";
const BOB: &str = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE=";
const CAROL: &str = "9PQpFWCg1eXHotsh05eJDQFmOnkhjnwxF6NL87AugHs=";

/// Parses the result with our own parser.
fn read(imported: &Imported) -> Config {
    let config = Config::parse_with(&imported.toml, Path::new("wg0.toml"), &KeyFiles::Memory(&imported.files));
    config.unwrap_or_else(|error| panic!("{}\n{}", error.render(false), imported.toml))
}

/// Imports on a host without names and without forwarding.
fn import(text: &str, name: &str) -> Result<Imported, ImportError> {
    super::import(text, name, &Surroundings::default())
}

fn imported(text: &str) -> Imported {
    import(text, "wg0").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_whole_config_is_carried_over() {
    let text = format!(
        "[Interface]
PrivateKey = {PRIVATE}
Address = 10.77.0.1/24, fd00:77::1/64
address=10.78.0.1
ListenPort = 51821
FwMark = 0xca6c
MTU = 1380
Table = off
DNS = 1.1.1.1
PostUp = iptables -A FORWARD -i %i -j ACCEPT; echo # a comment
SaveConfig = true

# bob
[Peer]
publickey = {BOB}   # his laptop
PresharedKey={PRESHARED}
AllowedIPs = 10.77.0.2/32, 10.79.0.0/16
AllowedIPs = fd00:77::2
Endpoint = bob.example.net:51820
PersistentKeepalive = 25

[Peer]
# Name = carol
PublicKey = {CAROL}
AllowedIPs = 10.77.0.3/32
PersistentKeepalive = off
"
    );
    let imported = imported(&text);
    let expected = format!(
        r#"[interface]
name = "wg0"
private_key_file = "wg0.key"
addresses = ["10.77.0.1/24", "fd00:77::1/64", "10.78.0.1/32"]
listen_port = 51821
fwmark = 0xca6c
mtu = 1380
table = "off"
forward = true

[[peer]]
name = "bob"
public_key = "{BOB}"
preshared_key_file = "wg0-bob.psk"
endpoint = "bob.example.net:51820"
persistent_keepalive = 25
allowed_ips = ["10.77.0.2/32", "10.79.0.0/16", "fd00:77::2/128"]

[[peer]]
name = "carol"
public_key = "{CAROL}"
allowed_ips = ["10.77.0.3/32"]
"#
    );
    let (comment, toml) = imported.toml.split_once("\n\n").expect("a comment first");
    assert_eq!(toml, expected);
    golden("the comment", comment);
    let files: Vec<_> = imported.files.iter().map(|(name, secret)| (name.as_str(), secret.as_str())).collect();
    assert_eq!(files, [("wg0.key", PRIVATE), ("wg0-bob.psk", PRESHARED)]);
    golden("the warnings", imported.warnings.join("\n"));
    assert_eq!(imported.losses, 3, "DNS, the command, and the switch of the kernel");
    assert!(!imported.toml.contains(PRIVATE) && !imported.toml.contains(PRESHARED), "secrets live in files");

    let config = read(&imported);
    assert_eq!((config.interface.table, config.interface.fwmark), (Table::Off, Some(0xca6c)));
    assert_eq!(config.peers[0].endpoint, Some(Endpoint::Name { host: "bob.example.net".to_owned(), port: 51820 }));
    assert!(config.peers[0].preshared_key.is_some());
}

#[test]
fn a_config_without_a_port_keeps_its_random_one() {
    let imported = imported(&format!("[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1\n"));
    golden("the port", imported.toml.lines().find(|line| line.starts_with("listen_port = 0 ")).expect("a line"));
    assert_eq!(read(&imported).interface.listen_port, 0);
}

#[test]
fn names_are_taken_from_comments_of_one_word() {
    let peer = |before: &str, header: &str, inside: &str| {
        let text = format!(
            "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1\n\
             {before}[Peer]{header}\n{inside}PublicKey={BOB}\nAllowedIPs=10.77.0.2\n"
        );
        read(&imported(&text)).peers[0].name.clone()
    };
    let bob = Some("bob".to_owned());
    assert_eq!(peer("# bob\n", "", ""), bob);
    assert_eq!(peer("", " # bob", ""), bob);
    assert_eq!(peer("", "", "# bob\n"), bob);
    assert_eq!(peer("", "", "# Name = bob\n"), bob);
    assert_eq!(peer("", "", "# friendly_name = bob\n"), bob);
    assert_eq!(peer("", "", "# friendly_json = {}\n"), None);
    assert_eq!(peer("# the laptop of bob\n", "", ""), None, "several words are not a name");
    assert_eq!(peer("# bob\n\n", "", ""), None, "a blank line parts them");
    assert_eq!(peer("", "", "# Endpoint = 203.0.113.7:1\n"), None, "a comment is not a name");
}

#[test]
fn a_name_after_one_peer_and_right_before_the_next_is_the_next_ones() {
    let text = format!(
        "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1\n\
         [Peer]\nPublicKey={BOB}\nAllowedIPs=10.77.0.2\n# carol\n[Peer]\nPublicKey={CAROL}\nAllowedIPs=10.77.0.3\n"
    );
    let config = read(&imported(&text));
    assert_eq!(config.peers[0].name, None);
    assert_eq!(config.peers[1].name.as_deref(), Some("carol"));
}

#[test]
fn host_bits_and_double_claims_are_settled_as_wireguard_does() {
    let text = format!(
        "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1/24\n\
         [Peer]\nPublicKey={BOB}\nAllowedIPs=10.77.5.2/24, 10.77.9.0/24\n[Peer]\nPublicKey={CAROL}\nAllowedIPs=10.77.9.0/24\n"
    );
    let imported = imported(&text);
    golden("the warnings", imported.warnings.join("\n"));
    let config = read(&imported);
    let of = |peer: usize| config.peers[peer].allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((of(0), of(1)), (vec!["10.77.5.0/24".to_owned()], vec!["10.77.9.0/24".to_owned()]));
}

#[test]
fn what_overlay_would_refuse_is_said_at_once() {
    let text = format!(
        "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1/24\n\
         [Peer]\nPublicKey={BOB}\nEndpoint=203.0.113.7:1\nAllowedIPs=203.0.113.0/24\n"
    );
    let warnings = imported(&text).warnings;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    golden("the warning", warning);
}

#[test]
fn a_mistake_is_named_with_its_line_and_without_its_secret() {
    let interface = format!("[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1/24\n");
    let refused = [
        (String::new(), 0),
        ("PrivateKey=x\n".to_owned(), 1),
        ("[Interface]\n[Pear]\n".to_owned(), 2),
        ("[Interface]\nPrivateKey\n".to_owned(), 2),
        ("[Interface]\nPrivateKey = hush\n".to_owned(), 2),
        (format!("[Interface]\nPrivateKey={PRIVATE}\n"), 1),
        ("[Interface]\nAddress=10.77.0.1\n".to_owned(), 1),
        (format!("{interface}ListenPort = 70000\n"), 4),
        (format!("{interface}[Peer]\nAllowedIPs = 10.0.0.0/8\n"), 4),
        (format!("{interface}[Peer]\nPublicKey={BOB}\nAllowedIPs = 10.0.0.0/99\n"), 6),
        (format!("{interface}[Peer]\nPublicKey={BOB}\nEndpoint = bob\n"), 6),
        (format!("{interface}Jc = 4\n"), 4),
        (format!("{interface}[Peer]\nAddress = 10.0.0.1\nPublicKey={BOB}\n"), 5),
        (format!("{interface}Table = vpn\n"), 4),
        (format!("{interface}SaveConfig = maybe\n"), 4),
    ];
    for (text, line) in refused {
        let error = import(&text, "wg0").map(|_| ()).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.line, line, "{text}: {said}");
        assert!(!said.contains(PRIVATE) && !said.contains("hush"), "{said}");
        golden(text.lines().last().unwrap_or("nothing"), said);
    }
}

#[test]
fn sections_of_one_key_are_one_peer() {
    let text = format!(
        "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1/24\n\
         [Peer]\nPublicKey={BOB}\nEndpoint=192.0.2.1:1\nAllowedIPs=10.77.0.2\nPersistentKeepalive=5\n\
         [Peer]\nPublicKey={BOB}\nAllowedIPs=10.77.0.3\nPersistentKeepalive=9\n"
    );
    let imported = imported(&text);
    let config = read(&imported);
    let [bob] = &config.peers[..] else { panic!("{}", imported.toml) };
    assert_eq!(bob.allowed_ips, ["10.77.0.3/32".parse().expect("a prefix")]);
    assert_eq!((bob.persistent_keepalive, bob.endpoint.is_some()), (Some(9), true));
    golden("the warnings", imported.warnings.join("\n"));
}

#[test]
fn names_of_this_host_are_looked_up() {
    let host = Surroundings {
        tables: vec![("vpn".to_owned(), 200)],
        services: vec![("openvpn".to_owned(), 1194)],
        links: vec![("eth0".to_owned(), 2)],
        forwards: true,
    };
    let text = format!(
        "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1/24\nTable=vpn\nListenPort=openvpn\n\
         [Peer]\nPublicKey={BOB}\nEndpoint=[fe80::1%eth0]:openvpn\nAllowedIPs=+10.77.0.2, 10.77.0.9, -10.77.0.9\n"
    );
    let config = read(&super::import(&text, "wg0", &host).expect("imported"));
    assert_eq!((config.interface.table, config.interface.listen_port), (Table::Number(200), 1194));
    assert!(config.interface.forward, "the host passes packets on");
    let endpoint = "[fe80::1%2]:1194".parse().expect("an address and a port");
    assert_eq!(config.peers[0].endpoint, Some(Endpoint::Address(endpoint)));
    assert_eq!(config.peers[0].allowed_ips, ["10.77.0.2/32".parse().expect("a prefix")]);
}

#[test]
fn a_key_given_twice_counts_once_and_names_of_peers_differ() {
    let text = format!(
        "[Interface]\nPrivateKey={PRIVATE}\nAddress=10.77.0.1/24\nMTU=1400\nMTU=1380\nFwMark=1\nFwMark=off\n\
         # bob\n[Peer]\nPublicKey={BOB}\nPresharedKey={PRESHARED}\nEndpoint=192.0.2.1:1\nEndpoint=192.0.2.2:2\n\
         # Bob\n[Peer]\nPublicKey={CAROL}\nPresharedKey={PRESHARED}\nPresharedKey={PRESHARED}\n"
    );
    let imported = imported(&text);
    let config = read(&imported);
    assert_eq!((config.interface.mtu, config.interface.fwmark), (crate::config::Mtu::Fixed(1380), None));
    let names: Vec<_> = config.peers.iter().map(crate::config::Peer::label).collect();
    assert_eq!(names, ["bob", "Bob-2"]);
    let files: Vec<_> = imported.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(files, ["wg0.key", "wg0-bob.psk", "wg0-Bob-2.psk"]);
}
