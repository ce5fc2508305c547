//! Errors in the values of a `[[peer]]`: each refusal with the exact text that the user sees.

use super::{refuses, with_peer};

#[test]
fn a_public_key_of_the_wrong_length_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE"
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        &["bad_key 7:14"],
    );
}

#[test]
fn a_public_key_with_a_character_outside_base64_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHt!+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        &["bad_key 7:14"],
    );
}

#[test]
fn a_low_order_public_key_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA="
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        &["low_order_key 7:14"],
    );
}

#[test]
fn a_prefix_that_is_none_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/33", "10.77.0.300/32", "10.77.0.0/255.255.255.0"]"#,
        ),
        &["bad_cidr 8:16", "bad_cidr 8:32", "bad_cidr 8:50"],
    );
}

#[test]
fn a_prefix_with_host_bits_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/24"]"#,
        ),
        &["host_bits 8:16"],
    );
}

#[test]
fn an_endpoint_without_a_port_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]
endpoint = "203.0.113.7""#,
        ),
        &["bad_endpoint 9:12"],
    );
}

#[test]
fn an_ipv6_endpoint_without_brackets_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]
endpoint = "2001:db8::7:51820""#,
        ),
        &["bad_endpoint 9:12"],
    );
}

#[test]
fn an_endpoint_with_a_port_out_of_range_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]
endpoint = "bob.example.net:70000""#,
        ),
        &["bad_endpoint 9:12"],
    );
}

#[test]
fn a_keepalive_out_of_range_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]
persistent_keepalive = 65536"#,
        ),
        &["bad_keepalive 9:24"],
    );
}

#[test]
fn a_peer_name_with_a_blank_is_refused() {
    refuses(
        &with_peer(
            r#"name = "my laptop"
public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        &["bad_name 7:8"],
    );
}

#[test]
fn bad_entries_of_allow_are_refused_one_by_one() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]
allow = [
  "tpc/22",
  "icmp/3",
  "tcp/70000",
  "22/tcp",
]"#,
        ),
        &["bad_allow 10:3", "bad_allow 11:3", "bad_allow 12:3", "bad_allow 13:3"],
    );
}
