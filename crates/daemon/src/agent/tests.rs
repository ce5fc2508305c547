//! A whole agent without a rendezvous: what is on disk, what is open, and what people are answered.

use overlay_rendezvous::letter::Letter;
use overlay_wire::signed::{JoinToken, Refused, ScopeList, SecretKey};
use tokio::sync::oneshot;

use super::init::{Wanted, init};
use super::request::{AgentCall, AgentReply, AgentRequest, Approve, Named};
use super::time::unix_now;
use super::trust::{Effect, Terms, sample};
use super::*;
use crate::config::{Approved, Config};

mod health;
mod tokens;

const URL: &str = "https://127.0.0.1:1#25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena\
                   .hvabpq7iioevvevxbktu2g36xsojqlgpf3cjndgazvk7ckxumyga";

/// The folder of an agent that can be opened again and again.
struct Home {
    folder: tempfile::TempDir,
    config: config::Agent,
}

impl Home {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let wanted = Wanted {
            name: "bob".to_owned(),
            rendezvous: URL.to_owned(),
            network: Some("lab".to_owned()),
            config: folder.path().join("bob.toml"),
            state_dir: folder.path().join("state"),
            ..Wanted::default()
        };
        init(&wanted).await.expect("a new agent");
        let config = Config::load(&wanted.config).unwrap_or_else(|error| panic!("{}", error.render(false)));
        Self { folder, config: config.agent.expect("agent mode") }
    }

    fn open(&self) -> Agent {
        self.try_open().unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn try_open(&self) -> Result<Agent, Failure> {
        Agent::open(&self.config, &self.folder.path().join("state"))
    }

    /// Keeps relations from being written, until it is dropped.
    fn full_disk(&self) -> FullDisk {
        let path = self.folder.path().join("state/lab/peers/.new");
        std::fs::create_dir(&path).expect("a folder where a file is written first");
        FullDisk(path)
    }
}

struct FullDisk(std::path::PathBuf);

impl Drop for FullDisk {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).expect("our own folder");
    }
}

/// An agent on a different host.
struct Peer {
    key: SecretKey,
    book: Book,
    record: Signed<Record>,
}

impl Peer {
    fn new(byte: u8, name: &str, of: &Agent) -> Self {
        let key = SecretKey::from_bytes(&[byte; 32]);
        let record = sample::record(of.config.network_key, &key, unix_now(), |record| {
            record.name = name.to_owned();
            record.mailbox_x25519 = of.record.mailbox_x25519;
        });
        let book = Book::new(of.config.network_key, own::copy(&key), record.tunnel_keys.clone(), []);
        Self { key, book, record }
    }

    fn me(&self) -> PublicKey {
        self.book.me()
    }

    /// Signs the record anew, after a change.
    fn change(&mut self, change: impl FnOnce(&mut Record, PublicKey)) {
        let mut record = self.record.clone().into_value();
        change(&mut record, self.me());
        record.sequence += 1;
        self.record = Signed::sign(record, &self.key).expect("a good record");
    }

    /// Asks the agent for trust.
    fn asks(&mut self, agent: &mut Agent) {
        self.wants(agent, &[]);
    }

    /// Asks the agent for trust, and to open something there.
    fn wants(&mut self, agent: &mut Agent, want: &[&str]) {
        let want = ScopeList(want.iter().map(|&scope| scope.to_owned()).collect());
        let what = (String::new(), want, Terms::default());
        let effects = self.book.ask(&agent.record, &self.record, what, unix_now(), letters::chance());
        for letter in effects.expect("possible").into_iter().filter_map(sent) {
            agent.on_letter(self.me(), &letter);
        }
    }
}

fn sent(effect: Effect) -> Option<Letter> {
    match effect {
        Effect::Send { letter, .. } => Some(letter),
        _ => None,
    }
}

/// What a call is answered, if it is answered at once.
fn ask(agent: &mut Agent, request: AgentRequest) -> Option<Result<AgentReply, Failure>> {
    let (reply, mut answered) = oneshot::channel();
    agent.on_call(AgentCall { request, uid: 0 }, reply);
    agent.give_answers();
    answered.try_recv().ok()
}

