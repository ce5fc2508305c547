//! An attacker who records a handshake, and later breaks X25519. All private keys of one side are known then. The session
//! follows from them and the preshared key.

use crate::initiator::{Session, bytes32, mix_response, start, word};
use crate::noise::{self, Bytes32};

/// The X25519 keys of an initiator, which are broken.
#[derive(Clone, Copy)]
pub struct Broken {
    /// The private half of its static key.
    pub initiator: [u8; 32],
    /// The private half of the key that it made for this handshake.
    pub ephemeral: [u8; 32],
    /// The public static key of the responder.
    pub responder: [u8; 32],
}

impl Broken {
    /// The session that the recorded messages make with this preshared key: the end of the initiator, and that of the
    /// responder. `None` if the handshake was not made with the broken keys.
    ///
    /// The tag of the response is not checked, since an attacker would try the key on the data instead.
    pub fn session(&self, initiation: &[u8], response: &[u8], preshared_key: &[u8; 32]) -> Option<[Session; 2]> {
        let (chaining_key, hash) = start(&self.responder);
        let ephemeral = bytes32(initiation, 8);
        if ephemeral != noise::public_key(&self.ephemeral) || word(response, 8) != word(initiation, 4) {
            return None;
        }
        let [chaining_key] = noise::kdf(&chaining_key, &ephemeral);
        let hash = noise::hash(&[&hash, &ephemeral]);
        // Each part opens only with the right secrets so far.
        let (chaining_key, hash) =
            opened(&chaining_key, &hash, noise::dh(&self.ephemeral, &self.responder), &initiation[40..88])?;
        let (chaining_key, hash) =
            opened(&chaining_key, &hash, noise::dh(&self.initiator, &self.responder), &initiation[88..116])?;

        let theirs = bytes32(response, 12);
        let secrets = [noise::dh(&self.ephemeral, &theirs), noise::dh(&self.initiator, &theirs)];
        let (chaining_key, ..) = mix_response(chaining_key, hash, &theirs, &secrets, preshared_key);
        let [to_responder, to_initiator] = noise::kdf(&chaining_key, &[]);
        let (initiator, responder) = (word(initiation, 4), word(response, 4));
        let end = |sending_key, receiving_key, local_index, peer_index| Session {
            sending_key,
            receiving_key,
            local_index,
            peer_index,
            next_counter: 0,
        };
        Some([
            end(to_responder, to_initiator, initiator, responder),
            end(to_initiator, to_responder, responder, initiator),
        ])
    }
}

/// The chaining key and the hash after a sealed part of the initiation.
fn opened(chaining_key: &Bytes32, hash: &Bytes32, secret: Bytes32, sealed: &[u8]) -> Option<(Bytes32, Bytes32)> {
    let [chaining_key, key] = noise::kdf(chaining_key, &secret);
    noise::open(&key, 0, sealed, hash)?;
    Some((chaining_key, noise::hash(&[hash, sealed])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initiator::{Initiator, Timestamp};

    #[test]
    fn only_all_the_keys_of_one_side_and_the_preshared_key_open_what_was_recorded() {
        let (one, other, preshared_key) = ([1; 32], [2; 32], [9; 32]);
        let mut alice = Initiator::new(one, noise::public_key(&other), 1).with_preshared_key(preshared_key);
        let mut bob = Initiator::new(other, noise::public_key(&one), 2).with_preshared_key(preshared_key);
        let pending = alice.initiate(Timestamp::from_unix_seconds(1), 10);
        let (response, mut bobs, _) = bob.answer(&pending.message, 20).expect("an initiation for bob");
        let mut alices = alice.complete(&pending, &response).expect("a response for alice");
        let (there, back) = (alices.seal(&[7; 32]), bobs.seal(&[8; 32]));

        let broken = Broken { initiator: one, ephemeral: pending.ephemeral_private(), responder: alice.peer_key() };
        let opens = |key: &[u8; 32]| {
            let [alice, bob] = broken.session(&pending.message, &response, key).expect("their keys");
            [bob.open(&there).is_ok(), alice.open(&back).is_ok()]
        };
        assert_eq!(opens(&preshared_key), [true, true]);
        assert_eq!(opens(&[0; 32]), [false, false]);
        for wrong in [
            Broken { initiator: [3; 32], ..broken },
            Broken { ephemeral: [3; 32], ..broken },
            Broken { responder: [3; 32], ..broken },
        ] {
            assert!(wrong.session(&pending.message, &response, &preshared_key).is_none());
        }
    }
}
