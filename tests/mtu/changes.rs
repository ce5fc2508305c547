//! A path whose MTU changes while it is in use, in most cases silently.

use std::time::{Duration, Instant};

use super::road::{FAR, FOUND_SLOWLY, LONGEST_STALL, Road, Router, around};
use super::streams::{Stream, fetch};
use crate::lab::services::{self, random_file};
use crate::lab::{A, Outside, Overlay};

/// A fall is known to both by then, a rise after a path change too.
const A_MINUTE: Duration = Duration::from_secs(60);

const A_FEW: u64 = 4 << 20;

/// A road that carries 1500 and is known to, with a stream in each direction.
struct Busy {
    streams: [(&'static str, Stream); 2],
    _daemons: (Overlay, Overlay),
    outside: Outside,
    /// Dropped last.
    road: Road,
}

impl Busy {
    #[track_caller]
    fn new(router: Router, outside: Outside) -> Option<Busy> {
        let road = Road::new("changes", 1500)?;
        road.narrow(1500, router);
        // The speed of a common link. The test is about silent loss, not about the machine's speed.
        road.limit("200mbit");
        let _daemons = road.up(outside);
        let (a, b) = (&road.a, &road.b);
        let began = Instant::now();
        a.reaches(FAR.v4);
        for host in [a, b] {
            road.found_by(host, began, FOUND_SLOWLY, |mtu| mtu == 1500 - around(outside));
        }
        let streams = [("to b over IPv4", Stream::start(a, b, FAR.v4)), ("to a over IPv6", Stream::start(b, a, A.v6))];
        for (_, stream) in &streams {
            stream.progresses_by(A_FEW);
            stream.take_longest_pause();
        }
        Some(Busy { streams, _daemons, outside, road })
    }

    /// The hop in the middle has just changed to this MTU. Checks that both sides find it and that the streams
    /// continue.
    #[track_caller]
    fn is_found_and_felt_shortly(&self, middle: u16) {
        let Busy { outside, road, .. } = self;
        let (changed, truth) = (Instant::now(), middle - around(*outside));
        for host in [&road.a, &road.b] {
            let found = road.found_by(host, changed, A_MINUTE, |mtu| (truth - 16..=truth).contains(&mtu));
            eprintln!("{middle} over {outside:?}: {} on {} after {:.1?}", found.mtu, host.name(), found.took);
        }
        for (what, stream) in &self.streams {
            stream.progresses_by(A_FEW);
            let pause = stream.take_longest_pause();
            eprintln!("the stream {what} stood still for {pause:.2?}");
            assert!(pause <= LONGEST_STALL, "the stream {what} stood still for {pause:?} at {middle}");
        }
    }
}

#[track_caller]
fn falls_and_rises(router: Router, outside: Outside) {
    let Some(busy) = Busy::new(router, outside) else { return };
    for middle in [1400, 1280] {
        busy.road.narrow(middle, router);
        busy.is_found_and_felt_shortly(middle);
    }
    // A different path for `a`, which carries more.
    busy.road.narrow(1500, router);
    busy.road.move_a();
    busy.is_found_and_felt_shortly(1500);
}

#[test]
fn a_silent_fall_during_transfers_is_over_within_5_s_and_a_rise_is_found_with_the_next_path_over_ipv4() {
    falls_and_rises(Router::IsSilent, Outside::V4);
}

#[test]
fn a_silent_fall_during_transfers_is_over_within_5_s_and_a_rise_is_found_with_the_next_path_over_ipv6() {
    falls_and_rises(Router::IsSilent, Outside::V6);
}

#[test]
fn who_moves_to_a_narrower_path_during_transfers_is_stuck_for_5_s_at_most() {
    let Some(busy) = Busy::new(Router::IsSilent, Outside::V4) else { return };
    busy.road.narrow(1400, Router::IsSilent);
    busy.road.move_a();
    busy.is_found_and_felt_shortly(1400);
}

#[test]
fn a_fall_that_routers_tell_of_is_no_worse() {
    falls_and_rises(Router::Says, Outside::V6);
}

#[test]
fn a_silent_fall_while_nothing_was_sent_is_felt_no_longer_than_one_during_a_transfer() {
    let Some(road) = Road::new("idle", 1500) else { return };
    let (a, b) = (&road.a, &road.b);
    road.narrow(1500, Router::IsSilent);
    let _daemons = road.up(Outside::V4);
    let file = random_file(b, "served", 4 << 20);
    let _http = services::http_server(b, b.dir());
    let began = Instant::now();
    a.reaches(FAR.v4);
    for host in [a, b] {
        road.found_by(host, began, FOUND_SLOWLY, |mtu| mtu == 1440);
    }
    road.narrow(1400, Router::IsSilent);
    // The transfer hangs where it does with any VPN: the handshake gets through, the data does not. Then it continues.
    let fetched = fetch(a, FAR.v4, &file);
    eprintln!("{fetched:?}");
    assert!(fetched.longest_pause > Duration::from_millis(500), "the fall was not felt: {fetched:?}");
    assert!(fetched.longest_pause <= LONGEST_STALL, "{fetched:?}");
    road.found_by(b, began, A_MINUTE, |mtu| mtu == 1340);
}
