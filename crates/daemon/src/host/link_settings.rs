//! What our interface believes of its link, and says on it: nothing.
//!
//! The node drops router advertisements and redirects in either direction; these settings keep the kernel from asking for
//! the former and from sending the latter, and stand behind the node where a packet should get past it. A container or a
//! service manager may have mounted `/proc/sys` read-only: then the kernel's defaults stay, which is no error.
//!
//! They are no substitute for what the node does: for redirects of IPv4 the kernel also listens to `conf/all`, which is the
//! host's, and an interface that is moved to another network namespace begins there with that namespace's defaults.
//!
//! Left out: `forwarding`, which is the user's, also for our interface.

use std::fs;
use std::path::{Path, PathBuf};

const OFF: [(&str, &str); 5] = [
    ("ipv6", "accept_ra"),
    ("ipv6", "autoconf"),
    ("ipv6", "accept_redirects"),
    ("ipv4", "accept_redirects"),
    ("ipv4", "send_redirects"),
];

/// Switches all of it off for an interface of this network namespace. To be called before it has addresses and is up.
pub(crate) fn refuse_configuration(interface: &str) {
    for (family, key) in OFF {
        let path = setting(family, interface, key);
        if let Err(error) = fs::write(&path, "0") {
            tracing::debug!(%error, "{} keeps its value", path.display());
        }
    }
}

fn setting(family: &str, interface: &str, key: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(family).join("conf").join(interface).join(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::own_namespace::{ip, run};

    #[test]
    fn an_interface_believes_nothing_of_its_link_and_forwards_as_before() {
        run(|| async {
            ip("link add near.1 type veth peer name far");
            let value = |family, key| {
                let text = fs::read_to_string(setting(family, "near.1", key)).expect("a setting of the kernel");
                text.trim().to_owned()
            };
            let forwarding = || [value("ipv4", "forwarding"), value("ipv6", "forwarding")];
            let before = forwarding();
            refuse_configuration("near.1");
            for (family, key) in OFF {
                assert_eq!(value(family, key), "0", "{family} {key}");
            }
            assert_eq!(forwarding(), before);
            // No such interface, as on a host without IPv6: nothing happens.
            refuse_configuration("nobody-has-this");
        });
    }
}
