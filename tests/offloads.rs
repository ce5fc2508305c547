//! Offloads. With each of them off, on one side and on both, only the speed differs. If the kernel refuses one while
//! the daemon runs, the daemon works without it and reports that once. What the kernel drops is visible.

mod lab;

use std::time::Duration;

use lab::services::{self, random_file, sha256, tcp_transfer};
use lab::stock::StockConfig;
use lab::{A, B, Host, Outside, Overlay, Pair, Pings, SHORTLY, Stock, within, words};
use rustix::process::Signal;

/// The offloads that a config can switch off.
const SWITCHES: [&str; 3] = ["tun_offload = \"off\"", "udp_gso = \"off\"", "tun_offload = \"off\"\nudp_gso = \"off\""];

const DATAGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/datagrams.py");
const REFUSING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/refusing.py");

/// A config with these keys under `[tuning]`.
fn tuned(config: String, keys: &str) -> String {
    config + "\n[tuning]\n" + keys + "\n"
}

/// The state of an offload.
fn offload(overlay: &Overlay, name: &str) -> String {
    overlay.status()["offloads"][name].as_str().expect("a state").to_owned()
}

/// The version of the running kernel. For example, 6.1 is `(6, 1)`.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel tells");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().expect("major"), numbers.next().expect("minor"))
}

fn counter(overlay: &Overlay, name: &str) -> u64 {
    let status = overlay.status();
    status["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter `{name}` in {status:#}"))
}

/// Sends `count` datagrams of `size` bytes, `train` per system call, and requires all of them in order.
#[track_caller]
fn datagrams_arrive(from: &Host, to: &Host, address: &str, count: u32, size: u32, train: u32) {
    const PORT: u16 = 7100;
    let receiver = to.spawn(format!("{} {DATAGRAMS} receive {PORT} {count}", services::PYTHON));
    within(SHORTLY, "a udp listener", || (!to.exec(format!("ss -Hlun sport = :{PORT}")).is_empty()).then_some(()));
    let sent = from.exec(format!("{} {DATAGRAMS} send {address} {PORT} {count} {size} {train}", services::PYTHON));
    assert_eq!(receiver.succeed_within(SHORTLY), sent, "{count} of {size} bytes in trains of {train} to {address}");
}

/// Everything that an offload could break, in both directions and both families: single packets with checksums that the
/// kernel verifies, fragments, streams, and datagrams alone and in trains.
#[track_caller]
fn traffic_is_whole(a: &Host, b: &Host) {
    let file = random_file(a, "file", 4 << 20);
    for (from, to, addresses) in [(a, b, [B.v4, B.v6]), (b, a, [A.v4, A.v6])] {
        for address in addresses {
            from.reaches(address);
            Pings::new(3, Duration::from_millis(50)).of(5_000).are_answered(from, address);
            assert_eq!(tcp_transfer(from, to, address, &file), sha256(&file), "tcp to {address}");
            datagrams_arrive(from, to, address, 200, 1000, 1);
            datagrams_arrive(from, to, address, 400, 1000, 20);
        }
    }
}

#[test]
fn with_any_offload_off_on_one_side_or_both_traffic_is_whole() {
    for (number, switches) in SWITCHES.into_iter().enumerate() {
        for both in [false, true] {
            let Some(pair) = Pair::new("switched off") else { return };
            let outside = if both { Outside::V6 } else { Outside::V4 };
            if number == 1 {
                // On a wire without offloads, every packet has its real size.
                pair.a.offloads_off(&pair.b);
                pair.b.offloads_off(&pair.a);
            }
            let on_a = pair.a.overlay_up(&tuned(pair.config_of_a(outside), switches));
            let config_of_b = pair.config_of_b(outside);
            let on_b = pair.b.overlay_up(&if both { tuned(config_of_b, switches) } else { config_of_b });
            eprintln!("{switches:?}, on both sides: {both}");
            traffic_is_whole(&pair.a, &pair.b);
            for (key, names) in
                [("tun_offload", ["tun_tcp", "tun_udp"]), ("udp_gso", ["udp_segmentation", "udp_coalescing"])]
            {
                for name in names {
                    assert_eq!(offload(&on_a, name) == "off", switches.contains(key), "{name}");
                    assert_eq!(offload(&on_b, name) == "off", both && switches.contains(key), "{name}");
                }
            }
            for name in ["tun_write_errors", "udp_send_errors", "udp_too_long", "udp_truncated"] {
                assert_eq!((counter(&on_a, name), counter(&on_b, name)), (0, 0), "{name}");
            }
        }
    }
}

