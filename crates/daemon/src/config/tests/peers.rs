//! Errors in the values of a `[[peer]]`: each refusal with the exact text that the user sees.

use super::{refuses, with_peer};

#[test]
fn a_public_key_of_the_wrong_length_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE"
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        r#"
error[bad_key]: this public key has 43 characters; a key has 44
 --> lab.toml:7:14
  |
7 | public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE"
  |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: copy the whole key again; `overlay key pub < KEY_FILE` on the peer shows it
"#,
    );
}

#[test]
fn a_public_key_with_a_character_outside_base64_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHt!+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        r#"
error[bad_key]: this public key has a character at position 17 that base64 does not have
 --> lab.toml:7:14
  |
7 | public_key = "bNrSytzU5EOh5CHt!+uWYWxNQ82KJv8OOKFMaZmVgTE="
  |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: copy the whole key again; `overlay key pub < KEY_FILE` on the peer shows it
"#,
    );
}

#[test]
fn a_low_order_public_key_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA="
allowed_ips = ["10.77.0.2/32"]"#,
        ),
        r#"
error[low_order_key]: this public key is a low-order point: the secrets derived from it would be known to everybody
 --> lab.toml:7:14
  |
7 | public_key = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA="
  |              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: nobody has such a key by chance: ask whoever gave it to you for the right one
"#,
    );
}

#[test]
fn a_prefix_that_is_none_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/33", "10.77.0.300/32", "10.77.0.0/255.255.255.0"]"#,
        ),
        r#"
error[bad_cidr]: `10.77.0.2/33` is no prefix: an IPv4 prefix has a length from 0 to 32
 --> lab.toml:8:16
  |
8 | allowed_ips = ["10.77.0.2/33", "10.77.0.300/32", "10.77.0.0/255.255.255.0"]
  |                ^^^^^^^^^^^^^^
  |
  = hint: write "10.77.0.2/32" for this address alone

error[bad_cidr]: `10.77.0.300/32` is no prefix: `10.77.0.300` is no IP address
 --> lab.toml:8:32
  |
8 | allowed_ips = ["10.77.0.2/33", "10.77.0.300/32", "10.77.0.0/255.255.255.0"]
  |                                ^^^^^^^^^^^^^^^^
  |
  = hint: write an address and a length, as "10.77.0.2/32"

error[bad_cidr]: `10.77.0.0/255.255.255.0` has a netmask where a length belongs
 --> lab.toml:8:50
  |
8 | allowed_ips = ["10.77.0.2/33", "10.77.0.300/32", "10.77.0.0/255.255.255.0"]
  |                                                  ^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: write "10.77.0.0/24"
"#,
    );
}

#[test]
fn a_prefix_with_host_bits_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/24"]"#,
        ),
        r#"
error[host_bits]: 10.77.0.2/24 has host bits set
 --> lab.toml:8:16
  |
8 | allowed_ips = ["10.77.0.2/24"]
  |                ^^^^^^^^^^^^^^
  |
  = hint: write 10.77.0.0/24 for the whole network or 10.77.0.2/32 for this address alone
"#,
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
        r#"
error[bad_endpoint]: `203.0.113.7` has no port
 --> lab.toml:9:12
  |
9 | endpoint = "203.0.113.7"
  |            ^^^^^^^^^^^^^
  |
  = hint: write its UDP port after it: "203.0.113.7:51820"
"#,
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
        r#"
error[bad_endpoint]: `2001:db8::7:51820` is an IPv6 address without brackets, so that its port cannot be told from it
 --> lab.toml:9:12
  |
9 | endpoint = "2001:db8::7:51820"
  |            ^^^^^^^^^^^^^^^^^^^
  |
  = hint: write "[2001:db8::7]:51820"
"#,
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
        r#"
error[bad_endpoint]: the port of `bob.example.net:70000` is wrong: `70000` is more than 65535
 --> lab.toml:9:12
  |
9 | endpoint = "bob.example.net:70000"
  |            ^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: write a port from 1 to 65535: "bob.example.net:51820"
"#,
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
        r#"
error[bad_keepalive]: `persistent_keepalive` is 65536, which is out of range
 --> lab.toml:9:24
  |
9 | persistent_keepalive = 65536
  |                        ^^^^^
  |
  = hint: a keepalive in seconds is a number from 0 to 65535
"#,
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
        r#"
error[bad_name]: `my laptop` cannot be a peer's name
 --> lab.toml:7:8
  |
7 | name = "my laptop"
  |        ^^^^^^^^^^^
  |
  = hint: use letters, digits and `-_.`, as in "my-laptop"
"#,
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
        r#"
error[bad_allow]: `tpc/22` is no entry of `allow`: there is no protocol `tpc`
  --> lab.toml:10:3
   |
10 |   "tpc/22",
   |   ^^^^^^^^
   |
   = hint: did you mean "tcp/22"?

error[bad_allow]: `icmp/3`: icmp takes no port
  --> lab.toml:11:3
   |
11 |   "icmp/3",
   |   ^^^^^^^^
   |
   = hint: write "icmp"

error[bad_allow]: `tcp/70000` is no entry of `allow`: `70000` is more than 65535
  --> lab.toml:12:3
   |
12 |   "tcp/70000",
   |   ^^^^^^^^^^^
   |
   = hint: write a port or a range of them, as "tcp/22" or "tcp/8000-8010"; "tcp" is all ports

error[bad_allow]: `22/tcp` is no entry of `allow`: the protocol stands first
  --> lab.toml:13:3
   |
13 |   "22/tcp",
   |   ^^^^^^^^
   |
   = hint: did you mean "tcp/22"?
"#,
    );
}
