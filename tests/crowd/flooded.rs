//! What a flood may cost the agents.

use std::time::Duration;

use crate::figures::{Table, median};
use crate::flood::{Flood, Kind};
use crate::phases::Crowd;

/// How many times the p99 of look-ups may become.
const SLOWER: f64 = 2.0;
/// What a flood may cost in memory: the buffers of the connections that it gets.
const FLOOD_MEMORY: u64 = 8 << 20;

/// Rounds with and without a flood take turns.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const TRIES: usize = 3;

impl Crowd {
    /// Requires that a flood slows look-ups down by no more than is promised. A busy machine may do so by itself, so there are up
    /// to three tries. A rendezvous that is slowed down is so in each.
    #[track_caller]
    pub(crate) fn stands_a_flood(&mut self, kind: Kind, table: &mut Table) {
        let stands = (1..=TRIES).any(|_| self.try_a_flood(kind, table));
        assert!(stands, "{} slows others down", kind.shown());
    }

    /// Looks up in rounds with and without a flood. The medians of the rounds are compared.
    fn try_a_flood(&mut self, kind: Kind, table: &mut Table) -> bool {
        let victim = self.members[0].identity;
        let (mut calm, mut flooded, mut sums) = (Vec::new(), Vec::new(), [0; 3]);
        let (before, mut busy) = (self.world.memory().0, 0.0);
        for _ in 0..ROUNDS {
            calm.push(self.look_up(ROUND).1.at(0.99));
            let cpu = self.world.cpu();
            let flood = Flood::begin(kind, &self.world.host, &self.world.url, self.members.len(), victim);
            flooded.push(self.look_up(ROUND).1.at(0.99));
            busy += (self.world.cpu() - cpu).as_secs_f64() / ROUND.as_secs_f64();
            sums.iter_mut().zip(flood.seen()).for_each(|(sum, seen)| *sum += seen);
        }
        let grown = self.world.memory().0.saturating_sub(before);
        let [offered, taken, granted] = sums;
        let (calms, floods) = (calm, flooded);
        let (calm, flooded) = (median(&calms), median(&floods));
        let shown = format!(
            "p99 {:.1} ms, {:.1} ms without; {} KiB more; of {offered} offered in {} s, {taken} were taken, {granted} granted; \
             {:.2} cores",
            flooded.as_secs_f64() * 1e3,
            calm.as_secs_f64() * 1e3,
            grown >> 10,
            ROUNDS as u64 * ROUND.as_secs(),
            busy / ROUNDS as f64,
        );
        eprintln!("rounds {calms:?} {floods:?}");
        let stands = flooded <= calm.mul_f64(SLOWER) && grown <= FLOOD_MEMORY;
        if stands {
            table.row(&format!("flood: {}", kind.shown()), &shown, "twice the p99, no memory");
        } else {
            eprintln!("{}: {shown}", kind.shown());
        }
        stands
    }
}
