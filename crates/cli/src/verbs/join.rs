//! `overlay join`: a running agent gets a token of its closed network.

use overlay_daemon::Failure;
use overlay_daemon::agent::request::Joined;
use overlay_daemon::agent::{bind, read_token};
use overlay_daemon::config;

use crate::arguments::agent::Join;
use crate::columns;
use crate::session::Session;

pub(crate) fn run(session: &Session, arguments: &Join) -> Result<(), Failure> {
    let command = format!("sudo overlay join {} -I", config::argument_for(&arguments.file));
    let client = session.client(arguments.on.interface.as_deref(), &command)?;
    let token = read_token(&arguments.file)?;
    let agent = session.block_on(client.agent())?.agent;
    let join = bind(&token, &agent.identity)?;
    // Its secret is of no more use.
    drop(token);
    let answer = session.block_on(client.join(&join))?;
    session.output.result(&answer, || text(&answer.joined));
    session.output.say("hint: overlay agents shows whether the rendezvous takes it");
    Ok(())
}

fn text(joined: &Joined) -> String {
    columns::labelled(&[("tags", columns::tags(&[], &joined.tags))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_of_the_token_are_shown() {
        let text = |tags: &[&str]| text(&Joined { tags: tags.iter().map(|&tag| tag.to_owned()).collect() });
        assert_eq!(text(&["ops", "eu\n"]), "tags       ops (attested), eu\\n (attested)");
        assert_eq!(text(&[]), "tags       -");
    }
}
