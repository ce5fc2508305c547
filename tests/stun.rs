//! STUN with strangers: `overlay netcheck` asks Debian's coturn past routers of every kind, and coturn's client
//! and its NAT discovery ask our server's side.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the lab waits for real programs")]

mod lab;

use std::net::UdpSocket;
use std::slice;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Host, Lab, Process, SHORTLY, inside, installed};
use overlay_rendezvous::stun::{self, Gate, Place};
use serde_json::{Value, json};

/// The port of STUN. coturn's second one is the next.
const PORT: u16 = 3478;
/// The two addresses of the server, in each family.
const SERVER: [&str; 2] = ["203.0.113.1", "203.0.113.2"];
const SERVER_V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
/// The router's own address on the server's side.
const ROUTER: &str = "203.0.113.254";
const CLIENT: &str = "10.1.0.2";
const CLIENT_V6: &str = "2001:db8:1::2";

/// A client behind a router, and a server.
struct World {
    client: Host,
    router: Host,
    server: Host,
    /// Dropped last.
    _lab: Lab,
}

impl World {
    fn new(name: &str) -> Option<World> {
        let lab = Lab::new(name)?;
        let (client, router, server) = (lab.host("client"), lab.router("router"), lab.host("server"));
        lab.link(&client, &router, &["10.1.0.2/24", "2001:db8:1::2/64"], &["10.1.0.1/24", "2001:db8:1::1/64"]);
        let of_server = ["203.0.113.1/24", "203.0.113.2/24", "2001:db8::1/64", "2001:db8::2/64"];
        lab.link(&server, &router, &of_server, &["203.0.113.254/24", "2001:db8::fe/64"]);
        client.ip("route add default via 10.1.0.1");
        client.ip("route add default via 2001:db8:1::1");
        server.ip("route add default via 203.0.113.254");
        server.ip("route add default via 2001:db8::fe");
        Some(World { client, router, server, _lab: lab })
    }

    /// Starts coturn as a STUN server with two addresses of each family.
    fn coturn(&self) -> Process {
        let dir = self.server.dir().display();
        let listen: String = SERVER.iter().chain(&SERVER_V6).map(|address| format!(" -L {address}")).collect();
        let server = self.server.spawn(format!(
            "turnserver -n -S -m 1{listen} --no-tls --no-dtls --no-cli --log-file stdout --userdb {dir}/turndb \
             --pidfile {dir}/turnserver.pid"
        ));
        self.server.wait_for_listener(PORT);
        server
    }

    /// What `overlay netcheck` of the client finds at these servers.
    fn netcheck(&self, servers: &[&str]) -> Value {
        let servers: String = servers.iter().map(|server| format!(" --server {server}")).collect();
        let finished = self.client.overlay(format!("--json netcheck{servers}"));
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
    }

    /// Replaces the rules of the router.
    fn filter(&self, rules: &str) {
        let file = self.router.write("rules", format!("flush ruleset\n{rules}"));
        self.router.exec(format!("nft -f {}", file.display()));
    }

    /// The router's interface towards the server.
    fn wan(&self) -> String {
        self.router.link_to(&self.server)
    }
}

/// The rules of a NAT by the words of RFC 4787.
struct Nat {
    name: &'static str,
    mapping: &'static str,
    filtering: &'static str,
    rules: fn(wan: &str) -> String,
}

const NATS: [Nat; 5] = [
    Nat {
        name: "open",
        mapping: "endpoint_independent",
        filtering: "endpoint_independent",
        rules: |wan| endpoint_independent(wan, ""),
    },
    Nat {
        name: "address-restricted",
        mapping: "endpoint_independent",
        filtering: "address_dependent",
        rules: |wan| {
            let filter = format!(
                "set seen {{ type inet_service . ipv4_addr; flags dynamic, timeout; timeout 300s; }}
                 chain forward {{ type filter hook forward priority 0;
                     oifname {wan} meta l4proto udp update @seen {{ udp sport . ip daddr }}
                     iifname {wan} udp dport . ip saddr @seen accept
                     iifname {wan} drop
                 }}"
            );
            endpoint_independent(wan, &filter)
        },
    },
    Nat {
        name: "moderate",
        mapping: "endpoint_independent",
        filtering: "address_and_port_dependent",
        rules: |wan| {
            let filter = format!(
                "chain forward {{ type filter hook forward priority 0;
                     iifname {wan} ct state established,related accept
                     iifname {wan} drop
                 }}"
            );
            endpoint_independent(wan, &filter)
        },
    },
    Nat {
        name: "linux",
        mapping: "endpoint_independent",
        filtering: "address_and_port_dependent",
        rules: |wan| masquerade(wan, "masquerade"),
    },
    Nat {
        name: "strict",
        mapping: "address_and_port_dependent",
        filtering: "address_and_port_dependent",
        rules: |wan| masquerade(wan, "masquerade random"),
    },
];

