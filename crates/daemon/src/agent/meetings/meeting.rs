//! One rendezvous: the machine, the connection, and how they stand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use overlay_rendezvous::channel::Pinned;
use overlay_rendezvous::client::{Client, Event};
use overlay_rendezvous::now::Now;
use overlay_rendezvous::protocol::RelayAt;
use overlay_wire::signed::{PublicKey, SecretKey};

use super::super::connection::Target;
use super::super::link::Link;
use super::super::standing::Standing;
use super::super::time::unix_now;
use super::membership::Proof;
use crate::config::RendezvousUrl;

/// One rendezvous: the machine, the connection, and how they stand.
pub(super) struct Meeting {
    pub(super) place: RendezvousUrl,
    pub(super) client: Client,
    pub(super) link: Link,
    pub(super) standing: Standing,
    /// Since when it is connected, or is not, in milliseconds since 1970.
    pub(super) since: u64,
    /// The value that the last connection handed out.
    pub(super) epoch: u64,
    pub(super) seen_from: Option<IpAddr>,
    /// The addresses of its host, as they were resolved last.
    pub(super) resolved: Vec<SocketAddr>,
    /// Its relay, as it has said last.
    pub(super) relay: Option<RelayAt>,
    /// Whether it has shown what it knows of us, since the start.
    pub(super) is_heard: bool,
    pub(super) is_registered: bool,
    /// Whether our record was registered here since the start.
    pub(super) has_registered: bool,
    /// How far its clock was ahead of ours when it was heard last, in milliseconds.
    pub(super) ahead: Option<i64>,
    /// That this agent is a member, as the rendezvous has signed it.
    pub(super) proof: Proof,
}

impl Meeting {
    pub(super) fn stand(&mut self, standing: Standing) {
        if (self.standing == Standing::Connected) != (standing == Standing::Connected) {
            self.since = unix_now();
        }
        self.standing = standing;
    }

    pub(super) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Online { epoch, seen_from, relay, .. } => {
                self.relay.clone_from(relay);
                tracing::info!(url = self.place.url, "connected to the rendezvous");
                self.stand(Standing::Connected);
                self.epoch = *epoch;
                self.seen_from = address_of(seen_from);
            }
            Event::Offline => {
                self.is_registered = false;
                if self.standing == Standing::Connected {
                    self.stand(Standing::Connecting);
                }
            }
            Event::Registered { .. } => {
                (self.is_registered, self.has_registered) = (true, true);
                self.stand(Standing::Connected);
            }
            Event::Clock { time } => {
                self.ahead = i64::try_from(i128::from(*time) - i128::from(unix_now())).ok();
            }
            _ => {}
        }
    }

    pub(super) fn renew_membership(&mut self, now: Now) {
        if self.is_registered && self.proof.take_turn(now) {
            self.client.ask_membership(self.place.rendezvous, now);
        }
    }

    pub(super) fn connect(&mut self, network: &PublicKey, identity: &Arc<SecretKey>) {
        let rendezvous = Pinned {
            host: self.place.host.clone(),
            port: self.place.port,
            rendezvous: self.place.rendezvous,
            network: *network,
        };
        self.link.connect(Target { rendezvous, identity: Arc::clone(identity), epoch: self.epoch, ca_file: None });
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}
