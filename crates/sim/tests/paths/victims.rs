//! Peers that name addresses which are not theirs.

use std::net::SocketAddr;

use overlay_core::{Command, Remote};
use overlay_sim::nat::Kind;
use overlay_sim::{Agents, World, millis, minutes, seconds};

const VICTIM: &str = "198.51.100.200";

fn to_victim(world: &World) -> usize {
    world.sent().iter().filter(|sent| sent.destination.ip().to_string() == VICTIM).count()
}

#[test]
fn an_address_that_many_peers_name_gets_sixty_datagrams() {
    // A thousand peers, of which each names sixteen ports of the victim, and asks for a session again and again.
    let mut agents = Agents::behind(1, &[Kind::None; 12], 1);
    let hosts = agents.hosts.clone();
    agents.start(&[seconds(0); 12]);
    agents.world.run_for(seconds(2));
    let alice = hosts[0];
    for round in 0..5 {
        for (index, peer) in hosts[1..].iter().enumerate() {
            let candidates = (0..16).map(|port| format!("{VICTIM}:{}", 1_000 + 16 * (index as u16) + port));
            let candidates: Vec<SocketAddr> = candidates.map(|address| address.parse().expect("an address")).collect();
            let tag = agents.world.tag(alice, agents.world.key(*peer));
            let remote = Remote { candidates, relayed: Vec::new(), ..Remote::default() };
            agents.world.command(alice, Command::SetRemote { peer: tag, remote }).expect("the peer is there");
            let ends = agents.world.v4(alice, *peer);
            agents.world.send_ping(alice, ends);
        }
        agents.world.run_for(minutes(round + 1));
    }
    let sent = to_victim(&agents.world);
    println!("{sent} datagrams");
    assert!((1..=60).contains(&sent), "{sent}");
    assert!(agents.world.stats(alice).path_probes_withheld.value() > 0);
}

#[test]
fn addresses_that_nobody_can_have_are_never_sent_to() {
    let mut agents = Agents::started(1, &[Kind::Moderate, Kind::Linux], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    let junk =
        ["127.0.0.1:1", "0.0.0.0:1", "224.0.0.5:9", "255.255.255.255:9", "169.254.1.1:9", "[::1]:9", "[fe80::1]:9"];
    let inner = SocketAddr::new(agents.world.v4(alice, bob).destination, 51_820);
    let candidates: Vec<SocketAddr> =
        junk.iter().map(|address| address.parse().expect("an address")).chain([inner]).collect();
    let peer = agents.world.tag(alice, agents.world.key(bob));
    agents.world.command(alice, Command::SetPools(vec![ipnet::IpNet::from(inner.ip())])).expect("a pool");
    let remote = Remote { candidates: candidates.clone(), relayed: Vec::new(), ..Remote::default() };
    agents.world.command(alice, Command::SetRemote { peer, remote }).expect("the peer is there");
    agents.world.pings(alice, bob, millis(100), seconds(20));
    let is_junk = |sent: &&overlay_sim::Sent| candidates.contains(&sent.destination);
    assert!(!agents.world.sent().iter().any(|sent| is_junk(&sent)));
}

#[test]
fn an_address_that_is_set_from_outside_does_not_move_a_peer_that_finds_its_path() {
    let mut agents = Agents::started(1, &[Kind::Moderate, Kind::Linux], 1);
    let (alice, bob) = agents.pair();
    agents.world.run_for(seconds(2));
    agents.world.pings(alice, bob, millis(100), seconds(8));
    let key = agents.world.key(bob);
    let (peer, before) = (agents.world.tag(alice, key), agents.world.last_endpoint(alice, key));
    let endpoint = Some(VICTIM.parse::<std::net::IpAddr>().map(|ip| SocketAddr::new(ip, 9)).expect("an address"));
    let change = overlay_core::PeerChange { endpoint, ..overlay_core::PeerChange::of(peer) };
    agents.world.command(alice, Command::ChangePeer(Box::new(change))).expect("the peer is there");
    assert_eq!(agents.world.pings(alice, bob, millis(100), seconds(2)).lost(), 0);
    assert_eq!(agents.world.last_endpoint(alice, key), before);
    assert_eq!(to_victim(&agents.world), 0);
}
