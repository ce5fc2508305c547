//! The redb store: it conforms, it groups, and a power cut loses nothing that was acknowledged.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use overlay_rendezvous::store::{Expected, MAX_BATCH, MemoryStore, Operation, Revision, Store, conformance};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::power_cut::Disk;
use super::*;

#[test]
fn the_redb_store_conforms() {
    conformance::check(|| RedbStore::on(Disk::default()).expect("an empty disk"));
}

#[test]
fn a_store_is_found_again_in_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let mut store = RedbStore::open(&path).expect("a new file");
    store.commit(&[put(b"a", b"1")]).expect("a commit");
    assert!(RedbStore::open(&path).is_err(), "a second process must not open it");
    drop(store);
    let store = RedbStore::open(&path).expect("the same file");
    let entry = store.get(b"a").expect("a read").expect("an entry");
    assert_eq!((entry.revision, &*entry.value), (Revision(1), &b"1"[..]));
}

#[test]
fn a_store_of_the_release_before_is_read_and_one_of_a_newer_program_is_refused() {
    let disk = Disk::default();
    let mut store = RedbStore::on(disk.clone()).expect("an empty disk");
    store.commit(&[put(b"a", b"1")]).expect("a commit");
    for (found, is_read) in [(1, true), (FORMAT_VERSION, true), (FORMAT_VERSION + 1, false)] {
        note_format(&store, found);
        drop(store);
        match RedbStore::on(disk.clone()) {
            Ok(opened) => store = opened,
            Err(refused) => {
                assert!(!is_read, "format {found}: {refused}");
                assert!(matches!(refused, StoreError::Format { found: said } if said == found));
                return;
            }
        }
        assert!(is_read, "format {found}");
        assert_eq!(&*store.get(b"a").expect("a read").expect("an entry").value, b"1", "format {found}");
        assert_eq!(format_of(&store), FORMAT_VERSION, "a program of the release before must refuse it");
    }
    unreachable!("a newer format was read");
}

/// Notes in a store that it has a format.
fn note_format(store: &RedbStore, format: u64) {
    let transaction = store.database.begin_write().expect("a transaction");
    transaction.open_table(NUMBERS).expect("a table").insert(FORMAT, format).expect("an insert");
    transaction.commit().expect("a commit");
}

fn format_of(store: &RedbStore) -> u64 {
    let reading = store.database.begin_read().expect("a transaction");
    reading.open_table(NUMBERS).expect("a table").get(FORMAT).expect("a read").expect("a format").value()
}

#[test]
fn a_writer_commits_what_waits_in_groups_and_in_order() {
    /// A store in memory that notes the size of every batch.
    struct Noted(MemoryStore, Vec<usize>);

    impl Store for Noted {
        type Error = std::convert::Infallible;

        fn commit(&mut self, operations: &[Operation]) -> Result<Vec<Result<Revision, Conflict>>, Self::Error> {
            self.1.push(operations.len());
            self.0.commit(operations)
        }

        fn get(&self, key: &[u8]) -> Result<Option<Entry>, Self::Error> {
            self.0.get(key)
        }

        fn scan(
            &self,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Entry)>, Self::Error> {
            self.0.scan(prefix, after, limit)
        }

        fn revision(&self) -> Result<Revision, Self::Error> {
            self.0.revision()
        }
    }

    let (writer, submitter) = Writer::start(Noted(MemoryStore::default(), Vec::new())).expect("a thread");
    let (told, replies) = channel();
    let all = MAX_BATCH * 4;
    for n in 0..all {
        let told = told.clone();
        let reply = Box::new(move |outcome| told.send((n, outcome)).expect("the test listens"));
        submitter.submit(put(&n.to_be_bytes(), b""), reply).expect("there is room");
    }
    drop(submitter);
    let Noted(_, batches) = writer.join().expect("a store that works");
    assert_eq!(batches.iter().sum::<usize>(), all);
    assert!(batches.iter().all(|len| *len <= MAX_BATCH), "{batches:?}");
    assert!(batches.len() < all / 8, "{} commits for {all} operations", batches.len());
    drop(told);
    let told: Vec<_> = replies.iter().collect();
    let expected: Vec<_> = (0..all).map(|n| (n, Ok(Revision(n as u64 + 1)))).collect();
    assert_eq!(told, expected);
}

#[test]
fn a_writer_whose_store_fails_acknowledges_nothing_and_ends() {
    let disk = Disk::default();
    let store = RedbStore::on(disk.clone()).expect("an empty disk");
    disk.cut_after(0);
    let (writer, submitter) = Writer::start(store).expect("a thread");
    let (told, replies) = channel();
    submitter
        .submit(put(b"a", b"1"), Box::new(move |outcome| told.send(outcome).expect("the test listens")))
        .expect("room");
    assert_eq!(replies.recv().ok(), None, "the reply is dropped");
    assert!(writer.join().is_err());
    assert_eq!(submitter.submit(put(b"b", b"1"), Box::new(|_| {})), Err(NotTaken::Ended));
}

/// How long a store may take to open after a power cut.
const OPENS_WITHIN: Duration = Duration::from_secs(2);

