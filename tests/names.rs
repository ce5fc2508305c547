//! Endpoints by host name: a server that moves, an address family that leads nowhere, and an address that this host
//! cannot reach at all.
//!
//! The measured times are what a user waits for. They are printed, and each has a limit.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and seconds are what this is about"
)]

mod lab;

use std::time::{Duration, Instant};

use lab::stock::{StockConfig, StockPeer};
use lab::{A, B, Host, Lab, NameServer, Overlay, Process, SHORTLY, Stock, installed, within, words};
use rustix::process::Signal;
use serde_json::Value;

/// The server's name.
const NAME: &str = "server.lab.test";
/// The server's first address, and the one it moves to.
const HERE: &str = "10.2.0.2";
const THERE: &str = "10.3.0.2";
/// Its first address in the other family.
const HERE_V6: &str = "fd02::2";
/// An address to which packets leave without ever being answered.
const DEAD_V6: &str = "fd02::dead";

/// The promised limits for a server that moved, and for a dead address family.
const MOVED: Duration = Duration::from_secs(20);
const OTHER_FAMILY: Duration = Duration::from_secs(6);

/// How long a failing test waits.
const PATIENCE: Duration = Duration::from_secs(240);

/// A client, and two places for one server. Each place has its own wire to the client.
struct World {
    client: Host,
    here: Host,
    there: Host,
    names: NameServer,
    _lab: Lab,
}

/// A server on a host: ours, or a different implementation.
enum Server {
    Ours(Overlay),
    Stock(StockPeer),
}

impl World {
    fn new(name: &str) -> Option<World> {
        let lab = Lab::new(name)?;
        let [client, here, there] = ["a", "b", "c"].map(|name| lab.host(name));
        lab.link(&client, &here, &["10.2.0.1/24", "fd02::1/64"], &["10.2.0.2/24", "fd02::2/64"]);
        lab.link(&client, &there, &["10.3.0.1/24", "fd03::1/64"], &["10.3.0.2/24", "fd03::2/64"]);
        // Both places are the same server with the same key.
        let key = std::fs::read_to_string(here.private_key_file()).expect("our own file");
        there.write_secret("private.key", &key);
        // Without this entry, a neighbour that does not answer would become a local error after some seconds.
        let link = client.link_to(&here);
        client.ip(&format!("neighbour add {DEAD_V6} lladdr 02:00:00:00:de:ad dev {link}"));
        let names = NameServer::start(&client);
        Some(World { client, here, there, names, _lab: lab })
    }

    fn config_of_client(&self, keys: &str) -> String {
        let (own, far) = (A.inner(), B.allowed());
        self.client.interface_toml(&[&own[0], &own[1]])
            + &self.here.peer_toml(Some(&format!("{NAME}:51820")), &[&far[0], &far[1]])
            + keys
    }

    /// Starts the server on one of its hosts. It waits for the client to call.
    fn serve(&self, on: &Host) -> Overlay {
        let (own, far) = (B.inner(), A.allowed());
        on.overlay_up(&(on.interface_toml(&[&own[0], &own[1]]) + &self.client.peer_toml(None, &[&far[0], &far[1]])))
    }

    fn serve_by(&self, stock: Option<Stock>, on: &Host) -> Server {
        let Some(stock) = stock else { return Server::Ours(self.serve(on)) };
        let (own, far) = (B.inner(), A.allowed());
        Server::Stock(stock.up(
            on,
            &StockConfig {
                addresses: &[&own[0], &own[1]],
                peer: &self.client,
                endpoint: None,
                allowed_ips: &[&far[0], &far[1]],
                preshared_key_file: None,
            },
        ))
    }

    /// Moves the server, both in the name service and in reality. Returns how long the client took to follow.
    fn move_server(&self, client: &Overlay, stock: Option<Stock>, server: Server) -> (Duration, Server) {
        match server {
            Server::Ours(overlay) => overlay.kill9(),
            Server::Stock(peer) => drop(peer),
        }
        self.names.set(NAME, &[THERE]);
        let moved = Instant::now();
        let server = self.serve_by(stock, &self.there);
        within(PATIENCE, "the client to follow the server", || {
            (endpoint(&client.peer(&self.here)) == format!("{THERE}:51820")).then_some(())
        });
        (moved.elapsed(), server)
    }
}

fn endpoint(peer: &Value) -> String {
    peer["endpoint"].as_str().unwrap_or_default().to_owned()
}

/// Sends five pings a second until it is dropped.
fn pings(from: &Host, to: &str) -> Process {
    from.spawn(format!("ping -n -i 0.2 -W 1 {to}"))
}

fn answers(ping: &Process) -> usize {
    ping.stdout().matches("bytes from").count()
}

