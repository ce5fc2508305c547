//! Errors in the file itself: its syntax, its keys and their types.

use super::{refuses, with_interface, with_peer};

#[test]
fn bad_toml_is_shown_where_it_breaks() {
    refuses(&with_interface("mtu = 1420 bytes"), &["bad_toml 5:7"]);
}

#[test]
fn every_line_with_bad_syntax_is_reported() {
    refuses(
        &with_interface(
            r#"mtu = "1420
forward = yes"#,
        ),
        &["bad_toml 5:12", "bad_toml 6:11"],
    );
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    refuses(
        &with_interface(
            r#"listen_port = 1
listen_port = 2"#,
        ),
        &["bad_toml 6:1"],
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
        &["wrong_type 6:1"],
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
        &["wrong_type 1:1"],
    );
}

#[test]
fn an_empty_file_is_refused() {
    refuses("", &["missing_table 1:1"]);
}

#[test]
fn a_wg_quick_config_is_recognised() {
    refuses(
        r#"[Interface]
PrivateKey = YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=
Address = 10.77.0.1/24
"#,
        &["wireguard_config 1:1"],
    );
}

#[test]
fn an_unknown_key_comes_with_a_suggestion() {
    refuses(&with_interface(r#"adress = ["10.77.0.1/24"]"#), &["unknown_key 5:1"]);
}

#[test]
fn a_key_in_the_spelling_of_wg_quick_comes_with_ours() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
AllowedIPs = "10.77.0.2/32"
allowed_ips = []"#,
        ),
        &["unknown_key 8:1"],
    );
}

#[test]
fn a_key_that_resembles_nothing_comes_with_all_there_are() {
    refuses(&with_interface(r#"colour = "blue""#), &["unknown_key 5:1"]);
}

#[test]
fn a_key_in_the_wrong_table_comes_with_the_right_one() {
    refuses(&with_interface(r#"endpoint = "203.0.113.7:51820""#), &["unknown_key 5:1"]);
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
        &["unknown_key 1:1"],
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
        &["unknown_key 6:3"],
    );
}

#[test]
fn a_command_of_wg_quick_is_refused_with_the_reason() {
    refuses(&with_interface(r#"PostUp = "iptables -A FORWARD -j ACCEPT""#), &["unknown_key 5:1"]);
}

#[test]
fn what_static_mode_needs_is_refused_in_agent_mode() {
    refuses(
        r#"[interface]
name = "overlay0"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]

[agent]
name = "alice"
"#,
        &["static_mode_only 3:20", "static_mode_only 4:13", "missing_key 6:1"],
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
        &["missing_key 1:1", "missing_key 1:1", "missing_key 4:1", "missing_key 4:1"],
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
        &["unknown_key 3:1", "unknown_key 4:1"],
    );
    refuses("[interfaces]\nname = \"overlay0\"\n", &["unknown_key 1:2"]);
}

#[test]
fn a_number_in_quotes_is_refused() {
    refuses(&with_interface(r#"listen_port = "51820""#), &["wrong_type 5:15"]);
}

#[test]
fn a_list_without_brackets_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = "10.77.0.2/32, 10.77.1.0/24""#,
        ),
        &["wrong_type 8:15"],
    );
}

#[test]
fn a_list_with_something_else_in_it_is_refused() {
    refuses(
        &with_peer(
            r#"public_key = "bNrSytzU5EOh5CHtr+uWYWxNQ82KJv8OOKFMaZmVgTE="
allowed_ips = ["10.77.0.2/32", 10]"#,
        ),
        &["wrong_type 8:32"],
    );
}

#[test]
fn a_string_for_a_switch_is_refused() {
    refuses(&with_interface(r#"forward = "yes""#), &["wrong_type 5:11"]);
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
        &["wrong_type 7:11", "bad_value 8:14"],
    );
}

#[test]
fn a_number_that_is_not_whole_is_refused() {
    refuses(&with_interface("mtu = 1.5\nlisten_port = 5e3"), &["wrong_type 5:7", "wrong_type 6:15"]);
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
        &["bad_mtu 5:7", "bad_value 8:17"],
    );
}
