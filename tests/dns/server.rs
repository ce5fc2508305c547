//! The DNS server on the virtual IP, as `dig` sees it.

use super::*;

/// Asks the server of an agent, on its own host.
#[track_caller]
fn dig(agent: &Agent, question: &str) -> String {
    dig_from(agent, &agent.v4(), question)
}

#[track_caller]
fn dig_from(agent: &Agent, server: &str, question: &str) -> String {
    agent.host.exec(format!("dig +tries=1 +time=3 @{server} {question}"))
}

/// The answers alone, one a line and sorted.
#[track_caller]
fn short(agent: &Agent, question: &str) -> String {
    let printed = dig(agent, &format!("+short {question}"));
    let mut lines: Vec<_> = printed.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn dig_gets_what_there_is_of_every_kind() {
    let Some(mut world) = Agents::new("dig") else { return };
    let hosts = ["alice", "bob"].map(|name| world.host(name));
    let more = ["", "--tag gpu --tag eu --service tcp/8000=http --service udp/443=quic"];
    for (host, more) in hosts.iter().zip(more) {
        let line =
            format!("init {} {more} --rendezvous {} -o {}", host.name(), world.url, Agent::of(host).config().display());
        Agent::of(host).verb(line).succeeded("overlay init");
    }
    let [mut alice, mut bob] = hosts.each_ref().map(Agent::of);
    for agent in [&mut alice, &mut bob] {
        agent.start();
        agent.is_registered(agent.host.clone().name());
    }
    befriend(&alice, "--want any --allow any", &bob, "");
    finds(&alice, "bob");

    let full = format!("bob.{DOMAIN}");
    assert_eq!(short(&alice, &format!("{full} A")), bob.v4());
    assert_eq!(short(&alice, &format!("{full} AAAA")), bob.v6());
    assert_eq!(short(&alice, &format!("-x {}", bob.v4())), format!("{full}."));
    assert_eq!(short(&alice, &format!("-x {}", bob.v6())), format!("{full}."));
    assert_eq!(short(&alice, &format!("_http._tcp.{DOMAIN} SRV")), format!("0 0 8000 {full}."));
    assert_eq!(short(&alice, &format!("_quic._udp.bob.{DOMAIN} SRV")), format!("0 0 443 {full}."));
    assert_eq!(short(&alice, &format!("gpu._tag.{DOMAIN} SRV")), format!("0 0 443 {full}.\n0 0 8000 {full}."));
    assert_eq!(short(&alice, &format!("gpu._tag.{DOMAIN} TXT")), "\"agent=bob\"");
    assert_eq!(
        short(&alice, &format!("{full} TXT")),
        r#""tag=gpu" "tag=eu" "service=tcp/8000=http" "service=udp/443=quic""#
    );
    assert!(short(&alice, &format!("{DOMAIN} SOA")).starts_with(&format!("ns.{DOMAIN}. hostmaster.{DOMAIN}. ")));
    let any = dig(&alice, &format!("{full} ANY"));
    assert!(any.contains(&bob.v4()) && any.contains(&bob.v6()) && any.contains("tag=gpu"), "{any}");

    for (question, code, authority) in [
        (format!("nobody.{DOMAIN} A"), "NXDOMAIN", 1),
        (format!("{full} MX"), "NOERROR", 1),
        (format!("{full} TYPE65280"), "NOERROR", 1),
        (format!("_tcp.{DOMAIN} A"), "NOERROR", 1),
        (format!("_ssh._tcp.{DOMAIN} SRV"), "NXDOMAIN", 1),
        ("example.org A".to_owned(), "REFUSED", 0),
        (format!("{DOMAIN} AXFR +tcp"), "", 0),
        ("version.bind TXT CH".to_owned(), "REFUSED", 0),
        (format!("{full} A +opcode=NOTIFY"), "NOTIMP", 0),
        (format!("{full} A +edns=1 +noednsnegotiation"), "BADVERS", 0),
    ] {
        let said = dig(&alice, &question);
        let expected = if code.is_empty() { "Transfer failed".to_owned() } else { format!("status: {code}") };
        assert!(said.contains(&expected), "{question}: {said}");
        assert!(code.is_empty() || said.contains(&format!("AUTHORITY: {authority}")), "{question}: {said}");
    }
    for carrier in ["+tcp", "+noedns", "+bufsize=512", "+bufsize=4096", "+dnssec"] {
        assert_eq!(short(&alice, &format!("{full} A {carrier}")), bob.v4(), "{carrier}");
    }
    let v6 = dig_from(&alice, &alice.v6(), &format!("{full} A +short"));
    assert_eq!(v6.trim(), bob.v4(), "the server on the IPv6 address");
}

#[test]
fn a_peer_that_may_open_everything_here_is_refused_an_answer() {
    let Some((_world, alice, bob)) = friends("strangers") else { return };
    finds(&bob, "alice");
    let said = dig_from(&bob, &alice.v4(), &format!("alice.{DOMAIN} A"));
    assert!(said.contains("status: REFUSED") && said.contains("ANSWER: 0"), "{said}");
    let tcp = bob.host.run(format!("dig +tcp +tries=1 +time=3 @{} alice.{DOMAIN} A", alice.v4()));
    assert_ne!(tcp.code, 0, "it is hung up on: {}", tcp.stdout);
    within(SHORTLY, "the count of strangers", || {
        let strangers = alice.daemon().status()["names"]["questions"]["stranger"].as_u64()?;
        (strangers >= 2).then_some(())
    });
}

#[test]
fn the_server_has_no_privilege_no_file_and_comes_back_after_a_kill() {
    let Some((_world, alice, bob)) = friends("answering") else { return };
    finds(&alice, "bob");
    let process = || {
        let pid = alice.daemon().pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the daemon runs");
        let is_it = |child: &&str| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("answer")
        };
        children.split_whitespace().find(is_it).map(str::to_owned)
    };
    let first = process().expect("the process that answers");
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).expect("it runs");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let open = std::fs::read_dir(format!("/proc/{first}/fd")).expect("it runs");
    let files: Vec<_> = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let is_key = |path: &std::path::PathBuf| path.to_string_lossy().contains("state");
    assert!(!files.iter().any(is_key), "{files:?}");
    alice.host.exec(["kill", "-9", &first]);
    within(SHORTLY, "a new process", || process().filter(|now| *now != first));
    assert_eq!(short(&alice, &format!("bob.{DOMAIN} A")), bob.v4());
}
