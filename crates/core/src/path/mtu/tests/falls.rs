//! Paths that change, lose or die under a search that was over, or was not.

use super::*;

#[test]
fn a_silent_fall_is_noticed_within_three_and_a_half_seconds() {
    for offset in 0..40 {
        let mut world = World::found(1440);
        world.busy = 10 * MS;
        world.run(20 * SECOND + 50 * offset * MS);
        for truth in [1340, 1220] {
            world.truth = truth;
            world.falls.clear();
            let changed = world.now;
            world.run(10 * SECOND);
            assert_eq!(world.falls.len(), 1, "{:?}", world.search);
            let took = world.falls[0].since(changed);
            assert!(took < Duration::from_millis(3500), "{took:?} to {truth}");
            world.assert_true();
            assert_eq!(world.search.state().phase, Phase::Found);
        }
    }
}

#[test]
fn a_silent_fall_during_a_search_is_noticed_as_well() {
    for offset in 0..100 {
        let mut world = World::found(1440);
        world.busy = 10 * MS;
        world.run(599 * SECOND + 50 * offset * MS);
        world.truth = 1340;
        let changed = world.now;
        world.run(20 * SECOND);
        let took = world.falls.first().expect("it falls").since(changed);
        assert!(took < Duration::from_millis(3500), "{took:?} at {offset}");
        world.assert_true();
    }
}

#[test]
fn it_rises_ten_minutes_later_or_when_the_path_changes() {
    let mut world = World::found(1340);
    world.busy = 10 * MS;
    world.truth = 1440;
    world.run(590 * SECOND);
    assert_eq!(world.search.mtu(), Some(1340), "not before");
    world.run(16 * SECOND);
    world.assert_true();
    assert_eq!(world.falls, [], "and no packet was held smaller for it");

    world.truth = 8940;
    world.search.on_path_change(CEILING, world.now);
    assert_eq!(world.search.mtu(), None, "what was proven is no longer");
    assert!(world.run_until_found(SECOND) < 10 * MS);
    assert_eq!(world.search.mtu(), Some(8940));
}

#[test]
fn a_raise_that_fails_costs_nothing_and_waits_for_traffic() {
    let mut world = World::found(1440);
    world.run(2000 * SECOND);
    assert_eq!(world.sent, [], "nobody sends, nothing is probed");
    world.busy = 10 * MS;
    world.run(20 * SECOND);
    assert!(world.sent.iter().any(|(_, size)| *size > 1440), "now it is");
    assert_eq!((world.search.mtu(), world.falls.len()), (Some(1440), 0));
}

#[test]
fn ten_percent_lost_each_way_is_no_reason_to_lower_in_two_hundred_runs_of_eleven_minutes() {
    for seed in 0..200 {
        let mut world = World::new([1440, 1340, 1220, 8920][seed as usize % 4]);
        world.rng = ChaCha8Rng::seed_from_u64(seed);
        (world.loss, world.round_trip, world.busy) = (10, 20 * MS, 50 * MS);
        world.run(590 * SECOND);
        world.assert_true();
        world.run(70 * SECOND);
        world.assert_true();
        assert_eq!(world.falls, [], "seed {seed}: {:?}", world.search);
    }
}

#[test]
fn a_fall_on_a_lossy_path_is_still_noticed() {
    for seed in 0..50 {
        let mut world = World::new(1440);
        world.rng = ChaCha8Rng::seed_from_u64(seed);
        (world.loss, world.busy) = (10, 10 * MS);
        world.run(100 * SECOND);
        world.truth = 1340;
        world.run(20 * SECOND);
        assert_eq!(world.falls.len(), 1, "seed {seed}");
        world.assert_true();
    }
}

#[test]
fn a_dead_path_says_nothing_about_a_size() {
    for offset in 0..20 {
        let mut world = World::found(1440);
        world.busy = 10 * MS;
        world.run(5 * SECOND + 70 * offset * MS);
        world.is_dead = true;
        world.sent.clear();
        world.run(60 * SECOND);
        assert!(world.sent.len() < 80, "it backs off: {}", world.sent.len());
        world.is_dead = false;
        world.run(5 * SECOND);
        assert_eq!((world.search.mtu(), world.falls.len()), (Some(1440), 0));
        assert_eq!(world.search.state().phase, Phase::Found);
        // And it came back smaller: noticed as quickly as ever once it lives.
        world.is_dead = true;
        world.run(60 * SECOND);
        (world.is_dead, world.truth) = (false, 1340);
        let changed = world.now;
        world.run(20 * SECOND);
        assert!(world.falls[0].since(changed) < 5 * SECOND);
        world.assert_true();
    }
}

#[test]
fn a_path_that_dies_while_it_is_searched_is_searched_on_when_it_lives() {
    for dies_after in 0..30 {
        let mut world = World::new(1440);
        world.run(dies_after * 100 * MS);
        world.is_dead = true;
        world.run(30 * SECOND);
        world.is_dead = false;
        world.busy = 10 * MS;
        world.run(70 * SECOND);
        world.assert_true();
        assert_eq!(world.search.state().phase, Phase::Found, "{dies_after}: {:?}", world.search);
    }
}

#[test]
fn a_peer_that_answers_nothing_is_left_in_peace() {
    let mut world = World::new(0);
    world.run(3600 * SECOND);
    assert_eq!(world.sent.len(), usize::from(watch::QUIET));
    assert_eq!(world.search.mtu(), None);
    assert_eq!(world.search.deadline(), None);
    let quiet = world.sent.len();
    world.busy = 10 * MS;
    world.run(600 * SECOND);
    assert!((9..=11).contains(&(world.sent.len() - quiet)), "one a minute while there is traffic");
    world.truth = 1440;
    world.run(70 * SECOND);
    world.assert_true();
}

#[test]
fn in_the_steady_state_there_is_one_probe_a_second_at_most_and_none_when_idle() {
    let mut world = World::found(1440);
    assert_eq!(world.search.deadline(), None);
    world.busy = MS;
    world.run(100 * SECOND);
    assert!((98..=101).contains(&world.sent.len()), "{}", world.sent.len());
    assert!(world.sent.iter().all(|(_, size)| *size == 1440));
    assert!(world.sent.is_sorted_by(|(a, _), (b, _)| b.since(*a) >= SECOND));
    world.busy = Duration::ZERO;
    world.run(2 * SECOND);
    world.sent.clear();
    world.run(1000 * SECOND);
    assert_eq!(world.sent, []);
}

#[test]
fn a_forged_too_big_never_lowers_anything_nor_makes_a_flood() {
    for forged in (0..=1500).chain([1501, 8939, 8940, 8941, 65_535, usize::MAX]) {
        let mut world = World::found(1440);
        world.search.on_too_big(forged);
        world.run(5 * SECOND);
        assert_eq!((world.search.mtu(), world.falls.len()), (Some(1440), 0), "{forged}");
    }
    // All of them all the time, through a whole search and after.
    let mut world = World::new(1440);
    let mut forged = 0;
    while world.now < Instant::from_start(1060 * SECOND) {
        forged = (forged + 7919) % 10_000;
        world.search.on_too_big(forged);
        world.run(MS);
    }
    world.assert_true();
    assert_eq!((world.search.state().phase, world.falls.len()), (Phase::Found, 0));
    assert!(world.sent.len() < 60 + 100, "{}", world.sent.len());
}
