//! What a relay counts. The shell shows these.

use overlay_wire::relay::Reason;

/// Defines the counters, their names and their texts.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters since the relay started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Refused binds and opens, by reason.
            refused: [u64; Reason::ALL.len()],
        }

        impl Stats {
            /// Every counter but the refusals by reason: its name, and what it counts.
            pub const NAMES: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+))),+];

            /// The counters, in the order of [`Stats::NAMES`].
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name),+]
            }
        }
    };
}

counters! {
    /// Hellos that were answered with a challenge.
    challenges,
    /// Agents that were bound, and were not before.
    bound,
    /// Bindings that were renewed.
    renewed,
    /// Bindings that moved to a new address.
    moved,
    /// Bindings that ended because nobody renewed them.
    lapsed,
    /// Channels that were opened.
    opened,
    /// Channels that one end closed.
    closed,
    /// Channels that ended because the permit was over or taken back.
    withdrawn,
    /// Trains that were taken in to be sent on.
    trains,
    /// Datagrams that were sent on.
    forwarded,
    /// Bytes that were sent on, with their heads.
    forwarded_bytes,
    /// Datagrams whose ECN bits were set because they had waited.
    ecn_marked,
    /// Datagrams dropped because their sender had too much queued.
    dropped_queue_full,
    /// Datagrams dropped because they had waited too long.
    dropped_too_late,
    /// Datagrams dropped because all agents together had too much queued, and their sender most.
    dropped_gave_way,
    /// Datagrams dropped because the kernel had just refused one of that length to the same address.
    dropped_too_long,
    /// Datagrams dropped because their sender had no bytes left that day.
    dropped_over_daily,
    /// Datagrams for channels that do not exist, or of agents that are not at an end of them.
    dropped_unbound,
    /// Answers to those, at most one for a train.
    unbound,
    /// Datagrams that are neither relay data nor relay control, or of an unknown version.
    dropped_foreign,
    /// Control messages that do not have the form of one.
    dropped_malformed,
    /// Binds without a cookie that is ours and young enough.
    dropped_bad_cookie,
    /// Answers dropped because too many waited to be sent.
    dropped_replies,
}

impl Stats {
    /// How many binds and opens were refused for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        Reason::ALL.iter().position(|known| *known == reason).map_or(0, |at| self.refused[at])
    }

    pub(super) fn on_refused(&mut self, reason: Reason) {
        if let Some(at) = Reason::ALL.iter().position(|known| *known == reason) {
            self.refused[at] += 1;
        }
    }
}
