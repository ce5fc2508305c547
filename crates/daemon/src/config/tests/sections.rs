//! Errors in the values of `[interface]` or `[metrics]`, or in a key file, each with the text that the user sees.

use super::{refuses, warns, with_interface, with_peer};

#[test]
fn a_port_out_of_range_is_refused() {
    refuses(&with_interface("listen_port = 70000"), &["bad_port 5:15"]);
}

#[test]
fn an_mtu_out_of_range_is_refused() {
    refuses(&with_interface("mtu = 500"), &["bad_mtu 5:7"]);
}

#[test]
fn a_table_that_is_no_number_is_refused() {
    refuses(&with_interface(r#"table = "main""#), &["bad_value 5:9"]);
}

#[test]
fn a_mark_out_of_range_is_refused() {
    refuses(&with_interface("fwmark = -1"), &["bad_fwmark 5:10"]);
}

#[test]
fn a_way_of_naming_that_does_not_exist_is_refused() {
    refuses(&with_interface(r#"dns = "resolvconf""#), &["bad_value 5:7"]);
}

#[test]
fn a_way_of_naming_without_an_agent_has_no_effect() {
    for way in ["resolved", "hosts"] {
        warns(&with_interface(&format!("dns = \"{way}\"")), &["dns_without_agent 5:7"]);
    }
    for way in ["auto", "off"] {
        warns(&with_interface(&format!("dns = \"{way}\"")), &[]);
    }
}

#[test]
fn an_interface_name_that_is_too_long_is_refused() {
    refuses(
        r#"[interface]
name = "overlay-production"
private_key_file = "own.key"
addresses = ["10.77.0.1/24"]
"#,
        &["bad_interface_name 2:8"],
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
        &["bad_interface_name 2:8"],
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
        &["bad_interface_name 2:8"],
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
        &["missing_value 4:13"],
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
        &["bad_address 4:14", "bad_cidr 4:29", "duplicate_address 4:59"],
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
        &["bad_listen 7:10"],
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
        &["inline_secret 3:1"],
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
        &["inline_secret 9:1"],
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
        &["inline_secret 3:20"],
    );
}

#[test]
fn bad_syntax_beside_a_key_does_not_show_it() {
    refuses(
        r#"[interface]
private_key = YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=
"#,
        &["bad_toml 2:58"],
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
        &["key_file 3:20"],
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
        &["bad_key 3:20"],
    );
}
