//! Where agents meet: `https://HOST:PORT#RVKEY.NETKEY`.

use std::net::Ipv6Addr;

use super::agent::parse_key;
use super::{parse_endpoint, parse_port};
use crate::config::RendezvousUrl;
use crate::config::problem::{Problem, quoted};

/// The longest URL without its keys, in bytes. A network's signed object has no room for more.
const MAX_URL: usize = 128;
/// What to do about keys that are missing or damaged.
const COPY: &str = "copy the whole line that `overlay rendezvous serve` printed: https://HOST:PORT#RVKEY.NETKEY";

/// Parses the URL of a rendezvous with the keys behind its `#`.
///
/// # Errors
/// What is wrong with it, where, and what to write instead.
pub fn parse_rendezvous(text: &str) -> Result<RendezvousUrl, Problem> {
    let (url, keys) = match text.split_once('#') {
        Some((url, keys)) => (url, Some(keys)),
        None => (text, None),
    };
    if text.trim().is_empty() {
        return Err(Problem::new("bad_rendezvous", "the URL of the rendezvous is empty").hint(COPY));
    }
    let (host, port) = parse_place(url)?;
    let bad = |message: String| Err(Problem::new("bad_rendezvous", message).hint(COPY));
    let shown = quoted(url);
    let Some(keys) = keys else {
        return bad(format!("{shown} has no keys: behind the port it needs a `#` and two keys"));
    };
    let Some((rendezvous, network)) = keys.split_once('.') else {
        return bad(format!("{shown} needs two keys behind its `#`, with a dot between them"));
    };
    let rendezvous = match parse_key(rendezvous) {
        Ok(key) => key,
        Err(reason) => return bad(format!("the key of the rendezvous, the first one behind the `#`, {reason}")),
    };
    let network = match parse_key(network) {
        Ok(key) => key,
        Err(reason) => return bad(format!("the key of the network, the second one behind the `#`, {reason}")),
    };
    Ok(RendezvousUrl { url: url.to_ascii_lowercase(), host, port, rendezvous, network })
}

/// Parses `https://HOST:PORT` into the host without brackets and the port.
fn parse_place(url: &str) -> Result<(String, u16), Problem> {
    let bad = |message: String, hint: String| Problem::new("bad_rendezvous", message).hint(hint);
    let shown = quoted(url);
    let and_keys = "and behind it the `#` and the keys";
    let Some(place) = url.strip_prefix("https://") else {
        let (message, rest) = match url.split_once("://") {
            Some((scheme, rest)) => (format!("{shown} begins with {}", quoted(&format!("{scheme}://"))), rest),
            None => (format!("{shown} does not begin with `https://`"), url),
        };
        return Err(bad(message, format!("write \"https://{}\", {and_keys}", rest.trim())));
    };
    if url.len() > MAX_URL {
        let message = format!("{shown} has {} bytes; at most {MAX_URL} fit", url.len());
        return Err(bad(message, "use a shorter host name".to_owned()));
    }
    if let Some(end) = place.find(['/', '?', '@', '\\']) {
        let (message, kept) = match &place[end..] {
            behind if behind.starts_with('@') => (format!("{shown} has a user in it"), &behind[1..]),
            behind => (format!("{shown} has {} behind the port", quoted(behind)), &place[..end]),
        };
        return Err(bad(message, format!("write \"https://{kept}\", {and_keys}")));
    }
    if place.parse::<Ipv6Addr>().is_ok() {
        let message = format!("{shown} has an IPv6 address without brackets, so that its port cannot be told from it");
        return Err(bad(message, format!("write \"https://[{place}]:7447\", {and_keys}")));
    }
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !place.ends_with(']') => (host, port),
        _ => return Err(bad(format!("{shown} has no port"), format!("write \"https://{place}:7447\", {and_keys}"))),
    };
    let port = parse_port(port).map_err(|reason| {
        let hint = format!("write a port from 1 to 65535: \"https://{host}:7447\", {and_keys}");
        bad(format!("the port of {shown} is wrong: {reason}"), hint)
    })?;
    // Whatever is the host of an endpoint is one here.
    if parse_endpoint(place).is_err() {
        let hint = "write it as \"https://rv.example.net:7447\", \"https://203.0.113.7:7447\" or \"https://[2001:db8::7]:7447\"";
        let message = format!("the host of {shown} is neither an address nor a host name: {}", quoted(host));
        return Err(bad(message, format!("{hint}, {and_keys}")));
    }
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    Ok((host.trim_end_matches('.').to_ascii_lowercase(), port))
}
