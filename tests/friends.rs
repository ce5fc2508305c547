//! Agents that find each other while no rendezvous runs: by a friend of both.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "real programs and seconds are what this is about"
)]

mod lab;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::agents::befriend;
use lab::{Agent, Agents, Apart, End, Frames, Host, Site, within};
use overlay_sim::nat::Kind;

/// How soon two agents are connected that have both moved.
const CONNECTED: Duration = Duration::from_secs(5);

/// `alice`, `bob` and `carol`. All of them trust each other, but for the pairs that are left out.
#[track_caller]
fn three(name: &str, strangers: &[[usize; 2]]) -> Option<(Agents, [Agent; 3])> {
    let mut world = Agents::new(name)?;
    let agents = ["alice", "bob", "carol"].map(|name| world.agent(name));
    for pair in [[0, 1], [0, 2], [1, 2]] {
        if !strangers.contains(&pair) {
            meet(pair.map(|at| &agents[at]));
        }
    }
    Some((world, agents))
}

/// Makes two agents trust each other, and lets them meet.
#[track_caller]
fn meet([one, other]: [&Agent; 2]) {
    befriend(one, "--want any --allow any", other, "");
    one.host.reaches(&other.v6());
}

/// Ends the rendezvous, and what it knows.
fn wipe(world: &mut Agents) {
    world.kill();
    fs::remove_dir_all(world.state()).expect("the state of the rendezvous");
}

/// Moves an agent's host to a new address in its network.
fn moves(router: &Host, agent: &Agent) {
    let device = agent.host.link_to(router);
    let addresses = agent.host.ip(&format!("-4 -o address show dev {device}"));
    let before = addresses.split_whitespace().nth(3).expect("its address").to_owned();
    let network = before.rsplit_once('.').expect("an IPv4 address").0;
    agent.host.ip(&format!("address delete {before} dev {device}"));
    agent.host.ip(&format!("address add {network}.77/24 dev {device}"));
    agent.host.ip(&format!("route replace default via {network}.1"));
}

/// Requires that a ping of one agent is soon answered by another.
#[track_caller]
fn are_soon_connected(from: &Agent, to: &str) {
    let since = Instant::now();
    let pings = from.host.spawn(format!("ping -i 0.1 {to}"));
    within(CONNECTED, "an answer", || pings.stdout().contains("bytes from").then_some(()));
    eprintln!("connected after {:.1?}", since.elapsed());
}

/// A count of an agent, of what friends carry for each other.
fn parcels(agent: &Agent, what: &str) -> u64 {
    agent.ask("status")["friend_parcels"][what].as_u64().expect("a count")
}

#[test]
fn two_that_have_both_moved_find_each_other_by_a_friend() {
    let Some((mut world, [alice, bob, carol])) = three("friend", &[]) else { return };
    let address = bob.v6();
    wipe(&mut world);
    moves(&world.router, &alice);
    moves(&world.router, &bob);
    are_soon_connected(&alice, &address);
    assert!(parcels(&carol, "handed") > 0);
}

#[test]
fn two_that_start_anew_elsewhere_find_each_other_by_a_friend() {
    let Some((mut world, [mut alice, mut bob, carol])) = three("anew", &[]) else { return };
    let address = bob.v6();
    wipe(&mut world);
    for agent in [&mut alice, &mut bob] {
        agent.stop();
        moves(&world.router, agent);
        agent.start();
    }
    are_soon_connected(&alice, &address);
    assert!(parcels(&carol, "handed") > 0);
}

/// Their addresses are private, so only others could tell them that these are reached from outside.
#[test]
fn two_that_start_anew_in_turn_do_not_tell_each_other_less_than_is_known() {
    let Some(mut world) = Agents::new("in turn") else { return };
    let mut agents = ["alice", "bob"].map(|name| world.agent(name));
    meet([&agents[0], &agents[1]]);
    wipe(&mut world);
    for at in [0, 1, 0, 1] {
        agents[at].kill9();
        agents[at].start();
        are_soon_connected(&agents[at], &agents[1 - at].v6());
    }
}

/// Only the friend can tell them how they are seen from outside now.
#[test]
fn two_that_have_moved_behind_routers_find_each_other_by_a_friend_outside() {
    let Some(mut apart) = Apart::new("outside", [Kind::Moderate; 2]) else { return };
    let outside = Site::beside(&apart.world.lab, &apart.internet, End::NearWest, "out", Kind::None);
    let host = outside.host(&apart.world.lab, "carol");
    host.write_etc_hosts(&apart.alice.host.etc_hosts());
    Agent::init(&host, "carol", &apart.world.url).succeeded("overlay init");
    let mut carol = Agent::of(&host);
    carol.start();
    carol.is_registered("carol");
    for agent in [&apart.alice, &apart.bob] {
        meet([agent, &carol]);
    }
    let address = apart.bob.v6();
    apart.world.kill();
    let (lab, agents) = (&apart.world.lab, [&apart.alice, &apart.bob]);
    let moved = [(End::West, "new1"), (End::East, "new2")];
    let sites = moved.map(|(end, name)| Site::new(lab, &apart.internet, end, name, Kind::Moderate));
    for (agent, [before, after]) in agents.iter().zip(apart.sites.iter().zip(&sites).map(|(a, b)| [a, b])) {
        agent.host.ip(&format!("link delete {}", agent.host.link_to(before.router())));
        after.join(lab, &agent.host);
    }
    are_soon_connected(&apart.alice, &address);
    assert!(parcels(&carol, "handed") > 0);
}

