//! A WireGuard peer written by hand from the paper (section 5.4): it starts and answers handshakes, seals and opens
//! data, and creates and uses cookies.
//!
//! It exists to misbehave on purpose. The caller chooses every field that an honest peer would choose itself
//! (timestamp, indices, counter, padding, the MACs). It refuses nothing that a test may want to send, and keeps no
//! state that would stop it from sending something twice. It has no socket and no clock, only bytes in and out, so it
//! can talk to a node in memory as well as to the real program over UDP.
//!
//! ```
//! use overlay_sim::initiator::{Initiator, Timestamp};
//!
//! let alice_public = Initiator::new([1; 32], [0; 32], 0).public_key();
//! let bob_public = Initiator::new([2; 32], [0; 32], 0).public_key();
//! let mut alice = Initiator::new([1; 32], bob_public, 7);
//! let mut bob = Initiator::new([2; 32], alice_public, 8);
//!
//! let pending = alice.initiate(Timestamp::from_unix_seconds(1), 0x1234);
//! let (response, mut bobs, timestamp) = bob.answer(&pending.message, 0x5678).expect("an initiation for bob");
//! let mut alices = alice.complete(&pending, &response).expect("a response for alice");
//! assert_eq!(timestamp, Timestamp::from_unix_seconds(1));
//!
//! let opened = bobs.open(&alices.seal(b"hello")).expect("data for bob");
//! assert_eq!((opened.counter, &opened.plaintext[..5]), (0, &b"hello"[..]));
//! ```

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use crate::noise::{self, Bytes32};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Length of mac1, and of mac2, in bytes.
const MAC_LEN: usize = 16;
/// Length of an initiation in bytes.
const INITIATION_LEN: usize = 148;
/// Length of a response in bytes.
const RESPONSE_LEN: usize = 92;
/// Length of a cookie reply in bytes.
const COOKIE_REPLY_LEN: usize = 64;
/// Length of a data message's header, in bytes.
const DATA_HEADER_LEN: usize = 16;

/// A TAI64N timestamp. The newer one compares greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub [u8; 12]);

impl Timestamp {
    /// The oldest timestamp.
    pub const ZERO: Self = Self([0; 12]);
    /// The newest timestamp. After it, a responder does not accept any further initiation.
    pub const NEWEST: Self = Self([0xff; 12]);

    /// The timestamp for this many seconds and nanoseconds after the beginning of 1970.
    pub fn from_unix(seconds: u64, nanoseconds: u32) -> Self {
        const TAI64_EPOCH: u64 = (1 << 62) + 10;
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&(TAI64_EPOCH + seconds).to_be_bytes());
        bytes[8..].copy_from_slice(&nanoseconds.to_be_bytes());
        Self(bytes)
    }

    /// The timestamp for a whole second.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        Self::from_unix(seconds, 0)
    }
}

/// One end of a tunnel, which can start and answer handshakes.
pub struct Initiator {
    private: Bytes32,
    public: Bytes32,
    peer: Bytes32,
    preshared_key: Bytes32,
    /// Replaces the Diffie-Hellman result of both static keys if that is known to everyone.
    static_secret: Option<Bytes32>,
    rng: ChaCha8Rng,
}

/// An initiation that was made and can be completed with its response.
#[derive(Clone)]
pub struct Pending {
    /// The message: 148 bytes with a valid mac1 and a mac2 of zeros.
    pub message: Vec<u8>,
    sender_index: u32,
    ephemeral_private: Bytes32,
    chaining_key: Bytes32,
    hash: Bytes32,
}

/// The reason why a message was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its type or length is wrong.
    Length,
    /// It is for a different index.
    Index,
    /// mac1 was not made for us.
    Mac1,
    /// A tag does not match: a different key, a different preshared key, or a forged message.
    Tag,
    /// The static key in an initiation is not our peer's.
    Stranger,
}

