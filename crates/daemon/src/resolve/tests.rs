//! Patience under a paused clock: which names are queried when, and which answer counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;

const ALICE: PeerKey = PeerKey([1; 32]);
const BOTH: Families = Families { v4: true, v6: true };

/// A name server that answers from a script (repeating the last line forever) and remembers when it was queried.
#[derive(Clone)]
struct Server {
    script: Arc<Mutex<VecDeque<Option<&'static str>>>>,
    asked: Arc<Mutex<Vec<Duration>>>,
    start: Instant,
}

impl Server {
    fn new(script: &[Option<&'static str>]) -> Self {
        let script = Arc::new(Mutex::new(script.iter().copied().collect()));
        Self { script, asked: Arc::default(), start: Instant::now() }
    }

    fn look_up(&self) -> impl Fn(String, u16) -> std::future::Ready<io::Result<Vec<SocketAddr>>> + Send + use<> {
        let server = self.clone();
        move |_host, port| {
            server.asked.lock().unwrap().push(server.start.elapsed());
            let mut script = server.script.lock().unwrap();
            let line = if script.len() > 1 { script.pop_front().unwrap() } else { script[0] };
            std::future::ready(match line {
                Some(line) => Ok(line.split(' ').map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect()),
                None => Err(io::Error::other("no such host")),
            })
        }
    }

    fn asked_at(&self) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(Duration::as_secs).collect()
    }
}

fn alice() -> NamedEndpoint {
    NamedEndpoint { peer: ALICE, host: "alice.example".into(), port: 51820 }
}

/// Returns the report when alice's name, or that of a different peer, resolves to these addresses.
fn answer(peer: PeerKey, addresses: &[&str]) -> Option<Answer> {
    Some(Answer { peer, addresses: addresses.iter().map(|address| address.parse().unwrap()).collect() })
}

fn start(server: &Server, families: Families) -> (Resolver, mpsc::Receiver<Answer>) {
    let (sender, receiver) = mpsc::channel(4);
    (spawn_with(vec![alice()], families, sender, server.look_up()), receiver)
}

