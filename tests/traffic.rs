//! Ordinary programs over the tunnel: two hosts, two daemons, and ping, curl, gRPC, ssh, scp and iperf3, which do not
//! know about it.

mod lab;

use std::time::Duration;

use lab::services::{self, SshServer, random_file, sha256};
use lab::{A, B, Outside, Pair, Pings, SHORTLY, Star, within};

const TWO_MINUTES: Duration = Duration::from_secs(120);
/// The time between two pings.
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn ping_works_in_both_families_inside_over_both_families_outside() {
    for outside in [Outside::V4, Outside::V6] {
        let Some(pair) = Pair::new("ping") else { return };
        let (on_a, on_b) = pair.up(outside);
        for (from, to) in [(&pair.a, B), (&pair.b, A)] {
            for address in [to.v4, to.v6] {
                from.reaches(address);
                from.exec(format!("ping -n -c 5 -i 0.05 -W 2 {address}"));
                Pings::new(5, PAUSE).are_answered(from, address);
                // In fragments.
                Pings::new(3, PAUSE).of(5_000).are_answered(from, address);
            }
        }
        let endpoint = on_a.peer(&pair.b)["endpoint"].clone();
        assert_eq!(endpoint, B.endpoint(outside, 51820), "the tunnel goes over {outside:?}");
        on_a.stop();
        on_b.stop();
    }
}

#[test]
fn the_first_packet_is_kept_until_the_handshake_is_done() {
    let Some(pair) = Pair::new("first packet") else { return };
    let _on_b = pair.b.overlay_up(&pair.config_of_b_waiting());
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let said = pair.a.exec(format!("ping -n -c 1 -W 5 {}", B.v4));
    assert!(said.contains("1 received"), "{said}");
}

#[test]
fn http_grpc_ssh_and_scp_are_byte_exact_in_both_directions_at_once_and_in_both_families() {
    if !lab::installed("http, grpc, ssh", &["curl", "sshd", "ssh-keygen", "scp", services::PYTHON]) {
        return;
    }
    let Some(pair) = Pair::new("http, grpc, ssh") else { return };
    let _daemons = pair.up(Outside::V4);
    let hosts = [(&pair.a, B), (&pair.b, A)];
    let files = hosts.map(|(host, _)| random_file(host, "served", 8 << 20));
    let _http = [0, 1].map(|at| services::http_server(hosts[at].0, hosts[at].0.dir()));
    let _grpc = hosts.map(|(host, _)| services::grpc_server(host));
    let ssh = hosts.map(|(host, _)| SshServer::start(host));

    // All programs start before any is waited for: two directions, two families, four programs.
    let mut programs = Vec::new();
    let mut copies = Vec::new();
    for (at, (from, to)) in hosts.into_iter().enumerate() {
        let there = 1 - at;
        let (ours, theirs) = (&files[at], &files[there]);
        for address in [to.v4, to.v6] {
            let copy = |kind: &str| from.dir().join(format!("{kind}-{address}"));
            programs.push(services::curl(from, address, "served", &copy("http")));
            copies.push((copy("http"), theirs));
            programs.push(services::grpc_call(from, address, 3 << 20));
            programs.push(ssh[there].ssh(from, address, &format!("cat > {}", copy("ssh").display()), ours));
            copies.push((copy("ssh"), ours));
            programs.push(ssh[there].scp_to(from, address, ours, &copy("scp-to")));
            copies.push((copy("scp-to"), ours));
            programs.push(ssh[there].scp_from(from, address, theirs, &copy("scp-from")));
            copies.push((copy("scp-from"), theirs));
        }
    }
    for program in programs {
        program.succeed_within(TWO_MINUTES);
    }
    assert_eq!(copies.len(), 16);
    for (copy, original) in copies {
        assert_eq!(sha256(&copy), sha256(original), "{}", copy.display());
    }
}

