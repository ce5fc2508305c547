//! A running daemon configured through the UAPI: by the stock `wg`, and by requests that Debian's `wg` does not make
//! yet. Debian's wireguard-go gets the same requests where it can answer them.
#![allow(clippy::disallowed_methods, reason = "real time is what some of this is about")]

mod lab;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::{A, B, Host, Outside, Overlay, Pair, Process, SHORTLY, Star, installed, within, words};

/// How long a change of ten thousand peers or as many prefixes may take: what costs the square of it takes minutes.
const A_BULK: Duration = Duration::from_secs(10);
/// How long a change of one prefix may take beside them: what costs as much as all of them takes seconds.
const A_MOMENT: Duration = Duration::from_millis(200);

/// A `wg` command, with `IF` in place of the interface, and its standard input.
#[derive(Clone, Copy)]
struct Step<'a>(&'a str, &'a str);

/// Our daemon on `a` and Debian's wireguard-go on `b`, which get the same requests.
struct Both {
    _overlay: Overlay,
    _reference: Process,
    /// Dropped last.
    pair: Pair,
}

impl Both {
    /// Starts both. `None` if this machine cannot.
    fn new(name: &str) -> Option<Both> {
        if !installed(name, &["wireguard-go"]) {
            return None;
        }
        let pair = Pair::new(name)?;
        let overlay = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
        Some(Both { _overlay: overlay, _reference: wireguard_go(&pair.b), pair })
    }
}

#[test]
fn wg_sets_it_as_it_sets_wireguard_go() {
    let Some(both) = Both::new("wg as against wireguard-go") else { return };
    let (ours, reference) = (&both.pair.a, &both.pair.b);

    let [one, two, three] = ["wg genkey"; 3].map(|_| ours.exec("wg genkey").trim().to_owned());
    let [bob, carol, dave] = ["wg genkey"; 3].map(|_| public_key(ours, &ours.exec("wg genkey")));
    let psk = ours.exec("wg genpsk").trim().to_owned();
    let conf = format!(
        "[Interface]\nPrivateKey = {one}\nListenPort = 4001\nFwMark = 0x1234\n[Peer]\nPublicKey = {bob}\n\
         AllowedIPs = 10.9.0.0/24, fd09::/64\nEndpoint = 192.0.2.7:7\nPersistentKeepalive = 25\n\
         [Peer]\nPublicKey = {carol}\nPresharedKey = {psk}\nAllowedIPs = 10.9.0.0/28\n"
    );
    let added = format!("[Peer]\nPublicKey = {dave}\nAllowedIPs = 10.9.0.0/28, 10.10.0.0/16\n");
    let synced = format!(
        "[Interface]\nPrivateKey = {two}\nListenPort = 4002\n[Peer]\nPublicKey = {bob}\nAllowedIPs = 10.9.1.0/24\n"
    );
    let steps = [
        Step("setconf IF /dev/stdin", &conf),
        Step("addconf IF /dev/stdin", &added),
        Step(&format!("set IF peer {bob} persistent-keepalive off endpoint [2001:db8::7]:65535"), ""),
        Step(&format!("set IF peer {bob} allowed-ips 10.10.0.0/16,10.9.0.77/24"), ""),
        Step(&format!("set IF peer {carol} preshared-key /dev/stdin"), &psk),
        Step(&format!("set IF peer {carol} preshared-key /dev/null allowed-ips 0.0.0.0/0,::/0"), ""),
        Step("set IF fwmark 0", ""),
        Step("set IF listen-port 4003 fwmark 7", ""),
        Step("set IF private-key /dev/stdin", &three),
        Step(&format!("set IF peer {dave} remove peer {carol} allowed-ips ''"), ""),
        Step(&format!("set IF peer {}", public_key(ours, &three)), ""),
        Step("syncconf IF /dev/stdin", &synced),
        Step("set IF private-key /dev/null", ""),
        Step(&format!("set IF peer {dave} allowed-ips 10.0.0.0/8 peer {bob} remove"), ""),
        Step("setconf IF /dev/stdin", "[Interface]\nListenPort = 4004\n"),
    ];
    for Step(line, input) in steps {
        let answers = [ours, reference].map(|host| wg(host, line, input));
        assert_eq!(answers[0], answers[1], "wg {line}");
        let [shown, expected] = [ours, reference].map(what_wg_shows);
        assert_eq!(shown, expected, "after wg {line}");
    }
}

