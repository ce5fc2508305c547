//! The file as tables, keys and values, each with its place: the grammar of TOML, without the meaning of the keys.
//!
//! A [`Section`] returns the keys that it is asked for and reports all others, so that no key is silently ignored.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::Datetime;

use super::keys::{KeyTable, PEER, TOP, tables};
use super::problem::{ConfigError, Problem, Report, quoted};
use super::secret::is_secret_name;
use crate::keys::describe;

/// The largest config file in bytes. Ten thousand peers need two million.
const MAX_FILE: u64 = 16 << 20;

/// Reads the text of the config file.
pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let outcome = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    let problem = match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Problem::new("missing_file", format!("there is no config `{shown}`"))
                .hint(format!("`overlay config init -o {shown}` writes a commented one to start from"))
        }
        Err(error) => {
            let message = format!("the config `{shown}` cannot be read: {}", describe(&error));
            match error.kind() {
                io::ErrorKind::PermissionDenied => Problem::permission(&format!("the config `{shown}`"), path),
                io::ErrorKind::IsADirectory => {
                    Problem::new("unreadable_file", message).hint("name a file in this folder")
                }
                _ => Problem::new("unreadable_file", message),
            }
        }
        Ok(read) if read as u64 > MAX_FILE => {
            Problem::new("unreadable_file", format!("the config `{shown}` is larger than 16 MiB"))
        }
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
                Problem::new("bad_encoding", format!("the config `{shown}` is not UTF-8: see line {line}"))
                    .hint("save it as UTF-8")
            }
        },
    };
    Err(ConfigError::of_file(path, problem))
}

/// Parses `text` into tables. Returns `None` after syntax errors, all of which are reported.
pub(super) fn parse<'a>(text: &'a str, path: &Path, report: &mut Report) -> Option<DeTable<'a>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(document.into_inner());
    }
    if let Some(header) = wireguard_header(text) {
        report.error(
            Problem::new("wireguard_config", "this is a config of wg-quick, not one of overlay")
                .at(&header)
                .hint(format!("`overlay import {}` converts it", path.display())),
        );
        return None;
    }
    let mut last_line = None;
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let line = text[..span.start.min(text.len())].matches('\n').count();
        // A second error on the same line is a consequence of the first.
        if last_line.replace(line) != Some(line) {
            report.error(syntax_problem(error.message(), text, span));
        }
    }
    None
}

fn syntax_problem(message: &str, text: &str, span: Range<usize>) -> Problem {
    let problem = |message: String| Problem::new("bad_toml", message).at(&span);
    let found = text.get(span.clone()).unwrap_or_default();
    match message {
        _ if message.starts_with("string values must be quoted") => {
            problem("a value must be a number, true, false, a list or a string in quotes".to_owned())
                .hint("put a string into double quotes")
        }
        _ if message.starts_with("invalid basic string") || message.starts_with("invalid literal string") => {
            problem("this string does not end where it should".to_owned()).hint("close it with the quote it began with")
        }
        _ if message.starts_with("duplicate key") && PEER.has(found) => {
            problem(format!("{} stands twice in one table", quoted(found)))
                .hint("remove one; a further peer begins with a [[peer]] of its own")
        }
        _ if message.starts_with("duplicate key") => {
            problem(format!("{} stands twice in one table", quoted(found))).hint("remove one")
        }
        _ => problem(format!("this is not valid TOML: {message}")),
    }
}

/// Returns the place of the `[Interface]` header if this is a wg-quick config.
fn wireguard_header(text: &str) -> Option<Range<usize>> {
    let lines = || text.lines().map(str::trim);
    let header = lines().find(|line| line.eq_ignore_ascii_case("[interface]"))?;
    let speaks_wireguard = lines().any(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        ["privatekey", "allowedips", "publickey"].iter().any(|known| key.eq_ignore_ascii_case(known))
    });
    let start = header.as_ptr() as usize - text.as_ptr() as usize;
    speaks_wireguard.then(|| start..start + header.len())
}

/// One table of the file.
pub(super) struct Section<'a> {
    keys: &'static KeyTable,
    table: &'a DeTable<'a>,
    /// The place of the table's header, where missing keys are reported.
    pub(super) span: Range<usize>,
}

/// A value with its key.
pub(super) struct Field<'a> {
    pub(super) key: &'static str,
    value: &'a DeValue<'a>,
    pub(super) span: Range<usize>,
}

/// One string of a list.
pub(super) struct Item<'a> {
    pub(super) text: &'a str,
    pub(super) span: Range<usize>,
}

