//! Samples of metrics that belong together: their name, their type, and what they mean.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// Samples that have a name, a type and a help text in common.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// What its name begins with.
    prefix: &'static str,
    /// Without the prefix, and without the suffix that its type adds.
    name: &'static str,
    /// `counter`, `gauge` or `info`.
    pub kind: &'static str,
    label: Option<&'static str>,
    /// One sentence.
    pub help: &'static str,
}

impl Family {
    pub(crate) fn begin<'o>(&self, out: &'o mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'o>, fmt::Error> {
        let kind = match self.kind {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            _ => MetricType::Info,
        };
        out.encode_descriptor(self.name, self.help, None, kind)
    }
}

impl fmt::Display for Family {
    /// As its samples are written, with the name of the label.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        write!(f, "{}_{}{suffix}", self.prefix, self.name)?;
        self.label.map_or(Ok(()), |label| write!(f, "{{{label}}}"))
    }
}

pub(crate) const fn counter(
    prefix: &'static str,
    name: &'static str,
    label: Option<&'static str>,
    help: &'static str,
) -> Family {
    Family { prefix, name, kind: "counter", label, help }
}

pub(crate) const fn gauge(prefix: &'static str, name: &'static str, help: &'static str) -> Family {
    Family { prefix, name, kind: "gauge", label: None, help }
}

pub(crate) const fn info(prefix: &'static str, name: &'static str, label: &'static str, help: &'static str) -> Family {
    Family { prefix, name, kind: "info", label: Some(label), help }
}