#[test]
fn operations_are_answered_with_the_numbers_of_wireguard_go() {
    let Some(both) = Both::new("errors as against wireguard-go") else { return };
    let (ours, reference) = (&both.pair.a, &both.pair.b);
    wg(reference, "set IF listen-port 51820 private-key /dev/stdin", &ours.exec("wg genkey"));
    let bob = format!("public_key={}\n", "bb".repeat(32));
    let carol = format!("public_key={}\n", "cc".repeat(32));
    for operation in [
        "fwmark=x\nlisten_port=4001\n",
        "hello\n",
        "hello=1\n",
        "listen_port=70000\n",
        "replace_peers=1\n",
        "private_key=00\n",
        "public_key=00\n",
        &format!("{bob}protocol_version=2\n"),
        &format!("{bob}allowed_ip=10.0.0.0/8\nallowed_ip=10.0.0.0/33\nallowed_ip=11.0.0.0/8\n"),
        &format!("{bob}endpoint=bob:1\n"),
        &format!("{carol}update_only=true\nallowed_ip=10.0.0.0/8\n"),
        &format!("{carol}remove=true\nallowed_ip=10.0.0.0/8\n"),
        &format!("{bob}allowed_ip=10.1.0.0/16\nreplace_allowed_ips=true\nallowed_ip=10.2.0.0/16\n"),
        &format!("{bob}update_only=true\npersistent_keepalive_interval=25\n{carol}allowed_ip=10.2.0.0/16\n"),
        &format!("{carol}remove=true\n{bob}remove=true\n"),
    ] {
        let [answer, expected] = [ours, reference].map(|host| set(host, operation));
        assert_eq!(answer, expected, "{operation}");
        let ends = [ours, reference].map(|host| wg(host, "show IF allowed-ips", "").1);
        assert_eq!(lines_of(&ends[0], reference), lines_of(&ends[1], reference), "after {operation}");
    }
}

#[test]
fn a_port_that_is_set_is_live_and_the_old_one_is_free_at_once() {
    let Some(pair) = Pair::new("listen port") else { return };
    let (a, b) = (&pair.a, &pair.b);
    let (overlay, _far) = pair.up(Outside::V4);
    a.reaches(B.v4);
    let before = overlay.peer(b)["handshakes"].clone();
    wg_set(a, "listen-port 4001");
    assert_eq!(udp_ports(a), ["4001", "4001"], "the old port is free");
    assert_eq!(overlay.status()["interface"]["listen_port"], 4001);
    // The session continues from the new port, and the remote end follows.
    a.reaches(B.v4);
    assert_eq!(overlay.peer(b)["handshakes"], before);
    assert!(b.exec(format!("wg show {} endpoints", b.interface())).contains("10.1.0.1:4001"));
    assert_eq!(overlay.status()["counters"]["udp_receive_overflow"], 0);

    // A port that another program uses is refused, and nothing changes.
    let _taken = a.spawn("socat -u UDP4-RECV:4002 /dev/null");
    within(SHORTLY, "socat to listen", || udp_ports(a).contains(&"4002".to_owned()).then_some(()));
    let refused = wg(a, "set IF listen-port 4002", "");
    assert!(refused.0 != 0 && refused.2.contains("Address already in use"), "{refused:?}");
    assert_eq!(a.exec(format!("wg show {} listen-port", a.interface())).trim(), "4001");
    a.reaches(B.v4);

    wg_set(a, "listen-port 0");
    let chosen = a.exec(format!("wg show {} listen-port", a.interface())).trim().to_owned();
    assert_ne!(chosen, "4001");
    assert_eq!(udp_ports(a).iter().filter(|port| **port == chosen).count(), 2, "in both families");
    a.reaches(B.v4);
    let mark = || a.exec("ss -Hlunpe").lines().filter(|line| line.contains("fwmark:0x7")).count();
    wg_set(a, "fwmark 7");
    assert_eq!(mark(), 2);
    wg_set(a, "listen-port 4001");
    assert_eq!(mark(), 2, "the mark is the new sockets' too");
    assert_eq!(overlay.status()["interface"]["fwmark"], 7);
}