#[test]
fn iperf3_runs_both_ways_over_tcp_and_udp() {
    let Some(pair) = Pair::new("iperf3") else { return };
    let (on_a, on_b) = pair.up(Outside::V4);
    for how in ["", "-R", "--bidir", "-P 4", "-u -b 20M -l 1200", "-u -b 20M -l 1200 -R"] {
        // One server for each client: after a test, a server closes its listener and resets clients that connected in
        // the meantime.
        let _server = pair.b.spawn("iperf3 -s -1");
        pair.b.wait_for_listener(5201);
        let json = pair.a.exec(format!("iperf3 -J -t 1 -c {} {how}", B.v4));
        let report: serde_json::Value = serde_json::from_str(&json).expect("iperf3 -J writes JSON");
        let received = report["end"]["sum_received"]["bytes"].as_u64().or(report["end"]["sum"]["bytes"].as_u64());
        assert!(received.is_some_and(|bytes| bytes > 1_000_000), "`{how}`: {json}");
    }
    // Both ends count the same traffic: one has received what the other has sent, except for packets in flight.
    let sent = on_a.peer(&pair.b)["sent_bytes"].as_u64().expect("a number");
    let received = on_b.peer(&pair.a)["received_bytes"].as_u64().expect("a number");
    assert!(received > 4_000_000 && received <= sent, "sent {sent}, received {received}");
}

#[test]
fn one_tcp_stream_survives_a_plain_wire_without_offloads() {
    let Some(pair) = Pair::new("plain wire") else { return };
    pair.a.offloads_off(&pair.b);
    pair.b.offloads_off(&pair.a);
    let _daemons = pair.up(Outside::V4);
    let file = random_file(&pair.a, "file", 16 << 20);
    for (from, to, address) in [(&pair.a, &pair.b, B.v4), (&pair.b, &pair.a, A.v6)] {
        assert_eq!(services::tcp_transfer(from, to, address, &file), sha256(&file));
    }
}

#[test]
fn a_tcp_syn_leaves_and_arrives_with_an_mss_that_fits_the_tunnel() {
    if !lab::installed("mss", &["tcpdump"]) {
        return;
    }
    let Some(pair) = Pair::new("mss") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4).replacen("[[peer]]", "mtu = 1300\n\n[[peer]]", 1));
    let _on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    pair.a.reaches(B.v4);
    let mss_seen_on_b = |from_mss: u32| {
        // The kernel of `a` is told to offer a larger MSS than the tunnel carries. On `b` we look at what comes out.
        pair.a.ip(&format!("route replace {}/32 dev {} advmss {from_mss}", B.v4, pair.a.interface()));
        syn_mss(&pair, &pair.b, || {
            pair.a.run(format!("socat -u OPEN:/dev/null TCP4:{}:9,connect-timeout=1", B.v4));
        })
    };
    assert_eq!(mss_seen_on_b(8000), 1300 - 40, "clamped on the way out");
    assert_eq!(mss_seen_on_b(900), 900, "a smaller one is left alone");

    // `b` has the larger MTU and offers a matching MSS, which `a` clamps on arrival.
    let arriving = syn_mss(&pair, &pair.a, || {
        pair.b.run(format!("socat -u OPEN:/dev/null TCP4:{}:9,connect-timeout=1", A.v4));
    });
    assert_eq!(arriving, 1300 - 40, "clamped on the way in");
    let arriving = syn_mss(&pair, &pair.a, || {
        pair.b.run(format!("socat -u OPEN:/dev/null TCP6:[{}]:9,connect-timeout=1", A.v6));
    });
    assert_eq!(arriving, 1300 - 60, "an IPv6 header is 20 bytes longer");
}

/// The MSS of the next SYN that the tunnel interface of `host` delivers, while `connect` makes the other host send one.
fn syn_mss(_pair: &Pair, host: &lab::Host, connect: impl FnOnce()) -> u32 {
    // tcpdump's own tcp[] works only for IPv4. For IPv6 the flags are at a fixed offset.
    let filter = "inbound and (tcp[tcpflags] == tcp-syn or (ip6 and ip6[6] == 6 and ip6[53] == 2))";
    let filter = filter.strip_prefix("inbound and ").unwrap_or(filter);
    let capture = host.spawn(["tcpdump", "-n", "-l", "-c", "1", "-i", host.interface(), filter]);
    within(SHORTLY, "tcpdump to listen", || capture.stderr().contains("listening on").then_some(()));
    connect();
    let line = capture.succeed_within(SHORTLY);
    let mss = line.split("mss ").nth(1).and_then(|rest| rest.split([',', ']']).next());
    mss.and_then(|mss| mss.parse().ok()).unwrap_or_else(|| panic!("no mss in {line}"))
}

