//! The systemd unit, under systemd: everything works with its few privileges, and it really has only those.
//!
//! Also tested: the privileges that a daemon outside systemd gives up, and the watchdog.
#![allow(clippy::disallowed_methods, reason = "it waits for real processes on the real clock")]

mod lab;
#[path = "unit/machine.rs"]
mod machine;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::services::{self, SshServer, random_file, sha256};
use lab::{A, B, Outside, Overlay, Pair, SHORTLY, within};
use machine::Machine;
use serde_json::Value;

/// The highest exposure that `systemd-analyze security` may report, times ten.
const MOST_EXPOSURE: u32 = 20;
/// The bits for CAP_NET_BIND_SERVICE and CAP_NET_ADMIN.
const RIGHTS: u64 = 1 << 10 | 1 << 12;

#[test]
fn the_units_are_hardly_exposed() {
    if !lab::installed("exposure", &["systemd-analyze"]) {
        return;
    }
    for name in ["overlay@.service", "overlay-rendezvous@.service"] {
        is_hardly_exposed(name);
    }
}

#[track_caller]
fn is_hardly_exposed(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join(name);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
    fs::copy(installed, &unit).expect("the unit");
    let said = std::process::Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", &format!("--threshold={MOST_EXPOSURE}")])
        .arg(&unit)
        .output()
        .expect("it is installed");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("Overall exposure level"), "{text}{said:?}");
    let verified = std::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let verified = String::from_utf8_lossy(&verified.expect("it is installed").stderr).into_owned();
    let complaints: Vec<_> = verified.lines().filter(|line| line.contains(&format!("{name}:"))).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// The keys of a rendezvous and of a network: public keys of RFC 8032, section 7.1. Nothing listens at port 1.
const RENDEZVOUS: &str = "https://127.0.0.1:1#25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena.\
                          hvabpq7iioevvevxbktu2g36xsojqlgpf3cjndgazvk7ckxumyga";

#[test]
fn an_agent_runs_under_the_unit_and_keeps_its_identity() {
    let programs = ["systemctl", "pgrep"];
    if !lab::installed("an agent under the unit", &programs) {
        return;
    }
    let Some(pair) = Pair::new("agent unit") else { return };
    let name = pair.a.interface();
    let machine = Machine::boot(&pair.a);
    let state = format!("/var/lib/overlay/{name}");
    machine.exec(&format!(
        "overlay init {name} --rendezvous '{RENDEZVOUS}' --network lab -o /etc/overlay/{name}.toml --state-dir {state}"
    ));
    machine.exec(&format!("systemctl start overlay@{name}"));
    let identity = || -> Value {
        let said = machine.exec(&format!("overlay agents --json -I {name}"));
        serde_json::from_str::<Value>(&said).expect("JSON")["identity"].clone()
    };
    let before = identity();
    assert!(before.as_str().is_some_and(|key| key.len() == 52), "{before}");
    let modes = machine.exec(&format!("stat -c '%U %a' {state} {state}/lab {state}/lab/identity.key"));
    assert_eq!(modes, "overlayd 700\noverlayd 700\noverlayd 600\n");
    machine.exec(&format!("systemctl restart overlay@{name}"));
    assert_eq!(identity(), before);
}

