//! What must not open the locks of a /0: a start that fails, a host without nft, a source address that is not ours,
//! routes that the local network supplies, and IPv6 that is switched off.

use std::process::Command;
use std::time::Duration;

use super::capture::Capture;
use super::world::{OUTSIDE, World};
use crate::lab::services::PYTHON;
use crate::lab::{Host, Overlay, SHORTLY, within};

const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];

fn ping(host: &Host, address: &str) -> bool {
    host.run(format!("ping -n -c 2 -i 0.1 -W 1 {address}")).code == 0
}

/// A command that starts the daemon in a mount namespace in which `nft` is /dev/null.
fn up_without_nft(host: &Host, config: &str) -> Command {
    let nft = crate::lab::process::find("nft").expect("it is installed");
    let config = host.write("overlay.toml", config);
    let (program, run) = (crate::lab::host::overlay_program(), host.runtime_dir());
    let (nft, program, run, config) = (nft.display(), program.display(), run.display(), config.display());
    let line = format!("mount --bind /dev/null {nft} && exec {program} --runtime-dir {run} up {config}");
    let mut command = host.command(["sh", "-c", &line]);
    command.env("NO_COLOR", "1");
    command
}

#[test]
fn a_refused_up_after_kill_9_leaves_the_locks_shut() {
    let Some(world) = World::new("refused after kill -9") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    // Names have to be looked up outside of the tunnel. Nothing else may leave for that.
    a.write_etc_hosts("10.1.0.2 b.example.net\n");
    let config = world.config_of_a(&EVERYTHING, "").replace("10.1.0.2:51820", "b.example.net:51820");
    assert!(config.contains("b.example.net"), "{config}");
    let without_nft = [false, true];
    for is_without in without_nft {
        let up = match is_without {
            true => Overlay::from_command(a, up_without_nft(a, &config)),
            false => a.overlay_up(&config),
        };
        a.reaches(OUTSIDE[0]);
        let capture = Capture::start(a, &world.wire(), &World::in_clear());
        up.kill9();
        // The wire gets an address of the tunnel's network, so the next `up` is refused.
        a.ip(&format!("address add 10.77.0.5/24 dev {}", world.wire()));
        let refused = match is_without {
            true => a.start(up_without_nft(a, &config), "overlay up").finish_within(SHORTLY),
            false => a.overlay(format!("up {}", a.write("overlay.toml", &config).display())),
        };
        assert_eq!(refused.code, 9, "{refused:?}");
        assert!(refused.stderr.contains("does not leave this host until"), "{refused:?}");
        for address in OUTSIDE {
            assert!(!ping(a, address), "{address} is reached without a tunnel, without nft: {is_without}");
        }
        assert_eq!(capture.count(), 0, "{}", capture.shown());
        a.overlay(format!("down {}", a.interface())).succeeded("overlay down");
        a.ip(&format!("address delete 10.77.0.5/24 dev {}", world.wire()));
        a.reaches(OUTSIDE[0]);
        a.reaches(OUTSIDE[1]);
    }
}

#[test]
fn only_queries_for_names_leave_while_the_next_up_starts() {
    let Some(world) = World::new("names after kill -9") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    let up = a.overlay_up(&world.config_of_a(&EVERYTHING, ""));
    a.reaches(OUTSIDE[0]);
    let ping = a.spawn(format!("ping -n -i 0.05 {}", OUTSIDE[0]));
    let queries = Capture::start(a, &world.wire(), &format!("host {} and port 53", OUTSIDE[0]));
    let others = Capture::start(a, &world.wire(), &format!("dst host {} and not port 53", OUTSIDE[0]));
    up.kill9();
    // The name server is outside and does not answer.
    let folder = std::path::Path::new("/etc/netns").join(a.namespace());
    std::fs::create_dir_all(&folder).expect("a folder of our own");
    let servers = format!("nameserver {}\noptions timeout:1 attempts:2\n", OUTSIDE[0]);
    std::fs::write(folder.join("resolv.conf"), servers).expect("a file in our own folder");
    let config = world.config_of_a(&EVERYTHING, "").replace("10.1.0.2:51820", "b.example.net:51820");
    let up = a.overlay_up(&config);
    queries.sees("the query to leave although the lock stands");
    let before = queries.count();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(others.count(), 0, "{}", others.shown());
    assert_eq!(queries.count(), before, "once it is up, queries belong in the tunnel, too");
    drop(ping);
    up.stop();
}

#[test]
fn without_nft_ipv6_that_the_tunnel_cannot_carry_stays_in() {
    let Some(world) = World::new("without nft or ipv6") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    // IPv6 is off on new interfaces, but still on for the wire.
    a.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    let overlay = Overlay::from_command(a, up_without_nft(a, &world.config_of_a(&EVERYTHING, "")));
    let capture = Capture::start(a, &world.wire(), &World::in_clear());
    a.reaches(OUTSIDE[0]);
    assert!(!ping(a, OUTSIDE[1]), "IPv6 is covered, and there is no way for it");
    assert_eq!(capture.count(), 0, "{}", capture.shown());
    assert!(ping(a, "fd01::2"), "the network of the wire is direct");
    let warning = overlay.status()["host"]["warnings"][0].as_str().expect("a warning").to_owned();
    assert!(warning.contains("the default routes of IPv4 and IPv6"), "{warning}");
    overlay.stop();
    a.reaches(OUTSIDE[1]);
}

