//! The tags that name a peer, and a path to it, between the node and the programs that drive it.

/// Names one peer of a node for as long as it exists. Keys are attributes of a peer: they may change, but its tag stays.
///
/// Control takes it from [`PeerTags`]. It holds a place in the node's table and, in the bits above, how often that place
/// was given before. So a fact about a removed peer does not count for the next peer in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerTag(pub(crate) u32);

/// How many bits of a tag are the place in the table.
const PLACE_BITS: u32 = 20;

impl PeerTag {
    /// How many places there are.
    pub(crate) const PLACES: usize = 1 << PLACE_BITS;

    pub(crate) fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }

    /// The tag as a `u32`.
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// The tag whose [`PeerTag::to_bits`] this is.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Names one path to a peer. A peer that moves gets a new path, so facts about the earlier path do not count for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathTag {
    /// The peer that the path leads to.
    pub peer: PeerTag,
    /// Counts the peer's paths. It wraps.
    pub(crate) number: u32,
}

impl PathTag {
    /// The tag as a `u64`.
    pub fn to_bits(self) -> u64 {
        u64::from(self.peer.0) << 32 | u64::from(self.number)
    }

    /// The tag whose [`PathTag::to_bits`] this is.
    pub fn from_bits(bits: u64) -> Self {
        Self { peer: PeerTag((bits >> 32) as u32), number: bits as u32 }
    }
}

/// The tags that control has given, and those that it may still give.
#[derive(Debug, Default)]
pub struct PeerTags {
    /// Places that were given back, with the last tag of each. The last one is given first.
    free: Vec<PeerTag>,
    /// The first place that was never given.
    fresh: u32,
}

impl PeerTags {
    /// Takes a tag for a new peer. `None` if [`crate::Node::MAX_PEERS`] tags are in use.
    pub fn take(&mut self) -> Option<PeerTag> {
        if let Some(before) = self.free.pop() {
            return Some(PeerTag(before.0.wrapping_add(1 << PLACE_BITS)));
        }
        let place = self.fresh;
        if place as usize >= PeerTag::PLACES {
            return None;
        }
        self.fresh += 1;
        Some(PeerTag(place))
    }

    /// Takes back the tag of a peer that was removed. Its place is given again, under a different tag.
    pub fn give_back(&mut self, tag: PeerTag) {
        self.free.push(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_again_under_a_different_tag() {
        let mut tags = PeerTags::default();
        let [first, second] = [tags.take().unwrap(), tags.take().unwrap()];
        assert_eq!([first.place(), second.place()], [0, 1]);
        tags.give_back(first);
        let third = tags.take().unwrap();
        assert_eq!(third.place(), first.place());
        assert_ne!(third, first);
        assert_eq!(PeerTag::from_bits(third.to_bits()), third);
        assert_eq!(tags.take().unwrap().place(), 2);
    }

    #[test]
    fn there_are_as_many_tags_as_places() {
        let mut tags = PeerTags { fresh: PeerTag::PLACES as u32 - 1, ..PeerTags::default() };
        let last = tags.take().expect("the last place");
        assert_eq!(tags.take(), None);
        tags.give_back(last);
        assert_eq!(tags.take().map(PeerTag::place), Some(last.place()));
    }
}
