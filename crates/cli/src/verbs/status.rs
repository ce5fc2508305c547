//! `overlay status`: shows an interface and its peers, once or repeatedly.

use std::io::{self, IsTerminal as _};

use overlay_daemon::Failure;
use overlay_daemon::view::Status;

use crate::arguments;
use crate::session::Session;
use crate::table;

/// Cursor home, then clear to the end. This redraws in place, without the flicker of a full clear.
const REDRAW: &str = "\x1b[H\x1b[J";

pub(crate) fn run(session: &Session, arguments: &arguments::Status) -> Result<(), Failure> {
    let client = session.client(arguments.daemon.name.as_deref(), "overlay status")?;
    session.block_on(async {
        let Some(period) = arguments.watch else {
            show(session, &client.status().await?, "");
            return Ok(());
        };
        let before = if io::stdout().is_terminal() && !session.output.json { REDRAW } else { "" };
        let mut ticks = tokio::time::interval(period);
        loop {
            tokio::select! {
                _ = ticks.tick() => show(session, &client.status().await?, before),
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    })
}

fn show(session: &Session, status: &Status, before: &str) {
    session.output.result(status, || format!("{before}{}", table::status(status)));
}
