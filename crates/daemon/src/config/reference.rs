//! `configs/reference.toml`: every key of [`super::keys`] in a config that is right, each with what is said about it.

use super::keys::{Absent, tables};

/// Columns of a line, at most.
const WIDTH: usize = 120;

const HEAD: &str = "\
#:schema ./schema.json
# Every key there is, with its default where it has one. Unknown keys are errors. A `#` without a blank behind it turns
# off what only agent mode has.
# Made from crates/daemon/src/config/keys.rs; a test compares the two.
";

/// The reference config. Ends in a newline.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for (key, table) in tables() {
        // Both modes in one file would be wrong, so agent mode stands behind a `#`.
        let off = if table.is_of_agent_mode() { "#" } else { "" };
        text += &format!("\n{}{off}{}\n", comment(key.meaning), table.header);
        for key in table.keys {
            let absent = match key.default {
                Absent::Required(_) => " Required.".to_owned(),
                Absent::RequiredInStaticMode(_) => " Required, except with [agent], which refuses it.".to_owned(),
                Absent::Value(_) => String::new(),
                Absent::Means(words, _) => format!(" Default: {words}."),
            };
            let values = format!("Values: {}.{absent}", key.values);
            text += &format!(
                "\n{}{}{off}{} = {}\n",
                comment(key.meaning),
                comment(&values),
                key.name,
                key.default.example()
            );
        }
    }
    text
}

/// The words as lines of a comment.
fn comment(words: &str) -> String {
    let mut lines = String::new();
    let mut line = "#".to_owned();
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
            lines += &line;
            lines.push('\n');
            line = "#".to_owned();
        }
        line.push(' ');
        line += word;
    }
    lines + &line + "\n"
}