impl<'a> Section<'a> {
    /// Wraps `table`, and reports every key that is not in `keys`.
    pub(super) fn new(
        keys: &'static KeyTable,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        report: &mut Report,
    ) -> Self {
        for (key, value) in table {
            if !keys.has(key.get_ref()) {
                report.error(unknown_key(keys, key, value.get_ref()));
            }
        }
        Self { keys, table, span }
    }

    /// Returns the value of `key`, which must be declared for the table.
    pub(super) fn field(&self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(self.keys.has(key), "{key} is not declared");
        let value = self.table.get(key)?;
        Some(Field { key, value: value.get_ref(), span: value.span() })
    }

    /// Reports that `key` is missing, unless an unknown key that was meant to be it has already been reported.
    pub(super) fn missing(&self, key: &str, hint: impl Into<String>, report: &mut Report) {
        if !self.has_misspelled(key) {
            let message = format!("{} has no `{key}`", self.keys.header);
            report.error(Problem::new("missing_key", message).at(&self.span).hint(hint));
        }
    }

    /// Whether the table has an unknown key that looks like a misspelled `key`.
    pub(super) fn has_misspelled(&self, key: &str) -> bool {
        let mut unknown = self.table.iter().filter(|(written, _)| !self.keys.has(written.get_ref()));
        unknown.any(|(written, value)| {
            let plain = plain(written.get_ref());
            self.keys.meant(&plain).or_else(|| announced_file(&plain, value.get_ref())) == Some(key)
        })
    }
}

impl<'a> Field<'a> {
    pub(super) fn string(&self, report: &mut Report) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string", self.as_string_hint(), report);
        }
        text
    }

    /// Returns the string, or `None` without reporting an error.
    pub(super) fn maybe_string(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// Returns the value of one of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        let text = self.value.as_str();
        let known = words.iter().find(|(word, _)| Some(*word) == text);
        if known.is_none() {
            let listed: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let hint = match self.value.as_bool() {
                Some(value) if listed.iter().any(|word| word == "\"on\"") => {
                    format!("write {} = \"{}\"", self.key, if value { "on" } else { "off" })
                }
                _ => format!("write one of {}", listed.join(", ")),
            };
            match text {
                Some(text) => report.error(
                    Problem::new("bad_value", format!("`{}` cannot be {}", self.key, quoted(text)))
                        .at(&self.span)
                        .hint(hint),
                ),
                None => self.wrong_type("a string", hint, report),
            }
        }
        known.map(|(_, value)| *value)
    }

    pub(super) fn boolean(&self, report: &mut Report) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            let hint = match self.value.as_str().map(str::to_ascii_lowercase).as_deref() {
                Some("true" | "yes" | "on" | "1") => format!("write it without quotes: {} = true", self.key),
                _ => format!("write {key} = true or {key} = false", key = self.key),
            };
            self.wrong_type("true or false", hint, report);
        }
        value
    }

    /// Returns a date, a time or both.
    pub(super) fn moment(&self, report: &mut Report) -> Option<&'a Datetime> {
        let moment = self.value.as_datetime();
        if moment.is_none() {
            let hint = match self.value.as_str() {
                Some(text) if text.parse::<Datetime>().is_ok() => {
                    format!("write it without quotes: {} = {text}", self.key)
                }
                _ => format!("write {} = 2027-01-01T00:00:00Z", self.key),
            };
            self.wrong_type("a date and a time", hint, report);
        }
        moment
    }

    /// Returns a number in `range`. `what` begins a sentence that the range completes: "a port is", "an MTU is \"auto\" or".
    pub(super) fn integer(
        &self,
        range: RangeInclusive<u32>,
        kind: &'static str,
        what: &str,
        report: &mut Report,
    ) -> Option<u32> {
        let DeValue::Integer(integer) = self.value else {
            let example = match self.value.as_str().map(str::trim).and_then(|text| text.parse::<u32>().ok()) {
                Some(number) => format!("write it without quotes: {} = {number}", self.key),
                None => format!("{what} a number from {} to {}", range.start(), range.end()),
            };
            let wanted = if matches!(self.value, DeValue::Float(_)) { "a whole number" } else { "a number" };
            self.wrong_type(wanted, example, report);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            report.error(
                Problem::new(kind, format!("`{}` is {integer}, which is out of range", self.key))
                    .at(&self.span)
                    .hint(format!("{what} a number from {} to {}", range.start(), range.end())),
            );
        }
        number
    }

    /// Returns the strings of a list. An entry that is not a string is reported and left out. `example` is a valid entry.
    pub(super) fn strings(&self, example: &str, report: &mut Report) -> Option<Vec<Item<'a>>> {
        let Some(list) = self.value.as_array() else {
            let hint = match self.value.as_str() {
                Some(one) if !one.contains(',') => format!("write it in brackets: {} = [\"{one}\"]", self.key),
                Some(several) => {
                    let entries: Vec<_> = several.split(',').map(|entry| format!("\"{}\"", entry.trim())).collect();
                    format!("write each in quotes of its own: {} = [{}]", self.key, entries.join(", "))
                }
                None => format!("write a list: {} = [\"{example}\"]", self.key),
            };
            self.wrong_type("a list of strings", hint, report);
            return None;
        };
        let mut items = Vec::with_capacity(list.len());
        for entry in list {
            match entry.get_ref().as_str() {
                Some(text) => items.push(Item { text, span: entry.span() }),
                None => report.error(
                    Problem::new(
                        "wrong_type",
                        format!("`{}` is a list of strings; this is {}", self.key, describe_type(entry.get_ref())),
                    )
                    .at(&entry.span())
                    .hint(format!("write each entry in quotes, as \"{example}\"")),
                ),
            }
        }
        Some(items)
    }

    fn wrong_type(&self, wanted: &str, hint: String, report: &mut Report) {
        let message = format!("`{}` must be {wanted}, not {}", self.key, describe_type(self.value));
        report.error(Problem::new("wrong_type", message).at(&self.span).hint(hint));
    }

    fn as_string_hint(&self) -> String {
        match self.value {
            DeValue::Integer(number) => format!("write it in quotes: {} = \"{number}\"", self.key),
            DeValue::Array(list) if list.len() == 1 => format!("write it without brackets: {} = \"...\"", self.key),
            _ => format!("write {} = \"...\"", self.key),
        }
    }
}