#[test]
fn a_key_that_is_set_takes_effect_at_once() {
    let Some(pair) = Pair::new("new key") else { return };
    let (a, b) = (&pair.a, &pair.b);
    let (overlay, _far) = pair.up(Outside::V4);
    a.reaches(B.v4);
    let key = a.exec("wg genkey");
    let public = public_key(a, &key);
    let file = a.write_secret("new.key", &key);
    wg_set(a, &format!("private-key {}", file.display()));
    assert_eq!(overlay.status()["interface"]["public_key"], public.as_str());
    assert_ne!(overlay.peer(b)["state"], "connected");
    assert_ne!(a.run(format!("ping -n -c 1 -W 1 {}", B.v4)).code, 0, "b does not know the new key");
    wg_set(b, &format!("peer {public} allowed-ips {}/32,{}/128", A.v4, A.v6));
    a.reaches(B.v4);
    b.reaches(A.v6);

    // Without a key nothing works, and the drop reason says so.
    wg_set(a, "private-key /dev/null");
    assert_eq!(a.exec(format!("wg show {} private-key", a.interface())).trim(), "(none)");
    assert!(a.overlay("status").succeeded("overlay status").contains(words::NO_PRIVATE_KEY));
    let before = overlay.dropped("outbound_no_key");
    assert_ne!(a.run(format!("ping -n -c 1 -W 1 {}", B.v4)).code, 0);
    assert!(overlay.dropped("outbound_no_key") > before);

    // The file wins.
    a.overlay("reload").succeeded("overlay reload");
    assert_eq!(overlay.status()["interface"]["public_key"], a.public_key());
    wg_set(b, &format!("peer {} allowed-ips {}/32,{}/128", a.public_key(), A.v4, A.v6));
    a.reaches(B.v4);
}

#[test]
fn a_peer_of_the_file_that_wg_removes_and_adds_again_may_open_no_more_than_before() {
    let Some(pair) = Pair::new("setconf of showconf") else { return };
    let (a, b) = (&pair.a, &pair.b);
    let on_a = a.overlay_up(&(pair.config_of_a(Outside::V4) + "allow = [\"icmp\"]\n"));
    let _on_b = b.overlay_up(&pair.config_of_b(Outside::V4));
    b.reaches(A.v4);
    let saved = wg(a, "showconf IF", "").1;
    let (key, endpoint, allowed) = (b.public_key(), B.endpoint(Outside::V4, 51820), B.allowed().join(","));
    let (remove, add) =
        (format!("set IF peer {key} remove"), format!("set IF peer {key} endpoint {endpoint} allowed-ips {allowed}"));
    for steps in [&[Step("setconf IF /dev/stdin", &saved)][..], &[Step(&remove, ""), Step(&add, "")]] {
        for Step(line, input) in steps {
            assert_eq!(wg(a, line, input), (0, String::new(), String::new()), "wg {line}");
        }
        let peer = on_a.peer(b);
        assert_eq!((&peer["name"], &peer["allow"]), (&b.name().into(), &vec!["icmp"].into()), "{peer}");
        // The state that `b` has from the earlier session does not affect `a`.
        a.reaches(B.v4);
        b.reaches(A.v4);
        within(SHORTLY, "its path to be found again", || (on_a.peer(b)["path_mtu"]["mtu"] == 1440).then_some(()));
        let before = on_a.dropped("not_allowed");
        b.shell(&format!("echo hello | socat -u STDIN UDP4:{}:7000", A.v4));
        within(SHORTLY, "the datagram to be refused", || (on_a.dropped("not_allowed") > before).then_some(()));
    }
}

