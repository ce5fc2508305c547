//! What a rendezvous sent and the client dropped, counted by reason.

use std::collections::BTreeMap;

use overlay_wire::signed::Refused;

use super::Client;

/// Why something of the rendezvous is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distrust {
    /// An object that is refused for what it is.
    Refused(Refused),
    /// An object of a different network.
    WrongNetwork,
    /// It is shown as our own record or membership, and is not ours.
    NotOurs,
    /// A record that does not match what was looked for.
    NotAsked,
    /// It concerns an agent that is not watched. It may have been on its way when the watch ended.
    NotWatched,
    /// It is longer than the protocol allows.
    TooLong,
    /// A page of records that goes back or stands still.
    Page,
}

impl Distrust {
    fn code(self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::WrongNetwork => "wrong_network",
            Self::NotOurs => "not_ours",
            Self::NotAsked => "not_asked",
            Self::NotWatched => "not_watched",
            Self::TooLong => Refused::TooLong.code(),
            Self::Page => "page",
        }
    }
}

/// How often each reason occurred. There are no more entries than reasons.
#[derive(Debug, Default)]
pub(super) struct Distrusted(BTreeMap<&'static str, u64>);

impl Client {
    pub(super) fn distrust(&mut self, reason: Distrust) {
        *self.distrusted.0.entry(reason.code()).or_default() += 1;
    }

    /// How many objects of the rendezvous were dropped: they could not be opened, or did not match what was asked for.
    pub fn distrusted(&self) -> u64 {
        self.distrusted.0.values().sum()
    }

    /// The same by reason: its word, and how often it occurred.
    pub fn distrusted_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.distrusted.0.iter().map(|(reason, count)| (*reason, *count))
    }
}
