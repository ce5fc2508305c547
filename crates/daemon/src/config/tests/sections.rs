//! Errors in the values of `[interface]` or `[metrics]`, or in a key file, each with the text that the user sees.

use super::{refuses, with_interface, with_peer};

#[test]
fn a_port_out_of_range_is_refused() {
    refuses(
        &with_interface("listen_port = 70000"),
        r#"
error[bad_port]: `listen_port` is 70000, which is out of range
 --> lab.toml:5:15
  |
5 | listen_port = 70000
  |               ^^^^^
  |
  = hint: a port is a number from 0 to 65535
"#,
    );
}

#[test]
fn an_mtu_out_of_range_is_refused() {
    refuses(
        &with_interface("mtu = 500"),
        r#"
error[bad_mtu]: `mtu` is 500, which is out of range
 --> lab.toml:5:7
  |
5 | mtu = 500
  |       ^^^
  |
  = hint: an MTU is "auto" or a number from 576 to 65535
"#,
    );
}

#[test]
fn a_table_that_is_no_number_is_refused() {
    refuses(
        &with_interface(r#"table = "main""#),
        r#"
error[bad_value]: `table` cannot be `main`
 --> lab.toml:5:9
  |
5 | table = "main"
  |         ^^^^^^
  |
  = hint: write "auto", "off" or the number of a routing table
"#,
    );
}

#[test]
fn a_mark_out_of_range_is_refused() {
    refuses(
        &with_interface("fwmark = -1"),
        r#"
error[bad_fwmark]: `fwmark` is -1, which is out of range
 --> lab.toml:5:10
  |
5 | fwmark = -1
  |          ^^
  |
  = hint: a mark is a number from 0 to 4294967295
"#,
    );
}

#[test]
fn ways_of_naming_that_do_not_exist_yet_are_refused() {
    refuses(
        &with_interface(r#"dns = "resolved""#),
        r#"
error[unsupported]: dns = "resolved" is not available yet
 --> lab.toml:5:7
  |
5 | dns = "resolved"
  |       ^^^^^^^^^^
  |
  = hint: write "auto" or "off"
"#,
    );
}

#[test]
fn an_interface_name_that_is_too_long_is_refused() {
    refuses(
        r#"[interface]
name = "overlay-production"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[bad_interface_name]: `overlay-production` has 18 characters; an interface's name has at most 15
 --> lab.toml:2:8
  |
2 | name = "overlay-production"
  |        ^^^^^^^^^^^^^^^^^^^^
  |
  = hint: shorten it, for example to "overlay-product"
"#,
    );
}

#[test]
fn an_interface_name_with_a_slash_is_refused() {
    refuses(
        r#"[interface]
name = "overlay/0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[bad_interface_name]: `overlay/0` cannot be an interface's name: it has `/` in it
 --> lab.toml:2:8
  |
2 | name = "overlay/0"
  |        ^^^^^^^^^^^
  |
  = hint: use letters, digits and `_=+.-`, as in "overlay-0"
"#,
    );
}

#[test]
fn an_interface_name_with_a_blank_is_refused() {
    refuses(
        r#"[interface]
name = "my overlay"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[bad_interface_name]: `my overlay` cannot be an interface's name: it has a blank in it
 --> lab.toml:2:8
  |
2 | name = "my overlay"
  |        ^^^^^^^^^^^^
  |
  = hint: use letters, digits and `_=+.-`, as in "my-overlay"
"#,
    );
}

#[test]
fn an_interface_without_addresses_is_refused() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = []
"#,
        r#"
error[missing_value]: `addresses` is empty
 --> lab.toml:4:13
  |
4 | addresses = []
  |             ^^
  |
  = hint: write this host's virtual IP, as addresses = ["10.77.0.1/24"]
"#,
    );
}

#[test]
fn addresses_that_cannot_be_a_hosts_are_refused() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["127.0.0.1/8", "10.77.0/24", "10.77.0.1/24", "10.77.0.1/32"]
"#,
        r#"
