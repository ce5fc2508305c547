//! Connections: agents come, are welcomed, and go.

use std::net::IpAddr;

use overlay_wire::signed::PublicKey;
use rand_core::RngCore;

use super::{Arrival, ConnectionId, Output, REPLACED_WAIT, Registry};
use crate::now::Now;
use crate::protocol::{Push, Reply};

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) identity: PublicKey,
    pub(super) address: IpAddr,
    epoch: u64,
    /// Whether it has said hello: messages are pushed from then on.
    pub(super) is_greeted: bool,
}

impl Registry {
    /// An agent has connected. The newest connection of an identity replaces the one before it.
    pub fn connected(&mut self, connection: ConnectionId, arrival: Arrival, now: Now) {
        let Arrival { identity, address, epoch } = arrival;
        let address = address.to_canonical();
        if let Some(former) = self.leases.connection(&identity) {
            self.stats.replaced_connections += 1;
            // If somebody is still there, it is a copy of the agent, and soon finds that out.
            if self.is_greeted(former) {
                self.push(former, Push::Reconnect { wait: REPLACED_WAIT });
            }
            self.close(former);
        } else if self.connections.len() >= self.limits.connections {
            self.stats.refused_connections += 1;
            self.outputs.push_back(Output::Close { connection });
            return;
        }
        let told = self.epochs.get(&identity);
        // A different process may have told it a newer one.
        if epoch != 0 && !self.is_shared() && told.is_some_and(|told| !told.contains(&epoch)) {
            self.stats.stale_epochs += 1;
        }
        let epoch = self.rng.next_u64().max(1);
        self.connections.insert(connection, Connection { identity, address, epoch, is_greeted: false });
        let was_present = self.is_present(&identity);
        self.leases.begin(identity, connection, now.monotonic);
        self.show_presence(&identity, true);
        if !was_present {
            self.push_presence(&identity, true);
        }
    }

    /// A connection has ended. The agent's lease goes on for [`LEASE`](super::presence::LEASE), so a short break is seen by nobody.
    pub fn disconnected(&mut self, connection: ConnectionId, now: Now) {
        let Some(ended) = self.forget_connection(connection) else { return };
        if self.agents.is_registered(&ended.identity) {
            self.leases.on_disconnected(&ended.identity, connection, now.monotonic);
        } else {
            self.leases.end(&ended.identity);
            self.push_absence(&ended.identity);
        }
    }

    /// Welcomes a caller, and pushes what waits for it with the first hello of its connection.
    pub(super) fn greet(&mut self, (connection, id): (ConnectionId, u32), caller: PublicKey) -> Option<Reply> {
        let greeted = self.connections.get_mut(&connection)?;
        let is_first = !std::mem::replace(&mut greeted.is_greeted, true);
        let (epoch, address) = (greeted.epoch, greeted.address);
        let record = self.agents.record(&caller).map(|record| record.bytes().to_vec().into());
        if is_first && record.is_some() {
            let told = self.epochs.entry(caller).or_default();
            *told = [told[1], epoch];
        }
        let seen_from = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let (network, relay) = (self.network.bytes().to_vec().into(), self.relay.clone());
        self.answer(connection, id, Reply::Welcome { network, record, epoch, seen_from: seen_from.into(), relay });
        if is_first && !self.is_banned(&caller) {
            self.push_waiting(connection, &caller);
        }
        None
    }

    /// Ends a connection from this side.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.forget_connection(connection);
        self.outputs.push_back(Output::Close { connection });
    }

    fn forget_connection(&mut self, connection: ConnectionId) -> Option<Connection> {
        self.watches.forget(connection);
        self.connections.remove(&connection)
    }

    pub(super) fn is_greeted(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.is_greeted)
    }
}
