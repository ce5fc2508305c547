//! What the engine calls the peers.
//!
//! In static mode and over the UAPI a peer is its key. The engine knows it by a tag, which outlives a key.

use std::collections::HashMap;

use overlay_core::{PeerKey, PeerTag, PeerTags};

/// The tags of all peers, also of those that the engine is about to be told of.
#[derive(Default)]
pub(super) struct Tags {
    free: PeerTags,
    tags: HashMap<PeerKey, PeerTag>,
    keys: HashMap<PeerTag, PeerKey>,
}

impl Tags {
    /// The tag of the peer with this key, a new one if it has none. `None`: all are in use.
    pub(super) fn take_for(&mut self, key: PeerKey) -> Option<PeerTag> {
        if let Some(tag) = self.tags.get(&key) {
            return Some(*tag);
        }
        let tag = self.free.take()?;
        self.tags.insert(key, tag);
        self.keys.insert(tag, key);
        Some(tag)
    }

    /// The peer with this key is gone.
    pub(super) fn give_back(&mut self, key: PeerKey) {
        if let Some(tag) = self.tags.remove(&key) {
            self.keys.remove(&tag);
            self.free.give_back(tag);
        }
    }

    /// The key of the peer with this tag.
    pub(super) fn key_of(&self, tag: PeerTag) -> Option<PeerKey> {
        self.keys.get(&tag).copied()
    }
}