#[test]
fn an_allowed_ip_moves_to_the_peer_that_is_given_it_and_goes_from_the_one_it_is_taken_from() {
    let Some(star) = Star::new("moving prefixes") else { return };
    let (a, b, c) = (&star.a, &star.b, &star.c);
    let overlay = a.overlay_up(&star.config_of_a(&[(b, ""), (c, "")]));
    let _others = [b, c].map(|host| host.overlay_up(&star.config_of(host)));
    for host in [b, c] {
        host.ip("address add 192.0.2.77/32 dev lo");
        a.reaches(star.inner(host));
    }
    a.ip(&format!("route add 192.0.2.77 dev {}", a.interface()));
    let whose = |host: &Host| allowed_ips(a, host).contains(&"192.0.2.77/32".to_owned());

    wg_set(a, &format!("peer {} allowed-ips {}/32,192.0.2.77/32", b.public_key(), star.inner(b)));
    assert!(whose(b) && !whose(c));
    wg_set(a, &format!("peer {} allowed-ips {}/32,192.0.2.77/32", c.public_key(), star.inner(c)));
    assert!(whose(c) && !whose(b), "it moved");
    let sent = |host: &Host| overlay.peer(host)["sent_packets"].as_u64();
    let before = (sent(b), sent(c));
    a.run("ping -n -c 1 -W 1 192.0.2.77");
    assert_eq!((sent(b), sent(c)), (before.0, before.1.map(|packets| packets + 1)));

    // Removing a prefix from a peer that does not have it has no effect. Removing it from its owner does.
    let key = |host: &Host| format!("public_key={}\n", hex(host.public_key()));
    assert_eq!(set(a, &format!("{}allowed_ip=-192.0.2.77/32\n", key(b))), "errno=0");
    assert!(whose(c));
    assert_eq!(set(a, &format!("{}allowed_ip=-192.0.2.77/32\n", key(c))), "errno=0");
    assert!(!whose(b) && !whose(c));
    assert_eq!(allowed_ips(a, c), [format!("{}/32", star.inner(c))], "nothing else went");
    // update_only does not create a peer.
    let stranger = format!("public_key={}\n", "77".repeat(32));
    assert_eq!(set(a, &format!("{stranger}update_only=true\nallowed_ip=192.0.2.77/32\n")), "errno=0");
    assert_eq!(overlay.status()["peers"].as_array().map(Vec::len), Some(2));

    // Changes made over the UAPI hold until the file is applied again.
    wg_set(a, &format!("peer {} remove", b.public_key()));
    wg_set(a, &format!("peer {} endpoint 192.0.2.1:1 persistent-keepalive 7", c.public_key()));
    wg_set(a, &format!("peer {} allowed-ips 192.0.2.99/32", star.d.public_key()));
    let report = a.overlay("reload --json").succeeded("overlay reload");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let names = |list: &str| report[list].as_array().expect("a list").len();
    assert_eq!((names("added"), names("changed"), names("removed")), (1, 1, 1), "{report:#}");
    assert_eq!(overlay.peer(c)["endpoint"], "10.3.0.2:51820");
    a.reaches(star.inner(b));
    a.reaches(star.inner(c));
}

#[test]
fn a_hundred_and_thirty_thousand_prefixes_come_and_go_without_disturbing_another_peer() {
    let Some(star) = Star::new("130,000 prefixes") else { return };
    let (a, b, c) = (&star.a, &star.b, &star.c);
    let overlay = a.overlay_up(&star.config_of_a(&[(b, ""), (c, "")]));
    let _others = [b, c].map(|host| host.overlay_up(&star.config_of(host)));
    a.reaches(star.inner(b));
    a.reaches(star.inner(c));
    let before = overlay.peer(c)["handshakes"].clone();
    let pings = steady_pings(a, star.inner(c));

    let key = format!("public_key={}\n", hex(b.public_key()));
    let prefix = |n: u32| format!("{}/32", Ipv4Addr::from(0x0b00_0000 + n));
    let mut many = format!("{key}replace_allowed_ips=true\nallowed_ip={}/32\n", star.inner(b));
    (0..130_000).for_each(|n| writeln!(many, "allowed_ip={}", prefix(n)).expect("a string"));
    let time = |operation: &str| {
        let began = Instant::now();
        assert_eq!(set(a, operation), "errno=0");
        began.elapsed()
    };
    let all = time(&many);
    assert_eq!(allowed_ips(a, b).len(), 130_001);
    let again = time(&many);
    let one = time(&format!("{key}allowed_ip=10.99.0.1/32\nallowed_ip=-{}\n", prefix(7)));
    assert_eq!(allowed_ips(a, b).len(), 130_001);
    a.reaches(star.inner(b));
    wg_set(a, &format!("peer {} allowed-ips {}/32", b.public_key(), star.inner(b)));
    assert_eq!(allowed_ips(a, b).len(), 1);
    time(&many);
    let gone = time(&format!("{key}remove=true\n"));
    eprintln!("130,000 prefixes: {all:?}, again {again:?}, one more and one less {one:?}, removed {gone:?}");
    assert!(all < A_BULK && one < A_MOMENT, "{all:?} {one:?}");

    lost_none(pings);
    assert_eq!(overlay.peer(c)["handshakes"], before);
}