#[test]
fn a_packet_too_big_for_the_tunnel_is_answered_with_the_size_that_fits() {
    let Some(pair) = Pair::new("too big") else { return };
    let (on_a, _on_b) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let mtu = on_a.status()["interface"]["mtu"].as_u64().expect("a number");
    assert_eq!(mtu, 1420, "a wire of 1500, less 80");
    within(SHORTLY, "the path to be found", || {
        let known = &on_a.peer(&pair.b)["path_mtu"];
        (known["state"] == "found").then(|| assert_eq!(known["mtu"], 1440, "a wire of 1500, less 60"))
    });
    // The MTU of the interface and of its routes is raised by hand. The kernel then sends large packets into it, and
    // the daemon must answer them.
    pair.a.ip(&format!("link set {} mtu 9000", pair.a.interface()));
    for peer in [format!("{}/32", B.v4), format!("{}/128", B.v6)] {
        pair.a.ip(&format!("route replace {peer} dev {} mtu 9000", pair.a.interface()));
    }
    let said = pair.a.run(format!("ping -n -M do -c 1 -W 5 -s 2000 {}", B.v4));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stdout.contains(&format!("From {}", B.v4)),
        "the source is the refused packet's destination: {said:?}"
    );
    assert!(said.stdout.contains("Frag needed and DF set (mtu = 1440)"), "{said:?}");
    let said = pair.a.run(format!("ping -n -M do -c 1 -W 5 -s 2000 {}", B.v6));
    assert!(said.stdout.contains("Packet too big: mtu=1440"), "{said:?}");
    // The kernel has accepted the answer: its packets fit from now on.
    for address in [B.v4, B.v6] {
        let route = pair.a.ip(&format!("route get {address}"));
        assert!(route.contains("mtu 1440"), "{route}");
    }
    let file = random_file(&pair.a, "file", 1 << 20);
    assert_eq!(services::tcp_transfer(&pair.a, &pair.b, B.v4, &file), sha256(&file));
}

#[test]
fn the_allow_list_opens_what_it_names_and_silently_drops_the_rest() {
    let Some(pair) = Pair::new("allow") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V4));
    let on_b = pair.b.overlay_up(&(pair.config_of_b(Outside::V4) + "allow = [\"tcp/2222\", \"udp/7000-7001\"]\n"));
    let served = random_file(&pair.b, "served", 100_000);
    let back = random_file(&pair.a, "served", 100_000);
    let _open = services::http_server_at(&pair.b, pair.b.dir(), 2222);
    let _closed = services::http_server_at(&pair.b, pair.b.dir(), services::HTTP);
    let _at_a = services::http_server(&pair.a, pair.a.dir());
    let fetch = |from: &lab::Host, url: &str, into: &str| {
        from.run(format!("curl -sS --fail --noproxy * --max-time 5 -o {} {url}", from.dir().join(into).display()))
    };

    // What is listed gets through, in both families.
    for address in [B.v4, B.v6] {
        let url = format!("http://{}:2222/served", services::bracketed(address));
        let said = fetch(&pair.a, &url, "copy");
        assert_eq!((said.code, sha256(&pair.a.dir().join("copy"))), (0, sha256(&served)), "{said:?}");
    }
    // What is not listed is dropped without an answer and counted. (curl's code 28 is a timeout, 7 would be a refusal.)
    let before = on_b.dropped("not_allowed");
    assert_eq!(fetch(&pair.a, &format!("http://{}:8000/served", B.v4), "none").code, 28);
    assert_eq!(pair.a.run(format!("ping -n -c 2 -i 0.2 -W 1 {}", B.v4)).code, 1);
    assert_eq!(pair.a.run(format!("ping -n -c 2 -i 0.2 -W 1 {}", B.v6)).code, 1);
    let counted = on_b.dropped("not_allowed") - before;
    assert!(counted >= 5, "a SYN and four echoes at least: {counted}");
    // A range includes both its ends and nothing beyond them.
    for (port, arrives) in [(6999, false), (7000, true), (7001, true), (7002, false)] {
        let listener = pair.b.spawn(format!("socat -u UDP4-RECVFROM:{port} STDOUT"));
        within(SHORTLY, "a udp listener", || {
            (!pair.b.exec(format!("ss -Hlun sport = :{port}")).is_empty()).then_some(())
        });
        let before = on_b.dropped("not_allowed");
        pair.a.shell(&format!("echo hello | socat -u STDIN UDP4:{}:{port}", B.v4));
        if arrives {
            assert_eq!(listener.succeed_within(SHORTLY), "hello\n");
        } else {
            within(SHORTLY, "the datagram to be counted", || (on_b.dropped("not_allowed") > before).then_some(()));
            assert_eq!(listener.stdout(), "");
        }
    }
    // Answers to what `b` itself opens come back, whatever the list says.
    let said = fetch(&pair.b, &format!("http://{}:8000/served", A.v4), "copy");
    assert_eq!((said.code, sha256(&pair.b.dir().join("copy"))), (0, sha256(&back)), "{said:?}");
    pair.b.reaches(A.v4);
    pair.b.reaches(A.v6);
    // So do the errors of such flows: a closed port is reported at once.
    let said = fetch(&pair.b, &format!("http://{}:8001/", A.v4), "none");
    assert_eq!(said.code, 7, "{said:?}");
    let refused = pair.b.run(["sh", "-c", &format!("echo x | socat -t 5 - UDP4:{}:8001", A.v4)]);
    assert!(refused.stderr.contains("Connection refused"), "{refused:?}");
}

