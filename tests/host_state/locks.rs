//! While a /0 is in force, the policy rules and the guard in nft are two locks: with either gone nothing leaves in clear, and
//! what is gone is put back within a second.

use std::time::{Duration, Instant};

use super::capture::Capture;
use super::world::{OUTSIDE, World};
use crate::lab::{Host, Process, SHORTLY, within};

const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];
/// What is gone is to be back by then; a machine that is busy with other things may take a moment more.
const A_SECOND: Duration = Duration::from_millis(1_500);

/// Pings of one host to both outside addresses, a hundred a second.
struct Stream {
    pings: Vec<Process>,
}

impl Stream {
    fn start(host: &Host) -> Stream {
        Stream { pings: OUTSIDE.map(|address| host.spawn(format!("ping -n -i 0.01 {address}"))).into() }
    }

    /// Answers so far.
    fn answers(&self) -> Vec<usize> {
        self.pings.iter().map(|ping| ping.stdout().matches("time=").count()).collect()
    }

    /// Waits for so many more answers in both families.
    #[track_caller]
    fn flows_for(&self, answers: usize) {
        let before = self.answers();
        within(SHORTLY, "pings to be answered through the tunnel", || {
            self.answers().iter().zip(&before).all(|(now, before)| *now >= before + answers).then_some(())
        });
    }
}

/// Everything that can be lost: what it is called, how it is lost, and whether it is there.
struct Loss {
    what: &'static str,
    line: String,
    is_there: Box<dyn Fn(&Host) -> bool>,
}

fn losses(a: &Host) -> Vec<Loss> {
    let interface = a.interface().to_owned();
    let both = |line: &str| format!("{line}; {}", line.replace("ip ", "ip -6 "));
    let routed = |a: &Host| {
        ["-4", "-6"].iter().all(|family| !a.run(format!("ip {family} route show table 51820")).stdout.is_empty())
    };
    let addressed = {
        let interface = interface.clone();
        move |a: &Host| {
            let shown = a.ip(&format!("-o address show dev {interface}"));
            shown.contains("10.77.0.1/24") && shown.contains("fd77::1/64")
        }
    };
    let ruled = |a: &Host| {
        let shown = a.ip("-4 rule show") + &a.ip("-6 rule show");
        shown.matches("suppress_prefixlength 0").count() == 2 && shown.matches("lookup 51820").count() == 2
    };
    let guarded = |a: &Host| a.exec("nft list ruleset").contains(&format!("table inet overlay_{}", a.interface()));
    let is_up = {
        let interface = interface.clone();
        move |a: &Host| a.ip(&format!("link show dev {interface}")).contains(",UP")
    };
    let whole = {
        let (addressed, is_up) = (addressed.clone(), is_up.clone());
        move |a: &Host| is_up(a) && addressed(a) && routed(a)
    };
    vec![
        Loss {
            what: "policy rules",
            line: both("ip rule del prio 32764; ip rule del prio 32765"),
            is_there: Box::new(ruled),
        },
        Loss { what: "nft ruleset", line: "nft flush ruleset".into(), is_there: Box::new(guarded) },
        Loss { what: "routes", line: both("ip route flush table 51820"), is_there: Box::new(routed) },
        Loss {
            what: "addresses",
            line: format!("ip address flush dev {interface}"),
            is_there: Box::new(move |a| addressed(a) && routed(a)),
        },
        Loss { what: "link", line: format!("ip link set {interface} down"), is_there: Box::new(whole) },
    ]
}

#[test]
fn nothing_leaves_in_clear_whatever_is_taken_away_and_all_of_it_is_put_back_within_a_second() {
    let Some(world) = World::new("two locks") else { return };
    let World { a, b, c, .. } = &world;
    let _on_b = b.overlay_up(&world.config_of_b());
    let overlay = a.overlay_up(&world.config_of_a(&EVERYTHING, "forward = true\n"));
    for address in OUTSIDE {
        a.reaches(address);
        c.reaches(address);
    }
    let capture = Capture::start(a, &world.wire(), &World::in_clear());
    let streams = [Stream::start(a), Stream::start(c)];
    for Loss { what, line, is_there } in losses(a) {
        streams.iter().for_each(|stream| stream.flows_for(120));
        assert!(is_there(a), "{what} are there to be lost");
        a.shell(&line.replace("; ", " && "));
        let lost = Instant::now();
        let seen = capture.count();
        within(SHORTLY, &format!("the {what} to be put back"), || is_there(a).then_some(()));
        let took = lost.elapsed();
        streams.iter().for_each(|stream| stream.flows_for(20));
        eprintln!("{what}: put back after {:.2} s, {} packets in clear", took.as_secs_f64(), capture.count() - seen);
        assert_eq!(capture.count(), 0, "packets in clear after the loss of the {what}:\n{}", capture.shown());
        assert!(took <= A_SECOND, "the {what} were put back after {took:?}");
    }
    let status = overlay.status();
    assert_eq!(status["host"]["state"], "intact", "{:#}", status["host"]);
    for (what, least) in [("rule", 4), ("nft_table", 1), ("route", 2), ("address", 2), ("link", 1)] {
        let restored = status["host"]["restored"][what].as_u64();
        assert!(restored.is_some_and(|restored| restored >= least), "{what}: {:#}", status["host"]);
    }
    assert!(overlay.log().contains("put back"), "{}", overlay.log());
    overlay.stop();
    // The capture sees what it has to: without the tunnel it all goes in clear.
    within(SHORTLY, "a packet in clear once nothing forbids it", || (capture.count() > 0).then_some(()));
}
