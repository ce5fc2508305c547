//! Errors in the file itself: its syntax, its keys and their types.

use super::{refuses, with_interface, with_peer};

#[test]
fn bad_toml_is_shown_where_it_breaks() {
    refuses(
        &with_interface("mtu = 1420 bytes"),
        r#"
error[bad_toml]: a value must be a number, true, false, a list or a string in quotes
 --> lab.toml:5:7
  |
5 | mtu = 1420 bytes
  |       ^^^^^^^^^^
  |
  = hint: put a string into double quotes
"#,
    );
}

#[test]
fn every_line_with_bad_syntax_is_reported() {
    refuses(
        &with_interface(
            r#"mtu = "1420
forward = yes"#,
        ),
        r#"
error[bad_toml]: this string does not end where it should
 --> lab.toml:5:12
  |
5 | mtu = "1420
  |            ^
  |
  = hint: close it with the quote it began with

error[bad_toml]: a value must be a number, true, false, a list or a string in quotes
 --> lab.toml:6:11
  |
6 | forward = yes
  |           ^^^
  |
  = hint: put a string into double quotes
"#,
    );
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    refuses(
        &with_interface(
            r#"listen_port = 1
listen_port = 2"#,
        ),
        r#"
error[bad_toml]: `listen_port` stands twice in one table
 --> lab.toml:6:1
  |
6 | listen_port = 2
  | ^^^^^^^^^^^
  |
  = hint: remove one
"#,
    );
}

#[test]
fn a_peer_header_with_one_bracket_is_refused() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]

[peer]
name = "bob"
"#,
        r#"
error[wrong_type]: [peer] is one table; peers are a list of them
 --> lab.toml:6:1
  |
6 | [peer]
  | ^^^^^^
  |
  = hint: write [[peer]], with two brackets
"#,
    );
}

#[test]
fn a_second_interface_is_refused() {
    refuses(
        r#"[[interface]]
name = "overlay0"

[[interface]]
name = "overlay1"
"#,
        r#"
error[wrong_type]: there is only one [interface]
 --> lab.toml:1:1
  |
1 | [[interface]]
  | ^^^^^^^^^^^^^
  |
  = hint: write [interface] with one bracket, once
"#,
    );
}

#[test]
fn an_empty_file_is_refused() {
    refuses(
        "",
        r#"
error[missing_table]: there is no [interface]
 --> lab.toml:1:1
  |
1 |
  | ^
  |
  = hint: `overlay config init` writes a config to start from
"#,
    );
}

#[test]
fn a_wg_quick_config_is_recognised() {
    refuses(
        r#"[Interface]
PrivateKey = YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=
Address = 10.77.0.1/24
"#,
        r#"
error[wireguard_config]: this is a config of wg-quick, not one of overlay
 --> lab.toml:1:1
  |
1 | [Interface]
  | ^^^^^^^^^^^
  |
  = hint: `overlay import lab.toml` converts it
"#,
    );
}

#[test]
fn an_unknown_key_comes_with_a_suggestion() {
    refuses(
        &with_interface(r#"adress = ["10.77.0.1/24"]"#),
        r#"
error[unknown_key]: unknown key `adress` in [interface], did you mean `addresses`?
 --> lab.toml:5:1
  |
5 | adress = ["10.77.0.1/24"]
  | ^^^^^^
  |
  = hint: write `addresses`
"#,
    );
}

#[test]
fn a_key_in_the_spelling_of_wg_quick_comes_with_ours() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
AllowedIPs = "10.77.0.2/32"
allowed_ips = []"#,
        ),
        r#"
error[unknown_key]: unknown key `AllowedIPs` in [[peer]], did you mean `allowed_ips`?
 --> lab.toml:8:1
  |
8 | AllowedIPs = "10.77.0.2/32"
  | ^^^^^^^^^^
  |
  = hint: write `allowed_ips`
"#,
    );
}