#[track_caller]
fn report(what: &str, took: Duration, limit: Duration) {
    eprintln!("{what}: {:.1} s", took.as_secs_f64());
    assert!(took <= limit, "{what}: {:.1} s, and {} s are promised", took.as_secs_f64(), limit.as_secs());
}

#[test]
fn a_server_that_moved_is_followed_within_20_s_while_there_is_traffic() {
    let Some(world) = World::new("moved, with traffic") else { return };
    world.names.set(NAME, &[HERE]);
    let server = Server::Ours(world.serve(&world.here));
    let client = world.client.overlay_up(&world.config_of_client(""));
    let ping = pings(&world.client, B.v4);
    within(SHORTLY, "answers from the first place", || (answers(&ping) > 5).then_some(()));
    assert_eq!(client.peer(&world.here)["state"], "connected");

    let (took, _server) = world.move_server(&client, None, server);
    let before = answers(&ping);
    within(SHORTLY, "answers from the second place", || (answers(&ping) > before).then_some(()));
    assert_eq!(client.peer(&world.here)["state"], "connected");
    report("moved server, with traffic", took, MOVED);
}

#[test]
fn a_server_that_moved_is_followed_within_20_s_by_keepalive_alone() {
    let Some(world) = World::new("moved, keepalive") else { return };
    follow_by_keepalive(&world, None);
}

#[test]
fn a_stock_server_that_moved_is_followed_within_20_s_by_keepalive_alone() {
    if !installed("stock server, moved", &["wireguard-go"]) {
        return;
    }
    let Some(world) = World::new("stock, moved, keepalive") else { return };
    follow_by_keepalive(&world, Some(Stock::WireGuardGo));
}

fn follow_by_keepalive(world: &World, stock: Option<Stock>) {
    world.names.set(NAME, &[HERE]);
    let server = world.serve_by(stock, &world.here);
    let client = world.client.overlay_up(&world.config_of_client("persistent_keepalive = 25\n"));
    within(SHORTLY, "a session", || (client.peer(&world.here)["state"] == "connected").then_some(()));
    // By now the client knows how to ask its peer whether it is alive.
    let began = Instant::now();
    within(PATIENCE, "two keepalives", || {
        assert_eq!(client.peer(&world.here)["state"], "connected");
        (began.elapsed() > Duration::from_secs(52)).then_some(())
    });
    let (took, _server) = world.move_server(&client, stock, server);
    let who = if stock.is_some() { "stock server" } else { "server" };
    report(&format!("moved {who}, keepalive alone"), took, MOVED);
}

#[test]
fn a_name_whose_ipv6_leads_nowhere_is_reached_over_ipv4_within_6_s() {
    let Some(world) = World::new("dead family") else { return };
    world.names.set(NAME, &[DEAD_V6, HERE]);
    let _server = world.serve(&world.here);
    let began = Instant::now();
    let client = world.client.overlay_up(&world.config_of_client(""));
    let ping = pings(&world.client, B.v4);
    within(PATIENCE, "answers over IPv4", || (answers(&ping) > 0).then_some(()));
    let took = began.elapsed();
    assert_eq!(endpoint(&client.peer(&world.here)), format!("{HERE}:51820"));
    report("dead IPv6 at the first start", took, OTHER_FAMILY);
}

/// Only the path to the server fails. The server's own packets still arrive, and it keeps calling because it hears
/// nothing.
#[test]
fn a_family_that_dies_while_the_session_lives_is_left_within_20_s() {
    let Some(world) = World::new("family dies") else { return };
    world.names.set(NAME, &[HERE_V6, HERE]);
    let _server = world.serve(&world.here);
    let client = world.client.overlay_up(&world.config_of_client(""));
    let ping = pings(&world.client, B.v4);
    within(SHORTLY, "answers over IPv6", || (answers(&ping) > 5).then_some(()));
    assert_eq!(endpoint(&client.peer(&world.here)), format!("[{HERE_V6}]:51820"));
    world.here.exec("nft add table ip6 dead");
    world.here.exec(["nft", "add chain ip6 dead input { type filter hook input priority 0; }"]);
    world.here.exec("nft add rule ip6 dead input udp dport 51820 drop");
    let died = Instant::now();
    within(PATIENCE, "the other family", || {
        (endpoint(&client.peer(&world.here)) == format!("{HERE}:51820")).then_some(())
    });
    report("IPv6 dies, with traffic", died.elapsed(), MOVED);
}

