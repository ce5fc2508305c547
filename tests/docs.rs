//! The pages for people: their tables are those of the code, and their links lead somewhere.
//!
//! A table of config keys, metrics or drop reasons stands between two comments of its page, `<!-- generated: NAME -->` and
//! `<!-- end generated -->`. `OVERLAY_BLESS=1 cargo test --test docs` writes it there.
#![allow(clippy::disallowed_methods, reason = "reads and writes the pages of the workspace")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

use overlay_core::DropReason;
use overlay_daemon::config::{self, Absent, Applied};
use overlay_daemon::view::{NotDirect, metrics};

const END: &str = "<!-- end generated -->";

/// What generates a table.
type Render = fn() -> String;

/// The generated tables by their names.
const TABLES: [(&str, Render); 9] = [
    ("config-keys", config_keys),
    ("metrics", metrics_table),
    ("drop-reasons", drop_reasons),
    ("agent-refusals", agent_refusals),
    ("doctor-findings", doctor_findings),
    ("rendezvous-metrics", rendezvous_metrics),
    ("rendezvous-ends", rendezvous_ends),
    ("relay-metrics", relay_metrics),
    ("not-direct", not_direct),
];

#[test]
fn the_generated_tables_are_current() {
    // One after the other: two of them may stand in one page.
    let stale: Vec<_> = TABLES.iter().filter_map(|(name, table)| check_table(name, &table()).err()).collect();
    assert!(stale.is_empty(), "{}\nrun `OVERLAY_BLESS=1 cargo test --test docs`", stale.join("\n"));
}

