//! Two hosts with one identity: a copied state folder, while both run.

use super::*;
use crate::lab::Agents;

/// How long the agent that has to stop may go on.
const NOTICED: Duration = Duration::from_secs(10);

/// A second host with a copy of an agent's state folder and its config.
pub(super) fn copy_of(world: &mut Agents, agent: &Agent, name: &str) -> Agent {
    let host = world.host(name);
    let copy = Agent::of(&host);
    let config = std::fs::read_to_string(agent.config()).expect("the config that `init` has written");
    std::fs::write(copy.config(), config.replace(agent.host.interface(), host.interface())).expect("the host's folder");
    let line = format!("cp -a {} {}", agent.state().display(), copy.state().display());
    host.run(line).succeeded("cp");
    copy
}

/// The ids of two machines.
pub(super) const MACHINES: [&str; 2] = ["1111c4c5404aaa1f6d2a48adfda4d121", "2222c4c5404aaa1f6d2a48adfda4d121"];

pub(super) fn has_stopped(agent: &Agent) -> bool {
    let told = agent.ask("agents")["rendezvous"].clone();
    told.as_str().is_some_and(|told| told.starts_with("key_clone"))
}

#[test]
fn of_two_hosts_with_one_identity_the_one_that_started_last_goes_on() {
    let Some(mut world) = Agents::new("clones") else { return };
    let (alice, bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    let mut copy = copy_of(&mut world, &bob, "copy");
    let began = Instant::now();
    copy.start();
    within(NOTICED, "the first bob to stop", || has_stopped(&bob).then_some(()));
    eprintln!("the first one stopped after {:?}", began.elapsed());
    let status = bob.daemon().status();
    let warnings = status["warnings"].as_array().expect("a list").clone();
    assert!(warnings.iter().any(|warning| warning["kind"] == "key_clone"), "{warnings:#?}");
    assert_eq!(status["peers"], Value::from(&[][..] as &[Value]));
    let refused = bob.verb("approve alice");
    assert!(refused.code == 7 && refused.stderr.contains("key_clone"), "{}", refused.stderr);

    // The tunnel goes on at the copy, and neither takes it from the other.
    within(SHORTLY, "an answer of the copy", || {
        (alice.host.run(format!("ping -n -q -c 1 -W 1 {v4}")).code == 0).then_some(())
    });
    let pings = crate::lab::Pings::new(100, Duration::from_millis(100)).start(&alice.host, &v4);
    pings.are_answered();
    assert!(has_stopped(&bob) && !has_stopped(&copy));
    // The first one has taken the connection once, to see that a newer record is there.
    let connections = copy.daemon().log().matches("connected to the rendezvous").count();
    assert!(connections <= 2, "{}", copy.daemon().log());
    assert_eq!(copy.ask("agents")["rendezvous"], "connected");
}

#[test]
fn an_agent_that_starts_again_and_again_is_no_clone_of_itself() {
    let Some(mut world) = Agents::new("no clones") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want icmp", &bob, "");
    for _ in 0..4 {
        bob.kill9();
        bob.start();
        within(Duration::from_secs(40), "the connection", || {
            (bob.ask("agents")["rendezvous"] == "connected").then_some(())
        });
        alice.host.reaches(&bob.v4());
    }
    assert!(!has_stopped(&alice) && !has_stopped(&bob));
}

/// The command that starts an agent on a machine with this id.
pub(super) fn on_machine(agent: &Agent, id: &str, more: &str) -> std::process::Command {
    with_machine_id(&agent.host, id, &agent.up_command(), more)
}

/// A command of a host as it runs on a machine with this id.
pub(super) fn with_machine_id(
    host: &Host,
    id: &str,
    wanted: &std::process::Command,
    more: &str,
) -> std::process::Command {
    let file = host.write(&format!("machine-{}", &id[..4]), format!("{id}\n"));
    // "ip netns exec NAME" comes first.
    let mut words = wanted.get_args();
    let mut command = std::process::Command::new(wanted.get_program());
    command.args(words.by_ref().take(3)).args(["unshare", "-m", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /etc/machine-id && exec \"$@\"").arg(file).args(words);
    command.args(more.split_whitespace());
    command
}

#[test]
fn a_state_folder_of_a_different_machine_is_adopted_by_word_alone() {
    if !std::path::Path::new("/etc/machine-id").exists() {
        eprintln!("skipped: this machine has no /etc/machine-id, over which the test could put one");
        return;
    }
    let Some(mut world) = Agents::new("machines") else { return };
    let bob = world.agent("bob");
    let identity = bob.ask("agents")["identity"].clone();
    let mut copy = copy_of(&mut world, &bob, "copy");
    drop(bob);
    // A folder that was never bound belongs to the machine that runs it first.
    std::fs::remove_file(copy.state().join("lab/machine")).expect("it was bound");
    copy.start_by(on_machine(&copy, MACHINES[0], ""));
    copy.kill9();
    copy.start_by(on_machine(&copy, MACHINES[0], ""));
    copy.kill9();
    let refused = copy.host.start(on_machine(&copy, MACHINES[1], ""), "overlay up").finish_within(SHORTLY);
    assert_eq!(refused.code, 9, "{}", refused.stderr);
    assert!(refused.stderr.contains("names a different machine") && refused.stderr.contains("--adopt"));
    copy.start_by(on_machine(&copy, MACHINES[1], "--adopt"));
    assert_eq!(copy.ask("agents")["identity"], identity);
    copy.kill9();
    copy.start_by(on_machine(&copy, MACHINES[1], ""));
    copy.kill9();
    let refused = copy.host.start(on_machine(&copy, MACHINES[0], ""), "overlay up").finish_within(SHORTLY);
    assert_eq!(refused.code, 9, "{}", refused.stderr);
    let state = std::fs::read_to_string(copy.state().join("lab/machine")).expect("it is bound");
    assert!(MACHINES.iter().all(|id| !state.contains(id)), "the id itself is not kept");
}
