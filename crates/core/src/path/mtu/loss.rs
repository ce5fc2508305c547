//! How often a probe is lost although its size fits.
//!
//! A lost probe alone says nothing: its size may be too large, or the path lossy. Once the same size is answered, the
//! losses before it were the path's, and only then they are counted here. The share of them, smoothed over the last
//! [`MEMORY`] probes, says how many losses in a row are too many to be chance.

/// Probes that are remembered: about a minute of watching.
const MEMORY: f32 = 64.0;
/// What is assumed of a path before anything was seen: one lost in eight. A clean path earns more trust in a minute.
const ASSUMED: Loss = Loss { share: 1.0 / 8.0, seen: 8.0 };
/// How unlikely a run of losses must be by chance: at a probe a second, once in three years.
const CHANCE: f32 = 1e-8;
/// Fewer losses in a row than this are never a verdict.
pub(super) const LEAST: u8 = 6;
/// And more are not asked for, however lossy the path is: a black hole must end. Reached at 30 % lost.
pub(super) const MOST: u8 = 16;

#[derive(Debug)]
pub(super) struct Loss {
    share: f32,
    seen: f32,
}

impl Loss {
    pub(super) const fn new() -> Self {
        ASSUMED
    }

    /// A probe was answered, after `losses` of its size were not.
    pub(super) fn on_answered(&mut self, losses: u8) {
        for _ in 0..losses {
            self.count(1.0);
        }
        self.count(0.0);
    }

    /// So many losses in a row are no chance on this path, of whose last small probes `lost` were lost and `answered`
    /// answered. They are asked too, because congestion begins faster than an average follows; and the average is taken
    /// one standard deviation worse than it looks, because what was seen of a new path may have been luck.
    pub(super) fn too_many(&self, lost: u8, answered: u8) -> u8 {
        let lately = f32::from(lost) / f32::from(lost.saturating_add(answered).max(1));
        let doubtful = (self.share * (1.0 - self.share) / self.seen).sqrt();
        let share = (self.share + doubtful).max(lately);
        (LEAST..MOST).find(|losses| share.powi(i32::from(*losses)) < CHANCE).unwrap_or(MOST)
    }

    fn count(&mut self, lost: f32) {
        self.seen = (self.seen + 1.0).min(MEMORY);
        self.share += (lost - self.share) / self.seen;
    }
}
