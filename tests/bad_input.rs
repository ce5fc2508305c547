//! What is wrong is said in words that a user can act on, with the exit code that a script can, and the host stays as it was.
//!
//! The messages are compared whole, with golden files: they are part of the product. The many ways in which a config can be wrong are tested one by
//! one beside the parser; here stand those that a user meets first, and those that only a real system can show.

mod lab;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::footprint::Footprint;
use lab::{A, B, Finished, Host, Outside, Pair, SHORTLY, within, words};

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

/// A config with one thing wrong.
struct Wrong {
    what: &'static str,
    /// What kind of problem it is, as `--json` has it.
    kind: &'static str,
    config: String,
    /// The place in the file, as it is drawn above the three lines.
    place: &'static str,
}

#[test]
fn a_wrong_config_is_refused_with_its_place_its_reason_and_what_to_write() {
    let Some(pair) = Pair::new("wrong configs") else { return };
    let host = &pair.a;
    let before = Footprint::of(host);
    for Wrong { what, kind, config, place } in wrong_configs() {
        host.write("overlay.toml", &config);
        let said = in_its_folder(host, "up overlay.toml");
        assert_eq!((said.code, said.stdout.as_str()), (5, ""), "{what}: {said:?}");
        let drawn = |text: &str| said.stderr.contains(text);
        assert!(
            drawn(&format!("error[{kind}]: ")) && drawn(&format!("--> overlay.toml:{place}\n")),
            "{what}: {said:?}"
        );
        let last: Vec<_> = said.stderr.rsplit("\n\n").next().into_iter().flat_map(str::lines).collect();
        let labels = ["error: ", "cause: ", "hint: "];
        let are_labelled = last.len() == 3 && last.iter().zip(labels).all(|(line, label)| line.starts_with(label));
        assert!(are_labelled, "{what}: {said:?}");
        host.golden(what, &said.stderr);
        // `config check` runs the same code, and `-d` says it before it detaches.
        for verb in ["config check overlay.toml", "up -d overlay.toml"] {
            let again = in_its_folder(host, verb);
            assert_eq!((again.code, again.stderr), (5, said.stderr.clone()), "{what}: {verb}");
        }
    }
    before.assert_unchanged(host);
}

