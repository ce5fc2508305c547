//! The modules of a crate and which of them use each other, read from the text of the source files.
//!
//! Module A uses module B if A's code, without its tests, names a path into B: `use crate::b::Thing;`, `super::b::f()`.
//! A path is followed through re-exports to the module that defines the name. A module and the modules inside it may use
//! each other. All others are compared at the level of the folder that both stand in, so
//! that `engine::carrier` using `host::guard` counts as `engine` using `host`.
//!
//! It reads words, not types: a method that is called on a value leaves no trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a module from the root of its crate; empty for the root itself.
type ModulePath = Vec<String>;

/// One use that is allowed although it closes a circle: by which module, of which module, and why.
pub(crate) type Exception = (&'static str, &'static str, &'static str);

/// The modules of a crate and who uses whom.
pub(crate) struct Modules {
    modules: BTreeMap<ModulePath, Module>,
    uses: BTreeSet<(ModulePath, ModulePath)>,
}

/// What one file says.
#[derive(Default)]
struct Module {
    /// Names that a `use` brings in, and the paths they stand for.
    names: BTreeMap<String, Vec<String>>,
    /// Every path that the code names.
    paths: Vec<Vec<String>>,
}

/// Modules of one folder that use each other in a circle.
pub(crate) struct Circle {
    /// The modules, by their paths.
    pub(crate) members: Vec<String>,
    /// Each use that ties them.
    pub(crate) uses: Vec<(String, String)>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "circle of {}:", self.members.join(", "))?;
        self.uses.iter().try_for_each(|(from, to)| writeln!(f, "    {from} uses {to}"))
    }
}

