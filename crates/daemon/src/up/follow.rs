//! The data plane follows the agent: peers first, since a right may have been withdrawn, then the host, then endpoints.

use overlay_core::{Command, PeerKey};

use super::paths::{self, Paths};
use super::running::Running;
use crate::agent::{Agent, Changed, Said};
use crate::config::Config;
use crate::failure::Failure;
use crate::host;

/// Applies what changed.
pub(super) async fn follow(
    agent: &mut Agent,
    changed: Changed,
    running: &mut Running,
    paths: &mut Paths,
) -> Result<(), Failure> {
    let to_call = say(agent, running).await;
    let applied = if changed.peers || changed.addresses { apply(agent, running, paths).await } else { Ok(()) };
    // What the host refuses, such as a route, concerns no endpoint.
    let told =
        if changed.peers || changed.addresses { tell(agent, running).await } else { call(agent, false, running).await };
    for key in to_call {
        // Not before: a call with the former preshared key would only be in the way.
        if let Some(tag) = running.device.table().tag_of(key) {
            let _ = running.device.engine().command(Command::CallForWord(tag)).await;
        }
    }
    applied.and(told)
}

/// Says what peers are to hear inside the tunnel. Returns those that are to be called for it. One that is not there hears it
/// through the rendezvous.
async fn say(agent: &mut Agent, running: &Running) -> Vec<PeerKey> {
    let mut to_call = Vec::new();
    for Said { to, word, calls } in agent.take_words() {
        if let Some(tag) = running.device.table().tag_of(to) {
            let _ = running.device.engine().command(Command::SayWord(tag, word)).await;
        }
        if calls {
            to_call.push(to);
        }
    }
    to_call
}

/// Hands peers what is for others, and calls those that it is for.
pub(super) async fn hand_over(agent: &mut Agent, running: &Running) {
    let (parcels, calls) = agent.take_parcels();
    let handed = parcels.into_iter().map(|(to, parcel)| (to, Some(parcel)));
    for (key, parcel) in handed.chain(calls.into_iter().map(|key| (key, None))) {
        if let Some(tag) = running.device.table().tag_of(key) {
            let command = parcel.map_or(Command::Call(tag), |parcel| Command::SendParcel(tag, parcel.into()));
            // A peer that is gone needs nothing.
            let _ = running.device.engine().command(command).await;
        }
    }
}

async fn apply(agent: &Agent, running: &mut Running, paths: &mut Paths) -> Result<(), Failure> {
    let mut new = config(agent, running);
    // First of all: a key that is compromised is answered no more.
    running.device.set_private_keys(new.interface.private_key.clone(), new.former_keys.clone()).await;
    running.device.set_peers(&new.peers).await?;
    match running.look_for_families(agent).await {
        Ok(left_out) if left_out == running.left_out => {}
        Ok(left_out) => {
            running.leave_out(left_out);
            new = config(agent, running);
            running.device.set_peers(&new.peers).await?;
        }
        Err(failure) => tracing::warn!("what collides with this host is not known: {failure}"),
    }
    let addresses = Command::SetAddresses { addresses: new.addresses(), forward: new.interface.forward };
    running.device.engine().command(addresses).await.map_err(paths::rejected)?;
    let mtu = paths::mtu_range(&new, running).await;
    let applied = running.host.apply(&running.netlink, &mut running.journal, &new, mtu).await;
    running.show_interface(&new, mtu);
    running.config = new;
    paths.on_config(running);
    applied
}

/// The config that is in force, with what the agent adds and without the families that are left out.
fn config(agent: &Agent, running: &Running) -> Config {
    let mut config = running.file().in_force(agent.part());
    host::leave_out(&mut config, &running.left_out);
    config
}

/// Whether a family has become usable or unusable since the last time.
pub(super) async fn is_due(agent: &Agent, running: &Running) -> bool {
    running.look_for_families(agent).await.is_ok_and(|left_out| left_out != running.left_out)
}

/// Tells the node what no config says: the pools, and where peers may be called.
pub(super) async fn tell(agent: &mut Agent, running: &Running) -> Result<(), Failure> {
    let pools = Command::SetPools(agent.pools());
    running.device.engine().command(pools).await.map_err(paths::rejected)?;
    call(agent, true, running).await
}

/// Tells the node where peers may be called, all or those that have moved, and which of them have our answer.
async fn call(agent: &mut Agent, all: bool, running: &Running) -> Result<(), Failure> {
    let informed = agent.take_informed();
    if let Some(relays) = agent.take_relays(all) {
        let _ = running.device.engine().command(Command::SetRelays(relays)).await;
    }
    if let Some((candidates, scope, nat)) = agent.take_candidates(all) {
        let command = Command::SetLocalCandidates { candidates, scope, nat };
        let _ = running.device.engine().command(command).await;
    }
    for (key, remote) in agent.remotes(all) {
        let Some(peer) = running.device.table().tag_of(key) else { continue };
        tracing::debug!(?peer, ?remote, "where a peer may be reached");
        let relay = remote.relayed.first().map(|(relay, _)| (*relay, true));
        let first = relay.or_else(|| Some((*remote.candidates.first()?, false)));
        // A peer that is gone needs no endpoint.
        let _ = running.device.engine().command(Command::SetRemote { peer, remote }).await;
        if let Some((first, is_relayed)) = first {
            running.device.table().on_first_endpoint(key, first, is_relayed);
        }
    }
    for key in informed {
        if let Some(tag) = running.device.table().tag_of(key) {
            let _ = running.device.engine().command(Command::KnowsPresharedKey(tag)).await;
        }
    }
    Ok(())
}
