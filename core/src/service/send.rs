//! One upload on its way, watched.

use std::pin::pin;
use std::time::Duration;

use reqwest::{Response, Url};

use super::body::{Body, Stalled};
use super::client::ServiceClient;
use super::frame::Frame;
use super::payload::Payload;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Step;
use crate::http::Failure;

/// When the user stops us, a service that has everything may take so long to answer.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// How long the other side may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimits {
    /// It may take nothing for so long while there is something to send.
    pub stall: Duration,
    /// It may take so long to answer once it has everything.
    pub answer: Duration,
}

/// How sending ended.
#[derive(Debug)]
pub enum Sent {
    /// There is an answer, of whatever kind.
    Answered {
        /// It.
        response: Response,
        /// The service had the whole upload before: who answers for it may not know what it does with that.
        complete: bool,
    },
    /// The exchange failed.
    Failed {
        /// How.
        failure: Failure,
        /// The service may have got the whole upload, and act on it.
        maybe_taken: bool,
    },
}

impl ServiceClient {
    /// Sends an upload, once, by POST, when it is its turn: only some go to a service at once. `chunked` leaves the length out even where it is known.
    ///
    /// # Errors
    /// What keeps the payload from being made; `Cancelled`, whose hint says so where the service had
    /// everything already. That the exchange failed is no error here.
    pub async fn send(
        &self,
        url: Url,
        payload: &Payload,
        frame: &Frame,
        chunked: bool,
        limits: SendLimits,
        (step, job): (&Step, &Job),
    ) -> Result<Sent> {
        let turn = job.run(async { Ok(self.turn().await) }).await?;
        let body = job.run(Body::open(payload, frame, chunked, job)).await?.in_turn(turn);
        let watch = body.watch();
        let mut exchange = pin!(async {
            tokio::select! {
                answer = self.post(url, &frame.content_type, body) => Ok(answer),
                stalled = watch.stalled(limits, step) => Err(stalled),
            }
        });
        let answer = tokio::select! {
            biased;
            // One that is there counts, also in the moment when the user leaves.
            answer = &mut exchange => answer,
            () = job.cancel.cancelled() => {
                if !watch.is_complete() {
                    return Err(Error::cancelled());
                }
                let _until_it_is_known = job.shield.hold();
                // Without it nobody could come back to the build, or stop it.
                match tokio::time::timeout(LAST_ANSWER_LIMIT, exchange).await {
                    Ok(Ok(Ok(response))) => Ok(Ok(response)),
                    _ => return Err(stopped()),
                }
            }
        };
        let failure = match answer {
            Ok(Ok(response)) => return Ok(Sent::Answered { response, complete: watch.is_complete() }),
            Ok(Err(failure)) => failure,
            Err(Stalled::Answering) => Failure::transient(self.silent(limits.answer)),
            Err(Stalled::Sending) => {
                let message = format!("`{}` took nothing for {} s", self.server(), limits.stall.as_secs());
                let sent = watch.sent_bytes().to_string();
                Failure::transient(
                    Error::new(ErrorKind::Unavailable, message).with_detail("bytes sent", sent),
                )
            }
        };
        match watch.take_failure() {
            // The upload could not be made: the service has nothing to do with it.
            Some(error) => Err(error),
            None => Ok(Sent::Failed { failure, maybe_taken: watch.is_complete() }),
        }
    }
}

fn stopped() -> Error {
    Error::cancelled().with_hint(
        "the service had the whole upload already: it may build, but it gave no id to come back to",
    )
}
