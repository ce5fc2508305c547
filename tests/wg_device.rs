//! `overlay-wg IFACE` in the place of wireguard-go: made, configured by `wg`, `ip` and `wg-quick`, moved, and gone.
//!
//! Only what the program itself does is looked at here, with a stock WireGuard as the peer where there is traffic.
#![allow(clippy::disallowed_methods, reason = "real time is what this is about")]

mod lab;

mod wg_device {
    mod quick;
}

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::footprint::Footprint;
use lab::stock::{StockConfig, StockPeer};
use lab::{A, B, Finished, Host, Outside, Pair, Process, SHORTLY, Stock, within, words};
use rustix::process::Signal;

/// The program under the name that wg-quick is told.
fn overlay_wg(host: &Host) -> PathBuf {
    let link = host.dir().join("overlay-wg");
    if !link.exists() {
        symlink(lab::host::overlay_program(), &link).expect("a link in our own folder");
    }
    link
}

/// `overlay-wg ARGUMENTS` to its end, with the host's own runtime folder.
fn run(host: &Host, arguments: &str) -> Finished {
    let (program, folder) = (overlay_wg(host), host.runtime_dir());
    host.run(format!("{} --runtime-dir {} {arguments}", program.display(), folder.display()))
}

/// The interface of `host`, made in the background; it goes with the namespace.
#[track_caller]
fn make(host: &Host) {
    let said = run(host, host.interface());
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "", ""), "silent, as wireguard-go is");
}

/// The same in the foreground.
#[track_caller]
fn foreground(host: &Host) -> Process {
    let (program, folder) = (overlay_wg(host), host.runtime_dir());
    let line = format!("{} --runtime-dir {} -f {}", program.display(), folder.display(), host.interface());
    let process = host.spawn(line);
    within(SHORTLY, "the socket", || socket(host).exists().then_some(()));
    process
}

fn socket(host: &Host) -> PathBuf {
    Path::new("/var/run/wireguard").join(format!("{}.sock", host.interface()))
}

fn has_interface(host: &Host) -> bool {
    host.run(format!("ip link show dev {}", host.interface())).code == 0
}

/// What is bound on the host, by our program.
fn ports(host: &Host) -> String {
    host.exec("ss -Huanp")
}

/// Configures `host`'s interface as `wg-quick` would for `peer` at `endpoint`, but for the addresses.
#[track_caller]
fn configure(host: &Host, peer: &Host, endpoint: &str, allowed: &[String; 2]) {
    host.exec(format!(
        "wg set {} listen-port 51820 private-key {} peer {} endpoint {endpoint} allowed-ips {},{}",
        host.interface(),
        host.private_key_file().display(),
        peer.public_key(),
        allowed[0],
        allowed[1],
    ));
}

/// `b` as a stock peer of `a`, which it waits for.
#[track_caller]
fn stock_peer(pair: &Pair, stock: Stock, endpoint: Option<&str>) -> StockPeer {
    let (addresses, allowed) = (B.inner(), A.allowed());
    let config = StockConfig {
        addresses: &[&addresses[0], &addresses[1]],
        peer: &pair.a,
        endpoint,
        allowed_ips: &[&allowed[0], &allowed[1]],
        preshared_key_file: None,
    };
    stock.up(&pair.b, &config)
}

/// Gives the interface of `a` its addresses, in the namespace of `inside`, and brings it up.
#[track_caller]
fn bring_up(pair: &Pair, inside: &Host) {
    let interface = pair.a.interface();
    for address in A.inner() {
        inside.ip(&format!("address add {address} dev {interface}"));
    }
    inside.ip(&format!("link set {interface} up"));
}

