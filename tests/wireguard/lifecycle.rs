//! Starting, running and stopping, as users of `ip link` and `kill` expect it.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::device::{Device, Program, no_ping, one_ping};
use super::worlds::{Apart, B_PORT, Wire};
use crate::lab::process::kill;
use crate::lab::{A, B, Lab, Outside, SHORTLY, within};

fn socket_of(device: &Device) -> PathBuf {
    Path::new("/var/run/wireguard").join(format!("{}.sock", device.name()))
}

/// Checks that its program is gone, and everything that it had created.
#[track_caller]
fn assert_gone(device: &Device) {
    within(SHORTLY, "the program to end", || (!device.is_alive()).then_some(()));
    within(SHORTLY, "its socket to be removed", || (!socket_of(device).exists()).then_some(()));
}

#[test]
fn down_it_carries_nothing_and_frees_its_port_and_up_again_it_carries() {
    if Program::under_test().is_excused("it keeps its sockets while its interface is down") {
        return;
    }
    let Some(world) = Wire::new("down and up") else { return };
    world.join(Outside::V4);
    let (a, b) = (&world.two.a, &world.two.b);
    one_ping(&a.host, B.v4);
    b.device.host().ip(&format!("link set {} down", b.device.name()));
    within(SHORTLY, "the port to be free", || (!b.device.is_listening()).then_some(()));
    assert!(b.device.is_alive());
    assert_eq!(b.device.show("listen-port"), B_PORT.to_string(), "what was asked for is not forgotten");
    no_ping(&a.host, B.v4);
    b.device.up();
    // The session that `b` had is gone, and `a` does not know yet, so `b` starts the handshake.
    one_ping(&b.host, A.v4);
    a.host.reaches(B.v4);
}

#[test]
fn it_ends_when_its_interface_is_deleted() {
    let Some(world) = Wire::new("deleted") else { return };
    let (device, host) = (&world.two.a.device, &world.pair.a);
    assert!(socket_of(device).exists());
    host.ip(&format!("link delete {}", device.name()));
    assert_gone(device);
    assert_eq!(host.exec("ss -Hlun"), "", "its ports are free");
}

#[test]
fn it_ends_with_the_namespace_that_its_interface_was_moved_to() {
    let Some(world) = Apart::new("namespace deleted") else { return };
    world.join(Outside::V4);
    one_ping(&world.two.a.host, B.v4);
    world.middle.exec(["ip", "netns", "delete", world.two.a.host.namespace()]);
    assert_gone(&world.two.a.device);
    assert!(world.two.b.device.is_alive());
}

#[test]
fn it_ends_when_it_is_asked_to_and_takes_its_interface_along() {
    for signal in [Signal::TERM, Signal::INT] {
        let Some(lab) = Lab::new("signal") else { return };
        let host = lab.host("a");
        let device = Device::start(&host);
        kill(&device.pid().to_string(), signal);
        assert_gone(&device);
        assert_ne!(host.run(format!("ip link show {}", device.name())).code, 0);
    }
}

/// A killed device leaves its socket behind. It does not get in the way of the next device with that name.
#[test]
fn what_a_killed_one_leaves_is_in_nobodys_way() {
    let Some(lab) = Lab::new("killed") else { return };
    let host = lab.host("a");
    for _ in 0..3 {
        let device = Device::start(&host);
        kill(&device.pid().to_string(), Signal::KILL);
        within(SHORTLY, "its end", || (!device.is_alive()).then_some(()));
        let gone = || (host.run(format!("ip link show {}", device.name())).code != 0).then_some(());
        within(SHORTLY, "its interface to go", gone);
        // Its socket may still exist. Any run of `wg show all` removes a socket that nobody answers on.
        let again = Device::start(&host);
        again.set("listen-port 41000");
        assert_eq!(again.show("listen-port"), "41000");
    }
}

#[test]
fn in_the_foreground_it_stays_there() {
    let Some(lab) = Lab::new("foreground") else { return };
    let host = lab.host("a");
    let program = Program::under_test().path(&host);
    for flag in ["-f", "--foreground"] {
        let mut process = host.spawn(format!("{} {flag} {}", program.display(), host.interface()));
        within(SHORTLY, "it to answer", || (host.run(["wg", "show", host.interface()]).code == 0).then_some(()));
        assert!(process.ended().is_none());
        process.signal(Signal::TERM);
        let ended = process.finish_within(SHORTLY);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
}

#[test]
fn a_name_that_no_interface_can_have_is_refused() {
    let Some(lab) = Lab::new("names") else { return };
    let host = lab.host("a");
    let program = Program::under_test().path(&host);
    for arguments in ["a-name-that-is-too-long", "bad/name"] {
        let said = host.spawn(format!("{} {arguments}", program.display())).finish_within(SHORTLY);
        assert_ne!(said.code, 0, "`{arguments}`: {said:?}");
    }
}

#[test]
fn two_of_one_name_are_refused() {
    let Some(world) = Wire::new("one name") else { return };
    let device = &world.two.a.device;
    let line = format!("{} {}", Program::under_test().path(&world.pair.a).display(), device.name());
    let said = world.pair.a.spawn(&line).finish_within(SHORTLY);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(device.is_alive());
    world.join(Outside::V4);
    one_ping(&world.pair.a, B.v4);
}