fn decide(agent: &mut Agent, request: AgentRequest) -> Result<String, Failure> {
    match ask(agent, request).expect("an answer at once")? {
        AgentReply::Decided(decided) => Ok(decided.state),
        other => panic!("a decision, not {other:?}"),
    }
}

fn approve(peer: impl ToString) -> AgentRequest {
    AgentRequest::Approve(Approve { peer: peer.to_string(), ..Approve::default() })
}

fn untrust(peer: impl ToString) -> AgentRequest {
    AgentRequest::Untrust(Named { peer: peer.to_string() })
}

fn is_open(agent: &Agent, peer: &Peer) -> bool {
    agent.book.relation(&peer.me()).is_some_and(|relation| relation.is_open(agent.moment()))
}

#[tokio::test]
async fn what_was_taken_back_stays_closed_while_it_cannot_be_written() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut alice = Peer::new(2, "alice", &bob);
    alice.asks(&mut bob);
    assert_eq!(decide(&mut bob, approve(alice.me())).expect("she asked"), "trusted");

    let disk = home.full_disk();
    decide(&mut bob, untrust("alice")).expect_err("it is not on disk");
    assert!(!is_open(&bob, &alice), "closed all the same");
    decide(&mut bob, untrust("alice")).expect_err("it is still not on disk");
    drop(disk);
    assert_eq!(decide(&mut bob, untrust("alice")).expect("it can be written"), "untrusted");
    drop(bob);
    assert!(!is_open(&home.open(), &alice));
}

/// The timer of an end and a decision may come at the same moment, in either order.
#[tokio::test]
async fn a_grant_that_has_ended_is_noted_before_the_next_decision() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut alice = Peer::new(2, "alice", &bob);
    alice.asks(&mut bob);
    let for_a_minute =
        AgentRequest::Approve(Approve { peer: alice.me().to_string(), seconds: Some(60), ..Approve::default() });
    decide(&mut bob, for_a_minute).expect("she asked");
    let mut later = now();
    later.unix += 60_000;
    bob.time.note(later);
    decide(&mut bob, approve(alice.me())).expect("she was trusted");
    let logged = bob.log.newest(None, 9);
    let decisions: Vec<_> = logged.iter().rev().map(|decision| decision.decision.as_str()).collect();
    assert_eq!(decisions, ["approved", "expired", "changed"]);
}

#[tokio::test]
async fn what_was_taken_back_is_written_as_soon_as_it_can_be() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut alice = Peer::new(2, "alice", &bob);
    alice.asks(&mut bob);
    decide(&mut bob, approve(alice.me())).expect("she asked");
    let disk = home.full_disk();
    decide(&mut bob, untrust("alice")).expect_err("it is not on disk");
    bob.write_again();
    assert!(bob.unwritten.contains(&alice.me()));
    drop(disk);
    bob.write_again();
    assert!(bob.unwritten.is_empty());
    drop(bob);
    assert!(!is_open(&home.open(), &alice));
}

#[tokio::test]
async fn an_approval_that_cannot_be_written_opens_nothing_and_loses_nothing() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut alice = Peer::new(2, "alice", &bob);
    alice.asks(&mut bob);
    let disk = home.full_disk();
    decide(&mut bob, approve(alice.me())).expect_err("it is not on disk");
    assert!(!is_open(&bob, &alice));
    drop(disk);
    assert_eq!(decide(&mut bob, approve(alice.me())).expect("the request still waits"), "trusted");

    // Neither does a change of a right.
    let narrower = Approve { peer: "alice".to_owned(), allow: Some(vec!["icmp".to_owned()]), seconds: None };
    let disk = home.full_disk();
    decide(&mut bob, AgentRequest::Approve(narrower.clone())).expect_err("it is not on disk");
    assert!(is_open(&bob, &alice), "what is on disk holds");
    drop(disk);
    assert_eq!(decide(&mut bob, AgentRequest::Approve(narrower)).expect("written"), "changed");
}

