//! The lines of a `set=1`, converted one by one to changes of the device.
//!
//! Keys of the device come first. From the first `public_key` on, each line is about the last named peer. A line that
//! cannot be understood ends the operation: what precedes it counts, and what follows does not.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use ipnet::IpNet;
use overlay_core::{AllowedIpChange, PeerKey};
use zeroize::Zeroizing;

use super::{EINVAL, EPROTO};
use crate::device::{Change, PeerEdit};
use crate::keys::PrivateKey;

/// The changes requested so far.
#[derive(Default)]
pub(super) struct Settings {
    changes: Vec<Change>,
    /// The peer that the current lines are about.
    peer: Option<PeerEdit>,
    mistake: Option<i32>,
}

impl Settings {
    /// Adds the next line, without its line end.
    pub(super) fn line(&mut self, line: &[u8]) {
        if self.mistake.is_none() {
            self.mistake = self.take(line).err();
        }
    }

    /// Returns all changes, and the number of the error that ended them.
    pub(super) fn finish(mut self) -> (Vec<Change>, Option<i32>) {
        self.changes.extend(self.peer.take().map(Change::Peer));
        (self.changes, self.mistake)
    }

    fn take(&mut self, line: &[u8]) -> Result<(), i32> {
        let line = str::from_utf8(line).map_err(|_| EINVAL)?;
        let (key, value) = line.split_once('=').ok_or(EPROTO)?;
        if key == "public_key" {
            let next = PeerEdit::of(PeerKey(*bytes(value)?));
            self.changes.extend(self.peer.replace(next).map(Change::Peer));
            return Ok(());
        }
        match &mut self.peer {
            Some(peer) => edit(peer, key, value),
            None => {
                self.changes.push(device(key, value)?);
                Ok(())
            }
        }
    }
}

/// Parses a line about the device.
fn device(key: &str, value: &str) -> Result<Change, i32> {
    Ok(match key {
        "private_key" => Change::PrivateKey(PrivateKey::from_bytes(bytes(value)?)),
        "listen_port" => Change::ListenPort(number(value)?),
        "fwmark" => Change::Fwmark(Some(number(value)?).filter(|mark| *mark != 0)),
        "replace_peers" => {
            is_true(value)?;
            Change::RemoveAllPeers
        }
        _ => return Err(EINVAL),
    })
}

/// Parses a line about a peer.
fn edit(peer: &mut PeerEdit, key: &str, value: &str) -> Result<(), i32> {
    match key {
        "remove" => {
            is_true(value)?;
            peer.remove = true;
        }
        "update_only" => {
            is_true(value)?;
            peer.update_only = true;
        }
        "preshared_key" => peer.preshared_key = Some(bytes(value)?),
        "endpoint" => peer.endpoint = Some(endpoint(value).ok_or(EINVAL)?),
        "persistent_keepalive_interval" => peer.persistent_keepalive = Some(number(value)?),
        "replace_allowed_ips" => {
            is_true(value)?;
            peer.replace_allowed_ips = true;
            // Prefixes that were listed before are among those that are replaced.
            peer.allowed_ips.clear();
        }
        "allowed_ip" => {
            let (prefix, change): (_, fn(IpNet) -> AllowedIpChange) = match value.strip_prefix('-') {
                Some(prefix) => (prefix, AllowedIpChange::Remove),
                None => (value, AllowedIpChange::Add),
            };
            peer.allowed_ips.push(change(IpNet::from_str(prefix).map_err(|_| EINVAL)?.trunc()));
        }
        "protocol_version" if value == "1" => {}
        _ => return Err(EINVAL),
    }
    Ok(())
}

/// Parses 32 bytes in hexadecimal.
fn bytes(text: &str) -> Result<Zeroizing<[u8; 32]>, i32> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 {
        return Err(EINVAL);
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for digit in digits {
            let value = char::from(*digit).to_digit(16).ok_or(EINVAL)?;
            *byte = *byte << 4 | value as u8;
        }
    }
    Ok(bytes)
}

/// Parses a number of decimal digits and nothing else.
fn number<N: FromStr>(text: &str) -> Result<N, i32> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_decimal).ok_or(EINVAL)
}

fn is_true(text: &str) -> Result<(), i32> {
    if text == "true" { Ok(()) } else { Err(EINVAL) }
}

/// Parses `192.0.2.7:51820`, `[2001:db8::7]:51820`, or `[fe80::7%eth0]:51820`, which is how `wg` writes link-local addresses.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let Some((address, rest)) = text.split_once('%') else { return text.parse().ok() };
    let address: Ipv6Addr = address.strip_prefix('[')?.parse().ok()?;
    let (zone, port) = rest.split_once("]:")?;
    let scope = number(zone).ok().or_else(|| overlay_os::interface::index_of(zone).ok().flatten())?;
    Some(SocketAddrV6::new(address, number(port).ok()?, 0, scope).into())
}

#[cfg(test)]
pub(super) mod tests;
