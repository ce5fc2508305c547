//! The code by which two people check that each has the other's key: one of them reads it out.
//!
//! ```text
//! code = first 40 digits of SHA-256( "overlay verify v1\n" || network || "\n" || first || "\n" || second || "\n" ), in hex
//! ```
//!
//! The three keys are texts. `first` is the identity that comes first in ASCII order, so both sides see the same code. A
//! rendezvous that shows each side a key of its own in place of the other's would have to find keys with equal codes. With
//! 160 bits that takes 2^80 attempts.

use sha2::{Digest as _, Sha256};

use super::key::PublicKey;

/// How many hex digits the code has, and how many of them are written together.
const DIGITS: usize = 40;
const GROUP: usize = 5;

/// The code of two agents of a network, in groups of five hex digits. The order of the agents does not matter.
pub fn verification_code(network: &PublicKey, one: &PublicKey, other: &PublicKey) -> String {
    let mut identities = [one.to_string(), other.to_string()];
    identities.sort_unstable();
    let [first, second] = identities;
    let hash = Sha256::digest(format!("overlay verify v1\n{network}\n{first}\n{second}\n"));
    let digits: String = hash.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    let groups = (0..DIGITS).step_by(GROUP).map(|at| &digits[at..at + GROUP]);
    groups.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_sha256sum_says_and_the_same_for_both() {
        let [network, one, other] = [1, 2, 255].map(|byte| PublicKey([byte; 32]));
        // The texts sort differently from the bytes: the digits come first.
        let code = "5a1c1 4da48 c9b16 69be0 4414b 9ab02 8f683 60ca7";
        assert_eq!(verification_code(&network, &one, &other), code);
        assert_eq!(verification_code(&network, &other, &one), code);
        assert_ne!(verification_code(&other, &one, &network), code);
    }
}