/// The keys from a handshake.
#[derive(Clone)]
pub struct Session {
    pub(crate) sending_key: Bytes32,
    pub(crate) receiving_key: Bytes32,
    /// The receiver index that the peer puts into its messages to us.
    pub local_index: u32,
    /// The receiver index that we put into our messages.
    pub peer_index: u32,
    /// The counter that [`Session::seal`] uses next.
    pub next_counter: u64,
}

/// The content of a data message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its counter.
    pub counter: u64,
    /// Packet and padding. Empty for a keepalive.
    pub plaintext: Vec<u8>,
}

impl Initiator {
    /// Creates one end of a tunnel. `seed` determines the ephemeral keys and the nonces of cookie replies.
    pub fn new(private: [u8; 32], peer: [u8; 32], seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { public: noise::public_key(&private), private, peer, preshared_key: [0; 32], static_secret: None, rng }
    }

    /// Creates an end with a public key of low order. Its shared secret with any key is zero, so it needs no private
    /// key.
    pub fn of_low_order(public: [u8; 32], peer: [u8; 32], seed: u64) -> Self {
        Self { public, static_secret: Some([0; 32]), ..Self::new([1; 32], peer, seed) }
    }

    /// Adds a preshared key.
    pub fn with_preshared_key(mut self, preshared_key: [u8; 32]) -> Self {
        self.preshared_key = preshared_key;
        self
    }

    /// Uses this preshared key in handshakes from now on.
    pub fn set_preshared_key(&mut self, preshared_key: [u8; 32]) {
        self.preshared_key = preshared_key;
    }

    /// Our public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// The public key of our peer.
    pub fn peer_key(&self) -> [u8; 32] {
        self.peer
    }

    /// Starts a handshake (section 5.4.2).
    pub fn initiate(&mut self, timestamp: Timestamp, sender_index: u32) -> Pending {
        let ephemeral_private = self.random();
        let ephemeral = noise::public_key(&ephemeral_private);
        let mut message = vec![1, 0, 0, 0];
        message.extend(sender_index.to_le_bytes());

        let (mut chaining_key, mut hash) = start(&self.peer);
        [chaining_key] = noise::kdf(&chaining_key, &ephemeral);
        message.extend(ephemeral);
        hash = noise::hash(&[&hash, &ephemeral]);

        let [next, key] = noise::kdf(&chaining_key, &noise::dh(&ephemeral_private, &self.peer));
        let sealed_static = noise::seal(&key, 0, &self.public, &hash);
        hash = noise::hash(&[&hash, &sealed_static]);
        message.extend(&sealed_static);

        let static_secret = self.static_secret.unwrap_or_else(|| noise::dh(&self.private, &self.peer));
        let [chaining_key, key] = noise::kdf(&next, &static_secret);
        let sealed_timestamp = noise::seal(&key, 0, &timestamp.0, &hash);
        hash = noise::hash(&[&hash, &sealed_timestamp]);
        message.extend(&sealed_timestamp);

        message.resize(INITIATION_LEN, 0);
        self.sign(&mut message, None);
        Pending { message, sender_index, ephemeral_private, chaining_key, hash }
    }

    /// Completes a handshake with the response to `pending` (section 5.4.3).
    ///
    /// # Errors
    /// Returns what is wrong with the response. `pending` stays usable, so several responses can be tried.
    pub fn complete(&self, pending: &Pending, response: &[u8]) -> Result<Session, Refused> {
        self.check_mac1(response, 2, RESPONSE_LEN)?;
        if word(response, 8) != pending.sender_index {
            return Err(Refused::Index);
        }
        let ephemeral = bytes32(response, 12);
        let secrets = [noise::dh(&pending.ephemeral_private, &ephemeral), noise::dh(&self.private, &ephemeral)];
        let (chaining_key, key, hash) =
            mix_response(pending.chaining_key, pending.hash, &ephemeral, &secrets, &self.preshared_key);
        noise::open(&key, 0, &response[44..60], &hash).ok_or(Refused::Tag)?;
        let [sending_key, receiving_key] = noise::kdf(&chaining_key, &[]);
        Ok(Session {
            sending_key,
            receiving_key,
            local_index: pending.sender_index,
            peer_index: word(response, 4),
            next_counter: 0,
        })
    }

