//! What a peer may open while daemons are reloaded and restarted, and while peers are removed and added again. It uses
//! a real sshd and a real ssh with an active session.

mod lab;

use std::fs;
use std::path::{Path, PathBuf};

use lab::services::SshServer;
use lab::{A, B, Host, Outside, Overlay, Pair, SHORTLY, within};

const SSH_ALLOWED: &str = "allow = [\"tcp/2222\"]\n";
const NOTHING_ALLOWED: &str = "allow = []\n";

/// The length of the file in bytes.
fn len(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |metadata| metadata.len())
}

/// Waits until the client's lines arrive.
#[track_caller]
fn arrives(log: &Path) {
    let before = len(log);
    within(SHORTLY, "the ssh session to go on", || (len(log) > before + 10).then_some(()));
}

/// Waits until segments of the session are refused, and checks that no more of it arrives.
#[track_caller]
fn is_stopped(overlay: &Overlay, log: &Path) {
    let refused = overlay.dropped("not_allowed");
    within(SHORTLY, "segments of the ssh session to be refused", || {
        (overlay.dropped("not_allowed") >= refused + 3).then_some(())
    });
    let (before, refused) = (len(log), overlay.dropped("not_allowed"));
    within(SHORTLY, "more of them to be refused", || (overlay.dropped("not_allowed") >= refused + 2).then_some(()));
    assert_eq!(len(log), before, "the session goes on");
}

/// Starts an ssh session from `a` into `b`. Returns the program and the file that grows while the session lives.
fn session_into_b(pair: &Pair, name: &str) -> (SshServer, lab::Process, PathBuf) {
    let sshd = SshServer::start(&pair.b);
    let log = pair.b.dir().join(name);
    let ssh = sshd.chatter(&pair.a, B.v4, &log);
    arrives(&log);
    (sshd, ssh, log)
}

/// Restarts `b` with different rights for `a`, and waits until its tunnel is up.
#[track_caller]
fn restarted(pair: &Pair, allow: &str) -> Overlay {
    let overlay = pair.b.overlay_up(&(pair.config_of_b(Outside::V4) + allow));
    pair.b.reaches(A.v4);
    overlay
}

/// Removes the peer and adds it again, as `wg setconf` does.
#[track_caller]
fn add_again(on: &Host, peer: &Host, endpoint: &str, allowed_ips: &str) {
    let (interface, key) = (on.interface(), peer.public_key());
    on.exec(format!("wg set {interface} peer {key} remove"));
    on.exec(format!("wg set {interface} peer {key} endpoint {endpoint} allowed-ips {allowed_ips}"));
}

fn has_ssh(what: &str) -> bool {
    lab::installed(what, &["sshd", "ssh-keygen", "ssh", "wg"])
}

#[test]
fn a_right_withdrawn_stays_withdrawn_when_the_daemon_is_restarted() {
    if !has_ssh("rights over a restart") {
        return;
    }
    // A right that is withdrawn, and a first allowlist that is empty. Each after an orderly end and after `kill -9`.
    for (before, is_killed) in [(SSH_ALLOWED, false), (SSH_ALLOWED, true), ("", false), ("", true)] {
        let Some(pair) = Pair::new("rights over a restart") else { return };
        let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
        let on_b = restarted(&pair, before);
        let (_sshd, _ssh, log) = session_into_b(&pair, "log");
        if is_killed {
            on_b.kill9()
        } else {
            drop(on_b.stop())
        }
        let on_b = restarted(&pair, NOTHING_ALLOWED);
        is_stopped(&on_b, &log);
        assert_eq!(on_b.peer(&pair.a)["allow"], serde_json::json!([]));
    }
}

#[test]
fn a_right_withdrawn_by_reload_stays_withdrawn_when_wg_removes_and_adds_the_peer() {
    if !has_ssh("rights over wg set") {
        return;
    }
    let Some(pair) = Pair::new("rights over wg set") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let on_b = restarted(&pair, SSH_ALLOWED);
    let (_sshd, _ssh, log) = session_into_b(&pair, "log");
    fs::write(on_b.config(), pair.config_of_b(Outside::V4) + NOTHING_ALLOWED).expect("the lab's folder");
    pair.b.overlay("reload").succeeded("overlay reload");
    is_stopped(&on_b, &log);
    add_again(&pair.b, &pair.a, &A.endpoint(Outside::V4, 51820), &format!("{}/32,{}/128", A.v4, A.v6));
    pair.b.reaches(A.v4);
    is_stopped(&on_b, &log);
    assert_eq!(on_b.peer(&pair.a)["allow"], serde_json::json!([]));
}

