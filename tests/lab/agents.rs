//! Agents of one network, and their rendezvous: the real binary in agent mode.
//!
//! The rendezvous' host is also the router between the agents, so their packets still cross when its program is killed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::disk::Disk;
use super::host::Host;
use super::overlay::Overlay;
use super::process::{CommandLine, Finished, Process};
use super::wait::{SHORTLY, within};
use super::{Lab, faketime, services};

/// The rendezvous' address, on the loopback of its host.
const ADDRESS: &str = "192.0.2.9";

/// A network with a rendezvous that runs, and no agents yet.
pub struct Agents {
    /// The host of the rendezvous, which routes between the agents.
    pub router: Host,
    /// What `rendezvous serve` printed: `https://192.0.2.9:7447#RVKEY.NETKEY`.
    pub url: String,
    server: Option<Process>,
    count: u8,
    /// Dropped last.
    pub lab: Lab,
}

impl Agents {
    /// Starts a rendezvous. `None` if this machine cannot.
    #[track_caller]
    pub fn new(name: &str) -> Option<Agents> {
        let mut server = None;
        let world = Self::served_by(name, |router| {
            let (process, url) = serve(router, ("lab", "lab"), 7447, "");
            server = Some(process);
            url
        })?;
        Some(Agents { server, ..world })
    }

    /// A network whose rendezvous the caller starts on the router, which has the address 192.0.2.9. `start` returns its URL.
    #[track_caller]
    pub fn served_by(name: &str, start: impl FnOnce(&Host) -> String) -> Option<Agents> {
        let lab = Lab::new(name)?;
        let router = lab.router("rv");
        router.ip(&format!("address add {ADDRESS}/32 dev lo"));
        let url = start(&router);
        Some(Agents { router, url, server: None, count: 0, lab })
    }

    /// Takes the program of the rendezvous that the caller has started.
    pub fn adopt(&mut self, server: Process) {
        self.server = Some(server);
    }

    /// Starts a second rendezvous, of a different network, and returns its URL.
    #[track_caller]
    pub fn second_rendezvous(&self) -> (Process, String) {
        serve(&self.router, ("other", "other"), 7448, "")
    }

    /// Creates a host that reaches the rendezvous and the other agents' hosts.
    pub fn host(&mut self, name: &str) -> Host {
        self.count += 1;
        let host = self.lab.host(name);
        let (near, far) = (format!("10.{}.0.1", self.count), format!("10.{}.0.2", self.count));
        self.lab.link(&self.router, &host, &[&format!("{near}/24")], &[&format!("{far}/24")]);
        host.ip(&format!("route add default via {near}"));
        host
    }

    /// Makes an agent with `init` on a host of its own, starts it, and waits until it is registered.
    #[track_caller]
    pub fn agent(&mut self, name: &str) -> Agent {
        let host = self.host(name);
        Agent::init(&host, name, &self.url).succeeded("overlay init");
        let mut agent = Agent::of(&host);
        agent.start();
        agent.is_registered(name);
        agent
    }

    /// Starts `alice` and `bob`.
    #[track_caller]
    pub fn two(&mut self) -> (Agent, Agent) {
        (self.agent("alice"), self.agent("bob"))
    }

    /// Starts the rendezvous again with its state, after [`Agents::kill`].
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with("");
    }

    /// Like [`Agents::start`], with more arguments.
    #[track_caller]
    pub fn start_with(&mut self, more: &str) {
        let (server, url) = serve(&self.router, ("lab", "lab"), 7447, more);
        assert_eq!(url, self.url, "the keys are the same");
        self.server = Some(server);
    }

    /// Starts the rendezvous again with a wall clock that is off by this much, after [`Agents::kill`]. Returns false if this
    /// machine cannot.
    #[track_caller]
    #[must_use]
    pub fn start_at(&mut self, offset: &str) -> bool {
        let mut command = serve_command(&self.router, ("lab", "lab"), 7447, "");
        let can = faketime::under_another_clock(&mut command, &faketime::set_offset(&self.router, offset));
        if can {
            self.server = Some(serving(&self.router, command).0);
        }
        can
    }

    /// Runs a verb of the operator: `overlay rendezvous VERB`.
    pub fn operator(&self, verb: &str) -> Finished {
        let state = self.state().display().to_string();
        let command = self.router.overlay_command(format!("--state-dir {state} rendezvous {verb}"));
        self.router.start(command, &format!("overlay rendezvous {verb}")).finish_within(SHORTLY)
    }

    /// What a verb of the operator prints with `--json`.
    #[track_caller]
    pub fn operator_asks(&self, verb: &str) -> Value {
        let printed = self.operator(&format!("{verb} --json")).succeeded(&format!("overlay rendezvous {verb}"));
        serde_json::from_str(&printed).expect("JSON")
    }

    /// The state folder of the rendezvous.
    pub fn state(&self) -> PathBuf {
        self.router.dir().join("lab")
    }

    /// Kills the rendezvous.
    pub fn kill(&mut self) {
        drop(self.server.take());
    }
}