#[test]
fn addresses_that_this_host_refuses_to_send_to_cost_no_time() {
    for refusal in ["prohibit", "unreachable", "blackhole"] {
        let Some(world) = World::new(&format!("local error, {refusal}")) else { return };
        // getaddrinfo puts addresses last that it finds unreachable, but it does not know about a rule for our
        // datagrams' mark.
        world.client.ip(&format!("-4 rule add fwmark 0x77 to 10.2.0.0/25 {refusal}"));
        // The longer the common prefix with our own address, the earlier an address comes (RFC 6724 section 6, rule 9).
        world.here.ip(&format!("address add 10.2.0.200/24 dev {}", world.here.link_to(&world.client)));
        let refused: Vec<_> = (11..=17).map(|n| format!("10.2.0.{n}")).collect();
        let addresses: Vec<_> = refused.iter().map(String::as_str).chain(["10.2.0.200"]).collect();
        world.names.set(NAME, &addresses);
        let _server = world.serve(&world.here);
        let config = world.config_of_client("persistent_keepalive = 25\n").replacen("\n", "\nfwmark = 0x77\n", 1);
        let path = world.client.write("overlay.toml", &config);
        let mut command = world.client.overlay_command(format!("up {}", path.display()));
        command.env("OVERLAY_LOG", "debug");
        let client = Overlay::from_command(&world.client, command);
        within(PATIENCE, "a session with the address that is left", || {
            (client.peer(&world.here)["state"] == "connected").then_some(())
        });
        assert_eq!(endpoint(&client.peer(&world.here)), "10.2.0.200:51820", "{refusal}");
        // All of them within one round of the engine. A quarter of a second apart, they would take 1.5 s.
        let log = client.log();
        let refusals: Vec<_> = log.lines().filter(|line| line.contains(words::NOT_SENT)).collect();
        assert!(refusals.len() >= 7, "{refusal}: {log}");
        let (first, last) = (seconds_of(refusals[0]), seconds_of(refusals[6]));
        assert!((last - first).rem_euclid(60.0) < 0.2, "{refusal}: {refusals:#?}");
    }
}

/// The seconds in the time at the beginning of a log line.
fn seconds_of(line: &str) -> f64 {
    let time = line.split(['T', 'Z']).nth(1).expect("a time");
    time.rsplit(':').next().and_then(|seconds| seconds.parse().ok()).expect("seconds")
}

#[test]
fn a_peer_that_stops_answering_is_suspect_and_connected_again_when_it_answers_late() {
    let Some(world) = World::new("suspect") else { return };
    world.names.set(NAME, &[HERE]);
    let server = world.serve(&world.here);
    let client = world.client.overlay_up(&world.config_of_client(""));
    let ping = pings(&world.client, B.v4);
    within(SHORTLY, "answers", || (answers(&ping) > 5).then_some(()));
    let questions = world.names.asked(NAME).len();
    server.signal(Signal::STOP);
    let stopped = Instant::now();
    within(MOVED, "the peer to be suspect", || (client.peer(&world.here)["state"] == "suspect").then_some(()));
    let took = stopped.elapsed();
    assert!(took >= Duration::from_secs(14), "{took:?}: too early to say so");
    within(SHORTLY, "its name to be asked again", || (world.names.asked(NAME).len() > questions).then_some(()));
    let shown = world.client.overlay("status").succeeded("overlay status");
    assert!(shown.contains(" suspect "), "{shown}");
    server.signal(Signal::CONT);
    within(SHORTLY, "the peer to be connected", || (client.peer(&world.here)["state"] == "connected").then_some(()));
    assert_eq!(endpoint(&client.peer(&world.here)), format!("{HERE}:51820"));
}

#[test]
fn a_reload_that_changes_the_name_moves_to_it_at_once_and_drops_nothing_if_nobody_is_there() {
    let Some(world) = World::new("a different name") else { return };
    world.names.set(NAME, &[HERE]);
    world.names.set("nobody.lab.test", &["10.3.0.77"]);
    world.names.set("other.lab.test", &[THERE]);
    let _here = world.serve(&world.here);
    let client = world.client.overlay_up(&world.config_of_client(""));
    let ping = pings(&world.client, B.v4);
    within(SHORTLY, "answers from the first place", || (answers(&ping) > 5).then_some(()));

    let rename = |name: &str| {
        std::fs::write(client.config(), world.config_of_client("").replace(NAME, name)).expect("our own file");
        world.client.overlay("reload").succeeded("overlay reload");
    };
    rename("nobody.lab.test");
    within(SHORTLY, "the name to be asked", || (!world.names.asked("nobody.lab.test").is_empty()).then_some(()));
    let before = answers(&ping);
    within(SHORTLY, "answers from the old place meanwhile", || (answers(&ping) > before + 10).then_some(()));

    let _there = world.serve(&world.there);
    rename("other.lab.test");
    within(SHORTLY, "the server of the new name", || {
        (endpoint(&client.peer(&world.here)) == format!("{THERE}:51820")).then_some(())
    });
}