#[test]
fn a_friend_of_one_alone_carries_nothing() {
    let Some((mut world, [alice, bob, carol])) = three("one", &[[1, 2]]) else { return };
    let address = bob.v6();
    wipe(&mut world);
    moves(&world.router, &alice);
    moves(&world.router, &bob);
    let _pings = alice.host.spawn(format!("ping -i 0.2 {address}"));
    within(2 * CONNECTED, "alice to ask carol", || (parcels(&carol, "refused") > 0).then_some(()));
    sleep(Duration::from_secs(1));
    assert_eq!(parcels(&carol, "handed"), 0);
    assert_eq!(alice.host.run(format!("ping -c 1 -W 1 {address}")).code, 1, "nobody knows where bob is");
}

/// `alice` and `bob`, who trust each other, and have a link of their own beside those to the rendezvous.
#[track_caller]
fn on_one_lan(name: &str, keys: &str) -> Option<(Agents, [Agent; 2])> {
    let mut world = Agents::new(name)?;
    let hosts = ["alice", "bob"].map(|name| world.host(name));
    world.lab.link(&hosts[0], &hosts[1], &["192.168.7.1/24"], &["192.168.7.2/24"]);
    let agents = hosts.each_ref().map(|host| {
        Agent::init(host, host.name(), &world.url).succeeded("overlay init");
        let mut agent = Agent::of(host);
        let config = fs::read_to_string(agent.config()).expect("`init` has written it");
        fs::write(agent.config(), config.replace("[agent]\n", &format!("[agent]\n{keys}"))).expect("our own file");
        agent.start();
        agent.is_registered(host.name());
        agent
    });
    meet(agents.each_ref());
    Some((world, agents))
}

/// How many announcements have crossed a link.
fn announcements(frames: &Frames) -> usize {
    frames.datagrams().iter().filter(|datagram| datagram.contents.starts_with(b"ovL1")).count()
}

/// Ends the rendezvous, takes the uplinks away, and gives both hosts new addresses on their own link.
fn cut_off(world: &mut Agents, agents: &[Agent; 2]) {
    wipe(world);
    for (at, agent) in agents.iter().enumerate() {
        let (up, own) = (agent.host.link_to(&world.router), agent.host.link_to(&agents[1 - at].host));
        agent.host.ip(&format!("link set {up} down"));
        agent.host.ip(&format!("address delete 192.168.7.{}/24 dev {own}", at + 1));
        agent.host.ip(&format!("address add 192.168.7.{}/24 dev {own}", at + 11));
    }
}

#[test]
fn two_on_one_lan_find_each_other_while_everything_else_is_dead() {
    let Some((mut world, agents)) = on_one_lan("lan", "") else { return };
    let address = agents[1].v6();
    cut_off(&mut world, &agents);
    let own = agents[0].host.link_to(&agents[1].host);
    let frames = Frames::start(&agents[0].host, &own, "", "udp");
    are_soon_connected(&agents[0], &address);
    let announced = announcements(&frames);
    assert!((2..=20).contains(&announced), "{announced}");
    let counts = agents.each_ref().map(|agent| agent.ask("status")["lan_announcements"].clone());
    assert!(counts.iter().all(|of| of["sent"].as_u64() > Some(0) && of["found"].as_u64() > Some(0)), "{counts:?}");
}

#[test]
fn two_that_start_anew_on_one_lan_find_each_other() {
    let Some((mut world, mut agents)) = on_one_lan("lan anew", "") else { return };
    let address = agents[1].v6();
    agents.iter_mut().for_each(Agent::stop);
    cut_off(&mut world, &agents);
    agents.iter_mut().for_each(Agent::start);
    are_soon_connected(&agents[0], &address);
}

#[test]
fn an_agent_that_is_not_to_be_heard_on_its_lan_neither_speaks_nor_listens() {
    let Some((mut world, agents)) = on_one_lan("quiet", "lan = \"off\"\n") else { return };
    let address = agents[1].v6();
    let port = u16::from_be_bytes(*b"ov").to_string();
    let listens = |agent: &Agent| agent.host.exec("ss -lunH").contains(&format!(":{port} "));
    assert!(!agents.iter().any(listens));
    cut_off(&mut world, &agents);
    let own = agents[0].host.link_to(&agents[1].host);
    let frames = Frames::start(&agents[0].host, &own, "", "udp");
    let _pings = agents[0].host.spawn(format!("ping -i 0.2 {address}"));
    sleep(2 * CONNECTED);
    assert_eq!(announcements(&frames), 0);
}
