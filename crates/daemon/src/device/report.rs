//! What a reload changed, as the local API answers it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a reload changed. Peers are named as in the config, or by their public key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReloadReport {
    /// Peers that were not there before.
    pub added: Vec<String>,
    /// Peers that are no longer there.
    pub removed: Vec<String>,
    /// Peers whose configuration changed.
    pub changed: Vec<String>,
    /// How many peers were not touched.
    pub unchanged: usize,
    /// Keys of the config whose new value takes effect at the next `up`, such as `metrics.listen`.
    pub needs_restart: Vec<String>,
}
