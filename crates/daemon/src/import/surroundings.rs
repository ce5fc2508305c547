//! What a wg-quick config assumes about its host: names of tables, services and interfaces, and forwarding.

use std::fs;
use std::path::Path;

/// Where iproute2 keeps the names of routing tables. The first match counts.
const TABLE_FILES: [&str; 3] =
    ["/etc/iproute2/rt_tables", "/usr/share/iproute2/rt_tables", "/usr/lib/iproute2/rt_tables"];
/// Where further table names may be.
const TABLE_FOLDER: &str = "/etc/iproute2/rt_tables.d";

/// The host on which a config is imported.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The routing tables by name.
    pub tables: Vec<(String, u32)>,
    /// The UDP ports by service name.
    pub services: Vec<(String, u16)>,
    /// The interfaces by name.
    pub links: Vec<(String, u32)>,
    /// Whether the kernel forwards packets between interfaces, in either address family.
    pub forwards: bool,
}

impl Surroundings {
    /// Reads the surroundings of this host. What cannot be read counts as missing.
    pub fn of_this_host() -> Self {
        let further = fs::read_dir(TABLE_FOLDER).into_iter().flatten().flatten().map(|entry| entry.path());
        let tables = TABLE_FILES.iter().map(|file| Path::new(file).to_owned()).chain(further);
        let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten().filter_map(|entry| {
            let index = fs::read_to_string(entry.path().join("ifindex")).ok()?.trim().parse().ok()?;
            Some((entry.file_name().into_string().ok()?, index))
        });
        let is_on = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() != "0");
        Self {
            tables: tables.flat_map(|file| tables_of(&fs::read_to_string(file).unwrap_or_default())).collect(),
            services: services_of(&fs::read_to_string("/etc/services").unwrap_or_default()),
            links: links.collect(),
            forwards: is_on("/proc/sys/net/ipv4/ip_forward") || is_on("/proc/sys/net/ipv6/conf/all/forwarding"),
        }
    }

    pub(super) fn table(&self, name: &str) -> Option<u32> {
        self.tables.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }

    pub(super) fn service(&self, name: &str) -> Option<u16> {
        self.services.iter().find(|(known, _)| known == name).map(|(_, port)| *port)
    }

    pub(super) fn link(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(known, _)| known == name).map(|(_, index)| *index)
    }
}

/// Parses lines of `NUMBER NAME`.
fn tables_of(text: &str) -> Vec<(String, u32)> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let number = super::wg_quick::number(words.next()?)?;
        Some((words.next()?.to_owned(), number))
    };
    text.lines().filter_map(entry).collect()
}

/// Parses lines of `NAME PORT/udp ALIAS...`.
fn services_of(text: &str) -> Vec<(String, u16)> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?.to_owned();
        let port = words.next()?.strip_suffix("/udp")?.parse().ok()?;
        let aliases: Vec<_> = words.map(|alias| (alias.to_owned(), port)).collect();
        Some(std::iter::once((name, port)).chain(aliases).collect::<Vec<_>>())
    };
    text.lines().filter_map(entry).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_system_writes_them() {
        let tables = tables_of("# reserved\n255\tlocal\n0xfe main\n\n200 vpn # ours\nnonsense\n");
        assert_eq!(
            tables,
            [("local", 255), ("main", 254), ("vpn", 200)].map(|(name, number)| (name.to_owned(), number))
        );
        let services = services_of("domain 53/tcp\ndomain\t53/udp\nopenvpn 1194/udp ovpn # tunnel\n");
        let expected = [("domain", 53), ("openvpn", 1194), ("ovpn", 1194)];
        assert_eq!(services, expected.map(|(name, port)| (name.to_owned(), port)));
    }
}