/// Opens a store after a power cut. Returns also how long that took.
fn reopened(contents: Vec<u8>, seed: u64) -> (RedbStore, Duration) {
    let began = Instant::now();
    let store = RedbStore::on(Disk::with(contents)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    (store, began.elapsed())
}

/// Eight hundred disks lose their power at a random write or sync. Every entry must then be what an acknowledged operation
/// left, or what the one batch that was under way would leave: the whole batch or nothing of it.
#[test]
fn a_power_cut_loses_no_acknowledged_write() {
    let (mut cuts_with_loss, mut longest) = (0, Duration::ZERO);
    for seed in 0..800 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let disk = Disk::default();
        let mut store = RedbStore::on(disk.clone()).expect("an empty disk");
        let mut model = Model::default();
        // A first life gives the file some contents and says how many steps a batch takes.
        let before = disk.count();
        for _ in 0..8 {
            model.acknowledged(&store.commit(&model.batch(&mut rng)).expect("there is power"));
        }
        let steps = (disk.count() - before) * 2;
        disk.cut_after(u64::from(rng.next_u32()) % steps);
        let mut under_way = None;
        for _ in 0..64 {
            let batch = model.batch(&mut rng);
            match store.commit(&batch) {
                Ok(outcomes) => model.acknowledged(&outcomes),
                Err(_) => {
                    under_way = Some(batch);
                    break;
                }
            }
        }
        let under_way = under_way.expect("the power is cut within 64 batches");
        drop(store);

        let contents = disk.after_power_cut(&mut rng);
        let (mut store, took) = reopened(contents, seed);
        longest = longest.max(took);
        let found = entries(&store);
        let without = model.entries.clone();
        model.apply(&under_way);
        let is_without = found == without;
        cuts_with_loss += u32::from(is_without);
        assert!(is_without || found == model.entries, "seed {seed}: neither with nor without the last batch");
        // The store goes on from there.
        let revision = store.revision().expect("a read");
        assert_eq!(store.commit(&[put(b"after", b"1")]).expect("a commit"), [Ok(Revision(revision.0 + 1))]);
        assert!(
            Arc::get_mut(&mut store.database).expect("the only one").check_integrity().expect("a check"),
            "seed {seed}"
        );
    }
    eprintln!("{cuts_with_loss} of 800 cuts lost the batch under way; the longest start took {longest:?}");
    assert!(cuts_with_loss > 160, "only {cuts_with_loss} cuts lost something: the test cuts at the wrong moments");
    assert!(longest < OPENS_WITHIN, "{longest:?}");
}

/// The same through the writer: four threads count, each under a key of its own, and go on once a count is acknowledged.
#[test]
fn a_power_cut_breaks_no_promise_of_the_writer() {
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let disk = Disk::default();
        let store = RedbStore::on(disk.clone()).expect("an empty disk");
        disk.cut_after(20 + u64::from(rng.next_u32() % 300));
        let (writer, submitter) = Writer::start(store).expect("a thread");
        let counters: Vec<_> = (0..4_u8)
            .map(|key| {
                let submitter = submitter.clone();
                std::thread::spawn(move || count(&submitter, key))
            })
            .collect();
        drop(submitter);
        let promised: Vec<_> = counters.into_iter().map(|counter| counter.join().expect("a thread")).collect();
        assert!(writer.join().is_err(), "the power is cut");
        let contents = disk.after_power_cut(&mut rng);
        let (store, took) = reopened(contents, seed);
        assert!(took < OPENS_WITHIN, "seed {seed}: {took:?}");
        for (key, promised) in promised.into_iter().enumerate() {
            let found = store
                .get(&[key as u8])
                .expect("a read")
                .map_or(0, |entry| u64::from_be_bytes(entry.value.try_into().expect("a count")));
            assert!(found == promised || found == promised + 1, "seed {seed}: {promised} was promised, {found} found");
        }
    }
}

/// Counts until the writer ends. Returns the last count that was acknowledged.
fn count(submitter: &Submitter, key: u8) -> u64 {
    for n in 1_u64.. {
        let (told, replies) = channel();
        let reply = Box::new(move |outcome| told.send(outcome).expect("the test listens"));
        if submitter.submit(put(&[key], &n.to_be_bytes()), reply).is_err() {
            return n - 1;
        }
        match replies.recv() {
            Ok(outcome) => assert!(outcome.is_ok()),
            Err(_) => return n - 1,
        }
    }
    unreachable!("the power is cut long before")
}

/// What the store must hold.
#[derive(Clone, Default)]
struct Model {
    entries: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    revision: u64,
    last: std::cell::RefCell<Vec<Operation>>,
}

impl Model {
    /// A batch of random operations on few keys.
    fn batch(&self, rng: &mut ChaCha8Rng) -> Vec<Operation> {
        let mut batch = Vec::new();
        for _ in 0..=rng.next_u32() % 16 {
            let mut operation = Operation::default();
            for key in 0..=rng.next_u32() % 3 {
                let key = [key as u8, (rng.next_u32() % 32) as u8].to_vec();
                let mut value = vec![0; (rng.next_u32() % 4_096) as usize];
                rng.fill_bytes(&mut value);
                let value = (!rng.next_u32().is_multiple_of(4)).then_some(value);
                operation.push(key, Expected::Any, value);
            }
            batch.push(operation);
        }
        self.last.replace(batch.clone());
        batch
    }

    fn acknowledged(&mut self, outcomes: &[Result<Revision, Conflict>]) {
        assert!(outcomes.iter().all(Result::is_ok));
        let batch = self.last.take();
        self.apply(&batch);
    }

    fn apply(&mut self, batch: &[Operation]) {
        for operation in batch {
            self.revision += 1;
            for write in &operation.writes {
                match &write.value {
                    Some(value) => drop(self.entries.insert(write.key.clone(), (self.revision, value.clone()))),
                    None => drop(self.entries.remove(&write.key)),
                }
            }
        }
    }
}

fn entries(store: &RedbStore) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
    let found = store.scan(b"", None, usize::MAX).expect("a read");
    found.into_iter().map(|(key, entry)| (key, (entry.revision.0, entry.value))).collect()
}

fn put(key: &[u8], value: &[u8]) -> Operation {
    let mut operation = Operation::default();
    operation.push(key.to_vec(), Expected::Any, Some(value.to_vec()));
    operation
}
