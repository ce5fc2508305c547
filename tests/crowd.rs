//! A rendezvous with its crowd: the real server with up to ten thousand agents on real sockets.
//!
//! The server is the real binary in a namespace of its own. The agents are the real client of `overlay_rendezvous`, each
//! over TCP, TLS, WebSocket and channel, inside the test process. So the agents and the server share the machine, and each
//! figure holds what the agents cost, too. Each agent comes from an address of its own, because the rendezvous limits
//! what one address may do. Each watches twenty others, and so has twenty watchers.
//!
//! The ordinary suite runs this with 1,000 agents, `make crowd` with 10,000. The promises are the same.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs, sockets and time are what this is about"
)]

mod lab;
mod rogue;

#[path = "crowd/figures.rs"]
mod figures;
#[path = "crowd/flood.rs"]
mod flood;
#[path = "crowd/flooded.rs"]
mod flooded;
#[path = "crowd/member.rs"]
mod member;
#[path = "crowd/phases.rs"]
mod phases;
#[path = "crowd/returns.rs"]
mod returns;
#[path = "crowd/world.rs"]
mod world;

use figures::Table;
use flood::Kind;
use phases::Crowd;
#[cfg(feature = "etcd")]
use world::World;

/// What is promised of a rendezvous with so many agents, up to the moment when it goes away.
fn serves(mut crowd: Crowd, table: &mut Table) -> Crowd {
    crowd.registers(table);
    crowd.watches(table);
    crowd.fits_into_memory(table);
    crowd.looks_up(table);
    crowd.hears_changes(table);
    crowd
}

/// Each kind of flood in its turn, beside a thousand agents that look each other up as before.
fn stands_floods(table: &mut Table) -> Option<()> {
    let mut crowd = Crowd::gather(1_000)?;
    crowd.register(500.0);
    for kind in [Kind::OneIdentity, Kind::ManyIdentities, Kind::Unfinished, Kind::Handshakes] {
        crowd.stands_a_flood(kind, table);
    }
    Some(())
}

#[test]
fn rate_a_thousand_agents_at_one_rendezvous() {
    let mut table = Table::default();
    let Some(crowd) = Crowd::gather(1_000) else { return };
    let mut crowd = serves(crowd, &mut table);
    crowd.comes_back_after_a_kill(&mut table);
    crowd.comes_back_after_a_replacement(&mut table);
}

#[test]
fn rate_a_strangers_flood_slows_nobody_else_down() {
    stands_floods(&mut Table::default());
}

#[test]
fn a_successor_that_fails_leaves_the_rendezvous_as_it_was() {
    let Some(mut crowd) = Crowd::gather(50) else { return };
    crowd.register(100.0);
    crowd.outlives_a_successor_that_fails();
}

#[test]
fn crowd_of_ten_thousand_agents_at_one_rendezvous() {
    let mut table = Table::default();
    let Some(crowd) = Crowd::gather(10_000) else { return };
    let mut crowd = serves(crowd, &mut table);
    crowd.comes_back_after_a_stop(&mut table);
    crowd.comes_back_after_a_kill(&mut table);
    crowd.comes_back_after_a_replacement(&mut table);
    table.write("agents");
}

/// Two processes over three members of etcd, all of them on this machine. How many can register in a second is left to the ten
/// thousand: three members write to one disk here.
#[cfg(feature = "etcd")]
#[test]
fn rate_a_thousand_agents_over_two_processes() {
    let mut table = Table::default();
    let Some(world) = World::shared("a shared crowd") else { return };
    let mut crowd = Crowd::at(world, 1_000);
    crowd.register(500.0);
    crowd.watches(&mut table);
    crowd.looks_up(&mut table);
    crowd.hears_changes(&mut table);
    crowd.comes_to_the_other_process(&mut table);
}

#[cfg(feature = "etcd")]
#[test]
fn crowd_of_ten_thousand_agents_over_two_processes() {
    let mut table = Table::default();
    let Some(world) = World::shared("a large shared crowd") else { return };
    let mut crowd = serves(Crowd::at(world, 10_000), &mut table);
    crowd.comes_to_the_other_process(&mut table);
    table.write("shared");
}

#[test]
fn crowd_and_floods_of_strangers() {
    let mut table = Table::default();
    if stands_floods(&mut table).is_some() {
        table.write("floods");
    }
}