#[test]
fn an_empty_allow_list_lets_only_answers_in() {
    let Some(pair) = Pair::new("allow nothing") else { return };
    let _on_a = pair.a.overlay_up(&pair.config_of_a(Outside::V6));
    let on_b = pair.b.overlay_up(&(pair.config_of_b(Outside::V6) + "allow = []\n"));
    pair.b.reaches(A.v4);
    pair.b.reaches(A.v6);
    assert_eq!(pair.a.run(format!("ping -n -c 1 -W 1 {}", B.v4)).code, 1);
    assert_eq!(pair.a.run(format!("ping -n -c 1 -W 1 {}", B.v6)).code, 1);
    assert_eq!(on_b.dropped("not_allowed"), 2);
}

#[test]
fn of_overlapping_allowed_ips_the_most_specific_wins() {
    let Some(star) = Star::new("most specific") else { return };
    let Star { a, b, c, .. } = &star;
    let _others = [b, c].map(|host| host.overlay_up(&star.config_of(host)));
    // `b` has the whole network, and `c` has one address of it.
    let config = star.config_of_a(&[(b, ""), (c, "")]).replace("10.77.0.2/32", "10.77.0.0/24");
    let overlay = a.overlay_up(&config);
    a.reaches(star.inner(c));
    a.reaches(star.inner(b));
    let sent = |host| overlay.peer(host)["sent_packets"].as_u64().expect("a number");
    let before = (sent(b), sent(c));
    a.exec(format!("ping -n -c 10 -i 0.02 -W 2 {}", star.inner(c)));
    assert_eq!((sent(b), sent(c)), (before.0, before.1 + 10));
}

#[test]
fn a_virtual_ip_answers_on_the_tunnel_only() {
    let Some(pair) = Pair::new("weak host") else { return };
    let _on_b = pair.b.overlay_up(&pair.config_of_b_waiting());
    // `a` has no daemon. It has a route on the wire to the virtual IPs of `b`, like a neighbour on a hostile network.
    let wire = pair.a.link_to(&pair.b);
    pair.a.ip(&format!("route add {}/32 via {} dev {wire}", B.v4, B.outer_v4));
    pair.a.ip(&format!("-6 route add {}/128 via {} dev {wire}", B.v6, B.outer_v6));
    for address in [B.outer_v4, B.outer_v6] {
        pair.a.reaches(address);
    }
    for address in [B.v4, B.v6] {
        assert_eq!(pair.a.run(format!("ping -n -c 2 -i 0.2 -W 1 {address}")).code, 1, "{address} answers on the wire");
        pair.b.reaches(address);
    }
}
