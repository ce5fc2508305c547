//! Turns the tables of the file into drafts, checks the drafts against each other, and builds a `Config`.
//!
//! A draft contains what could be read, with the place of each value. An invalid value is reported and left empty, so
//! that one mistake does not hide the next. A `Config` is built only if nothing was reported.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{self, Field, Section, describe_type};
use super::draft::{InterfaceDraft, Mode, Parts, Placed};
use super::key_file::{KeyFiles, ReadKeys};
use super::problem::{ConfigError, Problem, Report, quoted};
use super::{
    Config, DEFAULT_LISTEN_PORT, Dns, Guard, Mtu, MtuDiscovery, Scheduling, Switch, Table, Tuning, check, keys, value,
};
use crate::keys::{KeyError, PrivateKey};

mod agent;
mod peers;

/// Replaces the content of a key file that is not UTF-8. No base64 alphabet contains it.
const NOT_TEXT: &str = "\u{fffd}";

/// Implements [`Config::parse`].
pub(super) fn read(text: &str, path: &Path, key_files: &KeyFiles<'_>) -> Result<Config, ConfigError> {
    let mut report = Report::new(path, text);
    let parts = document::parse(text, path, &mut report).map(|top| {
        let mut reader = Reader { path, key_files, report: &mut report, read_keys: ReadKeys::default() };
        let mode = mode_of(&top);
        let parts = reader.top(&top, mode);
        (parts, reader.read_keys, mode)
    });
    if let Some((Parts { interface: Some(interface), peers, .. }, _, mode)) = &parts {
        check::together(interface, peers, *mode, &mut report);
    }
    let warnings = report.finish()?;
    let (parts, read_keys, _) = parts.expect("a file without tables was reported");
    Ok(parts.into_config(path, read_keys, warnings))
}

/// A misspelled `[agent]` counts, so that the keys that agent mode does not have are not missing as well.
fn mode_of(top: &DeTable<'_>) -> Mode {
    let is_agent = |name: &str| name == "agent" || (!keys::TOP.has(name) && keys::TOP.meant(name) == Some("agent"));
    if top.iter().any(|(name, _)| is_agent(name.get_ref())) { Mode::Agent } else { Mode::Static }
}

struct Reader<'r> {
    path: &'r Path,
    key_files: &'r KeyFiles<'r>,
    report: &'r mut Report,
    read_keys: ReadKeys,
}

