//! More strangers than an agent remembers. They speak the protocol of agents, and none of them is one of our daemons.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hpke::rand_core::UnwrapErr;
use overlay_daemon::agent::connection::{Connection, Target, connect};
use overlay_rendezvous::channel::Pinned;
use overlay_rendezvous::letter::Letter;
use overlay_rendezvous::protocol::{Call, Code, Find, FromServer, Reply, Verb};
use overlay_rendezvous::sealed::{self, Heading, MailboxKeys};
use overlay_wire::signed::{
    Abilities, Grant, JoinToken, PublicKey, Record, Request, ScopeList, SecretKey, Share, Signed, TunnelKey, Visibility,
};

use super::*;
use crate::lab::{AT_LENGTH, Agents};

/// How many ask, and how many of them wait for a decision at most.
const ASKING: u32 = 1_100;
const KEPT: usize = 1_000;
/// The hosts that they are on. One host may not write so often.
const HOSTS: u32 = 10;

/// A client of the rendezvous with a key of its own.
pub(super) struct Stranger {
    key: SecretKey,
    network: PublicKey,
    connection: Connection,
    record: Signed<Record>,
    last_call: u32,
}

impl Stranger {
    /// Connects and registers.
    pub(super) async fn new(url: &Pinned, number: u32) -> Stranger {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let key = || SecretKey::from_bytes(&seed);
        let target = Target { rendezvous: url.clone(), identity: Arc::new(key()), epoch: 0, ca_file: None };
        let mut tries = 0;
        let connection = loop {
            match connect(&target).await {
                Ok(connection) => break connection,
                Err(error) => assert!(tries < 20, "{number}: {error}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let mailbox = MailboxKeys::from_secret(&[seed, seed].concat().try_into().expect("64 bytes")).expect("keys");
        let now = unix_now();
        let record = Record {
            network: url.network,
            identity: key().public(),
            sequence: now,
            issued: now,
            fresh_until: now + 3_600_000,
            name: format!("stranger-{number}"),
            ipv4: None,
            tunnel_keys: vec![TunnelKey(seed)],
            mailbox_x25519: mailbox.public_x25519(),
            mailbox_xwing: Some(mailbox.public_xwing()),
            tags: Vec::new(),
            services: Vec::new(),
            visibility: Visibility::Members,
            abilities: Abilities::default(),
            attestation: None,
        };
        let record = Signed::sign(record, &key()).expect("a good record");
        let mut stranger = Stranger { key: key(), network: url.network, connection, record, last_call: 0 };
        stranger.call(Verb::Hello).await;
        stranger.register().await;
        stranger
    }

    async fn register(&mut self) {
        loop {
            let record = self.record.bytes().to_vec().into();
            match self.call(Verb::Register { record }).await {
                Reply::Done => return,
                Reply::Refused { code: Code::Ipv4, ipv4, .. } => {
                    let record =
                        Record { ipv4, sequence: self.record.sequence + 1, ..self.record.clone().into_value() };
                    self.record = Signed::sign(record, &self.key).expect("a good record");
                }
                other => panic!("not registered: {other:?}"),
            }
        }
    }

    /// Shows this token from now on, in requests but not at the rendezvous.
    pub(super) fn shows(&mut self, token: &JoinToken) {
        let attestation = token.attest(&self.key.public(), [7; 16]).expect("a good key");
        let sequence = self.record.sequence + 1;
        let record = Record { attestation: Some(attestation), sequence, ..self.record.clone().into_value() };
        self.record = Signed::sign(record, &self.key).expect("a good record");
    }

    /// Asks for trust, as often as the mailbox is full.
    pub(super) async fn asks(&mut self, to: &PublicKey, reason: &str) {
        let Reply::Found { records, .. } = self.call(Verb::Find { by: Find::Key(*to), after: None }).await else {
            panic!("not found")
        };
        let to = Signed::<Record>::open(&records[0]).expect("a good record");
        let (now, me) = (unix_now(), self.key.public());
        let network = self.network;
        let allow = ScopeList(Vec::new());
        let grant = Grant {
            network,
            issuer: me,
            subject: to.identity,
            sequence: now,
            issued: now,
            expires: None,
            allow,
            request: None,
        };
        let grant = Signed::sign(grant, &self.key).expect("a good grant");
        let mut id = [0; 16];
        id[..8].copy_from_slice(&now.to_be_bytes());
        let request = Request {
            network,
            from: me,
            to: to.identity,
            id,
            issued: now,
            expires: now + 3_600_000,
            reason: reason.to_owned(),
            want: ScopeList(Vec::new()),
            grant: grant.bytes().to_vec(),
            psk_share: Share([9; 32]),
        };
        let request = Signed::sign(request, &self.key).expect("a good request");
        let (request, record) = (request.bytes().to_vec().into(), self.record.bytes().to_vec().into());
        let heading = Heading { network: &network, sender: &me, recipient: &to.identity, label: &id };
        let letter = Letter::Request { request, record }.write();
        let sealed = sealed::seal(&to, heading, &letter, &mut UnwrapErr(getrandom::SysRng)).expect("a good key");
        loop {
            let verb = Verb::Send { to: to.identity, message: id, sealed: sealed.clone().into(), permit: None };
            match self.call(verb).await {
                Reply::Done => return,
                Reply::Refused { code: Code::Full, .. } => tokio::time::sleep(Duration::from_millis(100)).await,
                other => panic!("not sent: {other:?}"),
            }
        }
    }

    /// Calls until the rendezvous has time, and returns its answer.
    async fn call(&mut self, verb: Verb) -> Reply {
        loop {
            self.last_call += 1;
            let call = Call { id: self.last_call, verb: verb.clone() };
            self.connection.calls.send(&call).await.expect("sent");
            let reply = loop {
                match self.connection.messages.next().await.expect("an answer") {
                    FromServer::Answer(answer) if answer.id == self.last_call => break answer.reply,
                    _ => {}
                }
            };
            match reply {
                Reply::Refused { code: Code::Later, wait, .. } => {
                    tokio::time::sleep(Duration::from_millis(wait.unwrap_or(100).into())).await;
                }
                reply => return reply,
            }
        }
    }
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis().try_into().expect("soon enough")
}

/// Runs something of the network protocol on a host.
pub(super) fn on<T: Send>(host: &Host, act: impl AsyncFnOnce() -> T + Send) -> T {
    inside(host, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(act())
    })
}

/// The resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_thousand_strangers_wait_and_the_rest_is_refused_while_friends_get_through() {
    let Some(mut world) = Agents::new("strangers") else { return };
    let alice = world.agent("alice");
    let host = world.host("bob");
    Agent::init(&host, "bob", &world.url).succeeded("overlay init");
    let mut bob = Agent::of(&host);
    bob.start_logging("info,overlay_daemon::agent=debug");
    bob.is_registered("bob");
    befriend(&alice, "--want icmp", &bob, "");
    let before = resident(bob.daemon().pid());
    let url: Pinned = world.url.parse().expect("the URL of a rendezvous");
    let me: PublicKey = bob.ask("agents")["identity"].as_str().expect("a key").parse().expect("a key");
    let hosts: Vec<_> = (0..HOSTS).map(|number| world.host(&format!("crowd{number}"))).collect();

    // A stranger that writes again replaces what it wrote.
    on(&hosts[0], async || {
        let mut stranger = Stranger::new(&url, 0).await;
        for reason in ["first", "second", "third"] {
            stranger.asks(&me, reason).await;
        }
    });
    within(SHORTLY, "the latest request", || {
        let pending = bob.ask("pending");
        let requests = pending["requests"].as_array()?;
        (requests.len() == 1 && requests[0]["reason"] == "third").then_some(())
    });

    let began = Instant::now();
    std::thread::scope(|scope| {
        for (number, host) in (0..).zip(&hosts) {
            let url = &url;
            scope.spawn(move || {
                on(host, async || {
                    for stranger in (1..ASKING).filter(|stranger| stranger % HOSTS == number) {
                        Stranger::new(url, stranger).await.asks(&me, &format!("reason {stranger}")).await;
                    }
                });
            });
        }
    });
    eprintln!("{ASKING} requests were taken by the rendezvous in {:.1} s", began.elapsed().as_secs_f64());

    let count = || bob.ask("pending")["requests"].as_array().map(Vec::len).expect("a list");
    within(AT_LENGTH, "a full table", || (count() == KEPT).then_some(()));
    let refused = || bob.daemon().log().matches("a letter is refused reason=\"full\"").count();
    within(SHORTLY, "the rest to be refused", || (refused() == ASKING as usize - KEPT).then_some(()));
    // One file for each, and one for alice.
    let files = || std::fs::read_dir(bob.state().join("lab/peers")).expect("a folder").count();
    assert_eq!((count(), files()), (KEPT, KEPT + 1));

    // A friend's wider wish gets in.
    alice.ask("handshake bob --want tcp/443");
    bob.is_asked_by("alice");
    assert_eq!((count(), files()), (KEPT + 1, KEPT + 1));
    alice.host.reaches(&bob.v4());

    let began = Instant::now();
    let table = bob.verb("pending").succeeded("overlay pending");
    let took = began.elapsed();
    assert_eq!(table.lines().count(), KEPT + 2, "a head, and a line for each");
    let grown = resident(bob.daemon().pid()).saturating_sub(before);
    eprintln!("overlay pending: {took:?}, {} bytes; memory: {before} KiB and {grown} KiB more", table.len());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(grown < 64 * 1_024, "{grown} KiB");

    // A stranger that a person refuses makes room for one more, and for no more than one.
    let first = bob.ask("pending")["requests"][0]["identity"].as_str().expect("a key").to_owned();
    bob.ask(&format!("reject {first}"));
    on(&hosts[0], async || {
        for stranger in [ASKING, ASKING + 1] {
            Stranger::new(&url, stranger).await.asks(&me, "late").await;
        }
    });
    within(SHORTLY, "one more refusal", || (refused() == ASKING as usize - KEPT + 1).then_some(()));
    assert_eq!((count(), files()), (KEPT + 1, KEPT + 2));

    bob.kill9();
    let began = Instant::now();
    bob.start();
    eprintln!("a start with {KEPT} requests: {:?}", began.elapsed());
    assert_eq!(bob.ask("pending")["requests"].as_array().map(Vec::len), Some(KEPT + 1));
}
