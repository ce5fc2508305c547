//! Cookies: the proof that an agent receives what is sent to its address, for which the relay keeps nothing.
//!
//! A cookie is a keyed BLAKE2s of address, port, identity and nonce. The key changes every [`ROTATION`], and the one before
//! it still counts. So a cookie dies within [`BOUND_FOR`](super::BOUND_FOR): when a binding is over, no cookie is left from
//! before it, and an old bind cannot be sent again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use blake2::Blake2sMac;
use blake2::digest::Mac;
use blake2::digest::consts::U16;
use overlay_wire::signed::PublicKey;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use zeroize::Zeroizing;

/// How often the key changes: half the time for which an agent is bound.
pub(super) const ROTATION: Duration = Duration::from_secs(30);

/// Makes and checks cookies.
pub(super) struct Cookies {
    rng: ChaCha8Rng,
    current: Zeroizing<[u8; 32]>,
    previous: Zeroizing<[u8; 32]>,
    changed: Option<Duration>,
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl Cookies {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let mut cookies = Self {
            rng: ChaCha8Rng::from_seed(seed),
            current: Zeroizing::default(),
            previous: Zeroizing::default(),
            changed: None,
        };
        cookies.change();
        cookies.change();
        cookies
    }

    /// The cookie of an agent at an address.
    pub(super) fn make(&mut self, at: SocketAddr, identity: &PublicKey, nonce: &[u8; 16], now: Duration) -> [u8; 16] {
        self.rotate(now);
        mac(&self.current, at, identity, nonce).finalize().into_bytes().into()
    }

    /// Whether this is a cookie of ours for that agent at that address.
    pub(super) fn check(
        &mut self,
        cookie: &[u8; 16],
        at: SocketAddr,
        (identity, nonce): (&PublicKey, &[u8; 16]),
        now: Duration,
    ) -> bool {
        self.rotate(now);
        [&self.current, &self.previous].iter().any(|key| mac(key, at, identity, nonce).verify(cookie.into()).is_ok())
    }

    fn rotate(&mut self, now: Duration) {
        let changed = *self.changed.get_or_insert(now);
        let turns = now.saturating_sub(changed).as_nanos() / ROTATION.as_nanos();
        for _ in 0..turns.min(2) {
            self.change();
        }
        // On the beat, not by `now`: nobody may have asked for a while.
        self.changed = Some(changed + ROTATION * u32::try_from(turns).unwrap_or(u32::MAX));
    }

    fn change(&mut self) {
        self.previous = self.current.clone();
        self.rng.fill_bytes(&mut *self.current);
    }
}

fn mac(key: &[u8; 32], at: SocketAddr, identity: &PublicKey, nonce: &[u8; 16]) -> Blake2sMac<U16> {
    let address = match at.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mac = <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("BLAKE2s takes a key of 32 bytes");
    mac.chain_update(address.octets())
        .chain_update(at.port().to_be_bytes())
        .chain_update(identity.0)
        .chain_update(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "192.0.2.1:7";

    #[test]
    fn a_cookie_is_for_one_agent_at_one_address() {
        let mut cookies = Cookies::new([1; 32]);
        let now = Duration::from_secs(9);
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let cookie = cookies.make(address(AT), &PublicKey([1; 32]), &[2; 16], now);
        let mut check = |at: &str, key: u8, nonce: u8, cookie: &[u8; 16]| {
            cookies.check(cookie, address(at), (&PublicKey([key; 32]), &[nonce; 16]), now)
        };
        assert!(check(AT, 1, 2, &cookie));
        assert!(check("[::ffff:192.0.2.1]:7", 1, 2, &cookie), "the same address");
        for (at, key, nonce) in [("192.0.2.2:7", 1, 2), ("192.0.2.1:8", 1, 2), (AT, 2, 2), (AT, 1, 3)] {
            assert!(!check(at, key, nonce, &cookie));
        }
        assert!(!check(AT, 1, 2, &[0; 16]));
        let mut flipped = cookie;
        flipped[15] ^= 1;
        assert!(!check(AT, 1, 2, &flipped));
        assert!(!Cookies::new([2; 32]).check(&cookie, address(AT), (&PublicKey([1; 32]), &[2; 16]), now));
    }

    #[test]
    fn a_cookie_dies_before_the_binding_that_it_made() {
        let at: SocketAddr = AT.parse().expect("an address");
        let agent = (&PublicKey([1; 32]), &[2; 16]);
        for offset in [0, 1, 15, 29] {
            let mut cookies = Cookies::new([1; 32]);
            let start = Duration::from_secs(100);
            let _ = cookies.make(at, agent.0, agent.1, start);
            let made = start + Duration::from_secs(offset);
            let cookie = cookies.make(at, agent.0, agent.1, made);
            let mut died = None;
            for age in 0..100 {
                let now = made + Duration::from_secs(age);
                if !cookies.check(&cookie, at, agent, now) {
                    died.get_or_insert(age);
                }
            }
            let died = Duration::from_secs(died.expect("it dies"));
            assert!(died > ROTATION && died <= super::super::BOUND_FOR, "{died:?}");
        }
        // Nobody asks until shortly before the second turn.
        let mut cookies = Cookies::new([1; 32]);
        let cookie = cookies.make(at, agent.0, agent.1, Duration::ZERO);
        assert!(cookies.check(&cookie, at, agent, 2 * ROTATION - Duration::from_secs(1)));
        assert!(!cookies.check(&cookie, at, agent, 2 * ROTATION));
        // Nobody asked for a long time: both keys are old.
        let mut cookies = Cookies::new([1; 32]);
        let cookie = cookies.make(at, agent.0, agent.1, Duration::ZERO);
        assert!(!cookies.check(&cookie, at, agent, 2 * ROTATION));
    }
}