impl Reader<'_> {
    fn top<'a>(&mut self, top: &'a DeTable<'a>, mode: Mode) -> Parts {
        let file = Section::new(&keys::TOP, top, 0..0, self.report);
        let empty = DeTable::new();
        let interface = match top.get("interface") {
            Some(value) => self.table(value, &keys::INTERFACE).map(|section| self.interface(&section, mode)),
            None if file.has_misspelled("interface") => None,
            None if mode == Mode::Agent => {
                let section = Section::new(&keys::INTERFACE, &empty, 0..0, self.report);
                Some(self.interface(&section, mode))
            }
            None => {
                self.report.error(
                    Problem::new("missing_table", "there is no [interface]")
                        .at(&(0..0))
                        .hint("`overlay config init` writes a config to start from"),
                );
                None
            }
        };
        let peers = top.get("peer").map(|value| self.peers(value)).unwrap_or_default();
        let trust = top.get("trust").map(|value| self.trusted(value, mode)).unwrap_or_default();
        let agent = top.get("agent").and_then(|value| self.table(value, &keys::AGENT));
        let agent = agent.and_then(|section| self.agent(&section, trust));
        let metrics = top.get("metrics").and_then(|value| self.table(value, &keys::METRICS));
        let metrics = metrics.and_then(|section| self.metrics(&section));
        let tuning = top.get("tuning").and_then(|value| self.table(value, &keys::TUNING));
        let tuning = tuning.map(|section| self.tuning(&section)).unwrap_or_default();
        Parts { interface, peers, agent, metrics, tuning }
    }

    /// Returns a table that may occur only once.
    fn table<'a>(&mut self, value: &'a Spanned<DeValue<'a>>, keys: &'static keys::KeyTable) -> Option<Section<'a>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(Section::new(keys, table, value.span(), self.report));
        }
        let name = keys.header.trim_matches(['[', ']']);
        let (message, hint) = match value.get_ref() {
            DeValue::Array(_) => {
                (format!("there is only one {}", keys.header), format!("write {} with one bracket, once", keys.header))
            }
            other => (
                format!("`{name}` must be a table, not {}", describe_type(other)),
                format!("write {} on a line of its own, and its keys below", keys.header),
            ),
        };
        self.report.error(Problem::new("wrong_type", message).at(&value.span()).hint(hint));
        None
    }

    /// Returns the tables of a list. `one` and `many` are what a table stands for, such as "a peer" and "peers".
    fn tables<'a>(
        &mut self,
        value: &'a Spanned<DeValue<'a>>,
        keys: &'static keys::KeyTable,
        (one, many): (&str, &str),
    ) -> Vec<Section<'a>> {
        let name = keys.header.trim_matches(['[', ']']);
        let on_a_line = format!("write {} on a line of its own, and its keys below", keys.header);
        let mut wrong = |message: String, span: Range<usize>, hint: String| {
            self.report.error(Problem::new("wrong_type", message).at(&span).hint(hint));
        };
        let list = match value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::Table(_) => {
                let message = format!("[{name}] is one table; {many} are a list of them");
                wrong(message, value.span(), format!("write {}, with two brackets", keys.header));
                return Vec::new();
            }
            _ => {
                wrong(format!("`{name}` must be a list of tables"), value.span(), on_a_line);
                return Vec::new();
            }
        };
        let mut sections = Vec::with_capacity(list.len());
        for entry in list {
            match entry.get_ref() {
                DeValue::Table(table) => sections.push((table, entry.span())),
                other => wrong(
                    format!("{one} must be a table, not {}", describe_type(other)),
                    entry.span(),
                    on_a_line.clone(),
                ),
            }
        }
        sections.into_iter().map(|(table, span)| Section::new(keys, table, span, self.report)).collect()
    }

    /// Reads the `[[trust]]` tables, which only agent mode has.
    fn trusted<'a>(&mut self, value: &'a Spanned<DeValue<'a>>, mode: Mode) -> Vec<agent::TrustDraft> {
        let sections = self.tables(value, &keys::TRUST, ("a trusted agent", "trusted agents"));
        if let (Mode::Static, Some(first)) = (mode, sections.first()) {
            self.report.error(
                Problem::new("agent_mode_only", "[[trust]] belongs to agent mode, and there is no [agent]")
                    .at(&first.span)
                    .hint("write an [agent] table, or write the peer as a [[peer]]"),
            );
        }
        self.trust(&sections)
    }

    fn interface(&mut self, section: &Section<'_>, mode: Mode) -> InterfaceDraft {
        InterfaceDraft {
            span: section.span.clone(),
            name: self.interface_name(section),
            private_key: match mode {
                Mode::Static => self.private_key(section),
                Mode::Agent => self.not_of_an_agent(section, "private_key_file", "the key comes"),
            },
            addresses: match mode {
                Mode::Static => self.addresses(section),
                Mode::Agent => self.not_of_an_agent(section, "addresses", "addresses come").unwrap_or_default(),
            },
            listen_port: self
                .integer(section, "listen_port", 0..=65535, "bad_port", "a port is")
                .map_or(DEFAULT_LISTEN_PORT, |port| port as u16),
            mtu: self.mtu(section),
            forward: section.field("forward").and_then(|field| field.boolean(self.report)).unwrap_or(false),
            fwmark: self.integer(section, "fwmark", 0..=u32::MAX, "bad_fwmark", "a mark is").filter(|mark| *mark != 0),
            table: self.routing_table(section),
            dns: self.dns(section, mode),
            guard: self.word(
                section,
                "guard",
                &[("auto", Guard::Auto), ("strict", Guard::Strict), ("off", Guard::Off)],
            ),
        }
    }

    fn interface_name(&mut self, section: &Section<'_>) -> Option<String> {
        match section.field("name") {
            Some(field) => {
                let name = field.string(self.report)?;
                self.accept(value::check_interface_name(name), &field.span)?;
                Some(name.to_owned())
            }
            None => {
                let name = value::interface_name_of(self.path);
                if name.is_none() {
                    section.missing(
                        "name",
                        "write name = \"overlay0\"; the file's own name cannot be one",
                        self.report,
                    );
                }
                name
            }
        }
    }

    /// Refuses a key that agent mode does not have.
    fn not_of_an_agent<T>(&mut self, section: &Section<'_>, key: &'static str, what: &str) -> Option<T> {
        let field = section.field(key)?;
        self.report.error(
            Problem::new(
                "static_mode_only",
                format!("`{key}` belongs to static mode: in agent mode {what} from the identity"),
            )
            .at(&field.span)
            .hint("remove this line; `overlay init` makes the identity"),
        );
        None
    }

    fn private_key(&mut self, section: &Section<'_>) -> Option<PrivateKey> {
        let Some(field) = section.field("private_key_file") else {
            let hint =
                "write private_key_file = \"/etc/overlay/overlay0.key\"; `overlay key gen -o FILE` makes the file";
            section.missing("private_key_file", hint, self.report);
            return None;
        };
        self.key_file(&field, "overlay key gen", PrivateKey::from_base64)
    }

    fn addresses(&mut self, section: &Section<'_>) -> Vec<Placed<IpNet>> {
        let Some(field) = section.field("addresses") else {
            section.missing("addresses", "write addresses = [\"10.77.0.1/24\"], this host's virtual IP", self.report);
            return Vec::new();
        };
        let Some(items) = field.strings("10.77.0.1/24", self.report) else { return Vec::new() };
        if items.is_empty() {
            self.report.error(
                Problem::new("missing_value", "`addresses` is empty")
                    .at(&field.span)
                    .hint("write this host's virtual IP, as addresses = [\"10.77.0.1/24\"]"),
            );
        }
        let parsed = items.iter().filter_map(|item| {
            let address = self.accept(value::parse_address(item.text), &item.span)?;
            Some((address, item.span.clone()))
        });
        parsed.collect()
    }

    fn mtu(&mut self, section: &Section<'_>) -> Mtu {
        let Some(field) = section.field("mtu") else { return Mtu::Auto };
        if field.maybe_string() == Some("auto") {
            return Mtu::Auto;
        }
        match field.integer(576..=65535, "bad_mtu", "an MTU is \"auto\" or", self.report) {
            Some(bytes) => Mtu::Fixed(bytes as u16),
            None => Mtu::Auto,
        }
    }

    fn routing_table(&mut self, section: &Section<'_>) -> Table {
        let Some(field) = section.field("table") else { return Table::Auto };
        match field.maybe_string() {
            Some("auto") => Table::Auto,
            Some("off") => Table::Off,
            Some(word) if word.parse::<u32>().is_err() => {
                let problem = Problem::new("bad_value", format!("`table` cannot be {}", quoted(word)));
                let hint = "write \"auto\", \"off\" or the number of a routing table";
                self.report.error(problem.at(&field.span).hint(hint));
                Table::Auto
            }
            _ => field
                .integer(1..=u32::MAX, "bad_table", "a routing table is", self.report)
                .map_or(Table::Auto, Table::Number),
        }
    }

    fn dns(&mut self, section: &Section<'_>, mode: Mode) -> Dns {
        let Some(field) = section.field("dns") else { return Dns::Auto };
        let words = [("auto", Dns::Auto), ("resolved", Dns::Resolved), ("hosts", Dns::Hosts), ("off", Dns::Off)];
        let dns = field.word(&words, self.report).unwrap_or_default();
        if mode == Mode::Static && matches!(dns, Dns::Resolved | Dns::Hosts) {
            let problem = Problem::new("dns_without_agent", "`dns` has no effect: peers of a file have no domain");
            self.report.warn(problem.at(&field.span).hint("remove this line, or write an [agent] table"));
        }
        dns
    }

    fn metrics(&mut self, section: &Section<'_>) -> Option<SocketAddr> {
        let Some(field) = section.field("listen") else {
            section.missing("listen", "write listen = \"127.0.0.1:9586\", or remove [metrics]", self.report);
            return None;
        };
        let text = field.string(self.report)?;
        self.accept(value::parse_listen(text), &field.span)
    }

    fn tuning(&mut self, section: &Section<'_>) -> Tuning {
        let switches = [("auto", Switch::Auto), ("on", Switch::On), ("off", Switch::Off)];
        let schedulings =
            [("default", Scheduling::Default), ("high", Scheduling::High), ("realtime", Scheduling::Realtime)];
        let discoveries = [("auto", MtuDiscovery::Auto), ("off", MtuDiscovery::Off)];
        Tuning {
            udp_gso: self.word(section, "udp_gso", &switches),
            tun_offload: self.word(section, "tun_offload", &switches),
            scheduling: self.word(section, "scheduling", &schedulings),
            mtu_discovery: self.word(section, "mtu_discovery", &discoveries),
        }
    }

    fn word<T: Copy + Default>(&mut self, section: &Section<'_>, key: &'static str, words: &[(&str, T)]) -> T {
        section.field(key).and_then(|field| field.word(words, self.report)).unwrap_or_default()
    }

    fn integer(
        &mut self,
        section: &Section<'_>,
        key: &'static str,
        range: RangeInclusive<u32>,
        kind: &'static str,
        what: &str,
    ) -> Option<u32> {
        section.field(key)?.integer(range, kind, what, self.report)
    }

    /// Returns the value, or reports its problem at this place.
    fn accept<T>(&mut self, parsed: Result<T, Problem>, span: &Range<usize>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(problem) => {
                self.report.error(problem.at(span));
                None
            }
        }
    }

    /// Reads the key in the file that `field` names. `maker` is the command that creates such a file.
    fn key_file<T>(
        &mut self,
        field: &Field<'_>,
        maker: &str,
        decode: impl FnOnce(&str) -> Result<T, KeyError>,
    ) -> Option<T> {
        let name = field.string(self.report)?;
        let read = self.key_files.read(self.path, name, field, maker, self.report).and_then(|text| {
            let decoded = decode(std::str::from_utf8(&text).unwrap_or(NOT_TEXT));
            self.read_keys.0.push((name.to_owned(), text));
            decoded.map_err(|error| {
                Problem::new("bad_key", format!("the key in `{name}` {error}"))
                    .hint(format!("the file holds one key and nothing else; `{maker}` makes one"))
            })
        });
        self.accept(read, &field.span)
    }
}
