//! Every kind of NAT with every other.

use overlay_sim::nat::{Kind, traversable};
use overlay_sim::{Agents, Route, millis, seconds};

#[test]
fn each_pair_is_reached_and_directly_where_that_can_be() {
    let mut wrong = Vec::new();
    for a in Kind::ALL {
        for b in Kind::ALL {
            let mut agents = Agents::started(1, &[a, b], 1);
            let (alice, bob) = agents.pair();
            let world = &mut agents.world;
            world.run_for(seconds(2));
            let pings = world.pings(alice, bob, millis(100), seconds(10));
            let routes = world.routes(alice, bob);
            let is_direct = routes == [Route::Direct];
            if pings.lost() > 0
                || is_direct != traversable(a, b)
                || pings.until_first().is_none_or(|first| first > millis(500))
            {
                wrong.push(format!(
                    "{a:?} {b:?}: lost {}, first {:?}, {routes:?}, expected direct: {}",
                    pings.lost(),
                    pings.until_first(),
                    traversable(a, b)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
