//! What the user is told where a config cannot be used.

use super::argument_for;
use super::problem::{ConfigError, Problem};
use crate::failure::{ExitKind, Failure};

impl From<&ConfigError> for Failure {
    /// A bad config: what is wrong with it is drawn in the details, without colour.
    fn from(error: &ConfigError) -> Self {
        let path = error.path().display();
        let (first, others) = match error.problems() {
            [first, others @ ..] => (first, others.len()),
            [] => return Self::new(ExitKind::Config, format!("`{path}` is not a valid config")),
        };
        let is_forbidden = error.problems().iter().all(Problem::is_permission);
        if is_forbidden || (first.line == 0 && others == 0) {
            // The wrong user, or an error about the file as a whole: there is no place to show.
            let code = if is_forbidden { ExitKind::Permission } else { ExitKind::Config };
            return Self { hint: first.hint.clone(), ..Self::new(code, first.message.clone()) };
        }
        let count = match others {
            0 => String::new(),
            1 => ", and 1 more".to_owned(),
            n => format!(", and {n} more"),
        };
        let hint = first.hint.clone().unwrap_or_else(|| format!("overlay config check {}", argument_for(error.path())));
        Self::new(ExitKind::Config, format!("`{path}` is not a valid config"))
            .with_cause(format!("line {}: {}{count}", first.line, first.message))
            .with_hint(hint)
            .with_details(error.render(false))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::from(&error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use overlay_golden::golden;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_config_that_is_missing_has_nothing_to_draw() {
        let failure = Failure::from(Config::load(Path::new("/nonexistent/lab.toml")).expect_err("no such file"));
        assert_eq!((failure.code, &failure.details), (ExitKind::Config, &None));
        golden("a config that is missing", failure.lines());
    }

    #[test]
    fn a_bad_config_names_the_first_problem_counts_the_others_and_draws_all() {
        let text = "[interface]\nlisten_port = 70000\naddresses = [\"10.77.0.1/33\"]\n";
        let failure = Failure::from(Config::parse(text, Path::new("lab.toml")).expect_err("several problems"));
        assert_eq!(failure.code, ExitKind::Config);
        golden("several problems", failure.lines());
        let details = failure.details.unwrap_or_default();
        assert!(details.contains("70000") && details.contains("10.77.0.1/33"), "{details}");
    }
}
