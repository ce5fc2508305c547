//! Against real etcd, one member on loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use overlay_rendezvous::registry::presence_key;
use overlay_rendezvous::store::{Change, Conflict, Expected, Operation, Store as _, conformance};
use overlay_wire::signed::{PublicKey, SecretKey};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use super::*;

/// How long to wait for what must happen soon.
const SOON: Duration = Duration::from_secs(20);

/// One member, which keeps its data in a temporary folder.
struct Member {
    process: Child,
    address: String,
    peers: String,
    folder: tempfile::TempDir,
    runtime: Runtime,
    is_ending: watch::Sender<bool>,
    health: Arc<Health>,
}

impl Member {
    /// `None` if this machine has no etcd.
    fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            let is_required = std::env::var_os("OVERLAY_LAB").is_some_and(|wanted| wanted == "required");
            assert!(!is_required, "etcd is missing: scripts/setup test");
            eprintln!("skipped: etcd is missing; scripts/setup test installs it");
            return None;
        }
        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let [address, peers] = free.map(|free| free.local_addr().expect("it is bound").to_string());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let process = spawn(&address, &peers, &folder);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let (is_ending, health) = (watch::channel(false).0, Arc::default());
        Some(Self { process, address, peers, folder, runtime: runtime.expect("a runtime"), is_ending, health })
    }

    /// A connection for a network of its own.
    fn cluster(&self, network: &str) -> Cluster {
        let members = Members { addresses: vec![self.address.clone()], has_tls: false };
        let (access, watched) = (Access::default(), (Arc::clone(&self.health), self.is_ending.subscribe()));
        self.runtime.block_on(Cluster::connect(&members, &access, network, watched)).expect("it answers")
    }

    fn store(&self, network: &str, process: u64) -> EtcdStore {
        EtcdStore::new(self.cluster(network), process, self.runtime.handle().clone())
    }

    fn kill(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it ran");
    }

    fn start_again(&mut self) {
        self.process = spawn(&self.address, &self.peers, &self.folder);
    }

    /// Forgets every revision but the last.
    fn compact(&self) {
        self.runtime.block_on(async {
            let mut client = Client::connect([&self.address], None).await.expect("it answers");
            let now = client.get("x", None).await.expect("it answers").header().expect("a header").revision();
            client.compact(now, None).await.expect("it forgets");
        });
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(address: &str, peers: &str, folder: &tempfile::TempDir) -> Child {
    let (clients, peers) = (format!("http://{address}"), format!("http://{peers}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder.path()).args(["--name", "only", "--log-level", "error"]);
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("only={peers}")]).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("etcd starts")
}

fn put(key: &str, value: &str) -> Operation {
    let mut operation = Operation::default();
    operation.push(key.into(), Expected::Any, Some(value.into()));
    operation
}

fn claim(key: &str, value: &str) -> Operation {
    let mut operation = put(key, value);
    operation.writes[0].expected = Expected::Absent;
    operation
}

fn delete(key: &str) -> Operation {
    let mut operation = Operation::default();
    operation.push(key.into(), Expected::Any, None);
    operation
}

fn agent(n: u8) -> PublicKey {
    SecretKey::from_bytes(&[n; 32]).public()
}

/// Waits for changes until nothing of `wanted` is missing, and returns all of them.
fn changes_until(member: &Member, queue: &mut mpsc::Receiver<Vec<Change>>, wanted: &str) -> Vec<Change> {
    let mut all = Vec::new();
    member.runtime.block_on(async {
        while !all.iter().any(|change: &Change| change.key == wanted.as_bytes()) {
            all.extend(timeout(SOON, queue.recv()).await.expect("a change").expect("the follower runs"));
        }
    });
    all
}

#[test]
fn etcd_conforms() {
    let Some(member) = Member::start() else { return };
    let mut made = 0;
    conformance::check(|| {
        made += 1;
        member.store(&format!("network-{made}"), 1)
    });
}

#[test]
fn of_a_thousand_claims_by_two_processes_each_has_one_owner() {
    let Some(member) = Member::start() else { return };
    let stores = [member.store("lab", 1), member.store("lab", 2)];
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let claiming = stores.map(|mut store| {
            scope.spawn(move || {
                let claims = (0..1_000).map(|n| claim(&format!("name/{n}"), "mine")).collect::<Vec<_>>();
                let together = claims.chunks(100).map(|claims| store.commit(claims).expect("it works"));
                together.flatten().map(|outcome| outcome.is_ok()).collect::<Vec<_>>()
            })
        });
        claiming.map(|thread| thread.join().expect("no panic")).into()
    });
    let both = outcomes[0].iter().zip(&outcomes[1]);
    assert!(both.clone().all(|(one, other)| one != other), "each name has one owner");
    let of_one = outcomes[0].iter().filter(|is_owner| **is_owner).count();
    eprintln!("{of_one} of 1000 belong to the first");
}

