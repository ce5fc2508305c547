//! When to look after the footprint: soon after another program has changed something, about once a second at most, and more
//! rarely where another program and we undo each other's work.
//!
//! A notice only makes a look due. Many notices at once make one look, and what our own requests cause makes none. A look that
//! finds nothing missing costs some questions to the kernel and leaves no trace.

use std::time::Duration;

use overlay_os::netlink::{Interest, Netlink, Noticed, Notices};
use tokio::time::{Instant, sleep_until};

use super::facts::PutBack;

/// How long notices are gathered: what another program does takes it several requests.
const GATHERED: Duration = Duration::from_millis(20);
/// From one look to the next.
const PACE: Duration = Duration::from_secs(1);
/// The slowest pace where another program keeps taking away what is put back, or something cannot be put back.
const SLOWEST: Duration = Duration::from_secs(64);
/// What putting something back costs: so long a time pays for it.
const COST: Duration = Duration::from_secs(10);
/// What may be owed before it is put back more slowly: what a network manager takes away when it starts is put back at once,
/// and so is what a person tries out.
const CREDIT: Duration = Duration::from_secs(100);
/// After so much longer than the pace of the moment without anything missing, a fight is over.
const OVER_AFTER: u32 = 10;

/// Makes looks due.
#[derive(Debug)]
pub struct HostWatch {
    /// `None` where this host does not tell.
    notices: Option<Notices>,
    /// What is to be looked at, and since when.
    noticed: Noticed,
    since: Instant,
    pace: Pace,
    /// Why something was missing when that was last told.
    told: Option<String>,
}

/// What a look has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What was missing and is there again.
    pub put_back: PutBack,
    /// Why something is still missing.
    pub failed: Option<String>,
}

/// How things go on after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was missing.
    Fine,
    /// Something was put back.
    Restored,
    /// Something was put back once too often: from now on more slowly.
    Contested(Duration),
    /// The same, as was said before.
    StillContested(Duration),
}

impl HostWatch {
    /// Watches this network namespace from now on. The first look is due at once, for what has changed until now. Must be
    /// called on a tokio runtime.
    pub fn start(netlink: &Netlink) -> Self {
        let notices = Notices::listen(netlink)
            .inspect_err(|error| tracing::warn!(%error, "what other programs change on this host goes unnoticed"))
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

    /// Something may have changed that no notice tells of.
    pub fn on_noticed(&mut self, noticed: Noticed) {
        if !self.noticed.is_any() {
            self.since = Instant::now();
        }
        self.noticed |= noticed;
    }

    /// Why something is still missing, if that was not told before.
    pub fn news(&mut self, failed: Option<String>) -> Option<String> {
        let is_news = failed != self.told;
        self.told.clone_from(&failed);
        failed.filter(|_| is_news)
    }

    /// A look is done. What is still missing will be looked at again.
    pub fn on_looked(&mut self, looked: &Looked) -> Verdict {
        let now = Instant::now();
        if looked.failed.is_some() {
            self.noticed = Noticed::ALL;
            self.since = now;
        }
        self.pace.on_looked(now, looked)
    }
}

/// The next notice; never where none can come.
async fn next(notices: &mut Option<Notices>, interest: &Interest) -> Noticed {
    let Some(listening) = notices else { return std::future::pending().await };
    match listening.noticed(interest).await {
        Ok(noticed) => noticed,
        Err(error) => {
            tracing::warn!(%error, "what other programs change on this host goes unnoticed from now on");
            *notices = None;
            Noticed::ALL
        }
    }
}

/// How soon after the last look the next one may come.
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
    /// When a look is due for what was noticed then.
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
    /// For how long what was contested counts as such.
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
