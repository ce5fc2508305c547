//! How often a probe is lost although its size fits.
//!
//! A lost probe alone shows nothing: its size may be too large, or the path lossy. Once the same size is answered, the path
//! caused the losses before it, and only then are they counted here. Their share, smoothed over the last [`MEMORY`] probes,
//! tells how many losses in a row are too many to be chance.

/// How many probes the average covers: about a minute of watching.
const MEMORY: f32 = 64.0;
/// What is assumed before anything was seen of a path: one in eight lost. A clean path earns more trust in a minute.
const ASSUMED: Loss = Loss { share: 1.0 / 8.0, seen: 8.0 };
/// How unlikely a run of losses must be by chance: at a probe a second, once in three years.
const CHANCE: f32 = 1e-8;
/// The fewest losses in a row that can be a verdict.
pub(super) const LEAST: u8 = 6;
/// The most losses in a row that a verdict needs, however lossy the path is, because a black hole must end. Reached at 30 %
/// loss.
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

    /// Records that a probe was answered after `losses` of its size were lost.
    pub(super) fn on_answered(&mut self, losses: u8) {
        for _ in 0..losses {
            self.count(1.0);
        }
        self.count(0.0);
    }

    /// How many losses in a row are more than chance on this path, when `lost` of its last small probes were lost and
    /// `answered` were answered. Those are considered too, because congestion begins faster than an average follows. The
    /// average is taken one standard deviation worse than measured, because the first results on a new path may have been
    /// luck.
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