#[tokio::test]
async fn a_letter_that_cannot_be_written_comes_again() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut alice = Peer::new(2, "alice", &bob);
    let disk = home.full_disk();
    alice.asks(&mut bob);
    assert!(bob.unsaved.is_some(), "so it is not acknowledged");
    assert_eq!(bob.book.relations().count(), 0);
    drop(disk);
    alice.asks(&mut bob);
    assert_eq!(bob.book.pending(unix_now()).count(), 1);
}

#[tokio::test]
async fn a_stranger_is_not_approved_by_the_name_that_it_claims() {
    let home = Home::new().await;
    let mut bob = home.open();
    let (mut alice, mut mallory) = (Peer::new(2, "alice", &bob), Peer::new(4, "alice", &bob));
    alice.asks(&mut bob);
    // Alone, too: the rendezvous is asked whose the name is.
    assert!(ask(&mut bob, approve("alice")).is_none(), "it waits for the rendezvous");
    let prefix = format!("alice@{}", &alice.me().to_string()[..16]);
    assert_eq!(decide(&mut bob, approve(prefix)).expect("the key is named"), "trusted");

    mallory.asks(&mut bob);
    assert_eq!(decide(&mut bob, approve("alice")).expect("the one that trust has pinned"), "changed");
    assert_eq!(decide(&mut bob, untrust("alice")).expect("the one that trust has pinned"), "untrusted");
    assert!(!is_open(&bob, &alice) && !is_open(&bob, &mallory));
    assert_eq!(bob.book.pending(unix_now()).count(), 1, "mallory's request waits");
    let two_strangers = Peer::new(5, "carol", &bob);
    for byte in [5, 6] {
        Peer::new(byte, "carol", &bob).asks(&mut bob);
    }
    let error = decide(&mut bob, approve("carol")).expect_err("two of them");
    assert_eq!(error.code, ExitKind::Conflict, "{}", two_strangers.me());
}

#[tokio::test]
async fn a_pending_agent_is_found_by_its_key_alone() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut mallory = Peer::new(4, "alice", &bob);
    mallory.asks(&mut bob);
    let found = |bob: &mut Agent, who: String| matches!(ask(bob, AgentRequest::Whois(who)), Some(Ok(_)));
    assert!(!found(&mut bob, "alice".to_owned()), "the rendezvous is asked");
    assert!(found(&mut bob, mallory.me().to_string()));
    assert!(found(&mut bob, mallory.record.ipv6().to_string()), "the address follows from the key");
}

#[tokio::test]
async fn two_daemons_never_run_one_agent() {
    let home = Home::new().await;
    let first = home.open();
    let error = home.try_open().err().expect("it runs already");
    assert_eq!(error.code, ExitKind::Conflict);
    drop(first);
    home.open();
}

#[tokio::test]
async fn a_grant_that_has_ended_stays_ended_whatever_the_clock_says_after_a_reboot() {
    let home = Home::new().await;
    let mut bob = home.open();
    let mut alice = Peer::new(2, "alice", &bob);
    alice.asks(&mut bob);
    let approve = Approve { peer: alice.me().to_string(), allow: None, seconds: Some(3_600) };
    decide(&mut bob, AgentRequest::Approve(approve)).expect("she asked");
    assert!(is_open(&bob, &alice), "for an hour");
    drop(bob);
    let bob = home.open();
    assert!(is_open(&bob, &alice), "a restart changes nothing");
    drop(bob);
    // The host has reached tomorrow. The clock says today again.
    let path = home.folder.path().join("state/lab/time");
    let written: u64 = std::fs::read_to_string(&path).expect("written with the grant").trim().parse().expect("a time");
    assert!(unix_now().abs_diff(written) < 60_000);
    std::fs::write(&path, format!("{}\n", written + 86_400_000)).expect("our own file");
    let mut bob = home.open();
    assert!(!is_open(&bob, &alice));
    // A new grant holds for as long as it says.
    let approve = Approve { peer: alice.me().to_string(), allow: None, seconds: Some(3_600) };
    decide(&mut bob, AgentRequest::Approve(approve)).expect("she is known");
    assert!(is_open(&bob, &alice));
}
