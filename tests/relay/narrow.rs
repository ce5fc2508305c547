//! Legs of different sizes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Relay, now, paired, until};
use crate::lab::{AT_LENGTH, Host, Lab, Star, inside};
use crate::tunnel::{Tunnel, carry};
use crate::{LEN, TRAIN, train};

/// The agents look for the path MTU themselves. A relay that fragments would hide it from them.
#[test]
fn what_does_not_fit_the_second_leg_is_dropped_by_name() {
    let Some(star) = Star::new("what_does_not_fit_the_second_leg_is_dropped_by_name") else { return };
    let relay = Relay::start(&star.a, "--open");
    let (mut agents, channel) = paired(&star, relay.key, false);
    star.a.ip(&format!("link set {} mtu 1300", star.a.link_to(&star.c)));
    let short = [&channel.head()[..], &[7; 500]].concat();
    let train = [&train(channel, 0)[..], &short].concat();
    // The kernel refuses the first train, and the relay does not ask it again.
    let rounds = 3;
    for round in 1..=rounds {
        agents[0].send(&train, LEN);
        until(&mut agents, "the one that fits", |agents| agents[1].arrived.len() == round * short.len());
    }
    assert_eq!(agents[1].arrived, short.repeat(rounds));
    assert_eq!(relay.counted(&star.a, "unsent_total{reason=\"too_long\"}"), 1);
    assert_eq!(relay.counted(&star.a, "dropped_too_long_total"), ((rounds - 1) * TRAIN) as u64);
    // Nothing else suffers.
    agents[1].arrived.clear();
    agents[0].send(&short.repeat(10), short.len());
    until(&mut agents, "a train of those", |agents| agents[1].arrived.len() == 10 * short.len());
    // A leg that is wide again is found after a second.
    star.a.ip(&format!("link set {} mtu 1500", star.a.link_to(&star.c)));
    agents[1].arrived.clear();
    until(&mut agents, "a long one", |agents| {
        agents[0].send(&train[..LEN], LEN);
        !agents[1].arrived.is_empty()
    });
}

/// 1,240 bytes is what an agent may send while it does not know its path.
#[test]
fn what_agents_send_to_an_unknown_path_arrives_in_fragments() {
    let Some(star) = Star::new("what_agents_send_to_an_unknown_path_arrives_in_fragments") else { return };
    let relay = Relay::start(&star.a, "--open");
    let (mut agents, channel) = paired(&star, relay.key, false);
    star.a.ip(&format!("link set {} mtu 1000", star.a.link_to(&star.c)));
    let of = |len: usize| [&channel.head()[..], &vec![9; len - 4]].concat();
    agents[0].send(&of(1_241), 1_241);
    agents[0].send(&of(1_240).repeat(3), 1_240);
    until(&mut agents, "those that may be fragmented", |agents| agents[1].arrived.len() >= 3 * 1_240);
    assert_eq!(agents[1].arrived, of(1_240).repeat(3));
}

