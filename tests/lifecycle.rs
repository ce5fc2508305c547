//! Starting, running and stopping: what `overlay up` adds to a host and removes again, however it ends; reload, detach,
//! the service manager, `wg`, endpoints by name, and hosts without IPv6.

mod lab;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use lab::footprint::Footprint;
use lab::{A, B, Host, Lab, Outside, Overlay, Pair, Pings, SHORTLY, Star, within};
use rustix::process::Signal;
use serde_json::Value;

/// Routes everything into the tunnel. This needs policy rules and a routing table, which the kernel does not remove
/// with the interface.
const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];

#[test]
fn fifty_ups_and_downs_leave_the_host_as_it_was() {
    let Some(pair) = Pair::new("fifty times") else { return };
    let host = &pair.a;
    let narrow = pair.config_of_a(Outside::V4);
    let wide = everything_through_b(&pair);
    let before = Footprint::of(host);
    for round in 0..50 {
        let overlay = host.overlay_up(if round % 2 == 0 { &narrow } else { &wide });
        if round < 2 {
            let up = Footprint::of(host);
            assert_ne!(up, before, "the footprint sees what is added");
        }
        match round % 3 {
            0 => drop(overlay.stop()),
            1 => end_with(overlay, Signal::INT),
            _ => {
                host.overlay(format!("down {}", host.interface())).succeeded("overlay down");
                assert_eq!(overlay.finish_within(SHORTLY).code, 0);
            }
        }
        before.assert_unchanged(host);
    }
}

#[test]
fn what_kill_9_leaves_is_taken_away_by_down() {
    let Some(pair) = Pair::new("kill -9, down") else { return };
    let host = &pair.a;
    let before = Footprint::of(host);
    host.overlay_up(&everything_through_b(&pair)).kill9();
    assert_ne!(Footprint::of(host), before, "rules, sockets and tables outlive the process, else this shows nothing");
    let said = host.overlay(format!("down {}", host.interface()));
    assert_eq!(said.code, 0, "{said:?}");
    before.assert_unchanged(host);
    let again = host.overlay(format!("down {}", host.interface()));
    assert_eq!(again.code, 3, "nothing is left to take down: {again:?}");
}

#[test]
fn what_kill_9_leaves_is_taken_away_by_the_next_up() {
    let Some(pair) = Pair::new("kill -9, up") else { return };
    let host = &pair.a;
    let _far = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    let before = Footprint::of(host);
    for _ in 0..3 {
        host.overlay_up(&everything_through_b(&pair)).kill9();
    }
    let overlay = host.overlay_up(&pair.config_of_a(Outside::V4));
    host.reaches(B.v4);
    assert_eq!(host.ip("-4 rule show").lines().count(), 3, "the rules of the killed ones are gone");
    overlay.stop();
    before.assert_unchanged(host);
}

#[test]
fn a_killed_daemon_of_one_namespace_is_not_cleaned_up_in_another() {
    let Some(pair) = Pair::new("namespaces") else { return };
    pair.a.overlay_up(&everything_through_b(&pair)).kill9();
    let (here, there) = (Footprint::of_namespace(&pair.a), Footprint::of_namespace(&pair.b));
    assert!(pair.a.ip("-4 rule show").lines().count() > 3, "there is something that must be left alone");
    // The same runtime folder, seen from a different namespace.
    let folder = pair.a.runtime_dir();
    let line =
        format!("{} --runtime-dir {} down {}", env!("CARGO_BIN_EXE_overlay"), folder.display(), pair.a.interface());
    pair.b.run(&line);
    there.assert_unchanged(&pair.b);
    here.assert_unchanged(&pair.a);
    assert_eq!(pair.a.overlay(format!("down {}", pair.a.interface())).code, 0, "at home it can still be cleaned up");
}

