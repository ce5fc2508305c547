//! Runs code of the test itself on a host.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Host;

/// Runs `act` in a host's namespace. Sockets that it opens stay there.
pub fn inside<T: Send>(host: &Host, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{}", host.namespace())).expect("the host's namespace");
    let enter_and_act = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("we are root");
        act()
    };
    thread::scope(|scope| scope.spawn(enter_and_act).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
