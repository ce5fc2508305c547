//! Which of two paths is better.
//!
//! Loss comes first, in classes; then the round trip; then IPv6; then the smaller overhead. A direct path that loses less than
//! 5 % comes before every relayed one, unless it is slower by 100 ms.

use std::cmp::Ordering;
use std::time::Duration;

use crate::path::endpoint::Endpoint;

/// The upper ends of the first classes of loss, in thousandths.
const LOSS_CLASSES: [u32; 3] = [10, 50, 200];
/// How much slower a direct path may be than a relayed one.
const DIRECT_MAY_COST: Duration = Duration::from_millis(100);
/// A path is faster if its round trip is shorter by this and by a fifth.
const FASTER_BY: Duration = Duration::from_millis(10);

/// What one path is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) endpoint: Endpoint,
    /// In thousandths, towards the peer.
    pub(crate) loss: u32,
    pub(crate) round_trip: Duration,
}

/// Why a path is better, or that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// It is of a better class.
    Class,
    /// It is of the same class and clearly faster.
    Faster,
    No,
}

impl Quality {
    fn loss_class(self) -> usize {
        LOSS_CLASSES.iter().filter(|end| self.loss >= **end).count()
    }

    /// Whether the loss is a reason to leave a direct path.
    pub(crate) fn is_lossy(self) -> bool {
        self.loss >= LOSS_CLASSES[1]
    }

    fn is_relayed(self) -> bool {
        self.endpoint.via.channel.is_some()
    }

    /// Whether it pays to leave `present` for this path.
    pub(crate) fn better_than(self, present: Self) -> Better {
        match self.class_before(present) {
            Ordering::Less => Better::Class,
            Ordering::Greater => Better::No,
            // The channels of one relay are one path: their round trips differ by chance.
            Ordering::Equal if self.is_relayed() && self.endpoint.address == present.endpoint.address => Better::No,
            Ordering::Equal => {
                let margin = FASTER_BY.max(present.round_trip / 5);
                if self.round_trip + margin <= present.round_trip { Better::Faster } else { Better::No }
            }
        }
    }

    /// The order of all paths, the best one first.
    pub(crate) fn order(self, other: Self) -> Ordering {
        let family = |quality: Self| u8::from(quality.endpoint.address.is_ipv4());
        let overhead = |quality: Self| quality.endpoint.via.lead();
        self.class_before(other)
            .then(self.round_trip.cmp(&other.round_trip))
            .then(family(self).cmp(&family(other)))
            .then(overhead(self).cmp(&overhead(other)))
    }

    fn class_before(self, other: Self) -> Ordering {
        let classes = self.loss_class().cmp(&other.loss_class());
        match (self.is_relayed(), other.is_relayed()) {
            (false, true) => self.class_as_direct(other, classes),
            (true, false) => other.class_as_direct(self, classes.reverse()).reverse(),
            _ => classes,
        }
    }

    /// The class of this direct path next to that of a relayed one.
    fn class_as_direct(self, relayed: Self, classes: Ordering) -> Ordering {
        let is_slow = self.round_trip > relayed.round_trip + DIRECT_MAY_COST;
        match (!self.is_lossy(), is_slow) {
            (true, false) => Ordering::Less,
            (false, false) => classes.then(Ordering::Less),
            (_, true) => classes.then(Ordering::Greater),
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay_wire::relay::Channel;

    use super::*;
    use crate::Via;

    fn path(channel: Option<u32>, loss: u32, millis: u64) -> Quality {
        let via = Via { channel: channel.and_then(Channel::new), ..Via::ANY };
        let endpoint = Endpoint { address: "192.0.2.1:1".parse().unwrap(), via };
        Quality { endpoint, loss, round_trip: Duration::from_millis(millis) }
    }

    #[test]
    fn a_channel_is_no_faster_than_a_different_one_of_the_same_relay() {
        assert_eq!(path(Some(2), 0, 20).better_than(path(Some(1), 0, 200)), Better::No);
        assert_eq!(path(Some(2), 0, 20).better_than(path(Some(1), 15, 20)), Better::Class);
        let elsewhere = Endpoint { address: "192.0.2.2:1".parse().unwrap(), ..path(Some(2), 0, 20).endpoint };
        let faster = Quality { endpoint: elsewhere, ..path(Some(2), 0, 20) };
        assert_eq!(faster.better_than(path(Some(1), 0, 200)), Better::Faster);
    }

    #[test]
    fn loss_comes_first_then_direct_then_the_round_trip() {
        let (direct, relayed) = (|loss, millis| path(None, loss, millis), |loss, millis| path(Some(1), loss, millis));
        for (one, other, expected) in [
            (direct(0, 100), relayed(0, 20), Better::Class),
            (relayed(0, 20), direct(0, 100), Better::No),
            (direct(0, 121), relayed(0, 20), Better::No),
            (relayed(0, 20), direct(0, 121), Better::Class),
            (relayed(0, 200), direct(300, 20), Better::Class),
            (direct(20, 20), relayed(30, 20), Better::Class),
            (direct(49, 20), relayed(0, 20), Better::Class),
            (direct(50, 20), relayed(50, 20), Better::Class),
            (relayed(0, 20), direct(50, 20), Better::Class),
            (direct(0, 50), direct(0, 61), Better::No),
            (direct(0, 50), direct(0, 63), Better::Faster),
            (direct(0, 5), direct(0, 15), Better::Faster),
            (direct(0, 5), direct(0, 14), Better::No),
            (direct(9, 50), direct(11, 50), Better::Class),
        ] {
            assert_eq!(one.better_than(other), expected, "{one:?} next to {other:?}");
        }
    }

    #[test]
    fn nothing_is_better_than_something_that_is_better_than_it() {
        let all: Vec<_> = [None, Some(1)]
            .into_iter()
            .flat_map(|channel| [0, 20, 60, 300].map(|loss| (channel, loss)))
            .flat_map(|(channel, loss)| [5, 30, 110, 250].map(|millis| path(channel, loss, millis)))
            .collect();
        for one in &all {
            for other in &all {
                let both = (one.better_than(*other), other.better_than(*one));
                assert!(both.0 == Better::No || both.1 == Better::No, "{one:?} {other:?}");
                assert_eq!(one.order(*other), other.order(*one).reverse());
            }
        }
    }
}
