//! Two agents behind routers of given kinds, usually at both ends of an Internet, with their rendezvous and its relay between
//! them.

use std::time::{Duration, Instant};

use overlay_sim::nat::Kind;
use serde_json::Value;

use super::agents::{Agent, Agents};
use super::internet::{End, Internet};
use super::site::Site;
use super::{Delays, SHORTLY, within};

/// The rendezvous, by the name that hosts of either family know.
const NAME: &str = "rv.example.net";
const ADDRESSES: [&str; 2] = ["192.0.2.9", "2001:db8:9::9"];

/// Where two agents live.
#[derive(Clone, Copy, Debug)]
pub enum Homes {
    /// Behind routers of these kinds, at both ends of the Internet.
    FarApart([Kind; 2]),
    /// Behind two routers whose WANs are on one link.
    OnOneLink([Kind; 2]),
    /// Behind one router.
    Together(Kind),
}

/// Two agents that trust each other. Their daemons run.
pub struct Apart {
    /// In the west.
    pub alice: Agent,
    /// In the east.
    pub bob: Agent,
    /// Where each of them lives: one site or two.
    pub sites: Vec<Site>,
    /// Their way to each other.
    pub internet: Internet,
    /// The rendezvous. Dropped last.
    pub world: Agents,
}

impl Apart {
    /// Creates both, and lets them trust each other. `None` if this machine cannot.
    #[track_caller]
    pub fn new(name: &str, kinds: [Kind; 2]) -> Option<Apart> {
        Apart::living(name, Homes::FarApart(kinds))
    }

    /// The same, wherever they live.
    #[track_caller]
    pub fn living(name: &str, homes: Homes) -> Option<Apart> {
        let mut server = None;
        let mut world = Agents::served_by(name, |router| {
            router.ip(&format!("address add {}/128 dev lo nodad", ADDRESSES[1]));
            let state = router.dir().join("lab");
            let line = format!(
                "--state-dir {} rendezvous serve --network lab --listen [::]:7447 --url https://{NAME}:7447",
                state.display()
            );
            let process = router.start(router.overlay_command(line), "overlay rendezvous serve");
            let url = within(SHORTLY, "the rendezvous", || process.stdout().strip_suffix('\n').map(str::to_owned));
            server = Some(process);
            url
        })?;
        world.adopt(server.expect("it has just been started"));
        let (internet, sites, [alice, bob]) = place(&world, homes);
        alice.ask("handshake bob --want any --allow any");
        bob.is_asked_by("alice");
        bob.ask("approve alice");
        alice.sees("bob", "trusted");
        bob.sees("alice", "trusted");
        Some(Apart { alice, bob, sites, internet, world })
    }

    /// Makes the way between both this long, there and back. Delays begin behind the rendezvous.
    pub fn slow(&self, round_trip: Duration) -> Delays {
        let core = self.internet.core();
        let delays = Delays::between(&core[1], &core[0], &core[2]);
        delays.set_round_trip(round_trip);
        delays
    }

    /// Waits until both send to each other directly.
    #[track_caller]
    pub fn are_direct_within(&self, patience: Duration) {
        within(patience, "a direct path of both", || self.are_direct().then_some(()));
    }

    /// Whether both send to each other directly.
    pub fn are_direct(&self) -> bool {
        let ways = [way(&self.alice, "bob"), way(&self.bob, "alice")];
        ways.iter().all(|way| way.as_deref() == Some("direct"))
    }

    /// Stops both daemons, makes all routers forget them, and starts them again, bob so much later.
    #[track_caller]
    pub fn restart(&mut self, later: Duration) {
        self.alice.stop();
        self.bob.stop();
        self.sites.iter().for_each(Site::forget);
        let began = Instant::now();
        let (alice, bob) = (&mut self.alice, &mut self.bob);
        std::thread::scope(|scope| {
            scope.spawn(|| alice.start());
            scope.spawn(|| {
                std::thread::sleep(later.saturating_sub(began.elapsed()));
                bob.start();
            });
        });
    }
}

/// Puts two agents into an Internet. They do not know each other yet.
#[track_caller]
pub fn place(world: &Agents, homes: Homes) -> (Internet, Vec<Site>, [Agent; 2]) {
    let internet = Internet::new(&world.lab);
    let attached = internet.attach(&world.lab, &world.router, End::NearEast);
    internet.announce(End::NearEast, &format!("{}/32", ADDRESSES[0]), Some(attached.v4.into()));
    internet.announce(End::NearEast, &format!("{}/128", ADDRESSES[1]), Some(attached.v6.into()));
    let site = |end, name: &str, kind| Site::new(&world.lab, &internet, end, name, kind);
    let sites = match homes {
        Homes::FarApart(kinds) => vec![site(End::West, "west", kinds[0]), site(End::East, "east", kinds[1])],
        Homes::OnOneLink(kinds) => {
            let link = internet.segment(End::West);
            let site = |(name, kind)| Site::on(&link, &world.lab, &internet, name, kind);
            ["west", "east"].into_iter().zip(kinds).map(site).collect()
        }
        Homes::Together(kind) => vec![site(End::West, "west", kind)],
    };
    let agent = |site: &Site, name: &str| {
        let host = site.host(&world.lab, name);
        host.write_etc_hosts(&ADDRESSES.map(|address| format!("{address} {NAME}\n")).concat());
        Agent::init(&host, name, &world.url).succeeded("overlay init");
        let mut agent = Agent::of(&host);
        agent.start();
        agent.is_registered(name);
        agent
    };
    let [first, last] = [0, sites.len() - 1];
    let both = [agent(&sites[first], "alice"), agent(&sites[last], "bob")];
    (internet, sites, both)
}

/// How an agent reaches its peer: `direct` or `relay`. `None` if it does not.
pub fn way(agent: &Agent, peer: &str) -> Option<String> {
    let path: Value = serde_json::from_str(&agent.verb(format!("path {peer} --json")).stdout).ok()?;
    path["primary"]["kind"].as_str().map(str::to_owned)
}