#[test]
fn without_offloads_every_stock_peer_is_served_as_well() {
    if !lab::installed("stock peers", &Stock::ALL.map(Stock::program)) {
        return;
    }
    for stock in Stock::ALL {
        let Some(pair) = Pair::new("stock peers") else { return };
        let _ours = pair.a.overlay_up(&tuned(pair.config_of_a(Outside::V4), SWITCHES[2]));
        let (inner, allowed) = (B.inner(), A.allowed());
        let _theirs = stock.up(
            &pair.b,
            &StockConfig {
                addresses: &[&inner[0], &inner[1]],
                peer: &pair.a,
                endpoint: Some(&A.endpoint(Outside::V4, 51820)),
                allowed_ips: &[&allowed[0], &allowed[1]],
                preshared_key_file: None,
            },
        );
        pair.a.reaches(B.v4);
        let file = random_file(&pair.a, "file", 4 << 20);
        for (from, to, address) in [(&pair.a, &pair.b, B.v4), (&pair.b, &pair.a, A.v6)] {
            assert_eq!(tcp_transfer(from, to, address, &file), sha256(&file), "{stock:?}");
            from.exec(format!("ping -n -c 3 -i 0.05 -W 2 -s 3000 {address}"));
            // Only a few: a burst overflows the receive buffer of these programs.
            datagrams_arrive(from, to, address, 20, 1200, 1);
        }
    }
}

#[test]
fn with_the_offloads_required_the_daemon_comes_up_on_a_kernel_that_has_them() {
    let Some(pair) = Pair::new("required") else { return };
    let keys = "tun_offload = \"on\"\nudp_gso = \"on\"";
    let on_a = pair.a.overlay_up(&tuned(pair.config_of_a(Outside::V4), keys));
    assert_eq!(["tun_tcp", "udp_segmentation", "udp_coalescing"].map(|name| offload(&on_a, name)), ["on", "on", "on"]);
}

#[test]
fn a_train_of_datagrams_crosses_the_tunnel_whole() {
    let Some(pair) = Pair::new("trains") else { return };
    if kernel() < (6, 2) {
        return lab::not_applicable("trains", "this kernel's TUN knows no UDP super-packets (Linux 6.2)");
    }
    let (on_a, on_b) = pair.up(Outside::V4);
    assert_eq!(offload(&on_a, "tun_udp"), "on");
    for address in [B.v4, B.v6] {
        pair.a.reaches(address);
        let before =
            [(&on_a, "tun_reads"), (&on_a, "udp_sent_trains"), (&on_b, "tun_writes")].map(|(o, n)| counter(o, n));
        datagrams_arrive(&pair.a, &pair.b, address, 2000, 1200, 40);
        let after =
            [(&on_a, "tun_reads"), (&on_a, "udp_sent_trains"), (&on_b, "tun_writes")].map(|(o, n)| counter(o, n));
        for (name, (before, after)) in ["reads", "trains", "writes"].into_iter().zip(before.into_iter().zip(after)) {
            // 50 trains, and some other messages.
            assert!(
                (50..200).contains(&(after - before)),
                "{} {name} for 2,000 datagrams to {address}",
                after - before
            );
        }
    }
}

#[test]
fn a_kernel_that_refuses_super_packets_gets_packets_and_nothing_is_lost() {
    let Some(pair) = Pair::new("refused") else { return };
    let _on_b = pair.b.overlay_up(&pair.config_of_b(Outside::V4));
    let path = pair.a.write("overlay.toml", pair.config_of_a(Outside::V4));
    // A packet is written as two pieces, virtio header and packet. A joined packet has more pieces.
    let mut command = pair.a.command(format!("{} {REFUSING} writev 2 2 EINVAL", services::PYTHON));
    command.arg(env!("CARGO_BIN_EXE_overlay")).arg("--runtime-dir").arg(pair.a.runtime_dir()).arg("up").arg(path);
    command.env("NO_COLOR", "1");
    let on_a = Overlay::from_command(&pair.a, command);
    let file = random_file(&pair.b, "file", 8 << 20);

    for (offload_name, warning) in [("tun_tcp", words::REFUSES_TCP), ("tun_udp", words::REFUSES_UDP)] {
        if offload(&on_a, offload_name) == "unavailable" {
            eprintln!("{offload_name}: this kernel has none");
            continue;
        }
        let send = |address| match offload_name {
            "tun_tcp" => assert_eq!(tcp_transfer(&pair.b, &pair.a, address, &file), sha256(&file)),
            _ => datagrams_arrive(&pair.b, &pair.a, address, 1000, 1200, 20),
        };
        let before = counter(&on_a, "tun_super_packets_refused");
        assert_eq!(offload(&on_a, offload_name), "on", "nothing was refused yet");
        send(A.v4);
        let refused = counter(&on_a, "tun_super_packets_refused");
        assert!(refused >= before + 8, "{before} and {refused}");
        assert_eq!(offload(&on_a, offload_name), "fallen_back");
        send(A.v6);
        assert_eq!(counter(&on_a, "tun_super_packets_refused"), refused, "none is tried again");
        assert_eq!(counter(&on_a, "tun_write_errors"), 0, "none is lost");
        assert_eq!(on_a.log().matches(warning).count(), 1, "{}", on_a.log());
    }
    let shown = pair.a.overlay("status").stdout;
    assert!(shown.contains(words::TCP_REFUSED_SHOWN), "{shown}");
}

