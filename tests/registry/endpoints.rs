//! A trusted peer that says it can be reached where somebody else is.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use overlay_rendezvous::protocol::{Push, Slot};

use super::*;
use crate::lab::Host;
use crate::rogue::now;
use crate::rogue::outsider::endpoints;

/// How many endpoints of the victim are told, and in how many lists.
const TOLD: u16 = 1_000;
const LISTS: usize = 63;
/// Between two lists, if each is to have its chance.
const SLOWLY: Duration = Duration::from_millis(250);
/// The most datagrams in an hour to an address that answers none, over all ports and peers.
const UNANSWERED: u64 = 60;

/// A host that wants nothing of all this, and the packets that come to it.
struct Victim {
    host: Host,
    address: IpAddr,
}

impl Victim {
    #[track_caller]
    fn new(world: &mut Agents) -> Victim {
        let host = world.host("victim");
        let shown = host.ip("-o -4 address show scope global");
        let address = shown.split_whitespace().find_map(|word| word.split_once('/')?.0.parse().ok());
        host.exec("nft add table inet counted");
        host.exec(["nft", "add chain inet counted input { type filter hook input priority 0; }"]);
        host.exec("nft add rule inet counted input meta l4proto udp counter");
        Victim { host, address: address.expect("an address") }
    }

    /// Lists of [`TOLD`] endpoints of the victim, one a port.
    fn places(&self) -> Vec<Vec<SocketAddr>> {
        let all: Vec<_> = (1..=TOLD).map(|port| SocketAddr::new(self.address, port)).collect();
        all.chunks(16).map(<[_]>::to_vec).collect()
    }

    #[track_caller]
    fn datagrams(&self) -> u64 {
        let shown = self.host.exec("nft -j list table inet counted");
        let shown: Value = serde_json::from_str(&shown).expect("JSON of nft");
        let rules = shown["nftables"].as_array().expect("a list");
        let expressions = rules.iter().filter_map(|entry| entry["rule"]["expr"].as_array()).flatten();
        expressions.filter_map(|expression| expression["counter"]["packets"].as_u64()).next().expect("the counter")
    }
}

/// Tells alice in this agent's name where it is, list after list, `apart` from each other.
fn tell(scene: &Scene, key: &SecretKey, lists: &[Vec<SocketAddr>], apart: Duration) {
    let alice = scene.record_of(&scene.alice_key);
    for places in lists {
        let sealed = endpoints(&alice, key, now().unix + 1, places).into();
        let from = key.public();
        scene.rogue.push(&scene.alice_key, Push::Slot { from, slot: Slot::Endpoints, sealed });
        std::thread::sleep(apart);
    }
}

#[test]
fn a_trusted_peer_cannot_make_us_flood_a_victim() {
    let Some(mut scene) = Scene::new("endpoints of a victim") else { return };
    let victim = Victim::new(&mut scene.world);
    let mallory = scene.trusted("mallory", "any");
    let (lists, began) = (victim.places(), Instant::now());
    assert_eq!(lists.len(), LISTS);
    let pings = Pings::new(u16::MAX, PACE).start(&scene.alice.host, &scene.bob.v4());
    // All at once, and then slowly.
    tell(&scene, &mallory.key, &lists, Duration::ZERO);
    tell(&scene, &mallory.key, &lists, SLOWLY);
    let (came, took) = (victim.datagrams(), began.elapsed());
    eprintln!("{} endpoints, {came} datagrams in {took:?}", 2 * TOLD);
    assert!(came >= 1, "alice has not called at all");
    assert!(came <= UNANSWERED, "{came} datagrams in {took:?}");
    // What was told last counts in the end.
    let last = lists.last().and_then(|list| list.first()).expect("a list").to_string();
    within(SHORTLY, "the last list", || {
        let path = scene.alice.ask("path mallory");
        path["pairs"].as_array()?.iter().any(|pair| pair["remote"] == *last).then_some(())
    });
    pings.are_enough();
    pings.are_answered();
}

#[test]
fn endpoints_of_a_peer_with_a_session_get_a_few_probes() {
    let Some(mut scene) = Scene::new("endpoints beside a session") else { return };
    let victim = Victim::new(&mut scene.world);
    let attack = scene.attack();
    // Longer than the time between two rounds of probes, so that there is one if anything causes it.
    tell(&scene, &scene.bobs_secret(), &victim.places(), SLOWLY);
    assert_ne!(files_of(&scene.alice), attack.files, "the lists did not arrive");
    let came = victim.datagrams();
    assert!(came <= UNANSWERED, "{came} datagrams");
    assert_eq!(tunnels_of(&scene.alice), attack.tunnels);
    let pings = attack.pings.expect("they are under way");
    pings.are_enough();
    pings.are_answered();
}
