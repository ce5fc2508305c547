//! The real binary at a rendezvous that means it ill, and beside a trusted peer that does.
//!
//! The rendezvous is the test's own (`tests/rogue`). It has the right keys, so agents believe that it is the rendezvous.
//! All that it can do is to refuse service: each lie is counted under its name, and neither the state folder, nor
//! `overlay agents`, nor a tunnel changes. Pings run through each attack, and each of them is answered. Each attack has
//! an honest counterpart that does arrive.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and sockets are what this is about"
)]

mod lab;
mod rogue;

#[path = "registry/auth.rs"]
mod auth;
#[path = "registry/endpoints.rs"]
mod endpoints;
#[path = "registry/ledger.rs"]
mod ledger;
#[path = "registry/letters.rs"]
mod letters;
#[path = "registry/own.rs"]
mod own;
#[path = "registry/records.rs"]
mod records;
#[path = "registry/refused.rs"]
mod refused;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use overlay_rendezvous::channel::VERSIONS;
use overlay_rendezvous::protocol::{FromServer, Push, Slot};
use overlay_wire::signed::{PublicKey, Record, SecretKey, Signed};
use serde_json::Value;

use lab::pings::Underway;
use lab::{Agent, Agents, Pings, SHORTLY, within};
use rogue::{Outsider, Rogue, signing};

/// Between two pings during an attack.
const PACE: Duration = Duration::from_millis(20);

/// Two agents that trust each other, with a tunnel, and the rendezvous where they met.
struct Scene {
    alice: Agent,
    bob: Agent,
    /// The identities of both.
    alice_key: PublicKey,
    bob_key: PublicKey,
    rogue: Rogue,
    world: Agents,
}

impl Scene {
    #[track_caller]
    fn new(name: &str) -> Option<Scene> {
        Self::speaking(name, VERSIONS)
    }

    /// The same, at a rendezvous that speaks these versions of the protocol.
    #[track_caller]
    fn speaking(name: &str, versions: &'static [u16]) -> Option<Scene> {
        let (mut world, rogue) = Rogue::world_speaking(name, versions)?;
        let (alice, bob) = world.two();
        alice.ask("handshake bob --want any --allow icmp");
        bob.is_asked_by("alice");
        bob.ask("approve alice --allow icmp");
        alice.sees("bob", "trusted");
        bob.sees("alice", "trusted");
        alice.host.reaches(&bob.v4());
        let [alice_key, bob_key] = [&alice, &bob].map(|agent| signing::identity_of(&agent.host).public());
        let scene = Scene { alice, bob, alice_key, bob_key, rogue, world };
        within(SHORTLY, "both to know where the other one is", || {
            let pairs = [(&scene.alice_key, &scene.bob_key), (&scene.bob_key, &scene.alice_key)];
            pairs.iter().all(|(to, from)| scene.has_endpoints(to, from)).then_some(())
        });
        settled(&scene.alice);
        Some(scene)
    }

    /// An agent of the rendezvous that alice trusts, and so watches.
    #[track_caller]
    fn trusted(&self, name: &str, allow: &str) -> Outsider {
        let mut agent = self.rogue.join(name);
        agent.ask(&self.record_of(&self.alice_key), "any");
        self.alice.is_asked_by(name);
        self.alice.ask(&format!("approve {name} --allow {allow}"));
        self.alice.sees(name, "trusted");
        settled(&self.alice);
        agent
    }

    fn has_endpoints(&self, to: &PublicKey, of: &PublicKey) -> bool {
        self.rogue
            .told(to)
            .iter()
            .any(|told| matches!(told, FromServer::Push(Push::Slot { from, slot: Slot::Endpoints, .. }) if from == of))
    }

    /// The newest record of an agent.
    #[track_caller]
    fn record_of(&self, agent: &PublicKey) -> Signed<Record> {
        self.rogue.records(agent).pop().expect("it has registered")
    }

    /// The secret key of bob, with which a test signs what bob might have signed at any time.
    #[track_caller]
    fn bobs_secret(&self) -> SecretKey {
        signing::identity_of(&self.bob.host)
    }

    /// Begins an attack on alice.
    #[track_caller]
    fn attack(&self) -> Attack<'_> {
        let address = self.bob.v4();
        Attack {
            scene: self,
            files: files_of(&self.alice),
            known: known_to(&self.alice),
            tunnels: tunnels_of(&self.alice),
            pings: Some(Pings::new(u16::MAX, PACE).start(&self.alice.host, &address)),
        }
    }
}

