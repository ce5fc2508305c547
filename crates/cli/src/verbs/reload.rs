//! `overlay reload`: makes the daemon read its config again and apply what changed.

use overlay_daemon::Failure;
use overlay_daemon::device::ReloadReport;

use crate::arguments::Daemon;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Daemon) -> Result<(), Failure> {
    let client = session.client(arguments.name.as_deref(), "sudo overlay reload")?;
    let reloaded = session.block_on(client.reload())?;
    session.output.result(&reloaded, || summary(client.name(), &reloaded.report));
    if !reloaded.report.needs_restart.is_empty() {
        let keys = reloaded.report.needs_restart.join(", ");
        session.output.say(&format!("hint: {keys}: takes effect at the next `overlay up`, not now"));
    }
    Ok(())
}

fn summary(name: &str, report: &ReloadReport) -> String {
    let parts: Vec<String> = [("added", &report.added), ("removed", &report.removed), ("changed", &report.changed)]
        .into_iter()
        .filter(|(_, peers)| !peers.is_empty())
        .map(|(what, peers)| format!("{what} {}", peers.join(", ")))
        .chain([format!("{} unchanged", report.unchanged)])
        .collect();
    format!("{name} reloaded: {}", parts.join("; "))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn the_summary_names_what_changed_and_counts_what_did_not() {
        let report = ReloadReport {
            added: vec!["bob".to_owned(), "carol".to_owned()],
            changed: vec!["dave".to_owned()],
            unchanged: 7,
            ..ReloadReport::default()
        };
        golden("two added, one changed, seven unchanged", summary("overlay0", &report));
        golden("nothing", summary("overlay0", &ReloadReport::default()));
    }
}
