//! `overlay pending`: the requests that wait for a decision.
//!
//! Everything in a request was written by a stranger, so it is shown inert.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::PendingRequest;

use crate::arguments::agent::On;
use crate::figures::{distance, now};
use crate::session::Session;
use crate::{columns, inert};

pub(crate) fn run(session: &Session, arguments: &On) -> Result<(), Failure> {
    let client = session.client(arguments.interface.as_deref(), "overlay pending -I")?;
    let answer = session.block_on(client.pending())?;
    session.output.result(&answer, || text(&answer.requests, now()));
    if let Some(first) = answer.requests.first() {
        let name = columns::agent(&first.name, &first.identity);
        session.output.say(&format!("hint: sudo overlay approve {name}, or sudo overlay reject {name}"));
    }
    Ok(())
}

fn text(requests: &[PendingRequest], now: u64) -> String {
    if requests.is_empty() {
        return "no requests".to_owned();
    }
    let row = |request: &PendingRequest| {
        [
            columns::agent(&request.name, &request.identity),
            columns::key(&request.identity),
            columns::scopes(&request.want),
            columns::scopes(&request.gives),
            distance(request.issued, now),
            distance(request.expires, now),
            inert::text(&request.reason),
        ]
    };
    columns::table(["from", "key", "wants", "gives", "asked", "expires", "reason"], requests.iter().map(row))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    fn request(name: &str, reason: &str) -> PendingRequest {
        PendingRequest {
            name: name.to_owned(),
            identity: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            addresses: vec!["10.99.0.2".parse().expect("an address")],
            attested_tags: Vec::new(),
            reason: reason.to_owned(),
            want: vec!["tcp/8000".to_owned()],
            gives: Vec::new(),
            issued: 1_000,
            expires: 605_800,
        }
    }

    #[test]
    fn each_request_is_a_line_and_no_reason_can_make_it_two() {
        let many = PendingRequest { want: (1..=5).map(|port| format!("tcp/{port}")).collect(), ..request("carol", "") };
        let requests = [
            request("bob", "need your search tool"),
            many,
            request("", "\x1b[2K\x1b[1Ahello\r\nalice  trusted  any\u{202e}\u{9b}31m"),
            request("e\x1b[31mve", "\\"),
        ];
        let shown = text(&requests, 1_060);
        assert_eq!(shown.lines().count(), 1 + requests.len());
        assert!(!shown.contains(|letter: char| letter.is_control() && letter != '\n'));
        golden("overlay pending", shown);
    }

    #[test]
    fn without_requests_it_says_so() {
        assert_eq!(text(&[], 0), "no requests");
    }
}
