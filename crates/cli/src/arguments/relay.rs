//! The arguments of `overlay relay`.

use std::net::SocketAddr;
use std::num::NonZeroU64;

use clap::{ArgGroup, Args, Subcommand};
use overlay_wire::signed::PublicKey;

use super::network_name;

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Relay datagrams until Ctrl-C
    ///
    /// The first start makes the key of the relay. When agents can use it, one line is printed: its address and its key.
    Serve(Serve),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("members").required(true))]
pub(crate) struct Serve {
    /// The name of the network, which names the folder for the relay's key
    #[arg(long, value_name = "NAME", value_parser = network_name)]
    pub(crate) network: String,

    /// The UDP address and port
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,

    /// The key of a rendezvous that vouches for members; may be repeated
    #[arg(long, value_name = "KEY", value_parser = key, group = "members")]
    pub(crate) rendezvous: Vec<PublicKey>,

    /// Relay for everybody
    #[arg(long, group = "members", conflicts_with = "rendezvous")]
    pub(crate) open: bool,

    /// How many bytes a second each agent may send, as in 500K or 10M; by default, any number
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) rate: Option<NonZeroU64>,

    /// How many bytes a day each agent may send, as in 500M or 10G; by default, any number
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) daily: Option<NonZeroU64>,

    /// Serve /metrics and /health over plain HTTP
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// Parses the key of a rendezvous.
fn key(text: &str) -> Result<PublicKey, String> {
    let key: PublicKey = text.parse().map_err(|reason| format!("{reason}"))?;
    key.check().map(|()| key).map_err(|_| "nobody has a secret that belongs to this key".to_owned())
}

/// Parses a number of bytes: digits, and K, M, G or T for thousands, millions and so on.
pub(super) fn bytes(text: &str) -> Result<NonZeroU64, String> {
    let wrong = || "give a number of bytes from 1 up, such as 1500, 500K, 10M or 2G".to_owned();
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        Some((at, 'T')) => (&text[..at], 1_000_000_000_000),
        _ => (text, 1),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number).and_then(|number| number.checked_mul(unit));
    number.and_then(NonZeroU64::new).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_bytes_may_have_a_unit() {
        let good = [("1", 1), ("1500", 1_500), ("500K", 500_000), ("10M", 10_000_000), ("2G", 2_000_000_000)];
        for (text, number) in good {
            assert_eq!(bytes(text).map(NonZeroU64::get), Ok(number), "{text}");
        }
        for text in ["", "0", "K", "0M", "-1", "+1", "1.5M", "10 M", "10m", "10KB", "99999999999T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
