//! The tunnel key changes when a person says so.
//!
//! A new tunnel key is in force at once, and the one before it is still answered: a peer calls by the key that it knows.
//! That ends when every trusted peer has used the new key, and after 30 days at the latest. A compromised key is answered
//! no more at once. Peers learn the new key from this agent's record, which holds both while both are answered.
//!
//! The order protects against a power cut at any moment. The record and the key are on disk before anything is answered
//! or registered, so no peer ever sees a key that can be lost. A record on disk that does not match the keys is signed
//! anew at the next start. The data plane takes the new key before the record is registered, so a peer that calls by it at
//! once is answered.

use std::collections::BTreeSet;
use std::time::Duration;

use overlay_core::PeerKey;
use overlay_wire::signed::{PublicKey, Record, Signed};
use tokio::time::Instant;

use super::request::{RotateKey, Rotated};
use super::state::{FormerKey, Keys, State};
use super::time::unix_now;
use super::{Agent, Changed, NOTHING, PEERS, own};
use crate::config::Peer;
use crate::failure::{ExitKind, Failure};
use crate::keys::{PrivateKey, encode_public};

const DAY: u64 = 24 * 3_600 * 1_000;
/// How long a former tunnel key is answered at most, in milliseconds.
const LONGEST_OVERLAP: u64 = 30 * DAY;
/// How long after a peer has used the present key it is looked whether all have. Many may do so within a moment.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// How many names of peers an answer holds.
const MAX_NAMES: usize = 16;

/// What is known of a rotation while two tunnel keys are answered.
#[derive(Default)]
pub(super) struct Rotation {
    /// The agents that have used the present key.
    used: BTreeSet<PublicKey>,
    /// The peers of the file, each with its name, and those of them that have used the present key.
    file_peers: Vec<(PeerKey, String)>,
    used_by_file_peers: BTreeSet<PeerKey>,
    /// Whether `used` is on disk as it is here.
    is_unsaved: bool,
    /// Whether the record must be registered as soon as the data plane has its keys.
    is_unregistered: bool,
    /// When to look whether all peers have used the present key, because one has.
    look_at: Option<Instant>,
}

impl Rotation {
    /// Reads what an earlier daemon has noted.
    pub(super) fn open(state: &State, keys: &Keys) -> Self {
        let mut rotation = Self::default();
        if keys.former_tunnel.is_some() {
            match state.users_of(&keys.tunnel.public()) {
                Ok(used) => rotation.used = used,
                // The peers show it again with their next handshakes.
                Err(failure) => tracing::warn!("{failure}"),
            }
        }
        rotation
    }

    /// Begins with a new present key.
    fn restart(&mut self, has_former: bool) {
        self.used.clear();
        self.used_by_file_peers.clear();
        self.is_unsaved = has_former;
        self.is_unregistered = true;
        self.look_at = None;
    }

    /// When something has to be done.
    pub(super) fn due_at(&self) -> Option<Instant> {
        if self.is_unregistered { Some(Instant::now()) } else { self.look_at }
    }
}

impl Agent {
    /// Replaces the tunnel key. When this returns, the new key and the record with it are on disk.
    pub(super) fn rotate_key(&mut self, rotate: &RotateKey, uid: u32) -> (Changed, Result<Rotated, Failure>) {
        match self.try_rotate(rotate) {
            Ok(changed) => {
                let rotated = self.rotated();
                let (key, is_compromised) = (&rotated.tunnel_key, rotate.compromised);
                tracing::info!(uid, key, is_compromised, "the tunnel key was replaced");
                (changed, Ok(rotated))
            }
            Err(failure) => (NOTHING, Err(failure)),
        }
    }

    fn try_rotate(&mut self, rotate: &RotateKey) -> Result<Changed, Failure> {
        // All peers may have used the present key a moment ago.
        self.end_overlap_if_over();
        if self.keys.former_tunnel.is_some() && !rotate.compromised {
            return Err(self.still_answered());
        }
        let replaced = unix_now();
        let has_peers = self.open_peers().next().is_some() || !self.rotation.file_peers.is_empty();
        let former = FormerKey { key: self.keys.tunnel.clone(), replaced };
        let former = Some(former).filter(|_| has_peers && !rotate.compromised);
        let tunnel = PrivateKey::generate();
        let before =
            (std::mem::replace(&mut self.keys.tunnel, tunnel), std::mem::replace(&mut self.keys.former_tunnel, former));
        match self.write_keys() {
            Ok(record) => {
                self.record = record;
                self.book.set_tunnel_keys(own::tunnel_keys(&self.keys));
                self.rotation.restart(self.keys.former_tunnel.is_some());
                Ok(PEERS)
            }
            Err(failure) => {
                (self.keys.tunnel, self.keys.former_tunnel) = before;
                Err(failure)
            }
        }
    }

    /// Writes the tunnel keys, and a record with them. Returns the record. After a failure the disk may hold either keys.
    fn write_keys(&self) -> Result<Signed<Record>, Failure> {
        let (attestation, before) = (self.attestation.as_ref(), Some(&self.record));
        let record = own::record(&self.config, &self.keys, attestation, before, self.record.ipv4, unix_now());
        let record = record.map_err(|refused| {
            Failure::new(ExitKind::Other, "the record with the new key is not valid").with_cause(refused)
        })?;
        // Until the rendezvous is heard, the record on disk says how old this state is. A new one is signed at each start.
        if self.past.is_heard() {
            self.state.set_record(&record)?;
        }
        self.state.set_tunnel_keys(&self.keys.tunnel, self.keys.former_tunnel.as_ref())?;
        Ok(record)
    }

