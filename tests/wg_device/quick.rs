//! `wg-quick` with `overlay-wg` as its userspace implementation: what it brings up, and that it takes it down again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::footprint::Footprint;
use crate::lab::{self, A, B, Finished, Host, Outside, Pair, SHORTLY, Stock, within};
use crate::{overlay_wg, socket, stock_peer};

#[test]
fn wg_quick_brings_up_everything_and_takes_it_down_again() {
    let Some(pair) = Pair::new("wg-quick") else { return };
    if !can_wg_quick(&pair) {
        return;
    }
    let (a, b) = (&pair.a, &pair.b);
    b.ip("address add 203.0.113.9/32 dev lo");
    b.ip("address add 2001:db8:9::9/128 dev lo");
    let _theirs = stock_peer(&pair, Stock::WireGuardGo, None);
    // wg-quick leaves it behind.
    a.exec("sysctl -qw net.ipv4.conf.all.src_valid_mark=1");
    let marker = a.dir().join("hooks");
    let config = quick_config(
        &pair,
        &format!("FwMark = 0x4242\nPostUp = echo up %i >> {0}\nPostDown = echo down %i >> {0}\n", marker.display()),
        "0.0.0.0/0, ::/0",
    );
    let before = Footprint::of(a);
    for _ in 0..3 {
        quick(a, "up", &config);
        a.exec(format!("ping -n -c 1 -W 5 {}", B.v4));
        a.exec("ping -n -c 1 -W 5 203.0.113.9");
        a.exec("ping -n -c 1 -W 5 2001:db8:9::9");
        b.exec(format!("ping -n -c 1 -W 5 {}", A.v6));
        let name = a.interface();
        assert_eq!(a.exec(format!("wg show {name} fwmark")).trim(), "0x4242");
        for family in ["-4", "-6"] {
            let rules = a.ip(&format!("{family} rule show"));
            assert!(rules.contains("not from all fwmark 0x4242 lookup 16962"), "{rules}");
            let routes = a.ip(&format!("{family} route show table 16962"));
            assert!(routes.contains(&format!("default dev {name}")), "{routes}");
        }
        assert!(a.ip(&format!("link show dev {name}")).contains(" mtu 1420 "));
        let saved = a.exec(format!("wg showconf {name}"));
        assert!(saved.contains("FwMark = 0x4242") && saved.contains("AllowedIPs = 0.0.0.0/0, ::/0"), "{saved}");
        quick(a, "down", &config);
        within(SHORTLY, "the socket to go", || (!socket(a).exists()).then_some(()));
        before.assert_unchanged(a);
    }
    let said = fs::read_to_string(&marker).expect("what the hooks wrote");
    let name = a.interface();
    assert_eq!(said, format!("up {name}\ndown {name}\n").repeat(3));
}

#[test]
fn wg_quick_puts_routes_where_the_config_says() {
    let Some(pair) = Pair::new("wg-quick, Table") else { return };
    if !can_wg_quick(&pair) {
        return;
    }
    let (a, name) = (&pair.a, pair.a.interface());
    let _theirs = stock_peer(&pair, Stock::WireGuardGo, None);
    for (table, routed) in [("off", false), ("1234", true)] {
        let config = quick_config(&pair, &format!("Table = {table}\nMTU = 1333\n"), "10.77.0.2/32, 192.168.99.0/24");
        let before = Footprint::of(a);
        quick(a, "up", &config);
        a.exec(format!("ping -n -c 1 -W 5 {}", B.v4));
        assert!(a.ip(&format!("link show dev {name}")).contains(" mtu 1333 "));
        let routes = a.run("ip route show table 1234").stdout;
        assert_eq!(routes.contains(&format!("192.168.99.0/24 dev {name}")), routed, "{table}: {routes}");
        quick(a, "down", &config);
        within(SHORTLY, "the socket to go", || (!socket(a).exists()).then_some(()));
        before.assert_unchanged(a);
    }
}

/// Whether wg-quick would use us.
fn can_wg_quick(pair: &Pair) -> bool {
    let name = "wg-quick";
    if !lab::installed(name, &["wg-quick", Stock::WireGuardGo.program()]) {
        return false;
    }
    let kernel = pair.a.run("ip link add ovlprobe type wireguard");
    if kernel.code == 0 {
        lab::not_applicable(name, "this kernel has WireGuard, which wg-quick prefers to any program");
    }
    kernel.code != 0
}

/// `IFACE.conf` of `a` with `b` as the peer.
fn quick_config(pair: &Pair, interface: &str, allowed_ips: &str) -> PathBuf {
    let key = fs::read_to_string(pair.a.private_key_file()).expect("the key");
    let (addresses, endpoint) = (A.inner().join(", "), B.endpoint(Outside::V4, 51820));
    pair.a.write_secret(
        &format!("{}.conf", pair.a.interface()),
        &format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = {addresses}\n{interface}\n\
             [Peer]\nPublicKey = {}\nEndpoint = {endpoint}\nAllowedIPs = {allowed_ips}\n",
            key.trim(),
            pair.b.public_key(),
        ),
    )
}

#[track_caller]
fn quick(host: &Host, verb: &str, config: &Path) {
    let mut command: Command = host.command(["wg-quick", verb, &config.to_string_lossy()]);
    // Silent: no log is left in the folder that daemons share.
    command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", overlay_wg(host)).env("LOG_LEVEL", "silent");
    let finished = Finished::from(command.output().expect("wg-quick"));
    finished.succeeded(&format!("wg-quick {verb}"));
}
