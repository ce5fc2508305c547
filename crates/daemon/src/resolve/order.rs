//! Which addresses of a name are called, and in which order (RFC 8305 section 4).
//!
//! getaddrinfo sorts by RFC 6724, which puts all addresses of the preferred family first. Here the families alternate,
//! starting with the preferred one, so that an unreachable family costs one attempt and not all of them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use overlay_core::Node;

use super::Families;

/// Returns the addresses for which this host has a socket: no duplicates, families alternating, at most
/// [`Node::MAX_CANDIDATES`].
pub(super) fn usable(answer: &[SocketAddr], families: Families) -> Vec<SocketAddr> {
    let mut distinct: Vec<SocketAddr> = Vec::new();
    for address in answer {
        if families.contains(address) && !distinct.contains(address) {
            distinct.push(*address);
        }
    }
    let is_v4_first = distinct.first().is_some_and(SocketAddr::is_ipv4);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        distinct.into_iter().partition(|address| address.is_ipv4() == is_v4_first);
    let mut order = Vec::new();
    while order.len() < Node::MAX_CANDIDATES && !(first.is_empty() && second.is_empty()) {
        order.extend(first.pop_front());
        order.extend(second.pop_front());
    }
    order.truncate(Node::MAX_CANDIDATES);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };

    fn order(answer: &str, families: Families) -> String {
        let answer: Vec<_> =
            answer.split(' ').map(|ip| SocketAddr::new(ip.parse().expect("an address"), 51820)).collect();
        let order: Vec<_> = usable(&answer, families).iter().map(|address| address.ip().to_string()).collect();
        order.join(" ")
    }

    #[test]
    fn families_take_turns_beginning_with_the_preferred_one() {
        assert_eq!(order("::1 ::2 ::3 10.0.0.1 10.0.0.2", BOTH), "::1 10.0.0.1 ::2 10.0.0.2 ::3");
        assert_eq!(order("10.0.0.1 ::1", BOTH), "10.0.0.1 ::1");
        assert_eq!(order("10.0.0.1 10.0.0.2", BOTH), "10.0.0.1 10.0.0.2");
    }

    #[test]
    fn an_address_counts_once_and_only_with_a_socket_of_its_family() {
        assert_eq!(order("::1 10.0.0.1 ::1 10.0.0.1", BOTH), "::1 10.0.0.1");
        assert_eq!(order("::1 10.0.0.1 ::2", Families { v4: true, v6: false }), "10.0.0.1");
        assert_eq!(order("::1", Families { v4: true, v6: false }), "");
    }

    #[test]
    fn a_name_with_very_many_addresses_keeps_both_families_within_the_limit() {
        let many: Vec<_> = (1..=30).map(|n| format!("::{n}")).chain((1..=30).map(|n| format!("10.0.0.{n}"))).collect();
        let order = order(&many.join(" "), BOTH);
        assert_eq!(order, "::1 10.0.0.1 ::2 10.0.0.2 ::3 10.0.0.3 ::4 10.0.0.4");
    }
}