    /// Answers an initiation. Returns the response, the new session, and the timestamp in the initiation. Any timestamp
    /// is accepted. The caller may compare it.
    ///
    /// # Errors
    /// Returns what is wrong with the initiation.
    pub fn answer(&mut self, initiation: &[u8], sender_index: u32) -> Result<(Vec<u8>, Session, Timestamp), Refused> {
        self.check_mac1(initiation, 1, INITIATION_LEN)?;
        let (mut chaining_key, mut hash) = start(&self.public);
        let peer_ephemeral = bytes32(initiation, 8);
        [chaining_key] = noise::kdf(&chaining_key, &peer_ephemeral);
        hash = noise::hash(&[&hash, &peer_ephemeral]);

        let [next, key] = noise::kdf(&chaining_key, &noise::dh(&self.private, &peer_ephemeral));
        let initiator = noise::open(&key, 0, &initiation[40..88], &hash).ok_or(Refused::Tag)?;
        if initiator != self.peer {
            return Err(Refused::Stranger);
        }
        hash = noise::hash(&[&hash, &initiation[40..88]]);

        let [chaining_key, key] = noise::kdf(&next, &noise::dh(&self.private, &self.peer));
        let timestamp = noise::open(&key, 0, &initiation[88..116], &hash).ok_or(Refused::Tag)?;
        hash = noise::hash(&[&hash, &initiation[88..116]]);

        let ephemeral_private = self.random();
        let ephemeral = noise::public_key(&ephemeral_private);
        let secrets = [noise::dh(&ephemeral_private, &peer_ephemeral), noise::dh(&ephemeral_private, &self.peer)];
        let (chaining_key, key, hash) = mix_response(chaining_key, hash, &ephemeral, &secrets, &self.preshared_key);

        let peer_index = word(initiation, 4);
        let mut response = vec![2, 0, 0, 0];
        response.extend(sender_index.to_le_bytes());
        response.extend(peer_index.to_le_bytes());
        response.extend(ephemeral);
        response.extend(noise::seal(&key, 0, &[], &hash));
        response.resize(RESPONSE_LEN, 0);
        self.sign(&mut response, None);

        let [receiving_key, sending_key] = noise::kdf(&chaining_key, &[]);
        let session = Session { sending_key, receiving_key, local_index: sender_index, peer_index, next_counter: 0 };
        let mut bytes = [0; 12];
        bytes.copy_from_slice(&timestamp);
        Ok((response, session, Timestamp(bytes)))
    }

    /// Writes mac1 and mac2 at the end of a handshake message (section 5.4.4). Without a cookie, mac2 is zeros. This
    /// also works for a forged message, which then passes the first check.
    pub fn sign(&self, message: &mut [u8], cookie: Option<&[u8; 16]>) {
        let mac1 = message.len() - 2 * MAC_LEN;
        let mac2 = message.len() - MAC_LEN;
        let value = noise::mac(&noise::hash(&[LABEL_MAC1, &self.peer]), &message[..mac1]);
        message[mac1..mac2].copy_from_slice(&value);
        let value = cookie.map_or([0; MAC_LEN], |cookie| noise::mac(cookie, &message[..mac2]));
        message[mac2..].copy_from_slice(&value);
    }