#[test]
fn a_foreign_source_address_does_not_make_a_packet_a_switched_one() {
    let Some(world) = World::new("foreign source") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    let wire = world.wire();
    a.ip(&format!("address flush dev {wire}"));
    a.ip(&format!("link set {wire} master br0"));
    for address in ["10.1.0.1/24", "fd01::1/64"] {
        a.ip(&format!("address add {address} dev br0"));
    }
    a.ip("route replace default via 10.1.0.2");
    a.ip("-6 route replace default via fd01::2");
    a.reaches(OUTSIDE[1]);
    let _overlay = a.overlay_up(&world.config_of_a(&EVERYTHING, ""));
    a.reaches(OUTSIDE[0]);
    let capture = Capture::start(a, &wire, &format!("host {} and udp port 9", OUTSIDE[1]));
    // Any user may do this: SO_BINDTODEVICE is 25, IPV6_FREEBIND is 78.
    let program = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.SOL_SOCKET, 25, b'br0')\n\
         s.setsockopt(socket.IPPROTO_IPV6, 78, 1)\n\
         s.bind(('fd01::99', 0))\n\
         try:\n  s.sendto(b'x', ('{}', 9))\n\
         except OSError as error: print(error)\n",
        OUTSIDE[1]
    );
    a.exec(["setpriv", "--reuid", "65534", "--clear-groups", PYTHON, "-c", &program]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(capture.count(), 0, "{}", capture.shown());
}

#[test]
fn ipv6_switched_off_while_up_keeps_neither_a_reload_nor_ipv4_from_working() {
    let Some(world) = World::new("ipv6 off while up") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    let config = world.config_of_a(&EVERYTHING, "");
    let overlay = a.overlay_up(&(config.clone() + "allow = [\"tcp/22\"]\n"));
    a.reaches(OUTSIDE[0]);
    a.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    // The watch finds the loss of the IPv6 addresses before the loss of the IPv4 ones.
    let interface = a.interface();
    within(SHORTLY, "the loss to be noticed", || (overlay.status()["host"]["state"] == "incomplete").then_some(()));
    a.shell(&format!("ip -4 address flush dev {interface}; ip route flush table 51820"));
    within(Duration::from_secs(5), "IPv4 to be restored without IPv6", || ping(a, OUTSIDE[0]).then_some(()));
    a.write("overlay.toml", config + "allow = []\n");
    a.overlay("reload").succeeded("overlay reload");
    assert_eq!(overlay.peer(b)["allow"], serde_json::json!([]));
    a.reaches(OUTSIDE[0]);
    within(SHORTLY, "nothing to be missing", || (overlay.status()["host"]["state"] == "intact").then_some(()));
}

#[test]
fn routes_that_the_local_network_supplies_do_not_lead_past_the_tunnel() {
    let Some(world) = World::new("tunnel vision") else { return };
    let World { a, b, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    let (wire, config) = (world.wire(), world.config_of_a(&EVERYTHING, ""));
    let halves = ["-4 0.0.0.0/1", "-4 128.0.0.0/1", "-4 192.0.2.77/32", "-6 ::/1", "-6 2000::/3", "-6 2001:db8::/32"];
    for is_without in [false, true] {
        let overlay = match is_without {
            true => Overlay::from_command(a, up_without_nft(a, &config)),
            false => a.overlay_up(&config),
        };
        a.reaches(OUTSIDE[0]);
        let capture = Capture::start(a, &wire, &World::in_clear());
        // What DHCP's option 121 and router advertisements make a network manager add.
        for route in halves {
            let (family, net) = route.split_once(' ').expect("a family");
            let (via, protocol) = if family == "-4" { ("10.1.0.2", "dhcp") } else { ("fd01::2", "ra") };
            a.ip(&format!("{family} route add {net} via {via} dev {wire} proto {protocol}"));
        }
        within(Duration::from_secs(3), "the routes to be refused", || {
            overlay.status()["host"]["warnings"].to_string().contains("192.0.2.77/32").then_some(())
        });
        let seen = capture.count();
        for address in OUTSIDE {
            assert!(ping(a, address), "{address} is reached through the tunnel, without nft: {is_without}");
        }
        assert_eq!(capture.count(), seen, "{}", capture.shown());
        assert!(is_without || seen == 0, "the guard lets nothing out even before: {}", capture.shown());
        assert!(ping(a, "10.1.0.2") && ping(a, "fd01::2"), "the network of the wire stays direct");
        // A person's route is followed.
        b.ip("address add 10.200.0.1/24 dev lo");
        a.ip("route add 10.200.0.0/24 via 10.1.0.2");
        within(Duration::from_secs(3), "a static route to be direct", || ping(a, "10.200.0.1").then_some(()));
        a.ip("route delete 10.200.0.0/24");
        b.ip("address delete 10.200.0.1/24 dev lo");
        for route in halves {
            let (family, net) = route.split_once(' ').expect("a family");
            a.ip(&format!("{family} route delete {net}"));
        }
        within(Duration::from_secs(3), "the warning to go", || {
            (!overlay.status()["host"]["warnings"].to_string().contains("supplies routes")).then_some(())
        });
        for address in OUTSIDE {
            a.reaches(address);
        }
        drop(capture);
        overlay.stop();
        assert_eq!(a.ip("-4 rule show").lines().count(), 3);
        assert_eq!(a.ip("-6 rule show").lines().count(), 2);
    }
}
