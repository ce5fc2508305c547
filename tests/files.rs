//! Files that root follows: the obstacles that an ordinary user can create for a daemon, and the names in a forged
//! journal.
//!
//! Every test requires the same two things: root touches nothing that is not its own, and says what to do instead.

mod lab;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Finished, Host, Outside, Pair, SHORTLY, within};
use serde_json::json;

/// The user `nobody`, who stands for all users except root.
const NOBODY: u32 = 65_534;
const PRECIOUS: &str = "nobody else may touch this\n";

#[test]
fn a_runtime_folder_of_another_user_is_refused() {
    let Some(pair) = Pair::new("folder of another user") else { return };
    let host = &pair.a;
    let victim = host.write("victim", PRECIOUS);
    let folder = host.runtime_dir();
    fs::create_dir(&folder).expect("a folder");
    symlink(&victim, folder.join(format!("{}.lock", host.interface()))).expect("a link");
    forge(host, &json!({ "sockets": [victim] }));
    own(&folder, NOBODY);

    let down = host.overlay(format!("down {}", host.interface()));
    for (verb, said) in [("up", up(&pair)), ("up -d", up_in_background(&pair)), ("down", down)] {
        assert_eq!(said.code, 4, "{said:?}");
        assert_eq!(fs::read_to_string(&victim).expect("it is still there"), PRECIOUS);
        assert!(said.stderr.contains(&format!("sudo chown root:root {}\n", folder.display())), "{said:?}");
        host.golden(verb, &said.stderr);
    }
    assert!(!folder.join(format!("{}.log", host.interface())).exists(), "not even a log is written there");
}

#[test]
fn root_does_not_run_a_daemon_in_the_folder_of_the_service() {
    const SERVICE: u32 = 4_242;
    let Some(pair) = Pair::new("folder of the service") else { return };
    let host = &pair.a;
    let name = host.interface();
    let folder = host.runtime_dir().join(name);
    fs::create_dir_all(&folder).expect("a folder");
    own(&folder, SERVICE);
    // The user exists only in the mount namespace of the command.
    let known = fs::read_to_string("/etc/passwd").expect("users");
    let known: String = known.lines().filter(|line| !line.starts_with("overlayd:")).map(|l| format!("{l}\n")).collect();
    let users = host.write("passwd", known + &format!("overlayd:x:{SERVICE}:{SERVICE}::/:/bin/false\n"));
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let program = lab::host::overlay_program();
    let overlay = |arguments: &str| {
        let (users, program, run) = (users.display(), program.display(), host.runtime_dir());
        let run = run.display();
        let line =
            format!("mount --bind {users} /etc/passwd && exec timeout 3 {program} --runtime-dir {run} {arguments}");
        host.run(["sh", "-c", &line])
    };
    for verb in ["up", "up -d"] {
        let said = overlay(&format!("{verb} {}", config.display()));
        assert_eq!(said.code, 9, "{said:?}");
        assert!(said.stderr.contains(&format!("hint: sudo systemctl start overlay@{name}\n")), "{said:?}");
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0, "nothing was written there");
    }
    let said = overlay(&format!("down {name}"));
    assert_eq!(said.code, 3, "root still cleans up what a killed service left: {said:?}");
}

#[test]
fn so_is_one_that_others_may_write_to_and_one_below_a_folder_of_theirs() {
    let Some(pair) = Pair::new("folder for everybody") else { return };
    let host = &pair.a;
    let folder = host.runtime_dir();
    fs::create_dir(&folder).expect("a folder");
    for mode in [0o775, 0o757, 0o1777] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("our own folder");
        let said = up(&pair);
        assert_eq!(said.code, 4, "{mode:o}: {said:?}");
        assert!(said.stderr.contains(&format!("sudo chmod go-w {}\n", folder.display())), "{said:?}");
        host.golden(format!("mode {mode:o}"), &said.stderr);
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");

    let theirs = host.dir().join("theirs");
    fs::create_dir(&theirs).expect("a folder");
    own(&theirs, NOBODY);
    let ours = theirs.join("run");
    fs::create_dir(&ours).expect("a folder");
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let said = host.run(format!(
        "{} --runtime-dir {} up {}",
        lab::host::overlay_program().display(),
        ours.display(),
        config.display()
    ));
    assert_eq!(said.code, 4, "{said:?}");
    host.golden("below a folder of theirs", &said.stderr);
    assert_eq!(fs::read_dir(&ours).expect("a folder").count(), 0, "nothing was written there");
}

