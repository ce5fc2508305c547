//! Valid configs and their meaning, and invalid configs and the error text.

use std::path::Path;

use overlay_golden::golden;
use zeroize::Zeroizing;

use super::*;
use crate::keys;

mod agent;
mod check;
mod document;
mod files;
mod meaning;
mod peers;
mod sections;
mod shown;
mod table;
mod written;

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

/// Keys of agents, of a rendezvous and of two networks: public keys of RFC 8032 section 7.1.
const RENDEZVOUS: &str = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena";
const NETWORK: &str = "hvabpq7iioevvevxbktu2g36xsojqlgpf3cjndgazvk7ckxumyga";
const DAVE: &str = "7ri43dtcdcq2hdnep3iaemhqlaebn3itxizqhlc55oirkseqqasq";
const ERIN: &str = "e6arp7aujrzdid3h2dzdc3udq3hp7pzlequmtri7556fs7y5ijxa";

/// Reads `text` as the file `lab.toml`, with three key files beside it.
fn read(text: &str) -> Result<Config, ConfigError> {
    let file = |name: &str, content: &str| (name.to_owned(), Zeroizing::new(format!("{content}\n")));
    let files = [file("own.key", OWN), file("bob.psk", PRESHARED), file("bad.key", "shortsecret")];
    Config::parse_with(text, Path::new("lab.toml"), &KeyFiles::Memory(&files))
}

/// The public half of the tunnel key, in base64.
fn public_key_of(config: &Config) -> String {
    keys::encode_public(&config.interface.private_key.as_ref().expect("static mode has a key").public())
}

fn accepted(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

/// Requires that `text` is refused with these problems, each as `KIND LINE:COLUMN`, and in the words of the golden file.
#[track_caller]
fn refuses(text: &str, problems: &[&str]) {
    let error = read(text).expect_err("the config is wrong");
    let rendered = error.render(false);
    let found: Vec<_> = error.problems().iter().map(placed).collect();
    assert_eq!(found, problems, "\n{rendered}");
    assert!(!rendered.contains(OWN) && !rendered.contains(PRESHARED), "a secret is shown");
    golden(found.join(", "), rendered);
}

/// Requires that `text` is accepted with these warnings, as [`refuses`] does for errors.
#[track_caller]
fn warns(text: &str, warnings: &[&str]) {
    let config = accepted(text);
    let found: Vec<_> = config.warnings().iter().map(|warning| placed(warning.problem())).collect();
    let rendered: Vec<_> = config.warnings().iter().map(|warning| warning.render(false)).collect();
    assert_eq!(found, warnings, "\n{}", rendered.join("\n\n"));
    golden(found.join(", "), rendered.join("\n\n"));
}

/// The kind and the place of a problem: `bad_port 5:15`.
fn placed(problem: &Problem) -> String {
    format!("{} {}:{}", problem.kind, problem.line, problem.column)
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

/// Returns a config of agent mode that is valid except for `lines` in [agent], which begin in line 4.
fn with_agent(lines: &str) -> String {
    format!(
        "[agent]\nname = \"alice\"\nrendezvous = [\"https://rv.example.net:7447#{RENDEZVOUS}.{NETWORK}\"]\n{lines}\n"
    )
}
