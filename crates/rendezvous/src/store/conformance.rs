//! What every store must do, as checks that the tests of each store call.
#![doc(hidden)]

use super::{
    Conflict, Expected, MAX_BATCH, MAX_KEY_LEN, MAX_OPERATION_LEN, MAX_VALUE_LEN, MAX_WRITES, Operation, Revision,
    Store, Write,
};

/// Checks a kind of store. `make` makes an empty one.
///
/// # Panics
/// At the first thing that a store does differently.
pub fn check<S: Store>(mut make: impl FnMut() -> S) {
    an_empty_store_has_nothing(&make());
    what_is_put_is_found_with_its_revision(make());
    a_condition_that_is_not_met_changes_nothing(make());
    a_conflict_spoils_nothing_else_in_its_batch(make());
    an_operation_sees_those_before_it_in_its_batch(make());
    a_whole_batch_is_taken(make());
    an_operation_happens_as_a_whole_or_not_at_all(make());
    deleting_needs_no_entry_unless_it_says_so(make());
    a_scan_is_ordered_and_can_be_continued(make());
    prefixes_of_high_bytes_end_where_they_should(make());
    what_is_malformed_is_a_conflict(make());
}

fn put(key: &[u8], expected: Expected, value: &[u8]) -> Operation {
    Operation { writes: vec![Write { key: key.into(), expected, value: Some(value.into()) }] }
}

fn delete(key: &[u8], expected: Expected) -> Operation {
    Operation { writes: vec![Write { key: key.into(), expected, value: None }] }
}

fn commit(store: &mut impl Store, operations: &[Operation]) -> Vec<Result<Revision, Conflict>> {
    let outcomes = store.commit(operations).expect("the store works");
    assert_eq!(outcomes.len(), operations.len(), "every operation has an outcome");
    outcomes
}

fn value(store: &impl Store, key: &[u8]) -> Option<Vec<u8>> {
    store.get(key).expect("the store works").map(|entry| entry.value)
}

/// Commits operations that all succeed, and returns their revisions.
fn succeed(store: &mut impl Store, operations: &[Operation]) -> Vec<Revision> {
    commit(store, operations).into_iter().map(|outcome| outcome.expect("no condition is in the way")).collect()
}

fn revision(store: &impl Store) -> Revision {
    store.revision().expect("the store works")
}

fn an_empty_store_has_nothing(store: &impl Store) {
    assert_eq!(value(store, b"a"), None);
    assert_eq!(store.scan(b"", None, 10).expect("the store works"), []);
}

fn what_is_put_is_found_with_its_revision(mut store: impl Store) {
    let before = revision(&store);
    let first = succeed(&mut store, &[put(b"a", Expected::Any, b"1")])[0];
    let second = succeed(&mut store, &[put(b"b", Expected::Any, b"")])[0];
    assert!(before < first && first < second, "{before:?} {first:?} {second:?}");
    let entry = store.get(b"a").expect("the store works").expect("an entry");
    assert_eq!((entry.revision, &*entry.value), (first, &b"1"[..]));
    assert_eq!(value(&store, b"b"), Some(Vec::new()), "an empty value is a value");
    assert_eq!(revision(&store), second);
    assert_eq!(commit(&mut store, &[]), []);
}

fn a_condition_that_is_not_met_changes_nothing(mut store: impl Store) {
    let first = succeed(&mut store, &[put(b"a", Expected::Absent, b"1")])[0];
    for wrong in [Expected::Absent, Expected::At(Revision(0)), Expected::At(Revision(first.0 + 1))] {
        assert_eq!(commit(&mut store, &[put(b"a", wrong, b"2")]), [Err(Conflict)], "{wrong:?}");
        assert_eq!(commit(&mut store, &[delete(b"a", wrong)]), [Err(Conflict)], "{wrong:?}");
    }
    assert_eq!(commit(&mut store, &[put(b"b", Expected::At(first), b"2")]), [Err(Conflict)]);
    assert_eq!(value(&store, b"a"), Some(b"1".to_vec()));
    assert_eq!(revision(&store), first, "a conflict has no revision");
    assert!(succeed(&mut store, &[put(b"a", Expected::At(first), b"2")])[0] > first);
}