/// Starts a rendezvous with its state in a folder of the host, and returns what it prints.
#[track_caller]
pub fn serve(host: &Host, place: (&str, &str), port: u16, more: &str) -> (Process, String) {
    serving(host, serve_command(host, place, port, more))
}

fn serve_command(host: &Host, (folder, network): (&str, &str), port: u16, more: &str) -> Command {
    let state = host.dir().join(folder);
    let line = format!(
        "--state-dir {} rendezvous serve --network {network} --listen {ADDRESS}:{port} {more}",
        state.display()
    );
    host.overlay_command(line)
}

/// Starts a rendezvous, and returns its URL.
#[track_caller]
fn serving(host: &Host, command: Command) -> (Process, String) {
    let mut server = host.start(command, "overlay rendezvous serve");
    let url = within(SHORTLY, "the rendezvous", || {
        assert!(server.ended().is_none(), "the rendezvous ended: {}", server.stderr());
        server.stdout().strip_suffix('\n').map(str::to_owned)
    });
    (server, url)
}

/// An agent on a host. Its daemon may run or not.
pub struct Agent {
    /// Its host, which has a state folder and a runtime folder of its own.
    pub host: Host,
    overlay: Option<Overlay>,
}

impl Agent {
    /// Runs `overlay init`.
    pub fn init(host: &Host, name: &str, url: &str) -> Finished {
        ask(host, format!("init {name} --rendezvous {url} -o {}", config(host).display()))
    }

    /// The agent of a host on which `init` ran. It does not run yet.
    pub fn of(host: &Host) -> Agent {
        Agent { host: host.clone(), overlay: None }
    }

    /// Starts the daemon.
    #[track_caller]
    pub fn start(&mut self) {
        self.overlay = Some(Overlay::from_command(&self.host, self.up_command()));
    }

    /// Moves the state folder to a disk of its own. `None` if this machine has no such disks. The daemon must not run.
    #[track_caller]
    pub fn move_to_disk(&self) -> Option<Disk> {
        let (state, aside) = (self.state(), self.host.dir().join("state-before"));
        std::fs::rename(&state, &aside).expect("the folder that `init` has made");
        let disk = Disk::new(&self.host, &state)?;
        let at = state.display();
        disk.run(&format!("cp -a {}/. {at}; sync -f {at}", aside.display())).succeeded("cp");
        std::fs::remove_dir_all(&aside).expect("our own folder");
        Some(disk)
    }

    /// Starts the daemon with its state folder on a disk.
    #[track_caller]
    pub fn start_on(&mut self, disk: &Disk) {
        let command = disk.command(&self.up_command());
        self.overlay = Some(Overlay::from_command(&self.host, command));
    }

    /// Starts the daemon with a command of the caller's.
    #[track_caller]
    pub fn start_by(&mut self, command: Command) {
        self.overlay = Some(Overlay::from_command(&self.host, command));
    }

    /// Starts the daemon with a filter for its log, as `debug`.
    #[track_caller]
    pub fn start_logging(&mut self, filter: &str) {
        let mut command = self.up_command();
        command.env("OVERLAY_LOG", filter);
        self.overlay = Some(Overlay::from_command(&self.host, command));
    }

    /// The command that starts the daemon.
    pub fn up_command(&self) -> Command {
        let line = format!("--state-dir {} up {}", self.state().display(), self.config().display());
        self.host.overlay_command(line)
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        state(&self.host)
    }

    /// Starts the daemon with a wall clock that is off by this much, for example `-400d`. Returns false if this machine
    /// cannot.
    #[track_caller]
    #[must_use]
    pub fn start_at(&mut self, offset: &str) -> bool {
        let mut command = self.up_command();
        let can = faketime::under_another_clock(&mut command, &faketime::set_offset(&self.host, offset));
        if can {
            self.overlay = Some(Overlay::from_command(&self.host, command));
        }
        can
    }

    /// The daemon, which must run.
    pub fn daemon(&self) -> &Overlay {
        self.overlay.as_ref().expect("the daemon runs")
    }

