//! Two agents have a direct path exactly where one can exist, a relayed one otherwise, and in any case one that works.

use std::fmt::Write as _;
use std::time::Duration;

use overlay_sim::nat::{Kind, traversable};
use overlay_sim::{Agents, Route, millis, seconds};

use crate::ground::{anywhere, within};

/// How many networks are drawn for each pair of kinds in every run of the tests.
const SOME: u64 = 6;
/// How many in the long run: 10,000 for the 81 pairs.
const MANY: u64 = 124;
/// How far apart the agents begin.
const STARTS: Duration = seconds(3);
/// How soon they reach each other from then on.
const CONNECTED: Duration = seconds(3);
/// How soon they are on their best path.
const SETTLED: Duration = seconds(15);

/// What is wrong with a run, if anything is.
fn flaw(seed: u64, kinds: [Kind; 2]) -> Option<(String, Agents)> {
    let (mut agents, mut rng) = anywhere(seed, kinds, 2);
    let (alice, bob) = agents.pair();
    let starts = [within(STARTS, &mut rng), within(STARTS, &mut rng)];
    agents.start(&starts);
    agents.world.run_for(*starts.iter().max().expect("two agents"));
    let pings = agents.world.pings(alice, bob, millis(200), SETTLED);
    let wrong = (|| {
        let first = pings.until_first()?;
        if first > CONNECTED {
            return Some(format!("the first answer came after {first:?}"));
        }
        if pings.doubled() > 0 {
            return Some(format!("{} pings were answered twice", pings.doubled()));
        }
        // What waited for a session may be dropped, and nothing afterwards.
        let mut late = pings.0.iter().skip_while(|ping| ping.answered.is_none());
        if let Some(lost) = late.find(|ping| ping.answered.is_none()) {
            return Some(format!("the ping at {:?} was lost on the way to a better path", lost.sent));
        }
        let is_direct = traversable(kinds[0], kinds[1]);
        for (from, to) in [(alice, bob), (bob, alice)] {
            let routes = agents.world.routes(from, to);
            let is_good = match routes[..] {
                [Route::Direct] => is_direct,
                [Route::Relayed(_)] => !is_direct,
                _ => false,
            };
            if !is_good {
                return Some(format!("{from:?} sends by {routes:?}, and a direct path exists: {is_direct}"));
            }
        }
        None
    })();
    let wrong = if pings.until_first().is_none() { Some("they never met".to_owned()) } else { wrong };
    wrong.map(|wrong| (wrong, agents))
}

/// Holds all pairs of kinds to the theorem, in so many networks each.
fn hold(networks: std::ops::Range<u64>) {
    let mut flaws = String::new();
    let (mut count, mut first) = (0, None);
    for network in networks {
        for (index, (a, b)) in Kind::ALL.into_iter().flat_map(|a| Kind::ALL.map(|b| (a, b))).enumerate() {
            let seed = network * 100 + index as u64;
            let Some((wrong, agents)) = flaw(seed, [a, b]) else { continue };
            count += 1;
            if count <= 40 {
                writeln!(flaws, "seed {seed}, {} and {}: {wrong}", a.name(), b.name()).expect("a string takes all");
            }
            first = first.or_else(|| Some(agents.world.trace().join("\n")));
        }
    }
    assert!(count == 0, "{count} flaws:\n{flaws}\nthe first one:\n{}", first.unwrap_or_default());
}

#[test]
fn a_direct_path_is_found_exactly_where_there_is_one() {
    hold(0..SOME);
}

#[test]
fn nats_in_10_000_networks_have_a_direct_path_exactly_where_there_is_one() {
    hold(SOME..MANY);
}