#[test]
fn a_key_that_resembles_nothing_comes_with_all_there_are() {
    refuses(
        &with_interface(r#"colour = "blue""#),
        r#"
error[unknown_key]: unknown key `colour` in [interface]
 --> lab.toml:5:1
  |
5 | colour = "blue"
  | ^^^^^^
  |
  = hint: the keys of [interface] are `name`, `private_key_file`, `addresses`, `listen_port`, `mtu`, `forward`, `fwmark`, `table`, `dns`, `guard`
"#,
    );
}

#[test]
fn a_key_in_the_wrong_table_comes_with_the_right_one() {
    refuses(
        &with_interface(r#"endpoint = "203.0.113.7:51820""#),
        r#"
error[unknown_key]: unknown key `endpoint` in [interface]
 --> lab.toml:5:1
  |
5 | endpoint = "203.0.113.7:51820"
  | ^^^^^^^^
  |
  = hint: `endpoint` belongs in [[peer]]
"#,
    );
}

#[test]
fn a_key_before_the_first_table_comes_with_its_table() {
    refuses(
        r#"listen_port = 51820

[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
"#,
        r#"
error[unknown_key]: unknown key `listen_port` before the first table
 --> lab.toml:1:1
  |
1 | listen_port = 51820
  | ^^^^^^^^^^^
  |
  = hint: `listen_port` belongs in [interface]
"#,
    );
}

#[test]
fn an_unknown_table_comes_with_a_suggestion() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]

[[peers]]
name = "bob"
"#,
        r#"
error[unknown_key]: unknown table `peers`, did you mean [[peer]]?
 --> lab.toml:6:3
  |
6 | [[peers]]
  |   ^^^^^
  |
  = hint: write [[peer]]
"#,
    );
}

#[test]
fn a_command_of_wg_quick_is_refused_with_the_reason() {
    refuses(
        &with_interface(r#"PostUp = "iptables -A FORWARD -j ACCEPT""#),
        r#"
error[unknown_key]: unknown key `PostUp` in [interface]
 --> lab.toml:5:1
  |
5 | PostUp = "iptables -A FORWARD -j ACCEPT"
  | ^^^^^^
  |
  = hint: overlay runs no commands; a systemd unit can, with `ExecStartPost=`
"#,
    );
}

#[test]
fn agent_mode_is_refused_in_plain_words() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]

[agent]
name = "alice"
"#,
        r#"
error[unsupported]: agent mode is not available yet
 --> lab.toml:6:1
  |
6 | [agent]
  | ^^^^^^^
  |
  = hint: remove [agent] and write the peers as [[peer]]
"#,
    );
}

#[test]
fn missing_keys_are_all_named() {
    refuses(
        r#"[interface]
name = "overlay0"

[[peer]]
name = "bob"
"#,
        r#"
error[missing_key]: [interface] has no `private_key_file`
 --> lab.toml:1:1
  |
1 | [interface]
  | ^^^^^^^^^^^
  |
  = hint: write private_key_file = "/etc/overlay/overlay0.key"; `overlay key gen -o FILE` makes the file

error[missing_key]: [interface] has no `addresses`
 --> lab.toml:1:1
  |
1 | [interface]
  | ^^^^^^^^^^^
  |
  = hint: write addresses = ["10.77.0.1/24"], this host's virtual IP

error[missing_key]: [[peer]] has no `public_key`
 --> lab.toml:4:1
  |
4 | [[peer]]
  | ^^^^^^^^
  |
  = hint: write public_key = "..."; `overlay key pub < KEY_FILE` on the peer shows it

error[missing_key]: [[peer]] has no `allowed_ips`
 --> lab.toml:4:1
  |
4 | [[peer]]
  | ^^^^^^^^
  |
  = hint: write the peer's virtual IP, as allowed_ips = ["10.77.0.2/32"]
"#,
    );
}

#[test]
fn a_misspelled_key_is_not_missing_as_well() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_fiel = "own.key"
adress = ["10.77.0.1/24"]
"#,
        r#"
error[unknown_key]: unknown key `private_key_fiel` in [interface], did you mean `private_key_file`?
 --> lab.toml:3:1
  |
3 | private_key_fiel = "*******"
  | ^^^^^^^^^^^^^^^^
  |
  = hint: write `private_key_file`