#[test]
fn ten_thousand_peers_come_and_go_without_disturbing_another() {
    let Some(star) = Star::new("10,000 peers") else { return };
    let (a, c) = (&star.a, &star.c);
    let overlay = a.overlay_up(&star.config_of_a(&[(c, "")]));
    let _other = c.overlay_up(&star.config_of(c));
    a.reaches(star.inner(c));
    let pings = steady_pings(a, star.inner(c));

    let mut conf = String::new();
    let mut gone = String::new();
    for n in 0..10_000u32 {
        let key = format!("{:08x}{}", n + 1, "42".repeat(28));
        writeln!(conf, "public_key={key}\npreshared_key={}\nreplace_allowed_ips=true", "24".repeat(32))
            .expect("a string");
        writeln!(conf, "endpoint=192.0.2.1:{}\npersistent_keepalive_interval=0", n + 1).expect("a string");
        for net in 11..16 {
            writeln!(conf, "allowed_ip={net}.{}.{}.0/24", n >> 8, n & 0xff).expect("a string");
        }
        writeln!(gone, "public_key={key}\nremove=true").expect("a string");
    }
    let time = |operation: &str| {
        let began = Instant::now();
        assert_eq!(set(a, operation), "errno=0");
        began.elapsed()
    };
    let before = resident(overlay.pid());
    let (added, again) = (time(&conf), time(&conf));
    let each = (resident(overlay.pid()) - before) / 10_000;
    assert!(each < 16 << 10, "{each} bytes for each peer");
    let shown = a.exec(format!("wg show {} allowed-ips", a.interface()));
    assert_eq!(shown.lines().count(), 10_001);
    let removed = time(&gone);
    eprintln!("10,000 peers: added {added:?}, set again {again:?}, removed {removed:?}, {each} bytes for each");
    assert_eq!(overlay.status()["peers"].as_array().map(Vec::len), Some(1));
    assert!(added < A_BULK, "{added:?}");
    lost_none(pings);
}

/// Starts Debian's wireguard-go on this host, without addresses, and brings it up like our daemon.
fn wireguard_go(host: &Host) -> Process {
    let process = host.spawn(format!("wireguard-go --foreground {}", host.interface()));
    within(SHORTLY, "wireguard-go to answer `wg`", || {
        (host.run(["wg", "show", host.interface()]).code == 0).then_some(())
    });
    host.ip(&format!("link set {} up", host.interface()));
    process
}

/// Runs a `wg` command, with `IF` replaced. Returns its exit code, standard output and standard error.
fn wg(host: &Host, line: &str, input: &str) -> (i32, String, String) {
    let file = host.write_secret("stdin", input);
    let line = format!("wg {} < {}", line.replace("IF", host.interface()), file.display());
    let finished = host.run(["sh", "-c", &line]);
    let nameless = |text: String| text.replace(host.interface(), "IF");
    (finished.code, nameless(finished.stdout), nameless(finished.stderr))
}

#[track_caller]
fn wg_set(host: &Host, what: &str) {
    host.exec(format!("wg set {} {what}", host.interface()));
}

