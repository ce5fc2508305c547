//! What is wrong with a config, and how it is shown: what, where, and what to write instead.
//!
//! The text of the file is kept with the problems so that they can be shown in it. Possible secrets are removed.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::secret::conceal;
pub(super) use super::secret::quoted;
use crate::permission::denied;

/// The [`Problem::kind`] of a file that may not be read.
const PERMISSION: &str = "permission";

/// The kinds of warnings that depend on the routes of the host.
const UP_TO_THE_HOST: [&str; 2] = ["endpoint_in_route", "endpoint_in_network"];

/// Everything that is wrong with one config file: at least one problem.
#[derive(Clone)]
pub struct ConfigError {
    file: Arc<SourceFile>,
    problems: Vec<Problem>,
}

/// One thing that is wrong or deserves attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable code such as `unknown_key`, for programs.
    pub kind: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The line in the file, from 1, or 0 if the problem is not in one place.
    pub line: usize,
    /// The column in characters, from 1, or 0 if the problem is not in one place.
    pub column: usize,
    span: Option<Range<usize>>,
    related: Option<Box<Related>>,
}

/// A second place that belongs to a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Related {
    span: Range<usize>,
    label: &'static str,
}

/// Something that is allowed but deserves attention.
#[derive(Clone)]
pub struct Warning {
    file: Arc<SourceFile>,
    problem: Problem,
}

/// The file in which problems are shown.
pub(super) struct SourceFile {
    path: PathBuf,
    /// The text, with secrets overwritten byte for byte, so that spans remain valid.
    text: String,
}

impl ConfigError {
    pub(super) fn new(file: Arc<SourceFile>, problems: Vec<Problem>) -> Self {
        Self { file, problems }
    }

    /// Creates the error for a problem of the file as a whole.
    pub(super) fn of_file(path: &Path, problem: Problem) -> Self {
        Self::new(Arc::new(SourceFile { path: path.to_owned(), text: String::new() }), vec![problem])
    }

    /// Returns the problems in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the path of the file, as given.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Shows all problems in the text of the file, for a terminal. There is no newline at the end.
    pub fn render(&self, color: bool) -> String {
        let drawn: Vec<_> =
            self.problems.iter().map(|problem| draw(Level::ERROR, &self.file, problem, color)).collect();
        drawn.join("\n\n")
    }
}

impl fmt::Display for ConfigError {
    /// Formats the first problem in one line: `path:line:column: message`, or only the message if it is about the whole file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.first() {
            Some(problem) => one_line(f, &self.file, problem),
            None => write!(f, "{}", self.file.path.display()),
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigError").field("path", &self.file.path).field("problems", &self.problems).finish()
    }
}

impl std::error::Error for ConfigError {}

impl Warning {
    /// Whether the host decides if this is a mistake. Code that can ask the host does so.
    pub(crate) fn is_up_to_the_host(&self) -> bool {
        UP_TO_THE_HOST.contains(&self.problem.kind)
    }

    pub(super) fn new(file: Arc<SourceFile>, problem: Problem) -> Self {
        Self { file, problem }
    }

    /// Returns what deserves attention, and where.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Shows the warning in the text of the file, for a terminal. There is no newline at the end.
    pub fn render(&self, color: bool) -> String {
        draw(Level::WARNING, &self.file, &self.problem, color)
    }
}

impl fmt::Display for Warning {
    /// Formats the warning in one line, for a log: `path:line:column: message; hint`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        one_line(f, &self.file, &self.problem)?;
        match &self.problem.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl Problem {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: printable(message.into()), hint: None, line: 0, column: 0, span: None, related: None }
    }

    /// Creates the problem for a file that only other users may read, which is not a fault of the config. `what`
    /// describes the file.
    pub(super) fn permission(what: &str, path: &Path) -> Self {
        let denied = denied(path);
        Self::new(PERMISSION, format!("{what} cannot be read: {}", denied.cause)).hint(denied.hint)
    }

    /// Replaces the message.
    pub(super) fn saying(mut self, message: String) -> Self {
        self.message = printable(message);
        self
    }

    /// Whether the file may be correct, but cannot be read by this user.
    pub(crate) fn is_permission(&self) -> bool {
        self.kind == PERMISSION
    }

    pub(super) fn at(mut self, span: &Range<usize>) -> Self {
        self.span = Some(span.clone());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(printable(hint.into()));
        self
    }

    /// Adds a second place that belongs to the problem.
    pub(super) fn related(mut self, span: &Range<usize>, label: &'static str) -> Self {
        self.related = Some(Box::new(Related { span: span.clone(), label }));
        self
    }
}

/// Collects the problems of one file while it is read.
pub(super) struct Report {
    file: Arc<SourceFile>,
    line_starts: Vec<usize>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Report {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let file = SourceFile { path: path.to_owned(), text: conceal(text) };
        Self { file: Arc::new(file), line_starts, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(&mut self, problem: Problem) {
        let problem = self.locate(problem);
        self.errors.push(problem);
    }

    pub(super) fn warn(&mut self, problem: Problem) {
        let problem = self.locate(problem);
        self.warnings.push(problem);
    }

    /// Returns the warnings if there were no errors, otherwise all errors, both in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<Warning>, ConfigError> {
        self.errors.sort_by_key(|problem| (problem.line, problem.column));
        self.warnings.sort_by_key(|problem| (problem.line, problem.column));
        if self.errors.is_empty() {
            Ok(self.warnings.into_iter().map(|problem| Warning::new(self.file.clone(), problem)).collect())
        } else {
            Err(ConfigError::new(self.file, self.errors))
        }
    }

    fn locate(&self, mut problem: Problem) -> Problem {
        if let Some(span) = &mut problem.span {
            span.start = span.start.min(self.file.text.len());
            span.end = span.end.clamp(span.start, self.file.text.len());
            let line = self.line_starts.partition_point(|start| *start <= span.start);
            let start = self.line_starts[line - 1];
            problem.line = line;
            problem.column = self.file.text.get(start..span.start).map_or(0, |before| before.chars().count()) + 1;
        }
        problem
    }
}

/// Removes control characters, because messages contain values and file names and must not control a terminal.
fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}

fn one_line(f: &mut fmt::Formatter<'_>, file: &SourceFile, problem: &Problem) -> fmt::Result {
    match problem.line {
        // The message about the file as a whole names the file itself.
        0 => f.write_str(&problem.message),
        line => write!(f, "{}:{line}:{}: {}", file.path.display(), problem.column, problem.message),
    }
}

fn draw(level: Level<'static>, file: &SourceFile, problem: &Problem, color: bool) -> String {
    let path = file.path.to_string_lossy();
    let mut group = Group::with_title(level.primary_title(problem.message.as_str()).id(problem.kind));
    // Without a place the problem is about the file as a whole, and its message names the file.
    if let Some(span) = &problem.span {
        let related = problem.related.as_ref();
        let related = related.map(|it| AnnotationKind::Context.span(it.span.clone()).label(it.label));
        group = group.element(
            Snippet::source(file.text.as_str())
                .path(path.as_ref())
                .annotation(AnnotationKind::Primary.span(span.clone()))
                .annotations(related),
        );
    }
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&[group])
}