impl Modules {
    /// Reads the crate whose `lib.rs` or `main.rs` is in `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut texts = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())).flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                    let module = module_of(path.strip_prefix(folder).expect("it was found there"));
                    texts.push((module, text));
                }
            }
        }
        assert!(!texts.is_empty(), "no source files in {}", folder.display());
        Self::of(texts)
    }

    /// The same from texts, each with the path of its module.
    fn of(texts: impl IntoIterator<Item = (ModulePath, String)>) -> Self {
        let mut modules = BTreeMap::new();
        let mut only_for_tests: Vec<ModulePath> = Vec::new();
        for (path, text) in texts {
            if path.iter().any(|name| name == "tests") {
                continue;
            }
            let (tokens, tests) = without_tests(tokens(&text));
            only_for_tests.extend(tests.into_iter().map(|name| child(&path, &name)));
            let module = Module::of(&tokens);
            modules.insert(path, module);
        }
        modules.retain(|path, _| !only_for_tests.iter().any(|test| path.starts_with(test)));
        let mut this = Self { modules, uses: BTreeSet::new() };
        let mut uses = BTreeSet::new();
        for (path, module) in &this.modules {
            let targets = module.paths.iter().filter_map(|named| this.resolve(path, named, 0));
            let others = targets.filter(|target| !target.starts_with(path) && !path.starts_with(target));
            uses.extend(others.map(|target| (path.clone(), target)));
        }
        this.uses = uses;
        this
    }

    /// Returns every use of module `of`, or of a module inside it, by module `by`, or by a module inside that.
    pub(crate) fn uses(&self, by: &str, of: &str) -> Vec<(String, String)> {
        let (by, of) = (split(by), split(of));
        let found = self.uses.iter().filter(|(from, to)| from.starts_with(&by) && to.starts_with(&of));
        found.map(|(from, to)| (from.join("::"), to.join("::"))).collect()
    }

    /// The circles in every folder, uses apart that `exceptions` allow.
    ///
    /// An exception that names no use is a mistake, too.
    pub(crate) fn circles(&self, exceptions: &[Exception]) -> Vec<Circle> {
        for (by, of, reason) in exceptions {
            assert!(!self.uses(by, of).is_empty(), "`{by}` does not use `{of}` (\"{reason}\"): drop the exception");
        }
        let is_allowed = |from: &ModulePath, to: &ModulePath| {
            exceptions.iter().any(|(by, of, _)| from.starts_with(&split(by)) && to.starts_with(&split(of)))
        };
        let counted: Vec<_> = self.uses.iter().filter(|(from, to)| !is_allowed(from, to)).collect();
        let folders: BTreeSet<_> = counted.iter().map(|(from, to)| common(from, to)).collect();
        folders.iter().flat_map(|folder| circles_in(folder, &counted)).collect()
    }

    /// The uses that tie files into circles, wherever in the crate they stand. A file and those in its own folder may use each
    /// other.
    pub(crate) fn file_circles(&self) -> Vec<(String, String)> {
        let mut tied: BTreeSet<_> = self.uses.iter().collect();
        loop {
            let (from, to): (BTreeSet<_>, BTreeSet<_>) = tied.iter().map(|(from, to)| (from, to)).unzip();
            let before = tied.len();
            // What nothing uses, or what uses nothing, is in no circle.
            tied.retain(|(user, used)| to.contains(user) && from.contains(used));
            if tied.len() == before {
                return tied.into_iter().map(|(from, to)| (from.join("::"), to.join("::"))).collect();
            }
        }
    }

    /// The longest chain of top-level modules in which each uses the next one: the floors of the house, and who stands on
    /// them, from the top. The crate must have no circles at the top level.
    pub(crate) fn floors(&self) -> Vec<String> {
        let uses = between(&[], &self.uses.iter().collect::<Vec<_>>());
        let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let rooms: BTreeSet<_> = uses.iter().flat_map(|(from, to)| [from.as_str(), to.as_str()]).collect();
        // As many rounds as the longest chain may have steps.
        for _ in &rooms {
            for (from, to) in &uses {
                let below = chains.get(to.as_str()).cloned().unwrap_or_else(|| vec![to]);
                let own = chains.entry(from).or_insert_with(|| vec![from]);
                if below.len() + 1 > own.len() {
                    *own = [vec![from.as_str()], below].concat();
                }
            }
        }
        let longest = chains.into_values().max_by_key(Vec::len).unwrap_or_default();
        longest.into_iter().map(str::to_owned).collect()
    }

    /// The module that a path named in `at` leads to; `None` where it leads out of the crate.
    fn resolve(&self, at: &ModulePath, named: &[String], depth: usize) -> Option<ModulePath> {
        // Names that stand for each other are not valid Rust.
        if depth > 16 {
            return None;
        }
        let mut place = at.clone();
        let mut rest = named;
        let mut is_first = true;
        while let Some((name, after)) = rest.split_first() {
            match name.as_str() {
                "crate" if is_first => place.clear(),
                "self" => {}
                "super" => _ = place.pop(),
                name if self.modules.contains_key(&child(&place, name)) => place.push(name.to_owned()),
                name => {
                    let bound = self.modules.get(&place).and_then(|module| module.names.get(name));
                    return match bound.filter(|bound| *bound != named) {
                        Some(bound) => self.resolve(&place, &[bound, after].concat(), depth + 1),
                        // A name of another crate, or one that is defined where we are.
                        None => (!is_first).then_some(place),
                    };
                }
            }
            is_first = false;
            rest = after;
        }
        Some(place)
    }
}

impl Module {
    fn of(tokens: &[String]) -> Self {
        let mut module = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            match tokens[at].as_str() {
                "use" => {
                    let end = tokens[at..].iter().position(|token| token == ";").map_or(tokens.len(), |end| at + end);
                    module.take_tree(&tokens[at + 1..end], &[]);
                    at = end;
                }
                "crate" | "super" | "self" if tokens.get(at + 1).is_some_and(|next| next == "::") => {
                    let mut path = vec![tokens[at].clone()];
                    while tokens.get(at + 1).is_some_and(|next| next == "::")
                        && tokens.get(at + 2).is_some_and(|next| is_word(next))
                    {
                        path.push(tokens[at + 2].clone());
                        at += 2;
                    }
                    module.paths.push(path);
                }
                _ => {}
            }
            at += 1;
        }
        module
    }

    /// Takes in what stands between `use` and `;`, below `prefix`.
    fn take_tree(&mut self, tree: &[String], prefix: &[String]) {
        let mut path = prefix.to_vec();
        let mut at = 0;
        while let Some(token) = tree.get(at) {
            match token.as_str() {
                "::" => {}
                "{" => {
                    for branch in branches(&tree[at + 1..tree.len() - 1]) {
                        self.take_tree(branch, &path);
                    }
                    return;
                }
                "as" => {
                    let alias = tree.get(at + 1).cloned().unwrap_or_default();
                    self.names.insert(alias, path.clone());
                    self.paths.push(path);
                    return;
                }
                // `x::{self}` names `x`.
                "self" if !path.is_empty() => {}
                name => path.push(name.to_owned()),
            }
            at += 1;
        }
        if path.last().is_some_and(|last| last == "*") {
            path.pop();
        } else if let Some(last) = path.last() {
            self.names.insert(last.clone(), path.clone());
        }
        self.paths.push(path);
    }
}

