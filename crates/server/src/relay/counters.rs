//! What a scraper reads of a relay: the counters of the state machine as they stood after its last turn, and those of the
//! sockets.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use overlay_os::udp::SendError;
use overlay_rendezvous::relay::{Relay, Stats};
use overlay_rendezvous::stun::{self, Gate, Silence};
use overlay_wire::relay::Reason;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use crate::family::{Family, counter, gauge};

/// What every name begins with.
pub(crate) const PREFIX: &str = "overlay_relay";

const BINDINGS: Family = gauge(PREFIX, "bindings", "Agents that are bound.");
const CHANNELS: Family = gauge(PREFIX, "channels", "Channels that are open.");
const QUEUED: Family = gauge(PREFIX, "queued_bytes", "Bytes that wait to be sent on.");
const REFUSED: Family = counter(PREFIX, "refused", Some("reason"), "Binds and opens that were refused, by reason.");
const UNSENT: Family = counter(PREFIX, "unsent", Some("reason"), "Trains that the kernel did not send, by reason.");
const TRUNCATED: Family = counter(PREFIX, "truncated", None, "Datagrams that were longer than any UDP datagram.");
const STUN_ANSWERED: Family = counter(PREFIX, "stun_answered", None, "STUN requests that were answered.");
const STUN_SILENT: Family =
    counter(PREFIX, "stun_unanswered", Some("reason"), "STUN messages that got no answer, by reason.");
const UNREADABLE: Family = counter(PREFIX, "read_errors", None, "Errors while reading a socket.");

/// The families beside the counters of the state machine.
const FAMILIES: [Family; 9] =
    [BINDINGS, CHANNELS, QUEUED, REFUSED, UNSENT, TRUNCATED, UNREADABLE, STUN_ANSWERED, STUN_SILENT];

/// All families of a relay.
pub fn families() -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().chain(Stats::NAMES.iter().map(of_machine))
}

/// The counter of the state machine with this name and text.
fn of_machine((name, help): &(&'static str, &'static str)) -> Family {
    counter(PREFIX, name, None, help.trim_start())
}

/// The counters of a relay.
#[derive(Debug, Default)]
pub struct Counters {
    shown: Mutex<Shown>,
    too_long: AtomicU64,
    unreachable: AtomicU64,
    failed: AtomicU64,
    truncated: AtomicU64,
    unreadable: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Shown {
    stats: Stats,
    stun: stun::Stats,
    bindings: u64,
    channels: u64,
    queued: u64,
}

impl Counters {
    pub(super) fn publish(&self, relay: &Relay, stun: &Gate) {
        let shown = Shown {
            stats: relay.stats().clone(),
            stun: stun.stats.clone(),
            bindings: relay.bindings() as u64,
            channels: relay.channels() as u64,
            queued: relay.queued_bytes() as u64,
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    pub(super) fn on_unsent(&self, error: &SendError) {
        let counter = match error {
            SendError::MessageTooLong => &self.too_long,
            SendError::Unreachable(_) => &self.unreachable,
            SendError::WouldBlock | SendError::Io(_) => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn on_truncated(&self) {
        self.truncated.fetch_add(1, Relaxed);
    }

    pub(super) fn on_unreadable(&self) {
        self.unreadable.fetch_add(1, Relaxed);
    }

    /// Writes every family.
    pub(crate) fn encode(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Shown { stats, stun, bindings, channels, queued } =
            self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (family, value) in [(BINDINGS, bindings), (CHANNELS, channels), (QUEUED, queued)] {
            family.begin(out)?.encode_gauge(&value)?;
        }
        let mut refused = REFUSED.begin(out)?;
        for reason in Reason::ALL {
            let labels = [("reason", reason.word())];
            let count = stats.refused(reason);
            refused.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let mut unsent = UNSENT.begin(out)?;
        let reasons = [("too_long", &self.too_long), ("unreachable", &self.unreachable), ("failed", &self.failed)];
        for (reason, counter) in reasons {
            let labels = [("reason", reason)];
            unsent.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&counter.load(Relaxed), None)?;
        }
        STUN_ANSWERED.begin(out)?.encode_counter::<NoLabelSet, _, u64>(&stun.answered, None)?;
        let mut silent = STUN_SILENT.begin(out)?;
        for reason in Silence::ALL {
            let labels = [("reason", reason.name())];
            silent.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&stun.silent(reason), None)?;
        }
        for (family, counter) in [(TRUNCATED, &self.truncated), (UNREADABLE, &self.unreadable)] {
            family.begin(out)?.encode_counter::<NoLabelSet, _, u64>(&counter.load(Relaxed), None)?;
        }
        for (family, value) in Stats::NAMES.iter().map(of_machine).zip(stats.values()) {
            family.begin(out)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}
