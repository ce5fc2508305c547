//! This agent's own record: what it says, and when it says it anew.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use overlay_wire::signed::{
    Abilities, Attestation, MAX_FRESH, Network, PublicKey, Record, Refused, SecretKey, Signed, TunnelKey, ipv6_address,
};

use super::state::{Keys, State};
use crate::config;
use crate::failure::Failure;

/// A record is signed anew when half of its time is over.
const RENEW_BEFORE: u64 = MAX_FRESH / 2;
/// The length of a network's IPv6 prefix in bits.
const IPV6_PREFIX_LEN: u8 = 32;

/// The attestation for the record. One for a different name is left out, because nobody would take the record.
pub(super) fn attestation(
    state: &State,
    config: &config::Agent,
    me: &PublicKey,
) -> Result<Option<Attestation>, Failure> {
    let Some(attestation) = state.attestation(&config.network_key, me)? else { return Ok(None) };
    let name = attestation.token(&config.network_key, me).ok().and_then(|token| token.name.clone());
    match name.filter(|name| *name != config.name) {
        Some(name) => {
            tracing::warn!(
                "the join token of this agent is for the name `{name}`: it does not count for `{}`, and neither do its tags",
                config.name
            );
            Ok(None)
        }
        None => Ok(Some(attestation)),
    }
}

/// Makes the record with a new sequence. `before` is the newest one that is known.
pub(super) fn record(
    config: &config::Agent,
    keys: &Keys,
    attestation: Option<&Attestation>,
    before: Option<&Signed<Record>>,
    ipv4: Option<[u8; 4]>,
    now: u64,
) -> Result<Signed<Record>, Refused> {
    let value = Record {
        network: config.network_key,
        identity: keys.identity.public(),
        sequence: before.map_or(0, |before| before.sequence).saturating_add(1).max(now),
        issued: now,
        fresh_until: now + MAX_FRESH,
        name: config.name.clone(),
        ipv4,
        tunnel_keys: tunnel_keys(keys),
        mailbox_x25519: keys.mailbox.public_x25519(),
        mailbox_xwing: Some(keys.mailbox.public_xwing()),
        tags: config.tags.clone(),
        services: config.services.clone(),
        visibility: config.visibility,
        abilities: Abilities::default(),
        attestation: attestation.cloned(),
    };
    Signed::sign(value, &keys.identity)
}

/// The tunnel keys that are answered, the present one first.
pub(super) fn tunnel_keys(keys: &Keys) -> Vec<TunnelKey> {
    let former = keys.former_tunnel.iter().map(|former| &former.key);
    std::iter::once(&keys.tunnel).chain(former).map(|key| TunnelKey(key.public().0)).collect()
}

/// Whether a record says what the config says, and is fresh for long enough.
pub(super) fn is_current(
    record: &Record,
    config: &config::Agent,
    keys: &Keys,
    attestation: Option<&Attestation>,
    now: u64,
) -> bool {
    record.name == config.name
        && record.tags == config.tags
        && record.services == config.services
        && record.visibility == config.visibility
        && record.attestation.as_ref() == attestation
        && record.tunnel_keys == tunnel_keys(keys)
        && record.mailbox_x25519 == keys.mailbox.public_x25519()
        && record.issued <= now
        && record.fresh_until > now + RENEW_BEFORE
}

/// This agent's virtual IPs, each with the prefix of the whole network.
pub(super) fn addresses(
    network_key: &PublicKey,
    identity: &PublicKey,
    network: Option<&Network>,
    ipv4: Option<[u8; 4]>,
) -> Vec<IpNet> {
    let v6 = IpNet::new(ipv6_address(network_key, identity).into(), IPV6_PREFIX_LEN).ok();
    let v4 = network.zip(ipv4.map(Ipv4Addr::from)).and_then(|(network, address)| {
        let is_in_pool = network.pool.has_host(address);
        is_in_pool.then(|| IpNet::new(IpAddr::V4(address), network.pool.prefix_len()).ok())?
    });
    v6.into_iter().chain(v4).collect()
}

/// A second handle on a secret key, for the task that connects.
pub(super) fn copy(key: &SecretKey) -> SecretKey {
    SecretKey::from_bytes(&key.to_bytes())
}