/// The circles among the modules of one folder.
fn circles_in(folder: &[String], uses: &[&(ModulePath, ModulePath)]) -> Vec<Circle> {
    let between = between(folder, uses);
    let rooms: BTreeSet<&String> = between.iter().flat_map(|(from, to)| [from, to]).collect();
    let mut left: BTreeSet<&String> = rooms.clone();
    let mut found = Vec::new();
    while let Some(room) = left.pop_first() {
        let there = reached(room, &between);
        let members: Vec<_> = there
            .iter()
            .filter(|other| reached(other, &between).contains(room))
            .map(|other| (*other).clone())
            .collect();
        if members.is_empty() {
            continue;
        }
        left.retain(|other| !members.contains(other));
        let is_inside = |path: &ModulePath| members.contains(&room_of(folder, path));
        let ties = uses.iter().filter(|(from, to)| {
            let is_in_folder = [from, to].iter().all(|path| path.len() > folder.len() && path.starts_with(folder));
            is_in_folder && is_inside(from) && is_inside(to) && room_of(folder, from) != room_of(folder, to)
        });
        let uses = ties.map(|(from, to)| (from.join("::"), to.join("::"))).collect();
        found.push(Circle { members, uses });
    }
    found
}

/// The rooms that are reached from this one by one use or more.
fn reached<'a>(room: &String, uses: &'a BTreeSet<(String, String)>) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut next = vec![room];
    while let Some(room) = next.pop() {
        for (_, to) in uses.iter().filter(|(from, _)| from == room) {
            if found.insert(to) {
                next.push(to);
            }
        }
    }
    found
}

/// Which modules of a folder use which, each with all that is inside it.
fn between(folder: &[String], uses: &[&(ModulePath, ModulePath)]) -> BTreeSet<(String, String)> {
    let in_folder = uses.iter().filter(|(from, to)| common(from, to) == folder);
    in_folder.map(|(from, to)| (room_of(folder, from), room_of(folder, to))).collect()
}

/// The module of the folder that this one is, or is inside of.
fn room_of(folder: &[String], path: &[String]) -> String {
    path[..=folder.len()].join("::")
}

/// The folder that both modules stand in.
fn common(one: &[String], other: &[String]) -> ModulePath {
    one.iter().zip(other).take_while(|(one, other)| one == other).map(|(one, _)| one.clone()).collect()
}

fn child(module: &[String], name: &str) -> ModulePath {
    [module, &[name.to_owned()]].concat()
}

fn split(path: &str) -> ModulePath {
    path.split("::").map(str::to_owned).collect()
}

/// The module that a file holds.
fn module_of(file: &Path) -> ModulePath {
    let parts: PathBuf = file.with_extension("");
    let names = parts.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let mut path: ModulePath = names.collect();
    if matches!(path.last().map(String::as_str), Some("lib" | "main" | "mod")) {
        path.pop();
    }
    path
}

/// The branches of a `use` tree, at the commas of its outermost level.
fn branches(tokens: &[String]) -> Vec<&[String]> {
    let mut depth = 0;
    let split = tokens.split(|token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && token == ","
    });
    split.filter(|branch| !branch.is_empty()).collect()
}

/// The code without what is `#[cfg(test)]`, and the names of the modules that are so.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, Vec<String>) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut names) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(MARK.len()).eq(MARK) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The item ends with its block, or with a semicolon where it has none.
        let mut depth = 0;
        at += MARK.len();
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token.as_str() {
                "mod" if depth == 0 => names.extend(tokens.get(at).cloned()),
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    (kept, names)
}

