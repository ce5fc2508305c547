//! `overlay completions SHELL`: a script with which the shell completes our verbs.

use overlay_daemon::Failure;
use serde::Serialize;

use crate::arguments::{self, Completions};
use crate::session::Session;

#[derive(Serialize)]
struct Script {
    schema: &'static str,
    shell: String,
    script: String,
}

pub(crate) fn run(session: &Session, arguments: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut arguments::command(), "overlay", &mut script);
    let script = Script {
        schema: "overlay.completions.v1",
        shell: arguments.shell.to_string(),
        script: String::from_utf8_lossy(&script).into_owned(),
    };
    session.output.result(&script, || script.script.clone());
    Ok(())
}
