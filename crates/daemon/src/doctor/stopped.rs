//! What is seen of a daemon that does not run: its rights, its state folder, and what is in the way of a start.

use std::path::Path;

use ipnet::IpNet;
use overlay_os::netlink::Netlink;
use overlay_os::privileges::effective_uid;
use tokio::time::timeout;

use super::commands::Commands;
use super::patience::{HOST, aside};
use crate::agent::health::OnDisk;
use crate::config::Config;
use crate::device::sockets::port_in_use;
use crate::failure::{ExitKind, Failure};
use crate::host;
use crate::warnings::StatusWarning;

/// What is seen of a daemon that does not run.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    pub(super) on_disk: Option<OnDisk>,
    pub(super) state: Option<Failure>,
    pub(super) net_admin: Option<Failure>,
    pub(super) tun: Option<Failure>,
    pub(super) taken: Option<Failure>,
    pub(super) warnings: Vec<StatusWarning>,
    pub(super) no_family: Option<Failure>,
    pub(super) addresses: Option<Vec<IpNet>>,
}

/// Looks at the host.
pub(super) async fn look(config: Option<&Config>, commands: &Commands, state_dir: &Path) -> Stopped {
    let mut stopped = Stopped { tun: host::require_tun_device().err(), ..Stopped::default() };
    if effective_uid() == 0 {
        stopped.net_admin = host::require_net_admin(&format!("up {}", commands.name)).err();
    }
    let Some(config) = config else { return stopped };
    // Root does not read what a different user could exchange.
    if let Some(agent) = config.agent.as_ref().filter(|_| !commands.is_service) {
        let (agent, state_dir) = (agent.clone(), state_dir.to_owned());
        match aside(HOST, move || OnDisk::read(&agent, &state_dir)).await {
            Ok(on_disk) => stopped.on_disk = Some(on_disk),
            Err(failure) => stopped.state = Some(failure),
        }
    }
    if let Ok(Err(failure)) = timeout(HOST, look_at_addresses(config, &mut stopped)).await {
        tracing::debug!("the addresses of this host are not known: {failure}");
    }
    stopped
}

/// Judges as a start would which families are left out, and what is taken.
async fn look_at_addresses(config: &Config, stopped: &mut Stopped) -> Result<(), Failure> {
    let netlink = Netlink::connect()
        .await
        .map_err(|error| Failure::new(ExitKind::Other, "cannot open a netlink socket").with_cause(error))?;
    let mut config = config.clone();
    if let Some(on_disk) = &stopped.on_disk {
        config.interface.addresses.clone_from(&on_disk.addresses);
        let left_out = host::left_out(&netlink, &on_disk.pools, None, &[]).await?;
        host::leave_out(&mut config, &left_out);
        stopped.no_family = host::require_one_family(&left_out).err();
        stopped.warnings = left_out.into_iter().map(|left| left.warning).collect();
    }
    stopped.addresses =
        (stopped.on_disk.is_some() || config.agent.is_none()).then(|| config.interface.addresses.clone());
    if effective_uid() == 0 && stopped.net_admin.is_none() && stopped.tun.is_none() && stopped.no_family.is_none() {
        let port = config.interface.listen_port;
        let is_taken = port != 0 && overlay_os::ports::udp_in_use().is_ok_and(|ports| ports.contains(&port));
        let refused = host::preflight(&netlink, &config).await.err();
        stopped.taken = refused.or_else(|| is_taken.then(|| port_in_use(port)));
    }
    Ok(())
}