#[test]
fn every_generated_table_has_a_name_that_a_test_knows() {
    for (path, page) in pages() {
        let begun: Vec<_> = page.text.lines().filter_map(|line| line.strip_prefix("<!-- generated: ")).collect();
        let ended = page.text.lines().filter(|line| *line == END).count();
        assert_eq!(begun.len(), ended, "{}: a generated table without its end", path.display());
        for name in begun {
            let is_known = TABLES.iter().any(|(known, _)| name == format!("{known} -->"));
            assert!(is_known, "{}: nothing generates {name}", path.display());
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for (line, target) in page.links() {
            if let Err(reason) = follow(path, target, &pages) {
                broken.push(format!("{}:{line}: `{target}` {reason}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn links_and_anchors_are_found_as_github_finds_them() {
    let text = "# One `two`: [three](x.md)!\n\n[a](b.md#c), ![d](e.svg \"title\") and `[no](link)`.\n\n```\n[no](link)\n```\n\
                # Same\n# Same\n<a id=\"own\"></a>\n\n[f]: g.md\n";
    let page = Page { text: text.to_owned() };
    assert_eq!(page.links(), [(1, "x.md"), (3, "b.md#c"), (3, "e.svg"), (12, "g.md")]);
    assert_eq!(page.anchors(), ["one-two-three", "same", "same-1", "own"].map(str::to_owned).into());
}

/// Says what is wrong when the table of this name, which stands once, is not `table`; with `OVERLAY_BLESS=1` writes it instead.
fn check_table(name: &str, table: &str) -> Result<(), String> {
    let begin = format!("<!-- generated: {name} -->\n");
    let holders: Vec<_> = pages().into_iter().filter(|(_, page)| page.text.contains(&begin)).collect();
    let [(path, page)] = &holders[..] else { return Err(format!("{} pages hold the table {name}", holders.len())) };
    let (before, rest) = page.text.split_once(&begin).expect("it holds it");
    let (found, after) = rest.split_once(END).ok_or_else(|| format!("the table {name} has no end"))?;
    let wanted = format!("\n{table}\n");
    if found == wanted {
        return Ok(());
    }
    if std::env::var_os("OVERLAY_BLESS").is_some() {
        fs::write(root().join(path), format!("{before}{begin}{wanted}{END}{after}")).expect("our own page");
        return Ok(());
    }
    let line =
        wanted.lines().find(|line| !found.lines().any(|other| other == *line)).unwrap_or("an old line is still there");
    Err(format!("{}: the table {name} is not what the code says, for example: {line}", path.display()))
}

/// Every table of the config file with its keys.
fn config_keys() -> String {
    let mut text = String::new();
    for (key, table) in config::tables() {
        let absent = match key.default {
            Absent::Required(_) => "Required.".to_owned(),
            Absent::RequiredInStaticMode(_) => "Required in static mode.".to_owned(),
            Absent::Value(words) | Absent::Means(words, _) => format!("Without it: {words}."),
        };
        let _ = write!(text, "### `{}`\n\n{} {absent}\n\n", table.header, key.meaning);
        text += "| key | meaning | values | default | changed by |\n|---|---|---|---|---|\n";
        for key in table.keys {
            let default = match key.default {
                Absent::Required(_) => "required".to_owned(),
                Absent::RequiredInStaticMode(_) => "required in static mode, refused in agent mode".to_owned(),
                Absent::Value(value) => format!("`{value}`"),
                Absent::Means(words, _) => words.to_owned(),
            };
            let applied = match key.applied {
                Applied::EachKey => "as its keys say",
                Applied::Reload => "`reload`",
                Applied::NextUp(_) => "the next `up`",
                Applied::DownAndUp => "`down` and `up`",
            };
            row(&mut text, &[&format!("`{}`", key.name), key.meaning, key.values, &default, applied]);
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn metrics_table() -> String {
    let mut text = String::new();
    for group in metrics::groups() {
        let _ = write!(text, "### {}\n\n| metric | type | meaning |\n|---|---|---|\n", group.title);
        for family in group.families {
            row(&mut text, &[&format!("`{family}`"), family.kind.name(), family.help]);
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn agent_refusals() -> String {
    let mut text = "| reason | meaning |\n|---|---|\n".to_owned();
    for (reason, meaning) in overlay_daemon::agent::REFUSALS {
        row(&mut text, &[&format!("`{reason}`"), meaning]);
    }
    text
}

fn doctor_findings() -> String {
    let mut text = "| code | check | meaning |\n|---|---|---|\n".to_owned();
    for code in overlay_daemon::doctor::Code::ALL {
        row(&mut text, &[&format!("`{}`", code.name()), code.check().name(), code.meaning()]);
    }
    text
}

fn not_direct() -> String {
    let mut text = "| reason | meaning | what to do |\n|---|---|---|\n".to_owned();
    for reason in NotDirect::ALL {
        row(&mut text, &[&format!("`{}`", reason.name()), reason.message(), reason.advice()]);
    }
    text
}

fn rendezvous_metrics() -> String {
    metrics_of(overlay_server::FAMILIES)
}

fn relay_metrics() -> String {
    metrics_of(overlay_server::relay::families())
}

fn metrics_of(families: impl IntoIterator<Item = overlay_server::Family>) -> String {
    let mut text = "| metric | type | meaning |\n|---|---|---|\n".to_owned();
    for family in families {
        row(&mut text, &[&format!("`{family}`"), family.kind, family.help]);
    }
    text
}

fn rendezvous_ends() -> String {
    let mut text = "| reason | meaning |\n|---|---|\n".to_owned();
    for end in overlay_server::End::ALL {
        row(&mut text, &[&format!("`{}`", end.code()), end.meaning()]);
    }
    text
}

fn drop_reasons() -> String {
    let mut text = "| reason | meaning |\n|---|---|\n".to_owned();
    for reason in DropReason::ALL {
        row(&mut text, &[&format!("`{}`", reason.name()), reason.help()]);
    }
    text
}

fn row(text: &mut String, cells: &[&str]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// A Markdown file.
struct Page {
    text: String,
}

impl Page {
    /// Its lines that are not code, numbered from 1.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut is_code = false;
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(move |(_, line)| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }

    /// The targets of its links, each with its line.
    fn links(&self) -> Vec<(usize, &str)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
                links.extend(first_word(target).map(|target| (number, target)));
            }
            for (at, _) in line.match_indices("](") {
                let is_code = line[..at].matches('`').count() % 2 == 1;
                let end = line[at..].find(')').map(|length| at + length);
                if let Some(end) = end.filter(|_| !is_code) {
                    links.extend(first_word(&line[at + 2..end]).map(|target| (number, target)));
                }
            }
        }
        links
    }

    /// What a `#` in a link to this page may name.
    fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        let mut seen = BTreeMap::<String, usize>::new();
        for (_, line) in self.prose() {
            for attribute in ["id=\"", "name=\""] {
                let ids = line.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
                anchors.extend(ids.map(str::to_owned));
            }
            let title = line.trim_start_matches('#');
            if !title.starts_with(' ') || title.len() == line.len() {
                continue;
            }
            let anchor = anchor_of(title.trim());
            let count = seen.entry(anchor.clone()).and_modify(|count| *count += 1).or_default();
            anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        }
        anchors
    }
}

/// The anchor that GitHub gives a heading.
fn anchor_of(title: &str) -> String {
    // GitHub shows the text of a link in a heading, and not its target.
    let mut shown = String::new();
    let mut rest = title;
    while let Some((before, after)) = rest.split_once("](") {
        shown += before;
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    shown += rest;
    let kept = shown.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn first_word(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

/// Follows a link of the page at `from`. Links to other hosts are not followed.
fn follow(from: &Path, target: &str, pages: &BTreeMap<PathBuf, Page>) -> Result<(), &'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    if target.starts_with('/') {
        return Err("is an absolute path");
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let path =
        if path.is_empty() { from.to_owned() } else { normal(&from.with_file_name(path)).ok_or("leaves the tree")? };
    if !root().join(&path).exists() {
        return Err("does not exist");
    }
    match (anchor, pages.get(&path)) {
        (Some(anchor), Some(page)) if !page.anchors().contains(anchor) => Err("names a heading that does not exist"),
        _ => Ok(()),
    }
}

/// The path without `.` and `..`; `None` where it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if !normal.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => normal.push(other),
        }
    }
    Some(normal)
}

/// Every page of the repository, by its path from the root.
fn pages() -> BTreeMap<PathBuf, Page> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            let is_ours = !entry.file_name().to_string_lossy().starts_with('.') && entry.file_name() != "target";
            if is_ours && root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(root().join(&path)).expect("a page is UTF-8");
                found.insert(path, Page { text });
            }
        }
    }
    assert!(found.len() > 5, "found {} pages: the test looks in the wrong place", found.len());
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