#[test]
fn detached_it_returns_when_ready_and_goes_on_until_down() {
    let Some(pair) = Pair::new("detach") else { return };
    let host = &pair.a;
    let _far = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    let before = Footprint::of(host);
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let said = host.overlay(format!("up -d {}", config.display()));
    assert_eq!(said.code, 0, "{said:?}");
    // Ready means ready: nothing is waited for here.
    let said = host.run(format!("ping -n -c 1 -W 5 {}", B.v4));
    assert_eq!(said.code, 0, "{said:?}");
    let status = host.overlay("status --json").succeeded("overlay status");
    assert!(status.contains("\"overlay.status.v1\""), "{status}");
    host.overlay("down").succeeded("overlay down");
    fs::remove_file(host.runtime_dir().join(format!("{}.log", host.interface()))).expect("a detached daemon has a log");
    before.assert_unchanged(host);
}

#[test]
fn detached_it_reports_what_is_wrong_before_it_returns() {
    let Some(pair) = Pair::new("detach, refused") else { return };
    let host = &pair.a;
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let _occupant = host.spawn("socat -u UDP4-RECV:51820 /dev/null");
    within(SHORTLY, "the port to be taken", || (!host.exec("ss -Hlun sport = :51820").is_empty()).then_some(()));
    let said = host.overlay(format!("up -d {}", config.display()));
    assert_eq!(said.code, 9, "{said:?}");
    assert!(said.stderr.contains("51820"), "{said:?}");
    assert_eq!(host.overlay("status").code, 3);
}

#[test]
fn a_reload_adds_removes_and_changes_peers_while_another_one_does_not_notice() {
    let Some(star) = Star::new("reload") else { return };
    let Star { a, b, c, d, .. } = &star;
    let _others = [b, c, d].map(|host| host.overlay_up(&star.config_of(host)));
    let overlay = a.overlay_up(&star.config_of_a(&[(b, ""), (c, "")]));
    a.reaches(star.inner(b));
    a.reaches(star.inner(c));
    let before = overlay.peer(b);
    let pings = Pings::new(200, Duration::from_millis(20)).start(a, star.inner(b));

    fs::write(overlay.config(), star.config_of_a(&[(b, ""), (d, "")])).expect("our own file");
    let report = reload(a);
    assert_eq!(
        (&report["added"], &report["removed"]),
        (&Value::from(vec!["d"]), &Value::from(vec!["c"])),
        "{report:#}"
    );
    assert_eq!((&report["changed"], &report["unchanged"]), (&Value::Array(vec![]), &Value::from(1)), "{report:#}");
    a.reaches(star.inner(d));
    assert_ne!(a.run(format!("ping -n -c 1 -W 1 {}", star.inner(c))).code, 0, "c is gone");
    assert!(!overlay.status()["peers"].to_string().contains(c.public_key()));

    let changed = "persistent_keepalive = 7\nallow = [\"icmp\"]\n";
    fs::write(overlay.config(), star.config_of_a(&[(b, ""), (d, changed)])).expect("our own file");
    let report = reload(a);
    assert_eq!((&report["changed"], &report["unchanged"]), (&Value::from(vec!["d"]), &Value::from(1)), "{report:#}");
    assert_eq!(overlay.peer(d)["persistent_keepalive"], 7);
    a.reaches(star.inner(d));

    pings.are_answered();
    let after = overlay.peer(b);
    for unchanged in ["handshakes", "latest_handshake", "endpoint"] {
        assert_eq!(after[unchanged], before[unchanged], "{unchanged}");
    }
    let received = |peer: &Value| peer["received_packets"].as_u64().expect("a number");
    assert!(received(&after) >= received(&before) + 200, "counters go on: {before:#} {after:#}");
    overlay.stop();
}