#[test]
fn under_the_unit_everything_works() {
    let programs = ["systemctl", "curl", "sshd", "ssh-keygen", "pgrep", services::PYTHON];
    if !lab::installed("the unit", &programs) {
        return;
    }
    let Some(pair) = Pair::new("the unit") else { return };
    let (host, name) = (&pair.a, pair.a.interface());
    let unit = format!("overlay@{name}");
    let _far = pair.b.overlay_up(&pair.config_of_b_waiting());
    let machine = Machine::boot(host);
    let config = format!("/etc/overlay/{name}.toml");
    let key = format!("/etc/overlay/{name}.key");
    // Like the files of earlier versions: only root can read the key.
    machine.exec(&format!("install -m 0600 -g root /run/lab/private.key {key}"));
    let write = |text: &str| {
        let text = text.replace(&host.private_key_file().display().to_string(), &format!("{name}.key"));
        host.write("new.toml", text);
        machine.exec(&format!("cat /run/lab/new.toml > {config}"));
    };
    write(&pair.config_of_a(Outside::V4));
    machine.exec(&format!("systemctl start {unit}"));

    // The user of the process, and its privileges.
    let pid = machine.exec(&format!("systemctl show -P MainPID {unit}"));
    let status = machine.exec(&format!("cat /proc/{}/status", pid.trim()));
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned();
    assert_ne!(line("Uid:").split('\t').next(), Some("0"), "{status}");
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&line(set), 16), Ok(RIGHTS), "{set}");
    }
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    let as_service = "setpriv --reuid overlayd --regid overlay --groups overlayd";
    assert_ne!(machine.run(&format!("{as_service} cat {key}")).code, 0, "the key is root's alone");
    let state = format!("/run/overlay/{name}/{name}.state");
    assert_eq!(machine.exec(&format!("stat -c '%U %a' {state} /run/overlay")), "overlayd 600\nroot 755\n");

    // The traffic of the demo.
    host.reaches(B.v4);
    host.reaches(B.v6);
    let file = random_file(&pair.b, "served", 1 << 20);
    let _http = services::http_server(&pair.b, pair.b.dir());
    let copy = host.dir().join("copy");
    services::curl(host, B.v4, "served", &copy).succeed_within(SHORTLY);
    assert_eq!(sha256(&copy), sha256(&file));
    let ssh = SshServer::start(&pair.b);
    let out = ssh.ssh(host, B.v4, "cat", &copy);
    out.succeed_within(SHORTLY);

    // Which users may read the status, and which may change something.
    let overlay_status = |who: &str| machine.run(&format!("{who} overlay status --json {name}"));
    let status = || -> Value {
        let said = overlay_status("");
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str(&said.stdout).expect("JSON")
    };
    assert_eq!(overlay_status("setpriv --reuid 65534 --regid 65534 --groups overlay").code, 0, "the group may look");
    assert_eq!(overlay_status("setpriv --reuid 65534 --regid overlay --clear-groups").code, 0, "the group may look");
    assert_eq!(overlay_status("setpriv --reuid 65534 --regid 65534 --clear-groups").code, 4);
    assert!(machine.exec("nft list tables").contains(&format!("overlay_{name}")), "nft works as its child");
    let may_write =
        format!("nsenter -t {} -m {as_service} --ambient-caps +net_admin --inh-caps +net_admin", pid.trim());
    machine.exec(&format!("{may_write} sh -c 'echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_ra'"));
    let forbidden = format!("{may_write} sh -c 'echo 1 > /proc/sys/kernel/printk_ratelimit'");
    assert_ne!(machine.run(&forbidden).code, 0, "other settings of the kernel are read-only");

    // `wg` uses the socket that systemd created.
    assert_eq!(machine.exec(&format!("stat -c '%U %a' /run/wireguard/{name}.sock")), "root 600\n");
    assert!(machine.exec(&format!("wg show {name}")).contains(pair.b.public_key()));
    machine.exec(&format!("wg set {name} peer {} persistent-keepalive 17", pair.b.public_key()));
    assert!(machine.exec(&format!("wg show {name} persistent-keepalive")).contains("17"));

    // The search for the path MTU.
    within(SHORTLY, "the path MTU to be found", || (status()["peers"][0]["path_mtu"]["mtu"] == 1440).then_some(()));

    // A reload. Then one that needs a file that the daemon may not read, and how the hint helps.
    write(&(pair.config_of_a(Outside::V4) + "persistent_keepalive = 23\n"));
    machine.exec(&format!("systemctl reload {unit}"));
    assert!(machine.exec(&format!("wg show {name} persistent-keepalive")).contains("23"));
    machine.exec(&format!("touch {key}"));
    let said = machine.run(&format!("overlay reload {name}"));
    assert_eq!(said.code, 4, "{said:?}");
    let hint = format!("sudo chgrp overlayd {key} && sudo chmod g+r {key}");
    assert!(said.stderr.contains(&hint), "{said:?}");
    machine.exec(&format!("chgrp overlayd {key} && chmod g+r {key} && overlay reload {name}"));
    machine.exec(&format!("chmod 600 {config}"));
    let said = machine.run(&format!("overlay reload {name}"));
    assert!(
        said.code == 4 && said.stderr.contains(&format!("sudo chgrp overlayd {config} && sudo chmod g+r {config}")),
        "{said:?}"
    );
    machine.exec(&format!("chgrp overlayd {config} && chmod g+r {config} && overlay reload {name}"));

    // New keys in that folder are readable at once.
    machine.exec("overlay key gen -o /etc/overlay/new.key");
    assert_eq!(machine.exec("stat -c '%U %G %a' /etc/overlay/new.key"), "root overlayd 640\n");

    // A default route through the peer, and an end without any clean-up.
    let inner = A.inner();
    let everything = host.interface_toml(&[&inner[0], &inner[1]])
        + &pair.b.peer_toml(Some(&B.endpoint(Outside::V4, 51820)), &["0.0.0.0/0", "::/0"]);
    write(&everything);
    let rules = || host.ip("-4 rule show") + &host.ip("-6 rule show");
    let before = rules();
    machine.exec(&format!("systemctl restart {unit}"));
    host.reaches(B.v4);
    let routed = rules();
    assert_ne!(routed, before, "it takes rules to route everything");
    machine.exec(&format!("systemctl kill -s KILL {unit}"));
    within(SHORTLY, "the restart", || {
        let now = machine.exec(&format!("systemctl show -P MainPID -P ActiveState {unit}"));
        (now.starts_with(|first: char| first != '0') && now.contains("active") && !now.contains("ing")).then_some(())
    });
    assert_eq!(rules(), routed, "those of the killed one are gone");
    host.reaches(B.v4);
    within(SHORTLY, "wg to be answered", || {
        machine.run(&format!("wg show {name}")).stdout.contains("peer").then_some(())
    });

    // Root removes what a killed daemon left behind.
    machine.exec(&format!("systemctl mask --runtime {unit} && systemctl kill -s KILL {unit}"));
    within(SHORTLY, "the end", || {
        (machine.run(&format!("systemctl is-active {unit}")).stdout != "active\n").then_some(())
    });
    machine.exec(&format!("systemctl stop {unit}; overlay down {name}"));
    assert_eq!(rules(), before);
    machine.exec(&format!("systemctl unmask --runtime {unit} && systemctl start {unit}"));
    host.reaches(B.v4);
    machine.exec(&format!("systemctl stop {unit}"));
    assert_eq!(rules(), before);
    within(SHORTLY, "wg's socket to go", || {
        (machine.run(&format!("test -e /run/wireguard/{name}.sock")).code != 0).then_some(())
    });
    assert_eq!(machine.run(&format!("wg show {name}")).code, 1, "it starts nothing");
    assert_ne!(machine.run(&format!("systemctl is-active {unit}")).code, 0);
}

