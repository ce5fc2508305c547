//! While a /0 is in force, the policy rules and the nft guard are two locks. If either is lost, nothing leaves in
//! clear, and the lost one is restored within a second.

use std::time::{Duration, Instant};

use super::capture::Capture;
use super::world::{OUTSIDE, World};
use crate::lab::{A_SECOND, Host, Overlay, Process, SHORTLY, within, words};

const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// By when the daemon knows a new network or route of the host: one second, and two waits of `ping`.
const KNOWN: Duration = Duration::from_secs(3);
/// The same behind twenty thousand notices.
const KNOWN_AT_LAST: Duration = Duration::from_secs(10);

/// Pings from one host to both outside addresses, a hundred a second.
struct Stream {
    pings: Vec<Process>,
}

impl Stream {
    fn start(host: &Host) -> Stream {
        Stream { pings: OUTSIDE.map(|address| host.spawn(format!("ping -n -i 0.01 {address}"))).into() }
    }

    /// How many answers each has received so far.
    fn answers(&self) -> Vec<usize> {
        self.pings.iter().map(|ping| ping.stdout().matches("time=").count()).collect()
    }

    /// Waits for this many more answers in both families.
    #[track_caller]
    fn flows_for(&self, answers: usize) {
        let before = self.answers();
        within(SHORTLY, "pings to be answered through the tunnel", || {
            self.answers().iter().zip(&before).all(|(now, before)| *now >= before + answers).then_some(())
        });
    }
}

/// Something that can be lost: its name, the command that removes it, and a check whether it exists.
struct Loss {
    what: &'static str,
    line: String,
    is_there: Box<dyn Fn(&Host) -> bool>,
}

fn losses(a: &Host) -> Vec<Loss> {
    let interface = a.interface().to_owned();
    let both = |line: &str| format!("{line}; {}", line.replace("ip ", "ip -6 "));
    let routed = |a: &Host| {
        ["-4", "-6"].iter().all(|family| !a.run(format!("ip {family} route show table 51820")).stdout.is_empty())
    };
    let addressed = {
        let interface = interface.clone();
        move |a: &Host| {
            let shown = a.ip(&format!("-o address show dev {interface}"));
            shown.contains("10.77.0.1/24") && shown.contains("fd77::1/64")
        }
    };
    let ruled = |a: &Host| {
        let shown = a.ip("-4 rule show") + &a.ip("-6 rule show");
        shown.matches("suppress_prefixlength 0").count() == 2 && shown.matches("lookup 51820").count() == 2
    };
    let guarded = |a: &Host| a.exec("nft list ruleset").contains(&format!("table inet overlay_{}", a.interface()));
    let is_up = {
        let interface = interface.clone();
        move |a: &Host| a.ip(&format!("link show dev {interface}")).contains(",UP")
    };
    let whole = {
        let (addressed, is_up) = (addressed.clone(), is_up.clone());
        move |a: &Host| is_up(a) && addressed(a) && routed(a)
    };
    vec![
        Loss {
            what: "policy rules",
            line: both("ip rule del prio 32764; ip rule del prio 32765"),
            is_there: Box::new(ruled),
        },
        Loss { what: "nft ruleset", line: "nft flush ruleset".into(), is_there: Box::new(guarded) },
        Loss { what: "routes", line: both("ip route flush table 51820"), is_there: Box::new(routed) },
        Loss {
            what: "addresses",
            line: format!("ip address flush dev {interface}"),
            is_there: Box::new(move |a| addressed(a) && routed(a)),
        },
        Loss { what: "link", line: format!("ip link set {interface} down"), is_there: Box::new(whole) },
    ]
}