/// Two daemons with the search for the path MTU, each with one end of a channel for a path. The leg of the second is narrow
/// beyond a router that tells nobody.
#[test]
fn rate_a_stream_over_a_narrow_leg_gets_half_of_it_and_never_stalls() {
    const LEN: usize = 64 << 20;
    /// The leg's rate in bytes a second.
    const RATE: f64 = 100e6 / 8.0;
    let Some(lab) = Lab::new("rate_a_stream_over_a_narrow_leg_gets_half_of_it_and_never_stalls") else { return };
    let [a, b, c, router] = ["a", "b", "c", "r"].map(|name| lab.host(name));
    lab.link(&a, &b, &["10.2.0.1/24"], &["10.2.0.2/24"]);
    lab.link(&a, &router, &["10.5.0.1/24"], &["10.5.0.2/24"]);
    lab.link(&router, &c, &["10.3.0.1/24"], &["10.3.0.2/24"]);
    for (one, other) in [(&a, &b), (&a, &router), (&router, &c)] {
        one.offloads_off(other);
        other.offloads_off(one);
    }
    a.ip("route add 10.3.0.0/24 via 10.5.0.2");
    c.ip("route add default via 10.3.0.1");
    router.exec("sysctl -qw net.ipv4.ip_forward=1");
    router.shell(
        "nft 'table ip eats { chain out { type filter hook output priority 0; \
         icmp type destination-unreachable counter drop; }; }'",
    );
    for (host, link) in [(&router, router.link_to(&c)), (&c, c.link_to(&router))] {
        host.ip(&format!("link set {link} mtu 1280"));
        host.exec(format!("tc qdisc add dev {link} root tbf rate 100mbit burst 64kb latency 50ms"));
    }
    let relay = Relay::start(&a, "--open");
    let mut agents =
        [Agent::new(&b, 11, ("10.2.0.1", relay.key), false), Agent::new(&c, 12, ("10.5.0.1", relay.key), false)];
    let permit = agents[1].permit(&agents[0], relay.key, 1);
    agents[0].client.open(permit, now()).expect("it is ours");
    let peer = agents[1].key.public();
    until(&mut agents, "a channel", |agents| agents[0].client.channel_to(&peer).is_some());
    let channel = agents[0].client.channel_to(&peer).expect("it is there");

    let daemons =
        [(&b, "10.77.0.1", &c, "10.77.0.2"), (&c, "10.77.0.2", &b, "10.77.0.1")].map(|(own, at, far, peer)| {
            let peer = far.peer_toml(Some(&Tunnel::ENDPOINT.to_string()), &[&format!("{peer}/32")]);
            own.overlay_up(&(own.interface_toml(&[&format!("{at}/32")]) + &peer))
        });
    let [first, second] = agents;
    let mut tunnels = [Tunnel::new(&b, first, channel), Tunnel::new(&c, second, channel)];
    let ways = [("into", &b, &c, "10.77.0.2"), ("out of", &c, &b, "10.77.0.1")];
    let took = carry(&mut tunnels, || ways.map(|(way, from, to, address)| (way, stream(from, to, address, LEN))));
    drop(daemons);
    for (way, (took, stall)) in took {
        let rate = LEN as f64 / took.as_secs_f64();
        eprintln!("{way} the narrow leg: {:.1} Mb/s, longest silence {stall:?}", rate * 8.0 / 1e6);
        assert!(rate >= RATE / 2.0, "{:.1} Mb/s {way} the narrow leg", rate * 8.0 / 1e6);
        assert!(stall < Duration::from_secs(3), "nothing arrived for {stall:?}");
    }
    let eaten = router.exec("nft list table ip eats");
    assert!(!eaten.contains("packets 0 "), "the router had nothing to eat: {eaten}");
}

/// Sends so many bytes over TCP inside the tunnel. Returns how long that took, and for how long nothing arrived.
fn stream(from: &Host, to: &Host, address: &str, len: usize) -> (Duration, Duration) {
    from.reaches(address);
    let listener = inside(to, || TcpListener::bind((address, 7_000)).expect("a free port"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = inside(from, || TcpStream::connect((address, 7_000)).expect("a way through the tunnel"));
            let block = vec![7; 1 << 20];
            for _ in 0..len >> 20 {
                stream.write_all(&block).expect("the other end reads");
            }
        });
        let (mut stream, _) = listener.accept().expect("the sender");
        stream.set_read_timeout(Some(AT_LENGTH)).expect("a timeout");
        let (began, mut block, mut got) = (Instant::now(), vec![0; 1 << 16], 0);
        let (mut last, mut stall) = (began, Duration::ZERO);
        while got < len {
            got += stream.read(&mut block).expect("bytes");
            let now = Instant::now();
            (last, stall) = (now, stall.max(now - last));
        }
        (last - began, stall)
    })
}
