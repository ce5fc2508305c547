//! Refusals that a client outlives, and a rendezvous that means it ill.

use std::collections::BTreeSet;
use std::time::Duration;

use super::alone::{Alone, refused};
use crate::client::{Event, Outgoing, Output, Task, TooMuch};
use crate::protocol::{Call, Code, Find, MAX_MESSAGE_LEN, MAX_SEALED_LEN, Reply, Slot, Verb, encode};
use crate::scene::{agent, record, sign};

/// More calls than an honest exchange of these tests needs.
const TOO_MANY: usize = 1_000;
const FULL_WAIT: Duration = Duration::from_secs(30);

impl Alone {
    /// Lets time pass, answers what is called, and returns when each call was made. Stops after too many.
    fn play(&mut self, time: Duration, mut reply: impl FnMut(&Verb) -> Reply) -> (Vec<(Duration, Verb)>, Vec<Event>) {
        let begin = self.now.monotonic;
        let (mut calls, mut events) = (Vec::new(), Vec::new());
        loop {
            while let Some(output) = self.client.poll_output() {
                match output {
                    Output::Send(Call { id, verb: Verb::Ping }) => {
                        self.answer(id, Reply::Revision { revision: 1, time: 1 });
                    }
                    Output::Send(Call { id, verb }) => {
                        let reply = reply(&verb);
                        calls.push((self.now.monotonic - begin, verb));
                        self.answer(id, reply);
                    }
                    Output::Event(Event::NeedsIpv4 { .. }) => self.sign_again(calls.len() as u64),
                    Output::Event(event) => events.push(event),
                    other => panic!("{other:?}"),
                }
                if calls.len() >= TOO_MANY {
                    return (calls, events);
                }
            }
            let at = self.client.deadline();
            if at > begin + time {
                return (calls, events);
            }
            self.advance_to(at);
        }
    }

    fn sign_again(&mut self, sequence: u64) {
        let record = sign(1, record(1, "alice", 100 + sequence, self.now));
        self.client.set_record(record, self.now);
    }

    /// A client that watches agent 2, was registered just now, and has called to watch it.
    fn watching() -> (Self, u32) {
        let mut alone = Self::new(1);
        alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
        assert_eq!(alone.client.watch(&[agent(2)], alone.now), Ok(()));
        alone.connect();
        alone.welcome();
        let id = alone.calls()[0].id;
        alone.answer(id, Reply::Done);
        let outputs = alone.outputs();
        let [Output::Event(Event::Registered { .. }), Output::Send(Call { id, verb: Verb::Watch { .. } })] =
            outputs[..]
        else {
            panic!("{outputs:?}");
        };
        (alone, id)
    }
}

#[test]
fn a_watch_that_finds_no_room_is_repeated_and_nothing_is_synced_before() {
    let (mut alone, id) = Alone::watching();
    alone.answer(id, refused(Code::Full));
    assert_eq!(alone.outputs(), []);
    let (calls, events) = alone.play(FULL_WAIT * 3, |_| refused(Code::Full));
    let times: Vec<_> = calls.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [FULL_WAIT, FULL_WAIT * 2, FULL_WAIT * 3]);
    assert!(!events.contains(&Event::Synced));
    let (calls, events) = alone.play(FULL_WAIT, |_| Reply::Done);
    assert_eq!((calls.len(), events.contains(&Event::Synced)), (1, true));
}

#[test]
fn nothing_is_synced_while_a_watch_stands_refused() {
    let (mut alone, id) = Alone::watching();
    alone.answer(id, refused(Code::TooLong));
    assert_eq!(alone.events(), [Event::Refused { subject: Task::Watch(agent(2)), code: Code::TooLong }]);
    alone.client.unwatch(&[agent(2)], alone.now);
    let outputs = alone.outputs();
    assert!(outputs.contains(&Output::Event(Event::Synced)), "{outputs:?}");
}

