//! A reload: the config is read again, and what changed is applied. What did not change is not touched.
//!
//! The file is compared with what runs, not with the previous file, and the file wins. If a step fails, the previous
//! state is restored as far as possible.

use overlay_core::Command;

use super::paths::{self, Paths};
use super::running::Running;
use super::withdrawal;
use crate::agent::Agent;
use crate::config::{self, Config, MtuRange};
use crate::device::{ChangeError, ReloadReport};
use crate::failure::{ExitKind, Failure};
use crate::host;

/// Reads the config again and applies what changed.
pub(super) async fn reload(
    running: &mut Running,
    paths: &mut Paths,
    agent: Option<&Agent>,
) -> Result<ReloadReport, Failure> {
    let read = running.file().load_again()?;
    let (new, file) = match agent {
        Some(agent) => {
            let mut new = read.in_force(agent.part());
            host::leave_out(&mut new, &running.left_out);
            (new, Some(read))
        }
        None => (read, None),
    };
    for warning in new.warnings().iter().filter(|warning| !warning.is_up_to_the_host()) {
        tracing::warn!("{warning}");
    }
    let needs_restart = config::keys_for_next_up(&running.started_with, &new);
    if new.interface.name != running.name() {
        return Err(Failure::new(ExitKind::Config, "a running interface cannot be renamed")
            .with_cause(format!("it is `{}`, the config says `{}`", running.name(), new.interface.name))
            .with_hint(format!(
                "sudo overlay down {} && sudo overlay up {}",
                running.name(),
                config::argument_for(&running.config.path)
            )));
    }
    if new.agent.is_some() != running.config.agent.is_some() {
        let mode = |config: &Config| if config.agent.is_some() { "agent mode" } else { "static mode" };
        return Err(Failure::new(ExitKind::Config, "a running interface cannot change its mode")
            .with_cause(format!("it runs in {}, the config is one of {}", mode(&running.config), mode(&new)))
            .with_hint(format!(
                "sudo overlay down {} && sudo overlay up {}",
                running.name(),
                config::argument_for(&running.config.path)
            )));
    }
    let mtu = paths::mtu_range(&new, running).await;
    let report = match apply(&new, mtu, running, paths).await {
        Ok(report) => report,
        Err(failure) => return Err(withdrawal::withdraw(&new, failure, running).await),
    };
    running.show_interface(&new, mtu);
    (running.config, running.file) = (new, file);
    paths.on_config(running);
    Ok(ReloadReport { needs_restart, ..report })
}

/// Applies a config, or leaves the previous one in force.
async fn apply(new: &Config, mtu: MtuRange, running: &mut Running, paths: &mut Paths) -> Result<ReloadReport, Failure> {
    // Collisions are found before anything is changed.
    running.host.check(&running.netlink, new, mtu).await?;
    let (port_before, mtu_before) = (running.device.table().interface().listen_port, paths.mtu());
    apply_port(new.interface.listen_port, running).await?;
    let applied = match running.host.apply(&running.netlink, &mut running.journal, new, mtu).await {
        Ok(()) => apply_rest(new, mtu, running, paths).await,
        Err(failure) => Err(failure),
    };
    if applied.is_err() {
        put_back(port_before, mtu_before, running, paths).await;
    }
    applied
}

async fn apply_rest(
    new: &Config,
    mtu: MtuRange,
    running: &mut Running,
    paths: &mut Paths,
) -> Result<ReloadReport, Failure> {
    apply_interface(new, mtu, running, paths).await?;
    running.device.set_peers(&new.peers).await
}

/// Restores the previous state, as far as possible, after a reload failed half way.
async fn put_back(port: u16, mtu: MtuRange, running: &mut Running, paths: &mut Paths) {
    let old = running.config.clone();
    let mut results = vec![apply_port(port, running).await];
    results.push(running.host.apply(&running.netlink, &mut running.journal, &old, mtu).await);
    results.push(apply_rest(&old, mtu, running, paths).await.map(|_| ()));
    for failure in results.into_iter().filter_map(Result::err) {
        tracing::error!(error = %failure, "the state before the reload could not be restored");
    }
}

async fn apply_interface(new: &Config, mtu: MtuRange, running: &mut Running, paths: &mut Paths) -> Result<(), Failure> {
    let addresses = Command::SetAddresses { addresses: new.addresses(), forward: new.interface.forward };
    running.device.engine().command(addresses).await.map_err(paths::rejected)?;
    paths.tell_mtu(mtu, running).await?;
    running.device.set_private_keys(new.interface.private_key.clone(), new.former_keys.clone()).await;
    running
        .device
        .set_fwmark(running.host.fwmark())
        .await
        .map_err(|error| Failure::new(ExitKind::Other, "cannot mark outer datagrams").with_cause(error))
}

/// Moves to this port. With port 0 the current one stays.
async fn apply_port(port: u16, running: &mut Running) -> Result<(), Failure> {
    if port == 0 {
        return Ok(());
    }
    running.device.set_listen_port(port).await.map_err(|error| {
        let code = if matches!(error, ChangeError::PortInUse) { ExitKind::Conflict } else { ExitKind::Other };
        Failure::new(code, format!("UDP port {port} cannot be used"))
            .with_cause(error)
            .with_hint("set a different `listen_port` under [interface], or 0 to let the kernel choose")
    })
}
