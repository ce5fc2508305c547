//! The arguments of `overlay network`: a network's key and its signed object, where no rendezvous runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use overlay_server::network::parse_rendezvous;
use overlay_wire::signed::{Pool, PublicKey, Rendezvous};

use super::network_name;
use super::rendezvous::pool;

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Make the key of a new network and its signed object
    ///
    /// The key signs what the network is and its join tokens. It can stay on a machine that is not connected. The hosts of
    /// the rendezvous get the object alone: `overlay rendezvous serve --network-file FILE`.
    Init(Init),
    /// Sign a network anew, with changes
    ///
    /// Replaces the object in FILE. Agents that are connected learn of it when each rendezvous was started with the new
    /// object.
    Sign(Sign),
    /// Show what a signed object says
    Show(Show),
}

/// What is put into the object.
#[derive(Debug, Args)]
pub(crate) struct Content {
    /// Where agents meet: https://HOST:PORT#KEY, with the key that `overlay rendezvous key` prints; may be repeated
    #[arg(long, value_name = "URL#KEY", value_parser = parse_rendezvous)]
    pub(crate) rendezvous: Vec<Rendezvous>,

    /// Close the network: only agents with a token may join
    #[arg(long)]
    pub(crate) closed: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The name of the network
    #[arg(value_name = "NAME", value_parser = network_name)]
    pub(crate) name: String,

    /// Where to write the key, which is secret
    #[arg(long, value_name = "FILE", default_value = "network.key")]
    pub(crate) key: PathBuf,

    /// Where to write the object; by default, NAME.network
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The IPv4 addresses of its agents; by default, a random /16 of 10.64.0.0/10
    #[arg(long, value_name = "CIDR", value_parser = pool)]
    pub(crate) pool: Option<Pool>,

    #[command(flatten)]
    pub(crate) content: Content,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The object
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The file with the network's key
    #[arg(long, value_name = "FILE", default_value = "network.key")]
    pub(crate) key: PathBuf,

    #[command(flatten)]
    pub(crate) content: Content,

    /// Take a rendezvous out, named by its key; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) remove: Vec<PublicKey>,

    /// Open a network that was closed: any agent may register
    #[arg(long, conflicts_with = "closed")]
    pub(crate) open: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The object
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}