#[test]
fn slots_without_room_are_repeated_and_hold_up_no_others() {
    let mut alone = Alone::welcomed();
    let all: Vec<_> = (100..200).map(agent).collect();
    let full: BTreeSet<_> = all.iter().copied().collect::<BTreeSet<_>>().into_iter().take(40).collect();
    for to in &all {
        assert_eq!(alone.client.put_slot(*to, Slot::Word, vec![1], alone.now), Ok(()));
    }
    let mut done = BTreeSet::new();
    let (calls, events) = alone.play(FULL_WAIT * 12, |verb| match verb {
        Verb::PutSlot { to, .. } if full.contains(to) => refused(Code::Full),
        Verb::PutSlot { to, .. } => {
            assert!(done.insert(*to), "it was done already");
            Reply::Done
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(done.len(), 60, "those with room are served");
    assert!(calls.len() < 500 && !events.iter().any(|event| matches!(event, Event::Refused { .. })));
    let (calls, _) = alone.play(FULL_WAIT * 3, |_| Reply::Done);
    assert_eq!(calls.len(), full.len(), "the others are served once there is room");
}

fn later(wait: Option<u32>) -> Reply {
    Reply::Refused { code: Code::Later, ipv4: None, record: None, wait }
}

#[test]
fn a_ping_that_is_refused_shows_that_the_rendezvous_is_there() {
    let mut alone = Alone::welcomed();
    for _ in 0..20 {
        alone.advance_to(alone.client.deadline());
        let calls = alone.calls();
        let [Call { id, verb: Verb::Ping }] = calls[..] else { panic!("{calls:?}") };
        alone.answer(id, later(Some(10)));
    }
    assert!(alone.client.is_online());
}

#[test]
fn a_hello_that_is_refused_for_now_is_repeated() {
    let mut alone = Alone::new(1);
    alone.connect();
    for (asked, expected) in [(Some(3_000), 3_000), (Some(0), 100)] {
        let hello = alone.calls()[0].id;
        alone.answer(hello, later(asked));
        assert_eq!(alone.outputs(), []);
        assert_eq!(alone.client.deadline() - alone.now.monotonic, Duration::from_millis(expected));
        alone.advance_to(alone.client.deadline());
    }
    alone.welcome();
}

fn outgoing(byte: u8) -> Outgoing {
    Outgoing { sealed: vec![byte], permit: None }
}

#[test]
fn the_waits_that_a_rendezvous_asks_for_are_bounded() {
    for (asked, expected) in [(None, 1_000), (Some(0), 100), (Some(5_000), 5_000), (Some(u32::MAX), 600_000)] {
        let mut alone = Alone::welcomed();
        assert_eq!(alone.client.send(agent(2), [7; 16], outgoing(1), alone.now), Ok(()));
        let id = alone.calls()[0].id;
        alone.answer(id, later(asked));
        let (calls, _) = alone.play(Duration::from_secs(700), |_| Reply::Done);
        assert_eq!(calls[0].0, Duration::from_millis(expected), "{asked:?}");
    }
}

#[test]
fn a_rendezvous_that_forgets_us_again_and_again_is_asked_rarely() {
    let (mut alone, id) = Alone::watching();
    alone.answer(id, refused(Code::Unregistered));
    let (calls, _) = alone.play(Duration::from_secs(600), |verb| match verb {
        Verb::Watch { .. } => refused(Code::Unregistered),
        _ => Reply::Done,
    });
    let registered = calls.iter().filter(|(_, verb)| matches!(verb, Verb::Register { .. })).count();
    assert!((10..=25).contains(&registered), "{registered} times within ten minutes");
}

#[test]
fn a_rendezvous_that_takes_no_address_is_asked_rarely() {
    let mut alone = Alone::new(1);
    alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
    alone.connect();
    alone.welcome();
    let (calls, _) = alone.play(Duration::from_secs(600), |_| refused(Code::Ipv4));
    assert!((10..=25).contains(&calls.len()), "{} times within ten minutes", calls.len());
}

#[test]
fn a_page_that_does_not_go_on_is_the_last_one() {
    let mut keys = [agent(1), agent(2)];
    keys.sort_unstable();
    let [low, high] = keys;
    for (after, next, expected) in [
        (None, Some(low), Some(low)),
        (Some(low), Some(high), Some(high)),
        (Some(low), None, None),
        (Some(low), Some(low), None),
        (Some(high), Some(low), None),
    ] {
        let mut alone = Alone::welcomed();
        let query = alone.client.find(Find::All, after, alone.now).expect("room");
        let id = alone.calls()[0].id;
        alone.answer(id, Reply::Found { records: Vec::new(), next });
        assert_eq!(alone.events(), [Event::Found { query, records: Vec::new(), next: expected }]);
        assert_eq!(alone.client.distrusted(), u64::from(next != expected));
    }
}

/// A call that cannot be sealed would end this connection and each one after it.
#[test]
fn a_call_that_is_too_long_to_be_sent_is_not_taken() {
    let mut alone = Alone::welcomed();
    let send = |alone: &mut Alone, permit_len| {
        let outgoing = Outgoing { sealed: vec![0; MAX_SEALED_LEN], permit: Some(vec![0; permit_len]) };
        alone.client.send(agent(2), [7; 16], outgoing, alone.now)
    };
    assert_eq!(send(&mut alone, MAX_MESSAGE_LEN - MAX_SEALED_LEN), Err(TooMuch));
    let longest = (0..1_024).rev().find(|len| send(&mut alone, *len).is_ok()).expect("a short one fits");
    let calls = alone.calls();
    assert!(encode(&calls[0]).len() <= MAX_MESSAGE_LEN && longest > 900, "{longest}");
    let by = Find::Name("a".repeat(MAX_MESSAGE_LEN));
    assert_eq!(alone.client.find(by, None, alone.now), Err(TooMuch));
    assert_eq!(alone.outputs(), []);
}