    /// The cookie in the reply to one of our handshake messages (section 5.4.7).
    ///
    /// # Errors
    /// `Length`; `Index` if it is for a different message; `Tag` if it does not open.
    pub fn cookie(&self, message: &[u8], reply: &[u8]) -> Result<[u8; 16], Refused> {
        if reply.len() != COOKIE_REPLY_LEN || reply[..4] != [3, 0, 0, 0] {
            return Err(Refused::Length);
        }
        if word(reply, 4) != word(message, 4) {
            return Err(Refused::Index);
        }
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&reply[8..32]);
        let key = noise::hash(&[LABEL_COOKIE, &self.peer]);
        let cookie = noise::open_with_nonce(&key, &nonce, &reply[32..], mac1_of(message)).ok_or(Refused::Tag)?;
        cookie.try_into().map_err(|_| Refused::Length)
    }

    /// Answers the peer's handshake message with a cookie, as a responder under load does.
    pub fn cookie_reply(&mut self, message: &[u8], cookie: [u8; 16]) -> Vec<u8> {
        let mut nonce = [0; 24];
        self.rng.fill_bytes(&mut nonce);
        let key = noise::hash(&[LABEL_COOKIE, &self.public]);
        let mut reply = vec![3, 0, 0, 0];
        reply.extend(&message[4..8]);
        reply.extend(nonce);
        reply.extend(noise::seal_with_nonce(&key, &nonce, &cookie, mac1_of(message)));
        reply
    }

    /// Whether mac2 of the peer's handshake message was made with this cookie.
    pub fn proves(&self, message: &[u8], cookie: &[u8; 16]) -> bool {
        let (covered, mac2) = message.split_at(message.len() - MAC_LEN);
        noise::mac(cookie, covered) == mac2
    }

    fn check_mac1(&self, message: &[u8], kind: u8, len: usize) -> Result<(), Refused> {
        if message.len() != len || message[..4] != [kind, 0, 0, 0] {
            return Err(Refused::Length);
        }
        let key = noise::hash(&[LABEL_MAC1, &self.public]);
        if noise::mac(&key, &message[..len - 2 * MAC_LEN]) != mac1_of(message) {
            return Err(Refused::Mac1);
        }
        Ok(())
    }

    fn random(&mut self) -> Bytes32 {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

impl Pending {
    /// The private half of the key in it, which an honest peer forgets after the handshake.
    pub fn ephemeral_private(&self) -> [u8; 32] {
        self.ephemeral_private
    }
}

impl Session {
    /// Seals a packet like an honest peer: padded with zeros to a multiple of 16, with the next counter. An empty
    /// packet becomes a keepalive.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut plaintext = packet.to_vec();
        plaintext.resize(packet.len().next_multiple_of(16), 0);
        let message = self.seal_as_is(self.next_counter, &plaintext);
        self.next_counter += 1;
        message
    }

    /// Seals exactly these bytes with exactly this counter.
    pub fn seal_as_is(&self, counter: u64, plaintext: &[u8]) -> Vec<u8> {
        let mut message = vec![4, 0, 0, 0];
        message.extend(self.peer_index.to_le_bytes());
        message.extend(counter.to_le_bytes());
        message.extend(noise::seal(&self.sending_key, counter, plaintext, &[]));
        message
    }

    /// Opens a data message of the peer. Replays are not refused.
    ///
    /// # Errors
    /// `Length`, `Index`, `Tag`.
    pub fn open(&self, message: &[u8]) -> Result<Opened, Refused> {
        if message.len() < DATA_HEADER_LEN + 16 || message[..4] != [4, 0, 0, 0] {
            return Err(Refused::Length);
        }
        if word(message, 4) != self.local_index {
            return Err(Refused::Index);
        }
        let counter = u64::from(word(message, 8)) | u64::from(word(message, 12)) << 32;
        let sealed = &message[DATA_HEADER_LEN..];
        let plaintext = noise::open(&self.receiving_key, counter, sealed, &[]).ok_or(Refused::Tag)?;
        Ok(Opened { counter, plaintext })
    }
}

/// Chaining key and hash before the first message to `responder`.
pub(crate) fn start(responder: &Bytes32) -> (Bytes32, Bytes32) {
    let chaining_key = noise::hash(&[CONSTRUCTION]);
    let hash = noise::hash(&[&chaining_key, IDENTIFIER]);
    (chaining_key, noise::hash(&[&hash, responder]))
}