#[test]
fn rate_either_lock_alone_lets_nothing_out_and_both_come_back() {
    let Some(world) = World::new("two locks") else { return };
    let World { a, b, c, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    let overlay = a.overlay_up(&world.config_of_a(&EVERYTHING, "forward = true\n"));
    for address in OUTSIDE {
        a.reaches(address);
        c.reaches(address);
    }
    let capture = Capture::start(a, &world.wire(), &World::in_clear());
    let streams = [Stream::start(a), Stream::start(c)];
    for Loss { what, line, is_there } in losses(a) {
        streams.iter().for_each(|stream| stream.flows_for(120));
        assert!(is_there(a), "{what} are there to be lost");
        a.shell(&line.replace("; ", " && "));
        let lost = Instant::now();
        let seen = capture.count();
        within(SHORTLY, &format!("the {what} to be put back"), || is_there(a).then_some(()));
        let took = lost.elapsed();
        streams.iter().for_each(|stream| stream.flows_for(20));
        eprintln!("{what}: put back after {:.2} s, {} packets in clear", took.as_secs_f64(), capture.count() - seen);
        assert_eq!(capture.count(), 0, "packets in clear after the loss of the {what}:\n{}", capture.shown());
        assert!(took <= A_SECOND, "the {what} were put back after {took:?}");
    }
    let status = overlay.status();
    assert_eq!(status["host"]["state"], "intact", "{:#}", status["host"]);
    for (what, least) in [("rule", 4), ("nft_table", 1), ("route", 2), ("address", 2), ("link", 1)] {
        let restored = status["host"]["restored"][what].as_u64();
        assert!(restored.is_some_and(|restored| restored >= least), "{what}: {:#}", status["host"]);
    }
    assert!(overlay.log().contains(words::PUT_BACK), "{}", overlay.log());
    overlay.stop();
    // The capture works: without the tunnel, everything goes in clear.
    capture.sees("a packet in clear once nothing forbids it");
}

/// A world in which `a` is up with a /0 of the given families, and its wire is captured.
struct Locked {
    capture: Capture,
    overlay: Overlay,
    _on_b: Overlay,
    world: World,
}

impl Locked {
    fn up(name: &str, allowed: &[&str], more: &str) -> Option<Locked> {
        let world = World::new(name)?;
        let _on_b = world.b.overlay_up(&world.config_of_b());
        let overlay = world.a.overlay_up(&world.config_of_a(allowed, more));
        let capture = Capture::start(&world.a, &world.wire(), &World::in_clear());
        Some(Locked { capture, overlay, _on_b, world })
    }

    fn dropped(&self) -> u64 {
        self.overlay.status()["host"]["guard_drops"]["outside_tunnel"].as_u64().expect("a number")
    }
}

fn ping(host: &Host, options: &str, address: &str) -> bool {
    host.run(format!("ping -n -c 2 -i 0.1 -W 1 {options} {address}")).code == 0
}

#[test]
fn binding_to_the_wire_does_not_pass_the_second_lock() {
    let Some(locked) = Locked::up("by the wire's name", &EVERYTHING, "") else { return };
    let wire = locked.world.wire();
    let before = locked.dropped();
    for address in OUTSIDE {
        // The policy rules let this out, because the route through the tunnel does not lead out of that interface.
        assert!(!ping(&locked.world.a, &format!("-I {wire}"), address), "{address} past the tunnel");
    }
    assert_eq!(locked.capture.count(), 0, "{}", locked.capture.shown());
    assert!(locked.dropped() >= before + 4, "{} and before {before}", locked.dropped());
    let said = locked.world.a.overlay("status").succeeded("overlay status");
    assert!(words::PAST_THE_TUNNEL.iter().all(|words| said.contains(words)), "{said}");
}

#[test]
fn a_lock_of_ipv4_alone_leaves_ipv6_as_it_is() {
    let Some(locked) = Locked::up("ipv4 alone", &["0.0.0.0/0"], "") else { return };
    let a = &locked.world.a;
    a.reaches(OUTSIDE[0]);
    assert_eq!(locked.capture.count(), 0, "{}", locked.capture.shown());
    a.reaches(OUTSIDE[1]);
    locked.capture.sees("IPv6 to go as it went before");
    a.exec("nft flush ruleset");
    a.reaches(OUTSIDE[1]);
    assert!(!locked.capture.shown().contains(OUTSIDE[0]), "{}", locked.capture.shown());
}

#[test]
fn ipv6_that_the_tunnel_cannot_carry_does_not_leave_by_the_wire() {
    let Some(world) = World::new("ipv6 off inside") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    // IPv6 is off on new interfaces, but still on for the wire.
    a.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    a.reaches(OUTSIDE[1]);
    let overlay = a.overlay_up(&world.config_of_a(&EVERYTHING, ""));
    let capture = Capture::start(a, &world.wire(), &World::in_clear());
    a.reaches(OUTSIDE[0]);
    assert!(!ping(a, "", OUTSIDE[1]), "IPv6 is covered, and there is no way for it");
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    assert_eq!(overlay.status()["host"]["state"], "intact");
    overlay.stop();
    a.reaches(OUTSIDE[1]);
}

#[test]
fn after_kill_9_nothing_leaves_in_clear_until_down() {
    let Some(locked) = Locked::up("kill -9", &EVERYTHING, "forward = true\n") else { return };
    let World { a, c, .. } = &locked.world;
    for address in OUTSIDE {
        a.reaches(address);
        c.reaches(address);
    }
    locked.overlay.kill9();
    for address in OUTSIDE {
        assert!(!ping(a, "", address) && !ping(c, "", address), "{address} is reached without a tunnel");
    }
    assert_eq!(locked.capture.count(), 0, "{}", locked.capture.shown());
    // Destinations for which the main table has a more specific route stay reachable.
    assert!(ping(a, "", "10.1.0.2") && ping(c, "", "172.18.0.1"));
    a.overlay(format!("down {}", a.interface())).succeeded("overlay down");
    a.reaches(OUTSIDE[0]);
    a.reaches(OUTSIDE[1]);
    locked.capture.sees("a packet in clear after `down`");
}

#[test]
fn the_next_up_takes_over_from_a_killed_daemon_without_a_gap() {
    let Some(locked) = Locked::up("kill -9, up", &EVERYTHING, "") else { return };
    let Locked { capture, overlay, world, .. } = locked;
    let a = &world.a;
    a.reaches(OUTSIDE[0]);
    let stream = Stream::start(a);
    stream.flows_for(20);
    let mut overlay = overlay;
    for _ in 0..3 {
        overlay.kill9();
        overlay = a.overlay_up(&world.config_of_a(&EVERYTHING, ""));
        stream.flows_for(20);
    }
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    overlay.stop();
    capture.sees("a packet in clear once nothing forbids it");
}

#[test]
fn a_daemon_that_fails_leaves_the_lock_shut() {
    let Some(locked) = Locked::up("deleted", &EVERYTHING, "") else { return };
    let Locked { capture, overlay, world, .. } = locked;
    let a = &world.a;
    let stream = Stream::start(a);
    stream.flows_for(20);
    a.ip(&format!("link delete {}", a.interface()));
    let ended = overlay.finish_within(SHORTLY);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(words::LOCK_STAYS), "{}", ended.stderr);
    for address in OUTSIDE {
        assert!(!ping(a, "", address), "{address} is reached without a tunnel");
    }
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    a.overlay(format!("down {}", a.interface())).succeeded("overlay down");
    for address in OUTSIDE {
        a.reaches(address);
    }
    assert_eq!(a.exec("nft list ruleset"), "");
}

