//! A rendezvous moves from its file into a cluster, and refuses to leave either behind in silence.

use crate::lab::etcd::Etcd;
use crate::lab::{Agent, Agents, SHORTLY, within};
use crate::world::{line, serve, state};

#[test]
fn a_registry_moves_from_its_file_into_a_cluster_with_its_agents() {
    let mut first = None;
    let Some(mut agents) = Agents::served_by("moving", |router| {
        let (server, url) = serve(router, 0, "--closed");
        first = Some(server);
        url
    }) else {
        return;
    };
    let router = agents.router.clone();
    let verb = |words: &str| router.overlay(format!("--state-dir {} rendezvous {words}", state(&router, 0).display()));
    let token = router.dir().join("token");
    verb(&format!("token create --network lab -o {}", token.display())).succeeded("token create");
    let host = agents.host("alice");
    let joined = format!("{} --token {}", agents.url, token.display());
    Agent::init(&host, "alice", &joined).succeeded("overlay init");
    let mut alice = Agent::of(&host);
    alice.start();
    alice.is_registered("alice");
    alice.stop();
    drop(first.take());

    let etcd = Etcd::start(&router);
    let (moved, url) = serve(&router, 0, &format!("--store {}", Etcd::store()));
    assert_eq!(url, agents.url);
    let listed = verb("agents list --json").succeeded("agents list");
    assert!(listed.contains("alice"), "{listed}");
    let used = verb("token list --json").succeeded("token list");
    assert!(used.contains("used_up"), "{used}");
    assert!(state(&router, 0).join("rendezvous/lab/registry.redb.before-etcd").exists());
    alice.start();
    within(SHORTLY, "alice", || alice.verb("find alice --json").stdout.contains("alice").then_some(()));
    drop(moved);

    // It says where the registry is, and begins no new one.
    let refused = router.overlay(line(&router, 0, ""));
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains(&Etcd::store()), "{}", refused.stderr);

    router.ip("address add 192.0.2.10/32 dev lo");
    // A different network of the same name does not get into the cluster.
    let refused = router.overlay(line(&router, 1, &format!("--store {}", Etcd::store())));
    assert_eq!(refused.code, 9, "{refused:?}");
    assert!(refused.stderr.contains("different rendezvous"), "{}", refused.stderr);

    // A start without a cluster says so, and does not hang.
    drop(etcd);
    let refused =
        router.start(router.overlay_command(line(&router, 0, &format!("--store {}", Etcd::store()))), "serve");
    let refused = refused.finish_within(crate::lab::AT_LENGTH);
    assert!(refused.code != 0 && refused.stderr.contains("the etcd cluster cannot be used"), "{refused:?}");
}
