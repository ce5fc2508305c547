//! The rendezvous is away for a moment, and all agents come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use overlay_daemon::agent::connection::{Target, connect};
use overlay_rendezvous::channel::Pinned;
use overlay_wire::signed::SecretKey;
use rustix::process::Signal;

use crate::figures::{Table, Times};
use crate::lab::SHORTLY;
use crate::member::{Order, What, until};
use crate::phases::Crowd;
use crate::rogue::random;
use crate::world::World;

/// The promises.
const BACK: Duration = Duration::from_secs(60);
const PEAK: f64 = 5.0;
#[cfg(feature = "etcd")]
const ELSEWHERE: Duration = Duration::from_secs(15);

/// While a rendezvous is replaced, so many agents register a new record in a second, and so many newcomers connect.
const WRITES: f64 = 50.0;
const PROBES: f64 = 50.0;
/// The first address of the newcomers, counted from the first of the crowd.
const FIRST_PROBE: usize = 20_000;

impl Crowd {
    #[track_caller]
    pub(crate) fn comes_back_after_a_stop(&mut self, table: &mut Table) {
        self.comes_back("a stop and a start", table, |world| world.restart(Signal::TERM));
    }

    #[track_caller]
    pub(crate) fn comes_back_after_a_kill(&mut self, table: &mut Table) {
        self.comes_back("kill -9 and a start", table, |world| world.restart(Signal::KILL));
    }

