//! What a program has changed on a host: links, addresses, routes, rules, sockets, nft tables, files.
//!
//! It is read with Debian's own tools and never with our netlink code, so that a bug there cannot hide itself.

use std::fs;
use std::path::Path;

use super::host::Host;
use super::wait::POLL;

/// The state of a host, as text to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    parts: Vec<(&'static str, String)>,
    with_files: bool,
}

impl Footprint {
    /// Reads everything that `overlay up` touches.
    #[track_caller]
    pub fn of(host: &Host) -> Footprint {
        let mut footprint = Footprint::of_namespace(host);
        footprint.parts.push(("uapi sockets", listing(Path::new("/var/run/wireguard"), host.interface())));
        footprint.parts.push(("runtime folder", listing(&host.runtime_dir(), "")));
        Footprint { with_files: true, ..footprint }
    }

    /// Like [`Footprint::of`], but without files, which all namespaces share.
    #[track_caller]
    pub fn of_namespace(host: &Host) -> Footprint {
        let parts = vec![
            ("links", host.ip("-o -d link show")),
            ("addresses", host.ip("-o address show")),
            ("routes", sorted(&(host.ip("-4 route show table all") + &host.ip("-6 route show table all")))),
            ("rules", host.ip("-4 rule show") + &host.ip("-6 rule show")),
            ("udp sockets", sorted(&host.exec("ss -Huanp"))),
            ("tcp sockets", sorted(&host.exec("ss -Htlnp"))),
            ("nft", host.exec("nft list ruleset")),
            ("sysctls", sysctls(host)),
        ];
        Footprint { parts, with_files: false }
    }

    /// Requires that a host is unchanged.
    ///
    /// # Panics
    /// Panics if it has changed, and shows each part that differs.
    #[track_caller]
    pub fn assert_unchanged(&self, host: &Host) {
        let look = if self.with_files { Footprint::of } else { Footprint::of_namespace };
        let mut now = look(host);
        // The kernel may take a moment to remove the routes of a deleted link.
        for _ in 0..50 {
            if now == *self {
                return;
            }
            std::thread::sleep(POLL);
            now = look(host);
        }
        for ((part, before), (_, after)) in self.parts.iter().zip(&now.parts) {
            if before != after {
                eprintln!("--- {part} before\n{before}\n--- {part} now\n{after}");
            }
        }
        panic!("host {} is not as it was", host.name());
    }
}

fn sorted(lines: &str) -> String {
    let mut lines: Vec<_> = lines.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The sysctls that a VPN might be tempted to set.
fn sysctls(host: &Host) -> String {
    host.exec(
        "sysctl net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.ipv4.conf.all.src_valid_mark \
         net.ipv4.conf.default.rp_filter net.ipv6.conf.all.forwarding net.ipv6.conf.all.disable_ipv6",
    )
}

/// The names in a folder with this prefix. Empty if the folder does not exist. Two files may stay: a lock file, of which
/// only the lock matters, and `NAME.flows`, which says that a daemon ran on this boot.
fn listing(folder: &Path, prefix: &str) -> String {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with(prefix) && !name.ends_with(".lock") && !name.ends_with(".flows"))
        .collect();
    names.sort_unstable();
    names.join("\n")
}