error[bad_address]: `127.0.0.1/8` cannot be a virtual IP: it is a loopback address
 --> lab.toml:4:14
  |
4 | addresses = ["127.0.0.1/8", "10.77.0/24", "10.77.0.1/24", "10.77.0.1/32"]
  |              ^^^^^^^^^^^^^
  |
  = hint: use an address of a private range, for example "10.77.0.1/24"

error[bad_cidr]: `10.77.0/24` is no prefix: `10.77.0` is no IP address
 --> lab.toml:4:29
  |
4 | addresses = ["127.0.0.1/8", "10.77.0/24", "10.77.0.1/24", "10.77.0.1/32"]
  |                             ^^^^^^^^^^^^
  |
  = hint: write an address and a length, as "10.77.0.1/24"

error[duplicate_address]: the address 10.77.0.1 stands twice in `addresses`
 --> lab.toml:4:59
  |
4 | addresses = ["127.0.0.1/8", "10.77.0/24", "10.77.0.1/24", "10.77.0.1/32"]
  |                                           --------------  ^^^^^^^^^^^^^^
  |                                           |
  |                                           first here
  |
  = hint: remove one
"#,
    );
}

#[test]
fn metrics_without_an_address_are_refused() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]

[metrics]
listen = ":9586"
"#,
        r#"
error[bad_listen]: `:9586` is not an address and a port
 --> lab.toml:7:10
  |
7 | listen = ":9586"
  |          ^^^^^^^
  |
  = hint: write the address before it: "127.0.0.1:9586"
"#,
    );
}

#[test]
fn a_private_key_in_the_config_is_refused_and_not_shown() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key = "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE="
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[inline_secret]: `private_key` stands in the config itself; a secret belongs in a file
 --> lab.toml:3:1
  |
3 | private_key = "********************************************"
  | ^^^^^^^^^^^
  |
  = hint: put it into a file with mode 0600 and write private_key_file = "PATH"
"#,
    );
}

#[test]
fn a_preshared_key_in_the_config_is_refused_and_not_shown() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32"]
preshared_key = "XLDg27A/60RZhnh2DjnlZ9FXgcQOV4iko8XKaOJWMxw=""#,
        ),
        r#"
error[inline_secret]: `preshared_key` stands in the config itself; a secret belongs in a file
 --> lab.toml:9:1
  |
9 | preshared_key = "********************************************"
  | ^^^^^^^^^^^^^
  |
  = hint: put it into a file with mode 0600 and write preshared_key_file = "PATH"
"#,
    );
}

#[test]
fn a_key_in_place_of_its_file_is_refused_and_not_shown() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE="
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[inline_secret]: `private_key_file` is a key, not the name of a file
 --> lab.toml:3:20
  |
3 | private_key_file = "********************************************"
  |                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: put the key into a file with mode 0600 and write private_key_file = "PATH"
"#,
    );
}

#[test]
fn bad_syntax_beside_a_key_does_not_show_it() {
    refuses(
        r#"[interface]
private_key = YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=
"#,
        r#"
error[bad_toml]: this is not valid TOML: unexpected key or value, expected newline, `#`
 --> lab.toml:2:58
  |
2 | private_key = ********************************************
  |                                                          ^
"#,
    );
}

#[test]
fn a_missing_key_file_is_named() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "/etc/overlay/none.key"
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[key_file]: there is no key file `/etc/overlay/none.key`
 --> lab.toml:3:20
  |
3 | private_key_file = "/etc/overlay/none.key"
  |                    ^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: `overlay key gen -o /etc/overlay/none.key` makes one
"#,
    );
}

#[test]
fn a_bad_key_file_is_described_and_not_shown() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "bad.key"
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[bad_key]: the key in `bad.key` has 11 characters; a key has 44
 --> lab.toml:3:20
  |
3 | private_key_file = "bad.key"
  |                    ^^^^^^^^^
  |
  = hint: the file holds one key and nothing else; `overlay key gen` makes one
"#,
    );
}
