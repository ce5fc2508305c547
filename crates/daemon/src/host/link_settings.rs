//! Stops our interface from accepting configuration from its link, and from sending redirects on it.
//!
//! The node drops router advertisements and redirects in both directions. These settings stop the kernel from
//! soliciting the former and from sending the latter, and protect the host should a packet get past the node. A
//! container or a service manager may have mounted `/proc/sys` read-only. The kernel's defaults then stay, which is not
//! an error.
//!
//! They do not replace the node's checks. For IPv4 redirects the kernel also uses `conf/all`, which belongs to the
//! host, and an interface that is moved to a different network namespace starts there with that namespace's defaults.
//!
//! Left out: `forwarding`, which belongs to the user, also on our interface.

use std::fs;
use std::path::{Path, PathBuf};

const OFF: [(&str, &str); 5] = [
    ("ipv6", "accept_ra"),
    ("ipv6", "autoconf"),
    ("ipv6", "accept_redirects"),
    ("ipv4", "accept_redirects"),
    ("ipv4", "send_redirects"),
];

/// Switches all of this off for an interface of this network namespace. Must be called before it has addresses and is
/// up.
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
            // An interface that does not exist, as on a host without IPv6: nothing happens.
            refuse_configuration("nobody-has-this");
        });
    }
}