#[test]
fn the_interface_takes_what_a_path_may_carry_and_the_search_for_it_is_switched_live() {
    let Some(pair) = Pair::new("mtu") else { return };
    let off = |config: String| format!("{config}\n[tuning]\nmtu_discovery = \"off\"\n");
    let overlay = pair.a.overlay_up(&off(pair.config_of_a(Outside::V4)));
    let _on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    pair.a.reaches(B.v4);
    let link = pair.a.ip(&format!("link show dev {}", pair.a.interface()));
    assert!(link.contains("mtu 1440"), "a wire of 1500, less 60: {link}");
    for to in [B.v4, B.v6] {
        let route = pair.a.ip(&format!("route get {to}"));
        assert!(route.contains("mtu 1420"), "less 80, as long as nothing is known: {route}");
    }
    let status = overlay.status();
    assert_eq!((&status["interface"]["mtu"], &status["interface"]["max_mtu"]), (&1420.into(), &1440.into()));

    let said = pair.a.overlay("mtu").succeeded("overlay mtu");
    let line = said.lines().nth(1).expect("a line for b");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["b", "1420", "assumed", "-", "-", "1420"], "{said}");
    let said = pair.a.overlay(format!("mtu {} --json", B.v6)).succeeded("overlay mtu");
    let answer: Value = serde_json::from_str(&said).expect("JSON on stdout");
    assert_eq!((&answer["schema"], &answer["peers"][0]["mtu"]), (&"overlay.mtu.v1".into(), &1420.into()), "{said}");

    let before = overlay.peer(&pair.b);
    fs::write(overlay.config(), pair.config_of_a(Outside::V4)).expect("our own file");
    let report = reload(&pair.a);
    assert_eq!(report["changed"], Value::from(vec!["b"]), "{report:#}");
    assert!(report.get("needs_restart").is_none_or(|keys| *keys == Value::Array(vec![])), "{report:#}");
    pair.a.reaches(B.v4);
    assert_eq!(overlay.peer(&pair.b)["latest_handshake"], before["latest_handshake"], "the session goes on");
    // Checks `overlay mtu` and the routes. If the path's MTU is that of the interface, the routes do not name one.
    let is_told = |mtu: u16, route_says: Option<&str>| {
        let said = pair.a.overlay("mtu --json").succeeded("overlay mtu");
        let answer: Value = serde_json::from_str(&said).expect("JSON on stdout");
        let routes = [B.v4, B.v6].map(|to| pair.a.ip(&format!("route get {to}")));
        let is_said = |route: &String| route_says.map_or(!route.contains(" mtu "), |mtu| route.contains(mtu));
        (answer["peers"][0]["mtu"] == mtu && routes.iter().all(is_said)).then_some(())
    };
    within(SHORTLY, "the search to find 1440", || (overlay.peer(&pair.b)["path_mtu"]["mtu"] == 1440).then_some(()));
    within(SHORTLY, "1440 in `overlay mtu` and in the routes", || is_told(1440, None));

    fs::write(overlay.config(), off(pair.config_of_a(Outside::V4))).expect("our own file");
    let report = reload(&pair.a);
    assert_eq!(report["changed"], Value::from(vec!["b"]), "{report:#}");
    within(SHORTLY, "1420 again in `overlay mtu` and in the routes", || is_told(1420, Some(" mtu 1420 ")));
    pair.a.reaches(B.v4);
    assert_eq!(overlay.peer(&pair.b)["latest_handshake"], before["latest_handshake"], "the session still goes on");
    overlay.stop();
}

#[test]
fn the_interface_gets_room_for_a_wider_way_once_a_peer_calls_from_there() {
    let Some(pair) = Pair::new("wider") else { return };
    for (host, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        host.ip(&format!("link set {} mtu 9000", host.link_to(to)));
    }
    let on_a = pair.a.overlay_up(&pair.config_of_a_waiting());
    let mtu = || on_a.status()["interface"]["mtu"].as_u64().zip(on_a.status()["interface"]["max_mtu"].as_u64());
    assert_eq!(mtu(), Some((1420, 1440)), "nothing is known of where b is, and there is no default route");
    let _on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    pair.b.reaches(A.v4);
    within(SHORTLY, "room for 9000, less 60", || (mtu() == Some((1420, 8940))).then_some(()));
    assert!(pair.a.ip(&format!("link show dev {}", pair.a.interface())).contains("mtu 8940"));
    fs::write(on_a.config(), pair.config_of_a_waiting()).expect("our own file");
    reload(&pair.a);
    assert_eq!(mtu(), Some((1420, 8940)), "b is still there");
    pair.a.reaches(B.v4);
}

