//! Where the registry is kept, as the operator says it.

use std::fmt;
use std::str::FromStr;

const WANTED: &str = "write etcd://HOST:PORT[,HOST:PORT...], etcds:// for TLS, or `file`";
/// The most members of a cluster that are named.
const MAX_MEMBERS: usize = 16;

/// Where the registry is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreAt {
    /// In a file of the state folder, for one process.
    #[default]
    File,
    /// In an etcd cluster, which several processes share.
    Etcd(Members),
}

/// The members of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Each as `HOST:PORT`.
    pub addresses: Vec<String>,
    /// Whether they are spoken to over TLS.
    pub has_tls: bool,
}

impl StoreAt {
    /// A cluster that the operator has yet to name.
    pub(crate) fn unnamed() -> Self {
        Self::Etcd(Members { addresses: vec!["HOST:PORT".to_owned()], has_tls: false })
    }
}

impl FromStr for StoreAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "file" {
            return Ok(Self::File);
        }
        let (scheme, members) = text.split_once("://").ok_or_else(|| format!("it has no scheme; {WANTED}"))?;
        let has_tls = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(format!("`{scheme}` is not a store; {WANTED}")),
        };
        let addresses: Vec<_> = members.split(',').map(str::to_owned).collect();
        if addresses.len() > MAX_MEMBERS {
            return Err(format!("it names {} members; name {MAX_MEMBERS} at most", addresses.len()));
        }
        addresses.iter().try_for_each(|address| check_member(address))?;
        Ok(Self::Etcd(Members { addresses, has_tls }))
    }
}

/// Refuses what is not `HOST:PORT`.
fn check_member(address: &str) -> Result<(), String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("`{address}` has no port; {WANTED}"))?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err(format!("`{port}` is not a port: write 1 to 65535"));
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    if is_host { Ok(()) } else { Err(format!("`{host}` is not a host; {WANTED}")) }
}

impl fmt::Display for StoreAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Etcd(Members { addresses, has_tls }) => {
                write!(f, "{}://{}", if *has_tls { "etcds" } else { "etcd" }, addresses.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_read_as_it_is_written() {
        for text in ["file", "etcd://10.0.0.1:2379", "etcds://a.example:2379,b.example:2379", "etcd://[2001:db8::1]:1"]
        {
            assert_eq!(text.parse::<StoreAt>().map(|store| store.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_store_is_refused_with_what_to_write() {
        let many = format!("etcd://{}", vec!["a:1"; MAX_MEMBERS + 1].join(","));
        for (text, said) in [
            ("10.0.0.1:2379", "it has no scheme; write etcd://"),
            ("redis://a:1", "`redis` is not a store; write etcd://"),
            ("etcd://a", "`a` has no port; write etcd://"),
            ("etcd://a:1,b", "`b` has no port; write etcd://"),
            ("etcd://a:0", "`0` is not a port: write 1 to 65535"),
            ("etcd://a:b", "`b` is not a port"),
            ("etcd://:1", "`` is not a host; write etcd://"),
            ("etcd://a/b:1", "`a/b` is not a host"),
            ("etcd://2001:db8::1:1", "`2001:db8::1` is not a host"),
            ("etcd://user@a:1", "`user@a` is not a host"),
            (&*many, "it names 17 members; name 16 at most"),
        ] {
            let refused = text.parse::<StoreAt>().expect_err(text);
            assert!(refused.starts_with(said), "{text}: {refused}");
        }
    }
}
