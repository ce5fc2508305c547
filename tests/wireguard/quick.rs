//! `wg-quick`, which knows only the program's name.

use std::path::PathBuf;

use super::device::{Device, Key, Program, one_ping};
use crate::lab::footprint::Footprint;
use crate::lab::{A, B, Finished, Host, Outside, Pair, SHORTLY, installed, not_applicable};

/// A wg-quick config on a host.
struct Quick {
    host: Host,
    file: PathBuf,
}

impl Quick {
    /// Writes the config. Its file name gives the interface's name.
    fn write(host: &Host, config: &str) -> Quick {
        let own = std::fs::read_to_string(host.private_key_file()).expect("the lab's key");
        let file = host.write_secret(&format!("{}.conf", host.interface()), &config.replace("OWN", own.trim()));
        Quick { host: host.clone(), file }
    }

    /// Runs `wg-quick VERB FILE`.
    fn run(&self, verb: &str) -> Finished {
        let mut command = self.host.command("wg-quick");
        command.arg(verb).arg(&self.file);
        command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", Program::under_test().path(&self.host));
        // The output goes to files. If the device kept its caller's streams open, a pipe would never end.
        self.host.start(command, &format!("wg-quick {verb}")).finish_within(SHORTLY)
    }

    /// Runs `wg-quick up`, and returns the device.
    #[track_caller]
    fn up(&self) -> Device {
        self.run("up").succeeded("wg-quick up");
        Device::adopt(&self.host, self.host.interface())
    }

    /// Runs `wg-quick down`, and waits until the device is gone.
    #[track_caller]
    fn down(&self, device: Device) {
        self.run("down").succeeded("wg-quick down");
        crate::lab::within(SHORTLY, "the program to end", || (!device.is_alive()).then_some(()));
    }
}

/// Two hosts. `b` already has a device, and owns two addresses behind it.
fn world(name: &str) -> Option<(Pair, Device)> {
    if !installed(name, &["wg-quick", "nft"]) {
        return None;
    }
    let pair = Pair::new(name)?;
    if pair.a.run("ip link add probe type wireguard").code == 0 {
        not_applicable(name, "this kernel has WireGuard, which wg-quick prefers to any program");
        return None;
    }
    // wg-quick sets this for a default route and does not reset it.
    pair.a.exec("sysctl -qw net.ipv4.conf.all.src_valid_mark=1");
    let b = Device::start(&pair.b);
    for address in B.inner() {
        b.address(&address);
    }
    for beyond in ["192.0.2.1/32", "2001:db8::1/128"] {
        pair.b.ip(&format!("address add {beyond} dev lo"));
    }
    b.set(&format!(
        "private-key {} listen-port 51820 peer {} allowed-ips {}",
        pair.b.private_key_file().display(),
        pair.a.public_key(),
        A.allowed().join(",")
    ));
    b.up();
    Some((pair, b))
}

fn config(pair: &Pair, interface: &str, outside: Outside, allowed_ips: &str) -> String {
    let inner = A.inner();
    format!(
        "[Interface]\nPrivateKey = OWN\nAddress = {}, {}\n{interface}\n[Peer]\nPublicKey = {}\nAllowedIPs = {allowed_ips}\nEndpoint = {}\n",
        inner[0],
        inner[1],
        pair.b.public_key(),
        B.endpoint(outside, 51820)
    )
}

#[test]
fn up_and_down_do_what_the_config_says_and_leave_nothing() {
    let Some((pair, _b)) = world("wg-quick") else { return };
    let host = &pair.a;
    let before = Footprint::of(host);
    let log = host.dir().join("hooks");
    let hook = |what: &str| format!("{what} = echo {what} %i >>{}\n", log.display());
    let interface = format!(
        "ListenPort = 41820\nMTU = 1380\n{}{}{}{}PostUp = ip route add 198.51.100.0/24 dev %i\n",
        hook("PreUp"),
        hook("PostUp"),
        hook("PreDown"),
        hook("PostDown")
    );
    let quick = Quick::write(host, &config(&pair, &interface, Outside::V4, "10.77.0.0/24, fd77::/64, 192.0.2.0/24"));
    let resolver = std::fs::read_to_string("/etc/resolv.conf").ok();
    for round in 1..=3 {
        let device = quick.up();
        one_ping(host, B.v4);
        one_ping(host, B.v6);
        one_ping(host, "192.0.2.1");
        assert_eq!(device.show("listen-port"), "41820");
        assert!(host.ip("route show 198.51.100.0/24").contains(device.name()), "a hook of its own added it");
        assert!(host.ip(&format!("link show {}", device.name())).contains("mtu 1380"));
        let again = quick.run("up");
        assert_ne!(again.code, 0, "it is up already: {again:?}");
        assert!(device.is_alive());
        quick.down(device);
        before.assert_unchanged(host);
        let name = host.interface();
        let hooks = std::fs::read_to_string(&log).expect("what the hooks wrote");
        let expected = format!("PreUp {name}\nPostUp {name}\nPreDown {name}\nPostDown {name}\n");
        assert_eq!(hooks, expected.repeat(round));
    }
    assert_eq!(std::fs::read_to_string("/etc/resolv.conf").ok(), resolver, "DNS is left alone");
    assert_ne!(quick.run("down").code, 0, "nothing is left to take down");
}

