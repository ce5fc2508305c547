//! Running code in a host's network namespace, for cases where starting a program would cost more than what is
//! measured.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread::{Scope, ScopedJoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::Host;

/// Runs `act` on a separate thread in the namespace of `host`.
pub(crate) fn inside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    host: &Host,
    act: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let path = Path::new("/run/netns").join(host.namespace());
    scope.spawn(move || {
        let namespace = File::open(&path).expect("a host of the lab has a namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter any namespace");
        act()
    })
}