/// Returns the name of the value's type, with its article.
pub(super) fn describe_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Builds the error for an unknown key, with the best guess at what was meant.
fn unknown_key(keys: &KeyTable, key: &Spanned<Cow<'_, str>>, value: &DeValue<'_>) -> Problem {
    let name = key.get_ref().as_ref();
    let plain = plain(name);
    let problem = |kind: &'static str, message: String| Problem::new(kind, message).at(&key.span());
    let meant = keys.meant(&plain);
    if meant.is_none()
        && let Some(file_key) = announced_file(&plain, value)
    {
        return problem(
            "inline_secret",
            format!("{} stands in the config itself; a secret belongs in a file", quoted(name)),
        )
        .hint(format!("put it into a file with mode 0600 and write {file_key} = \"PATH\""));
    }
    let what = match keys.header {
        "" if value.is_table() || value.is_array() => format!("unknown table {}", quoted(name)),
        "" => format!("unknown key {} before the first table", quoted(name)),
        header => format!("unknown key {} in {header}", quoted(name)),
    };
    let unknown = |hint: String| problem("unknown_key", what.clone()).hint(hint);
    match plain.as_str() {
        "postup" | "preup" | "postdown" | "predown" => {
            return unknown("overlay runs no commands; a systemd unit can, with `ExecStartPost=`".to_owned());
        }
        "saveconfig" => return unknown("overlay never rewrites its config; leave it out".to_owned()),
        _ => {}
    }
    if let Some(known) = meant {
        let header = tables().find(|(table, _)| table.name == known).map(|(_, table)| table.header);
        let meant = match header {
            Some(header) if keys.header.is_empty() => header.to_owned(),
            _ => format!("`{known}`"),
        };
        return problem("unknown_key", format!("{what}, did you mean {meant}?")).hint(format!("write {meant}"));
    }
    let home = tables().find(|(_, table)| table.has(name)).map(|(_, table)| (table, name));
    let home = home.or_else(|| tables().find_map(|(_, table)| Some((table, table.alias(&plain)?))));
    if let Some((table, known)) = home {
        return unknown(format!("`{known}` belongs in {}", table.header));
    }
    if TOP.has(name) {
        return unknown(format!("`{name}` is a table of its own: write its [header] on a line of its own"));
    }
    unknown(match keys.header {
        "" => format!("the tables are {}", listed_tables()),
        header => format!("the keys of {header} are {}", keys.listed()),
    })
}

/// `[interface], [[peer]] and [metrics]`.
fn listed_tables() -> String {
    let headers: Vec<_> = tables().map(|(_, table)| table.header).collect();
    headers.split_last().map_or_else(String::new, |(last, others)| format!("{} and {last}", others.join(", ")))
}

/// Returns the key for the file of a secret, if `plain` is a name for the secret itself.
fn announced_file(plain: &str, value: &DeValue<'_>) -> Option<&'static str> {
    let is_secret = is_secret_name(plain) && !value.is_table();
    is_secret.then_some(if plain.contains("priv") { "private_key_file" } else { "preshared_key_file" })
}

/// Removes what people vary in the spelling of a key: case, `_` and `-`.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '-'], "")
}
