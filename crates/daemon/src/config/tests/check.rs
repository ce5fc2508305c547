//! Errors between values that are valid on their own.

use super::{refuses, warns, with_peer};

#[test]
fn a_peer_with_this_hosts_own_key_is_refused() {
    refuses(
        &with_peer(
            r#"name = "bob"
public_key = "R2iW4KAwjOrKGU3UKkqY5tSkxt8ai44r7GaojS2WBR4="
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        r#"
error[own_key]: the public key of peer `bob` is this host's own
 --> lab.toml:8:14
  |
8 | public_key = "R2iW4KAwjOrKGU3UKkqY5tSkxt8ai44r7GaojS2WBR4="
  |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: write the peer's key: `overlay key pub < KEY_FILE` on the peer shows it
"#,
    );
}

#[test]
fn two_peers_with_one_key_are_refused() {
    refuses(
        &with_peer(
            r#"name = "bob"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]

[[peer]]
name = "carol"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.3/32"]"#,
        ),
        r#"
error[duplicate_key]: peers `bob` and `carol` have the same public key
  --> lab.toml:13:14
   |
 8 | public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
   |              ---------------------------------------------- first here
...
13 | public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
   |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = hint: every peer has a key of its own; merge the two or correct one key
"#,
    );
}

#[test]
fn two_peers_with_one_name_are_refused() {
    refuses(
        &with_peer(
            r#"name = "bob"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]

[[peer]]
name = "Bob"
public_key = "9PQpFWCg1eXHotsh05eJDQFmOnkhjnwxF6NL87AugHs="
allowed_ips = ["10.77.0.3/32"]"#,
        ),
        r#"
error[duplicate_name]: two peers are named `Bob`
  --> lab.toml:12:8
   |
 7 | name = "bob"
   |        ----- first here
...
12 | name = "Bob"
   |        ^^^^^
   |
   = hint: give each peer a name of its own
"#,
    );
}

#[test]
fn equal_prefixes_of_two_peers_are_refused() {
    refuses(
        &with_peer(
            r#"name = "bob"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]

[[peer]]
name = "carol"
public_key = "9PQpFWCg1eXHotsh05eJDQFmOnkhjnwxF6NL87AugHs="
allowed_ips = ["10.77.0.3/32", "10.77.0.2"]"#,
        ),
        r#"
error[duplicate_allowed_ip]: 10.77.0.2/32 belongs to both peers `bob` and `carol`
  --> lab.toml:14:32
   |
 9 | allowed_ips = ["10.77.0.2/32"]
   |                -------------- first here
...
14 | allowed_ips = ["10.77.0.3/32", "10.77.0.2"]
   |                                ^^^^^^^^^^^
   |
   = hint: a prefix has one owner: remove it from one; a longer prefix inside a shorter one is fine
"#,
    );
}

#[test]
fn a_route_over_an_endpoint_deserves_a_look() {
    warns(
        &with_peer(
            r#"name = "bob"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
endpoint = "203.0.113.7:51820"
allowed_ips = ["10.77.0.2/32", "203.0.113.0/24"]"#,
        ),
        r#"
warning[endpoint_in_route]: the route to 203.0.113.0/24 covers the endpoint 203.0.113.7 of peer `bob`: unless the host has a more specific route, its packets go into the tunnel
  --> lab.toml:10:32
   |
 9 | endpoint = "203.0.113.7:51820"
   |            ------------------- the endpoint
10 | allowed_ips = ["10.77.0.2/32", "203.0.113.0/24"]
   |                                ^^^^^^^^^^^^^^^^
   |
   = hint: take 203.0.113.7 out of `allowed_ips`, or give the host a route to 203.0.113.7/32; `overlay up` asks the host
"#,
    );
}

#[test]
fn the_route_to_one_peer_over_the_endpoint_of_another_too() {
    warns(
        &with_peer(
            r#"name = "bob"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
endpoint = "[2001:db8::7]:51820"
allowed_ips = ["10.77.0.2/32"]

[[peer]]
name = "carol"
public_key = "9PQpFWCg1eXHotsh05eJDQFmOnkhjnwxF6NL87AugHs="
allowed_ips = ["2001:db8::/32"]"#,
        ),
        r#"
warning[endpoint_in_route]: the route to 2001:db8::/32 covers the endpoint 2001:db8::7 of peer `bob`: unless the host has a more specific route, its packets go into the tunnel
  --> lab.toml:15:16
   |
 9 | endpoint = "[2001:db8::7]:51820"
   |            --------------------- the endpoint
...
15 | allowed_ips = ["2001:db8::/32"]
   |                ^^^^^^^^^^^^^^^
   |
   = hint: take 2001:db8::7 out of `allowed_ips`, or give the host a route to 2001:db8::7/128; `overlay up` asks the host
"#,
    );
}