    /// Does what is due for a rotation. The data plane has the keys that the record names by now, so it is registered.
    pub(super) fn on_rotation_due(&mut self) -> Changed {
        if std::mem::take(&mut self.rotation.is_unregistered) {
            self.offer_record();
        }
        if self.rotation.look_at.take_if(|at| *at <= Instant::now()).is_some() {
            return self.end_overlap_if_over();
        }
        NOTHING
    }

    /// The peer with this tunnel key has proved in a handshake that it knows our present one. `agent`: the agent that it is,
    /// or `None` for a peer of the file.
    pub(super) fn on_key_used(&mut self, peer: PeerKey, agent: Option<PublicKey>) {
        if self.keys.former_tunnel.is_none() {
            return;
        }
        match agent {
            Some(agent) => self.rotation.is_unsaved |= self.rotation.used.insert(agent),
            None => _ = self.rotation.used_by_file_peers.insert(peer),
        }
        self.rotation.look_at.get_or_insert(Instant::now() + LOOK_AFTER);
    }

    /// Takes the peers of the file, which a person tells the new key.
    pub(crate) fn on_file_peers(&mut self, peers: &[Peer]) {
        self.rotation.file_peers = peers.iter().map(|peer| (peer.public_key, peer.label())).collect();
    }

    /// Does what is due for tunnel keys. Called twice a minute.
    pub(super) fn tend_tunnel_keys(&mut self) -> Changed {
        let changed = self.end_overlap_if_over();
        if std::mem::take(&mut self.rotation.is_unsaved)
            && let Err(failure) = self.state.set_users_of(&self.keys.tunnel.public(), &self.rotation.used)
        {
            tracing::warn!("{failure}");
        }
        changed
    }

    /// Answers the former tunnel key no more, if all trusted peers have used the present one or its time is over.
    fn end_overlap_if_over(&mut self) -> Changed {
        let now = unix_now();
        let Some(former) = &self.keys.former_tunnel else { return NOTHING };
        let is_too_old = now.saturating_sub(former.replaced) > LONGEST_OVERLAP;
        if !is_too_old && self.waits_for().next().is_some() {
            return NOTHING;
        }
        let former = self.keys.former_tunnel.take();
        match self.write_keys() {
            Ok(record) => {
                self.record = record;
                self.book.set_tunnel_keys(own::tunnel_keys(&self.keys));
                self.rotation.restart(false);
                tracing::info!(is_too_old, "the former tunnel key is answered no more");
                PEERS
            }
            Err(failure) => {
                // It is tried again.
                tracing::error!("{failure}");
                self.keys.former_tunnel = former;
                NOTHING
            }
        }
    }

    /// The names of the trusted peers that have not used the present tunnel key.
    fn waits_for(&self) -> impl Iterator<Item = &str> {
        let rotation = &self.rotation;
        let agents = self.open_peers().map(|open| open.record);
        let agents = agents.filter(|record| !rotation.used.contains(&record.identity));
        let of_file = rotation.file_peers.iter().filter(|(key, _)| !rotation.used_by_file_peers.contains(key));
        agents.map(|record| record.name.as_str()).chain(of_file.map(|(_, name)| name.as_str()))
    }

    fn still_answered(&self) -> Failure {
        let rotated = self.rotated();
        let (names, more) = (rotated.waits_for.join(", "), rotated.waits_for_count - rotated.waits_for.len());
        let names = if more > 0 { format!("{names} and {more} more") } else { names };
        Failure::new(ExitKind::Conflict, "the key before this one is still answered")
            .with_cause(format!("{names} may not know the present key yet"))
            .with_hint("wait until they have been online; `overlay key rotate --compromised` does not wait")
    }

    /// The tunnel keys, while the former one is still answered.
    pub(super) fn rotation(&self) -> Option<Rotated> {
        self.keys.former_tunnel.as_ref().map(|_| self.rotated())
    }

    fn rotated(&self) -> Rotated {
        let former = self.keys.former_tunnel.as_ref();
        let waits_for: Vec<_> = match former {
            Some(_) => self.waits_for().map(str::to_owned).collect(),
            None => Vec::new(),
        };
        Rotated {
            tunnel_key: encode_public(&self.keys.tunnel.public()),
            former_key: former.map(|former| encode_public(&former.key.public())),
            until: former.map(|former| (former.replaced + LONGEST_OVERLAP) / 1_000),
            waits_for_count: waits_for.len(),
            waits_for: waits_for.into_iter().take(MAX_NAMES).collect(),
        }
    }

    /// The tunnel keys that are answered, the present one first.
    pub(super) fn own_keys(&self) -> Vec<PeerKey> {
        let former = self.keys.former_tunnel.iter().map(|former| &former.key);
        std::iter::once(&self.keys.tunnel).chain(former).map(PrivateKey::public).collect()
    }

    /// A peer, with the former one of `own_keys` if it is not known to have learned of the present one. `None` if it claims a
    /// key of ours: it has no tunnel.
    pub(super) fn called_by_known_key(&self, mut peer: Peer, own_keys: &[PeerKey]) -> Option<Peer> {
        if own_keys.contains(&peer.public_key) {
            return None;
        }
        if let Some(agent) = &mut peer.agent
            && !self.rotation.used.contains(&agent.identity)
        {
            agent.own_key = own_keys.get(1).copied();
        }
        Some(peer)
    }
}
