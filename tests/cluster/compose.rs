//! configs/compose.yaml, on three hosts: its commands, with its variables and volumes, run by the real programs.
//!
//! Images are not built. A container's program, its arguments and its folders are what the file says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab::host::overlay_program;
use crate::lab::{AT_LENGTH, Agent, Agents, Finished, Host, Process, services, within};

/// The hosts, all of them in the namespace of the router.
const HOSTS: [(&str, &str); 3] = [("rv1", "192.0.2.9"), ("rv2", "192.0.2.10"), ("rv3", "192.0.2.11")];
const NAME: &str = "rv.example.net";

/// One host with the file.
struct Compose {
    router: Host,
    file: Value,
    variables: BTreeMap<&'static str, String>,
    running: BTreeMap<&'static str, Process>,
}

impl Compose {
    #[track_caller]
    fn of(router: &Host, place: usize) -> Compose {
        let (name, address) = HOSTS[place];
        let list = |shown: &dyn Fn(&(&str, &str)) -> String| HOSTS.iter().map(shown).collect::<Vec<_>>().join(",");
        let variables = BTreeMap::from([
            ("NAME", name.to_owned()),
            ("ADDRESS", address.to_owned()),
            ("CLUSTER", list(&|(name, address)| format!("{name}=http://{address}:2380"))),
            ("MEMBERS", list(&|(_, address)| format!("{address}:2379"))),
            ("NETWORK", "lab".to_owned()),
            ("RENDEZVOUS", NAME.to_owned()),
        ]);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/compose.yaml");
        let read = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
        let text = router.exec([services::PYTHON, "-c", read, path]);
        let file = serde_json::from_str(&text).expect("JSON");
        Compose { router: router.clone(), file, variables, running: BTreeMap::new() }
    }

    /// The folder that a volume of the file stands for, made.
    fn volume(&self, name: &str) -> PathBuf {
        let folder = self.router.dir().join(format!("{}-{name}", self.variables["NAME"]));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// A text of the file, with its variables and the folders of its volumes.
    #[track_caller]
    fn expanded(&self, service: &Value, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.variables {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        assert!(!text.contains('$'), "a variable is not explained: {text}");
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let (name, inside) = volume.as_str().and_then(|volume| volume.split_once(':')).expect("NAME:FOLDER");
            assert!(self.file["volumes"].get(name).is_some(), "the volume {name} is not declared");
            text = text.replace(inside, &self.volume(name).display().to_string());
        }
        text
    }

    /// The program of a service, as the Containerfile says it.
    #[track_caller]
    fn program(&self, service: &Value) -> String {
        let target = service["build"]["target"].as_str().expect("a target");
        let lines = include_str!("../../configs/Containerfile").lines();
        let stage = lines.skip_while(|line| !line.ends_with(&format!(" AS {target}")));
        let entry = stage
            .skip(1)
            .take_while(|line| !line.starts_with("FROM "))
            .find_map(|line| line.strip_prefix("ENTRYPOINT [\"")?.strip_suffix("\"]"));
        match entry.expect("an entry point") {
            "overlay" => overlay_program().display().to_string(),
            program => program.to_owned(),
        }
    }

    /// `docker compose up -d SERVICE`.
    #[track_caller]
    fn up(&mut self, name: &'static str) {
        let service = &self.file["services"][name];
        let arguments = service["command"].as_array().expect("a command").iter();
        let arguments = arguments.map(|argument| self.expanded(service, argument.as_str().expect("text")));
        let mut command = self.router.command(self.program(service));
        command.args(arguments);
        let process = self.router.start(command, name);
        self.running.insert(name, process);
    }

    /// Waits until the rendezvous has printed its URL.
    #[track_caller]
    fn url(&mut self) -> String {
        let server = self.running.get_mut("rendezvous").expect("it runs");
        within(AT_LENGTH, "the rendezvous", || {
            assert!(server.ended().is_none(), "the rendezvous ended: {}", server.stderr());
            server.stdout().strip_suffix('\n').map(str::to_owned)
        })
    }

    /// A verb in the container of the rendezvous.
    fn verb(&self, words: &str) -> Finished {
        self.router.overlay(format!("--state-dir {} rendezvous {words}", self.volume("rendezvous").display()))
    }
}

#[test]
fn the_compose_example_serves_a_network_from_three_hosts() {
    let mut hosts = Vec::new();
    let Some(mut agents) = Agents::served_by("compose", |router| {
        for (_, address) in &HOSTS[1..] {
            router.ip(&format!("address add {address}/32 dev lo"));
        }
        hosts.extend((0..HOSTS.len()).map(|place| Compose::of(router, place)));
        hosts.iter_mut().for_each(|host| host.up("etcd"));
        hosts[0].up("rendezvous");
        let url = hosts[0].url();
        let keys = router.dir().join("lab.backup");
        hosts[0].verb(&format!("backup {}", keys.display())).succeeded("backup");
        for host in &mut hosts[1..] {
            host.verb(&format!("restore --shared {}", keys.display())).succeeded("restore");
            host.up("rendezvous");
            assert_eq!(host.url(), url, "it is one rendezvous");
        }
        url
    }) else {
        return;
    };
    let mut agent = |name: &str, place: usize| {
        let host = agents.host(name);
        host.write_etc_hosts(&format!("127.0.0.1 localhost\n{} {NAME}\n", HOSTS[place].1));
        Agent::init(&host, name, &agents.url).succeeded("overlay init");
        let mut agent = Agent::of(&host);
        agent.start();
        agent.is_registered(name);
        agent
    };
    let _first = agent("first", 0);
    // A whole host is gone, with its member of the cluster.
    hosts[0].running.clear();
    let late = agent("late", 2);
    let found = late.verb("find first --json").stdout;
    assert!(found.contains("first"), "{found}");
}
