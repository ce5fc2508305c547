//! Networks drawn from a seed.

use std::time::Duration;

use overlay_sim::nat::Kind;
use overlay_sim::{Agents, Party, millis};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// The longest delay of a link, in milliseconds.
const FARTHEST: u64 = 120;

/// Two agents somewhere on the Internet: how far they are from each other and from their relays, how many routers are between
/// them, and how fast their rendezvous is. At least four routers, as in the lab: an opener must not reach the other side.
pub(crate) fn anywhere(seed: u64, kinds: [Kind; 2], most_relays: u64) -> (Agents, ChaCha8Rng) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let relays = 1 + below(most_relays, &mut rng) as usize;
    let mut agents = Agents::behind(seed, &kinds, relays);
    let (alice, bob) = agents.pair();
    let mut far = |from: Party, to: Party, most: u64| {
        let [latency, jitter, hops] = [1 + below(most, &mut rng), below(15, &mut rng), 4 + below(8, &mut rng)];
        for (from, to) in [(from, to), (to, from)] {
            agents.world.link(from, to, |link| {
                (link.latency, link.jitter, link.hops) = (millis(latency), millis(jitter), hops as u8);
            });
        }
        latency
    };
    // The way by a relay is never much shorter than the way without it, or it would be the better path.
    let mut shortest = FARTHEST;
    for relay in &agents.relays {
        let legs = [alice, bob].map(|host| far(host.into(), (*relay).into(), FARTHEST));
        shortest = shortest.min(legs[0] + legs[1]);
    }
    far(alice.into(), bob.into(), shortest);
    agents.world.set_rendezvous_delay(millis(20 + below(400, &mut rng)));
    (agents, rng)
}

/// A moment within this time.
pub(crate) fn within(span: Duration, rng: &mut ChaCha8Rng) -> Duration {
    millis(below(span.as_millis() as u64 + 1, rng))
}

fn below(end: u64, rng: &mut ChaCha8Rng) -> u64 {
    rng.next_u64() % end
}
