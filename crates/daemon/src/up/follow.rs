//! The data plane follows the agent: peers first, since a right may have been withdrawn, then the host, then endpoints.

use overlay_core::Command;

use super::paths::{self, Paths};
use super::running::Running;
use crate::agent::{Agent, Changed};
use crate::failure::Failure;

/// Applies what changed.
pub(super) async fn follow(
    agent: &Agent,
    changed: Changed,
    running: &mut Running,
    paths: &mut Paths,
) -> Result<(), Failure> {
    let applied = if changed.peers || changed.addresses { apply(agent, running, paths).await } else { Ok(()) };
    // What the host refuses, such as a route, concerns no endpoint.
    applied.and(tell(agent, running).await)
}

async fn apply(agent: &Agent, running: &mut Running, paths: &mut Paths) -> Result<(), Failure> {
    let new = running.file().in_force(agent.part());
    running.device.set_peers(&new.peers).await?;
    let addresses = Command::SetAddresses { addresses: new.addresses(), forward: new.interface.forward };
    running.device.engine().command(addresses).await.map_err(paths::rejected)?;
    let mtu = paths::mtu_range(&new, running).await;
    let applied = running.host.apply(&running.netlink, &mut running.journal, &new, mtu).await;
    running.show_interface(&new, mtu);
    running.config = new;
    paths.on_config(running);
    applied
}

/// Tells the node what no config says: the pools, and where peers may be called.
pub(super) async fn tell(agent: &Agent, running: &Running) -> Result<(), Failure> {
    let engine = running.device.engine();
    engine.command(Command::SetPools(agent.pools())).await.map_err(paths::rejected)?;
    for (key, addresses) in agent.candidates() {
        let Some(tag) = running.device.table().tag_for(key) else { continue };
        // A peer that is gone needs no endpoint.
        let _ = engine.command(Command::SetCandidates(tag, addresses.clone())).await;
        if let Some(first) = addresses.first() {
            running.device.table().on_endpoint_resolved(key, *first);
        }
    }
    Ok(())
}