#[tokio::test(start_paused = true)]
async fn a_name_that_fails_is_asked_again_after_1_2_4_8_16_and_then_every_30_seconds() {
    let server = Server::new(&[None]);
    let (_resolver, _answers) = start(&server, BOTH);
    tokio::time::sleep(Duration::from_secs(92)).await;
    assert_eq!(server.asked_at(), [0, 1, 3, 7, 15, 31, 61, 91]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_failures_arrives_and_is_asked_for_again_every_30_seconds_until_a_handshake() {
    let server = Server::new(&[None, Some("192.0.2.1"), Some("192.0.2.1"), Some("192.0.2.9")]);
    let (resolver, mut answers) = start(&server, BOTH);
    assert_eq!(answers.recv().await, answer(ALICE, &["192.0.2.1:51820"]));
    assert_eq!(answers.recv().await, answer(ALICE, &["192.0.2.1:51820"]));
    assert_eq!(answers.recv().await, answer(ALICE, &["192.0.2.9:51820"]));
    resolver.on_handshake_completed(ALICE);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.asked_at(), [0, 1, 31, 61]);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_later_asks_at_once_and_then_every_30_seconds() {
    let server = Server::new(&[Some("192.0.2.1")]);
    let (resolver, mut answers) = start(&server, BOTH);
    answers.recv().await.unwrap();
    resolver.on_handshake_completed(ALICE);
    tokio::time::sleep(Duration::from_secs(100)).await;
    resolver.on_handshake_failed(ALICE);
    answers.recv().await.unwrap();
    // A second report changes nothing, because the name is already being queried.
    resolver.on_handshake_failed(ALICE);
    answers.recv().await.unwrap();
    assert_eq!(server.asked_at(), [0, 100, 130]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_to_answer_has_its_name_asked_at_once_and_soon_again() {
    let server = Server::new(&[Some("192.0.2.1")]);
    let (resolver, mut answers) = start(&server, BOTH);
    tokio::spawn(async move { while answers.recv().await.is_some() {} });
    tokio::time::sleep(Duration::from_secs(1)).await;
    resolver.on_handshake_completed(ALICE);
    tokio::time::sleep(Duration::from_secs(99)).await;
    resolver.on_answering(ALICE, false);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(server.asked_at(), [0, 100, 105, 115, 135, 165, 195]);
    resolver.on_answering(ALICE, true);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(server.asked_at().len(), 7, "it was heard");
    // The peer comes and goes: its name is queried at most every five seconds.
    for _ in 0..50 {
        resolver.on_answering(ALICE, false);
        tokio::time::sleep(Duration::from_millis(100)).await;
        resolver.on_answering(ALICE, true);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(server.asked_at().len() <= 7 + 3, "{:?}", server.asked_at());
}

#[tokio::test(start_paused = true)]
async fn a_first_initiation_that_goes_unanswered_asks_again_and_a_name_that_fails_keeps_its_back_off() {
    let server = Server::new(&[Some("192.0.2.1"), Some("192.0.2.1"), None]);
    let (resolver, mut answers) = start(&server, BOTH);
    tokio::spawn(async move { while answers.recv().await.is_some() {} });
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    resolver.on_answering(ALICE, false);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(server.asked_at(), [0, 5, 10]);
    for _ in 0..10 {
        resolver.on_answering(ALICE, false);
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(server.asked_at(), [0, 5, 10, 11, 13, 17, 25]);
}

#[tokio::test(start_paused = true)]
async fn all_addresses_of_families_with_a_socket_count() {
    for (families, expected) in [
        (BOTH, &["[2001:db8::1]:51820", "192.0.2.1:51820", "192.0.2.2:51820"][..]),
        (Families { v4: true, v6: false }, &["192.0.2.1:51820", "192.0.2.2:51820"]),
        (Families { v4: false, v6: true }, &["[2001:db8::1]:51820"]),
    ] {
        let server = Server::new(&[Some("2001:db8::1 192.0.2.1 192.0.2.2")]);
        let (_resolver, mut answers) = start(&server, families);
        assert_eq!(answers.recv().await, answer(ALICE, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_without_an_address_of_our_family_is_asked_again_as_if_it_had_failed() {
    let server = Server::new(&[Some("2001:db8::1"), Some("2001:db8::1 192.0.2.1")]);
    let (_resolver, mut answers) = start(&server, Families { v4: true, v6: false });
    assert_eq!(answers.recv().await, answer(ALICE, &["192.0.2.1:51820"]));
    assert_eq!(server.asked_at(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_asks_for_new_names_at_once_and_leaves_the_others_alone() {
    let server = Server::new(&[Some("192.0.2.1")]);
    let (resolver, mut answers) = start(&server, BOTH);
    answers.recv().await.unwrap();
    resolver.on_handshake_completed(ALICE);
    let bob = NamedEndpoint { peer: PeerKey([2; 32]), host: "bob.example".into(), port: 1 };
    tokio::time::sleep(Duration::from_secs(5)).await;
    resolver.set_peers(vec![alice(), bob.clone()]);
    assert_eq!(answers.recv().await, answer(bob.peer, &["192.0.2.1:1"]));
    resolver.set_peers(vec![]);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(server.asked_at(), [0, 5]);
    assert!(answers.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_a_name_that_was_replaced_meanwhile_is_not_believed() {
    let mut names = Names::default();
    names.replace(vec![alice()], Instant::now());
    let (asked, _) = names.take_due(1, Instant::now());
    let moved = NamedEndpoint { port: 7, ..alice() };
    names.replace(vec![moved], Instant::now());
    let answer = Ok(vec!["192.0.2.1:51820".parse().unwrap()]);
    assert_eq!(names.on_answer(&asked[0], answer, BOTH, Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn no_more_look_ups_than_the_limit_are_under_way_and_all_names_get_their_turn() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let peers: Vec<_> = (0..50).map(|i| NamedEndpoint { peer: PeerKey([i; 32]), ..alice() }).collect();
    let (sender, mut answers) = mpsc::channel(4);
    let (count, highest) = (Arc::clone(&under_way), Arc::clone(&most));
    let _resolver = spawn_with(peers, BOTH, sender, move |_host, port| {
        let (count, highest) = (Arc::clone(&count), Arc::clone(&highest));
        async move {
            highest.fetch_max(count.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            count.fetch_sub(1, SeqCst);
            Ok(vec![SocketAddr::new([192, 0, 2, 1].into(), port)])
        }
    });
    let mut answered = std::collections::HashSet::new();
    while answered.len() < 50 {
        answered.insert(answers.recv().await.expect("running").peer);
    }
    assert_eq!(most.load(SeqCst), MAX_LOOKUPS);
}

#[tokio::test]
async fn the_hosts_own_names_are_resolved() {
    let (sender, mut answers) = mpsc::channel(4);
    let here = NamedEndpoint { host: "localhost".into(), ..alice() };
    let _resolver = spawn(vec![here], BOTH, sender);
    let Answer { peer, addresses } = answers.recv().await.expect("an answer");
    assert_eq!(peer, ALICE);
    assert!(addresses.iter().all(|address| address.port() == 51820 && address.ip().is_loopback()), "{addresses:?}");
}