fn wrong_configs() -> Vec<Wrong> {
    let two = |second: &str| format!("{GOOD}\n[[peer]]\nname = \"carol\"\n{second}");
    vec![
        Wrong {
            what: "bad TOML",
            kind: "bad_toml",
            config: GOOD.replace("\"private.key\"", "\"private.key"),
            place: "3:32",
        },
        Wrong {
            what: "unknown key",
            kind: "unknown_key",
            config: GOOD.replace("listen_port", "listen_prot"),
            place: "5:1",
        },
        Wrong { what: "bad CIDR", kind: "bad_cidr", config: GOOD.replace("/24", "/33"), place: "4:14" },
        Wrong {
            what: "a key that is too short",
            kind: "bad_key",
            config: GOOD.replace(BOB, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D="),
            place: "9:14",
        },
        Wrong {
            what: "a key with a letter that base64 does not have",
            kind: "bad_key",
            config: GOOD.replace(BOB, "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D!="),
            place: "9:14",
        },
        Wrong {
            what: "a low-order key",
            kind: "low_order_key",
            config: GOOD.replace(BOB, "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            place: "9:14",
        },
        Wrong {
            what: "duplicate peer",
            kind: "duplicate_key",
            config: two(&format!("public_key = \"{BOB}\"\nallowed_ips = [\"10.77.0.3/32\"]\n")),
            place: "14:14",
        },
        Wrong {
            what: "equal allowed IPs",
            kind: "duplicate_allowed_ip",
            config: two(&format!("public_key = \"{CAROL}\"\nallowed_ips = [\"10.77.0.2/32\"]\n")),
            place: "15:16",
        },
        Wrong { what: "port out of range", kind: "bad_port", config: GOOD.replace("51820", "70000"), place: "5:15" },
        Wrong {
            what: "an MTU that no IPv4 host has to take",
            kind: "bad_mtu",
            config: GOOD.replace("listen_port = 51820", "mtu = 575"),
            place: "5:7",
        },
        Wrong {
            what: "an MTU that no packet has",
            kind: "bad_mtu",
            config: GOOD.replace("listen_port = 51820", "mtu = 65536"),
            place: "5:7",
        },
        Wrong {
            what: "an MTU that is not a whole number",
            kind: "wrong_type",
            config: GOOD.replace("listen_port = 51820", "mtu = 1.5"),
            place: "5:7",
        },
        Wrong {
            what: "a wrong word for the MTU search",
            kind: "bad_value",
            config: format!("{GOOD}\n[tuning]\nmtu_discovery = \"on?\"\n"),
            place: "13:17",
        },
    ]
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let Some(pair) = Pair::new("no config") else { return };
    let said = in_its_folder(&pair.a, "up missing.toml");
    refused(&pair.a, "up missing.toml", &said, 5, "overlay config init -o missing.toml");
    let said = in_its_folder(&pair.a, "up nosuchname");
    refused(&pair.a, "up nosuchname", &said, 5, "overlay config init -o /etc/overlay/nosuchname.toml");
}

#[test]
fn without_root_it_says_so_and_how_to_get_it() {
    let Some(pair) = Pair::new("no root") else { return };
    let host = &pair.a;
    let before = Footprint::of(host);
    let dir = folder_of_nobody(&pair);
    for (arguments, again) in [("up overlay.toml", "overlay.toml"), ("up -d overlay.toml", "-d overlay.toml")] {
        refused(host, arguments, &as_nobody(host, &dir, arguments), 4, &format!("sudo overlay up {again}"));
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
    for file in ["private.key", "overlay.toml"] {
        refused(&pair.a, file, &shut(file), 4, "sudo");
    }
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
    for file in ["private.key", "overlay.toml"] {
        fs::set_permissions(dir.join(file), fs::Permissions::from_mode(0o600)).expect("our own file");
        refused(host, file, &check(), 4, &format!("sudo chown root {file} && sudo chmod 600 {file}"));
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
    refused(host, "a folder", &check(), 4, "/etc/overlay");
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
    refused(host, "up overlay.toml", &said, 1, "sudo modprobe tun");
    before.assert_unchanged(host);
}

#[test]
fn an_interface_that_exists_is_never_taken_over() {
    let Some(pair) = Pair::new("interface exists") else { return };
    let host = &pair.a;
    host.write("overlay.toml", GOOD);
    let kinds =
        ["tuntap add dev ovbad mode tun", "link add ovbad type bridge", "link add ovbad type veth peer name ovbad2"];
    for make in kinds {
        host.ip(make);
        let before = Footprint::of(host);
        refused(host, make, &in_its_folder(host, "up overlay.toml"), 9, "sudo ip link delete ovbad");
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
        refused(host, occupant, &in_its_folder(host, "up overlay.toml"), 9, "`listen_port`");
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
    let hint = "sudo ip address delete 10.77.0.1/32 dev to-b";
    refused(host, "an address", &in_its_folder(host, "up overlay.toml"), 9, hint);
    before.assert_unchanged(host);
    host.ip("address delete 10.77.0.1/32 dev to-b");

    host.ip("route add 10.77.0.0/24 via 10.1.0.2");
    let before = Footprint::of(host);
    refused(host, "a route", &in_its_folder(host, "up overlay.toml"), 9, "overlay.toml");
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
    let helps = "ip route add 192.0.2.7/32 via 10.1.0.2 dev to-b";
    refused(host, "up overlay.toml", &in_its_folder(host, "up overlay.toml"), 5, &format!("sudo {helps}"));
    before.assert_unchanged(host);
    // Without the host it cannot be known.
    let checked = in_its_folder(host, "config check overlay.toml");
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stderr.starts_with("warning[endpoint_in_route]: "), "{checked:?}");
    host.golden("config check overlay.toml", &checked.stderr);
    // What the hint says helps.
    host.exec(helps);
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
    assert!(said.stderr.contains(&format!(" {} ", on_a.pid())), "{said:?}");
    refused(&pair.a, "up overlay.toml", &said, 9, &format!("sudo overlay reload {name}"));
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
    pair.a.golden("--json up missing.toml", object["message"].as_str().expect("a message"));
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
    within(SHORTLY, "its log to say why", || log().contains(words::CANNOT_GO_ON).then_some(()));
    let log = log();
    let told: Vec<_> = log.lines().filter(|line| line.contains(words::CANNOT_GO_ON)).collect();
    assert!(matches!(told[..], [line] if line.contains("ERROR")), "{log}");
}

#[test]
fn after_a_killed_daemon_the_way_to_clean_up_is_named() {
    let Some(pair) = Pair::new("killed") else { return };
    let host = &pair.a;
    let name = host.interface();
    host.overlay_up(&pair.config_of_a(Outside::V4)).kill9();
    refused(host, "status", &in_its_folder(host, "status"), 3, &format!("sudo overlay down {name}"));
}

#[test]
fn a_config_that_broke_or_went_away_still_stands_for_its_daemon() {
    let Some(pair) = Pair::new("config gone") else { return };
    let host = &pair.a;
    let overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    fs::write(overlay.config(), "no toml at all [").expect("our own file");
    let said = in_its_folder(host, "reload ./overlay.toml");
    let errors = said.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!((said.code, errors), (5, 1), "{said:?}");
    host.golden("a config that broke", &said.stderr);
    let path = overlay.config();
    fs::remove_file(&path).expect("our own file");
    let hint = format!("overlay config init -o {}", path.display());
    refused(host, "a config that went away", &in_its_folder(host, "reload overlay.toml"), 5, &hint);
    assert_eq!(overlay.status()["interface"]["config"], path.display().to_string());
    assert_eq!(in_its_folder(host, "down overlay.toml").code, 0);
    assert_eq!(overlay.finish_within(SHORTLY).code, 0);
}

#[test]
fn a_ping_that_cannot_be_answered_says_why() {
    let Some(pair) = Pair::new("ping") else { return };
    let host = &pair.a;
    let _overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    for verb in ["ping 10.77.0.9", "ping 10.77.0.1"] {
        refused(host, verb, &in_its_folder(host, verb), 6, "overlay status");
    }
    let said = in_its_folder(host, "ping b -c 1 -W 0.2");
    assert_eq!(said.code, 8, "{said:?}");
    host.golden("ping b", &said.stderr);

    // The same runtime folder, seen from a different namespace.
    let line = format!("{} --runtime-dir {} ping b -c 1", env!("CARGO_BIN_EXE_overlay"), host.runtime_dir().display());
    let said = pair.b.run(&line);
    assert_eq!(said.code, 6, "{said:?}");
    host.golden("ping b, elsewhere", &said.stderr);
    let hint = said.stderr.lines().find_map(|line| line.strip_prefix("hint: sudo ")).expect("a command");
    let words = hint.replace("overlay ping", &line.replace(" b -c 1", ""));
    let said = pair.b.run(["sh", "-c", &format!("{words} -c 1 -W 0.2")]);
    assert_eq!(said.code, 8, "the hint leads to where the daemon is: {said:?}");
    host.golden("ping b, by the hint", &said.stderr);
}

#[test]
fn the_mtu_of_a_path_to_nobody_is_not_shown() {
    let Some(pair) = Pair::new("mtu of nobody") else { return };
    let host = &pair.a;
    let said = in_its_folder(host, "mtu");
    assert_eq!((said.code, said.stdout.as_str()), (3, ""), "no daemon: {said:?}");
    let _overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    for verb in ["mtu eve", "mtu 10.77.0.9"] {
        refused(host, verb, &in_its_folder(host, verb), 6, "overlay status");
    }
    assert_eq!(in_its_folder(host, "mtu b -I nowhere").code, 3);
}

#[test]
fn a_daemon_in_static_mode_has_no_agent_to_ask() {
    let Some(pair) = Pair::new("no agent") else { return };
    let host = &pair.a;
    assert_eq!(in_its_folder(host, "pending").code, 3, "no daemon");
    let _overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    for verb in [
        "pending",
        "agents",
        "find",
        "whois bob",
        "ip bob",
        "handshake bob",
        "approve bob",
        "reject bob",
        "untrust bob",
    ] {
        let said = in_its_folder(host, verb);
        assert_eq!((said.code, said.stdout.as_str()), (5, ""), "{verb}: {said:?}");
    }
    refused(host, "ip bob", &in_its_folder(host, "ip bob"), 5, "[agent]");
    // What is wrong on the command line is refused before anybody is asked.
    assert_eq!(in_its_folder(host, "approve bob --allow all").code, 2);
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

/// Requires this exit code, a hint with this command in it, the words of the golden file, and nothing else on either stream.
#[track_caller]
fn refused(host: &Host, what: &str, said: &Finished, code: i32, hint: &str) {
    assert_eq!((said.code, said.stdout.as_str()), (code, ""), "{said:?}");
    let told = said.stderr.lines().find_map(|line| line.strip_prefix("hint: "));
    assert!(told.is_some_and(|told| told.contains(hint)), "`{hint}` in {said:?}");
    host.golden(what, &said.stderr);
}
