//! The arguments of `overlay rendezvous`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use overlay_wire::signed::Pool;

use super::network_name;

#[derive(Debug, Subcommand)]
pub(crate) enum Rendezvous {
    /// Serve a network until Ctrl-C
    ///
    /// The first start makes the keys of the rendezvous and of the network. When agents can connect, one line is printed:
    /// the URL that they need. It ends in both public keys, so nobody else can pose as this rendezvous.
    Serve(Serve),
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The name of the network
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub(crate) network: String,

    /// Where agents connect
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,

    /// The IPv4 addresses of a new network; by default, a random /16 of 10.64.0.0/10
    #[arg(long, value_name = "CIDR", value_parser = pool)]
    pub(crate) pool: Option<Pool>,

    /// Serve /metrics and /health over plain HTTP
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// A TLS certificate with its chain, as PEM; by default, one that the rendezvous signs itself
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Connections from one IPv4 address or IPv6 /64 at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections_per_address: u16,
}

/// Parses the IPv4 addresses of a network.
fn pool(text: &str) -> Result<Pool, String> {
    let prefix: Ipv4Net = text.parse().map_err(|_| "give an IPv4 prefix such as 10.64.0.0/16".to_owned())?;
    if prefix.addr() != prefix.network() {
        return Err(format!("it has bits behind the prefix; did you mean `{}`?", prefix.trunc()));
    }
    Pool::new(prefix.addr(), prefix.prefix_len()).ok_or_else(|| {
        let lengths = Pool::PREFIX_LENGTHS;
        format!("a pool is a unicast prefix from /{} to /{}", lengths.start(), lengths.end())
    })
}
