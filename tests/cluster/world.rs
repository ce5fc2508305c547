//! Two processes of one rendezvous, and agents that find both under one name.

use std::path::PathBuf;

use serde_json::Value;

use crate::lab::etcd::Etcd;
use crate::lab::{Agent, Agents, Finished, Host, Process, SHORTLY, within};

/// Where agents find the rendezvous.
pub(crate) const URL: &str = "https://rendezvous.example:7447";
/// Where its processes listen, on the router.
const PLACES: [&str; 2] = ["192.0.2.9", "192.0.2.10"];

pub(crate) struct World {
    servers: [Option<Process>; 2],
    pub(crate) etcd: Etcd,
    pub(crate) agents: Agents,
}

impl World {
    /// A rendezvous whose two processes run. `None` if this machine cannot.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Option<World> {
        let (mut etcd, mut first) = (None, None);
        let agents = Agents::served_by(name, |router| {
            router.ip(&format!("address add {}/32 dev lo", PLACES[1]));
            etcd = Some(Etcd::start(router));
            let (server, url) = serve(router, 0, &format!("--store {} --url {URL}", Etcd::store()));
            first = Some(server);
            url
        })?;
        let mut world = World { servers: [first, None], etcd: etcd.expect("it was started"), agents };
        world.join_second();
        Some(world)
    }

    /// Gives the second host the keys, and starts its process.
    #[track_caller]
    fn join_second(&mut self) {
        let router = &self.agents.router;
        let backup = router.dir().join("lab.backup");
        let verb = |place: usize, line: &str| {
            router.overlay(format!("--state-dir {} rendezvous {line}", state(router, place).display())).succeeded(line);
        };
        verb(0, &format!("backup {}", backup.display()));
        verb(1, &format!("restore --shared {}", backup.display()));
        self.start(1);
    }

    /// Starts a process again.
    #[track_caller]
    pub(crate) fn start(&mut self, place: usize) {
        self.start_with(place, "");
    }

    /// Starts a process again, with more options.
    #[track_caller]
    pub(crate) fn start_with(&mut self, place: usize, more: &str) {
        let (server, url) = serve(&self.agents.router, place, &format!("--store {} {more}", Etcd::store()));
        assert_eq!(url, self.agents.url, "both have one key");
        self.servers[place] = Some(server);
    }

    /// Kills a process.
    pub(crate) fn kill(&mut self, place: usize) {
        drop(self.servers[place].take().expect("it runs"));
    }

    /// Waits until a process goes on with the network object of the other one.
    #[track_caller]
    pub(crate) fn follows(&self, place: usize) {
        let server = self.servers[place].as_ref().expect("it runs");
        within(SHORTLY, "the newer network object", || {
            let log = server.stderr();
            let (_, since) = log.split_once("has a newer network object")?;
            since.contains("the rendezvous is ready").then_some(())
        });
    }

    /// Makes and starts an agent that knows these processes under the name of the rendezvous.
    #[track_caller]
    pub(crate) fn agent(&mut self, name: &str, places: &[usize]) -> Agent {
        let agent = self.newcomer(name, places);
        agent.is_registered(name);
        agent
    }

    /// The same, whatever comes of it.
    #[track_caller]
    pub(crate) fn newcomer(&mut self, name: &str, places: &[usize]) -> Agent {
        let host = self.agents.host(name);
        let lines = places.iter().map(|place| format!("{} rendezvous.example\n", PLACES[*place]));
        host.write_etc_hosts(&format!("127.0.0.1 localhost\n{}", lines.collect::<String>()));
        Agent::init(&host, name, &self.agents.url).succeeded("overlay init");
        let mut agent = Agent::of(&host);
        agent.start();
        agent
    }

    /// How many agents are connected to a process.
    #[track_caller]
    pub(crate) fn connections(&self, place: usize) -> u64 {
        self.operator_asks(place, "stats")["connections"].as_u64().expect("a number")
    }

    pub(crate) fn operator(&self, place: usize, verb: &str) -> Finished {
        let router = &self.agents.router;
        router.overlay(format!("--state-dir {} rendezvous {verb}", state(router, place).display()))
    }

    #[track_caller]
    pub(crate) fn operator_asks(&self, place: usize, verb: &str) -> Value {
        let printed = self.operator(place, &format!("{verb} --json")).succeeded(verb);
        serde_json::from_str(&printed).expect("JSON")
    }
}

/// The state folder of a process.
pub(crate) fn state(router: &Host, place: usize) -> PathBuf {
    router.dir().join(format!("process-{place}"))
}

/// The line that starts a process.
pub(crate) fn line(router: &Host, place: usize, more: &str) -> String {
    let (state, listen) = (state(router, place), PLACES[place]);
    format!("--state-dir {} rendezvous serve --network lab --listen {listen}:7447 {more}", state.display())
}

/// Starts a process, and returns its URL.
#[track_caller]
pub(crate) fn serve(router: &Host, place: usize, more: &str) -> (Process, String) {
    let mut server = router.start(router.overlay_command(line(router, place, more)), "overlay rendezvous serve");
    let url = within(SHORTLY, "the rendezvous", || {
        assert!(server.ended().is_none(), "the rendezvous ended: {}", server.stderr());
        server.stdout().strip_suffix('\n').map(str::to_owned)
    });
    (server, url)
}
