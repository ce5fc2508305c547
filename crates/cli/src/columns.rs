//! Tables and lists of agents, as text.

use std::net::IpAddr;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::inert;

/// How many characters of a key are shown in a table: as many as a verb takes for the whole key.
const KEY_SHOWN: usize = 16;

/// A table without lines.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty();
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// One line for each label and its value.
pub(crate) fn labelled(lines: &[(&str, String)]) -> String {
    lines.iter().map(|(label, value)| format!("{label:<10} {value}")).collect::<Vec<_>>().join("\n")
}

/// What people call an agent: its name, or else the beginning of its key.
pub(crate) fn agent(name: &str, identity: &str) -> String {
    if name.is_empty() { key(identity) } else { inert::text(name) }
}

/// The beginning of a key.
pub(crate) fn key(identity: &str) -> String {
    inert::text(&identity.chars().take(KEY_SHOWN).collect::<String>())
}

/// All scopes of a grant or a request: what is decided about is never abridged.
pub(crate) fn scopes(scopes: &[String]) -> String {
    if scopes.is_empty() { "nothing".to_owned() } else { texts(scopes) }
}

/// Texts of a stranger, with commas between them.
pub(crate) fn texts(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| inert::text(text)).collect();
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

/// The tags of an agent: what it only claims, then what the network's operator vouches for, which is marked.
pub(crate) fn tags(claimed: &[String], attested: &[String]) -> String {
    let claimed = claimed.iter().filter(|tag| !attested.contains(tag)).cloned();
    texts(&claimed.chain(attested.iter().map(|tag| format!("{tag} (attested)"))).collect::<Vec<_>>())
}

/// Addresses with commas between them.
pub(crate) fn addresses(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    if addresses.is_empty() { "-".to_owned() } else { addresses.join(", ") }
}