/// An attack on alice that is going on, and how it was before.
struct Attack<'a> {
    scene: &'a Scene,
    files: BTreeMap<PathBuf, FileState>,
    known: Value,
    tunnels: Value,
    pings: Option<Underway>,
}

impl Attack<'_> {
    /// Does something, and requires that alice refuses exactly this often for this reason because of it, and nothing for
    /// a different reason.
    #[track_caller]
    fn is_refused(&self, what: &str, reason: &str, times: u64, act: impl FnOnce()) {
        let mut expected = refused_by(&self.scene.alice);
        *expected.entry(reason.to_owned()).or_default() += times;
        act();
        let now = || refused_by(&self.scene.alice);
        let is_counted = |counts: &BTreeMap<String, u64>| counts.get(reason) >= expected.get(reason);
        let deadline = std::time::Instant::now() + SHORTLY;
        let mut counts = now();
        while !is_counted(&counts) {
            assert!(std::time::Instant::now() < deadline, "{what}: not {expected:?} but {counts:?}");
            std::thread::sleep(lab::POLL);
            counts = now();
        }
        assert_eq!(counts, expected, "{what}");
        self.has_changed_nothing(what);
    }

    /// Requires that no file was written, that the known agents are the same, and that the tunnels are.
    #[track_caller]
    fn has_changed_nothing(&self, what: &str) {
        let alice = &self.scene.alice;
        assert_eq!(files_of(alice), self.files, "{what}: files of the state folder");
        assert_eq!(known_to(alice), self.known, "{what}: overlay agents");
        assert_eq!(tunnels_of(alice), self.tunnels, "{what}: tunnels");
    }

    /// Ends the attack, and requires that it has changed nothing and that each ping was answered.
    #[track_caller]
    fn was_in_vain(mut self) {
        self.has_changed_nothing("the attack");
        let pings = self.pings.take().expect("they are under way");
        pings.are_enough();
        pings.are_answered();
    }
}

/// What is known of a file. Any write changes it.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    inode: u64,
    written: (i64, i64),
    changed: (i64, i64),
    content: Vec<u8>,
}

/// All files of an agent's state folder.
fn files_of(agent: &Agent) -> BTreeMap<PathBuf, FileState> {
    let mut files = BTreeMap::new();
    collect(&agent.host.dir().join("state"), &mut files);
    files
}

fn collect(path: &Path, files: &mut BTreeMap<PathBuf, FileState>) {
    let metadata = path.symlink_metadata().expect("a file of the state folder");
    let mut content = Vec::new();
    if metadata.is_dir() {
        for entry in path.read_dir().expect("the state folder") {
            collect(&entry.expect("an entry").path(), files);
        }
    } else {
        content = std::fs::read(path).expect("a file of the state folder");
    }
    let state = FileState {
        inode: metadata.ino(),
        written: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        content,
    };
    files.insert(path.to_owned(), state);
}

/// Waits until an agent writes nothing more.
#[track_caller]
fn settled(agent: &Agent) {
    let mut before = files_of(agent);
    within(SHORTLY, "the state folder to settle", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = files_of(agent);
        let is_same = now == before;
        before = now;
        is_same.then_some(())
    });
}

/// What `overlay agents` shows, without the state of the connection to the rendezvous.
#[track_caller]
fn known_to(agent: &Agent) -> Value {
    let mut known = agent.ask("agents");
    known["rendezvous"].take();
    known["meetings"].take();
    known
}

/// What does not change about tunnels while traffic goes on.
#[track_caller]
fn tunnels_of(agent: &Agent) -> Value {
    let status = agent.daemon().status();
    let peers = status["peers"].as_array().expect("`peers` is a list");
    let lasting = ["name", "public_key", "endpoint", "allowed_ips", "allow", "handshakes", "state"];
    peers.iter().map(|peer| lasting.map(|key| peer[key].clone())).map(|peer| Value::from(&peer[..])).collect()
}

/// How often an agent has refused something, by reason, without the zeros.
#[track_caller]
fn refused_by(agent: &Agent) -> BTreeMap<String, u64> {
    let socket = agent.host.runtime_dir().join(format!("{}.sock", agent.host.interface()));
    let line = format!("curl -sS --fail --max-time 10 --unix-socket {} http://localhost/metrics", socket.display());
    let metrics = agent.host.exec(line);
    let of_line = |line: &str| {
        let (reason, count) = line.strip_prefix("overlay_agent_refused_total{reason=\"")?.split_once("\"} ")?;
        Some((reason.to_owned(), count.parse().ok()?))
    };
    let counts: BTreeMap<String, u64> = metrics.lines().filter_map(of_line).collect();
    assert!(!counts.is_empty(), "no refusals in {metrics}");
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}
