//! Ten minutes of packet loss, which must not be taken for a smaller MTU.

use std::time::{Duration, Instant};

use super::road::{FAR, FOUND, Road, Router, around, mtu};
use crate::lab::Outside;

const TEN_MINUTES: Duration = Duration::from_secs(600);
/// Loss in each direction, in percent.
const LOSS: u32 = 10;

#[test]
fn soak_ten_minutes_of_loss_do_not_lower_the_mtu() {
    let Some(road) = Road::new("loss", 1500) else { return };
    road.narrow(1500, Router::Says);
    let _daemons = road.up(Outside::V4);
    road.a.reaches(FAR.v4);
    let truth = 1500 - around(Outside::V4);
    let began = Instant::now();
    for host in [&road.a, &road.b] {
        road.found_by(host, began, FOUND, |found| found == truth);
    }

    // Each router drops packets on the way to the other.
    for (router, other) in [(&road.near, &road.far), (&road.far, &road.near)] {
        let link = router.link_to(other);
        let path = router.write(
            "loss.nft",
            format!(
                "table inet loss {{\nchain forward {{ type filter hook forward priority 0; \
                 oifname \"{link}\" udp dport 51820 numgen random mod 100 < {LOSS} drop\n}}\n}}\n"
            ),
        );
        router.exec(format!("nft -f {}", path.display()));
    }
    // Large packets all the time, in both directions.
    let seconds = TEN_MINUTES.as_secs();
    let pings = road.a.spawn(format!("ping -q -i 0.02 -s 1400 -w {seconds} {}", FAR.v4));
    let began = Instant::now();
    while began.elapsed() < TEN_MINUTES {
        for host in [&road.a, &road.b] {
            let known = mtu(host);
            assert_eq!(known["mtu"], truth, "on {} after {:?}: {known:#}", host.name(), began.elapsed());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let said = pings.finish_within(Duration::from_secs(30)).stdout;
    let lost: f64 = said
        .split(", ")
        .find_map(|part| part.strip_suffix("% packet loss")?.parse().ok())
        .expect("a share of the pings");
    eprintln!("{lost} % of the pings lost");
    assert!((15.0..25.0).contains(&lost), "{lost} % where 19 % were to be lost");
}
