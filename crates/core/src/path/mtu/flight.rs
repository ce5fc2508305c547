//! Probes in flight: which probe an answer belongs to, and how long an answer takes.
//!
//! One probe is under way at a time. The last one that expired is remembered, so that a late answer still counts.

use std::time::Duration;

use crate::Instant;

/// How long to wait for an answer before a round trip was measured.
const FIRST_TIMER: Duration = Duration::from_millis(500);
const SHORTEST_TIMER: Duration = Duration::from_millis(150);
const LONGEST_TIMER: Duration = Duration::from_secs(1);

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// A random number that the answer repeats.
    pub(crate) id: u32,
    /// The length of the inner packet in bytes. It is sent with DF and no further padding.
    pub(crate) size: usize,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) under_way: Option<Sent>,
    expired: Option<Sent>,
    /// The smoothed round trip.
    round_trip: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) probe: Probe,
    at: Instant,
    pub(super) until: Instant,
}

impl Flight {
    pub(super) const fn new() -> Self {
        Self { under_way: None, expired: None, round_trip: None }
    }

    /// When the time of the probe under way ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.under_way.map(|sent| sent.until)
    }

    /// Records that a probe is sent now. It is lost after `patience`.
    pub(super) fn launch(&mut self, probe: Probe, now: Instant, patience: Duration) {
        self.under_way = Some(Sent { probe, at: now, until: now + patience });
    }

    /// Ends the time of the probe under way and returns it as lost.
    pub(super) fn expire(&mut self) -> Option<Probe> {
        let sent = self.under_way.take()?;
        self.expired = Some(sent);
        Some(sent.probe)
    }

    /// Returns the probe with this id, if an answer to it still counts.
    pub(super) fn find(&self, id: u32) -> Option<Probe> {
        [self.under_way, self.expired].into_iter().flatten().map(|sent| sent.probe).find(|probe| probe.id == id)
    }

    /// Records an answer to this probe. Returns false if the probe is neither under way nor the last that expired.
    pub(super) fn on_reply(&mut self, answered: Probe, now: Instant) -> bool {
        let is_it = |sent: &mut Sent| sent.probe == answered;
        let Some(sent) = self.under_way.take_if(is_it).or_else(|| self.expired.take_if(is_it)) else {
            return false;
        };
        // A later probe of the same size would show nothing new.
        if let Some(again) = self.under_way.take_if(|later| later.probe.size == answered.size) {
            self.expired = Some(again);
        }
        let round_trip = now.since(sent.at);
        self.round_trip = Some(self.round_trip.map_or(round_trip, |smoothed| (smoothed * 7 + round_trip) / 8));
        true
    }

    /// Drops these probes: their answers do not count, and they are not lost.
    pub(super) fn forget(&mut self, is_meant: impl Fn(&Probe) -> bool) {
        self.under_way.take_if(|sent| is_meant(&sent.probe));
        self.expired.take_if(|sent| is_meant(&sent.probe));
    }

    /// How long to wait for an answer: three round trips.
    pub(super) fn patience(&self) -> Duration {
        self.round_trip.map_or(FIRST_TIMER, |rtt| (rtt * 3).clamp(SHORTEST_TIMER, LONGEST_TIMER))
    }
}
