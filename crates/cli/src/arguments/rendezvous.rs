//! The arguments of `overlay rendezvous`: running one, and what its operator does.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use overlay_server::StoreAt;
use overlay_server::network::parse_url;
use overlay_wire::signed::{Pool, check_tag};

use super::agent::lifetime;
use super::network_name;
use super::relay::bytes;

#[derive(Debug, Subcommand)]
pub(crate) enum Rendezvous {
    /// Serve a network until Ctrl-C
    ///
    /// The first start makes the keys of the rendezvous and of the network. When agents can connect, one line is printed:
    /// the URL that they need. It ends in both public keys, so nobody else can pose as this rendezvous.
    Serve(Box<Serve>),
    /// Print the key of this host's rendezvous, which is made at first, for `overlay network`
    Key(Key),
    /// Make, list and revoke the tokens by which agents join a closed network
    #[command(subcommand)]
    Token(Token),
    /// List, remove and ban agents
    #[command(subcommand)]
    Agents(Agents),
    /// Free a name that its agent has given up, before the 30 days are over
    Release(Release),
    /// Show the counters of a running rendezvous
    Stats(Network),
    /// Write the keys and the registry of a running rendezvous to a new file
    Backup(Backup),
    /// Make a rendezvous from a backup, on a host that has none of this network
    Restore(Restore),
}

/// The rendezvous that is meant: one of this host.
#[derive(Debug, Args)]
pub(crate) struct Network {
    /// The name of the network; by default, the only one of which a rendezvous keeps its state here
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub(crate) network: Option<String>,
}