    /// A new process takes the place of the old one, while agents register and newcomers connect.
    #[track_caller]
    pub(crate) fn comes_back_after_a_replacement(&mut self, table: &mut Table) {
        let is_over = Arc::<AtomicBool>::default();
        let probes = self.runtime.spawn(newcomers(self.world.url.clone(), is_over.clone()));
        let orders = self.members.iter().map(|member| member.orders.clone()).collect();
        self.order(orders, WRITES, |_, at| Order::Register(at));
        std::thread::sleep(Duration::from_secs(1));
        self.comes_back("a replacement", table, |world| {
            let began = Instant::now();
            world.replace("");
            began.elapsed()
        });
        is_over.store(true, Relaxed);
        let (times, refused) = self.runtime.block_on(probes).expect("no panic");
        let shown = format!("{} of {}; {}", refused.len(), refused.len() + times.len(), times.shown());
        table.row("newcomers refused during a replacement", &shown, "nobody is refused");
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// Something happens to the server. It returns for how long nobody was accepted, at most.
    #[track_caller]
    fn comes_back(&mut self, what: &str, table: &mut Table, happens: impl FnOnce(&mut World) -> Duration) {
        let began = Instant::now();
        let down = happens(&mut self.world);
        let mut tries = Vec::new();
        let back = self.all_back(began, &mut tries);
        let (peak, mean) = peak_and_mean(&tries);
        let shown = format!(
            "all after {:.1} s, the new server after {:.1} s; {mean:.0} attempts a second, at most {peak:.0}; {} MiB",
            back.as_secs_f64(),
            down.as_secs_f64(),
            self.world.memory().1 >> 20,
        );
        let what = format!("{} agents come back after {what}", self.members.len());
        table.row(&what, &shown, "60 s, five times the mean");
        assert!(back <= BACK, "{shown}");
        assert!(peak <= PEAK * mean, "{shown}");
    }

    /// One of two processes is killed. Its agents come to the other one, which the others do not leave.
    #[cfg(feature = "etcd")]
    #[track_caller]
    pub(crate) fn comes_to_the_other_process(&mut self, table: &mut Table) {
        let (began, half) = (Instant::now(), self.members.len() / 2);
        self.world.kill_second();
        let (mut gone, mut back, mut last) = (BTreeSet::new(), BTreeSet::new(), began);
        let mut failed = Vec::new();
        self.hear(BACK, "the agents of the killed process", |fact| {
            match fact.what {
                What::Failed(error) => failed.push(error.to_string()),
                What::Offline => drop(gone.insert(fact.who)),
                What::Synced if gone.contains(&fact.who) => {
                    back.insert(fact.who);
                    last = fact.at;
                }
                _ => {}
            }
            back.len() == half
        });
        eprintln!("{} attempts in vain {:?}", failed.len(), failed.last());
        assert!(gone.iter().all(|who| who % 2 == 1), "agents of the other process have left it");
        let shown = format!("{half} agents after {:.1} s", (last - began).as_secs_f64());
        table.row("one of two processes is killed: its agents at the other one", &shown, "15 s");
        assert!(last - began <= ELSEWHERE, "{shown}");
    }

    /// Waits until each agent was offline and is registered and told everything again. Collects when they tried to connect.
    /// What was acknowledged is still there.
    #[track_caller]
    fn all_back(&mut self, began: Instant, tries: &mut Vec<Instant>) -> Duration {
        let (mut missing, mut gone) = ((0..self.members.len()).collect::<BTreeSet<_>>(), BTreeSet::new());
        let (mut last, mut failed, mut acknowledged) = (began, Vec::new(), BTreeMap::new());
        self.hear(2 * BACK, "all to be back", |fact| {
            match fact.what {
                What::Tries => tries.push(fact.at),
                What::Failed(error) => failed.push(error.to_string()),
                What::Offline => drop(gone.insert(fact.who)),
                What::Registered { sequence, .. } => drop(acknowledged.insert(fact.who, sequence)),
                What::Welcome { sequence } => {
                    let known = acknowledged.get(&fact.who).copied().unwrap_or(0);
                    assert!(sequence >= known, "agent {} registered {known}, and {sequence} is there", fact.who);
                }
                What::Synced if gone.contains(&fact.who) => {
                    missing.remove(&fact.who);
                    last = fact.at;
                }
                _ => {}
            }
            missing.is_empty()
        });
        eprintln!(
            "{} attempts, {} in vain {:?}; {} records acknowledged",
            tries.len(),
            failed.len(),
            failed.last(),
            acknowledged.len()
        );
        last - began
    }

    /// Starts a process that is to replace the server, and cannot. The server goes on, and its agents stay, or come back.
    #[track_caller]
    pub(crate) fn outlives_a_successor_that_fails(&mut self) {
        let before = self.members.iter().map(|member| member.pushes.load(Relaxed)).sum::<u64>();
        let bad = self.world.host.write("bad.pem", "no certificate");
        let failed = self.world.replaces_in_vain(&format!("--cert {0} --key {0}", bad.display()));
        assert!(failed.contains("not usable for TLS"), "{failed}");
        let failed = self.world.replaces_in_vain("--pool 10.1.0.0/16");
        assert!(failed.contains("the pool of a network cannot be changed"), "{failed}");
        let key = self.world.state_file("network.key");
        let aside = key.with_extension("aside");
        std::fs::rename(&key, &aside).expect("our own file");
        let failed = self.world.replaces_in_vain("--closed");
        assert!(failed.contains("cannot close the network"), "{failed}");
        std::fs::rename(&aside, &key).expect("our own file");
        let failed = self.world.replaces_in_vain("--metrics 192.0.2.1:1");
        assert!(failed.contains("cannot listen for metrics"), "{failed}");
        let (_, times) = self.look_up(Duration::from_secs(1));
        assert!(times.len() > 0);
        let after = self.members.iter().map(|member| member.pushes.load(Relaxed)).sum::<u64>();
        assert_eq!(before, after, "no agent has noticed anything");

        // This one is found out only once the old process has released everything: its certificate is good for one reading.
        let pipes = ["certificate.pipe", "key.pipe"].map(|name| self.world.host.dir().join(name));
        let [chain, key] = pipes.each_ref().map(|pipe| pipe.display().to_string());
        self.world.host.exec(format!("mkfifo {chain} {key}"));
        let own = ["certificate.pem", "certificate.key"].map(|name| self.world.state_file(name));
        let [good, secret] = own.map(|file| std::fs::read(file).expect("the server's own"));
        let writer = std::thread::spawn(move || {
            let [chain, key] = &pipes;
            for (pipe, text) in [(chain, &good[..]), (key, &secret), (chain, b"no certificate"), (key, &secret)] {
                std::fs::write(pipe, text).expect("the successor reads it");
            }
        });
        let began = Instant::now();
        let failed = self.world.replaces_in_vain(&format!("--cert {chain} --key {key}"));
        assert!(failed.contains("not usable for TLS"), "{failed}");
        writer.join().expect("both were read");
        let back = self.all_back(began, &mut Vec::new());
        assert!(back <= BACK, "{back:?}");
        self.world.replace("");
        self.all_back(Instant::now(), &mut Vec::new());
    }
}

/// Agents that connect all the time, each from an address of its own. Returns how long that took, and what refused them.
async fn newcomers(url: Pinned, is_over: Arc<AtomicBool>) -> (Times, Vec<String>) {
    let (began, mut under_way) = (Instant::now(), Vec::new());
    for turn in 0_usize.. {
        until(began + Duration::from_secs_f64(turn as f64 / PROBES)).await;
        if is_over.load(Relaxed) {
            break;
        }
        let host = World::ip_of(FIRST_PROBE + turn).to_string();
        let identity = Arc::new(SecretKey::from_bytes(&random()));
        let target = Target { rendezvous: Pinned { host, ..url.clone() }, identity, epoch: 0, ca_file: None };
        under_way.push(tokio::spawn(async move {
            let began = Instant::now();
            let connected = tokio::time::timeout(SHORTLY, connect(&target)).await;
            match connected {
                Ok(Ok(_)) => Ok(began.elapsed()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(late) => Err(late.to_string()),
            }
        }));
    }
    let (mut times, mut refused) = (Times::default(), Vec::new());
    for attempt in under_way {
        match attempt.await.expect("no panic") {
            Ok(took) => times.add(took),
            Err(error) => refused.push(error),
        }
    }
    (times, refused)
}

/// The most in any second, and the mean in a second from the first to the last.
fn peak_and_mean(moments: &[Instant]) -> (f64, f64) {
    let mut moments = moments.to_vec();
    moments.sort();
    let in_a_second =
        |from: usize| moments[from..].partition_point(|moment| *moment < moments[from] + Duration::from_secs(1));
    let peak = (0..moments.len()).map(in_a_second).max().unwrap_or(0);
    let whole = moments.last().zip(moments.first()).map_or(0.0, |(last, first)| (*last - *first).as_secs_f64());
    (peak as f64, moments.len() as f64 / whole.max(1.0))
}
