//! What `up` has built and its concerns act on: the device, the footprint on the host, and the config in force.

use std::sync::Arc;

use overlay_os::netlink::Netlink;

use crate::agent::Agent;
use crate::config::{Config, MtuRange};
use crate::device::Device;
use crate::failure::Failure;
use crate::host::{self, Host, Journal, LeftOut};
use crate::view::View;

/// The topic of the warnings about families.
const FAMILIES: &str = "families";

/// What a running `overlay up` consists of.
pub(super) struct Running {
    /// The config in force.
    pub(super) config: Config,
    /// The config as the file has it, where agent mode adds something to it. Ten thousand peers are not kept twice.
    pub(super) file: Option<Config>,
    /// The config that `up` began with. A reload compares it with keys that take effect at a start.
    pub(super) started_with: Config,
    /// The families that agent mode leaves out.
    pub(super) left_out: Vec<LeftOut>,
    pub(super) netlink: Netlink,
    pub(super) journal: Journal,
    pub(super) host: Host,
    pub(super) device: Device,
    pub(super) view: Arc<View>,
}

impl Running {
    /// Name of the interface.
    pub(super) fn name(&self) -> &str {
        &self.config.interface.name
    }

    /// The config as the file has it.
    pub(super) fn file(&self) -> &Config {
        self.file.as_ref().unwrap_or(&self.config)
    }

    /// The families that agent mode would leave out now.
    pub(super) async fn look_for_families(&self, agent: &Agent) -> Result<Vec<LeftOut>, Failure> {
        let own = Some((self.name(), self.host.index()));
        host::left_out(&self.netlink, &agent.pools(), own, agent.fake_answers()).await
    }

    /// Shows the families that are left out from now on.
    pub(super) fn leave_out(&mut self, left_out: Vec<LeftOut>) {
        self.view.set_warnings(FAMILIES, left_out.iter().map(|left| left.warning.clone()).collect());
        self.left_out = left_out;
    }

    /// Enters what a config says about our own side into the device's table.
    pub(super) fn show_interface(&self, new: &Config, mtu: MtuRange) {
        let max_mtu = self.host.footprint().mtu;
        self.device.table().edit_interface(|interface| {
            interface.addresses.clone_from(&new.interface.addresses);
            interface.mtu = mtu.start;
            interface.max_mtu = max_mtu;
            interface.forward = new.interface.forward;
        });
    }
}