fn a_conflict_spoils_nothing_else_in_its_batch(mut store: impl Store) {
    let taken = succeed(&mut store, &[put(b"taken", Expected::Absent, b"1")])[0];
    let outcomes = commit(
        &mut store,
        &[
            put(b"a", Expected::Absent, b"1"),
            put(b"taken", Expected::Absent, b"2"),
            put(b"b", Expected::Absent, b"3"),
            delete(b"c", Expected::At(taken)),
            put(b"d", Expected::Any, b"4"),
        ],
    );
    let are_met: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(are_met, [true, false, true, false, true]);
    for (key, known) in [(&b"a"[..], b"1"), (b"taken", b"1"), (b"b", b"3"), (b"d", b"4")] {
        assert_eq!(value(&store, key), Some(known.to_vec()));
    }
    let told: Vec<_> = outcomes.into_iter().flatten().collect();
    assert!(told.is_sorted() && told[0] > taken, "{told:?}");
}

fn an_operation_sees_those_before_it_in_its_batch(mut store: impl Store) {
    let first = succeed(&mut store, &[put(b"name", Expected::Absent, b"first")])[0];
    let outcomes = commit(
        &mut store,
        &[
            put(b"name", Expected::Absent, b"second"),
            delete(b"name", Expected::At(first)),
            put(b"name", Expected::Absent, b"third"),
            put(b"name", Expected::Absent, b"fourth"),
            put(b"name", Expected::Any, b"fifth"),
        ],
    );
    let are_met: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(are_met, [false, true, true, false, true]);
    let revisions: Vec<_> = outcomes.into_iter().flatten().collect();
    assert!(first < revisions[0] && revisions.windows(2).all(|pair| pair[0] < pair[1]), "{first:?} {revisions:?}");
    assert_eq!(value(&store, b"name"), Some(b"fifth".to_vec()));
}

fn a_whole_batch_is_taken(mut store: impl Store) {
    let operations: Vec<_> = (0..MAX_BATCH)
        .map(|n| {
            let mut operation = put(&[b"x/", &n.to_be_bytes()[..]].concat(), Expected::Absent, &[1; 1_000]);
            operation.push([b"y/", &n.to_be_bytes()[..]].concat(), Expected::Absent, Some(vec![2; 40]));
            operation
        })
        .collect();
    assert!(succeed(&mut store, &operations).is_sorted());
    assert!(commit(&mut store, &operations).iter().all(Result::is_err), "each is there once");
    assert_eq!(store.scan(b"x/", None, 2 * MAX_BATCH).expect("the store works").len(), MAX_BATCH);
}

fn an_operation_happens_as_a_whole_or_not_at_all(mut store: impl Store) {
    let first = succeed(&mut store, &[put(b"taken", Expected::Absent, b"1")])[0];
    let mut claim = put(b"free", Expected::Absent, b"2");
    claim.push(b"taken".to_vec(), Expected::Absent, Some(b"2".to_vec()));
    assert_eq!(commit(&mut store, &[claim.clone()]), [Err(Conflict)]);
    assert_eq!((value(&store, b"free"), value(&store, b"taken")), (None, Some(b"1".to_vec())));
    claim.writes[1].expected = Expected::At(first);
    let claimed = Some(succeed(&mut store, &[claim])[0]);
    let revision = |key: &[u8]| store.get(key).expect("the store works").map(|entry| entry.revision);
    assert_eq!((revision(b"free"), revision(b"taken")), (claimed, claimed));
}