/// The key of a rendezvous.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The name of the network
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub(crate) network: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a new token; the holder of its text may join
    Create(Create),
    /// List the tokens that the rendezvous knows
    List(Network),
    /// End a token: nobody joins with it any more, and those who have joined stay
    Revoke(Revoke),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The only name that an agent may take with it
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub(crate) name: Option<String>,

    /// A tag that the network vouches for; may be repeated
    #[arg(long, value_name = "TAG", value_parser = tag)]
    pub(crate) tag: Vec<String>,

    /// How many agents may join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,

    /// Any number of agents may join with it
    #[arg(long, conflicts_with = "uses")]
    pub(crate) reusable: bool,

    /// Its agents vanish ten minutes after they have gone, and their names are free
    #[arg(long)]
    pub(crate) ephemeral: bool,

    /// How long agents may join with it, as in 30m, 24h or 7d
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = lifetime)]
    pub(crate) lifetime: u64,

    /// Write the token to a new file, which only its owner may read
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The file with the network key, if it is not beside the rendezvous
    #[arg(long, value_name = "FILE")]
    pub(crate) network_key: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) on: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Key of the token, as `token list` shows it; 16 characters are enough
    #[arg(value_name = "TOKEN")]
    pub(crate) token: String,

    #[command(flatten)]
    pub(crate) on: Network,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agents {
    /// List all agents
    List(Network),
    /// Remove an agent; it needs a new token to come back to a closed network
    Remove(Agent),
    /// Remove an agent, which gets nothing from the rendezvous until the ban is lifted
    Ban(Agent),
    /// Lift a ban
    Unban(Agent),
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Name or key of an agent; 16 characters of the key are enough
    #[arg(value_name = "AGENT")]
    pub(crate) agent: String,

    #[command(flatten)]
    pub(crate) on: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The new file, which only its owner may read: it holds private keys
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) on: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup; `-` reads it from stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Restore the keys alone: this host is to run one more process of a rendezvous that goes on, with `serve --store`
    #[arg(long)]
    pub(crate) shared: bool,

    #[command(flatten)]
    pub(crate) on: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The name
    #[arg(value_name = "NAME", value_parser = network_name)]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) on: Network,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The name of the network
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub(crate) network: String,

    /// Where agents connect
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,

    /// Take the place of the rendezvous of this network that runs on this host: no connection is refused meanwhile
    ///
    /// The new process checks its arguments and files, and takes the listening sockets. Then the old one keeps what is
    /// under way, tells its agents to come back, and ends. If the new one fails, the old one goes on. If none runs, this
    /// is a start like any other.
    #[arg(long)]
    pub(crate) replace: bool,

    /// The IPv4 addresses of a new network; by default, a random /16 of 10.64.0.0/10
    #[arg(long, value_name = "CIDR", value_parser = pool)]
    pub(crate) pool: Option<Pool>,

    /// Close the network: only agents with a token may join, and those that are registered already stay
    #[arg(long)]
    pub(crate) closed: bool,

    /// Open a network that was closed: any agent may register
    #[arg(long, conflicts_with = "closed")]
    pub(crate) open: bool,

    /// Where agents find this rendezvous, if that is not where it listens; `network.key` must be here to sign it
    #[arg(long, value_name = "URL", value_parser = parse_url, conflicts_with = "network_file")]
    pub(crate) url: Option<String>,

    /// A network object that was signed elsewhere: see `overlay network`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pool", "closed", "open"])]
    pub(crate) network_file: Option<PathBuf>,

    /// Where to keep the registry: `file`, or an etcd cluster that several processes share; by default, `file`
    ///
    /// Processes that share a cluster are one rendezvous, with one key: `overlay rendezvous backup` on the first host and
    /// `restore --shared` on the next one give it the key. etcds:// is etcd over TLS.
    #[arg(long, value_name = "etcd://HOST:PORT[,...]")]
    pub(crate) store: Option<StoreAt>,

    /// The certificates that sign those of the cluster, as PEM; by default, those that the system trusts
    #[arg(long, value_name = "FILE", requires = "store")]
    pub(crate) store_ca: Option<PathBuf>,

    /// Our certificate for the cluster, as PEM
    #[arg(long, value_name = "FILE", requires_all = ["store", "store_key"])]
    pub(crate) store_cert: Option<PathBuf>,

    /// The private key of `--store-cert`, as PEM
    #[arg(long, value_name = "FILE", requires = "store_cert")]
    pub(crate) store_key: Option<PathBuf>,

    /// Our user in the cluster
    #[arg(long, value_name = "NAME", requires_all = ["store", "store_password_file"])]
    pub(crate) store_user: Option<String>,

    /// The file with the password of `--store-user`
    #[arg(long, value_name = "FILE", requires = "store_user")]
    pub(crate) store_password_file: Option<PathBuf>,

    /// Serve /metrics and /health over plain HTTP
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Where to relay datagrams for members, on UDP; by default, at the address and port of `--listen`
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) udp: Option<SocketAddr>,

    /// Do not relay
    #[arg(long, conflicts_with_all = ["udp", "relay_rate", "relay_daily"])]
    pub(crate) no_relay: bool,

    /// How many bytes a second each agent may send through the relay, as in 500K or 10M; by default, any number
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) relay_rate: Option<NonZeroU64>,

    /// How many bytes a day each agent may send through the relay, as in 500M or 10G; by default, any number
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) relay_daily: Option<NonZeroU64>,

    /// A TLS certificate with its chain, as PEM; by default, one that the rendezvous signs itself
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// The private key of the certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Connections from one IPv4 address or IPv6 /64 at once; twice as many new ones within 10 s
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) connections_per_address: u16,
}

/// Checks a tag.
fn tag(text: &str) -> Result<String, String> {
    check_tag(text).map(|()| text.to_owned()).map_err(|reason| reason.to_string())
}

/// Parses the IPv4 addresses of a network.
pub(super) fn pool(text: &str) -> Result<Pool, String> {
    let prefix: Ipv4Net = text.parse().map_err(|_| "give an IPv4 prefix such as 10.64.0.0/16".to_owned())?;
    if prefix.addr() != prefix.network() {
        return Err(format!("it has bits behind the prefix; did you mean `{}`?", prefix.trunc()));
    }
    Pool::new(prefix.addr(), prefix.prefix_len()).ok_or_else(|| {
        let lengths = Pool::PREFIX_LENGTHS;
        format!("a pool is a unicast prefix from /{} to /{}", lengths.start(), lengths.end())
    })
}
