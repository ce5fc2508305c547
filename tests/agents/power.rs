//! What is on the disk when the power fails: a real ext4 in a real loop device, copied at any moment and mounted elsewhere.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::*;
use crate::lab::{Agents, Disk, Finished};

/// How many copies are taken while trust changes, and as many after it was taken back.
const ROUNDS: u64 = 20;

/// The agent `bob` on a host without a network, with a state folder as it was at one moment.
struct Restored {
    host: Host,
}

impl Restored {
    fn new(world: &Agents, bob: &Agent) -> Restored {
        let host = world.lab.host("restored");
        let config = std::fs::read_to_string(bob.config()).expect("the config that `init` has written");
        let config = config.replace(bob.host.interface(), host.interface());
        std::fs::write(Agent::of(&host).config(), config).expect("the host's folder");
        Restored { host }
    }

    /// Starts a daemon on a disk, and returns its identity and what `alice` is to it.
    #[track_caller]
    fn shows(&self, image: &Path) -> (Value, Value) {
        let mut agent = Agent::of(&self.host);
        let disk = Disk::of(&self.host, &agent.state(), image).expect("it worked before");
        agent.start_on(&disk);
        let shown = (agent.ask("agents")["identity"].clone(), agent.peer("alice")["state"].clone());
        assert!(!agent.daemon().log().contains("damaged"), "{}", agent.daemon().log());
        agent.kill9();
        shown
    }
}

/// Starts `alice`, and `bob` with his state folder on a disk of its own.
fn two(world: &mut Agents) -> Option<(Agent, Agent, Disk)> {
    let (alice, mut bob) = world.two();
    bob.kill9();
    let disk = bob.move_to_disk()?;
    bob.start_on(&disk);
    Some((alice, bob, disk))
}

#[test]
fn what_a_command_has_answered_survives_a_power_loss_at_any_moment() {
    let Some(mut world) = Agents::new("power loss") else { return };
    let Some((alice, bob, disk)) = two(&mut world) else { return };
    let identity = bob.ask("agents")["identity"].clone();
    let restored = Restored::new(&world, &bob);
    let image = |name: &str| -> PathBuf { world.lab.dir().join(name) };
    let (during, after) = (image("during.img"), image("after.img"));
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..ROUNDS {
        alice.ask("handshake bob --want icmp");
        bob.is_asked_by("alice");
        let began = Instant::now();
        let (moment, approved, untrusting, untrusted) = std::thread::scope(|scope| {
            let copy = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(round * 5));
                disk.as_after_a_power_loss(&during)
            });
            bob.ask("approve alice");
            let approved = Instant::now();
            // The copies of the later rounds see what is between the two commands.
            std::thread::sleep(Duration::from_millis(round * 3));
            let untrusting = Instant::now();
            bob.ask("untrust alice");
            (copy.join().expect("no panic"), approved, untrusting, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(round * 7));
        disk.as_after_a_power_loss(&after);

        let (kept, state) = restored.shows(&during);
        assert_eq!(kept, identity, "round {round}");
        let (from, until) = moment;
        let possible = [
            ("pending", from < approved),
            ("trusted", from < untrusted && until > began),
            ("untrusted", until > untrusting),
        ];
        let is_possible = possible.iter().any(|(word, may_be)| *may_be && state == *word);
        assert!(is_possible, "round {round}: {state}, of {possible:?}");
        *seen.entry(state.to_string()).or_default() += 1;
        assert_eq!(restored.shows(&after), (identity.clone(), "untrusted".into()), "round {round}");
        alice.sees("bob", "untrusted");
    }
    eprintln!("copies while trust changed: {seen:?}");
}

