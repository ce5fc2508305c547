//! Which lines become which changes, and which mistake is answered with which number.

use super::*;

/// Formats a change as text.
pub(in crate::uapi) fn text(change: &Change) -> String {
    let hex = |bytes: &[u8; 32]| format!("{:02x}..{:02x}", bytes[0], bytes[31]);
    match change {
        Change::PrivateKey(key) => format!("key {:?}", key.as_ref().map(|key| hex(&key.to_bytes()))),
        Change::ListenPort(port) => format!("port {port}"),
        Change::Fwmark(mark) => format!("mark {mark:?}"),
        Change::RemoveAllPeers => "no peers".to_owned(),
        Change::Peer(edit) => {
            let mut words = vec![format!("peer {}", hex(&edit.public_key.0))];
            words.extend(edit.update_only.then(|| "update only".to_owned()));
            words.extend(edit.remove.then(|| "remove".to_owned()));
            words.extend(edit.preshared_key.as_ref().map(|key| format!("psk {}", hex(key))));
            words.extend(edit.endpoint.map(|endpoint| format!("at {endpoint}")));
            words.extend(edit.persistent_keepalive.map(|seconds| format!("every {seconds}")));
            words.extend(edit.replace_allowed_ips.then(|| "instead".to_owned()));
            words.extend(edit.allowed_ips.iter().map(|change| match change {
                AllowedIpChange::Add(prefix) => format!("+{prefix}"),
                AllowedIpChange::Remove(prefix) => format!("-{prefix}"),
            }));
            words.join(" ")
        }
    }
}

/// Returns the result of these lines: the changes as text, and the number of the error.
fn outcome(lines: &[&str]) -> (Vec<String>, Option<i32>) {
    let mut settings = Settings::default();
    lines.iter().for_each(|line| settings.line(line.as_bytes()));
    let (changes, mistake) = settings.finish();
    (changes.iter().map(text).collect(), mistake)
}

fn hex(byte: &str) -> String {
    byte.repeat(32)
}

#[test]
fn every_key_of_the_device_and_of_a_peer_is_understood_in_order() {
    let (private, bob, carol, psk) = (hex("fF"), hex("bb"), hex("cc"), hex("dd"));
    let lines = [
        &format!("private_key={private}"),
        "listen_port=51820",
        "fwmark=4294967295",
        "replace_peers=true",
        &format!("public_key={bob}"),
        &format!("preshared_key={psk}"),
        "endpoint=203.0.113.7:51820",
        "persistent_keepalive_interval=25",
        "protocol_version=1",
        "replace_allowed_ips=true",
        "allowed_ip=10.77.0.2/32",
        "allowed_ip=fd77::1/64",
        "allowed_ip=-10.77.0.9/24",
        &format!("public_key={carol}"),
        "update_only=true",
        "endpoint=[2001:db8::7]:65535",
        &format!("public_key={bob}"),
        "remove=true",
    ];
    let expected = [
        "key Some(\"f8..7f\")",
        "port 51820",
        "mark Some(4294967295)",
        "no peers",
        "peer bb..bb psk dd..dd at 203.0.113.7:51820 every 25 instead +10.77.0.2/32 +fd77::/64 -10.77.0.0/24",
        "peer cc..cc update only at [2001:db8::7]:65535",
        "peer bb..bb remove",
    ];
    assert_eq!(outcome(&lines), (expected.map(str::to_owned).to_vec(), None));
}

#[test]
fn zeros_take_away() {
    let (zero, bob) = (hex("00"), hex("bb"));
    let lines = [
        &format!("private_key={zero}"),
        "fwmark=0",
        "listen_port=0",
        &format!("public_key={bob}"),
        &format!("preshared_key={zero}"),
        "persistent_keepalive_interval=0",
    ];
    let expected = ["key None", "mark None", "port 0", "peer bb..bb psk 00..00 every 0"];
    assert_eq!(outcome(&lines), (expected.map(str::to_owned).to_vec(), None));
}

#[test]
fn prefixes_that_came_before_their_replacement_do_not_come_back() {
    let bob = format!("public_key={}", hex("bb"));
    let lines = [&bob, "allowed_ip=10.0.0.0/8", "replace_allowed_ips=true", "allowed_ip=10.1.0.0/16"];
    assert_eq!(outcome(&lines).0, ["peer bb..bb instead +10.1.0.0/16"]);
}

#[test]
fn an_endpoint_may_name_a_link() {
    for zone in ["lo", "1"] {
        let bob = format!("public_key={}", hex("bb"));
        let lines = [&bob, &format!("endpoint=[fe80::7%{zone}]:51820")[..]];
        assert_eq!(outcome(&lines), (vec!["peer bb..bb at [fe80::7%1]:51820".to_owned()], None));
    }
}

#[test]
fn what_is_not_understood_ends_it_with_the_number_that_wireguard_go_answers() {
    let bob = format!("public_key={}", hex("bb"));
    let short = "ab".repeat(31);
    let device = [
        ("no equals sign", 71),
        ("", 71),
        ("private_key=", 22),
        (&format!("private_key={short}"), 22),
        (&format!("private_key={short}xx"), 22),
        (&format!("public_key={short}"), 22),
        (&format!("private_key={short}\u{e9}"), 22),
        ("listen_port=65536", 22),
        ("listen_port=+1", 22),
        ("listen_port=-1", 22),
        ("listen_port=", 22),
        ("fwmark=0x10", 22),
        ("fwmark=4294967296", 22),
        ("replace_peers=false", 22),
        ("preshared_key=00", 22),
        ("allowed_ip=10.0.0.0/8", 22),
        ("protocol_version=1", 22),
        ("hello=1", 22),
    ];
    for (line, number) in device {
        let (changes, mistake) = outcome(&["listen_port=7", line, "listen_port=8"]);
        assert_eq!((changes.len(), mistake), (1, Some(number)), "{line}");
    }
    let peer = [
        "remove=1",
        "update_only=yes",
        "replace_allowed_ips=",
        "endpoint=host.example.net:51820",
        "endpoint=203.0.113.7",
        "endpoint=2001:db8::7:51820",
        "endpoint=203.0.113.7:70000",
        "endpoint=[fe80::7%nobody-has-this]:51820",
        "endpoint=203.0.113.7%lo:51820",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=--10.0.0.0/8",
        "allowed_ip=+10.0.0.0/8",
        "allowed_ip=fd00::/129",
        "protocol_version=2",
        "listen_port=7",
        "private_key=",
        "last_handshake_time_sec=1",
    ];
    for line in peer {
        let lines = [&bob, "persistent_keepalive_interval=9", line, "persistent_keepalive_interval=8"];
        assert_eq!(outcome(&lines), (vec!["peer bb..bb every 9".to_owned()], Some(22)), "{line}");
    }
}

#[test]
fn bytes_that_are_no_text_are_a_mistake() {
    let mut settings = Settings::default();
    settings.line(b"listen_port=\xff");
    assert_eq!(settings.finish().1, Some(22));
}
