//! Letters and how they are sealed: for a mailbox, or for a slot.
//!
//! Slots are sealed with X25519 alone, because an X-Wing key is longer than a slot. What they hold (endpoints, and words
//! that are signed) contains no secret that must last.

use hpke::rand_core::UnwrapErr;
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::{MAX_SLOT_LEN, Slot};
use overlay_rendezvous::sealed::{self, Heading, MailboxKeys, SHORT_OVERHEAD};
use overlay_wire::Malformed;
use overlay_wire::signed::{PublicKey, Record};

/// This agent's end of all letters.
pub(super) struct Post {
    network: PublicKey,
    me: PublicKey,
    keys: MailboxKeys,
    /// The keys before those. Letters may still be sealed for them.
    former: Option<MailboxKeys>,
}

impl Post {
    pub(super) fn new(network: PublicKey, me: PublicKey, keys: MailboxKeys, former: Option<MailboxKeys>) -> Self {
        Self { network, me, keys, former }
    }

    /// Seals a message.
    pub(super) fn seal_message(&self, to: &Record, id: &[u8; 16], letter: &Letter) -> Result<Vec<u8>, Malformed> {
        let plaintext = letter.write();
        sealed::seal(to, self.heading_to(&to.identity, id), &plaintext, &mut UnwrapErr(getrandom::SysRng))
    }

    /// Seals what is kept in a slot.
    pub(super) fn seal_slot(&self, to: &Record, slot: Slot, letter: &Letter) -> Result<Vec<u8>, Malformed> {
        let plaintext = letter.write();
        let heading = self.heading_to(&to.identity, label_of(slot));
        sealed::seal_short(to, heading, &plaintext, &mut UnwrapErr(getrandom::SysRng))
    }

    /// Whether a letter fits in a slot once it is sealed.
    pub(super) fn fits_slot(&self, letter: &Letter) -> bool {
        letter.write().len() + SHORT_OVERHEAD <= MAX_SLOT_LEN
    }

    /// Opens a message.
    pub(super) fn open_message(&self, from: &PublicKey, id: &[u8; 16], bytes: &[u8]) -> Result<Letter, Malformed> {
        self.open(self.heading_from(from, id), bytes)
    }

    /// Opens what a peer keeps in a slot.
    pub(super) fn open_slot(&self, from: &PublicKey, slot: Slot, bytes: &[u8]) -> Result<Letter, Malformed> {
        self.open(self.heading_from(from, label_of(slot)), bytes)
    }

    fn open(&self, heading: Heading<'_>, bytes: &[u8]) -> Result<Letter, Malformed> {
        let opened = self.keys.open(heading, bytes);
        let opened = opened.or_else(|malformed| match &self.former {
            Some(former) => former.open(heading, bytes),
            None => Err(malformed),
        });
        Letter::read(&opened?)
    }

    fn heading_to<'a>(&'a self, recipient: &'a PublicKey, label: &'a [u8]) -> Heading<'a> {
        Heading { network: &self.network, sender: &self.me, recipient, label }
    }

    fn heading_from<'a>(&'a self, sender: &'a PublicKey, label: &'a [u8]) -> Heading<'a> {
        Heading { network: &self.network, sender, recipient: &self.me, label }
    }
}

fn label_of(slot: Slot) -> &'static [u8] {
    match slot {
        Slot::Endpoints => b"endpoints",
        Slot::Word => b"word",
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use overlay_wire::signed::{
        Endpoints, MAX_RELAY_PERMIT, MAX_RELAYS, Place, RelayPermit, RelayPlace, SecretKey, Signed,
    };

    use super::*;

    fn post(me: &SecretKey) -> Post {
        let keys = MailboxKeys::from_secret(&[7; sealed::SECRET_LEN]).expect("good keys");
        Post::new(SecretKey::from_bytes(&[1; 32]).public(), me.public(), keys, None)
    }

    /// Endpoints with as many relays as there may be, each with two addresses, and places of IPv6.
    fn endpoints(places: u16) -> Letter {
        let key = |byte| SecretKey::from_bytes(&[byte; 32]);
        let (network, me, peer) = (key(1).public(), key(2), key(3).public());
        let addresses: Vec<SocketAddr> =
            ["192.0.2.9:7447", "[2001:db8::9]:7447"].iter().map(|text| text.parse().expect("one")).collect();
        let relay = |byte| {
            let permit = RelayPermit {
                network,
                relay: key(byte).public(),
                issuer: me.public(),
                subject: peer,
                sequence: u64::MAX,
                issued: u64::MAX - MAX_RELAY_PERMIT,
                expires: u64::MAX,
            };
            RelayPlace::new(&addresses, &Signed::sign(permit, &me).expect("a good permit")).expect("an address")
        };
        let place = |port| Place::from(SocketAddr::new("2001:db8::1".parse().expect("one"), port));
        let endpoints = Endpoints {
            network,
            from: me.public(),
            to: peer,
            sequence: u64::MAX,
            issued: u64::MAX,
            places: (60_001..).take(places.into()).map(place).collect(),
            relays: Some((10..).take(MAX_RELAYS).map(relay).collect()),
        };
        let signed = Signed::sign(endpoints, &me).expect("good endpoints");
        Letter::Endpoints { endpoints: signed.bytes().to_vec().into() }
    }

    #[test]
    fn endpoints_with_all_relays_leave_room_for_places_in_a_slot() {
        let post = post(&SecretKey::from_bytes(&[2; 32]));
        let most = (0..=16).take_while(|places| post.fits_slot(&endpoints(*places))).last();
        assert_eq!(most, Some(10), "of IPv6, in the longest form of everything else: more than the node names");
    }

    #[test]
    fn what_is_sealed_is_as_much_longer_as_we_reckon() {
        let peer = overlay_rendezvous::sealed::MailboxKeys::from_secret(&[8; sealed::SECRET_LEN]).expect("good keys");
        let (network, key) = (SecretKey::from_bytes(&[1; 32]).public(), SecretKey::from_bytes(&[3; 32]));
        let record = super::super::trust::sample::record(network, &key, 1_800_000_000_000, |record| {
            record.mailbox_x25519 = peer.public_x25519();
        });
        let letter = endpoints(0);
        let sealed = post(&SecretKey::from_bytes(&[2; 32])).seal_slot(&record, Slot::Endpoints, &letter);
        assert_eq!(sealed.expect("it can be sealed").len(), letter.write().len() + SHORT_OVERHEAD);
    }
}