#[test]
fn a_new_identity_is_on_disk_as_a_whole_when_init_returns() {
    let Some(mut world) = Agents::new("power loss at init") else { return };
    let (host, restored) = (world.host("carol"), world.host("restored"));
    let (at, image) = (host.dir().join("disk"), world.lab.dir().join("init.img"));
    let Some(disk) = Disk::new(&host, &at) else { return };
    let init = |number: u64, on: &Disk, host: &Host, more: &str| -> Finished {
        // A folder of the disk that does not exist yet, and the config beside it.
        let folder = on.path().join(format!("{number}"));
        let (folder, url) = (folder.display(), &world.url);
        let config = on.path().join(format!("{number}.toml{more}"));
        let line = format!("--state-dir {folder}/deep init carol --rendezvous {url} -o {}", config.display());
        on.command(&host.overlay_command(&line)).output().expect("overlay init").into()
    };
    let keys = |on: &Disk, number: u64| {
        on.run(&format!("cd {}/{number}/deep/lab && sha256sum *.key && ls ../../../{number}.toml", on.path().display()))
    };
    let (mut whole, mut parts) = (0, 0);
    for number in 0..10 {
        let during = std::thread::scope(|scope| {
            let copy = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(number * 12));
                disk.as_after_a_power_loss(&image)
            });
            init(number, &disk, &host, "").succeeded("overlay init");
            copy.join().expect("no panic")
        });
        let made = keys(&disk, number).succeeded("the keys");
        {
            let copy = Disk::of(&restored, &restored.dir().join("disk"), &image).expect("it worked before");
            // What there was at that moment is either nothing that counts, or the same identity.
            let again = init(number, &copy, &restored, ".again");
            assert!([0, 9].contains(&again.code), "{number}, {during:?}: {}: {}", again.code, again.stderr);
            if again.code == 9 {
                let kept = copy.run(&format!("cd {}/{number}/deep/lab && sha256sum *.key", copy.path().display()));
                assert!(made.starts_with(&kept.stdout), "{number}: {} and {made}", kept.stdout);
            }
            parts += u32::from(again.code == 0);
        }
        disk.as_after_a_power_loss(&image);
        let copy = Disk::of(&restored, &restored.dir().join("disk"), &image).expect("it worked before");
        assert_eq!(
            keys(&copy, number).succeeded("all that init has made"),
            made.replace(&at.display().to_string(), "")
        );
        whole += 1;
    }
    eprintln!("{whole} identities were whole, and {parts} copies had none yet");
}

#[test]
fn a_killed_approval_is_made_or_not_made_in_the_first_100_milliseconds() {
    let Some(made) = kills("kill, 0 to 100 ms", 0..100) else { return };
    assert!(made.iter().any(|made| !made), "no kill was early enough to show anything");
}

#[test]
fn a_killed_approval_is_made_or_not_made_in_the_second_100_milliseconds() {
    let Some(made) = kills("kill, 100 to 200 ms", 100..200) else { return };
    assert!(made.iter().any(|made| *made), "each kill was too early to show anything");
}

/// Kills the daemon at every second millisecond after the start of an approval. Returns which approvals were made,
/// or `None` if this machine has no namespaces.
fn kills(name: &str, milliseconds: std::ops::Range<u64>) -> Option<Vec<bool>> {
    let mut world = Agents::new(name)?;
    let (alice, mut bob) = world.two();
    let identity = bob.ask("agents")["identity"].clone();
    let (mut made, mut answered) = (Vec::new(), 0);
    for milliseconds in milliseconds.step_by(2) {
        alice.ask("handshake bob --want icmp");
        bob.is_asked_by("alice");
        let mut command = bob.host.overlay_command("approve alice");
        let mut approve = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("overlay approve");
        std::thread::sleep(Duration::from_millis(milliseconds));
        bob.kill9();
        let is_answered = approve.wait().expect("our own child").success();
        bob.start();
        let status = bob.ask("agents");
        assert_eq!(status["identity"], identity, "{milliseconds} ms");
        let state = bob.peer("alice")["state"].clone();
        let is_consistent = state == "trusted" || (state == "pending" && !is_answered);
        assert!(is_consistent, "{milliseconds} ms: {is_answered}, {state}");
        made.push(state == "trusted");
        answered += u32::from(is_answered);
        bob.ask("untrust alice");
        alice.sees("bob", "untrusted");
    }
    let count = made.iter().filter(|made| **made).count();
    eprintln!("{count} approvals were made, and {answered} were answered");
    Some(made)
}