/// The output of `wg showconf` and `wg show dump`, with peers and prefixes sorted because their order has no meaning.
/// Transfer counters are left out.
fn what_wg_shows(host: &Host) -> (Vec<String>, Vec<String>) {
    let sorted = |list: &str, separator: &str| {
        let mut parts: Vec<_> = list.split(separator).collect();
        parts.sort_unstable();
        parts.join(separator)
    };
    let dump = wg(host, "show IF dump", "").1;
    let counted = |index: usize| matches!(index, 5 | 6);
    let mut dump: Vec<_> = dump
        .lines()
        .map(|line| line.split('\t').enumerate().filter(|(index, _)| !counted(*index)).map(|(_, field)| field))
        .map(|fields| fields.map(|field| sorted(field, ",")).collect::<Vec<_>>().join("\t"))
        .collect();
    let all = wg(host, "show all dump", "").1;
    assert_eq!(all.lines().filter(|line| line.starts_with("IF\t")).count(), dump.len(), "`all` shows the same");
    dump.sort_unstable();
    let conf = wg(host, "showconf IF", "").1;
    let mut conf: Vec<_> = conf
        .split("\n\n")
        .map(|section| {
            section.trim().lines().map(|line| sorted(&line.replace(" = ", " = , "), ", ")).collect::<Vec<_>>()
        })
        .map(|lines| lines.join("\n"))
        .collect();
    conf.sort_unstable();
    (dump, conf)
}

/// The allowed IPs of a peer, as `wg` shows them.
fn allowed_ips(host: &Host, peer: &Host) -> Vec<String> {
    let shown = host.exec(format!("wg show {} allowed-ips", host.interface()));
    let line = shown.lines().find_map(|line| line.strip_prefix(peer.public_key()));
    line.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// The lines in sorted order, without those of the peer from our config.
fn lines_of(shown: &str, config_peer: &Host) -> Vec<String> {
    let mut lines: Vec<_> =
        shown.lines().filter(|line| !line.starts_with(config_peer.public_key())).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn public_key(host: &Host, private: &str) -> String {
    let file = host.write_secret("to-pub", private);
    host.shell(&format!("wg pubkey < {}", file.display())).trim().to_owned()
}

/// Sends a `set=1` with these lines directly over the socket, and returns the answer.
#[track_caller]
fn set(host: &Host, lines: &str) -> String {
    let path = Path::new("/var/run/wireguard").join(format!("{}.sock", host.interface()));
    let mut stream = UnixStream::connect(path).expect("the UAPI socket");
    stream.write_all(format!("set=1\n{lines}\n").as_bytes()).expect("it is read to its end");
    stream.shutdown(Shutdown::Write).expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    // wireguard-go treats the lines after an error as a new operation.
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Converts a key from WireGuard's base64 to the UAPI's hexadecimal.
fn hex(base64: &str) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let value = |digit: u8| digits.iter().position(|known| *known == digit).unwrap_or(0) as u32;
    let bytes = base64.as_bytes().chunks(4).flat_map(|group| {
        let word = group.iter().fold(0, |word, digit| word << 6 | value(*digit));
        word.to_be_bytes().into_iter().skip(1)
    });
    bytes.take(32).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The UDP ports that programs listen on.
fn udp_ports(host: &Host) -> Vec<String> {
    let listed = host.exec("ss -Hlun");
    let port = |line: &str| Some(line.split_whitespace().nth(3)?.rsplit_once(':')?.1.to_owned());
    listed.lines().filter_map(port).collect()
}

/// The resident memory of a process in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells");
    line.trim_end_matches("kB").trim().parse::<u64>().expect("a number") << 10
}

/// Pings every 20 ms until it is told to stop.
fn steady_pings(host: &Host, address: &str) -> Process {
    host.spawn(format!("ping -n -q -i 0.02 {address}"))
}

#[track_caller]
fn lost_none(pings: Process) {
    pings.signal(rustix::process::Signal::INT);
    let summary = pings.finish_within(SHORTLY).stdout;
    eprintln!("{}", summary.lines().filter(|line| line.contains("packet") || line.contains("rtt")).collect::<String>());
    let count = |what: &str| {
        let before =
            summary.split(what).next().and_then(|text| text.split([' ', '\n']).rev().find(|word| !word.is_empty()));
        before.and_then(|number| number.parse::<u32>().ok()).unwrap_or_else(|| panic!("`{what}` in {summary}"))
    };
    let (sent, received) = (count("packets transmitted"), count("received"));
    // The last answer may still be on its way.
    assert!(sent >= 10 && received + 1 >= sent, "{summary}");
}