fn deleting_needs_no_entry_unless_it_says_so(mut store: impl Store) {
    let deleted = succeed(&mut store, &[delete(b"a", Expected::Any)])[0];
    assert_eq!(commit(&mut store, &[delete(b"a", Expected::At(deleted))]), [Err(Conflict)]);
    commit(&mut store, &[put(b"a", Expected::Any, b"1"), delete(b"a", Expected::Any)]);
    assert_eq!(value(&store, b"a"), None);
}

fn a_scan_is_ordered_and_can_be_continued(mut store: impl Store) {
    let keys: [&[u8]; 6] = [b"a", b"b/1", b"b/2", b"b/3", b"b0", b"c"];
    for key in keys.iter().rev() {
        commit(&mut store, &[put(key, Expected::Absent, key)]);
    }
    let scan = |prefix: &[u8], after: Option<&[u8]>, limit: usize| -> Vec<Vec<u8>> {
        let found = store.scan(prefix, after, limit).expect("the store works");
        assert!(found.iter().all(|(key, entry)| *key == entry.value));
        found.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(scan(b"", None, 10), keys);
    assert_eq!(scan(b"b/", None, 10), [b"b/1", b"b/2", b"b/3"]);
    assert_eq!(scan(b"b/", None, 2), [b"b/1", b"b/2"]);
    assert_eq!(scan(b"b/", Some(b"b/2"), 2), [b"b/3"]);
    assert_eq!(scan(b"b/", Some(b"b/11"), 1), [b"b/2"], "`after` need not exist");
    assert_eq!(scan(b"b/", Some(b"a"), 1), [b"b/1"], "`after` may lie before the prefix");
    assert_eq!(scan(b"b/", Some(b"c"), 10), [[0; 0]; 0], "`after` may lie behind the prefix");
    assert_eq!(scan(b"b/", None, 0), [[0; 0]; 0]);
}

fn prefixes_of_high_bytes_end_where_they_should(mut store: impl Store) {
    let keys: [&[u8]; 4] = [&[0xfe, 0xff], &[0xff], &[0xff, 0xff], &[0xff, 0xff, 0x01]];
    for key in keys {
        commit(&mut store, &[put(key, Expected::Absent, b"")]);
    }
    let found = |prefix: &[u8]| store.scan(prefix, None, 10).expect("the store works").len();
    assert_eq!((found(&[0xfe]), found(&[0xff]), found(&[0xff, 0xff]), found(&[0xff, 0xff, 0xff])), (1, 3, 2, 0));
}

fn what_is_malformed_is_a_conflict(mut store: impl Store) {
    let mut twice = put(b"a", Expected::Any, b"1");
    twice.push(b"a".to_vec(), Expected::Any, None);
    let mut many = Operation::default();
    for n in 0..=MAX_WRITES {
        many.push(n.to_be_bytes().to_vec(), Expected::Any, None);
    }
    let long_key = put(&[1; MAX_KEY_LEN + 1], Expected::Any, b"1");
    let long_value = put(b"a", Expected::Any, &[1; MAX_VALUE_LEN + 1]);
    let no_key = put(b"", Expected::Any, b"1");
    let mut too_much = Operation::default();
    for n in 0..=MAX_OPERATION_LEN / MAX_VALUE_LEN {
        too_much.push(n.to_be_bytes().to_vec(), Expected::Any, Some(vec![1; MAX_VALUE_LEN]));
    }
    for operation in [twice, many, long_key, long_value, no_key, too_much] {
        assert_eq!(commit(&mut store, &[operation]), [Err(Conflict)]);
    }
    let mut largest = Operation::default();
    for n in 0..MAX_WRITES {
        let key = [&n.to_be_bytes()[..], &[1; MAX_KEY_LEN - 8]].concat();
        largest.push(key, Expected::Absent, Some(vec![1; if n < 8 { MAX_VALUE_LEN } else { 1_000 }]));
    }
    succeed(&mut store, &[largest]);
}