#[test]
fn an_operation_is_applied_once_however_often_it_is_sent() {
    let Some(mut member) = Member::start() else { return };
    let mut store = member.store("lab", 1);
    let first = store.commit(&[put("counter", "0")]).expect("it works")[0].expect("no condition");
    // The member is killed again and again while a chain of conditional writes goes on. A write that was applied twice, or that is
    // told as a conflict though it was applied, breaks the chain.
    let (tell, told) = std::sync::mpsc::channel();
    let chain = std::thread::spawn(move || {
        let mut last = first;
        for n in 1_u32.. {
            let mut next = put("counter", &n.to_string());
            next.writes[0].expected = Expected::At(last);
            last = store.commit(&[next]).expect("it works")[0].unwrap_or_else(|Conflict| panic!("link {n} is broken"));
            if tell.send(n).is_err() {
                return (n, store);
            }
        }
        unreachable!("the numbers are enough");
    });
    for _ in 0..8 {
        for _ in 0..50 {
            told.recv_timeout(SOON).expect("the chain goes on");
        }
        member.kill();
        member.start_again();
    }
    told.recv_timeout(SOON).expect("the chain goes on");
    drop(told);
    let (links, store) = chain.join().expect("no link is broken");
    let found = store.get(b"counter").expect("it works").expect("it is there");
    assert_eq!(found.value, links.to_string().into_bytes());
}

/// The keys and values of changes.
fn shown(changes: &[Change]) -> Vec<(&str, Option<&str>)> {
    let text = |bytes| std::str::from_utf8(bytes).expect("text");
    changes.iter().map(|change| (text(&*change.key), change.value.as_deref().map(text))).collect()
}

#[test]
fn what_others_write_is_told_in_order_and_across_a_restart() {
    let Some(mut member) = Member::start() else { return };
    let mut store = member.store("lab", 1);
    member.store("other", 1).commit(&[put("z", "of a different network")]).expect("it works");
    store.commit(&[put("a", "1"), put("b", "1"), put("c", "1")]).expect("it works");
    let begun = member.runtime.block_on(Follower::begin(member.cluster("lab")));
    let (follower, everything, mut queue) = begun.expect("it works");
    assert_eq!(shown(&everything), [("a", Some("1")), ("b", Some("1")), ("c", Some("1"))]);
    let following = member.runtime.spawn(follower.run());
    store.commit(&[put("a", "2"), delete("b"), put("d", "1")]).expect("it works");
    let told = changes_until(&member, &mut queue, "d");
    assert_eq!(shown(&told), [("a", Some("2")), ("b", None), ("d", Some("1"))]);
    for n in 0..3 {
        member.kill();
        member.start_again();
        let key = format!("after restart {n}");
        store.commit(&[put(&key, "1"), put("c", &n.to_string())]).expect("it works");
        let told = changes_until(&member, &mut queue, &key);
        let mut told = shown(&told);
        told.sort_unstable();
        assert_eq!(told, [(&*key, Some("1")), ("c", Some(&*n.to_string()))], "nothing twice, nothing else");
    }
    assert!(!following.is_finished());
}

#[test]
fn what_was_compacted_away_is_told_as_the_difference() {
    let Some(member) = Member::start() else { return };
    let mut store = member.store("lab", 1);
    let many = (0..1_500).map(|n| put(&format!("many/{n:04}"), "1")).collect::<Vec<_>>();
    many.chunks(500).for_each(|many| drop(store.commit(many).expect("it works")));
    store.commit(&[put("a", "1"), put("b", "1"), put("c", "1")]).expect("it works");
    let begun = member.runtime.block_on(Follower::begin(member.cluster("lab")));
    let (follower, everything, mut queue) = begun.expect("it works");
    assert_eq!(everything.len(), 1_503);
    // It has not begun to watch when its changes are compacted away.
    for n in 2..5 {
        store.commit(&[put("a", &n.to_string())]).expect("it works");
    }
    store.commit(&[delete("b"), put("d", "1")]).expect("it works");
    member.compact();
    member.runtime.spawn(follower.run());
    let told = changes_until(&member, &mut queue, "d");
    let mut all = shown(&told);
    all.sort_unstable();
    assert_eq!(all, [("a", Some("4")), ("b", None), ("d", Some("1"))]);
    assert!(told.is_sorted_by_key(|change| change.revision), "{told:?}");
    store.commit(&[put("e", "1")]).expect("it works");
    assert_eq!(shown(&changes_until(&member, &mut queue, "e")), [("e", Some("1"))]);
}

