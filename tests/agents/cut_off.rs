//! Trust that is taken back in the middle of a copy: when the last byte arrives.

use std::path::PathBuf;

use rustix::process::Signal;

use super::*;
use crate::lab::{A_SECOND, Agents, Process, installed, services};

/// How long nothing may arrive after the end. TCP would try again a few times meanwhile.
const SILENCE: Duration = Duration::from_secs(3);
/// What has arrived before trust is taken back.
const UNDER_WAY: u64 = 4 << 20;

/// Two agents, an sshd at `bob`, and a file at both that no copy gets to the end of.
struct Copying {
    ssh: services::SshServer,
    alice: Agent,
    bob: Agent,
    world: Agents,
}

impl Copying {
    fn new(name: &str) -> Option<Copying> {
        if !installed(name, &["sshd", "ssh-keygen", "scp"]) {
            return None;
        }
        let mut world = Agents::new(name)?;
        let (alice, bob) = world.two();
        befriend(&alice, "--want tcp/2222", &bob, "");
        for agent in [&alice, &bob] {
            // A hole: it takes no room on the disk.
            agent.host.shell(&format!("truncate -s 4G {}/endless", agent.host.dir().display()));
        }
        let ssh = services::SshServer::start(&bob.host);
        Some(Copying { ssh, alice, bob, world })
    }

    /// Starts `scp` from alice to bob, and waits until it is under way.
    fn upload(&self) -> (Process, Arriving) {
        let (file, into) = (self.alice.host.dir().join("endless"), Arriving(self.bob.host.dir().join("uploaded")));
        let scp = self.ssh.scp_to(&self.alice.host, &self.bob.v4(), &file, &into.0);
        within(SHORTLY, "the upload", || (into.bytes() > UNDER_WAY).then_some(()));
        (scp, into)
    }

    /// Starts `scp` from bob to alice, and waits until it is under way.
    fn download(&self) -> (Process, Arriving) {
        let (file, into) = (self.bob.host.dir().join("endless"), Arriving(self.alice.host.dir().join("downloaded")));
        let scp = self.ssh.scp_from(&self.alice.host, &self.bob.v4(), &file, &into.0);
        within(SHORTLY, "the download", || (into.bytes() > UNDER_WAY).then_some(()));
        (scp, into)
    }
}

/// A file that grows.
struct Arriving(PathBuf);

impl Arriving {
    fn bytes(&self) -> u64 {
        std::fs::metadata(&self.0).map(|file| file.len()).unwrap_or_default()
    }

    /// Waits until it has not grown for a while.
    fn is_quiet(&self) -> u64 {
        let mut before = (self.bytes(), Instant::now());
        within(SHORTLY, "the copy to stand still", || {
            let now = self.bytes();
            if now != before.0 {
                before = (now, Instant::now());
            }
            (before.1.elapsed() > Duration::from_millis(300)).then_some(now)
        })
    }
}

/// Takes trust back, and returns how long after the start of the command the last byte arrived in one of the files.
fn last_byte_after_untrust(bob: &Agent, files: &[&Arriving]) -> Duration {
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut last = (files.iter().map(|file| file.bytes()).collect::<Vec<_>>(), began);
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let now: Vec<_> = files.iter().map(|file| file.bytes()).collect();
                if now != last.0 {
                    last = (now, Instant::now());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            last.1
        });
        bob.ask("untrust alice");
        eprintln!("untrust: {:?}", began.elapsed());
        std::thread::sleep(SILENCE);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        watch.join().expect("no panic").saturating_duration_since(began)
    })
}

#[test]
fn a_copy_ends_within_a_second_of_untrust_in_both_directions() {
    let Some(copying) = Copying::new("untrust, scp") else { return };
    let ((_up, uploaded), (_down, downloaded)) = (copying.upload(), copying.download());
    let last = last_byte_after_untrust(&copying.bob, &[&uploaded, &downloaded]);
    eprintln!("the last byte arrived {last:?} after the start of the command");
    assert!(last < A_SECOND, "{last:?}");
}

#[test]
fn a_copy_ends_within_a_second_of_untrust_without_a_rendezvous() {
    let Some(mut copying) = Copying::new("untrust alone, scp") else { return };
    let ((_up, uploaded), (_down, downloaded)) = (copying.upload(), copying.download());
    copying.world.kill();
    let last = last_byte_after_untrust(&copying.bob, &[&uploaded, &downloaded]);
    eprintln!("the last byte arrived {last:?} after the start of the command");
    assert!(last < A_SECOND, "{last:?}");
}

#[test]
fn a_peer_that_slept_through_untrust_gets_not_one_byte_across() {
    let Some(mut copying) = Copying::new("untrust asleep, scp") else { return };
    let (_up, uploaded) = copying.upload();
    copying.world.kill();
    let (alice, bob) = (&copying.alice, &copying.bob);
    // What waits in the sleeping daemon and in its kernel does arrive when it wakes.
    alice.daemon().signal(Signal::STOP);
    let before = uploaded.is_quiet();
    alice.daemon().signal(Signal::CONT);
    within(SHORTLY, "the copy to go on", || (uploaded.bytes() > before).then_some(()));

    // Nobody tells alice: the goodbye is lost.
    let router = &copying.world.router;
    router.exec("nft add table inet lost");
    router.exec(["nft", "add chain inet lost forward { type filter hook forward priority 0; }"]);
    alice.daemon().signal(Signal::STOP);
    let before = uploaded.is_quiet();
    router.exec(format!("nft add rule inet lost forward iifname {} meta l4proto udp drop", router.link_to(&bob.host)));
    bob.ask("untrust alice");
    let outside = Counter::new(&bob.host, "udp dport 51820");
    // The daemon answers its own kernel with ICMP, so only what alice can have sent counts.
    bob.host.exec("nft add table inet inner");
    bob.host.exec(["nft", "add chain inet inner input { type filter hook input priority 0; }"]);
    bob.host.exec(format!("nft add rule inet inner input iifname {} meta l4proto tcp counter", bob.host.interface()));
    alice.daemon().signal(Signal::CONT);
    std::thread::sleep(SILENCE);
    let sent = outside.packets();
    assert!(sent > 10, "alice went on: {sent} datagrams");
    assert_eq!(uploaded.bytes(), before);
    let inner = bob.host.exec("nft list table inet inner");
    assert!(inner.contains("packets 0 bytes 0"), "{inner}");
}
