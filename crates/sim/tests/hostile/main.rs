//! What anybody can throw at the port without a key that counts: damaged, forged, flooding. Nothing is answered that
//! should not be, nothing is delivered, nothing moves, and all of it is counted.

use std::net::SocketAddr;

use overlay_sim::{HostId, Outsider, World, seconds};

mod cookies;
mod forgeries;
mod messages;

const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;

fn elsewhere() -> SocketAddr {
    "198.51.100.66:666".parse().expect("an address")
}

/// Alice has something for carol: her initiation, and a session from an earlier handshake that carol began.
fn called_by_alice(
    world: &mut World,
    alice: HostId,
    carol: &mut Outsider,
) -> (overlay_sim::initiator::Session, Vec<u8>) {
    let session = world.connect(carol);
    world.run_for(seconds(200));
    world.take_mail(carol.address);
    world.send(alice, world.from_outsider(carol).reversed().udp(b"for carol"));
    world.run_for(seconds(0));
    let mail = world.take_mail(carol.address);
    assert_eq!(mail.len(), 1);
    (session, mail[0].clone())
}
