//! A peer that constantly changes what it reports about itself, and where it sends from. It is followed, but the
//! effects on the host happen only once a second, and in the end the last report counts.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use overlay_sim::initiator::Session;
use overlay_wire::control::{Abilities, Frame};

use super::siege::{Attacker, MALLORY};
use super::wire::Wire;
use crate::lab::{A, Outside, Overlay, Pair, Process, SHORTLY, installed, within};

/// How many prefixes the peer has. Each has a route.
const PREFIXES: usize = 1_000;
/// How long the peer continues.
const ATTACK: Duration = Duration::from_secs(5);
/// The time between two of its messages.
const BETWEEN: Duration = Duration::from_millis(1);
/// The MTUs that it reports for its interface, in turn.
const MTUS: [u16; 2] = [1_300, 1_400];

/// A daemon with a peer that has many prefixes, and that peer's session.
struct Scene {
    overlay: Overlay,
    wire: Wire,
    session: Session,
    pair: Pair,
}

impl Scene {
    fn begin(name: &str, log: &str) -> Option<Scene> {
        if !installed(name, &["tcpdump"]) {
            return None;
        }
        let pair = Pair::new(name)?;
        pair.b.ip(&format!("address add 10.1.0.3/24 dev {}", pair.b.link_to(&pair.a)));
        let prefixes: Vec<_> = (0..PREFIXES).map(|n| format!("10.99.{}.{}/32", n / 250, n % 250)).collect();
        let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
        let own = A.inner();
        let config = pair.a.interface_toml(&[&own[0], &own[1]]) + &MALLORY.peer_toml(&prefixes);
        let mut command = pair.a.overlay_command(format!("up {}", pair.a.write("overlay.toml", config).display()));
        command.env("OVERLAY_LOG", log);
        let overlay = Overlay::from_command(&pair.a, command);
        let mut wire = Wire::open(&pair.b, 0, A.endpoint(Outside::V4, 51820).parse().expect("an endpoint"));
        let session = within(SHORTLY, "a session", || Attacker::call(MALLORY, pair.a.public_key(), &mut wire));
        Some(Scene { overlay, wire, session, pair })
    }

    fn say(&mut self, frame: Frame<'_>) {
        let mut packet = vec![0; frame.len()];
        frame.write(&mut packet);
        let message = self.session.seal(&packet);
        self.wire.send(&message);
    }

    fn hello(&mut self, mtu: u16) {
        self.say(Frame::Hello { nonce: 7, understands: Abilities::FRAGMENTS, mtu });
    }

    /// Answers the probes that have come.
    fn answer_probes(&mut self) {
        while let Some(datagram) = self.wire.receive_now() {
            let Ok(opened) = self.session.open(&datagram) else { continue };
            if let Ok(Frame::Probe { id, size }) = Frame::parse(&opened.plaintext) {
                self.say(Frame::ProbeReply { id, size });
            }
        }
    }

    /// Attacks for [`ATTACK`]. Returns the daemon's CPU use in that time, as a share of one core.
    fn attack(&mut self, mut act: impl FnMut(&mut Self, usize)) -> f64 {
        let (began, before) = (Instant::now(), ticks(&self.overlay));
        for turn in 0.. {
            if began.elapsed() >= ATTACK {
                break;
            }
            act(self, turn);
            thread::sleep(BETWEEN);
        }
        (ticks(&self.overlay) - before) as f64 / 100.0 / began.elapsed().as_secs_f64()
    }

    /// The distinct MTUs in the routes to the peer's prefixes.
    fn mtus_of_routes(&self) -> Vec<String> {
        let routes = self.pair.a.ip(&format!("-4 route show dev {}", self.pair.a.interface()));
        let ours = routes.lines().filter(|line| line.starts_with("10.99."));
        let mut mtus: Vec<_> = ours.filter_map(|line| Some(line.split_once(" mtu ")?.1.trim().to_owned())).collect();
        mtus.sort();
        mtus.dedup();
        mtus
    }
}

/// The CPU time that a daemon has used so far, in hundredths of a second.
fn ticks(daemon: &Overlay) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("the daemon runs");
    let rest = stat.rsplit_once(')').expect("a name").1;
    rest.split_whitespace().skip(11).take(2).map(|number| number.parse::<u64>().expect("a number")).sum()
}

/// How many route changes a monitor has seen.
fn changes(monitor: &Process) -> usize {
    monitor.stdout().lines().filter(|line| line.contains("10.99.")).count()
}

#[test]
fn rate_a_peer_whose_mtu_alternates_changes_each_route_once_a_second() {
    let Some(mut scene) = Scene::begin("alternating MTU", "info") else { return };
    scene.hello(MTUS[0]);
    within(SHORTLY, "the routes to follow", || {
        scene.answer_probes();
        (scene.mtus_of_routes() == [MTUS[0].to_string()]).then_some(())
    });
    let monitor = scene.pair.a.spawn(["stdbuf", "-oL", "ip", "-4", "-o", "monitor", "route"]);
    let busy = scene.attack(|scene, turn| {
        scene.hello(MTUS[turn % 2]);
        scene.answer_probes();
    });
    // The last report counts.
    scene.hello(MTUS[1]);
    within(SHORTLY, "the routes to follow the last word", || {
        scene.answer_probes();
        (scene.mtus_of_routes() == [MTUS[1].to_string()]).then_some(())
    });
    let changed = changes(&monitor);
    eprintln!("{changed} changes of routes in {ATTACK:?}, {:.0} % of a CPU", 100.0 * busy);
    let seconds = ATTACK.as_secs() as usize;
    // One change at once, one a second, and one for the last report. A busy machine may take a second more.
    assert!(changed <= (seconds + 3) * PREFIXES, "{changed} changes of routes");
    assert!(changed >= PREFIXES, "the monitor sees them: {changed}");
}
