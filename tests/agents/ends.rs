//! How trust ends: taken back by a person, or by the time it was granted for.

use super::*;
use crate::lab::{A_SECOND, Agents, Process, SHORTLY, services, within};

/// After this long without a packet, a flow has stopped.
const QUIET: Duration = Duration::from_secs(2);

/// A download through the tunnel, whose packets are counted where they come out of it.
struct Download {
    arrivals: Counter,
    _programs: (Process, Process),
}

/// Starts a download that takes minutes, and waits until it runs.
#[track_caller]
fn download(alice: &Agent, bob: &Agent) -> Download {
    let server = bob.serves();
    bob.host.exec(["truncate", "-s", "2G", &bob.host.dir().join("www/large").display().to_string()]);
    let arrivals = Counter::new(&alice.host, &format!("iifname {} tcp sport 8000", alice.host.interface()));
    let url = format!("http://{}:{}/large", bob.v4(), services::HTTP);
    let client = alice.host.spawn(format!("curl -sS --noproxy * --limit-rate 8M -o /dev/null {url}"));
    for packets in [100, 200, 300] {
        within(SHORTLY, "the download", || (arrivals.packets() > packets).then_some(()));
    }
    Download { arrivals, _programs: (server, client) }
}

impl Download {
    /// Requires that nothing arrives any more once a second has passed since now. The client goes on asking meanwhile.
    #[track_caller]
    fn is_over_within_a_second(&self) {
        let from = Instant::now();
        let mut last = (self.arrivals.packets(), from);
        within(SHORTLY, "the download to stop", || {
            let now = (self.arrivals.packets(), Instant::now());
            if now.0 != last.0 {
                last = now;
            }
            (now.1.duration_since(last.1) > QUIET).then_some(())
        });
        let took = last.1.duration_since(from);
        eprintln!("the last packet came {:.0} ms after the command", took.as_secs_f64() * 1_000.0);
        assert!(took <= Duration::from_secs(1), "{took:?}");
    }
}

#[test]
fn untrust_ends_a_transfer_within_a_second() {
    let Some(mut world) = Agents::new("untrust") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let download = download(&alice, &bob);
    bob.ask("untrust alice");
    download.is_over_within_a_second();
    assert_eq!(bob.peer("alice")["state"], "untrusted");
    // The other side is told.
    alice.sees("bob", "untrusted");
    is_refused_at_once(&alice.host, &bob.v4(), services::HTTP);
}

#[test]
fn untrust_by_the_receiver_ends_a_transfer_within_a_second() {
    let Some(mut world) = Agents::new("untrust, receiver") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let download = download(&alice, &bob);
    alice.ask("untrust bob");
    download.is_over_within_a_second();
    bob.sees("alice", "untrusted");
}

#[test]
fn untrust_needs_no_rendezvous() {
    let Some(mut world) = Agents::new("untrust alone") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000", &bob, "");
    let download = download(&alice, &bob);
    world.kill();
    bob.ask("untrust alice");
    download.is_over_within_a_second();
    assert_eq!(bob.peer("alice")["state"], "untrusted");
    // She was told inside the tunnel.
    assert_eq!(alice.peer("bob")["state"], "untrusted");
    is_refused_at_once(&alice.host, &bob.v4(), services::HTTP);
}

#[test]
fn a_change_of_a_right_needs_no_rendezvous() {
    let Some(mut world) = Agents::new("change alone") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    let _server = bob.serves();
    is_refused_at_once(&alice.host, &v4, services::HTTP);
    world.kill();
    bob.ask("approve alice --allow icmp --allow tcp/8000");
    within(SHORTLY, "alice to know", || (alice.peer("bob")["opens"].as_array().map(Vec::len) == Some(2)).then_some(()));
    gets_page(&alice, &v4);
}

#[test]
fn untrust_holds_for_a_peer_that_was_dead_at_that_time() {
    let Some(mut world) = Agents::new("untrust the dead") else { return };
    let (mut alice, bob) = world.two();
    befriend(&alice, "--want tcp/8000 --want icmp", &bob, "");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    alice.kill9();
    let began = Instant::now();
    bob.ask("untrust alice");
    assert!(began.elapsed() < A_SECOND, "{:?}", began.elapsed());
    // It comes back believing that it is trusted, and is told.
    alice.start();
    alice.sees("bob", "untrusted");
    assert_ne!(alice.host.run(format!("ping -n -q -c 2 -i 0.3 -W 1 {v4}")).code, 0);
    let status = bob.daemon().status();
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(0), "{status:#}");
}

#[test]
fn a_grant_ends_at_its_second() {
    let Some(mut world) = Agents::new("expiry") else { return };
    let (alice, bob) = world.two();
    alice.ask("handshake bob --want icmp");
    bob.is_asked_by("alice");
    let began = Instant::now();
    bob.ask("approve alice --for 3s");
    let approved = Instant::now();
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    let ping = alice.host.spawn(format!("ping -n -i 0.05 -W 1 {v4}"));
    let answers = || ping.stdout().matches("bytes from").count();
    let mut last = (answers(), Instant::now());
    within(SHORTLY, "the flow to stop", || {
        let now = (answers(), Instant::now());
        if now.0 != last.0 {
            last = now;
        }
        (now.1.duration_since(last.1) > QUIET).then_some(())
    });
    let (least, most) = (last.1.duration_since(approved), last.1.duration_since(began));
    eprintln!("granted for 3 s, the last answer came after {:.2} s", most.as_secs_f64());
    assert!(most >= Duration::from_millis(2_800) && least <= Duration::from_secs(4), "{least:?} to {most:?}");
    assert_eq!((&alice.peer("bob")["state"], &bob.peer("alice")["state"]), (&"expired".into(), &"expired".into()));
}
