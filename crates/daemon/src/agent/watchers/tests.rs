//! What makes an event, and what a slow reader gets.

use tokio::sync::mpsc;

use super::*;
use crate::agent::request::MAX_WAITING;

fn granted(allow: &[&str]) -> Said {
    Said::Granted(ScopeList(allow.iter().map(|scope| (*scope).to_owned()).collect()), None)
}

#[test]
fn events_follow_from_what_was_seen_before() {
    let nothing = Seen::default();
    let asked = Seen { mine: granted(&[]), asked: true, sequence: 1, ..Seen::default() };
    let pending = Seen { pending: Some([1; 16]), ..Seen::default() };
    let open = Seen { is_open: true, mine: granted(&["icmp"]), theirs: granted(&[]), sequence: 2, ..Seen::default() };
    let wider = Seen { mine: granted(&["icmp", "tcp/22"]), sequence: 3, ..open.clone() };
    let allowed = Seen { theirs: granted(&["tcp/1"]), ..open.clone() };
    let ended = Seen { is_open: false, ..open.clone() };
    let taken_back = Seen { is_open: false, mine: Said::Revoked, sequence: 4, ..open.clone() };
    let lost = Seen { is_open: false, theirs: Said::Revoked, ..open.clone() };
    let refused = Seen { mine: Said::Revoked, sequence: 1, ..Seen::default() };
    let was_refused = Seen { theirs: Said::Revoked, asked: false, ..asked.clone() };
    let asked_again = Seen { pending: Some([2; 16]), ..taken_back.clone() };
    let asks_again = Seen { asked: true, ..was_refused.clone() };
    let both_took_back = Seen { theirs: Said::Revoked, ..taken_back.clone() };
    let withdrawn = Seen { mine: Said::Revoked, asked: false, sequence: 2, ..asked.clone() };
    let cases = [
        (&nothing, &pending, Some((Happened::Request, None))),
        (&pending, &pending, None),
        (&nothing, &asked, None),
        (&asked, &open, Some((Happened::Trusted, None))),
        (&pending, &open, Some((Happened::Trusted, None))),
        (&open, &Seen { sequence: 9, ..open.clone() }, None),
        (&open, &wider, Some((Happened::Changed, Some(Side::Here)))),
        (&open, &allowed, Some((Happened::Changed, Some(Side::There)))),
        (&open, &ended, Some((Happened::Expired, None))),
        (&ended, &ended, None),
        (&ended, &open, Some((Happened::Trusted, None))),
        (&open, &taken_back, Some((Happened::Untrusted, Some(Side::Here)))),
        (&open, &lost, Some((Happened::Untrusted, Some(Side::There)))),
        (&pending, &refused, Some((Happened::Rejected, Some(Side::Here)))),
        (&asked, &was_refused, Some((Happened::Rejected, Some(Side::There)))),
        (&taken_back, &asked_again, Some((Happened::Request, None))),
        (&asked_again, &taken_back, Some((Happened::Rejected, Some(Side::Here)))),
        (&asks_again, &was_refused, Some((Happened::Rejected, Some(Side::There)))),
        (&taken_back, &both_took_back, Some((Happened::Untrusted, Some(Side::There)))),
        (&asked, &withdrawn, Some((Happened::Untrusted, Some(Side::Here)))),
    ];
    for (before, after, happened) in cases {
        assert_eq!(after.since(before), happened, "{before:?} to {after:?}");
    }
}

#[test]
fn a_slow_reader_loses_its_stream_and_the_others_do_not_notice() {
    let mut watchers = Watchers::default();
    let (slow, mut slow_reader) = EventSender::new();
    let (quick, mut quick_reader) = EventSender::new();
    assert!(watchers.add(slow) && watchers.add(quick));
    for at in 0..=MAX_WAITING as u64 {
        watchers.hold(AgentEvent::of(Happened::PeerUp, at));
        watchers.publish();
        assert_eq!(quick_reader.queue.try_recv().expect("an event").unix_ms, at);
    }
    assert_eq!(watchers.streams.len(), 1);
    for at in 0..MAX_WAITING as u64 {
        assert_eq!(slow_reader.queue.try_recv().expect("an event").unix_ms, at);
    }
    assert_eq!(slow_reader.queue.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    assert_eq!(slow_reader.last(9).event, Happened::Dropped);
    drop(watchers);
    assert_eq!(quick_reader.queue.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    assert_eq!(quick_reader.last(9).event, Happened::Ended);
}

#[test]
fn there_are_as_many_streams_as_the_bound_says_and_a_closed_one_counts_no_more() {
    let mut watchers = Watchers::default();
    let mut readers = Vec::new();
    for _ in 0..MAX_STREAMS {
        let (stream, reader) = EventSender::new();
        assert!(watchers.add(stream));
        readers.push(reader);
    }
    assert!(!watchers.add(EventSender::new().0));
    readers.pop();
    assert!(watchers.add(EventSender::new().0));
}

#[test]
fn nothing_is_held_for_nobody() {
    let mut watchers = Watchers::default();
    watchers.hold(AgentEvent::of(Happened::PeerUp, 1));
    assert!(watchers.held.is_empty());
    watchers.streams.push(EventSender::new().0);
    for at in 0..2 * MAX_HELD as u64 {
        watchers.hold(AgentEvent::of(Happened::PeerUp, at));
    }
    assert_eq!(watchers.held.len(), MAX_HELD);
}
