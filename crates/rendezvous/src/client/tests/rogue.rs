//! Refusals that a client outlives, and a rendezvous that means it ill.

use std::collections::BTreeSet;
use std::time::Duration;

use super::alone::{Alone, refused};
use crate::client::{Event, Output, Task};
use crate::protocol::{Call, Code, Reply, Slot, Verb};
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
    for (asked, expected) in [(Some(3_000), 3_000), (None, 1_000)] {
        let hello = alone.calls()[0].id;
        alone.answer(hello, later(asked));
        assert_eq!(alone.outputs(), []);
        assert_eq!(alone.client.deadline() - alone.now.monotonic, Duration::from_millis(expected));
        alone.advance_to(alone.client.deadline());
    }
    alone.welcome();
}
