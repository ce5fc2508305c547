//! When to check the footprint: soon after another program has changed something, at most about once a second, and less
//! often if another program and we keep undoing each other's work.
//!
//! A notice only makes a look due. Many notices at once cause a single look, and our own requests cause none. A look
//! that finds nothing missing costs a few kernel queries and leaves no trace.

use std::time::Duration;

use overlay_os::netlink::{Interest, Netlink, Noticed, Notices};
use tokio::time::{Instant, sleep_until};

use super::facts::PutBack;

/// How long notices are collected: other programs usually need several requests for a change.
const GATHERED: Duration = Duration::from_millis(20);
/// The usual time between two looks.
const PACE: Duration = Duration::from_secs(1);
/// The longest time between two looks, if another program keeps removing what is restored or something cannot be
/// restored.
const SLOWEST: Duration = Duration::from_secs(64);
/// How much one restore adds to what is owed. Elapsed time pays it off.
const COST: Duration = Duration::from_secs(10);
/// How much may be owed before restoring slows down. What a network manager removes when it starts is restored at once,
/// and so is what a person removes to try things out.
const CREDIT: Duration = Duration::from_secs(100);
/// A dispute is over when nothing has been missing for this many times the current pace.
const OVER_AFTER: u32 = 10;

/// Decides when a look is due.
#[derive(Debug)]
pub struct HostWatch {
    /// `None` if this host sends no notices.
    notices: Option<Notices>,
    /// What must be looked at, and since when.
    noticed: Noticed,
    since: Instant,
    pace: Pace,
    /// Why something was missing, as last reported.
    told: Option<String>,
}

/// The result of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What was missing and has been restored.
    pub put_back: PutBack,
    /// Why something is still missing.
    pub failed: Option<String>,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was missing.
    Fine,
    /// Something was restored.
    Restored,
    /// Something was restored once too often. From now on the pace is slower.
    Contested(Duration),
    /// The dispute goes on and has already been reported.
    StillContested(Duration),
}

impl HostWatch {
    /// Starts watching this network namespace. The first look is due at once, for earlier changes. Must be called on a
    /// tokio runtime.
    pub fn start(netlink: &Netlink) -> Self {
        let notices = Notices::listen(netlink)
            .inspect_err(|error| tracing::warn!(%error, "changes that other programs make on this host go unnoticed"))
            .ok();
        Self { notices, noticed: Noticed::ALL, since: Instant::now(), pace: Pace::default(), told: None }
    }

    /// Waits until a look is due, and says at what. Can be cancelled.
    pub async fn next(&mut self, interest: &Interest) -> Noticed {
        loop {
            if !self.noticed.is_any() {
                let noticed = next(&mut self.notices, interest).await;
                self.on_noticed(noticed);
                continue;
            }
            let at = self.pace.due(self.since);
            tokio::select! {
                noticed = next(&mut self.notices, interest) => self.on_noticed(noticed),
                () = sleep_until(at) => return std::mem::take(&mut self.noticed),
            }
        }
    }

    /// Makes a look due because of a change that no notice reports.
    pub fn on_noticed(&mut self, noticed: Noticed) {
        if !self.noticed.is_any() {
            self.since = Instant::now();
        }
        self.noticed |= noticed;
    }

    /// Returns why something is still missing, if that has not been reported before.
    pub fn news(&mut self, failed: Option<String>) -> Option<String> {
        let is_news = failed != self.told;
        self.told.clone_from(&failed);
        failed.filter(|_| is_news)
    }

    /// Records the result of a look. What is still missing will be looked at again.
    pub fn on_looked(&mut self, looked: &Looked) -> Verdict {
        let now = Instant::now();
        if looked.failed.is_some() {
            self.noticed = Noticed::ALL;
            self.since = now;
        }
        self.pace.on_looked(now, looked)
    }
}

/// Waits for the next notice. Never returns if there can be none.
async fn next(notices: &mut Option<Notices>, interest: &Interest) -> Noticed {
    let Some(listening) = notices else { return std::future::pending().await };
    match listening.noticed(interest).await {
        Ok(noticed) => noticed,
        Err(error) => {
            tracing::warn!(%error, "changes that other programs make on this host go unnoticed from now on");
            *notices = None;
            Noticed::ALL
        }
    }
}

/// How soon after the last look the next one may follow.
#[derive(Debug)]
struct Pace {
    between: Duration,
    last: Option<Instant>,
    /// When something was last missing, and what was owed then.
    missing: Option<Instant>,
    owed: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { between: PACE, last: None, missing: None, owed: Duration::ZERO }
    }
}