/// Words and signs of the code. Comments, strings and characters are left out; `::` is one sign.
fn tokens(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let next_is = |at: usize, sign: &str| sign.chars().enumerate().all(|(n, sign)| letters.get(at + n) == Some(&sign));
    let find = |from: usize, sign: &str| (from..letters.len()).find(|at| next_is(*at, sign)).unwrap_or(letters.len());
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        if next_is(at, "//") {
            at = find(at, "\n");
        } else if next_is(at, "/*") {
            at = find(at, "*/") + 2;
        } else if letter == '"' {
            at += 1;
            while at < letters.len() && letters[at] != '"' {
                at += if letters[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if letter == '\'' {
            // A character, else a lifetime.
            at += match (letters.get(at + 1), letters.get(at + 2)) {
                (Some('\\'), _) => find(at + 3, "'") + 1 - at,
                (_, Some('\'')) => 3,
                _ => 1,
            };
        } else if is_letter(letter) {
            let end = (at..letters.len()).find(|at| !is_letter(letters[*at])).unwrap_or(letters.len());
            let word: String = letters[at..end].iter().collect();
            let hashes = letters[end..].iter().take_while(|letter| **letter == '#').count();
            if matches!(word.as_str(), "r" | "br") && letters.get(end + hashes) == Some(&'"') {
                let close = format!("\"{}", "#".repeat(hashes));
                at = find(end + hashes + 1, &close) + close.len();
                continue;
            }
            found.push(word);
            at = end;
        } else if next_is(at, "::") {
            found.push("::".to_owned());
            at += 2;
        } else {
            if !letter.is_whitespace() {
                found.push(letter.to_string());
            }
            at += 1;
        }
    }
    found
}

fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn is_word(token: &str) -> bool {
    token.chars().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> Modules {
        Modules::of(files.iter().map(|(file, text)| (module_of(Path::new(file)), (*text).to_owned())))
    }

    fn members(modules: &Modules) -> Vec<Vec<String>> {
        modules.circles(&[]).into_iter().map(|circle| circle.members).collect()
    }

    #[test]
    fn a_circle_is_found_at_the_top_and_inside_folders() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::{self, Thing}; mod x; mod y;"),
            ("a/x.rs", "fn f() { super::y::g() }"),
            ("a/y.rs", "use super::x::f;"),
            ("b.rs", "use crate::{c::One, c::Other as Else};"),
            ("c.rs", "fn f() -> crate::a::Own {}"),
        ]);
        assert_eq!(members(&modules), [vec!["a", "b", "c"], vec!["a::x", "a::y"]]);
        assert_eq!(modules.file_circles().len(), 5, "three uses at the top, two inside");
        assert_eq!(modules.uses("c", "a"), [("c".to_owned(), "a".to_owned())]);
        assert!(modules.uses("a", "c").is_empty());
    }

    #[test]
    fn a_name_is_followed_through_re_exports() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b; pub use a::Thing;"),
            ("a.rs", "mod x; pub use x::Thing; use crate::b::f;"),
            ("a/x.rs", ""),
            ("b.rs", "use crate::Thing;"),
        ]);
        assert_eq!(members(&modules), [["a", "b"]]);
        assert_eq!(modules.uses("b", "a"), [("b".to_owned(), "a::x".to_owned())]);
    }

    #[test]
    fn tests_comments_and_strings_do_not_count_nor_do_a_module_and_its_own() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod only;"),
            (
                "a.rs",
                "mod x; use self::x::f; // use crate::b::f;\nconst T: &str = \"crate::b::f\"; const C: char = '\"';",
            ),
            ("a/x.rs", "use super::g; #[cfg(test)] mod tests { use crate::b::f; }"),
            ("b.rs", "use crate::a::g; #[cfg(test)] pub(crate) mod tests;"),
            ("b/tests.rs", "use crate::a::g;"),
            ("only.rs", "use crate::b::f;"),
        ]);
        assert!(members(&modules).is_empty());
        assert_eq!(modules.floors(), ["b", "a"]);
    }

    #[test]
    fn an_exception_opens_a_circle_and_the_longest_chain_is_told() {
        let modules = crate_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::f; use crate::c::g;"),
            ("b.rs", "use crate::c::g;"),
            ("c.rs", ""),
        ]);
        assert_eq!(modules.floors(), ["a", "b", "c"]);
        let modules = crate_of(&[("lib.rs", ""), ("a.rs", "use crate::b::f;"), ("b.rs", "use crate::a::g;")]);
        assert_eq!(modules.circles(&[]).len(), 1);
        assert!(modules.circles(&[("b", "a", "it is a test")]).is_empty());
    }
}