#[test]
fn who_is_connected_is_shown_and_ends_with_the_lease() {
    let Some(mut member) = Member::start() else { return };
    let store = member.store("lab", 9);
    let presences = Presences::default();
    let begun = Keeper::begin(member.cluster("lab"), 1, "a process".to_owned(), presences.clone());
    let keeper = member.runtime.block_on(begun).expect("it works");
    let (lease, cluster) = (keeper.lease(), member.cluster("lab"));
    let keeping = member.runtime.spawn(keeper.run());
    let process_of = |n: u8| store.get(&presence_key(&agent(n))).expect("it works").map(|entry| entry.value[7]);
    let becomes = |n: u8, wanted: Option<u8>| {
        let deadline = std::time::Instant::now() + SOON;
        while process_of(n) != wanted {
            assert!(std::time::Instant::now() < deadline, "agent {n}: {:?}, not {wanted:?}", process_of(n));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    (1..=3).for_each(|n| presences.show(agent(n), true));
    (1..=3).for_each(|n| becomes(n, Some(1)));
    presences.show(agent(3), false);
    becomes(3, None);

    // A different process shows agent 2. What this one has to say of it no longer counts.
    let elsewhere = Presences::default();
    let begun = Keeper::begin(member.cluster("lab"), 2, "another".to_owned(), elsewhere.clone());
    let other = member.runtime.block_on(begun).expect("it works");
    let other = member.runtime.spawn(other.run());
    elsewhere.show(agent(2), true);
    becomes(2, Some(2));
    presences.show(agent(2), false);
    presences.show(agent(4), true);
    becomes(4, Some(1));
    assert_eq!(process_of(2), Some(2), "only who shows an agent hides it");

    // The lease ends behind the process's back. Agent 4 has gone to the other one meanwhile, and agent 1 has not.
    presences.show(agent(2), true);
    becomes(2, Some(1));
    let revoked = member.runtime.block_on(cluster.client.lease_client().revoke(lease));
    revoked.expect("the lease was there");
    becomes(1, None);
    elsewhere.show(agent(4), true);
    becomes(4, Some(2));
    presences.show(agent(5), true);
    becomes(5, Some(1));
    becomes(1, Some(1));
    assert_eq!(process_of(4), Some(2), "it is connected to the other one");
    member.kill();
    member.start_again();
    presences.show(agent(6), true);
    becomes(6, Some(1));
    assert!(!keeping.is_finished() && !other.is_finished());
}

#[test]
fn a_registry_belongs_to_one_key() {
    let Some(member) = Member::start() else { return };
    let claims = |network: &str, keys: (u8, u8)| {
        let cluster = member.cluster(network);
        member.runtime.block_on(cluster.claim(&agent(keys.0), &agent(keys.1)))
    };
    claims("lab", (1, 2)).expect("it is free");
    claims("lab", (1, 2)).expect("a second process of the same rendezvous");
    claims("other", (3, 4)).expect("a different network beside it");
    let refused = claims("lab", (1, 5)).expect_err("a different rendezvous");
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.cause.is_some_and(|cause| cause.contains(&agent(2).to_string())));
    let refused = claims("lab", (6, 2)).expect_err("a different network of that name");
    assert!(refused.cause.is_some_and(|cause| cause.contains(&agent(1).to_string())));
}

#[test]
fn nobody_waits_for_a_silent_cluster_when_the_rendezvous_ends() {
    let Some(mut member) = Member::start() else { return };
    let mut store = member.store("lab", 1);
    store.commit(&[put("a", "1")]).expect("it works");
    member.kill();
    let health = Arc::clone(&member.health);
    let waiting = std::thread::spawn(move || store.commit(&[put("a", "2")]));
    let deadline = std::time::Instant::now() + SOON;
    while health.silence().is_none() {
        assert!(std::time::Instant::now() < deadline, "it is not noticed that the cluster is silent");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!waiting.is_finished(), "it waits for the cluster");
    member.is_ending.send_replace(true);
    assert!(matches!(waiting.join().expect("no panic"), Err(EtcdError::Ending(_))));
}