fn endpoint_independent(wan: &str, filter: &str) -> String {
    format!(
        "table ip nat {{
            map fullcone {{ type inet_service : ipv4_addr . inet_service; flags dynamic, timeout; timeout 300s; }}
            {filter}
            chain pre {{ type nat hook prerouting priority dstnat;
                iifname {wan} meta l4proto udp dnat to udp dport map @fullcone
            }}
            chain post {{ type nat hook postrouting priority srcnat;
                oifname {wan} meta l4proto udp update @fullcone {{ udp sport : ip saddr . udp sport }}
                oifname {wan} snat to {ROUTER}
            }}
        }}"
    )
}

fn masquerade(wan: &str, how: &str) -> String {
    format!(
        "table ip nat {{
            chain pre {{ type nat hook prerouting priority dstnat; }}
            chain post {{ type nat hook postrouting priority srcnat; oifname {wan} {how}; }}
        }}"
    )
}

#[test]
fn coturn_shows_every_kind_of_nat_to_netcheck() {
    if !installed("coturn", &["turnserver"]) {
        return;
    }
    let Some(world) = World::new("netcheck past routers") else { return };
    let _coturn = world.coturn();
    let (four, six) = (format!("{}:{PORT}", SERVER[0]), format!("[{}]:{PORT}", SERVER_V6[0]));

    // Without a NAT, each family is seen as it is.
    let found = world.netcheck(&[&four, &six]);
    assert_eq!((&found["schema"], &found["udp"]), (&json!("overlay.netcheck.v1"), &json!(true)), "{found}");
    for (family, own) in [("ipv4", CLIENT), ("ipv6", CLIENT_V6)] {
        let found = &found[family];
        assert_eq!(found["state"], "works", "{found}");
        assert_eq!((&found["mapping"], &found["filtering"]), (&json!(OPEN), &json!(OPEN)), "{found}");
        assert_eq!(host_of(&found["mapped"][0]), own);
    }
    for server in found["servers"].as_array().expect("a list") {
        let round_trip = server["addresses"][0]["round_trip_ms"].as_f64().expect("a round trip");
        assert!((0.0..500.0).contains(&round_trip), "{server}");
    }

    // A firewall of IPv6 that translates nothing, with each NAT of IPv4.
    for nat in NATS {
        let wan = world.wan();
        let firewall = format!(
            "table ip6 firewall {{
                chain forward {{ type filter hook forward priority 0;
                    iifname {wan} meta l4proto ipv6-icmp accept
                    iifname {wan} ct state established,related accept
                    iifname {wan} drop
                }}
            }}"
        );
        world.filter(&format!("{}\n{firewall}", (nat.rules)(&wan)));
        let found = world.netcheck(&[&four, &six]);
        let v4 = &found["ipv4"];
        assert_eq!(
            (&v4["mapping"], &v4["filtering"]),
            (&json!(nat.mapping), &json!(nat.filtering)),
            "{}: {v4}",
            nat.name
        );
        let mapped = v4["mapped"].as_array().expect("a list");
        assert!(mapped.iter().all(|mapped| host_of(mapped) == ROUTER), "{}: {v4}", nat.name);
        assert_eq!(mapped.len() == 1, nat.mapping == OPEN, "{}: {v4}", nat.name);
        let v6 = &found["ipv6"];
        assert_eq!((&v6["mapping"], &v6["filtering"]), (&json!(OPEN), &json!("address_and_port_dependent")), "{v6}");
    }

    // No UDP at all.
    let wan = world.wan();
    world.filter(&format!(
        "table inet firewall {{
            chain forward {{ type filter hook forward priority 0; oifname {wan} meta l4proto udp drop; }}
        }}"
    ));
    let found = world.netcheck(&[&four, &six]);
    assert_eq!((&found["udp"], &found["ipv4"]["state"]), (&json!(false), &json!("silent")), "{found}");
}