fn latest_handshake(host: &Host) -> u64 {
    let said = host.exec(format!("wg show {} latest-handshakes", host.interface()));
    said.split_whitespace().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn it_returns_when_interface_and_socket_are_there_and_has_touched_nothing_else() {
    let Some(pair) = Pair::new("overlay-wg") else { return };
    let host = &pair.a;
    let before = Footprint::of_namespace(host);
    make(host);
    let name = host.interface();
    // Nothing is waited for here.
    let link = host.ip(&format!("-o -d link show dev {name}"));
    assert!(link.contains(" mtu 1420 ") && link.contains(" state DOWN ") && link.contains(" tun type tun "), "{link}");
    assert_eq!(host.ip(&format!("-o address show dev {name}")), "");
    let metadata = fs::symlink_metadata(socket(host)).expect("the socket");
    assert!(metadata.file_type().is_socket() && metadata.permissions().mode() & 0o777 == 0o600);
    assert_eq!(host.exec(format!("wg show {name}")).trim(), format!("interface: {name}"));
    assert_eq!(ports(host), "", "no socket is bound while it is down");
    assert_eq!(host.exec("nft list ruleset"), "");

    let status = host.overlay(format!("status {name}")).succeeded("overlay status");
    assert!(status.contains(words::NO_PRIVATE_KEY), "{status}");
    let reload = host.overlay(format!("reload {name}"));
    assert_eq!(reload.code, 2, "{reload:?}");
    host.golden("reload", &reload.stderr);
    let again = run(host, name);
    assert_eq!(again.code, 9, "{again:?}");
    host.golden("a second time", &again.stderr);

    host.overlay(format!("down {name}")).succeeded("overlay down");
    within(SHORTLY, "the end", || (!has_interface(host) && !socket(host).exists()).then_some(()));
    before.assert_unchanged(host);
}

#[test]
fn a_hard_link_or_a_copy_called_overlay_wg_is_as_good_as_a_symbolic_link() {
    let Some(pair) = Pair::new("overlay-wg, hard link") else { return };
    let host = &pair.a;
    let (program, own) = (lab::host::overlay_program(), host.dir().join("overlay-wg"));
    // Across file systems there are only copies; to the program both look the same.
    fs::hard_link(&program, &own).or_else(|_| fs::copy(&program, &own).map(drop)).expect("a file of that name");
    make(host);
    assert!(has_interface(host));
    host.exec(format!("wg show {}", host.interface()));
    host.overlay(format!("down {}", host.interface())).succeeded("overlay down");
}

#[test]
fn it_ends_with_the_link_with_the_socket_and_on_a_signal_and_leaves_nothing() {
    let Some(pair) = Pair::new("overlay-wg ends") else { return };
    let host = &pair.a;
    fs::create_dir_all(host.runtime_dir()).expect("a folder");
    let before = Footprint::of(host);
    for is_up in [false, true] {
        for what in ["link", "socket", "SIGTERM", "SIGINT"] {
            let process = foreground(host);
            if is_up {
                host.ip(&format!("link set {} up", host.interface()));
                within(SHORTLY, "a port", || (!ports(host).is_empty()).then_some(()));
            }
            match what {
                "link" => drop(host.ip(&format!("link delete {}", host.interface()))),
                "socket" => fs::remove_file(socket(host)).expect("the socket"),
                "SIGTERM" => process.signal(Signal::TERM),
                _ => process.signal(Signal::INT),
            }
            let finished = process.finish_within(SHORTLY);
            assert_eq!(finished.code, 0, "{what}, up: {is_up}: {finished:?}");
            assert!(!has_interface(host), "{what}");
            assert!(!socket(host).exists(), "{what}");
            before.assert_unchanged(host);
        }
    }
}

#[test]
fn what_a_killed_process_leaves_goes_with_down_or_with_the_next_one_of_its_name() {
    let Some(pair) = Pair::new("overlay-wg, killed") else { return };
    let host = &pair.a;
    fs::create_dir_all(host.runtime_dir()).expect("a folder");
    let before = Footprint::of(host);
    let name = host.interface();
    let killed = || {
        let process = foreground(host);
        host.exec(format!("wg show {name}"));
        process.signal(Signal::KILL);
        process.finish_within(SHORTLY);
        within(SHORTLY, "the kernel to take the interface", || (!has_interface(host)).then_some(()));
        // The socket is left too, unless some `wg show` on this machine has looked at it since: that removes dead ones.
        let journal = fs::read_to_string(host.runtime_dir().join(format!("{name}.state"))).expect("a journal");
        assert!(journal.contains(&*socket(host).to_string_lossy()), "{journal}");
    };
    killed();
    let said = host.overlay(format!("down {name}")).succeeded("overlay down");
    assert!(!socket(host).exists(), "{said}");
    before.assert_unchanged(host);

    killed();
    make(host);
    host.exec(format!("wg show {name}"));
    host.overlay(format!("down {name}")).succeeded("overlay down");
    within(SHORTLY, "the end", || (!has_interface(host) && !socket(host).exists()).then_some(()));
}

#[test]
fn a_process_that_is_just_ending_is_waited_for_and_a_living_one_is_not_disturbed() {
    let Some(pair) = Pair::new("overlay-wg, down and up at once") else { return };
    let (host, name) = (&pair.a, pair.a.interface());
    if !lab::installed("overlay-wg, down and up at once", &["flock"]) {
        return;
    }
    fs::create_dir_all(host.runtime_dir()).expect("a folder");
    // What a process looks like whose interface is gone already, for longer than the lock itself is waited for.
    let lock = host.runtime_dir().join(format!("{name}.lock"));
    let ending = host.spawn(["flock", &lock.to_string_lossy(), "sh", "-c", "echo held; sleep 0.5"]);
    within(SHORTLY, "the lock to be held", || ending.stdout().contains("held").then_some(()));
    make(host);
    ending.succeed_within(SHORTLY);
    let again = run(host, name);
    assert_eq!(again.code, 9, "{again:?}");
    host.golden("a second time", &again.stderr);
    host.exec(format!("wg show {name}"));
    // Deleted and made anew without a pause.
    let program = overlay_wg(host);
    let line = format!("{} --runtime-dir {} {name}", program.display(), host.runtime_dir().display());
    for _ in 0..5 {
        host.shell(&format!("ip link delete {name} && {line} && wg show {name}"));
    }
}

#[test]
fn what_cannot_be_is_said_with_its_exit_code() {
    let Some(pair) = Pair::new("overlay-wg errors") else { return };
    let host = &pair.a;
    let (program, folder) = (overlay_wg(host), host.runtime_dir());
    let (program, folder) = (program.display(), folder.display());
    let name = host.interface();
    let line = format!("{program} --runtime-dir {folder} {name}");

    let bad = run(host, "a/b");
    assert_eq!(bad.code, 2, "{bad:?}");
    host.golden("a/b", &bad.stderr);
    let none = run(host, "");
    assert_eq!(none.code, 2, "{none:?}");
    host.golden("no name", &none.stderr);

    let unprivileged = host.run(format!("setpriv --bounding-set -net_admin --inh-caps -net_admin {line}"));
    assert_eq!(unprivileged.code, 4, "{unprivileged:?}");
    host.golden("without CAP_NET_ADMIN", &unprivileged.stderr);

    let hidden = host.run(["unshare", "-m", "sh", "-c", &format!("mount -t tmpfs none /dev/net && exec {line}")]);
    assert_eq!(hidden.code, 1, "{hidden:?}");
    host.golden("without /dev/net/tun", &hidden.stderr);

    host.ip(&format!("link add {name} type veth peer name far"));
    let exists = host.run(&line);
    assert_eq!(exists.code, 9, "{exists:?}");
    host.golden("an interface of this name", &exists.stderr);
    host.ip(&format!("link delete {name}"));

    // The folder of the sockets is one for the whole host.
    if lab::installed("a socket that is taken", &[Stock::WireGuardGo.program()]) {
        let other = pair.b.spawn(format!("wireguard-go --foreground {name}"));
        within(SHORTLY, "its socket", || socket(host).exists().then_some(()));
        let taken = host.run(&line);
        assert_eq!(taken.code, 9, "{taken:?}");
        host.golden("a socket of this name", &taken.stderr);
        other.signal(Signal::TERM);
        other.finish_within(SHORTLY);
    }
    assert!(!has_interface(host) && !socket(host).exists(), "nothing is left behind by what was refused");

    // Without a folder of its own it works all the same.
    let said = host.run(format!("{program} --runtime-dir /proc/none {name}"));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    host.exec(format!("wg show {name}"));
}

#[test]
fn down_and_up_again_its_port_was_free_and_the_session_is_made_anew() {
    let Some(pair) = Pair::new("overlay-wg, down and up") else { return };
    if !lab::installed("overlay-wg, down and up", &[Stock::WireGuardGo.program()]) {
        return;
    }
    let (a, name) = (&pair.a, pair.a.interface());
    make(a);
    configure(a, &pair.b, &B.endpoint(Outside::V4, 51820), &B.allowed());
    let _theirs = stock_peer(&pair, Stock::WireGuardGo, None);
    bring_up(&pair, a);
    // The very first packet waits for the handshake, though it may be sent before the process knows that it is up.
    a.exec(format!("ping -n -c 1 -W 5 {}", B.v4));
    pair.b.exec(format!("ping -n -c 1 -W 5 {}", A.v6));
    let first = latest_handshake(a);
    assert!(ports(a).contains(":51820"));

    within(SHORTLY, "the next second", || (unix_time() > first).then_some(()));
    a.ip(&format!("link set {name} down"));
    within(SHORTLY, "the port to be free", || ports(a).is_empty().then_some(()));
    assert_eq!(a.exec(format!("wg show {name} listen-port")).trim(), "51820");
    assert_eq!(latest_handshake(a), first);
    a.ip(&format!("link set {name} up"));
    a.exec(format!("ping -n -c 1 -W 5 {}", B.v4));
    assert!(latest_handshake(a) > first, "a new handshake");

    // Too fast to be seen down.
    within(SHORTLY, "the next second", || (unix_time() > latest_handshake(a)).then_some(()));
    let second = latest_handshake(a);
    a.shell(&format!("ip link set {name} down; ip link set {name} up"));
    a.exec(format!("ping -n -c 1 -W 5 {}", B.v4));
    assert!(latest_handshake(a) > second, "a new handshake");
    assert!(ports(a).contains(":51820"));
}

#[test]
fn a_port_that_is_taken_keeps_it_from_carrying_until_wg_sets_another() {
    let Some(pair) = Pair::new("overlay-wg, port taken") else { return };
    let (host, name) = (&pair.a, pair.a.interface());
    let _occupant = host.spawn("socat -u UDP4-RECV:51820 /dev/null");
    within(SHORTLY, "the port to be taken", || (!ports(host).is_empty()).then_some(()));
    let process = foreground(host);
    host.exec(format!("wg set {name} listen-port 51820"));
    host.ip(&format!("link set {name} up"));
    within(SHORTLY, "word of it", || process.stderr().contains(words::PORT_TAKEN).then_some(()));
    host.exec(format!("wg set {name} listen-port 51821"));
    within(SHORTLY, "the other port", || ports(host).contains(":51821").then_some(()));
}

#[test]
fn a_changed_mtu_counts_at_once_and_may_be_jumbo() {
    let Some(pair) = Pair::new("overlay-wg, MTU") else { return };
    if !lab::installed("overlay-wg, MTU", &[Stock::WireGuardGo.program()]) {
        return;
    }
    let (a, b) = (&pair.a, &pair.b);
    for (host, other) in [(a, b), (b, a)] {
        host.ip(&format!("link set {} mtu 9000", host.link_to(other)));
    }
    make(a);
    configure(a, b, &B.endpoint(Outside::V4, 51820), &B.allowed());
    let _theirs = stock_peer(&pair, Stock::WireGuardGo, None);
    bring_up(&pair, a);
    a.reaches(B.v4);
    for mtu in [1300, 1420, 8900, 1280, 8000] {
        for host in [a, b] {
            host.ip(&format!("link set {} mtu {mtu}", host.interface()));
        }
        // Datagrams of an application that must not be fragmented: exactly this long, and one byte longer.
        let fits = mtu - 28;
        a.exec(format!("ping -n -c 3 -i 0.2 -W 5 -M do -s {fits} {}", B.v4));
        let refused = a.run(format!("ping -n -c 1 -W 1 -M do -s {} {}", fits + 1, B.v4));
        assert_ne!(refused.code, 0, "{refused:?}");
        let shown = a.overlay(format!("status {} --json", a.interface())).succeeded("overlay status");
        assert!(shown.contains(&format!("\"mtu\":{mtu}")), "{shown}");
    }
}

#[test]
fn moved_into_another_namespace_it_goes_on_with_its_sockets_where_they_were() {
    let Some(pair) = Pair::new("overlay-wg moves") else { return };
    if !lab::installed("overlay-wg moves", &[Stock::BoringTun.program()]) {
        return;
    }
    let (a, b, inside) = (&pair.a, &pair.b, pair.lab.host("inside"));
    let name = a.interface();
    let process = foreground(a);
    configure(a, b, &B.endpoint(Outside::V4, 51820), &B.allowed());
    let endpoint = A.endpoint(Outside::V4, 51820);
    let _theirs = stock_peer(&pair, Stock::BoringTun, Some(&endpoint));
    bring_up(&pair, a);
    both_directions(a, b);

    a.ip(&format!("link set {name} netns {}", inside.namespace()));
    assert!(!has_interface(a));
    bring_up(&pair, &inside);
    both_directions(&inside, b);
    assert!(ports(a).contains(":51820") && ports(&inside).is_empty(), "the sockets stayed");

    // What is done to it there is noticed here.
    inside.ip(&format!("link set {name} down"));
    within(SHORTLY, "the port to be free", || ports(a).is_empty().then_some(()));
    inside.ip(&format!("link set {name} mtu 1300 up"));
    // The kernel takes IPv6 addresses away from an interface that goes down.
    inside.ip(&format!("address add {} dev {name}", A.inner()[1]));
    both_directions(&inside, b);
    inside.exec(format!("ping -n -c 1 -W 5 -M do -s 1272 {}", B.v4));
    let shown = a.overlay(format!("status {name} --json")).succeeded("overlay status");
    assert!(shown.contains("\"mtu\":1300"), "{shown}");
    a.exec(format!("wg set {name} peer {} persistent-keepalive 25", b.public_key()));

    // Renamed and moved home, and away again.
    inside.ip(&format!("link set {name} down"));
    inside.ip(&format!("link set {name} name elsewhere"));
    inside.ip(&format!("link set elsewhere netns {}", a.namespace()));
    a.ip(&format!("link set elsewhere name {name}"));
    bring_up(&pair, a);
    both_directions(a, b);
    a.ip(&format!("link set {name} netns {}", inside.namespace()));
    bring_up(&pair, &inside);
    both_directions(&inside, b);

    inside.ip(&format!("link delete {name}"));
    let finished = process.finish_within(SHORTLY);
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(!socket(a).exists() && ports(a).is_empty());
}

#[test]
fn a_namespace_that_is_deleted_ends_the_interface_in_it() {
    let Some(pair) = Pair::new("overlay-wg, namespace deleted") else { return };
    let (a, name) = (&pair.a, pair.a.interface());
    for is_up in [false, true] {
        let inside = pair.lab.host(if is_up { "up" } else { "down" });
        let process = foreground(a);
        a.ip(&format!("link set {name} netns {}", inside.namespace()));
        if is_up {
            inside.ip(&format!("link set {name} up"));
            within(SHORTLY, "a port", || (!ports(a).is_empty()).then_some(()));
        }
        // By the program itself: one that runs on a host of the lab sees other mounts.
        let deleted = Command::new("ip").args(["netns", "delete", inside.namespace()]).status();
        assert!(deleted.expect("iproute2").success());
        let finished = process.finish_within(SHORTLY);
        assert_eq!(finished.code, 0, "up: {is_up}: {finished:?}");
        assert!(!socket(a).exists());
    }
}

/// One packet each way, which is enough to say that it goes on: nothing is tried twice.
#[track_caller]
fn both_directions(inside: &Host, far: &Host) {
    inside.exec(format!("ping -n -c 1 -W 8 {}", B.v4));
    far.exec(format!("ping -n -c 1 -W 8 {}", A.v4));
    far.exec(format!("ping -n -c 1 -W 8 {}", A.v6));
}

fn unix_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