#[test]
fn a_way_that_became_narrow_costs_trains_and_nothing_else() {
    let Some(pair) = Pair::new("narrow") else { return };
    // With the path MTU search on, the daemon does not send trains that do not fit.
    let off = "[tuning]\nmtu_discovery = \"off\"\n";
    let on_a = pair.a.overlay_up(&(pair.config_of_a(Outside::V4) + off));
    let _on_b = pair.b.overlay_up(&(pair.config_of_b(Outside::V4) + off));
    pair.a.reaches(B.v4);
    let file = random_file(&pair.a, "file", 8 << 20);
    assert_eq!(counter(&on_a, "udp_narrow_trains"), 0);
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        from.ip(&format!("link set {} mtu 1400", from.link_to(to)));
    }
    assert_eq!(tcp_transfer(&pair.a, &pair.b, B.v4, &file), sha256(&file));
    let narrow = counter(&on_a, "udp_narrow_trains");
    assert!(narrow > 0);
    assert_eq!(on_a.log().matches(words::TOO_NARROW).count(), 1, "{}", on_a.log());
    assert_eq!(offload(&on_a, "udp_segmentation"), "on", "the next way may be wider");

    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        from.ip(&format!("link set {} mtu 1500", from.link_to(to)));
    }
    // The narrow path is forgotten within a second.
    within(SHORTLY, "trains to be sent whole again", || {
        let before = counter(&on_a, "udp_narrow_trains");
        assert_eq!(tcp_transfer(&pair.a, &pair.b, B.v4, &file), sha256(&file));
        (counter(&on_a, "udp_narrow_trains") == before).then_some(())
    });
}

#[test]
fn what_the_kernel_drops_before_the_daemon_reads_it_is_seen() {
    let Some(pair) = Pair::new("queues") else { return };
    let (on_a, on_b) = pair.up(Outside::V4);
    pair.a.reaches(B.v4);
    let status = on_a.status();
    let buffer = status["queues"]["udp_receive_buffer_bytes"].as_u64().expect("a size");
    assert_eq!(buffer, 14 << 20, "forced, and doubled by the kernel");
    assert_eq!((counter(&on_a, "tun_queue_dropped"), counter(&on_b, "udp_receive_overflow")), (0, 0));
    assert!(!pair.a.overlay("status").stdout.contains(words::KERNEL_DROPS));

    // The daemon is stopped for a moment, as on a busy machine.
    let stopped = |overlay: &Overlay, meanwhile: &dyn Fn()| {
        overlay.signal(Signal::STOP);
        meanwhile();
        overlay.signal(Signal::CONT);
    };
    let send = |count: u32, train: u32| {
        pair.a.exec(format!("{} {DATAGRAMS} send {} 9 {count} 1000 {train}", services::PYTHON, B.v4));
    };
    let queue: u64 = pair
        .a
        .exec(format!("cat /sys/class/net/{}/tx_queue_len", pair.a.interface()))
        .trim()
        .parse()
        .expect("a number");
    stopped(&on_a, &|| send(3000, 1));
    let dropped = counter(&on_a, "tun_queue_dropped");
    assert!((3000 - queue..3000).contains(&dropped), "{dropped} of 3,000 with a queue of {queue}");

    // More than the other side's receive buffer holds by the kernel's count, but never more at once than fits our
    // queue.
    let sent = || on_a.peer(&pair.b)["sent_packets"].as_u64().expect("a number");
    stopped(&on_b, &|| {
        for _ in 0..8 {
            let before = sent();
            send(5000, 40);
            within(SHORTLY, "everything to be sent", || (sent() >= before + 5000).then_some(()));
        }
    });
    within(Duration::from_secs(5), "the loss to be counted", || {
        (counter(&on_b, "udp_receive_overflow") > 0).then_some(())
    });
    let shown = pair.b.overlay("status").stdout;
    assert!(shown.contains(words::KERNEL_DROPS) && shown.contains(words::FROM_PEERS), "{shown}");
}