#[test]
fn our_own_ssh_survives_wg_that_adds_the_peer_again_and_an_orderly_restart() {
    if !has_ssh("our own flows") {
        return;
    }
    let Some(pair) = Pair::new("our own flows") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let on_b = restarted(&pair, NOTHING_ALLOWED);
    let sshd = SshServer::start(&pair.a);
    let log = pair.a.dir().join("log");
    let _ssh = sshd.chatter(&pair.b, A.v4, &log);
    arrives(&log);
    add_again(&pair.b, &pair.a, &A.endpoint(Outside::V4, 51820), &format!("{}/32,{}/128", A.v4, A.v6));
    arrives(&log);
    on_b.stop();
    let on_b = restarted(&pair, NOTHING_ALLOWED);
    arrives(&log);

    // After `kill -9` nothing proves that we opened the session, so it is blocked until it is opened again.
    on_b.kill9();
    let on_b = restarted(&pair, NOTHING_ALLOWED);
    within(SHORTLY, "answers to it to be refused", || (on_b.dropped("not_allowed") >= 3).then_some(()));
    let log = pair.a.dir().join("log-again");
    let _ssh = sshd.chatter(&pair.b, A.v4, &log);
    arrives(&log);
}

#[test]
fn a_member_who_holds_connections_does_not_keep_root_from_reloading() {
    const MEMBERS: u32 = 4_243;
    let Some(pair) = Pair::new("slots of the local API") else { return };
    let host = &pair.a;
    // The group exists only in the mount namespace of the daemon.
    let known = fs::read_to_string("/etc/group").expect("groups");
    let known: String = known.lines().filter(|line| !line.starts_with("overlay:")).map(|l| format!("{l}\n")).collect();
    let groups = host.write("group", known + &format!("overlay:x:{MEMBERS}:\n"));
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let (program, run) = (lab::host::overlay_program(), host.runtime_dir());
    let (groups, program, run, config) = (groups.display(), program.display(), run.display(), config.display());
    let line = format!("mount --bind {groups} /etc/group && exec {program} --runtime-dir {run} up {config}");
    let overlay = Overlay::from_command(host, host.command(["sh", "-c", &line]));
    for folder in [pair.lab.dir(), host.dir()] {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("our own folder");
    }
    let hold = format!(
        "import socket, time\n\
         held = []\n\
         while True:\n  \
           s = socket.socket(socket.AF_UNIX)\n  \
           s.settimeout(0.2)\n  \
           try:\n    s.connect('{run}/{}.sock'); s.send(b'G'); held.append(s)\n  \
           except OSError: pass\n  \
           print(len(held), flush=True)\n  \
           time.sleep(0.01)\n",
        host.interface()
    );
    let group = MEMBERS.to_string();
    let as_member = ["setpriv", "--reuid", "5000", "--regid", &group, "--clear-groups", lab::services::PYTHON, "-c"];
    let member = host.spawn(&[&as_member[..], &[&hold]].concat()[..]);
    within(SHORTLY, "connections of the member", || (member.stdout().lines().count() > 60).then_some(()));
    for _ in 0..5 {
        let said = host.run(format!("timeout 3 {program} --runtime-dir {run} reload {}", host.interface()));
        assert_eq!(said.code, 0, "{said:?}");
    }
    drop(member);
    overlay.stop();
}

#[test]
fn a_reload_that_fails_withdraws_rights_all_the_same() {
    let Some(pair) = Pair::new("rights and a failed reload") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let on_b = restarted(&pair, SSH_ALLOWED);
    // The new address is taken by another device.
    pair.b.ip(&format!("address add 10.99.0.1/24 dev {}", pair.b.link_to(&pair.a)));
    let config =
        (pair.config_of_b(Outside::V4) + NOTHING_ALLOWED).replace("addresses = [", "addresses = [\"10.99.0.1/24\", ");
    fs::write(on_b.config(), config).expect("the lab's folder");
    let said = pair.b.overlay("reload");
    assert_eq!(said.code, 9, "{said:?}");
    assert!(said.stderr.contains("withdrawn all the same"), "{said:?}");
    assert_eq!(on_b.peer(&pair.a)["allow"], serde_json::json!([]));
    pair.b.reaches(A.v4);
}
