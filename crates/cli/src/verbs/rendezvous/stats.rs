//! `overlay rendezvous stats`: the counters of a running rendezvous.

use overlay_daemon::Failure;
use overlay_server::operator::protocol::{Ask, StatsShown, Told};
use serde::Serialize;

use super::{ask, strange_answer};
use crate::arguments::rendezvous::Network;
use crate::inert;
use crate::session::Session;

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    #[serde(flatten)]
    stats: &'a StatsShown,
}

pub(crate) fn run(session: &Session, network: &Network) -> Result<(), Failure> {
    let Told::Stats(stats) = ask(session, network, &Ask::Stats)? else { return Err(strange_answer()) };
    session.output.result(&Answer { schema: "overlay.rendezvous.stats.v1", stats: &stats }, || text(&stats));
    Ok(())
}

fn text(stats: &StatsShown) -> String {
    let membership = if stats.is_closed { "closed: agents join with a token" } else { "open: any agent may join" };
    let mut lines = vec![
        ("network".to_owned(), inert::text(&stats.network)),
        ("membership".to_owned(), membership.to_owned()),
        ("agents".to_owned(), stats.agents.to_string()),
        ("connections".to_owned(), stats.connections.to_string()),
    ];
    let silent =
        stats.store_silent.as_ref().map(|(seconds, why)| format!(", silent for {seconds} s: {}", inert::text(why)));
    lines.push(("store".to_owned(), format!("{}{}", inert::text(&stats.store), silent.unwrap_or_default())));
    let counted = |counters: &[(String, u64)], prefix: &str| -> Vec<_> {
        let name = |name: &str| format!("{prefix}{}", inert::text(name).replace('_', " "));
        counters.iter().map(|(word, count)| (name(word), count.to_string())).collect()
    };
    lines.extend(counted(&stats.counters, ""));
    let happened: Vec<_> = stats.refused.iter().filter(|(_, count)| *count > 0).cloned().collect();
    lines.extend(counted(&happened, "refused: "));
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
    lines.iter().map(|(label, value)| format!("{label:<width$}  {value}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn refusals_that_never_happened_are_left_out() {
        let stats = StatsShown {
            network: "lab".to_owned(),
            is_closed: true,
            agents: 12,
            connections: 9,
            store: "etcd://192.0.2.1:2379".to_owned(),
            store_silent: Some((12, "no answer within 2 s".to_owned())),
            counters: vec![("calls".to_owned(), 1_234), ("over_identity_rate".to_owned(), 0)],
            refused: vec![("not_a_member".to_owned(), 3), ("fork".to_owned(), 0)],
        };
        golden("overlay rendezvous stats", text(&stats));
    }
}
