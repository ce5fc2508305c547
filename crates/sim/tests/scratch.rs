//! scratch
use overlay_sim::*;
#[test]
fn scratch() {
    let mut world = World::new(7);
    let (alice, bob) = world.pair();
    let start = world.now();
    for _ in 0..600 {
        world.send_ping(alice, world.v4(alice, bob));
        world.run_for(seconds(1));
    }
    for k in [Kind::Initiation, Kind::Response] {
        println!(
            "{:?}",
            world.sent().iter().filter(|s| s.kind() == k).map(|s| (s.from, s.at.since(start))).collect::<Vec<_>>()
        );
    }
}
