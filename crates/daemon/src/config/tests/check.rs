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
        &["own_key 8:14"],
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
        &["duplicate_key 13:14"],
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
        &["duplicate_name 12:8"],
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
        &["duplicate_allowed_ip 14:32"],
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
        &["endpoint_in_route 10:32"],
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
        &["endpoint_in_route 15:16"],
    );
}
