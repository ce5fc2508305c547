//! What is wrong is said in words that a user can act on, with the exit code that a script can, and the host stays as it was.
//!
//! The messages are compared whole: they are part of the product. The many ways in which a config can be wrong are tested one by
//! one beside the parser; here stand those that a user meets first, and those that only a real system can show.

mod lab;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::footprint::Footprint;
use lab::{A, B, Finished, Host, Outside, Pair, SHORTLY, within};

const BOB: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const CAROL: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";

/// A config that would work. The key file is beside it.
const GOOD: &str = "\
[interface]
name = \"ovbad\"
private_key_file = \"private.key\"
addresses = [\"10.77.0.1/24\"]
listen_port = 51820

[[peer]]
name = \"bob\"
public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"
allowed_ips = [\"10.77.0.2/32\"]
";

/// A config with one thing wrong, and what is said about it.
struct Wrong {
    what: &'static str,
    config: String,
    cause: &'static str,
    hint: &'static str,
    /// The place in the file, as it is drawn above the three lines.
    place: &'static str,
}

#[test]
fn a_wrong_config_is_refused_with_its_place_its_reason_and_what_to_write() {
    let Some(pair) = Pair::new("wrong configs") else { return };
    let host = &pair.a;
    let before = Footprint::of(host);
    let mut otherwise = Vec::new();
    for wrong in wrong_configs() {
        host.write("overlay.toml", &wrong.config);
        let said = in_its_folder(host, "up overlay.toml");
        let Wrong { what, cause, hint, place, .. } = wrong;
        let lines = format!("\n\nerror: `overlay.toml` is not a valid config\ncause: {cause}\nhint: {hint}\n");
        let is_drawn = said.stderr.contains(&format!("--> overlay.toml:{place}\n"));
        if (said.code, said.stdout.as_str(), said.stderr.ends_with(&lines), is_drawn) != (5, "", true, true) {
            otherwise.push(format!("{what}: code {}\n{}{}", said.code, said.stdout, said.stderr));
        }
        // `config check` runs the same code, and `-d` says it before it detaches.
        for verb in ["config check overlay.toml", "up -d overlay.toml"] {
            let again = in_its_folder(host, verb);
            assert_eq!((again.code, again.stderr), (5, said.stderr.clone()), "{what}: {verb}");
        }
    }
    assert!(otherwise.is_empty(), "said otherwise than expected:\n{}", otherwise.join("\n"));
    before.assert_unchanged(host);
}

fn wrong_configs() -> Vec<Wrong> {
    let two = |second: &str| format!("{GOOD}\n[[peer]]\nname = \"carol\"\n{second}");
    vec![
        Wrong {
            what: "bad TOML",
            config: GOOD.replace("\"private.key\"", "\"private.key"),
            cause: "line 3: this string does not end where it should",
            hint: "close it with the quote it began with",
            place: "3:32",
        },
        Wrong {
            what: "unknown key",
            config: GOOD.replace("listen_port", "listen_prot"),
            cause: "line 5: unknown key `listen_prot` in [interface], did you mean `listen_port`?",
            hint: "write `listen_port`",
            place: "5:1",
        },
        Wrong {
            what: "bad CIDR",
            config: GOOD.replace("/24", "/33"),
            cause: "line 4: `10.77.0.1/33` is no prefix: an IPv4 prefix has a length from 0 to 32",
            hint: "write \"10.77.0.1/32\" for this address alone",
            place: "4:14",
        },
        Wrong {
            what: "a key that is too short",
            config: GOOD.replace(BOB, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D="),
            cause: "line 9: this public key has 43 characters; a key has 44",
            hint: "copy the whole key again; `overlay key pub < KEY_FILE` on the peer shows it",
            place: "9:14",
        },
        Wrong {
            what: "a key with a letter that is none",
            config: GOOD.replace(BOB, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D!="),
            cause: "line 9: this public key has a character at position 43 that base64 does not have",
            hint: "copy the whole key again; `overlay key pub < KEY_FILE` on the peer shows it",
            place: "9:14",
        },
        Wrong {
            what: "a low-order key",
            config: GOOD.replace(BOB, "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            cause: "line 9: this public key is a low-order point: the secrets derived from it would be known to everybody",
            hint: "nobody has such a key by chance: ask whoever gave it to you for the right one",
            place: "9:14",
        },
        Wrong {
            what: "duplicate peer",
            config: two(&format!("public_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.3/32\"]\n")),
            cause: "line 14: peers `bob` and `carol` have the same public key",
            hint: "every peer has a key of its own; merge the two or correct one key",
            place: "14:14",
        },
        Wrong {
            what: "equal allowed IPs",
            config: two(&format!("public_key = \"{CAROL}\"\nallowed_ips = [\"10.77.0.2/32\"]\n")),
            cause: "line 15: 10.77.0.2/32 belongs to both peers `bob` and `carol`",
            hint: "a prefix has one owner: remove it from one; a longer prefix inside a shorter one is fine",
            place: "15:16",
        },
        Wrong {
            what: "port out of range",
            config: GOOD.replace("51820", "70000"),
            cause: "line 5: `listen_port` is 70000, which is out of range",
            hint: "a port is a number from 0 to 65535",
            place: "5:15",
        },
        Wrong {
            what: "an MTU that no IPv4 host has to take",
            config: GOOD.replace("listen_port = 51820", "mtu = 575"),
            cause: "line 5: `mtu` is 575, which is out of range",
            hint: "an MTU is \"auto\" or a number from 576 to 65535",
            place: "5:7",
        },
        Wrong {
            what: "an MTU that no packet has",
            config: GOOD.replace("listen_port = 51820", "mtu = 65536"),
            cause: "line 5: `mtu` is 65536, which is out of range",
            hint: "an MTU is \"auto\" or a number from 576 to 65535",
            place: "5:7",
        },
        Wrong {
            what: "an MTU that is no whole number",
            config: GOOD.replace("listen_port = 51820", "mtu = 1.5"),
            cause: "line 5: `mtu` must be a whole number, not a floating-point number",
            hint: "an MTU is \"auto\" or a number from 576 to 65535",
            place: "5:7",
        },
        Wrong {
            what: "a word for the search of MTUs that is none",
            config: format!("{GOOD}\n[tuning]\nmtu_discovery = \"on?\"\n"),
            cause: "line 13: `mtu_discovery` cannot be `on?`",
            hint: "write one of \"auto\", \"off\"",
            place: "13:17",
        },
    ]
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let Some(pair) = Pair::new("no config") else { return };
    let said = in_its_folder(&pair.a, "up missing.toml");
    refused(
        &said,
        5,
        "there is no config `missing.toml`",
        None,
        "`overlay config init -o missing.toml` writes a commented one to start from",
    );
    let said = in_its_folder(&pair.a, "up nosuchname");
    refused(
        &said,
        5,
        "there is no config `/etc/overlay/nosuchname.toml`",
        None,
        "`overlay config init -o /etc/overlay/nosuchname.toml` writes a commented one to start from",
    );
}

#[test]
fn without_root_it_says_so_and_how_to_get_it() {
    let Some(pair) = Pair::new("no root") else { return };
    let host = &pair.a;
    let before = Footprint::of(host);
    let dir = folder_of_nobody(&pair);
    for (arguments, again) in [("up overlay.toml", "overlay.toml"), ("up -d overlay.toml", "-d overlay.toml")] {
        refused(
            &as_nobody(host, &dir, arguments),
            4,
            "creating a network interface needs root",
            Some("this process lacks the capability CAP_NET_ADMIN"),
            &format!("sudo overlay up {again}"),
        );
    }
    before.assert_unchanged(host);
}

#[test]
fn files_of_root_are_a_matter_of_permission_and_not_of_the_config() {
    let Some(pair) = Pair::new("files of root") else { return };
    let dir = folder_of_nobody(&pair);
    let shut = |file: &str| {
        chown(dir.join(file), Some(0), Some(0)).expect("our own file");
        fs::set_permissions(dir.join(file), fs::Permissions::from_mode(0o600)).expect("our own file");
        as_nobody(&pair.a, &dir, "config check overlay.toml")
    };
    let sudo = "run the same command with sudo";
    refused(&shut("private.key"), 4, "the key file `private.key` cannot be read: permission denied", None, sudo);
    refused(&shut("overlay.toml"), 4, "the config `overlay.toml` cannot be read: permission denied", None, sudo);
}

/// In a container, or in a unit that keeps few capabilities, root may not read everything.
#[test]
fn root_without_the_right_to_read_is_told_whose_the_file_is() {
    let Some(pair) = Pair::new("files of others") else { return };
    let host = &pair.a;
    let dir = folder_of_nobody(&pair);
    let check = || {
        let line = "setpriv --bounding-set=-dac_override,-dac_read_search ./overlay --runtime-dir run";
        finished(host.command(format!("{line} config check overlay.toml")).current_dir(&dir))
    };
    let whose = |mode: &str| {
        format!(
            "belongs to nobody and has mode {mode}; this process runs as root without the capability CAP_DAC_OVERRIDE"
        )
    };
    for file in ["private.key", "overlay.toml"] {
        fs::set_permissions(dir.join(file), fs::Permissions::from_mode(0o600)).expect("our own file");
        let kind = if file == "private.key" { "key file" } else { "config" };
        let error = format!("the {kind} `{file}` cannot be read: it {}", whose("0600"));
        refused(&check(), 4, &error, None, &format!("sudo chown root {file} && sudo chmod 600 {file}"));
    }
    // A command that helps, as the test shows by running it.
    for file in ["private.key", "overlay.toml"] {
        host.exec(["sh", "-c", &format!("cd {} && chown root {file} && chmod 600 {file}", dir.display())]);
    }
    assert_eq!(check().code, 0);

    // A folder that may not be entered.
    let shut = host.dir().join("shut");
    fs::create_dir(&shut).expect("a folder");
    fs::rename(dir.join("private.key"), shut.join("private.key")).expect("our own file");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).expect("our own folder");
    chown(&shut, Some(65534), Some(65534)).expect("we are root");
    let config = fs::read_to_string(dir.join("overlay.toml")).expect("our own file");
    let key = shut.join("private.key");
    fs::write(dir.join("overlay.toml"), config.replace("private.key", &key.display().to_string()))
        .expect("our own file");
    let error =
        format!("the key file `{}` cannot be read: the folder {} {}", key.display(), shut.display(), whose("0700"));
    let hint = "move the file into a folder that belongs to root, such as /etc/overlay";
    refused(&check(), 4, &error, None, hint);
}

#[test]
fn without_a_tun_device_it_says_what_is_missing() {
    let Some(pair) = Pair::new("no /dev/net/tun") else { return };
    let host = &pair.a;
    host.write("overlay.toml", GOOD);
    let before = Footprint::of(host);
    // An empty folder over /dev/net, in the mounts of this one command.
    let line = format!(
        "mount -t tmpfs tmpfs /dev/net; exec {} --runtime-dir {} up overlay.toml",
        env!("CARGO_BIN_EXE_overlay"),
        host.runtime_dir().display()
    );
    let said = finished(host.command(["sh", "-ec", &line]).current_dir(host.dir()));
    refused(
        &said,
        1,
        "/dev/net/tun is missing",
        Some("the kernel module `tun` is not loaded, or this container was not given the device"),
        "sudo modprobe tun; in a container: docker run --cap-add NET_ADMIN --device /dev/net/tun ...",
    );
    before.assert_unchanged(host);
}

#[test]
fn an_interface_that_exists_is_never_taken_over() {
    let Some(pair) = Pair::new("interface exists") else { return };
    let host = &pair.a;
    host.write("overlay.toml", GOOD);
    let kinds = [
        ("tuntap add dev ovbad mode tun", "a `tun` device"),
        ("link add ovbad type bridge", "a `bridge` device"),
        ("link add ovbad type veth peer name ovbad2", "a `veth` device"),
    ];
    for (make, kind) in kinds {
        host.ip(make);
        let before = Footprint::of(host);
        refused(
            &in_its_folder(host, "up overlay.toml"),
            9,
            "interface `ovbad` already exists",
            Some(&format!("it is {kind} that this daemon did not make, and none is ever taken over")),
            "sudo ip link delete ovbad, or set another `name` in overlay.toml",
        );
        before.assert_unchanged(host);
        host.ip("link delete ovbad");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let Some(pair) = Pair::new("port in use") else { return };
    let host = &pair.a;
    host.write("overlay.toml", GOOD);
    for occupant in ["UDP4-RECV:51820", "UDP6-RECV:51820,ipv6only=1"] {
        let socat = host.spawn(format!("socat -u {occupant} /dev/null"));
        within(SHORTLY, "the port to be taken", || (!host.exec("ss -Hlun sport = :51820").is_empty()).then_some(()));
        let before = Footprint::of(host);
        refused(
            &in_its_folder(host, "up overlay.toml"),
            9,
            "UDP port 51820 is already in use",
            Some("another process listens on it, perhaps another WireGuard"),
            "set another `listen_port` under [interface], or 0 to let the kernel choose",
        );
        before.assert_unchanged(host);
        drop(socat);
        within(SHORTLY, "the port to be free", || host.exec("ss -Hlun sport = :51820").is_empty().then_some(()));
    }
}

#[test]
fn an_address_or_route_of_another_device_is_not_taken() {
    let Some(pair) = Pair::new("address in use") else { return };
    let host = &pair.a;
    host.write("overlay.toml", GOOD);
    host.ip("address add 10.77.0.1/32 dev to-b");
    let before = Footprint::of(host);
    refused(
        &in_its_folder(host, "up overlay.toml"),
        9,
        "address 10.77.0.1 is already in use on `to-b`",
        Some("a virtual IP answers on its own interface only"),
        "give this host another address in overlay.toml, or: sudo ip address delete 10.77.0.1/32 dev to-b",
    );
    before.assert_unchanged(host);
    host.ip("address delete 10.77.0.1/32 dev to-b");

    host.ip("route add 10.77.0.0/24 via 10.1.0.2");
    let before = Footprint::of(host);
    refused(
        &in_its_folder(host, "up overlay.toml"),
        9,
        "a route to 10.77.0.0/24 already exists, through `to-b`",
        Some("the config sends the same prefix through the tunnel"),
        "choose addresses from another prefix in overlay.toml",
    );
    before.assert_unchanged(host);
}

#[test]
fn a_route_that_swallows_the_endpoint_is_refused_where_the_host_has_no_better_one() {
    let Some(pair) = Pair::new("endpoint in the tunnel") else { return };
    let host = &pair.a;
    let config = (GOOD.to_owned() + "endpoint = \"192.0.2.7:51820\"\n").replace("10.77.0.2/32", "192.0.2.0/24");
    host.write("overlay.toml", config);
    host.ip("route add default via 10.1.0.2");
    let before = Footprint::of(host);
    refused(
        &in_its_folder(host, "up overlay.toml"),
        5,
        "the way to the endpoint 192.0.2.7 of peer `bob` would lead into the tunnel",
        Some("no route of this host to it is more specific than the tunnel's own to 192.0.2.0/24"),
        "sudo ip route add 192.0.2.7/32 via 10.1.0.2 dev to-b; or take 192.0.2.7 out of the prefixes in overlay.toml",
    );
    before.assert_unchanged(host);
    // Without the host it cannot be known.
    let checked = in_its_folder(host, "config check overlay.toml");
    assert_eq!(checked.code, 0, "{checked:?}");
    let warning = "warning[endpoint_in_route]: the route to 192.0.2.0/24 covers the endpoint 192.0.2.7 of peer `bob`: unless \
                   the host has a more specific route, its packets go into the tunnel\n";
    assert!(checked.stderr.starts_with(warning), "{checked:?}");
    // What the hint says helps.
    host.ip("route add 192.0.2.7/32 via 10.1.0.2 dev to-b");
    let said = in_its_folder(host, "up -d overlay.toml");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(in_its_folder(host, "down").code, 0);
}

#[test]
fn the_second_up_of_a_config_leaves_the_first_alone() {
    let Some(pair) = Pair::new("second up") else { return };
    let (on_a, _on_b) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let before = Footprint::of(&pair.a);
    let name = pair.a.interface();
    let said = in_its_folder(&pair.a, "up overlay.toml");
    refused(
        &said,
        9,
        &format!("`{name}` is already running"),
        Some(&format!("process {} holds {}/{name}.lock", on_a.pid(), pair.a.runtime_dir().display())),
        &format!("sudo overlay reload {name}, or sudo overlay down {name} first"),
    );
    before.assert_unchanged(&pair.a);
    pair.b.reaches(A.v4);
    on_a.stop();
}

#[test]
fn with_json_an_error_is_one_object_on_stdout() {
    let Some(pair) = Pair::new("json errors") else { return };
    let said = in_its_folder(&pair.a, "--json up missing.toml");
    assert_eq!((said.code, said.stderr.as_str()), (5, ""));
    let object: serde_json::Value = serde_json::from_str(&said.stdout).expect("one object");
    for (key, value) in [("schema", "overlay.error.v1"), ("status", "error"), ("code", "config")] {
        assert_eq!(object[key], value, "{object:#}");
    }
    assert_eq!(object["message"], "there is no config `missing.toml`");
    assert_eq!(in_its_folder(&pair.a, "--json status").code, 3);
    assert_eq!(in_its_folder(&pair.a, "no-such-verb").code, 2);
}

#[test]
fn a_detached_daemon_that_loses_its_interface_says_so_once_and_in_its_log() {
    let Some(pair) = Pair::new("interface deleted") else { return };
    let host = &pair.a;
    let name = host.interface();
    host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let said = in_its_folder(host, "up -d overlay.toml");
    assert_eq!(said.code, 0, "{said:?}");
    host.ip(&format!("link delete {name}"));
    let socket = host.runtime_dir().join(format!("{name}.sock"));
    within(SHORTLY, "the daemon to end", || (!socket.exists()).then_some(()));
    let log =
        || fs::read_to_string(host.runtime_dir().join(format!("{name}.log"))).expect("a detached daemon has a log");
    // The last thing the process does, after its socket is gone.
    within(SHORTLY, "its log to say why", || log().contains("cannot be used any more").then_some(()));
    let log = log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("cannot be used any more")).collect();
    assert!(matches!(told[..], [line] if line.contains("ERROR")), "{log}");
}

#[test]
fn after_a_killed_daemon_the_way_to_clean_up_is_named() {
    let Some(pair) = Pair::new("killed") else { return };
    let host = &pair.a;
    let name = host.interface();
    host.overlay_up(&pair.config_of_a(Outside::V4)).kill9();
    refused(
        &in_its_folder(host, "status"),
        3,
        "no daemon is running",
        Some(&format!("that of `{name}` was killed, and what it added to this host is still there")),
        &format!("sudo overlay down {name}"),
    );
}

#[test]
fn a_config_that_broke_or_went_away_still_stands_for_its_daemon() {
    let Some(pair) = Pair::new("config gone") else { return };
    let host = &pair.a;
    let overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    fs::write(overlay.config(), "no toml at all [").expect("our own file");
    let said = in_its_folder(host, "reload ./overlay.toml");
    let lines: Vec<_> = said.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(
        (said.code, &lines[..]),
        (5, &["error: nothing was reloaded: the config in force before stays in force"][..])
    );
    let path = overlay.config();
    fs::remove_file(&path).expect("our own file");
    refused(
        &in_its_folder(host, "reload overlay.toml"),
        5,
        "nothing was reloaded: the config in force before stays in force",
        Some(&format!("there is no config `{}`", path.display())),
        &format!("`overlay config init -o {}` writes a commented one to start from", path.display()),
    );
    assert_eq!(overlay.status()["interface"]["config"], path.display().to_string());
    assert_eq!(in_its_folder(host, "down overlay.toml").code, 0);
    assert_eq!(overlay.finish_within(SHORTLY).code, 0);
}

#[test]
fn a_ping_that_cannot_be_answered_says_why() {
    let Some(pair) = Pair::new("ping") else { return };
    let host = &pair.a;
    let _overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    let hint = "overlay status shows the addresses of each peer";
    refused(&in_its_folder(host, "ping 10.77.0.9"), 6, "no peer has 10.77.0.9 in its allowed_ips", None, hint);
    let own = "no peer has 10.77.0.1 in its allowed_ips";
    refused(&in_its_folder(host, "ping 10.77.0.1"), 6, own, Some("it is this host's own address"), hint);

    let said = in_its_folder(host, "ping b -c 1 -W 0.2");
    let lines = "error: b (10.77.0.2) does not answer\n\
                 cause: its state is \"handshaking\", and there was no handshake with it\nhint: overlay status\n";
    assert!(said.code == 8 && said.stderr.ends_with(lines), "{said:?}");

    // The same runtime folder, seen from another namespace.
    let line = format!("{} --runtime-dir {} ping b -c 1", env!("CARGO_BIN_EXE_overlay"), host.runtime_dir().display());
    let said = pair.b.run(&line);
    let error = format!("error: interface `{}` is in another network namespace\n", host.interface());
    assert!(said.code == 6 && said.stderr.contains(&error), "{said:?}");
    let hint = said.stderr.lines().find_map(|line| line.strip_prefix("hint: sudo ")).expect("a command");
    let words = hint.replace("overlay ping", &line.replace(" b -c 1", ""));
    let said = pair.b.run(["sh", "-c", &format!("{words} -c 1 -W 0.2")]);
    assert!(said.stderr.contains("b (10.77.0.2) does not answer"), "the hint leads to where the daemon is: {said:?}");
}

#[test]
fn the_mtu_of_a_path_to_nobody_is_not_shown() {
    let Some(pair) = Pair::new("mtu of nobody") else { return };
    let host = &pair.a;
    let said = in_its_folder(host, "mtu");
    assert_eq!((said.code, said.stdout.as_str()), (3, ""), "no daemon: {said:?}");
    let _overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    let name = host.interface();
    let (peers, hint) = ("its peers are b", "overlay status");
    refused(&in_its_folder(host, "mtu eve"), 6, &format!("`{name}` has no peer `eve`"), Some(peers), hint);
    let hint = "overlay status shows the addresses of each peer";
    refused(&in_its_folder(host, "mtu 10.77.0.9"), 6, "no peer has 10.77.0.9 in its allowed_ips", None, hint);
    assert_eq!(in_its_folder(host, "mtu b -I nowhere").code, 3);
}

#[test]
fn a_checked_config_as_json_lists_its_problems_once() {
    let Some(pair) = Pair::new("check as json") else { return };
    pair.a.write("overlay.toml", GOOD.replace("listen_port", "listen_prot").replace("/24", "/33"));
    let said = in_its_folder(&pair.a, "--json config check overlay.toml");
    let object: serde_json::Value = serde_json::from_str(&said.stdout).expect("one object");
    let kinds: Vec<_> =
        object["problems"].as_array().expect("a list").iter().filter_map(|it| it["kind"].as_str()).collect();
    assert_eq!((said.code, kinds), (5, vec!["bad_cidr", "unknown_key"]));
    assert!(object.get("details").is_none(), "{object:#}");
}

/// A folder with the binary, a config and its key that belongs to nobody.
fn folder_of_nobody(pair: &Pair) -> PathBuf {
    let dir = pair.lab.dir().join("public");
    fs::create_dir(&dir).expect("a folder of our own");
    fs::copy(env!("CARGO_BIN_EXE_overlay"), dir.join("overlay")).expect("a copy of the binary");
    fs::write(dir.join("overlay.toml"), GOOD).expect("a file of our own");
    fs::copy(pair.a.private_key_file(), dir.join("private.key")).expect("a copy of the key");
    for path in [&dir, &dir.join("overlay.toml"), &dir.join("private.key")] {
        chown(path, Some(65534), Some(65534)).expect("our own file");
    }
    for path in [pair.lab.dir(), &dir, &dir.join("overlay")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
    }
    dir
}

/// A verb, run in that folder by the user nobody.
fn as_nobody(host: &Host, dir: &Path, arguments: &str) -> Finished {
    let line = "setpriv --reuid 65534 --regid 65534 --clear-groups ./overlay --runtime-dir run";
    finished(host.command(format!("{line} {arguments}")).current_dir(dir))
}

/// A verb, run in the host's folder so that messages hold relative paths.
fn in_its_folder(host: &Host, arguments: &str) -> Finished {
    finished(host.overlay_command(arguments).current_dir(host.dir()))
}

fn finished(command: &mut Command) -> Finished {
    command.output().expect("`ip` is installed").into()
}

/// Requires this exit code and these lines, and nothing else on either stream.
#[track_caller]
fn refused(said: &Finished, code: i32, error: &str, cause: Option<&str>, hint: &str) {
    let cause = cause.map(|cause| format!("cause: {cause}\n")).unwrap_or_default();
    assert_eq!(said.stderr, format!("error: {error}\n{cause}hint: {hint}\n"));
    assert_eq!((said.code, said.stdout.as_str()), (code, ""));
}
