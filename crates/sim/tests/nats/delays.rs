//! Delay, jitter and loss by direction, on the links of hosts and plain sockets behind routers.

use std::time::Duration;

use overlay_sim::nat::Kind;
use overlay_sim::{World, millis};

#[test]
fn delay_jitter_and_loss_are_set_for_each_direction_of_a_natted_link() {
    let mut world = World::new(7);
    let router = world.router(Kind::Moderate);
    let inside = world.socket_behind(router, false);
    let server = world.socket_at("203.0.113.1:7000".parse().unwrap());
    world.link(inside, server, |link| link.latency = millis(70));
    world.link(server, inside, |link| {
        link.latency = millis(10);
        link.jitter = millis(20);
        link.loss = 0.2;
    });

    let (mut times, mut lost) = (Vec::new(), 0);
    for _ in 0..1_000 {
        let began = world.now();
        world.post(inside, world.address(server), b"?");
        world.run_for(millis(70));
        let source = world.take_letters(server).first().expect("no question is lost").source;
        world.post(server, source, b"!");
        let mut is_lost = true;
        for _ in 0..30 {
            world.run_for(millis(1));
            if is_lost && !world.take_letters(inside).is_empty() {
                times.push(world.now().since(began));
                is_lost = false;
            }
        }
        lost += u32::from(is_lost);
    }
    assert!((150..250).contains(&lost), "{lost} of 1,000 at 20 %");
    let range = [times.iter().min().unwrap(), times.iter().max().unwrap()];
    assert!(range[0] >= &millis(80) && range[1] <= &Duration::from_millis(101), "{range:?}");
    assert!(*range[1] - *range[0] > millis(15), "{range:?}");
}

#[test]
fn a_link_may_have_more_routers_than_others() {
    let mut world = World::new(7);
    let router = world.router(Kind::Moderate);
    let inside = world.socket_behind(router, false);
    let server = world.socket_at("203.0.113.1:7000".parse().unwrap());
    world.link(inside, server, |link| link.hops = 9);
    for ttl in [10, 11] {
        world.post_with_ttl(inside, world.address(server), &[ttl], ttl);
    }
    world.run_for(millis(100));
    let arrived: Vec<_> = world.take_letters(server).into_iter().map(|letter| letter.bytes).collect();
    assert_eq!(arrived, [[11]]);
}
