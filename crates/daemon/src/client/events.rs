//! Reads the stream of events of a daemon.

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};

use super::{Client, MAX_ANSWER};
use crate::agent::request::AgentEvent;
use crate::failure::{ExitKind, Failure, FailureBody};

/// The longest line in bytes. The longest lists and the longest reason, each character written as `\u0000`, take half.
const MAX_LINE: usize = 64 * 1024;

impl Client {
    /// Passes each event to `take`, until the stream ends.
    ///
    /// # Errors
    ///
    /// The same as for [`Client::status`], also when the connection breaks.
    pub async fn events(&self, mut take: impl FnMut(AgentEvent)) -> Result<(), Failure> {
        let response = self.begin(Method::GET, "/v1/agent/events", Bytes::new()).await?;
        let status = response.status();
        let mut body = response.into_body();
        if status != StatusCode::OK {
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| self.no_answer(&error.to_string()))?.to_bytes();
            return Err(match serde_json::from_slice::<FailureBody>(&body) {
                Ok(failure) => failure.into(),
                Err(error) => self.strange_answer(&error),
            });
        }
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match self.is_alive() {
                true => self.no_answer(&error.to_string()),
                false => Failure::new(ExitKind::NoDaemon, format!("the daemon of `{}` has ended", self.name)),
            })?;
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                take(serde_json::from_slice(&line).map_err(|error| self.strange_answer(&error))?);
            }
            if rest.len() > MAX_LINE {
                return Err(self.no_answer("it sent a line that is too long"));
            }
        }
        Ok(())
    }
}
