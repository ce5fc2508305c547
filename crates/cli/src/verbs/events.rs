//! `overlay events`: what happens to trust, as it happens.
//!
//! Names and reasons are those of strangers, so they are shown inert.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::{AgentEvent, Happened};
use overlay_daemon::failure::ExitKind;

use crate::arguments::agent::On;
use crate::session::Session;
use crate::verbs::path::way;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &On) -> Result<(), Failure> {
    let client = session.client(arguments.interface.as_deref(), "overlay events -I")?;
    let mut last = None;
    session.block_on(async {
        let events = client.events(|event| {
            last = Some(event.event);
            session.output.result(&event, || text(&event));
        });
        tokio::select! {
            result = events => result.and_then(|()| Err(ended(last))),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

/// The failure for a stream that the daemon ended.
fn ended(last: Option<Happened>) -> Failure {
    match last {
        Some(Happened::Dropped) => Failure::new(ExitKind::Other, "the daemon dropped this stream")
            .with_cause("it was not read as fast as things happened")
            .with_hint("run overlay events again: it begins with the requests that wait"),
        _ => Failure::new(ExitKind::NoDaemon, "the daemon is stopping"),
    }
}

fn text(event: &AgentEvent) -> String {
    let mut line = format!("{}  {:<12}", inert::text(&event.time), event.event.word());
    if let Some(identity) = &event.identity {
        let name = columns::agent(event.name.as_deref().unwrap_or_default(), identity);
        line += &format!("  {name}  {}", columns::key(identity));
    }
    if let Some(request) = &event.request {
        line += &format!("  wants {}, gives {}", columns::scopes(&request.want), columns::scopes(&request.gives));
        if !request.reason.is_empty() {
            line += &format!(": {}", inert::text(&request.reason));
        }
    } else if matches!(event.event, Happened::Trusted | Happened::Changed) {
        let list = |scopes: &Option<Vec<String>>| columns::scopes(scopes.as_deref().unwrap_or_default());
        line += &format!("  may open {} here, we may open {}", list(&event.allow), list(&event.opens));
    }
    if let (Some(path), Some(remote)) = (event.path, event.remote) {
        line += &format!("  {}", way(path, remote));
    }
    if let Some(message) = &event.message {
        line += &format!("  {}", inert::text(message));
    }
    line
}

#[cfg(test)]
mod tests {
    use overlay_daemon::agent::request::PendingRequest;
    use overlay_daemon::view::PathKind;
    use overlay_golden::golden;

    use super::*;

    fn event(event: Happened) -> AgentEvent {
        AgentEvent {
            schema: "overlay.event.v1".into(),
            event,
            time: "2026-11-28T12:00:00Z".to_owned(),
            unix_ms: 1_795_867_200_000,
            name: Some("bob".to_owned()),
            identity: Some("vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned()),
            by: None,
            allow: Some(Vec::new()),
            opens: Some(vec!["tcp/8000".to_owned(), "icmp".to_owned()]),
            expires: None,
            path: None,
            remote: None,
            request: None,
            message: None,
        }
    }

    #[test]
    fn each_event_is_a_line_and_no_reason_can_make_it_two() {
        let request = PendingRequest {
            name: "eve".to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: Vec::new(),
            attested_tags: Vec::new(),
            reason: "\x1b[2J\r\n2026  trusted  eve\u{202e}".to_owned(),
            want: vec!["any".to_owned()],
            gives: Vec::new(),
            issued: 1,
            expires: 2,
        };
        let asked = AgentEvent { name: Some("e\nve".to_owned()), request: Some(request), ..event(Happened::Request) };
        let dropped = AgentEvent {
            name: None,
            identity: None,
            message: Some("the reader was 256 events behind".to_owned()),
            ..event(Happened::Dropped)
        };
        let relayed = AgentEvent {
            path: Some(PathKind::Relay),
            remote: Some("192.0.2.1:7447".parse().expect("an address and a port")),
            ..event(Happened::PathChanged)
        };
        let events = [asked, event(Happened::Trusted), relayed, event(Happened::PeerDown), dropped];
        let shown: Vec<_> = events.iter().map(text).collect();
        assert!(shown.iter().all(|line| !line.contains(char::is_control)));
        golden("overlay events", shown.join("\n"));
    }

    #[test]
    fn a_stream_that_the_daemon_ends_is_a_failure() {
        assert_eq!(ended(Some(Happened::Dropped)).code, ExitKind::Other);
        assert_eq!(ended(Some(Happened::Ended)).code, ExitKind::NoDaemon);
        assert_eq!(ended(None).code, ExitKind::NoDaemon);
    }
}
