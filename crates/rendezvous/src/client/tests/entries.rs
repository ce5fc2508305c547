//! What an agent keeps for itself, as its client sees it.

use std::time::Duration;

use super::alone::{Alone, refused};
use crate::client::{Event, Output, Task, TooMuch};
use crate::protocol::{Call, Code, Entry, Label, MAX_ENTRIES, MAX_ENTRY_LEN, Reply, Verb};

fn label(n: u8) -> Label {
    [n; 16]
}

fn entry(n: u8) -> Entry {
    Entry { label: label(n), sealed: vec![n].into() }
}

/// Asks for entries, and returns what the agent is told of this answer.
fn told(alone: &mut Alone, after: Option<u8>, entries: Vec<Entry>, next: Option<u8>) -> Vec<Event> {
    alone.client.read_entries(after.map(label), alone.now);
    let calls = alone.calls();
    let [Call { id, verb: Verb::Entries { after: asked } }] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(*asked, after.map(label));
    alone.answer(*id, Reply::Entries { entries, next: next.map(label) });
    alone.events()
}

#[test]
fn entries_are_read_page_by_page() {
    let mut alone = Alone::welcomed();
    let expected = Event::Entries { entries: vec![(label(1), vec![1]), (label(2), vec![2])], next: Some(label(2)) };
    assert_eq!(told(&mut alone, None, vec![entry(1), entry(2)], Some(2)), [expected]);
    let expected = Event::Entries { entries: vec![(label(3), vec![3])], next: None };
    assert_eq!(told(&mut alone, Some(2), vec![entry(3)], None), [expected]);
    let expected = Event::Entries { entries: Vec::new(), next: None };
    assert_eq!(told(&mut alone, None, Vec::new(), None), [expected]);
    assert_eq!(alone.client.distrusted(), 0);
}

#[test]
fn pages_that_go_back_stand_still_or_are_too_long_are_no_answer() {
    let mut alone = Alone::welcomed();
    let long = Entry { label: label(5), sealed: vec![0; MAX_ENTRY_LEN + 1].into() };
    let lies: [(Vec<Entry>, Option<u8>); 6] = [
        (vec![entry(4), entry(3)], None),
        (vec![entry(3), entry(3)], None),
        (vec![entry(2)], None),
        (vec![entry(3)], Some(4)),
        (Vec::new(), Some(9)),
        (vec![long], None),
    ];
    let count = lies.len() as u64;
    for (entries, next) in lies {
        let refusal = Event::Refused { subject: Task::Entries, code: Code::Malformed };
        assert_eq!(told(&mut alone, Some(2), entries, next), [refusal]);
    }
    assert_eq!(alone.client.distrusted(), count);
}

#[test]
fn an_entry_is_put_once_again_after_each_connection_and_when_there_was_no_room() {
    let mut alone = Alone::welcomed();
    let put = |alone: &mut Alone, sealed: u8, is_kept| {
        assert!(alone.client.put_entry(label(1), vec![sealed], is_kept, alone.now).is_ok());
        alone.calls()
    };
    assert_eq!(put(&mut alone, 7, true), [], "the rendezvous has it");
    assert_eq!(put(&mut alone, 7, false), []);
    let calls = put(&mut alone, 8, false);
    let is_put = |call: &Call| matches!(&call.verb, Verb::PutEntry { sealed, .. } if sealed[..] == [8]);
    assert!(calls.len() == 1 && is_put(&calls[0]), "{calls:?}");
    alone.answer(calls[0].id, refused(Code::Full));
    assert_eq!(alone.outputs(), []);
    alone.now.monotonic += Duration::from_secs(30);
    alone.client.handle_timeout(alone.now);
    let calls = alone.calls();
    let again = calls.iter().find(|call| is_put(call)).expect("it is still wanted");
    alone.answer(again.id, Reply::Done);
    assert_eq!(put(&mut alone, 8, false), [], "it is kept");
    alone.client.lost(alone.now);
    alone.outputs();
    alone.now.monotonic += Duration::from_secs(60);
    alone.connect();
    alone.welcome();
    let calls = alone.calls();
    alone.answer(calls[0].id, Reply::Done);
    let calls = alone.outputs();
    assert!(calls.iter().any(|output| matches!(output, Output::Send(call) if is_put(call))), "{calls:?}");
}

#[test]
fn entries_are_bounded() {
    let mut alone = Alone::welcomed();
    let put = |alone: &mut Alone, n: usize, len| {
        alone.client.put_entry((n as u128).to_be_bytes(), vec![0; len], false, alone.now)
    };
    assert_eq!(put(&mut alone, 0, MAX_ENTRY_LEN + 1), Err(TooMuch));
    for n in 0..MAX_ENTRIES {
        assert_eq!(put(&mut alone, n, 1), Ok(false));
    }
    assert_eq!(put(&mut alone, MAX_ENTRIES, 1), Err(TooMuch));
    assert_eq!(put(&mut alone, 0, 2), Ok(true), "one that is replaced takes no room");
    assert_eq!(put(&mut alone, 0, 2), Ok(false), "it is the same");
}

/// The release before this one would close the connection because of a verb that it does not know.
#[test]
fn a_rendezvous_of_the_release_before_is_never_asked_about_entries() {
    let mut alone = Alone::welcomed();
    assert_eq!(alone.client.put_entry(label(1), vec![1], false, alone.now), Ok(false));
    alone.client.read_entries(None, alone.now);
    assert_eq!(alone.calls().len(), 2);
    alone.client.lost(alone.now);
    alone.outputs();
    alone.now.monotonic += Duration::from_secs(60);
    alone.connect_in(1);
    alone.welcome();
    let calls = alone.calls();
    assert!(matches!(calls[..], [Call { verb: Verb::Register { .. }, .. }]), "{calls:?}");
    alone.answer(calls[0].id, Reply::Done);
    assert_eq!(alone.events(), [Event::Registered { sequence: 1 }, Event::Synced]);
    alone.now.monotonic += Duration::from_secs(10);
    alone.client.handle_timeout(alone.now);
    assert_eq!(alone.outputs(), []);
    assert!(alone.client.deadline() > alone.now.monotonic, "and it is not waited for");
}
