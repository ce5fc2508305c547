//! `GET /v1/agent/events`: what happens to trust, as lines of JSON, for programs that decide.
//!
//! The stream begins with a `request` for each one that waits, so a program that reads nothing else misses none. It lasts
//! until the reader closes it, the daemon ends, or the reader is too slow. In the last two cases the last line says so.
//!
//! A stream does not take a place among the connections that answer once. At most
//! [`MAX_STREAMS`](crate::agent::watchers::MAX_STREAMS) exist, and users who may only read have a part of them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::body::Frame;

use super::Daemon;
use super::agent::{Asker, ask, different_answer};
use crate::agent::request::Question;
use crate::agent::request::{AgentEvent, EventReceiver, EventSender};
use crate::agent::request::{AgentReply, AgentRequest};
use crate::failure::{ExitKind, Failure};
use crate::serving::connection::Lease;
use crate::serving::guests::Guest;

/// The type of the answer.
pub(super) const MEDIA_TYPE: &str = "application/x-ndjson";
/// How long a reader that was dropped may take to read what it has missed.
const GRACE: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Daemon> {
    Router::new().route("/v1/agent/events", get(events))
}

async fn events(asker: Asker, Extension(lease): Extension<Lease>) -> Result<Response, Failure> {
    asker.0.may_read()?;
    let place = match asker.0.is_owner() {
        true => None,
        false => Some(asker.2.streams.admit(asker.1.0.0).ok_or_else(|| {
            Failure::new(
                ExitKind::Conflict,
                "too many programs of this user, or of others who may only read, read events",
            )
            .with_hint("end one of them")
        })?),
    };
    let (sender, mut receiver) = EventSender::new();
    let AgentReply::Watching(waiting) = ask(asker, AgentRequest::Ask(Question::Watch(sender))).await? else {
        return Err(different_answer());
    };
    lease.prolong();
    if let Some(end) = receiver.end.take() {
        tokio::spawn(async move {
            let _ = end.await;
            lease.end_within(GRACE);
        });
    }
    let lines = Lines { waiting: waiting.into(), receiver, is_over: false, _place: place };
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::new(lines)).into_response())
}

/// The body of the answer.
struct Lines {
    /// The events with which the stream begins.
    waiting: VecDeque<AgentEvent>,
    receiver: EventReceiver,
    is_over: bool,
    _place: Option<Guest>,
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let event = match self.waiting.pop_front() {
            Some(event) => event,
            None => match ready!(self.receiver.queue.poll_recv(context)) {
                Some(event) => event,
                None => {
                    self.is_over = true;
                    self.receiver.last(now())
                }
            },
        };
        let mut line = serde_json::to_vec(&event).expect("an event is plain data");
        line.push(b'\n');
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