    /// Ends the daemon in order.
    #[track_caller]
    pub fn stop(&mut self) {
        self.overlay.take().expect("the daemon runs").stop();
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill9(&mut self) {
        self.overlay.take().expect("the daemon runs").kill9();
    }

    /// The config that `init` has written.
    pub fn config(&self) -> PathBuf {
        config(&self.host)
    }

    /// Runs a verb.
    pub fn verb(&self, arguments: impl CommandLine) -> Finished {
        ask(&self.host, arguments)
    }

    /// Runs a verb that must succeed, and returns its answer.
    #[track_caller]
    pub fn ask(&self, line: &str) -> Value {
        let json = self.verb(format!("{line} --json")).succeeded(line);
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{line} is not valid JSON: {error}\n{json}"))
    }

    /// What `agents` shows of a peer, or null.
    #[track_caller]
    pub fn peer(&self, name: &str) -> Value {
        let status = self.ask("agents");
        let peers = status["peers"].as_array().expect("`peers` is a list");
        peers.iter().find(|peer| peer["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until a peer is in this state.
    #[track_caller]
    pub fn sees(&self, name: &str, state: &str) {
        self.sees_within(SHORTLY, name, state);
    }

    /// Like [`Agent::sees`], with a different limit.
    #[track_caller]
    pub fn sees_within(&self, limit: Duration, name: &str, state: &str) {
        within(limit, &format!("{name} to be {state} at {}", self.host.name()), || {
            (self.peer(name)["state"] == state).then_some(())
        });
    }

    /// Waits until a request of this agent waits for a decision.
    #[track_caller]
    pub fn is_asked_by(&self, name: &str) -> Value {
        within(SHORTLY, &format!("a request of {name}"), || {
            let pending = self.ask("pending");
            pending["requests"].as_array()?.iter().find(|request| request["name"] == name).cloned()
        })
    }

    /// Waits until the rendezvous knows the agent, so that others find it, and it finds them.
    #[track_caller]
    pub fn is_registered(&self, name: &str) {
        within(SHORTLY, &format!("{name} to be registered"), || {
            let found: Value = serde_json::from_str(&self.verb(format!("find {name} --json")).stdout).ok()?;
            found["agents"].as_array().is_some_and(|agents| !agents.is_empty()).then_some(())
        });
    }

    /// Its virtual IPv4 address, once the rendezvous has given it one.
    #[track_caller]
    pub fn v4(&self) -> String {
        within(SHORTLY, &format!("the IPv4 address of {}", self.host.name()), || self.address(IpAddr::is_ipv4))
    }

    /// Its virtual IPv6 address.
    #[track_caller]
    pub fn v6(&self) -> String {
        within(SHORTLY, "the IPv6 address", || self.address(IpAddr::is_ipv6))
    }

    #[track_caller]
    fn address(&self, is_one: impl Fn(&IpAddr) -> bool) -> Option<String> {
        let status = self.ask("agents");
        let addresses = status["addresses"].as_array().expect("`addresses` is a list");
        let texts = addresses.iter().filter_map(Value::as_str);
        texts.filter(|text| text.parse().is_ok_and(|address| is_one(&address))).map(str::to_owned).next()
    }

    /// Serves a folder of its own over HTTP, and returns the server.
    #[track_caller]
    pub fn serves(&self) -> Process {
        let folder = self.host.dir().join("www");
        std::fs::create_dir_all(&folder).expect("a folder in the host's folder");
        std::fs::write(folder.join("hello"), "hello").expect("our own folder");
        services::http_server(&self.host, &folder)
    }

    /// Runs `curl` for the file that [`Agent::serves`] offers.
    pub fn curls(&self, address: &str) -> Finished {
        let url = format!("http://{}:{}/hello", services::bracketed(address), services::HTTP);
        self.host.run(format!("curl -sS --fail --noproxy * --max-time 5 {url}"))
    }
}

/// Makes two agents, which are called as their hosts, trust each other: `one` asks with these options, and `other` approves with
/// these.
#[track_caller]
pub fn befriend(one: &Agent, handshake: &str, other: &Agent, approve: &str) {
    let (name, others) = (one.host.name(), other.host.name());
    one.ask(&format!("handshake {others} {handshake}"));
    other.is_asked_by(name);
    other.ask(&format!("approve {name} {approve}"));
    one.sees(others, "trusted");
    other.sees(name, "trusted");
}

pub(super) fn config(host: &Host) -> PathBuf {
    host.dir().join(format!("{}.toml", host.interface()))
}

pub(super) fn state(host: &Host) -> PathBuf {
    host.dir().join("state")
}

fn ask(host: &Host, arguments: impl CommandLine) -> Finished {
    let mut words = vec!["--state-dir".to_owned(), state(host).display().to_string()];
    words.extend(arguments.words());
    host.overlay(&words.iter().map(String::as_str).collect::<Vec<_>>()[..])
}
