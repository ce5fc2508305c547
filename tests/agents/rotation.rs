//! An agent changes its tunnel key: connections stay, trust stays, and a key that others know is answered no more.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use overlay_sim::initiator::{Initiator, Timestamp};

use super::*;
use crate::lab::{AT_LENGTH, Agents, services};

/// How long a new key may take to be in use where both sides and the rendezvous are there.
const IN_USE: Duration = Duration::from_secs(3);
/// A day in milliseconds.
pub(super) const DAY: u64 = 24 * 3_600 * 1_000;

pub(super) fn key_file(agent: &Agent, name: &str) -> PathBuf {
    agent.host.dir().join("state/lab").join(name)
}

/// The lines of the file with the tunnel key.
pub(super) fn tunnel_file(agent: &Agent) -> Vec<String> {
    let text = fs::read_to_string(key_file(agent, "tunnel.key")).expect("the tunnel key");
    text.lines().map(str::to_owned).collect()
}

fn private_key(line: &str) -> [u8; 32] {
    STANDARD.decode(line).expect("base64").try_into().expect("32 bytes")
}

/// The public key that an agent has for itself.
pub(super) fn own_key(agent: &Agent) -> String {
    agent.daemon().status()["interface"]["public_key"].as_str().expect("a key").to_owned()
}

/// The only peer of an agent, as its data plane has it.
pub(super) fn peer(agent: &Agent) -> Value {
    let status = agent.daemon().status();
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(1), "{status:#}");
    status["peers"][0].clone()
}

/// Waits until `from` uses the tunnel key that `to` has now, and `to` answers no other one. Returns how long that took.
#[track_caller]
pub(super) fn is_rotated(from: &Agent, to: &Agent) -> Duration {
    let began = Instant::now();
    within(SHORTLY, "the new key to be in use", || {
        (peer(from)["public_key"] == *own_key(to) && tunnel_file(to).len() == 1).then_some(())
    });
    began.elapsed()
}

/// A download that takes about this many seconds.
fn download(from: &Agent, to: &Agent, seconds: u32, name: &str) -> (crate::lab::Process, PathBuf) {
    let file = services::random_file(&to.host, &format!("www/{name}"), u64::from(seconds) * 4_000_000);
    let into = from.host.dir().join(name);
    let url = format!("http://{}:{}/{name}", to.v4(), services::HTTP);
    let line = format!("curl -sS --fail --noproxy * --limit-rate 4M --max-time 100 -o {} {url}", into.display());
    (from.host.spawn(line), file)
}

#[test]
fn transfers_in_both_directions_survive_rotations_of_both_sides() {
    let Some(mut world) = Agents::new("rotation") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let _servers = (alice.serves(), bob.serves());
    gets_page(&alice, &bob.v4());
    let known = |agent: &Agent| {
        let peer = peer(agent);
        (peer["path_mtu"].clone(), peer["endpoint"].clone())
    };
    for (agent, peer) in [(&alice, "bob"), (&bob, "alice")] {
        agent.verb(format!("ping {peer} --until-direct -i 0.2")).succeeded("overlay ping --until-direct");
    }
    within(SHORTLY, "the MTU of the path", || {
        [&alice, &bob].iter().all(|agent| peer(agent)["path_mtu"]["state"] == "found").then_some(())
    });
    let before = (known(&alice), known(&bob), own_key(&alice), own_key(&bob));
    let sent = [&alice, &bob].map(|agent| peer(agent)["sent_packets"].clone());

    let transfers = [download(&alice, &bob, 10, "down"), download(&bob, &alice, 10, "up")];
    let pings = alice.host.spawn(format!("ping -n -q -i 0.01 -c 800 -W 2 {}", bob.v4()));
    thread::sleep(Duration::from_secs(1));
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        let rotated = one.ask("key rotate");
        assert_eq!(rotated["schema"], "overlay.rotated.v1", "{rotated:#}");
        assert_eq!(rotated["tunnel_key"], *own_key(one));
        let took = is_rotated(other, one);
        eprintln!("{} has a new key, used after {:.2} s", one.host.name(), took.as_secs_f64());
        assert!(took <= IN_USE, "{took:?}");
    }
    // Both at once, while the transfers still run.
    thread::scope(|scope| {
        scope.spawn(|| alice.ask("key rotate"));
        scope.spawn(|| bob.ask("key rotate"));
    });
    let took = is_rotated(&alice, &bob).max(is_rotated(&bob, &alice));
    eprintln!("both have new keys, used after {:.2} s", took.as_secs_f64());

    let pinged = pings.succeed_within(AT_LENGTH);
    eprintln!("{}", pinged.lines().filter(|line| line.contains("loss") || line.contains("rtt")).collect::<String>());
    for ((transfer, file), agent) in transfers.into_iter().zip([&alice, &bob]) {
        transfer.succeed_within(AT_LENGTH);
        let arrived = agent.host.dir().join(file.file_name().expect("a file"));
        assert_eq!(services::sha256(&arrived), services::sha256(&file));
    }
    let lost = pinged.split(", ").find_map(|part| part.strip_suffix("% packet loss")).expect("a summary of ping");
    assert!(lost.parse::<f64>().expect("a number") < 0.5, "{pinged}");
    let after = (known(&alice), known(&bob), own_key(&alice), own_key(&bob));
    assert_eq!((&before.0, &before.1), (&after.0, &after.1), "the path and its MTU");
    assert!(before.2 != after.2 && before.3 != after.3);
    for (agent, before) in [&alice, &bob].iter().zip(sent) {
        let after = peer(agent)["sent_packets"].clone();
        assert!(after.as_u64() > before.as_u64(), "it is the same peer: {before} to {after}");
    }
}

