//! Parsers for the values in a config: pure, and as exact as possible about what is wrong.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::problem::{Problem, quoted};

mod agent;
mod endpoint;
mod moment;
mod prefix;
mod rendezvous;
mod rule;
mod scope;

pub(crate) use agent::{check_agent_name, parse_scope, parse_service, parse_tag};
pub(super) use agent::{parse_approved, parse_identity};
pub(crate) use endpoint::parse_endpoint;
pub(super) use moment::parse_moment;
pub use prefix::parse_address;
pub(super) use prefix::parse_allowed_ip;
pub(crate) use prefix::parse_net;
pub use rendezvous::parse_rendezvous;
pub(super) use rule::parse_rule;
pub use scope::check_scope;

/// The length limit of the kernel for interface names, in bytes.
const MAX_INTERFACE_NAME: usize = 15;

/// The length limit of a DNS label in bytes, and of a peer's name, which is meant to become one.
const MAX_LABEL: usize = 63;

/// Returns the interface name that follows from the name of a config file, as in wg-quick, or `None` if it is not a valid one.
pub fn interface_name_of(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    check_interface_name(stem).is_ok().then(|| stem.to_owned())
}

/// Applies the rules of both the kernel and wg-quick. The name is also used as a file name.
pub(super) fn check_interface_name(name: &str) -> Result<(), Problem> {
    let bad = |message: String| Err(Problem::new("bad_interface_name", message));
    let shown = quoted(name);
    let fits = |c: char| c.is_ascii_alphanumeric() || "_=+.-".contains(c);
    if name.is_empty() {
        bad("the interface's name is empty".to_owned()).map_err(|p| p.hint("write name = \"overlay0\""))
    } else if let Some(wrong) = name.chars().find(|c| !fits(*c)) {
        let what = if wrong.is_whitespace() { "a blank".to_owned() } else { quoted(&wrong.to_string()) };
        let cured: String = name.chars().map(|c| if fits(c) { c } else { '-' }).take(MAX_INTERFACE_NAME).collect();
        bad(format!("{shown} cannot be an interface's name: it has {what} in it"))
            .map_err(|p| p.hint(format!("use letters, digits and `_=+.-`, as in \"{cured}\"")))
    } else if name.len() > MAX_INTERFACE_NAME {
        bad(format!("{shown} has {} characters; an interface's name has at most 15", name.len()))
            .map_err(|p| p.hint(format!("shorten it, for example to \"{}\"", &name[..MAX_INTERFACE_NAME])))
    } else if matches!(name, "." | ".." | "lo" | "all" | "default") || name.starts_with('-') {
        bad(format!("{shown} cannot be an interface's name: it means something else to the system"))
            .map_err(|p| p.hint("choose a different name, for example \"overlay0\""))
    } else {
        Ok(())
    }
}

/// Whether `name` is a valid peer name: a word of letters, digits, `-`, `_` and `.`.
pub(crate) fn is_peer_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=MAX_LABEL).contains(&name.len()) && name.chars().all(fits) && name.parse::<IpAddr>().is_err()
}

pub(super) fn check_peer_name(name: &str) -> Result<(), Problem> {
    if is_peer_name(name) {
        return Ok(());
    }
    let problem = Problem::new("bad_name", format!("{} cannot be a peer's name", quoted(name)));
    let cured: String =
        name.trim().chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    Err(if is_peer_name(&cured) {
        problem.hint(format!("use letters, digits and `-_.`, as in \"{cured}\""))
    } else {
        problem.hint("use 1 to 63 letters, digits and `-_.`, as in \"bob\"")
    })
}

/// Parses the address and TCP port of the metrics.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, Problem> {
    text.parse::<SocketAddr>().map_err(|_| {
        let hint = match (text.parse::<IpAddr>(), text.trim_start_matches(':').parse::<u16>()) {
            (Ok(ip), _) => format!("write its port after it: \"{}\"", SocketAddr::new(ip, 9586)),
            (_, Ok(port)) => format!("write the address before it: \"127.0.0.1:{port}\""),
            _ if text.starts_with("localhost:") => format!("write \"{}\"", text.replace("localhost", "127.0.0.1")),
            _ => "write an IP address and a port, as \"127.0.0.1:9586\"".to_owned(),
        };
        Problem::new("bad_listen", format!("{} is not an address and a port", quoted(text))).hint(hint)
    })
}

/// Parses a port from 1 to 65535. The error is the reason.
fn parse_port(text: &str) -> Result<u16, String> {
    let shown = quoted(text);
    if text.is_empty() {
        return Err("there is no port".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{shown} is not a port number"));
    }
    match text.parse::<u16>() {
        Ok(0) => Err("0 is not a port: ports are 1 to 65535".to_owned()),
        Ok(port) => Ok(port),
        Err(_) => Err(format!("{shown} is more than 65535")),
    }
}

#[cfg(test)]
mod tests;
