//! What a reload withdraws stays withdrawn even if the reload fails.
//!
//! A reload is all or nothing, with one exception. A right that is taken from a peer must not last until a route
//! can be added or a port is free. So if a reload fails, peers that the file no longer names are removed, and the others
//! keep only what both the old and the new config grant. Nothing new is granted.

use super::running::Running;
use crate::config::{Config, Peer};
use crate::failure::Failure;

/// Withdraws rights after a reload to `new` has failed. Returns the failure for the user.
pub(super) async fn withdraw(new: &Config, failure: Failure, running: &mut Running) -> Failure {
    let narrowed = narrowed(&running.config.peers, &new.peers);
    if narrowed == running.config.peers {
        return failure;
    }
    if let Err(second) = running.device.set_peers(&narrowed).await {
        tracing::error!(error = %second, "the rights that the file withdraws could not be withdrawn");
        return failure;
    }
    running.config.peers = narrowed;
    let error = format!("{} (the rights that the file withdraws from peers are withdrawn all the same)", failure.error);
    Failure { error, ..failure }
}

/// Returns the old peers with what both lists grant them.
fn narrowed(old: &[Peer], new: &[Peer]) -> Vec<Peer> {
    let common = |old: &Peer| {
        let new = new.iter().find(|new| new.public_key == old.public_key)?;
        let mut both = old.clone();
        both.allowed_ips.retain(|prefix| new.allowed_ips.contains(prefix));
        both.allow = match (&old.allow, &new.allow) {
            // A missing list grants everything.
            (None, granted) | (granted, None) => granted.clone(),
            (Some(old), Some(new)) => Some(old.iter().filter(|rule| new.contains(rule)).cloned().collect()),
        };
        Some(both)
    };
    old.iter().filter_map(common).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base64::Engine as _;

    use super::*;

    /// Peers with these allowed IPs and allow lists.
    fn peers(peers: &[(&[&str], Option<&str>)]) -> Vec<Peer> {
        let folder = tempfile::tempdir().expect("a folder");
        let base64 = |bytes: [u8; 32]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let key = folder.path().join("key");
        std::fs::write(&key, base64([7; 32])).expect("writable");
        let mut text =
            format!("[interface]\nname = \"ovt0\"\nprivate_key_file = {key:?}\naddresses = [\"10.77.0.1/24\"]\n");
        for (number, (allowed, allow)) in (9..).zip(peers) {
            text += &format!("[[peer]]\npublic_key = \"{}\"\nallowed_ips = {allowed:?}\n", base64([number; 32]));
            text += &allow.map_or_else(String::new, |list| {
                format!("allow = {:?}\n", list.split_whitespace().collect::<Vec<_>>())
            });
        }
        Config::parse(&text, Path::new("ovt0.toml")).expect("a good config").peers
    }

    #[test]
    fn a_failed_reload_takes_and_does_not_give() {
        /// The rights before, in the file, and after the failure.
        type Row<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);
        let rows: &[Row<'_>] = &[
            (None, None, None),
            (None, Some("tcp/22"), Some("tcp/22")),
            (Some("tcp/22"), None, Some("tcp/22")),
            (Some("tcp/22 tcp/80"), Some("tcp/80 udp/53"), Some("tcp/80")),
            (Some("tcp/22"), Some(""), Some("")),
        ];
        for (old, new, both) in rows {
            let of = |allow: &Option<&'static str>| peers(&[(&["10.77.0.2/32"], *allow)]);
            assert_eq!(narrowed(&of(old), &of(new))[0].allow, of(both)[0].allow, "{old:?} to {new:?}");
        }
        let old = peers(&[(&["10.77.0.2/32", "10.5.0.0/16"], None), (&["10.77.0.3/32"], None)]);
        let new = peers(&[(&["10.77.0.2/32", "10.6.0.0/16"], None)]);
        let left = narrowed(&old, &new);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].allowed_ips, peers(&[(&["10.77.0.2/32"], None)])[0].allowed_ips);
    }
}
