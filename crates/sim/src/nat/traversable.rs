//! Whether a direct path can exist between two sides at all: the ground truth that path tests are held to.
//!
//! Each side uses one socket and knows the other's server-reflexive address. Both send openers, then probes to that
//! address, and answer each probe to where it came from. So a path exists if the first probe of one side arrives, and the
//! answer to it arrives too.

use super::behaviour::{Behaviour, Dependence, Pooling, Ports};
use super::kind::Kind;

/// Whether two sides behind different routers of these kinds can have a direct path. Kinds of different families have
/// none, except that a host without NAT has both.
pub fn traversable(a: Kind, b: Kind) -> bool {
    let share_a_family = a.is_ipv6() == b.is_ipv6() || [a, b].contains(&Kind::None);
    share_a_family && chains_traversable(&a.routers(), &b.routers())
}

/// The same for two chains of routers, each from the inside out. It counts only on what is sure: a port that is guessed
/// by luck makes no path.
pub fn chains_traversable(a: &[Behaviour], b: &[Behaviour]) -> bool {
    let meets = |one, other| hears_probe(one, other) && hears_answer(other, one);
    meets(a, b) || meets(b, a)
}

/// Whether a probe of `other` to our reflexive address reaches us. It has to pass every router by the mapping that was
/// made for the STUN server, and a filter only lets it in if that mapping is also the one that we write to `other` by.
fn hears_probe(own: &[Behaviour], other: &[Behaviour]) -> bool {
    (0..own.len()).all(|router| match own[router].filtering {
        None | Some(Dependence::EndpointIndependent) => true,
        Some(Dependence::AddressDependent) => endpoint_is_known(&own[..=router]) && address_is_known(other),
        Some(Dependence::AddressAndPortDependent) => endpoint_is_known(&own[..=router]) && endpoint_is_known(other),
    })
}

/// Whether the answer of `other` to our probe reaches us. We wrote to the reflexive address of `other`, so that is where
/// the answer has to come from.
fn hears_answer(own: &[Behaviour], other: &[Behaviour]) -> bool {
    own.iter().all(|router| match router.filtering {
        None | Some(Dependence::EndpointIndependent) => true,
        Some(Dependence::AddressDependent) => address_is_known(other),
        Some(Dependence::AddressAndPortDependent) => endpoint_is_known(other),
    })
}

/// Whether the address and port that a STUN server sees are those that everybody sees.
fn endpoint_is_known(chain: &[Behaviour]) -> bool {
    let is_known =
        |router: &Behaviour| router.mapping == Dependence::EndpointIndependent || router.ports == Ports::Preserving;
    address_is_known(chain) && chain.iter().all(is_known)
}

/// Whether the address that a STUN server sees is the one that everybody sees.
fn address_is_known(chain: &[Behaviour]) -> bool {
    chain.iter().all(|router| {
        let is_same = router.mapping == Dependence::EndpointIndependent || router.pooling == Pooling::Paired;
        is_same || router.addresses == 1
    })
}