#[test]
fn outside_systemd_every_thread_gives_up_what_is_not_needed() {
    let Some(pair) = Pair::new("privileges") else { return };
    let (overlay, _far) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let mut threads = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", overlay.pid())).expect("it runs").flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("it runs");
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim();
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(u64::from_str_radix(line(set), 16), Ok(RIGHTS), "{set}\n{status}");
        }
        assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1", "2"), "{status}");
        threads += 1;
    }
    assert!(threads >= 2, "control and engine");

    // A reload and `wg` do not need any of that.
    pair.a.overlay("reload").succeeded("overlay reload");
    pair.a.exec(format!("wg set {} peer {} persistent-keepalive 17", pair.a.interface(), pair.b.public_key()));
    overlay.stop();
}

#[test]
fn a_config_of_another_user_is_still_reloaded() {
    let Some(pair) = Pair::new("config of a user") else { return };
    let host = &pair.a;
    let key = host.private_key_file();
    chown(&key, Some(65_534), None).expect("we are root");
    let overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    fs::set_permissions(overlay.config(), fs::Permissions::from_mode(0o600)).expect("our own file");
    chown(overlay.config(), Some(65_534), None).expect("we are root");
    host.overlay("reload").succeeded("overlay reload");
    let status = fs::read_to_string(format!("/proc/{}/status", overlay.pid())).expect("it runs");
    let rights = format!("CapEff:\t{:016x}\n", RIGHTS | 1 << 2);
    assert!(status.contains(&rights), "reading is all it keeps beside: {status}");
    overlay.stop();
}

#[test]
fn the_watchdog_is_fed_by_the_engine() {
    if !lab::installed("the watchdog", &[services::PYTHON]) {
        return;
    }
    let Some(pair) = Pair::new("watchdog") else { return };
    let host = &pair.a;
    let path = host.dir().join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket in the lab's folder");
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let mut command = host.overlay_command(format!("up {}", config.display()));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    let overlay = Overlay::from_command(host, command);
    // Counts the watchdog notifications in this time.
    let feedings = |while_: Duration| {
        let (until, mut count, mut message) = (Instant::now() + while_, 0, [0; 1024]);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left)).expect("a timeout");
            let Ok(length) = socket.recv(&mut message) else { break };
            count += usize::from(message[..length].starts_with(b"WATCHDOG=1"));
        }
        count
    };
    feedings(Duration::from_millis(500));
    assert!(feedings(Duration::from_secs(2)) >= 3, "an idle engine is alive");

    // One thread stands still while the others continue.
    let threads = fs::read_dir(format!("/proc/{}/task", overlay.pid())).expect("it runs").flatten();
    let engine = threads
        .map(|thread| thread.path())
        .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "engine"))
        .expect("an engine thread");
    let engine = engine.file_name().expect("a number").to_string_lossy().into_owned();
    let hold = "import ctypes, sys, time\n\
                libc = ctypes.CDLL(None, use_errno=True)\n\
                thread = int(sys.argv[1])\n\
                SEIZE, INTERRUPT = 0x4206, 0x4207\n\
                assert libc.ptrace(SEIZE, thread, None, None) == 0, ctypes.get_errno()\n\
                assert libc.ptrace(INTERRUPT, thread, None, None) == 0, ctypes.get_errno()\n\
                print('held', flush=True)\n\
                time.sleep(1000)\n";
    let holder = host.spawn([services::PYTHON, "-c", hold, &engine]);
    within(SHORTLY, "the engine to be held", || holder.stdout().contains("held").then_some(()));
    feedings(Duration::from_millis(500));
    assert_eq!(feedings(Duration::from_secs(2)), 0, "a daemon that carries nothing is fed");
    assert_eq!(host.overlay("status").code, 0, "control is well, which is not the question");
    drop(holder);
    assert!(feedings(Duration::from_secs(2)) >= 3, "it goes on");
    overlay.stop();
}
