//! An etcd cluster on the loopback of a host: the real program, three members.

use std::process::Command;

use serde_json::Value;

use super::host::Host;
use super::process::{Finished, Process};
use super::wait::{AT_LENGTH, within};

const MEMBERS: usize = 3;

/// A cluster that runs. Dropping it kills its members.
pub struct Etcd {
    host: Host,
    members: Vec<Option<Process>>,
}

impl Etcd {
    /// Starts a cluster, and waits until it answers.
    #[track_caller]
    pub fn start(host: &Host) -> Etcd {
        let mut etcd = Etcd { host: host.clone(), members: (0..MEMBERS).map(|_| None).collect() };
        for member in 0..MEMBERS {
            etcd.revive(member);
        }
        etcd.is_healthy();
        etcd
    }

    /// What `--store` is told.
    pub fn store() -> String {
        format!("etcd://{}", addresses())
    }

    /// Starts a member with what it has kept.
    #[track_caller]
    pub fn revive(&mut self, member: usize) {
        let process = self.host.start(self.member_command(member), &format!("etcd, member {member}"));
        self.members[member] = Some(process);
    }

    /// Waits until a majority answers.
    #[track_caller]
    pub fn is_healthy(&self) {
        within(AT_LENGTH, "the etcd cluster", || (self.run("put healthy yes").code == 0).then_some(()));
    }

    /// Kills a member. Its place is returned.
    #[track_caller]
    pub fn kill(&mut self, member: usize) {
        drop(self.members[member].take().expect("it runs"));
    }

    /// The place of the leader.
    #[track_caller]
    pub fn leader(&self) -> usize {
        within(AT_LENGTH, "a leader", || {
            let printed = self.run("endpoint status -w json").stdout;
            let all: Value = serde_json::from_str(&printed).ok()?;
            let is_leader = |member: &Value| {
                let status = &member["Status"];
                status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
            };
            let leader = all.as_array()?.iter().find(|member| is_leader(member))?;
            (0..MEMBERS).find(|member| leader["Endpoint"] == address(*member).as_str())
        })
    }

    /// Runs `etcdctl` with these words.
    pub fn run(&self, words: &str) -> Finished {
        self.host.run(format!("etcdctl --endpoints {} --command-timeout 2s {words}", addresses()))
    }

    fn member_command(&self, member: usize) -> Command {
        let peers = |member| format!("http://127.0.0.1:{}", 2380 + 100 * member);
        let cluster: Vec<_> = (0..MEMBERS).map(|member| format!("m{member}={}", peers(member))).collect();
        self.host.command(format!(
            "etcd --name m{member} --data-dir {data} --listen-client-urls http://{own} --advertise-client-urls http://{own} \
             --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster {cluster} --log-level error",
            data = self.host.dir().join(format!("etcd-{member}")).display(),
            own = address(member),
            peer = peers(member),
            cluster = cluster.join(","),
        ))
    }
}

fn address(member: usize) -> String {
    format!("127.0.0.1:{}", 2379 + 100 * member)
}

fn addresses() -> String {
    (0..MEMBERS).map(address).collect::<Vec<_>>().join(",")
}