#[test]
fn everything_goes_through_the_tunnel_but_the_tunnel() {
    for (outside, mark) in [(Outside::V4, ""), (Outside::V6, ""), (Outside::V4, "FwMark = 0x4d2")] {
        let Some((pair, b)) = world("full tunnel") else { return };
        let host = &pair.a;
        let before = Footprint::of(host);
        let quick = Quick::write(host, &config(&pair, mark, outside, "0.0.0.0/0, ::/0"));
        let device = quick.up();
        for address in [B.v4, B.v6, "192.0.2.1", "2001:db8::1"] {
            one_ping(host, address);
        }
        let (table, shown) = if mark.is_empty() { ("51820", "0xca6c") } else { ("1234", "0x4d2") };
        assert_eq!(device.show("fwmark"), shown);
        for family in ["-4", "-6"] {
            let rules = host.ip(&format!("{family} rule show"));
            assert!(rules.contains("suppress_prefixlength 0"), "{rules}");
            let route = host.ip(&format!("{family} route show table {table}"));
            assert!(route.contains(&format!("default dev {}", device.name())), "{route}");
        }
        let peer = Key::of(&pair.a);
        let source = b.endpoint_of(&peer);
        let wanted = if outside == Outside::V4 { A.outer_v4 } else { A.outer_v6 };
        assert!(source.contains(wanted), "{source}: outside, not through itself");
        // It still works after a change of port, which recreates its sockets.
        device.set("listen-port 41821");
        one_ping(host, "192.0.2.1");
        quick.down(device);
        before.assert_unchanged(host);
        assert_ne!(host.run("ping -n -c 1 -W 1 192.0.2.1").code, 0, "nothing leads there any more");
    }
}

#[test]
fn routes_go_to_the_table_that_is_named_or_to_none() {
    for table in ["1234", "off"] {
        let Some((pair, _b)) = world("table") else { return };
        let host = &pair.a;
        let before = Footprint::of(host);
        let quick = Quick::write(host, &config(&pair, &format!("Table = {table}"), Outside::V4, "0.0.0.0/0, ::/0"));
        let device = quick.up();
        let named = host.run("ip route show table 1234").stdout;
        assert_eq!(named.contains("default"), table == "1234", "{named}");
        assert_eq!(host.ip("-4 rule show").lines().count(), 3, "no rule was added");
        // The interface's addresses come with their own route.
        one_ping(host, B.v4);
        assert_ne!(host.run("ping -n -c 1 -W 1 192.0.2.1").code, 0);
        host.ip(&format!("rule add to 192.0.2.0/24 table {}", if table == "off" { "main" } else { table }));
        if table == "off" {
            host.ip(&format!("route add 192.0.2.0/24 dev {}", device.name()));
        }
        one_ping(host, "192.0.2.1");
        host.ip(&format!("rule delete to 192.0.2.0/24 table {}", if table == "off" { "main" } else { table }));
        quick.down(device);
        before.assert_unchanged(host);
    }
}

#[test]
fn save_writes_what_runs_and_a_stripped_config_is_taken_over_while_it_runs() {
    let Some((pair, b)) = world("save") else { return };
    let host = &pair.a;
    let quick = Quick::write(host, &config(&pair, "SaveConfig = true", Outside::V4, "10.77.0.0/24, fd77::/64"));
    let device = quick.up();
    one_ping(host, B.v4);
    let handshake = b.latest_handshake(&Key::of(host));
    let extra = Key::new(host, "extra");
    device.set(&format!("peer {} allowed-ips 10.99.0.0/16", extra.public));
    quick.run("save").succeeded("wg-quick save");
    let saved = std::fs::read_to_string(&quick.file).expect("the config");
    assert!(saved.contains(&extra.public) && saved.contains("10.99.0.0/16"), "{saved}");
    assert!(saved.contains(&format!("Endpoint = {}", B.endpoint(Outside::V4, 51820))), "{saved}");

    // What people do to apply an edited config.
    let stripped = quick.run("strip").succeeded("wg-quick strip");
    assert!(!stripped.contains("Address"), "{stripped}");
    let edited = stripped.replace("10.99.0.0/16", "10.98.0.0/16");
    assert_eq!(device.conf("syncconf", &edited).code, 0);
    assert!(device.show("allowed-ips").contains("10.98.0.0/16"));
    one_ping(host, B.v4);
    assert_eq!(b.latest_handshake(&Key::of(host)), handshake, "the session was left alone");
    quick.down(device);
    let saved = std::fs::read_to_string(&quick.file).expect("the config");
    assert!(saved.contains("10.98.0.0/16"), "saved again on the way down: {saved}");
    // The saved config comes up.
    let device = quick.up();
    one_ping(host, B.v4);
    quick.down(device);
}
