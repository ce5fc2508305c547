//! The IPv4 addresses of a new network: a random /16 of 10.64.0.0/10 that nothing else is known to use.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use overlay_os::netlink::Netlink;
use overlay_wire::signed::Pool;

use crate::failure::{Kind, ServeError};

/// The second byte of the first and the last /16 of 10.64.0.0/10.
const SECOND_BYTES: std::ops::RangeInclusive<u8> = 64..=127;
/// What programs that run beside agents use by default, as far as it lies in 10.64.0.0/10. Docker (172.17.0.0/12), k3s
/// (10.42.0.0/15), flannel (10.244.0.0/16) and GKE (10.0.0.0/14, 10.128.0.0/9) do not.
const TAKEN: [Ipv4Net; 4] = [
    // The examples of static mode.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16),
    // podman's default network, and the first ones that it adds.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 90, 0, 0), 16),
    // Services of kubeadm and kind.
    Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
];

/// Draws a pool. What the routes of this host lead to is avoided, too.
pub(crate) async fn random_pool() -> Result<Pool, ServeError> {
    let routes = match Netlink::connect().await {
        Ok(netlink) => netlink.routes().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    // A default route leads everywhere, and collides with nothing.
    let routed = routes.iter().map(|route| route.destination).filter(|prefix| prefix.prefix_len() > 0);
    let free = free(routed);
    let mut byte = [0; 8];
    overlay_os::random::fill(&mut byte)
        .map_err(|error| ServeError::new(Kind::Other, "the kernel gives no randomness").with_cause(error))?;
    let number = u64::from_ne_bytes(byte) % free.len().max(1) as u64;
    free.get(number as usize).copied().ok_or_else(|| {
        ServeError::new(Kind::Conflict, "no /16 of 10.64.0.0/10 is free for the network")
            .with_cause("the routes of this host cover all of them")
            .with_hint("choose one with `--pool CIDR`")
    })
}

/// The pools that touch neither `routed` nor what other programs use.
fn free(routed: impl Iterator<Item = IpNet>) -> Vec<Pool> {
    let routed = routed.filter_map(|prefix| match prefix {
        IpNet::V4(prefix) => Some(prefix),
        IpNet::V6(_) => None,
    });
    let taken: Vec<Ipv4Net> = TAKEN.into_iter().chain(routed).collect();
    let prefixes = SECOND_BYTES.map(|byte| Ipv4Net::new_assert(Ipv4Addr::new(10, byte, 0, 0), 16));
    prefixes
        .filter(|prefix| !taken.iter().any(|taken| taken.contains(prefix) || prefix.contains(taken)))
        .filter_map(|prefix| Pool::new(prefix.network(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_touches_nothing_that_is_known_to_be_in_use() {
        let all = free(std::iter::empty());
        assert_eq!(all.len(), 64 - 1 - 2 - 1 - 16);
        let routes = ["10.64.3.0/24", "10.70.0.0/15", "192.168.0.0/16", "fd00::/8"];
        let left = free(routes.iter().map(|prefix| prefix.parse().expect("a prefix")));
        assert_eq!(left.len(), all.len() - 3);
        assert!(!left.iter().any(|pool| [64, 70, 71, 77, 88, 96, 111].contains(&pool.address().octets()[1])));
        assert!(free(["10.0.0.0/8".parse().expect("a prefix")].into_iter()).is_empty());
    }
}
