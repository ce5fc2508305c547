//! The kinds of NAT that the simulator and the namespace lab both have, by name.

use super::behaviour::{Behaviour, Dependence, Lifetime, Ports, Translation};

/// A kind of NAT. The lab's routers of the same names pass the same table ([`super::TABLE`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A router without NAT or filter.
    None,
    /// Endpoint-independent mapping and filtering.
    Open,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address-and-port-dependent filtering.
    Moderate,
    /// Plain `masquerade` with an open INPUT chain: as moderate, until a stranger's datagram arrives first.
    Linux,
    /// Address-and-port-dependent mapping and filtering, random ports.
    Strict,
    /// A moderate NAT behind a second one.
    CarrierGrade,
    /// A fixed outside address for each host, and no filter.
    OneToOne,
    /// IPv6 without translation, and address-and-port-dependent filtering.
    Ipv6Firewall,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::None,
        Self::Open,
        Self::AddressRestricted,
        Self::Moderate,
        Self::Linux,
        Self::Strict,
        Self::CarrierGrade,
        Self::OneToOne,
        Self::Ipv6Firewall,
    ];

    /// Its name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Open => "open",
            Self::AddressRestricted => "address-restricted",
            Self::Moderate => "moderate",
            Self::Linux => "linux",
            Self::Strict => "strict",
            Self::CarrierGrade => "carrier-grade",
            Self::OneToOne => "one-to-one",
            Self::Ipv6Firewall => "IPv6 firewall",
        }
    }

    /// Whether it is about IPv6. All other kinds are about IPv4.
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::Ipv6Firewall)
    }

    /// The routers that a datagram from inside meets, in that order.
    pub fn routers(self) -> Vec<Behaviour> {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let moderate = Behaviour::new(EndpointIndependent, AddressAndPortDependent);
        let strict = Behaviour::new(AddressAndPortDependent, AddressAndPortDependent);
        match self {
            Self::None => vec![Behaviour::untranslated(None)],
            Self::Open => vec![Behaviour {
                lifetime: Lifetime::RECOMMENDED,
                ..Behaviour::new(EndpointIndependent, EndpointIndependent)
            }],
            Self::AddressRestricted => vec![Behaviour {
                lifetime: Lifetime::RECOMMENDED,
                ..Behaviour::new(EndpointIndependent, AddressDependent)
            }],
            Self::Moderate => vec![moderate],
            Self::Linux => vec![Behaviour { takes_strangers: true, ..strict }],
            Self::Strict => vec![Behaviour { ports: Ports::Random, ..strict }],
            Self::CarrierGrade => vec![moderate, moderate],
            Self::OneToOne => {
                vec![Behaviour { translation: Translation::Address, filtering: None, ..moderate }]
            }
            Self::Ipv6Firewall => vec![Behaviour::untranslated(Some(AddressAndPortDependent))],
        }
    }
}
