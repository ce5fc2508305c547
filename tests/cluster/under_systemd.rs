//! configs/overlay-rendezvous@.service, under systemd, over a cluster.

use crate::lab::etcd::Etcd;
use crate::lab::{AT_LENGTH, Agent, Agents, SHORTLY, installed, within};
use crate::machine::Machine;

#[test]
fn the_unit_serves_a_network_over_a_cluster() {
    if !installed("the unit of a rendezvous", &["systemctl", "pgrep"]) {
        return;
    }
    let mut running = None;
    let Some(mut agents) = Agents::served_by("rv unit", |router| {
        let etcd = Etcd::start(router);
        let machine = Machine::boot(router);
        machine.exec(&format!(
            "echo 'OPTIONS=--listen 192.0.2.9:7447 --store {}' > /etc/overlay/lab.rendezvous",
            Etcd::store()
        ));
        machine.exec("systemctl start overlay-rendezvous@lab");
        let url = status(&machine);
        running = Some((machine, etcd));
        url
    }) else {
        return;
    };
    let (machine, etcd) = running.expect("they were started");
    let pid = machine.exec("systemctl show -P MainPID overlay-rendezvous@lab");
    let process = machine.exec(&format!("cat /proc/{}/status", pid.trim()));
    let line = |name: &str| process.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim();
    assert_ne!(line("Uid:").split('\t').next(), Some("0"), "{process}");
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1", "2"), "{process}");
    let folder = machine.exec("stat -c '%U %a' /var/lib/overlay/rendezvous/lab");
    assert_eq!(folder, "overlay-rendezvous 700\n");

    let host = agents.host("alice");
    Agent::init(&host, "alice", &agents.url).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    alice.start();
    alice.is_registered("alice");
    assert!(machine.exec("overlay rendezvous agents list").contains("alice"), "root may ask");
    let kept = etcd.run("get --prefix --keys-only overlay/lab/registry/name/").stdout;
    assert!(kept.contains("alice"), "{kept}");

    // It is started again, as the same rendezvous.
    machine.exec("systemctl kill -s KILL overlay-rendezvous@lab");
    within(SHORTLY, "the restart", || {
        let now = machine.exec("systemctl show -P MainPID overlay-rendezvous@lab");
        let is_active = machine.run("systemctl is-active overlay-rendezvous@lab").code == 0;
        (now != pid && is_active).then_some(())
    });
    assert_eq!(status(&machine), agents.url);
    // It tries again within half a minute.
    within(AT_LENGTH, "alice", || {
        machine.run("overlay rendezvous stats --json").stdout.contains("\"connections\":1").then_some(())
    });

    // The keys go to the next host as the user of the service.
    let as_service = "setpriv --reuid overlay-rendezvous --regid overlay-rendezvous --clear-groups";
    machine.exec("overlay rendezvous backup /tmp/lab.backup && systemctl stop overlay-rendezvous@lab");
    machine.exec("rm -r /var/lib/overlay/rendezvous/lab");
    machine.exec(&format!("{as_service} overlay rendezvous restore --shared - < /tmp/lab.backup"));
    machine.exec("systemctl start overlay-rendezvous@lab");
    assert_eq!(status(&machine), agents.url);
}

/// The URL, as `systemctl status` shows it.
#[track_caller]
fn status(machine: &Machine) -> String {
    machine.exec("systemctl show -P StatusText overlay-rendezvous@lab").trim().to_owned()
}
