//! Turns, rates, marks, and what gives way.

use std::net::SocketAddr;

use super::*;

fn leg(n: usize) -> Leg {
    SocketAddr::from(([192, 0, 2, n as u8], 7)).into()
}

fn ms(ms: u64) -> Duration {
    Duration::from_secs(1) + Duration::from_millis(ms)
}

/// A train that joins no other: each has a stride of its own.
fn push(fair: &mut Fair, agent: usize, len: usize, now: Duration, stats: &mut Stats) {
    fair.push(agent, leg(agent), (&vec![0; len], len, 0b01), now, stats);
    fair.queues.get_mut(&agent).and_then(|queue| queue.trains.back_mut()).expect("it").transmit.stride = usize::MAX / 2;
}

/// The senders and lengths of all trains, in order, until nothing may be sent.
fn drain(fair: &mut Fair, now: Duration, stats: &mut Stats) -> Vec<(usize, usize)> {
    std::iter::from_fn(|| drain_one(fair, now, stats)).collect()
}

fn drain_one(fair: &mut Fair, now: Duration, stats: &mut Stats) -> Option<(usize, usize)> {
    let transmit = fair.pop(now, stats)?;
    let SocketAddr::V4(to) = transmit.leg.remote else { unreachable!("all legs are IPv4") };
    Some((to.ip().octets()[3].into(), transmit.contents.len()))
}

#[test]
fn agents_send_alike_in_bytes_not_in_trains() {
    let (mut fair, mut stats) = (Fair::new(None), Stats::default());
    for _ in 0..8 {
        push(&mut fair, 1, 60_000, ms(0), &mut stats);
    }
    for _ in 0..32 {
        push(&mut fair, 2, 15_000, ms(0), &mut stats);
    }
    push(&mut fair, 3, 100, ms(0), &mut stats);
    let sent = drain(&mut fair, ms(0), &mut stats);
    assert_eq!(sent.len(), 41);
    // While both have something, neither is ahead by more than two trains.
    let (mut one, mut two) = (0i64, 0i64);
    for (agent, len) in &sent[..sent.len() / 2] {
        *(if *agent == 1 { &mut one } else { &mut two }) += *len as i64;
        assert!((one - two).abs() <= 2 * MAX_TRAIN_LEN as i64, "{one} and {two}");
    }
    let third = sent.iter().position(|(agent, _)| *agent == 3).expect("it is sent");
    assert!(third < 8, "who sends little does not wait for who sends much: {third}");
    assert_eq!((fair.bytes(), fair.turns.len()), (0, 0));
}

/// Nobody has as much as a train queued in the 20 ms for which it may wait.
#[test]
fn an_agent_that_sends_tenfold_takes_nothing_from_forty_nine_others() {
    const LEN: usize = 1_440;
    const STEPS: u64 = 2_000;
    let (mut fair, mut stats) = (Fair::new(None), Stats::default());
    let mut sent = [0; 50];
    for step in 0..STEPS {
        // 3 ms, in which the link carries 50 datagrams and gets 59. It is in debt after a long train.
        let now = ms(3 * step);
        for (agent, count) in (0..50).map(|agent| (agent, if agent == 7 { 10 } else { 1 })) {
            (0..count).for_each(|_| fair.push(agent, leg(agent), (&[0; LEN], LEN, 0), now, &mut stats));
        }
        while sent.iter().sum::<usize>() < (step as usize + 1) * 50 * LEN
            && let Some((agent, len)) = drain_one(&mut fair, now, &mut stats)
        {
            sent[agent] += len;
        }
    }
    let share = STEPS as usize * LEN;
    for (agent, sent) in sent.into_iter().enumerate() {
        let at_least = if agent == 7 { share / 2 } else { share * 98 / 100 };
        assert!((at_least..=share * 2).contains(&sent), "{agent} sent {sent} of {share}");
    }
}

#[test]
fn a_queue_holds_32_trains_and_costs_nobody_else() {
    let (mut fair, mut stats) = (Fair::new(None), Stats::default());
    for _ in 0..100 {
        push_or_drop(&mut fair, 1, &mut stats);
    }
    push_or_drop(&mut fair, 2, &mut stats);
    assert_eq!(stats.dropped_queue_full, 68);
    let sent = drain(&mut fair, ms(0), &mut stats);
    assert_eq!([1, 2].map(|n| sent.iter().filter(|(agent, _)| *agent == n).count()), [32, 1]);

    /// Trains that differ in their ECN bits do not join.
    fn push_or_drop(fair: &mut Fair, agent: usize, stats: &mut Stats) {
        let ecn = fair.queues.get(&agent).map_or(0, |queue| queue.trains.len() as u8 % 2);
        fair.push(agent, leg(agent), (&[0; 500], 500, ecn), ms(0), stats);
    }
}

