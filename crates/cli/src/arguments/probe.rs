//! The arguments of the verbs that measure: `overlay ping`, `path`, `mtu` and `netcheck`.

use std::time::Duration;

use clap::Args;
use overlay_daemon::netcheck::Server;

use super::seconds;

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// Name or public key of a peer, or a virtual IP
    #[arg(value_name = "PEER|IP")]
    pub(crate) target: String,

    /// Name of the interface; by default, the only one that is running
    #[arg(short = 'I', long, value_name = "NAME")]
    pub(crate) interface: Option<String>,

    /// Stop after N probes
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,

    /// Time between probes
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) interval: Duration,

    /// How long to wait for each answer
    #[arg(short = 'W', long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub(crate) wait: Duration,

    /// Stop when an answer came over a direct path; exit code 8 if none does
    #[arg(long)]
    pub(crate) until_direct: bool,

    /// How long to wait for a direct path
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, requires = "until_direct")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Path {
    /// Name, key or virtual IP of a peer; 16 characters of the key are enough
    #[arg(value_name = "PEER")]
    pub(crate) peer: String,

    /// Name of the interface; by default, the only one that is running
    #[arg(short = 'I', long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Mtu {
    /// Name, public key or virtual IP of a peer; by default, all peers
    #[arg(value_name = "PEER")]
    pub(crate) peer: Option<String>,

    /// Name of the interface; by default, the only one that is running
    #[arg(short = 'I', long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Netcheck {
    /// A config file, or the NAME of an interface or of /etc/overlay/NAME.toml; by default, the only one
    #[arg(value_name = "CONFIG|NAME", conflicts_with = "server")]
    pub(crate) config: Option<String>,

    /// Ask this STUN server instead, over UDP; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = server)]
    pub(crate) server: Vec<Server>,
}

/// Parses a host name, an IPv4 address, or an IPv6 address in brackets, with a port.
fn server(text: &str) -> Result<Server, String> {
    let wrong = || "give HOST:PORT, for example `stun.example.org:3478` or `[2001:db8::1]:3478`".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_good = match bare {
        Some(six) => six.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '[', ']', '@']),
    };
    if is_good { Ok(Server { host: bare.unwrap_or(host).to_owned(), port }) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (text, host) in [
            ("stun.example.org:3478", "stun.example.org"),
            ("192.0.2.1:3478", "192.0.2.1"),
            ("[2001:db8::1]:3478", "2001:db8::1"),
        ] {
            assert_eq!(server(text), Ok(Server { host: host.to_owned(), port: 3478 }));
        }
        let wrong =
            ["stun.example.org", "a:0", "a:65536", ":3478", "2001:db8::1:3478", "[a]:3478", "stun://a:3478", "a:"];
        for text in wrong {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
