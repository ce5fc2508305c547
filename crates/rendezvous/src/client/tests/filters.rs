//! Records that are looked for by more than one property.

use super::alone::Alone;
use crate::client::Event;
use crate::protocol::{Call, FILTERS_SINCE, Filter, Find, Reply, VERSION, Verb};
use crate::scene::{agent, record, sign};

/// Looks for the agents that a filter lets through, at a rendezvous of this version that knows `bob` and `carol`. Returns what it
/// is asked, the names that it finds, and how much is refused.
fn look(version: u16, filter: Filter) -> (Find, Vec<String>, u64) {
    let mut alone = Alone::new(1);
    alone.client.set_record(sign(1, record(1, "alice", 1, alone.now)), alone.now);
    alone.connect_in(version);
    alone.welcome();
    let calls = alone.calls();
    alone.answer(calls[0].id, Reply::Done);
    alone.events();
    alone.client.find(Find::Matching(filter), None, alone.now).expect("room");
    let calls = alone.calls();
    let [Call { id, verb: Verb::Find { by, .. } }] = &calls[..] else { panic!("{calls:?}") };
    let records = [(2, "bob"), (3, "carol")].map(|(n, name)| {
        let mut record = record(n, name, 1, alone.now);
        record.tags = vec!["gpu".to_owned()];
        sign(n, record)
    });
    let (id, by) = (*id, by.clone());
    let records = records.iter().filter(|record| by.matches(record)).map(|record| record.bytes().to_vec().into());
    alone.answer(id, Reply::Found { records: records.collect(), next: Some(agent(3)) });
    let events = alone.events();
    let found = events.iter().filter_map(|event| match event {
        Event::Found { records, .. } => Some(records),
        _ => None,
    });
    let found = found.flatten().map(|record| record.name.clone()).collect();
    (by, found, alone.client.distrusted())
}

/// A rendezvous of version 2 would close the connection because of a question that it does not know.
#[test]
fn a_rendezvous_of_the_release_before_is_asked_for_more_and_the_answer_is_filtered_here() {
    let filter = Filter { text: Some("car".to_owned()), ..Filter::default() };
    let tagged = Filter { tag: Some("gpu".to_owned()), ..filter.clone() };
    for (version, filter, asked) in [
        (VERSION, filter.clone(), Find::Matching(filter.clone())),
        (FILTERS_SINCE - 1, filter, Find::All),
        (FILTERS_SINCE - 1, tagged, Find::Tag("gpu".to_owned())),
    ] {
        assert_eq!(look(version, filter), (asked, vec!["carol".to_owned()], 0), "version {version}");
    }
}
