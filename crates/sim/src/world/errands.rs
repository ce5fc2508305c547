//! What happens in a world at a time that was said beforehand: a link fails, an agent begins, a relay sends what it held.

use std::collections::BTreeMap;
use std::time::Duration;

use overlay_core::Instant;

use super::World;

/// Something to do at its time.
type Errand = Box<dyn FnOnce(&mut World)>;

/// All errands that wait, by time and then in the order in which they were given.
#[derive(Default)]
pub(super) struct Errands {
    waiting: BTreeMap<(Instant, u64), Errand>,
    given: u64,
}

impl Errands {
    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next one that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Errand> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }
}

impl World {
    /// Does this when so much time has passed. The world has to run until then.
    pub fn after(&mut self, span: Duration, errand: impl FnOnce(&mut Self) + 'static) {
        self.errands.given += 1;
        self.errands.waiting.insert((self.now + span, self.errands.given), Box::new(errand));
    }
}
