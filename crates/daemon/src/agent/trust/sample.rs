//! A record for tests: what it says does not matter, except for what a test changes.

use overlay_wire::signed::{Abilities, PublicKey, Record, SecretKey, Signed, TunnelKey, Visibility};

/// Signs a record of the agent with this key, as it is at `now`, after `change`.
pub(crate) fn record(
    network: PublicKey,
    key: &SecretKey,
    now: u64,
    change: impl FnOnce(&mut Record),
) -> Signed<Record> {
    let byte = key.to_bytes()[0];
    let mut record = Record {
        network,
        identity: key.public(),
        sequence: 1,
        issued: now,
        fresh_until: now + 24 * 3_600 * 1_000,
        name: format!("agent-{byte}"),
        ipv4: None,
        tunnel_keys: vec![TunnelKey([byte; 32])],
        mailbox_x25519: [byte; 32],
        mailbox_xwing: None,
        tags: Vec::new(),
        services: Vec::new(),
        visibility: Visibility::Members,
        abilities: Abilities::default(),
        attestation: None,
    };
    change(&mut record);
    Signed::sign(record, key).expect("a good record")
}
