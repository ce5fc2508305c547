//! Paths that are too narrow for a train.
//!
//! The kernel cuts trains but does not fragment the datagrams. A train whose datagrams do not fit the route's MTU is
//! refused, and is then sent datagram by datagram. Such a refusal is remembered for a moment, so that a narrow path
//! does not cost a failed system call for every train. It is only for a moment because routes change and trying again
//! costs just one call.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

/// How long a path is considered narrow.
const LIFETIME: Duration = Duration::from_secs(1);

/// The most paths remembered. A new one replaces the oldest.
const WAYS_MAX: usize = 8;

/// The paths known to be narrow, oldest first. Usually empty.
#[derive(Debug, Default)]
pub(super) struct NarrowWays(RefCell<Vec<Way>>);

#[derive(Clone, Copy, Debug)]
struct Way {
    to: IpAddr,
    /// The length of the shortest datagrams that did not fit, in bytes.
    too_long: usize,
    until: Duration,
}

impl NarrowWays {
    /// Whether a train of datagrams of this length may fit, as far as is known. `now` is called only for a remembered
    /// path.
    pub(super) fn may_fit(&self, to: IpAddr, segment_size: usize, now: impl FnOnce() -> Duration) -> bool {
        let mut ways = self.0.borrow_mut();
        let Some(at) = ways.iter().position(|way| way.to == to) else { return true };
        if now() >= ways[at].until {
            ways.remove(at);
            return true;
        }
        segment_size < ways[at].too_long
    }

    /// Records that datagrams of this length did not fit.
    pub(super) fn on_too_long(&self, to: IpAddr, segment_size: usize, now: Duration) {
        let mut ways = self.0.borrow_mut();
        let known = ways.iter().position(|way| way.to == to).map(|at| ways.remove(at));
        let too_long = known.filter(|way| now < way.until).map_or(segment_size, |way| way.too_long.min(segment_size));
        if ways.len() == WAYS_MAX {
            ways.remove(0);
        }
        ways.push(Way { to, too_long, until: now + LIFETIME });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn host(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn a_way_is_narrow_for_what_did_not_fit_and_longer_for_a_second() {
        let ways = NarrowWays::default();
        assert!(ways.may_fit(host(1), 1452, || unreachable!("nothing is known, nobody asks the time")));
        ways.on_too_long(host(1), 1452, at(5_000));
        for (to, segment_size, milliseconds, may_fit) in [
            (host(1), 1452, 5_000, false),
            (host(1), 9000, 5_999, false),
            (host(1), 1451, 5_999, true),
            (host(1), 1452, 6_000, true),
            (host(1), 1452, 5_500, true), // forgotten
        ] {
            assert_eq!(
                ways.may_fit(to, segment_size, || at(milliseconds)),
                may_fit,
                "{segment_size} at {milliseconds}"
            );
        }
    }

    #[test]
    fn other_ways_are_as_wide_as_before() {
        let ways = NarrowWays::default();
        ways.on_too_long(host(1), 1452, at(0));
        assert!(ways.may_fit(host(2), 1452, || unreachable!("nothing is known of this one")));
    }

    #[test]
    fn what_did_not_fit_last_counts_from_then_on_and_the_smaller_length_stays() {
        let ways = NarrowWays::default();
        ways.on_too_long(host(1), 1300, at(0));
        ways.on_too_long(host(1), 1452, at(900));
        assert!(!ways.may_fit(host(1), 1300, || at(1_800)));
        // When the entry expires, the length is forgotten too.
        ways.on_too_long(host(1), 1452, at(5_000));
        assert!(ways.may_fit(host(1), 1300, || at(5_000)));
    }

    #[test]
    fn the_oldest_way_makes_room() {
        let ways = NarrowWays::default();
        for number in 0..=WAYS_MAX as u8 {
            ways.on_too_long(host(number), 1452, at(number.into()));
        }
        assert!(ways.may_fit(host(0), 1452, || at(100)));
        assert!((1..=WAYS_MAX as u8).all(|number| !ways.may_fit(host(number), 1452, || at(100))));
        assert_eq!(ways.0.borrow().len(), WAYS_MAX);
    }
}
