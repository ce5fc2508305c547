//! What the answers mean: tables of RFC 5780 sections 4.3 and 4.4.

use std::net::SocketAddr;

use super::{Filtering, Mapping, Outcome};

/// Concludes from where we sent to, and from where we were seen there.
pub(super) fn mapping(seen: &[(SocketAddr, SocketAddr)]) -> Mapping {
    // How pairs of destinations compare: whether their IP addresses are equal, and whether we were seen from one address.
    let pairs = seen.iter().enumerate().flat_map(|(at, one)| seen[at + 1..].iter().map(move |two| (one, two)));
    let pairs: Vec<_> = pairs
        .filter(|(one, two)| one.0 != two.0)
        .map(|(one, two)| (one.0.ip() == two.0.ip(), one.1 == two.1))
        .collect();
    let has = |is_one_ip, is_equal| pairs.contains(&(is_one_ip, is_equal));
    match () {
        () if has(true, false) => Mapping::AddressAndPortDependent,
        () if has(false, false) && has(true, true) => Mapping::AddressDependent,
        () if has(false, false) => Mapping::AddressAndPortDependent,
        () if has(false, true) => Mapping::EndpointIndependent,
        () => Mapping::Unknown,
    }
}

/// What became of the questions that filtering is concluded from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filtered {
    /// The guide was asked for an answer from where it was asked.
    pub(super) control: Outcome,
    /// The guide was asked for an answer from its other IP address and its other port.
    pub(super) both: Outcome,
    /// The guide was asked for an answer from its other port.
    pub(super) port: Outcome,
    /// Whether the first of these two places answers when it is asked itself, from a different socket.
    pub(super) both_is_alive: bool,
    /// Whether the second does.
    pub(super) port_is_alive: bool,
}

impl Filtered {
    pub(super) fn conclude(&self) -> Filtering {
        let is_answered = |outcome| matches!(outcome, Outcome::Answered { .. });
        let both_is_filtered = self.both == Outcome::Silent && self.both_is_alive;
        let port_is_filtered = self.port == Outcome::Silent && self.port_is_alive;
        match () {
            () if is_answered(self.both) => Filtering::EndpointIndependent,
            // Our socket may be what does not work.
            () if !is_answered(self.control) || !both_is_filtered => Filtering::Unknown,
            () if is_answered(self.port) => Filtering::AddressDependent,
            () if port_is_filtered => Filtering::AddressAndPortDependent,
            () => Filtering::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_mapping_is_concluded_from_where_it_changes() {
        let (a, a2, b, b2) = ("192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.2:3479");
        for (seen, expected) in [
            (&[][..], Mapping::Unknown),
            (&[(a, 1)], Mapping::Unknown),
            (&[(a, 1), (a, 1)], Mapping::Unknown),
            (&[(a, 1), (a2, 1)], Mapping::Unknown),
            (&[(a, 1), (a2, 2)], Mapping::AddressAndPortDependent),
            (&[(a, 1), (b, 1)], Mapping::EndpointIndependent),
            (&[(a, 1), (b2, 1)], Mapping::EndpointIndependent),
            // Nothing shows two ports of one address.
            (&[(a, 1), (b, 2)], Mapping::AddressAndPortDependent),
            (&[(a, 1), (b2, 2)], Mapping::AddressAndPortDependent),
            (&[(a, 1), (b, 2), (b2, 2)], Mapping::AddressDependent),
            (&[(a, 1), (a2, 1), (b, 2)], Mapping::AddressDependent),
            (&[(a, 1), (b, 2), (b2, 3)], Mapping::AddressAndPortDependent),
            (&[(a, 1), (a2, 1), (b, 1), (b2, 1)], Mapping::EndpointIndependent),
            (&[(a, 1), (a2, 1), (b, 2), (b2, 2)], Mapping::AddressDependent),
            (&[(a, 1), (a2, 2), (b, 3), (b2, 4)], Mapping::AddressAndPortDependent),
            // A NAT that now and then changes its mind is not predictable.
            (&[(a, 1), (a2, 2), (b, 1), (b2, 1)], Mapping::AddressAndPortDependent),
        ] {
            let seen: Vec<_> = seen
                .iter()
                .map(|(to, port)| (address(to), SocketAddr::new(address("203.0.113.7:0").ip(), *port)))
                .collect();
            assert_eq!(mapping(&seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn silence_counts_only_where_the_same_place_answers_otherwise() {
        use Outcome::{Asking, NotChanged, Silent, Unreachable};
        let heard =
            Outcome::Answered { mapped: address("203.0.113.7:1"), round_trip: std::time::Duration::from_millis(1) };
        let refused = Outcome::Refused { code: 420 };
        for (control, both, port, both_is_alive, port_is_alive, expected) in [
            (heard, heard, heard, true, true, Filtering::EndpointIndependent),
            (heard, heard, Silent, true, true, Filtering::EndpointIndependent),
            (heard, Silent, heard, true, true, Filtering::AddressDependent),
            (heard, Silent, heard, true, false, Filtering::AddressDependent),
            (heard, Silent, Silent, true, true, Filtering::AddressAndPortDependent),
            // The second address, or the second port, does not work.
            (heard, Silent, Silent, false, true, Filtering::Unknown),
            (heard, Silent, Silent, true, false, Filtering::Unknown),
            (heard, Silent, heard, false, true, Filtering::Unknown),
            // The socket does not work.
            (Silent, Silent, Silent, true, true, Filtering::Unknown),
            (Unreachable, Silent, Silent, true, true, Filtering::Unknown),
            // The server does not do it.
            (heard, NotChanged, NotChanged, true, true, Filtering::Unknown),
            (heard, refused, refused, true, true, Filtering::Unknown),
            (heard, Silent, NotChanged, true, true, Filtering::Unknown),
            // It is not over.
            (heard, Asking, heard, true, true, Filtering::Unknown),
            (heard, Silent, Asking, true, true, Filtering::Unknown),
        ] {
            let filtered = Filtered { control, both, port, both_is_alive, port_is_alive };
            assert_eq!(filtered.conclude(), expected, "{filtered:?}");
        }
    }
}