const OPEN: &str = "endpoint_independent";

/// The host of an address with a port.
fn host_of(address: &Value) -> &str {
    let host = address.as_str().and_then(|text| text.rsplit_once(':')).map_or("", |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[test]
fn the_client_of_coturn_understands_our_answers() {
    if !installed("coturn", &["turnutils_stunclient"]) {
        return;
    }
    let Some(world) = World::new("a stranger asks for its address") else { return };
    let is_over = AtomicBool::new(false);
    for (at, own) in [(SERVER[0], CLIENT), (SERVER_V6[0], CLIENT_V6)] {
        let socket = inside(&world.server, || UdpSocket::bind((at, PORT)).expect("a free port"));
        is_over.store(false, Ordering::Relaxed);
        let said = thread::scope(|scope| {
            scope.spawn(|| serve(slice::from_ref(&socket), &socket, &Mutex::default(), &is_over));
            let _over = Over(&is_over);
            world.client.spawn(format!("turnutils_stunclient -p {PORT} {at}")).succeed_within(SHORTLY)
        });
        let seen = said.lines().find_map(|line| Some(line.split_once("UDP reflexive addr: ")?.1));
        let seen = json!(seen.unwrap_or_else(|| panic!("{said}")));
        assert_eq!(host_of(&seen), own, "{said}");
    }
}

/// Ends the server with the scope, also if the client fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_nat_discovery_of_coturn_learns_from_our_four_sockets() {
    if !installed("coturn", &["turnutils_natdiscovery"]) {
        return;
    }
    let Some(world) = World::new("a stranger asks what its NAT does") else { return };
    let sockets = inside(&world.server, || {
        let places = SERVER.iter().flat_map(|ip| [PORT, PORT + 1].map(|port| (*ip, port)));
        places.map(|place| UdpSocket::bind(place).expect("a free port")).collect::<Vec<_>>()
    });
    for nat in NATS.iter().filter(|nat| ["open", "strict"].contains(&nat.name)) {
        world.filter(&(nat.rules)(&world.wan()));
        let (is_over, gate) = (AtomicBool::new(false), Mutex::default());
        let said = thread::scope(|scope| {
            for socket in &sockets {
                scope.spawn(|| serve(&sockets, socket, &gate, &is_over));
            }
            let _over = Over(&is_over);
            // It pads, and asks the two questions from sockets of their own.
            let asks = ["-m", "-f"].map(|what| {
                let program = format!("turnutils_natdiscovery {what} -P -p {PORT} {}", SERVER[0]);
                world.client.spawn(program).succeed_within(SHORTLY)
            });
            asks.concat()
        });
        let word = if nat.name == "open" { "Endpoint Independent" } else { "Address and Port Dependent" };
        for verdict in [format!("NAT with {word} Mapping!"), format!("NAT with {word} Filtering!")] {
            assert!(said.contains(&verdict), "{}: no `{verdict}` in {said}", nat.name);
        }
        let stats = gate.into_inner().map(|gate| gate.stats).expect("no thread panics");
        assert!(stats.answered_from_other > 0, "{stats:?}");
    }
}

/// Answers each datagram that comes to one of a server's sockets, until the test is over.
fn serve(sockets: &[UdpSocket], socket: &UdpSocket, gate: &Mutex<Gate>, is_over: &AtomicBool) {
    let (began, mut buffer) = (Instant::now(), [0; 2_048]);
    let at = socket.local_addr().expect("it is bound");
    let places: Vec<_> = sockets.iter().map(|socket| socket.local_addr().expect("it is bound")).collect();
    let other = places.iter().find(|other| other.ip() != at.ip() && other.port() != at.port()).copied();
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time above zero");
    while !is_over.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let (datagram, now, mut gate) = (&buffer[..len], began.elapsed(), gate.lock().expect("no thread panics"));
        let answer = match other {
            Some(other) => stun::answer_at(datagram, from, Place { at, other }, now, &mut gate),
            None => stun::answer(datagram, from, now, &mut gate).map(|answer| (answer, at)),
        };
        let Some((answer, by)) = answer else { continue };
        let by = places.iter().position(|place| *place == by).expect("one of our sockets");
        sockets[by].send_to(&answer, from).expect("a client that just sent");
    }
}