#[test]
fn a_bad_config_is_refused_by_reload_and_the_old_one_stays_in_force() {
    let Some(pair) = Pair::new("bad reload") else { return };
    let (overlay, _far) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let before = overlay.peer(&pair.b);
    let footprint = Footprint::of(&pair.a);
    for bad in
        ["no toml at all [", "[interface]\nname = \"other\"\n", &pair.config_of_a(Outside::V4).replace("/32", "/33")]
    {
        fs::write(overlay.config(), bad).expect("our own file");
        let said = pair.a.overlay("reload");
        assert_eq!(said.code, 5, "{said:?}");
        assert!(said.stderr.contains("error: "), "{said:?}");
        footprint.assert_unchanged(&pair.a);
    }
    pair.a.reaches(B.v4);
    let after = overlay.peer(&pair.b);
    assert_eq!(after["handshakes"], before["handshakes"]);
    assert_eq!(after["allowed_ips"], before["allowed_ips"]);
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_reloading_and_stopping() {
    let Some(pair) = Pair::new("sd_notify") else { return };
    let host = &pair.a;
    let path = host.dir().join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket in the lab's folder");
    socket.set_read_timeout(Some(SHORTLY)).expect("a timeout");
    let hears = |what: &str| {
        let mut message = [0; 1024];
        loop {
            let length = socket.recv(&mut message).unwrap_or_else(|error| panic!("no {what}: {error}"));
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if text.lines().any(|line| line == what) {
                return text;
            }
        }
    };
    let config = host.write("overlay.toml", pair.config_of_a(Outside::V4));
    let mut command = host.overlay_command(format!("up {}", config.display()));
    command.env("NOTIFY_SOCKET", &path);
    let overlay = Overlay::from_command(host, command);
    hears("READY=1");
    assert!(Footprint::of(host) != Footprint::of(&pair.b), "the interface is there when it says so");
    reload(host);
    let reloading = hears("RELOADING=1");
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    hears("READY=1");
    overlay.signal(Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(overlay.finish_within(SHORTLY).code, 0);
}

#[test]
fn wg_shows_interface_and_peers_through_the_uapi_socket() {
    let Some(pair) = Pair::new("wg show") else { return };
    let (a, b) = (&pair.a, &pair.b);
    let psk = a.exec("wg genpsk");
    let psk_file = a.write_secret("psk", &psk);
    let keys = format!("preshared_key_file = \"{}\"\npersistent_keepalive = 25\n", psk_file.display());
    let overlay = a.overlay_up(&(pair.config_of_a(Outside::V4) + &keys));
    let _far = b.overlay_up(&(pair.config_of_b(Outside::V4) + &keys));
    a.reaches(B.v4);

    let shown = a.exec(format!("wg show {}", a.interface()));
    for expected in [
        &format!("interface: {}", a.interface()),
        &format!("  public key: {}", a.public_key()),
        "  private key: (hidden)",
        "  listening port: 51820",
        &format!("peer: {}", b.public_key()),
        "  preshared key: (hidden)",
        "  endpoint: 10.1.0.2:51820",
        "  allowed ips: 10.77.0.2/32, fd77::2/128",
        "  persistent keepalive: every 25 seconds",
    ] {
        assert!(shown.lines().any(|line| line == expected), "`{expected}` in\n{shown}");
    }
    let dump = a.exec(format!("wg show {} dump", a.interface()));
    let lines: Vec<Vec<_>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    let private_key = fs::read_to_string(a.private_key_file()).expect("our own file");
    assert_eq!(lines[0], [private_key.trim(), a.public_key(), "51820", "off"]);
    let peer = &lines[1];
    assert_eq!(peer[..4], [b.public_key(), psk.trim(), "10.1.0.2:51820", "10.77.0.2/32,fd77::2/128"]);
    let number = |field: usize| peer[field].parse::<u64>().expect("a number");
    let status = overlay.peer(b);
    assert_eq!(Some(number(4)), status["latest_handshake"].as_u64());
    assert!(number(5) > 0 && number(6) > 0, "{peer:?}");
    assert_eq!(peer[7], "25");
    assert!(a.exec("wg show interfaces").split_whitespace().any(|name| name == a.interface()));
}

#[test]
fn an_endpoint_by_host_name_is_resolved_and_asked_again_until_it_resolves() {
    let Some(pair) = Pair::new("host name") else { return };
    let (a, b) = (&pair.a, &pair.b);
    a.write_etc_hosts("127.0.0.1 localhost\n");
    let _far = b.overlay_up(&pair.config_of_b_waiting());
    let named = pair.config_of_a(Outside::V4).replace("10.1.0.2:51820", "b.lab.test:51820");
    // A name that does not resolve does not keep the daemon from starting.
    let overlay = a.overlay_up(&named);
    assert_eq!(overlay.peer(b)["endpoint"], Value::Null);
    assert_ne!(a.run(format!("ping -n -c 1 -W 1 {}", B.v4)).code, 0);
    a.write_etc_hosts("127.0.0.1 localhost\n10.1.0.2 b.lab.test\n");
    a.reaches_within(Duration::from_secs(60), B.v4);
    assert_eq!(overlay.peer(b)["endpoint"], "10.1.0.2:51820");
    overlay.stop();

    // A name that resolves immediately is used immediately, also in IPv6.
    a.write_etc_hosts("127.0.0.1 localhost\nfd01::2 b.lab.test\n");
    let overlay = a.overlay_up(&named);
    a.reaches(B.v4);
    assert_eq!(overlay.peer(b)["endpoint"], "[fd01::2]:51820");
}

#[test]
fn a_host_without_ipv6_comes_up_and_works() {
    let Some(lab) = Lab::new("no ipv6") else { return };
    let (a, b) = (lab.host("a"), lab.host("b"));
    for host in [&a, &b] {
        host.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    }
    lab.link(&a, &b, &["10.1.0.1/24"], &["10.1.0.2/24"]);
    let pair = Pair { a, b, lab };
    let before = Footprint::of(&pair.a);
    // The config has virtual IPs of both families. The IPv6 one cannot be assigned and must not get in the way.
    let (overlay, _far) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    pair.b.reaches(A.v4);
    overlay.stop();
    before.assert_unchanged(&pair.a);
}

#[test]
fn everything_can_be_routed_through_a_peer_while_its_endpoint_stays_outside() {
    let Some(pair) = Pair::new("default route") else { return };
    // An address that only the tunnel leads to and that does not belong to the tunnel interface.
    pair.b.ip("address add 192.0.2.77/32 dev lo");
    let _on_b =
        pair.b.overlay_up(&pair.config_of_b(Outside::V4).replacen("\n[[peer]]", "forward = true\n\n[[peer]]", 1));
    let _on_a = pair.a.overlay_up(&everything_through_b(&pair));
    pair.a.reaches(B.v4);
    pair.a.reaches(B.v6);
    pair.a.reaches("192.0.2.77");
    let route = pair.a.ip("route get 192.0.2.77");
    assert!(route.contains(pair.a.interface()), "{route}");
    let route = pair.a.ip(&format!("route get {}", B.outer_v4));
    assert!(route.contains("to-b"), "a connected network goes its own way: {route}");
}

/// A config with which `a` sends everything to `b`.
fn everything_through_b(pair: &Pair) -> String {
    let inner = A.inner();
    let endpoint = B.endpoint(Outside::V4, 51820);
    pair.a.interface_toml(&[&inner[0], &inner[1]]) + &pair.b.peer_toml(Some(&endpoint), &EVERYTHING)
}

#[track_caller]
fn end_with(overlay: Overlay, signal: Signal) {
    overlay.signal(signal);
    let ended = overlay.finish_within(SHORTLY);
    assert_eq!(ended.code, 0, "{signal:?}: {ended:?}");
}

#[track_caller]
fn reload(host: &Host) -> Value {
    let said = host.overlay("reload --json").succeeded("overlay reload");
    serde_json::from_str(&said).expect("JSON on stdout")
}