#[test]
fn reloads_change_the_locks_without_a_gap() {
    let Some(locked) = Locked::up("reload", &EVERYTHING, "fwmark = 77\n") else { return };
    let Locked { capture, overlay, world, .. } = locked;
    let a = &world.a;
    let stream = Stream::start(a);
    stream.flows_for(20);
    let reload = |config: &str| {
        std::fs::write(overlay.config(), config).expect("our own file");
        a.overlay("reload").succeeded("overlay reload");
    };
    // With a different mark, table or address, every part of the locks changes.
    let first = world.config_of_a(&EVERYTHING, "fwmark = 77\n");
    let second = world.config_of_a(&EVERYTHING, "fwmark = 78\n").replace("10.77.0.1/24", "10.77.0.1/25");
    for config in [&second, &first, &second] {
        reload(config);
        stream.flows_for(20);
    }
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    reload(&world.config_of_a(&["10.77.0.0/24"], ""));
    capture.sees("what is covered no more to go in clear");
    assert!(!a.exec("nft list ruleset").contains("outside_tunnel {\n\t\ttype"), "{}", a.exec("nft list ruleset"));
}

#[test]
fn neighbours_leases_and_new_networks_pass_the_lock() {
    let Some(locked) = Locked::up("what must go on", &EVERYTHING, "") else { return };
    let World { a, b, c, .. } = &locked.world;
    let wire = locked.world.wire();
    // Neighbours are discovered again in both families, and link-local addresses answer.
    a.ip("neighbour flush all");
    assert!(ping(a, "", "10.1.0.2") && ping(a, "", "fd01::2"));
    let shown = b.ip(&format!("-o -6 address show dev {} scope link", b.link_to(a)));
    let link_local = shown.split_whitespace().find(|word| word.starts_with("fe80::")).expect("a link-local address");
    let link_local = link_local.split('/').next().expect("an address");
    assert!(ping(a, "", &format!("{link_local}%{wire}")));
    assert!(ping(a, "", &format!("ff02::1%{wire}")), "all nodes of the link");
    // A lease is renewed by unicast from a server that is not on the link.
    let lease = Capture::start(b, &b.link_to(a), "udp port 67 and host 192.0.2.77");
    let renew = format!("echo x | socat -u - UDP4-SENDTO:192.0.2.77:67,sourceport=68,so-bindtodevice={wire}");
    a.shell(&renew);
    lease.sees("the renewal to leave");
    let other = renew.replace("sourceport=68", "sourceport=69");
    assert_ne!(a.run(["sh", "-c", &other]).code, 0, "anything else that way is refused");
    // Forwarded packets get no such exception.
    let seen = lease.count();
    c.shell("echo x | socat -u - UDP4-SENDTO:192.0.2.77:67,sourceport=68");
    assert!(!ping(a, &format!("-I {wire}"), OUTSIDE[0]));
    assert_eq!(lease.count(), seen, "{}", lease.shown());
    // A network that is added later is recognised within a second.
    a.ip("address add 10.9.0.1/24 dev br0");
    c.ip(&format!("address add 10.9.0.2/24 dev {}", c.link_to(a)));
    within(KNOWN, "the new network to be direct", || ping(a, "", "10.9.0.2").then_some(()));
}

