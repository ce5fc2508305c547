//! Printing: data to stdout and messages to stderr, or JSON to stdout and nothing else.

use std::io::{self, IsTerminal as _};

use overlay_daemon::Failure;
use overlay_daemon::failure::FailureBody;
use serde::Serialize;

use crate::inert;

/// Where results are printed, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Whether to print JSON instead of text.
    pub(crate) json: bool,
    /// Whether messages on stderr are coloured.
    pub(crate) color: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { json, color: wanted && io::stderr().is_terminal() }
    }

    /// Prints a result: text for people, or `json` as JSON with a `schema`.
    pub(crate) fn result(&self, json: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(json);
        } else {
            self.data(&text());
        }
    }

    /// Prints one line of JSON.
    pub(crate) fn json_line(&self, json: &impl Serialize) {
        match serde_json::to_string(json) {
            Ok(line) => self.data(&inert::json(&line)),
            Err(error) => self.say(&format!("cannot be written as JSON: {error}")),
        }
    }

    /// Prints one line of JSON if there is still a reader. For daemons, which continue even without a reader.
    pub(crate) fn offer_json(&self, json: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(json) {
            let _ = write_to(io::stdout().lock(), &format!("{}\n", inert::json(&line)));
        }
    }

    /// Prints one line, as text or as JSON, if there is still a reader. For daemons, which continue even without a reader.
    pub(crate) fn offer(&self, json: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.offer_json(json);
        } else {
            let _ = write_to(io::stdout().lock(), &format!("{}\n", text()));
        }
    }

    /// Prints data on stdout and adds a newline if it has none. Exits if the data cannot be written.
    pub(crate) fn data(&self, text: &str) {
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        match write_to(io::stdout().lock(), &format!("{text}{newline}")) {
            Ok(()) => {}
            // The reader has closed the pipe (`| head`), which is not a failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => {
                self.say(&format!("error: cannot write to stdout\ncause: {error}"));
                std::process::exit(1);
            }
        }
    }

    /// Prints a message on stderr, or nothing with `--json`.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            let _ = write_to(io::stderr().lock(), &format!("{text}\n"));
        }
    }

    /// Prints a failure: three lines on stderr, or a JSON object on stdout.
    pub(crate) fn failure(&self, failure: Failure) {
        if self.json {
            // If the reader has closed the pipe, the exit code still tells.
            self.offer_json(&FailureBody::from(failure));
        } else {
            self.say(&rendered(&failure, self.color));
        }
    }
}

fn write_to(mut stream: impl io::Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// The three lines, preceded by the details.
pub(crate) fn rendered(failure: &Failure, color: bool) -> String {
    let mut lines = Vec::new();
    if let Some(details) = &failure.details {
        lines.push(format!("{}\n", details.trim_end()));
    }
    lines.push(labelled("error", "31", &failure.error, color));
    if let Some(cause) = &failure.cause {
        lines.push(labelled("cause", "33", cause, color));
    }
    if let Some(hint) = &failure.hint {
        lines.push(labelled("hint", "36", hint, color));
    }
    lines.join("\n")
}

fn labelled(label: &str, ansi: &str, text: &str, color: bool) -> String {
    if color { format!("\x1b[1;{ansi}m{label}:\x1b[0m {text}") } else { format!("{label}: {text}") }
}

#[cfg(test)]
mod tests {
    use overlay_daemon::failure::ExitKind;

    use super::*;

    #[test]
    fn a_failure_is_three_lines_below_its_details() {
        let failure = Failure::new(ExitKind::Config, "`a.toml` is not a valid config")
            .with_cause("line 3: unknown key `adress`")
            .with_hint("did you mean `addresses`?")
            .with_details("  3 | adress = 1\n    | ^^^^^^\n");
        let expected = "  3 | adress = 1\n    | ^^^^^^\n\nerror: `a.toml` is not a valid config\n\
                        cause: line 3: unknown key `adress`\nhint: did you mean `addresses`?";
        assert_eq!(rendered(&failure, false), expected);
    }

    #[test]
    fn what_is_not_known_takes_no_line_and_colour_marks_the_labels() {
        let failure = Failure::new(ExitKind::NoDaemon, "no daemon is running");
        assert_eq!(rendered(&failure, false), "error: no daemon is running");
        assert_eq!(rendered(&failure, true), "\x1b[1;31merror:\x1b[0m no daemon is running");
    }
}