/// The key chain of the second message: the chaining key, the key of its tag, and the hash that the tag covers.
pub(crate) fn mix_response(
    mut chaining_key: Bytes32,
    mut hash: Bytes32,
    ephemeral: &Bytes32,
    secrets: &[Bytes32; 2],
    preshared_key: &Bytes32,
) -> (Bytes32, Bytes32, Bytes32) {
    [chaining_key] = noise::kdf(&chaining_key, ephemeral);
    hash = noise::hash(&[&hash, ephemeral]);
    for secret in secrets {
        [chaining_key] = noise::kdf(&chaining_key, secret);
    }
    let [chaining_key, mixed, key] = noise::kdf(&chaining_key, preshared_key);
    (chaining_key, key, noise::hash(&[&hash, &mixed]))
}

fn mac1_of(message: &[u8]) -> &[u8] {
    &message[message.len() - 2 * MAC_LEN..message.len() - MAC_LEN]
}

pub(crate) fn word(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}

pub(crate) fn bytes32(message: &[u8], at: usize) -> Bytes32 {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&message[at..at + 32]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two ends that know each other's key.
    fn pair() -> (Initiator, Initiator) {
        let (one, two) = ([1; 32], [2; 32]);
        let alice = Initiator::new(one, noise::public_key(&two), 1);
        (alice, Initiator::new(two, noise::public_key(&one), 2))
    }

    /// Every WireGuard implementation contains these two constants.
    #[test]
    fn the_handshake_starts_from_the_published_constants() {
        let chaining_key = noise::hash(&[CONSTRUCTION]);
        assert_eq!(chaining_key[..8], [0x60, 0xe2, 0x6d, 0xae, 0xf3, 0x27, 0xef, 0xc0]);
        let hash = noise::hash(&[&chaining_key, IDENTIFIER]);
        assert_eq!(hash[..8], [0x22, 0x11, 0xb3, 0x61, 0x08, 0x1a, 0xc5, 0x66]);
    }

    #[test]
    fn two_ends_agree_on_a_session_and_carry_data_both_ways() {
        let (mut alice, mut bob) = pair();
        let pending = alice.initiate(Timestamp::from_unix(5, 6), 10);
        let (response, mut bobs, timestamp) = bob.answer(&pending.message, 20).expect("an initiation for bob");
        let mut alices = alice.complete(&pending, &response).expect("a response for alice");
        assert_eq!(timestamp, Timestamp::from_unix(5, 6));
        assert_eq!((alices.local_index, alices.peer_index), (10, 20));
        let there = bobs.open(&alices.seal(&[7; 20])).expect("data for bob");
        assert_eq!((there.counter, there.plaintext.len()), (0, 32));
        let back = alices.open(&bobs.seal(&[])).expect("data for alice");
        assert_eq!(back.plaintext, []);
    }

    #[test]
    fn another_preshared_key_is_noticed_in_the_response() {
        let (mut alice, bob) = pair();
        let mut bob = bob.with_preshared_key([9; 32]);
        let pending = alice.initiate(Timestamp::ZERO, 1);
        let (response, ..) = bob.answer(&pending.message, 2).expect("the initiation does not depend on it");
        assert_eq!(alice.complete(&pending, &response).err(), Some(Refused::Tag));
    }

    #[test]
    fn a_cookie_is_handed_over_and_proves_the_next_message() {
        let (mut alice, mut bob) = pair();
        let pending = alice.initiate(Timestamp::ZERO, 1);
        let reply = bob.cookie_reply(&pending.message, [3; 16]);
        let cookie = alice.cookie(&pending.message, &reply).expect("a cookie for alice");
        let mut message = alice.initiate(Timestamp::ZERO, 2).message;
        assert!(!bob.proves(&message, &cookie));
        alice.sign(&mut message, Some(&cookie));
        assert!(bob.proves(&message, &cookie));
    }
}