#[test]
fn what_a_bridge_switches_passes_the_lock() {
    let Some(world) = World::new("switched") else { return };
    let World { a, b, c, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    // The wire becomes a port of the bridge. `c` is now like a virtual machine next to the host, with an address of the
    // wire's network.
    let wire = world.wire();
    a.exec("sysctl -qw net.bridge.bridge-nf-call-iptables=1");
    a.ip(&format!("address flush dev {wire}"));
    a.ip(&format!("link set {wire} master br0"));
    a.ip("address add 10.1.0.1/24 dev br0");
    a.ip("route replace default via 10.1.0.2");
    c.ip(&format!("address add 10.1.0.9/24 dev {}", c.link_to(a)));
    c.ip("route replace default via 10.1.0.2");
    c.reaches(OUTSIDE[0]);
    let overlay = a.overlay_up(&world.config_of_a(&["0.0.0.0/0"], "forward = true\n"));
    c.reaches(OUTSIDE[0]);
    a.reaches(OUTSIDE[0]);
    // Packets that the host itself routes out of that bridge stay locked in, both its own and forwarded ones.
    let capture = Capture::start(a, "br0", "host 192.0.2.77 and not host 10.1.0.9");
    let wire_capture = Capture::start(a, &wire, "host 192.0.2.77 and not host 10.1.0.9");
    c.ip("route replace default via 10.1.0.1");
    a.shell("ip rule del prio 32764 && ip rule del prio 32765");
    ping(a, "", OUTSIDE[0]);
    ping(c, "", OUTSIDE[0]);
    assert!(!ping(a, "-I br0", OUTSIDE[0]));
    assert_eq!(wire_capture.count(), 0, "{}", wire_capture.shown());
    assert!(!capture.shown().contains("10.1.0.1 >"), "{}", capture.shown());
    assert_eq!(overlay.status()["host"]["own_interfaces"], serde_json::json!([]), "the bridge leads to others");
}

#[test]
fn without_nft_a_third_rule_keeps_everything_in() {
    let Some(world) = World::new("without nft") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    // In a separate mount namespace, `nft` is replaced by /dev/null.
    let nft = crate::lab::process::find("nft").expect("it is installed");
    let config = a.write("overlay.toml", world.config_of_a(&EVERYTHING, ""));
    let up = a.overlay_command(format!("up {}", config.display()));
    let line: Vec<String> = std::iter::once(up.get_program())
        .chain(up.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let hidden = format!("mount --bind /dev/null {} && exec {}", nft.display(), inner(&line).join(" "));
    let overlay = Overlay::from_command(a, a.command(["sh", "-c", &hidden]));
    for address in OUTSIDE {
        a.reaches(address);
    }
    let status = overlay.status();
    assert_eq!((&status["host"]["state"], &status["host"]["guard"]), (&"incomplete".into(), &"unavailable".into()));
    let warning = status["host"]["warnings"][0].as_str().expect("a warning");
    a.golden("without nft", warning);
    assert_eq!(overlay.log().matches(words::NO_NFT).count(), 1, "{}", overlay.log());
    // What the second lock would have done, a third rule does: with the routes gone, or the daemon, nothing leaves.
    let capture = Capture::start(a, &world.wire(), &World::in_clear());
    let stream = Stream::start(a);
    stream.flows_for(20);
    a.shell("ip route flush table 51820 && ip -6 route flush table 51820");
    stream.flows_for(20);
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    overlay.kill9();
    for address in OUTSIDE {
        assert!(!ping(a, "", address), "{address} is reached without a tunnel");
    }
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    let said = a.overlay(format!("down {}", a.interface())).succeeded("overlay down");
    assert_eq!(a.ip("-4 rule show").lines().count(), 3, "{said}");
    // The rules themselves are restored as usual.
    drop(stream);
    let overlay = Overlay::from_command(a, a.command(["sh", "-c", &hidden]));
    a.shell("ip rule del prio 32763 && ip rule del prio 32764 && ip rule del prio 32765");
    within(SHORTLY, "the rules to be put back", || {
        let rules = a.ip("-4 rule show");
        (rules.contains("lookup 51820") && rules.contains("unreachable") && rules.lines().count() == 6).then_some(())
    });
    // If a daemon fails, the locks stay shut.
    let seen = capture.count();
    a.ip(&format!("link delete {}", a.interface()));
    assert_eq!(overlay.finish_within(SHORTLY).code, 1);
    for address in OUTSIDE {
        assert!(!ping(a, "", address), "{address} is reached without a tunnel");
    }
    assert_eq!(capture.count(), seen, "{}", capture.shown());
    a.overlay(format!("down {}", a.interface())).succeeded("overlay down");
    assert_eq!(a.ip("-4 rule show").lines().count(), 3);
}

/// The command line without its first words, `ip netns exec NAME`.
fn inner(line: &[String]) -> &[String] {
    line.get(4..).expect("ip netns exec NAME ...")
}

#[test]
fn rate_twenty_thousand_foreign_route_changes_cost_little() {
    const ROUTES: usize = 10_000;
    /// The most CPU time on a busy machine. An idle one needs a fifth of that.
    const AT_MOST: Duration = Duration::from_millis(1_500);
    let Some(locked) = Locked::up("many routes", &EVERYTHING, "") else { return };
    let World { a, b, .. } = &locked.world;
    a.reaches(OUTSIDE[0]);
    let routes = |verb: &str| -> String {
        (0..ROUTES)
            .map(|number| format!("route {verb} 10.{}.{}.0/24 via 10.1.0.2\n", 100 + number / 256, number % 256))
            .collect()
    };
    let batch = a.write("routes", routes("add") + &routes("delete") + "route add 10.200.0.0/24 via 10.1.0.2\n");
    b.ip("address add 10.200.0.1/24 dev lo");
    let before = cpu_time(&locked.overlay);
    a.exec(format!("ip -batch {}", batch.display()));
    within(KNOWN_AT_LAST, "the last route to be direct", || ping(a, "", "10.200.0.1").then_some(()));
    let used = cpu_time(&locked.overlay) - before;
    eprintln!("{} changes cost {used:?} of a CPU", 2 * ROUTES);
    assert!(used <= AT_MOST, "{used:?}");
    assert_eq!(locked.capture.count(), 0, "{}", locked.capture.shown());
    assert_eq!(locked.overlay.status()["host"]["restored"]["route"], 0);
}

/// The CPU time that a daemon and the programs that it ran have used so far.
fn cpu_time(daemon: &Overlay) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("the daemon runs");
    // The name may contain anything. Behind it, fields 12 to 15 are the times in ticks of 10 ms.
    let rest = stat.rsplit_once(')').expect("a name").1;
    let ticks = rest.split_whitespace().skip(11).take(4).map(|number| number.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}