#[test]
fn a_link_or_a_pipe_in_the_place_of_a_runtime_file_is_not_followed() {
    let Some(pair) = Pair::new("links and pipes") else { return };
    let host = &pair.a;
    let folder = host.runtime_dir();
    fs::create_dir(&folder).expect("a folder");
    let victim = host.write("victim", PRECIOUS);
    for extension in ["lock", "state", "state.tmp", "log"] {
        let path = folder.join(format!("{}.{extension}", host.interface()));
        for kind in ["link", "hard link", "pipe", "file of another user"] {
            match kind {
                "link" => symlink(&victim, &path).expect("a link"),
                "hard link" => fs::hard_link(&victim, &path).expect("a link"),
                "pipe" => drop(host.exec(format!("mkfifo {}", path.display()))),
                _ => {
                    fs::write(&path, "{}").expect("a file");
                    own(&path, NOBODY);
                }
            }
            let said = if extension == "log" { up_in_background(&pair) } else { up(&pair) };
            assert_eq!(fs::read_to_string(&victim).expect("it is still there"), PRECIOUS, "{extension}: {kind}");
            // This file is only ever replaced, so a foreign one need not be refused.
            if extension == "state.tmp" {
                assert_eq!(said.code, 124, "it runs until its time is over: {kind}: {said:?}");
            } else {
                assert_eq!(said.code, 4, "{extension}: {kind}: {said:?}");
                assert!(said.stderr.contains(&format!("sudo rm {}\n", path.display())), "{kind}: {said:?}");
                host.golden(format!("{extension}: {kind}"), &said.stderr);
            }
            let _ = fs::remove_file(&path);
        }
    }
}

#[test]
fn nobody_but_root_can_hold_the_lock_of_a_killed_daemon() {
    let Some(pair) = Pair::new("lock") else { return };
    let host = &pair.a;
    open_up(&pair);
    host.overlay_up(&pair.config_of_a(Outside::V4)).kill9();
    let lock = host.runtime_dir().join(format!("{}.lock", host.interface()));
    assert!(lock.exists(), "else this shows nothing");
    let as_nobody = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups");
    let held = host.run(format!("{as_nobody} flock --nonblock --shared {} true", lock.display()));
    assert_ne!(held.code, 0, "an ordinary user took the lock: {held:?}");
    assert_eq!(fs::metadata(&lock).expect("it is there").permissions().mode() & 0o7777, 0o600);

    // A lock file of an earlier version, which every user could open, and one has done so.
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).expect("our own file");
    let holder = host.spawn(format!("{as_nobody} flock --shared {} sleep 1000", lock.display()));
    within(SHORTLY, "the lock to be held", || {
        (host.run(format!("flock --nonblock {} true", lock.display())).code == 1).then_some(())
    });
    let said = host.overlay(format!("down {}", host.interface()));
    assert_eq!(said.code, 0, "{said:?}");
    drop(holder);
}