#[test]
fn what_waits_is_marked_and_then_dropped() {
    for (wait, ecn, marked, dropped) in [
        (4, 0b01, 0b01, 0),
        (5, 0b01, 0b11, 0),
        (5, 0b10, 0b11, 0),
        (5, 0b00, 0b00, 0),
        (20, 0b01, 0b11, 0),
        (21, 0b01, 0, 3),
    ] {
        let (mut fair, mut stats) = (Fair::new(None), Stats::default());
        fair.push(1, leg(1), (&[0; 300], 100, ecn), ms(0), &mut stats);
        let sent = fair.pop(ms(wait), &mut stats);
        assert_eq!(sent.map_or(0, |it| it.ecn), marked, "{wait} ms, {ecn:#b}");
        assert_eq!((stats.dropped_too_late, fair.bytes()), (dropped, 0));
        assert_eq!(stats.ecn_marked, if marked == 0b11 { 3 } else { 0 });
    }
}

#[test]
fn an_agent_over_its_rate_waits_and_holds_up_nobody() {
    // 10 MB/s: a turn of 64 KiB, or 20 ms, is 200 KB at once.
    let (mut fair, mut stats) = (Fair::new(NonZeroU64::new(10_000_000)), Stats::default());
    for _ in 0..10 {
        push(&mut fair, 1, 50_000, ms(0), &mut stats);
    }
    assert_eq!(drain(&mut fair, ms(0), &mut stats).len(), 5, "200 KB, and what makes it more");
    push(&mut fair, 2, 50_000, ms(0), &mut stats);
    assert_eq!(drain(&mut fair, ms(0), &mut stats), [(2, 50_000)]);
    // 50 KB are 5 ms.
    assert_eq!(fair.ready_at(), Some(ms(5)));
    let late: Vec<_> = (1..=30).flat_map(|now| drain(&mut fair, ms(now), &mut stats)).collect();
    assert_eq!(late.len(), 4, "at 5, 10, 15 and 20 ms");
    assert_eq!((stats.dropped_too_late, fair.bytes()), (1, 0));
}

#[test]
fn a_slow_rate_still_lets_one_train_through() {
    let (mut fair, mut stats) = (Fair::new(NonZeroU64::new(1_000)), Stats::default());
    push(&mut fair, 1, 60_000, ms(0), &mut stats);
    assert_eq!(drain(&mut fair, ms(0), &mut stats).len(), 1);
    push(&mut fair, 1, 6_000, ms(1), &mut stats);
    assert_eq!(drain(&mut fair, ms(1), &mut stats).len(), 1, "a turn at once");
    push(&mut fair, 1, 100, ms(2), &mut stats);
    assert!(drain(&mut fair, ms(2), &mut stats).is_empty());
}

#[test]
fn all_queues_together_are_bounded_and_the_largest_gives_way() {
    let (mut fair, mut stats) = (Fair::new(None), Stats::default());
    let large = MAX_QUEUED_BYTES / (MAX_QUEUED_TRAINS * 60_000) + 1;
    for agent in 2..2 + large {
        for _ in 0..MAX_QUEUED_TRAINS {
            push(&mut fair, agent, 60_000, ms(0), &mut stats);
        }
    }
    push(&mut fair, 1, 1_000, ms(0), &mut stats);
    assert!(fair.bytes() <= MAX_QUEUED_BYTES && fair.bytes() > MAX_QUEUED_BYTES - 60_000);
    assert!(stats.dropped_gave_way > 0);
    assert_eq!(fair.queues[&1].bytes, 1_000, "who holds little loses nothing");
    let least = (2..2 + large).map(|agent| fair.queues[&agent].trains.len()).min();
    assert!(least >= Some(MAX_QUEUED_TRAINS - 2 * 32 / large - 2), "all alike: {least:?}");
}

#[test]
fn an_agent_that_goes_takes_its_queue_along() {
    let (mut fair, mut stats) = (Fair::new(NonZeroU64::new(1)), Stats::default());
    for agent in [1, 2] {
        push(&mut fair, agent, 1_000, ms(0), &mut stats);
    }
    fair.remove(1);
    fair.remove(9);
    assert_eq!(drain(&mut fair, ms(0), &mut stats), [(2, 1_000)]);
    fair.remove(2);
    assert_eq!((fair.bytes(), fair.queues.len(), fair.ready_at()), (0, 0, None));
}

#[test]
fn buffers_are_used_again() {
    let (mut fair, mut stats) = (Fair::new(None), Stats::default());
    push(&mut fair, 1, 9_000, ms(0), &mut stats);
    let sent = fair.pop(ms(0), &mut stats).expect("it");
    let place = sent.contents.as_ptr();
    fair.recycle(sent.contents);
    push(&mut fair, 1, 8_000, ms(0), &mut stats);
    let sent = fair.pop(ms(0), &mut stats).expect("it");
    assert_eq!((sent.contents.as_ptr(), sent.contents.len()), (place, 8_000));
    for _ in 0..100 {
        fair.recycle(Vec::new());
    }
    assert_eq!(fair.spare.len(), MAX_SPARE);
}