#[test]
fn a_key_is_on_disk_before_the_command_returns() {
    let Some(mut world) = Agents::new("on disk") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want any", &bob, "");
    world.kill();
    let before = (tunnel_file(&alice), own_key(&alice));
    assert_eq!(before.0.len(), 1);
    let rotated = alice.ask("key rotate");
    let file = tunnel_file(&alice);
    assert_eq!(file.len(), 3, "{:?}", file.iter().map(|line| line.split(' ').next()).collect::<Vec<_>>());
    assert_eq!(file[2].strip_prefix("former "), Some(before.0[0].as_str()));
    let mode = fs::metadata(key_file(&alice, "tunnel.key")).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let public = Initiator::new(private_key(&file[0]), [0; 32], 0).public_key();
    assert_eq!(rotated["tunnel_key"], STANDARD.encode(public));
    assert_eq!((&rotated["former_key"], &rotated["waits_for"][0]), (&before.1.as_str().into(), &"bob".into()));
    // The record that peers will see is there, too.
    let record = fs::read(key_file(&alice, "record")).expect("the record");
    let holds = |key: &[u8]| record.windows(32).any(|window| window == key);
    assert!(holds(&public) && holds(&STANDARD.decode(&before.1).expect("base64")));

    let again = alice.verb("key rotate");
    assert_eq!(again.code, 9, "{}", again.stderr);
    assert!(again.stderr.contains("bob") && again.stderr.contains("--compromised"), "{}", again.stderr);
    assert_eq!(tunnel_file(&alice), file);
    // A compromised key waits for nobody.
    alice.ask("key rotate --compromised");
    let last = tunnel_file(&alice);
    assert!(last.len() == 1 && last[0] != file[0], "neither key before is kept");
}

#[test]
fn a_peer_that_is_away_is_answered_by_the_former_key_until_it_has_been_there() {
    let Some(mut world) = Agents::new("away") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let _server = bob.serves();
    let v4 = bob.v4();
    gets_page(&alice, &v4);
    bob.kill9();
    assert_eq!(alice.ask("key rotate")["waits_for"][0], "bob");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(tunnel_file(&alice).len(), 3, "the former key is kept");
    // Bob comes back without a rendezvous, and knows only the former key.
    world.kill();
    bob.start();
    gets_page(&alice, &v4);
    bob.host.reaches(&alice.v4());
    assert_ne!(peer(&bob)["public_key"], *own_key(&alice));
    assert_eq!(tunnel_file(&alice).len(), 3);
    // With it, he learns the new one.
    world.start();
    let took = within(AT_LENGTH, "bob to learn the new key", || {
        let began = Instant::now();
        (peer(&bob)["public_key"] == *own_key(&alice)).then(|| began.elapsed())
    });
    eprintln!("the new key was learned after {took:?}");
    is_rotated(&bob, &alice);
    gets_page(&alice, &v4);
}