#[test]
fn a_forged_journal_removes_nothing_that_is_not_of_our_kind() {
    let Some(pair) = Pair::new("forged journal") else { return };
    let host = &pair.a;
    let folder = host.runtime_dir();
    fs::create_dir(&folder).expect("a folder");
    let interface = host.interface();
    let victim = host.write("victim", PRECIOUS);
    let link = host.dir().join("link");
    symlink(&victim, &link).expect("a link");
    // A socket of another program that nobody is listening on right now.
    let stale = host.dir().join("other.sock");
    drop(UnixListener::bind(&stale).expect("a socket"));
    let pipe = host.dir().join("pipe");
    host.exec(format!("mkfifo {}", pipe.display()));
    let directory = host.dir().join("directory");
    fs::create_dir(&directory).expect("a folder");

    host.exec("nft add table inet overlay_other");
    host.exec("nft add table inet filter");
    host.exec("ip rule add priority 100 table 254 suppress_prefixlength 8");
    host.exec("ip rule add priority 101 from all lookup main");
    host.exec(format!("ip link add {interface} type veth peer name peer0"));
    let index = host.exec(format!("cat /sys/class/net/{interface}/ifindex"));
    let rule = |priority: u32, suppress: Option<u32>| {
        json!({ "ipv6": false, "priority": priority, "fwmark": null, "invert": false, "table": 254,
                "suppress_prefix_length": suppress })
    };
    let everything = || {
        let files = [&victim, &link, &stale, &pipe, &directory].map(|path| fs::symlink_metadata(path).is_ok());
        (files, host.exec("nft list tables"), host.ip("rule show"), host.exec("ip -br link show"))
    };
    let before = everything();

    let records = [
        json!({ "sockets": [&victim] }),
        json!({ "sockets": [&link] }),
        json!({ "sockets": [&stale] }),
        json!({ "sockets": [&pipe] }),
        json!({ "sockets": [&directory] }),
        json!({ "sockets": ["/etc/passwd", "/var/run/wireguard/../../../etc/hostname"] }),
        json!({ "rules": [rule(100, Some(8))] }),
        json!({ "rules": [rule(101, None)] }),
        json!({ "index": index.trim().parse::<u32>().expect("a number") }),
        json!({ "interface": "other", "nft_table": true }),
        json!({ "interface": "other; add table inet injected", "nft_table": true }),
    ];
    for record in &records {
        forge(host, record);
        let said = host.overlay(format!("down {interface}"));
        assert_eq!(everything(), before, "{record}: {said:?}");
        let _ = fs::remove_file(folder.join(format!("{interface}.state")));
    }
    // These look like ours, so that the refusals above have no other reason.
    host.exec(format!("nft add table inet overlay_{interface}"));
    host.exec("ip rule add priority 102 table 254 suppress_prefixlength 0");
    forge(host, &json!({ "rules": [rule(102, Some(0))], "nft_table": true }));
    assert_eq!(host.overlay(format!("down {interface}")).code, 0);
    assert_eq!(everything(), before, "what is of our kind was removed, and nothing else");
}

#[test]
fn a_journal_in_a_file_that_others_may_write_is_never_obeyed() {
    let Some(pair) = Pair::new("journal for everybody") else { return };
    let host = &pair.a;
    let folder = host.runtime_dir();
    fs::create_dir(&folder).expect("a folder");
    host.exec(format!("nft add table inet overlay_{}", host.interface()));
    let state = forge(host, &json!({ "nft_table": true }));
    for (mode, owner) in [(0o666, 0), (0o660, 0), (0o600, NOBODY)] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).expect("our own file");
        own(&state, owner);
        let said = host.overlay(format!("down {}", host.interface()));
        assert_eq!(said.code, 4, "{mode:o} {owner}: {said:?}");
        assert!(said.stderr.contains(&format!("sudo rm {}\n", state.display())), "{said:?}");
        host.golden(format!("mode {mode:o}, owner {owner}"), &said.stderr);
        assert!(host.exec("nft list tables").contains("overlay_"), "{mode:o} {owner}: it was obeyed");
    }
}

