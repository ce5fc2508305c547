//! `overlay rendezvous token`: makes, lists and revokes join tokens.
//!
//! A token is signed here, with the network key. The rendezvous is told of it without its secret half.

use overlay_daemon::{Failure, files};
use overlay_server::operator::protocol::{Ask, TokenShown, Told};
use overlay_server::operator::token::{Wanted, make};
use serde::Serialize;

use super::{ask, client, failure, network_of, order, strange_answer};
use crate::arguments::rendezvous::{Create, Network, Token};
use crate::figures::{distance, now};
use crate::session::Session;
use crate::{columns, file_failure, inert};

#[derive(Serialize)]
struct Created<'a> {
    schema: &'static str,
    /// The token's key, by which it is listed and revoked.
    token: String,
    /// The text that an agent joins with. It is secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    join: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a std::path::Path>,
    /// Until when it can be used, in milliseconds since 1970.
    expires: u64,
    /// Whether the rendezvous was told of it.
    is_known: bool,
}

#[derive(Serialize)]
struct Listed<'a> {
    schema: &'static str,
    tokens: &'a [TokenShown],
}

pub(crate) fn run(session: &Session, verb: Token) -> Result<(), Failure> {
    match verb {
        Token::Create(arguments) => create(session, arguments),
        Token::List(network) => list(session, &network),
        Token::Revoke(arguments) => {
            order(session, &arguments.on, &Ask::RevokeToken { token: arguments.token }, "revoked")
        }
    }
}

fn create(session: &Session, arguments: Create) -> Result<(), Failure> {
    let network = network_of(session, &arguments.on)?;
    let wanted = Wanted {
        uses: if arguments.reusable { 0 } else { arguments.uses },
        lifetime: arguments.lifetime.saturating_mul(1_000),
        is_ephemeral: arguments.ephemeral,
        name: arguments.name,
        tags: arguments.tag,
    };
    let made = make(&session.state_dir, &network, arguments.network_key.as_deref(), &wanted).map_err(failure)?;
    // The rendezvous is told first: what it refuses is not handed out.
    let is_known = match client(session, &arguments.on)?.ask(&made.tell) {
        Ok(_) => true,
        Err(error) if error.kind == overlay_server::Kind::NotRunning => false,
        Err(error) => return Err(failure(error)),
    };
    let (text, token) = (made.join.text(), made.join.token());
    let created = Created {
        schema: "overlay.rendezvous.token.create.v1",
        token: token.token.to_string(),
        join: None,
        file: None,
        expires: token.expires,
        is_known,
    };
    match &arguments.output {
        Some(file) => {
            files::write_secret(file, &text).map_err(|error| file_failure("write", file, &error))?;
            session.output.result(&Created { file: Some(file), ..created }, || format!("token {}", token.token));
        }
        None => session.output.result(&Created { join: Some(&text), ..created }, || text.to_string()),
    }
    if !is_known {
        session.output.say("the rendezvous is not running: `token list` shows the token once an agent has used it");
    }
    Ok(())
}

fn list(session: &Session, network: &Network) -> Result<(), Failure> {
    let Told::Tokens { tokens } = ask(session, network, &Ask::Tokens)? else { return Err(strange_answer()) };
    let listed = Listed { schema: "overlay.rendezvous.tokens.v1", tokens: &tokens };
    session.output.result(&listed, || text(&tokens, now()));
    Ok(())
}

fn text(tokens: &[TokenShown], now: u64) -> String {
    if tokens.is_empty() {
        return "no tokens".to_owned();
    }
    let row = |token: &TokenShown| {
        let uses = token.uses.map_or_else(|| "any number".to_owned(), |uses| uses.to_string());
        [
            columns::key(&token.token),
            inert::text(&token.state),
            format!("{} of {uses}", token.used),
            token.expires.map_or_else(|| "-".to_owned(), |at| distance(at / 1_000, now)),
            token.name.as_deref().map_or_else(|| "-".to_owned(), inert::text),
            columns::texts(&token.tags),
            if token.is_ephemeral { "ephemeral" } else { "-" }.to_owned(),
        ]
    };
    columns::table(["token", "state", "used", "expires", "name", "tags", "agents"], tokens.iter().map(row))
}

#[cfg(test)]
mod tests {
    use overlay_golden::golden;

    use super::*;

    #[test]
    fn each_token_is_a_line() {
        let once = TokenShown {
            token: "vqkd3sdpxlgr7a2q5m4zc6fj8ynuwhbte2kx4o7i5s6pdlmgaaaq".to_owned(),
            state: "valid".to_owned(),
            used: 0,
            uses: Some(1),
            expires: Some(1_795_867_200_000),
            issued: Some(1_795_780_800_000),
            name: Some("carol".to_owned()),
            tags: vec!["ops".to_owned()],
            is_ephemeral: false,
            revoked: None,
        };
        let fleet = TokenShown {
            state: "revoked".to_owned(),
            used: 40,
            uses: None,
            name: None,
            tags: Vec::new(),
            is_ephemeral: true,
            ..once.clone()
        };
        golden("overlay rendezvous token list", text(&[once, fleet], 1_795_860_000));
        assert_eq!(text(&[], 0), "no tokens");
    }
}
