//! The log of a daemon: it goes to stderr, and systemd passes that on to the journal.
//!
//! Levels INFO and above are logged, unless `-v` or `OVERLAY_LOG` (a filter such as `debug` or `overlay_daemon=trace`)
//! says otherwise.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::arguments::{Global, Verb};
use crate::output::Output;

/// Filters for libraries that log what we only count: the session engine warns at every timeout, and the netlink parser
/// at every attribute that it is too old to know.
const QUIET: &str = "boringtun=off,netlink_packet_route=error,netlink_packet_core=error,netlink_proto=error";

/// The level that disables the log.
pub(crate) const SILENT: &str = "off";

/// The log level that wireguard-go's environment variable requests for `overlay wg`: `verbose`, `debug`, `error` or
/// `silent`.
pub(crate) fn wg_level() -> Option<&'static str> {
    level_of(&std::env::var("LOG_LEVEL").ok()?)
}

fn level_of(word: &str) -> Option<&'static str> {
    match word {
        "verbose" | "debug" => Some("debug"),
        "error" => Some("error"),
        "silent" => Some(SILENT),
        _ => None,
    }
}

/// Starts logging. Verbs that are not daemons print their own messages, and log only on request.
pub(crate) fn start(global: &Global, verb: &Verb) {
    let wanted = std::env::var("OVERLAY_LOG").ok();
    let wanted = match verb {
        Verb::Wg(_) => wanted.or_else(|| wg_level().map(str::to_owned)),
        _ => wanted,
    };
    let is_daemon = matches!(verb, Verb::Up(_) | Verb::Wg(_) | Verb::Rendezvous(_));
    let filter = filter(wanted.as_deref(), global.verbose, is_daemon);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(self::filter(None, 0, true)));
    let color = Output::new(global.json).color && io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(color).with_target(global.verbose > 0);
    let log = tracing_subscriber::registry().with(filter);
    // The journal adds a time to every line itself.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.with(lines.without_time()).try_init()
    } else {
        log.with(lines).try_init()
    };
}

fn filter(wanted: Option<&str>, verbose: u8, is_daemon: bool) -> String {
    let level = match (wanted, verbose) {
        (_, 2..) => "trace",
        (_, 1) => "debug",
        (Some(wanted), 0) if !wanted.is_empty() => wanted,
        _ if is_daemon => "info",
        _ => "off",
    };
    // Later directives win, so the user can enable a quiet library by naming it.
    if wanted == Some(level) { format!("{QUIET},{level}") } else { format!("{level},{QUIET}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_noisy_libraries_stay_quiet() {
        assert_eq!(filter(None, 0, true), format!("info,{QUIET}"));
        assert_eq!(filter(None, 0, false), format!("off,{QUIET}"));
        assert_eq!(filter(Some("warn"), 1, true), format!("debug,{QUIET}"));
        assert_eq!(filter(Some("boringtun=debug"), 0, true), format!("{QUIET},boringtun=debug"));
        assert!(EnvFilter::try_new(filter(None, 2, true)).is_ok());
    }

    #[test]
    fn the_words_of_wireguard_go_are_understood() {
        let words = ["verbose", "debug", "error", "silent", "info", ""];
        assert_eq!(words.map(level_of), [Some("debug"), Some("debug"), Some("error"), Some("off"), None, None]);
    }
}