impl Pace {
    /// Returns when a look is due for a change that was noticed at `noticed`.
    fn due(&self, noticed: Instant) -> Instant {
        let soonest = noticed + GATHERED;
        self.last.map_or(soonest, |last| soonest.max(last + self.between))
    }

    fn on_looked(&mut self, now: Instant, looked: &Looked) -> Verdict {
        if self.missing.is_some_and(|missing| now - missing > self.between * OVER_AFTER) {
            *self = Self { last: self.last, ..Self::default() };
        }
        self.last = Some(now);
        if looked.put_back.is_empty() && looked.failed.is_none() {
            return Verdict::Fine;
        }
        let paid = self.missing.map_or(Duration::ZERO, |missing| now - missing);
        self.owed = self.owed.saturating_sub(paid) + COST;
        self.missing = Some(now);
        let was_contested = self.between > PACE;
        if self.owed <= CREDIT && !was_contested {
            return if looked.put_back.is_empty() { Verdict::Fine } else { Verdict::Restored };
        }
        self.between = (self.between * 2).min(SLOWEST);
        if was_contested { Verdict::StillContested(self.between) } else { Verdict::Contested(self.between) }
    }
}

impl Verdict {
    /// How long the dispute counts as ongoing.
    pub fn contested_for(self) -> Option<Duration> {
        match self {
            Self::Contested(pace) | Self::StillContested(pace) => Some(pace * OVER_AFTER),
            Self::Fine | Self::Restored => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Part;
    use super::*;

    fn restored() -> Looked {
        let mut looked = Looked::default();
        looked.put_back.note(Part::Rule);
        looked
    }

    fn failed() -> Looked {
        Looked { failed: Some("no".to_owned()), ..Looked::default() }
    }

    #[test]
    fn the_first_look_comes_at_once_and_the_next_a_second_later() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.due(start), start + GATHERED);
        assert_eq!(pace.on_looked(start, &Looked::default()), Verdict::Fine);
        assert_eq!(pace.due(start), start + PACE);
        let later = start + Duration::from_secs(9);
        assert_eq!(pace.due(later), later + GATHERED);
    }

    #[test]
    fn a_fight_slows_down_to_a_bound_and_ends() {
        for look in [restored(), failed()] {
            let mut pace = Pace::default();
            let mut now = Instant::now();
            let mut waits = Vec::new();
            for round in 0..20 {
                let verdict = pace.on_looked(now, &look);
                let is_slow = round >= 11;
                assert_eq!(matches!(verdict, Verdict::Contested(_)), round == 11, "told once: {round}");
                assert_eq!(verdict.contested_for().is_some(), is_slow, "{round}");
                let due = pace.due(now);
                waits.push((due - now).as_secs());
                now = due;
            }
            assert_eq!(waits[..18], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 16, 32, 64, 64]);
            assert_eq!(waits[19], 64, "never slower");
            now += SLOWEST * OVER_AFTER;
            assert_eq!(pace.on_looked(now, &Looked::default()), Verdict::Fine);
            assert_eq!(pace.due(now), now + PACE, "as if it had never been");
        }
    }

    #[test]
    fn what_is_taken_away_now_and_then_is_always_put_back_at_once() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        for round in 0..1_000 {
            assert_eq!(pace.on_looked(now, &restored()), Verdict::Restored, "{round}");
            now += COST;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_notices_make_one_look() {
        let interest = Interest { index: 1, nft_table: String::new(), marked_table: None };
        let mut watch = HostWatch {
            notices: None,
            noticed: Noticed::default(),
            since: Instant::now(),
            pace: Pace::default(),
            told: None,
        };
        let start = Instant::now();
        let (ours, nft) = (Noticed { ours: true, ..Noticed::default() }, Noticed { nft: true, ..Noticed::default() });
        watch.on_noticed(ours);
        watch.on_noticed(nft);
        assert_eq!(watch.next(&interest).await, Noticed { ours: true, nft: true, surroundings: false });
        assert_eq!(start.elapsed(), GATHERED);
        assert_eq!(watch.on_looked(&restored()), Verdict::Restored);
        watch.on_noticed(nft);
        assert_eq!(watch.next(&interest).await, nft);
        assert_eq!(start.elapsed(), GATHERED + PACE);
        watch.on_looked(&failed());
        assert_eq!(watch.next(&interest).await, Noticed::ALL, "what failed is tried again by itself");
    }
}
