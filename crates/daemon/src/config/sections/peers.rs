//! The `[[peer]]` tables.

use ipnet::IpNet;
use overlay_core::PeerKey;
use toml::Spanned;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::Reader;
use crate::config::document::Section;
use crate::config::draft::{PeerDraft, Placed};
use crate::config::keys::PEER;
use crate::config::problem::Problem;
use crate::config::value;
use crate::keys::{self, KeyError};

impl Reader<'_> {
    pub(super) fn peers<'a>(&mut self, value: &'a Spanned<DeValue<'a>>) -> Vec<PeerDraft> {
        let sections = self.tables(value, &PEER, ("a peer", "peers"));
        sections.iter().enumerate().map(|(index, section)| self.peer(section, index + 1)).collect()
    }

    fn peer(&mut self, section: &Section<'_>, number: usize) -> PeerDraft {
        PeerDraft {
            name: section.field("name").and_then(|field| {
                let name = field.string(self.report)?;
                self.accept(value::check_peer_name(name), &field.span)?;
                Some((name.to_owned(), field.span))
            }),
            public_key: self.public_key(section),
            preshared_key: self.preshared_key(section),
            endpoint: section.field("endpoint").and_then(|field| {
                let text = field.string(self.report)?;
                let endpoint = self.accept(value::parse_endpoint(text), &field.span)?;
                Some((endpoint, field.span))
            }),
            allowed_ips: self.allowed_ips(section),
            persistent_keepalive: self
                .integer(section, "persistent_keepalive", 0..=65535, "bad_keepalive", "a keepalive in seconds is")
                .filter(|seconds| *seconds != 0)
                .map(|seconds| seconds as u16),
            allow: section.field("allow").and_then(|field| {
                let items = field.strings("tcp/22", self.report)?;
                let rules = items.iter().filter_map(|item| self.accept(value::parse_rule(item.text), &item.span));
                Some(rules.collect())
            }),
            number,
        }
    }

    fn public_key(&mut self, section: &Section<'_>) -> Option<Placed<PeerKey>> {
        let Some(field) = section.field("public_key") else {
            section.missing(
                "public_key",
                "write public_key = \"...\"; `overlay key pub < KEY_FILE` on the peer shows it",
                self.report,
            );
            return None;
        };
        let text = field.string(self.report)?;
        let parsed = keys::decode_public(text).map_err(|error| {
            let kind = if error == KeyError::LowOrder { "low_order_key" } else { "bad_key" };
            let hint = match error {
                KeyError::LowOrder => {
                    "such a key does not come about by chance: ask the person who gave it to you for the right one"
                }
                _ => "copy the whole key again; `overlay key pub < KEY_FILE` on the peer shows it",
            };
            Problem::new(kind, format!("this public key {error}")).hint(hint)
        });
        let key = self.accept(parsed, &field.span)?;
        Some((key, field.span))
    }

    fn preshared_key(&mut self, section: &Section<'_>) -> Option<Zeroizing<[u8; 32]>> {
        let field = section.field("preshared_key_file")?;
        let key = self.key_file(&field, "overlay key psk", keys::decode_preshared)?;
        if *key == [0; 32] {
            self.report.warn(
                Problem::new("empty_preshared_key", "this preshared key is all zero, which means none")
                    .at(&field.span)
                    .hint("`overlay key psk` makes one, the same for both sides"),
            );
            return None;
        }
        Some(key)
    }

    fn allowed_ips(&mut self, section: &Section<'_>) -> Vec<Placed<IpNet>> {
        let Some(field) = section.field("allowed_ips") else {
            section.missing(
                "allowed_ips",
                "write the peer's virtual IP, as allowed_ips = [\"10.77.0.2/32\"]",
                self.report,
            );
            return Vec::new();
        };
        let Some(items) = field.strings("10.77.0.2/32", self.report) else { return Vec::new() };
        if items.is_empty() {
            self.report.warn(
                Problem::new("no_allowed_ips", "`allowed_ips` is empty: nothing is sent to this peer or taken from it")
                    .at(&field.span)
                    .hint("write the peer's virtual IP, as allowed_ips = [\"10.77.0.2/32\"]"),
            );
        }
        let parsed = items.iter().filter_map(|item| {
            let prefix = self.accept(value::parse_allowed_ip(item.text), &item.span)?;
            Some((prefix, item.span.clone()))
        });
        parsed.collect()
    }
}