error[unknown_key]: unknown key `adress` in [interface], did you mean `addresses`?
 --> lab.toml:4:1
  |
4 | adress = ["10.77.0.1/24"]
  | ^^^^^^
  |
  = hint: write `addresses`
"#,
    );
    refuses(
        "[interfaces]\nname = \"overlay0\"\n",
        r#"
error[unknown_key]: unknown table `interfaces`, did you mean [interface]?
 --> lab.toml:1:2
  |
1 | [interfaces]
  |  ^^^^^^^^^^
  |
  = hint: write [interface]
"#,
    );
}

#[test]
fn a_number_in_quotes_is_refused() {
    refuses(
        &with_interface(r#"listen_port = "51820""#),
        r#"
error[wrong_type]: `listen_port` must be a number, not a string
 --> lab.toml:5:15
  |
5 | listen_port = "51820"
  |               ^^^^^^^
  |
  = hint: write it without quotes: listen_port = 51820
"#,
    );
}

#[test]
fn a_list_without_brackets_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = "10.77.0.2/32, 10.77.1.0/24""#,
        ),
        r#"
error[wrong_type]: `allowed_ips` must be a list of strings, not a string
 --> lab.toml:8:15
  |
8 | allowed_ips = "10.77.0.2/32, 10.77.1.0/24"
  |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = hint: write each in quotes of its own: allowed_ips = ["10.77.0.2/32", "10.77.1.0/24"]
"#,
    );
}

#[test]
fn a_list_with_something_else_in_it_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32", 10]"#,
        ),
        r#"
error[wrong_type]: `allowed_ips` is a list of strings; this is a number
 --> lab.toml:8:32
  |
8 | allowed_ips = ["10.77.0.2/32", 10]
  |                                ^^
  |
  = hint: write each entry in quotes, as "10.77.0.2/32"
"#,
    );
}

#[test]
fn a_string_for_a_switch_is_refused() {
    refuses(
        &with_interface(r#"forward = "yes""#),
        r#"
error[wrong_type]: `forward` must be true or false, not a string
 --> lab.toml:5:11
  |
5 | forward = "yes"
  |           ^^^^^
  |
  = hint: write it without quotes: forward = true
"#,
    );
}

#[test]
fn true_for_a_word_is_refused() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]

[tuning]
udp_gso = false
scheduling = "fast"
"#,
        r#"
error[wrong_type]: `udp_gso` must be a string, not true or false
 --> lab.toml:7:11
  |
7 | udp_gso = false
  |           ^^^^^
  |
  = hint: write udp_gso = "off"

error[bad_value]: `scheduling` cannot be `fast`
 --> lab.toml:8:14
  |
8 | scheduling = "fast"
  |              ^^^^^^
  |
  = hint: write one of "default", "high", "realtime"
"#,
    );
}

#[test]
fn a_number_that_is_not_whole_is_refused() {
    refuses(
        &with_interface("mtu = 1.5\nlisten_port = 5e3"),
        r#"
error[wrong_type]: `mtu` must be a whole number, not a floating-point number
 --> lab.toml:5:7
  |
5 | mtu = 1.5
  |       ^^^
  |
  = hint: an MTU is "auto" or a number from 576 to 65535

error[wrong_type]: `listen_port` must be a whole number, not a floating-point number
 --> lab.toml:6:15
  |
6 | listen_port = 5e3
  |               ^^^
  |
  = hint: a port is a number from 0 to 65535
"#,
    );
}

#[test]
fn an_mtu_out_of_range_and_a_discovery_that_is_neither_are_refused() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
mtu = 575

[tuning]
mtu_discovery = "on?"
"#,
        r#"
error[bad_mtu]: `mtu` is 575, which is out of range
 --> lab.toml:5:7
  |
5 | mtu = 575
  |       ^^^
  |
  = hint: an MTU is "auto" or a number from 576 to 65535

error[bad_value]: `mtu_discovery` cannot be `on?`
 --> lab.toml:8:17
  |
8 | mtu_discovery = "on?"
  |                 ^^^^^
  |
  = hint: write one of "auto", "off"
"#,
    );
}