#[test]
fn manual_pages_and_keys_are_written_past_links_that_wait_for_them() {
    let Some(pair) = Pair::new("output files") else { return };
    let host = &pair.a;
    let victim = host.write("victim", PRECIOUS);
    let folder = host.dir().join("theirs");
    fs::create_dir(&folder).expect("a folder");
    for name in ["overlay.1", "overlay-up.1", "lab.key", "lab.toml", "new.key", "wg0.toml", "wg0.key"] {
        symlink(&victim, folder.join(name)).expect("a link");
    }
    own(&folder, NOBODY);
    let shown = folder.display();
    host.overlay(format!("man -o {shown}")).succeeded("overlay man");
    assert!(fs::symlink_metadata(folder.join("overlay-up.1")).expect("a page").is_file());
    let wg = host.write(
        "wg0.conf",
        "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = 10.77.0.1/24\n",
    );
    for line in [
        format!("config init -o {shown}/lab.toml"),
        format!("key gen -o {shown}/new.key"),
        format!("import {} -o {shown}", wg.display()),
    ] {
        assert_eq!(host.overlay(&line).code, 9, "{line}");
    }
    // A dangling link also occupies its name.
    let nothing = host.dir().join("nothing");
    for name in ["lab.key", "lab.toml", "new.key", "wg0.toml", "wg0.key"] {
        fs::remove_file(folder.join(name)).expect("our own link");
        symlink(&nothing, folder.join(name)).expect("a link");
    }
    for line in [
        format!("config init -o {shown}/lab.toml"),
        format!("key gen -o {shown}/new.key"),
        format!("import {} -o {shown}", wg.display()),
    ] {
        assert_eq!(host.overlay(&line).code, 9, "{line}");
        assert!(!nothing.exists(), "{line}");
    }
    // A pipe in the place of a key is refused, without waiting for its content.
    fs::remove_file(folder.join("lab.key")).expect("our own link");
    fs::remove_file(folder.join("lab.toml")).expect("our own link");
    host.exec(format!("mkfifo {shown}/lab.key"));
    let said =
        host.run(format!("timeout 10 {} config init -o {shown}/lab.toml", lab::host::overlay_program().display()));
    assert!(said.code != 124 && said.code != 0, "{said:?}");
    assert_eq!(fs::read_to_string(&victim).expect("it is still there"), PRECIOUS);
}

/// Lets ordinary users enter the host's folders.
fn open_up(pair: &Pair) {
    for folder in [pair.lab.dir(), pair.a.dir()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("our own folder");
    }
}

fn own(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("we are root");
}

/// Writes a journal of this host that is empty except for these fields.
fn forge(host: &Host, fields: &serde_json::Value) -> PathBuf {
    let namespace = host.exec("stat -L -c %i /proc/self/ns/net");
    let mut record = json!({
        "schema": "overlay.state.v1",
        "namespace": namespace.trim().parse::<u64>().expect("an inode"),
        "interface": host.interface(),
        "index": null,
        "rules": [],
        "nft_table": false,
        "sockets": [],
    });
    for (key, value) in fields.as_object().expect("fields") {
        record[key] = value.clone();
    }
    let path = host.runtime_dir().join(format!("{}.state", host.interface()));
    fs::write(&path, record.to_string()).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    path
}

/// Runs `overlay up` in the foreground. If it is not refused, it is ended after a moment.
fn up(pair: &Pair) -> Finished {
    let config = pair.a.write("overlay.toml", pair.config_of_a(Outside::V4));
    let program = lab::host::overlay_program();
    pair.a.run(format!(
        "timeout 3 {} --runtime-dir {} up {}",
        program.display(),
        pair.a.runtime_dir().display(),
        config.display()
    ))
}

/// Runs `overlay up -d`.
fn up_in_background(pair: &Pair) -> Finished {
    let config = pair.a.write("overlay.toml", pair.config_of_a(Outside::V4));
    let program = lab::host::overlay_program();
    let mut command = pair.a.command(["timeout", "10", &*program.to_string_lossy()]);
    command.arg("--runtime-dir").arg(pair.a.runtime_dir()).args(["up", "-d"]).arg(config);
    let said = pair.a.start(command, "overlay up -d").finish_within(Duration::from_secs(15));
    pair.a.overlay("down");
    said
}

/// A daemon that starts shortly after the boot, and is not the first one, must not take flows for its own.
#[test]
fn a_daemon_leaves_a_mark_from_the_beginning_and_when_it_is_killed() {
    let Some(pair) = Pair::new("mark") else { return };
    let host = &pair.a;
    let path = host.runtime_dir().join(format!("{}.flows", host.interface()));
    let lines = || fs::read_to_string(&path).expect("a mark").lines().count();
    // No peer has an allow list.
    let overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    assert_eq!(lines(), 1, "the line for the boot");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    overlay.stop();
    assert_eq!(lines(), 2, "and our latest timestamp");
    host.overlay_up(&pair.config_of_a(Outside::V4)).kill9();
    assert_eq!(lines(), 1, "read once");
    assert_eq!(host.overlay(format!("down {}", host.interface())).code, 0);
    assert_eq!(lines(), 1);
}