#[test]
fn a_former_key_is_answered_for_30_days_at_most() {
    let Some(mut world) = Agents::new("30 days") else { return };
    let (mut alice, mut bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    gets_through(&alice, &bob);
    bob.kill9();
    alice.ask("key rotate");
    let shown = alice.ask("agents");
    assert_eq!(shown["rotation"]["waits_for"][0], "bob", "{shown:#}");
    alice.kill9();
    let path = key_file(&alice, "tunnel.key");
    let [key, since, former] = &tunnel_file(&alice)[..] else { panic!("both keys") };
    let replaced: u64 = since.strip_prefix("since ").and_then(|at| at.parse().ok()).expect("a time");
    let (almost, over) = (replaced - 29 * DAY, replaced - 31 * DAY);
    fs::write(&path, format!("{key}\nsince {almost}\n{former}\n")).expect("our own file");
    alice.start();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(tunnel_file(&alice).len(), 3, "29 days");
    alice.kill9();
    fs::write(&path, format!("{key}\nsince {over}\n{former}\n")).expect("our own file");
    alice.start();
    within(SHORTLY, "the former key to go", || (tunnel_file(&alice) == [key.as_str()]).then_some(()));
    assert_eq!(alice.ask("agents")["rotation"], Value::Null);
    // Bob meets silence until he has heard of the new key.
    bob.start();
    within(SHORTLY, "bob to learn the key", || (peer(&bob)["public_key"] == *own_key(&alice)).then_some(()));
    gets_through(&alice, &bob);
}

#[test]
fn a_peer_of_the_file_is_answered_by_the_former_key_until_a_person_has_told_it_the_new_one() {
    let Some(mut world) = Agents::new("static, rotated") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    gets_through(&alice, &bob);
    let carol = world.host("carol");
    let config = |key: &str| {
        format!(
            "{}[[peer]]\npublic_key = \"{key}\"\nendpoint = \"10.1.0.2:51820\"\nallowed_ips = [\"{}/32\"]\n",
            carol.interface_toml(&["10.77.0.3/32"]),
            alice.v4()
        )
    };
    let of_carol = carol.overlay_up(&config(&own_key(&alice)));
    let table = carol.peer_toml(None, &["10.77.0.3/32"]);
    fs::write(alice.config(), fs::read_to_string(alice.config()).expect("a config") + &table).expect("our own file");
    alice.verb("reload").succeeded("overlay reload");
    carol.reaches(&alice.v4());

    let rotated = alice.ask("key rotate");
    assert_eq!((&rotated["waits_for_count"], &rotated["waits_for"][0]), (&2.into(), &"bob".into()), "{rotated:#}");
    within(SHORTLY, "bob to use the new key", || {
        (alice.ask("agents")["rotation"]["waits_for_count"] == 1).then_some(())
    });
    gets_through(&alice, &bob);
    carol.reaches(&alice.v4());
    assert_eq!(tunnel_file(&alice).len(), 3);

    fs::write(of_carol.config(), config(&own_key(&alice))).expect("our own file");
    carol.overlay("reload").succeeded("overlay reload");
    carol.reaches(&alice.v4());
    within(SHORTLY, "the former key to go", || (tunnel_file(&alice).len() == 1).then_some(()));
    gets_through(&alice, &bob);
    carol.reaches(&alice.v4());
}

#[test]
fn without_a_rendezvous_the_former_key_serves_and_restarts_change_nothing() {
    let Some(mut world) = Agents::new("rotation, alone") else { return };
    let (mut alice, mut bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let _servers = (alice.serves(), bob.serves());
    let (to_alice, to_bob) = (alice.v4(), bob.v4());
    gets_page(&alice, &to_bob);
    world.kill();
    for agent in [&alice, &bob] {
        agent.ask("key rotate");
    }
    let _streams = [download(&alice, &bob, 5, "down"), download(&bob, &alice, 5, "up")]
        .map(|(transfer, _)| transfer.succeed_within(AT_LENGTH));
    for is_in_order in [true, false] {
        let began = Instant::now();
        match is_in_order {
            true => alice.stop(),
            false => {
                alice.kill9();
                bob.kill9();
                bob.start();
            }
        }
        alice.start();
        gets_page(&alice, &to_bob);
        gets_page(&bob, &to_alice);
        eprintln!("a restart during the overlap: {:.1} s", began.elapsed().as_secs_f64());
    }
    for agent in [&alice, &bob] {
        assert_eq!(tunnel_file(agent).len(), 3);
    }
    world.start();
    within(AT_LENGTH, "both to use the new keys", || {
        let is_done = |from: &Agent, to: &Agent| peer(from)["public_key"] == *own_key(to) && tunnel_file(to).len() == 1;
        (is_done(&alice, &bob) && is_done(&bob, &alice)).then_some(())
    });
    gets_page(&alice, &to_bob);
}

/// Bob's key in the hands of a program that calls alice as bob, by a key of hers.
struct Caller {
    socket: UdpSocket,
    private: [u8; 32],
    calls: u64,
}

impl Caller {
    /// Takes bob's key and his place. His daemon must not run.
    fn new(bob: &Agent) -> Caller {
        let socket = inside(&bob.host, || UdpSocket::bind("0.0.0.0:51820")).expect("bob's port");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        Caller { socket, private: private_key(&tunnel_file(bob)[0]), calls: 0 }
    }

    /// Whether alice answers an initiation that is made for this key of hers.
    fn is_answered(&mut self, alice: &str) -> bool {
        let mut initiator = Initiator::new(self.private, private_key(alice), self.calls);
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        // Three times: a datagram may be lost on a busy machine.
        (0..3).any(|_| {
            self.calls += 1;
            let call = initiator.initiate(Timestamp::from_unix(seconds + 1_000, self.calls as u32), 7);
            self.socket.send_to(&call.message, "10.1.0.2:51820").expect("a datagram");
            let deadline = Instant::now() + Duration::from_millis(700);
            let mut buffer = [0; 2048];
            while Instant::now() < deadline {
                let Ok(len) = self.socket.recv(&mut buffer) else { continue };
                // Her own calls and packets are no answers.
                if buffer[..4] == [2, 0, 0, 0] && len == 92 {
                    return true;
                }
            }
            false
        })
    }
}

#[test]
fn a_former_key_is_answered_and_a_compromised_one_gets_silence_at_once() {
    let Some(mut world) = Agents::new("compromised") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    gets_through(&alice, &bob);
    let first = own_key(&alice);
    bob.kill9();
    let mut caller = Caller::new(&bob);
    assert!(caller.is_answered(&first));
    alice.ask("key rotate");
    let second = own_key(&alice);
    assert!(caller.is_answered(&first), "the former key");
    assert!(caller.is_answered(&second), "the new key");
    within(SHORTLY, "the former key to go", || (tunnel_file(&alice).len() == 1).then_some(()));
    assert!(!caller.is_answered(&first), "bob has used the new key, so the former one is over");
    assert!(caller.is_answered(&second));

    let rotated = alice.ask("key rotate --compromised");
    assert!(!caller.is_answered(&second), "silence");
    assert!(!caller.is_answered(&first));
    let third = own_key(&alice);
    assert_eq!((&rotated["tunnel_key"], &rotated["former_key"]), (&third.as_str().into(), &Value::Null));
    assert_eq!(tunnel_file(&alice).len(), 1, "the compromised key is not kept");
    assert!(caller.is_answered(&third));
    // Bob learns it.
    drop(caller);
    bob.start();
    within(SHORTLY, "bob to learn the key", || (peer(&bob)["public_key"] == *third).then_some(()));
    gets_through(&alice, &bob);
}

/// Waits until packets go both ways.
#[track_caller]
fn gets_through(alice: &Agent, bob: &Agent) {
    alice.host.reaches(&bob.v4());
    bob.host.reaches(&alice.v4());
}

#[test]
fn after_a_compromised_key_both_sides_are_back_within_seconds_and_flows_go_on() {
    let Some(mut world) = Agents::new("compromised, online") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want any", &bob, "");
    let _server = bob.serves();
    gets_page(&alice, &bob.v4());
    let (transfer, file) = download(&alice, &bob, 8, "down");
    thread::sleep(Duration::from_secs(1));
    for agent in [&alice, &bob] {
        let began = Instant::now();
        agent.ask("key rotate --compromised");
        within(SHORTLY, "an answer", || {
            (alice.host.run(format!("ping -n -q -c 1 -W 0.2 {}", bob.v4())).code == 0).then_some(())
        });
        eprintln!("without an overlap: back after {:.2} s", began.elapsed().as_secs_f64());
    }
    transfer.succeed_within(AT_LENGTH);
    assert_eq!(services::sha256(&alice.host.dir().join("down")), services::sha256(&file));
}

#[test]
fn trust_that_was_taken_back_stays_so_when_keys_change() {
    let Some(mut world) = Agents::new("untrusted, rotated") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let _server = bob.serves();
    let v4 = bob.v4();
    gets_page(&alice, &v4);
    // A right that is withdrawn, and then trust as a whole.
    bob.ask("approve alice --allow icmp");
    alice.ask("key rotate");
    is_rotated(&bob, &alice);
    bob.ask("key rotate");
    is_rotated(&alice, &bob);
    alice.host.reaches(&v4);
    assert_ne!(alice.curls(&v4).code, 0);
    assert_eq!(bob.peer("alice")["allow"], Value::from(&["icmp"][..]));

    bob.ask("untrust alice");
    alice.sees("bob", "untrusted");
    for rotate in ["key rotate", "key rotate --compromised"] {
        for agent in [&alice, &bob] {
            let rotated = agent.ask(rotate);
            assert_eq!(rotated["former_key"], Value::Null, "there is nobody to wait for");
        }
    }
    thread::sleep(Duration::from_secs(2));
    assert_ne!(alice.host.run(format!("ping -n -q -c 2 -i 0.3 -W 1 {v4}")).code, 0);
    for (agent, other) in [(&alice, "bob"), (&bob, "alice")] {
        assert_eq!(agent.peer(other)["state"], "untrusted");
        assert_eq!(agent.daemon().status()["peers"].as_array().map(Vec::len), Some(0));
    }
}
