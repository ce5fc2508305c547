//! What a scraper reads of a rendezvous or a relay: counters as they stand, in OpenMetrics text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::registry::Registry;

use crate::end::End;
use crate::family::{Family, counter, gauge, info};
use crate::relay::{self, Counters};
use crate::store_health::Health;

/// The media type of [`text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What every name begins with.
const PREFIX: &str = "overlay_rendezvous";

/// The counters of a rendezvous.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Connections that were refused: their address had, or made, too many.
    pub refused: AtomicU64,
    /// Connections whose handshake succeeded.
    pub established: AtomicU64,
    /// Calls that agents made.
    pub calls: AtomicU64,
    /// Messages that were sent to agents.
    pub sent: AtomicU64,
    /// What its relay counts. All are zero if it has none.
    pub relay: Arc<Counters>,
    /// Whether its store answers.
    pub(crate) store: Arc<Health>,
    ended: [AtomicU64; End::ALL.len()],
}

impl Stats {
    /// How many connections ended for this reason.
    pub fn ended(&self, end: End) -> u64 {
        self.counter(end).map_or(0, |counter| counter.load(Relaxed))
    }

    pub(crate) fn count_end(&self, end: End) {
        if let Some(counter) = self.counter(end) {
            counter.fetch_add(1, Relaxed);
        }
    }

    fn counter(&self, end: End) -> Option<&AtomicU64> {
        let place = End::ALL.iter().position(|known| known.code() == end.code())?;
        self.ended.get(place)
    }

    fn open(&self) -> u64 {
        let ended: u64 = self.ended.iter().map(|counter| counter.load(Relaxed)).sum();
        self.accepted.load(Relaxed).saturating_sub(ended)
    }
}

const BUILD: Family = info(PREFIX, "build", "version", "The version of the rendezvous.");
const OPEN: Family =
    gauge(PREFIX, "open_connections", "Connections that are open, with those whose handshake is not done.");
const ACCEPTED: Family = counter(PREFIX, "accepted_connections", None, "Connections that were accepted.");
const REFUSED: Family = counter(
    PREFIX,
    "refused_connections",
    None,
    "Connections that were refused: their address had, or made, too many.",
);
const ESTABLISHED: Family = counter(PREFIX, "established_connections", None, "Connections whose handshake succeeded.");
const ENDED: Family = counter(PREFIX, "ended_connections", Some("reason"), "Connections that ended, by reason.");
const CALLS: Family = counter(PREFIX, "calls", None, "Calls that agents made.");
const STORE_UP: Family =
    gauge(PREFIX, "store_up", "Whether the store of the registry answers: 0 while an etcd cluster does not.");
const REPEATED: Family = counter(
    PREFIX,
    "repeated_store_requests",
    None,
    "Requests to an etcd cluster that were made again, because no answer came.",
);
const SENT: Family = counter(PREFIX, "sent_messages", None, "Messages that were sent to agents.");

/// All families.
pub const FAMILIES: [Family; 10] =
    [BUILD, OPEN, ACCEPTED, REFUSED, ESTABLISHED, ENDED, CALLS, SENT, STORE_UP, REPEATED];

/// Everything there is to scrape of a rendezvous and its relay.
pub(crate) fn text(stats: &Arc<Stats>) -> String {
    let mut registry = Registry::default();
    registry.sub_registry_with_prefix(PREFIX).register_collector(Box::new(Scrape(stats.clone())));
    add_relay(&mut registry, &stats.relay);
    encoded(&registry)
}

/// Everything there is to scrape of a relay.
pub(crate) fn relay_text(counters: &Arc<Counters>) -> String {
    let mut registry = Registry::default();
    add_relay(&mut registry, counters);
    encoded(&registry)
}

fn add_relay(registry: &mut Registry, counters: &Arc<Counters>) {
    let scrape = Box::new(ScrapeRelay(Arc::clone(counters)));
    registry.sub_registry_with_prefix(relay::PREFIX).register_collector(scrape);
}

fn encoded(registry: &Registry) -> String {
    let mut out = String::new();
    // Writing to a string does not fail; what was written is shown in any case.
    let _ = encode(&mut out, registry);
    out
}

#[derive(Debug)]
struct ScrapeRelay(Arc<Counters>);

impl Collector for ScrapeRelay {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(&mut out)
    }
}

#[derive(Debug)]
struct Scrape(Arc<Stats>);

impl Collector for Scrape {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(stats) = self;
        BUILD.begin(&mut out)?.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        OPEN.begin(&mut out)?.encode_gauge(&stats.open())?;
        STORE_UP.begin(&mut out)?.encode_gauge(&u64::from(stats.store.silence().is_none()))?;
        let counters = [
            (ACCEPTED, &stats.accepted),
            (REFUSED, &stats.refused),
            (ESTABLISHED, &stats.established),
            (CALLS, &stats.calls),
            (SENT, &stats.sent),
            (REPEATED, &stats.store.repeated),
        ];
        for (family, counter) in counters {
            let mut family = family.begin(&mut out)?;
            family.encode_counter::<NoLabelSet, _, u64>(&counter.load(Relaxed), None)?;
        }
        let mut family = ENDED.begin(&mut out)?;
        for end in End::ALL {
            let labels = [("reason", end.code())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&stats.ended(end), None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_listed_before_it_happens() {
        let codes: BTreeSet<_> = End::ALL.iter().map(|end| end.code()).collect();
        assert_eq!(codes.len(), End::ALL.len(), "each has a name of its own");
        let stats = Arc::new(Stats::default());
        stats.accepted.store(3, Relaxed);
        stats.count_end(End::Idle);
        let text = text(&stats);
        for end in End::ALL {
            let line = format!("ended_connections_total{{reason=\"{}\"}} {}\n", end.code(), u8::from(end == End::Idle));
            assert!(text.contains(&line), "{line}{text}");
        }
        for family in FAMILIES.into_iter().chain(relay::families()) {
            let name = family.to_string();
            let name = name.split('{').next().unwrap_or_default();
            assert!(text.contains(&format!("\n{name}")), "{name}\n{text}");
        }
        assert!(text.contains("overlay_rendezvous_open_connections 2\n"), "{text}");
    }
}
