//! The names of this host follow the agent: each peer with a tunnel has a name, and nobody else.

use ipnet::IpNet;
use overlay_wire::signed::Transport;

use super::running::Running;
use crate::agent::{Agent, Claims};
use crate::failure::Failure;
use crate::names::zone::{self, Origin};
use crate::names::{Keeper, Names, domain_of};

/// The topic of warnings about names.
const TOPIC: &str = "names";

/// Begins to name agents, if the config wants it.
pub(super) async fn start(
    agent: &Agent,
    running: &mut Running,
    keeper: Option<Keeper>,
) -> Result<Option<Names>, Failure> {
    let dns = running.config.interface.dns;
    let interface = (running.config.interface.name.clone(), running.host.index());
    let mut names = Names::start(dns, keeper, (&interface.0, interface.1)).await;
    if let Some(names) = &mut names {
        if names.keeps_hosts() {
            running.journal.record_hosts(true)?;
        }
        follow(names, agent, running);
        // A script that goes on after `up -d` finds names.
        names.settle().await;
        show(names, running);
    }
    Ok(names)
}

/// Names the peers that the data plane has, with what they say of themselves.
pub(super) fn follow(names: &mut Names, agent: &Agent, running: &Running) {
    let Some((name, network)) = agent.names() else { return };
    let config = &running.config;
    let own = config.interface.addresses.iter().map(IpNet::addr);
    let origin = Origin {
        interface: config.interface.name.clone(),
        domain: domain_of(network),
        pools: agent.pools(),
        me: described(name, own, agent.own_claims()),
    };
    let named = config.peers.iter().filter_map(|peer| {
        let identity = peer.agent.as_ref()?.identity;
        let addresses = peer.allowed_ips.iter().map(IpNet::addr);
        Some(described(peer.name.as_deref()?, addresses, agent.claims(&identity)))
    });
    names.set(origin, named.collect());
    show(names, running);
}

/// Shows how names are found, and what is wrong with that.
pub(super) fn show(names: &Names, running: &Running) {
    running.view.set_names(names.shown());
    running.view.set_warnings(TOPIC, names.warnings());
}

fn described(name: &str, addresses: impl Iterator<Item = std::net::IpAddr>, claims: Claims<'_>) -> zone::Agent {
    let services = claims.services.iter().map(|service| zone::Service {
        name: service.name.clone(),
        protocol: match service.transport {
            Transport::Tcp => "tcp".to_owned(),
            Transport::Udp => "udp".to_owned(),
        },
        port: service.port,
        text: service.text.clone(),
    });
    zone::Agent {
        name: name.to_owned(),
        addresses: addresses.collect(),
        tags: claims.tags.to_vec(),
        services: services.collect(),
    }
}
