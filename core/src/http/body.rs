//! Reading answers: never more than expected, never without a time limit.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use super::failure::describe_failure;
use super::retry::Failure;
use crate::error::{Error, ErrorKind};

/// How long a server may say nothing while it sends, where no setting says otherwise.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// So much of an error page is read; what the user sees of it is shorter.
const EXCERPT_LIMIT_BYTES: u64 = 16 * 1024;

/// Reads the next piece of a body; `None` at its end.
///
/// # Errors
/// A transient failure if the connection breaks, or nothing arrives for as long as `silence`.
pub async fn next_piece(
    server: &str,
    response: &mut Response,
    silence: Duration,
) -> Result<Option<Bytes>, Failure> {
    match tokio::time::timeout(silence, response.chunk()).await {
        Ok(piece) => piece.map_err(|error| describe_failure(server, error)),
        Err(_) => {
            let message = format!("`{server}` sent nothing for {} s", silence.as_secs());
            Err(Failure::transient(Error::new(ErrorKind::TimedOut, message)))
        }
    }
}

/// Reads a whole small body.
///
/// # Errors
/// `UnexpectedAnswer` if it is larger than `limit_bytes`; a transient failure if it breaks off, or
/// nothing arrives for a minute.
pub async fn read_capped(server: &str, response: Response, limit_bytes: u64) -> Result<Bytes, Failure> {
    read_capped_within(server, response, limit_bytes, IDLE_LIMIT).await
}

/// As [`read_capped`], with another limit for silence.
pub(crate) async fn read_capped_within(
    server: &str,
    mut response: Response,
    limit_bytes: u64,
    silence: Duration,
) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(piece) = next_piece(server, &mut response, silence).await? {
        if (body.len() + piece.len()) as u64 > limit_bytes {
            let message = format!("`{server}` sent more than {limit_bytes} bytes for a small document");
            return Err(Error::new(ErrorKind::UnexpectedAnswer, message).into());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Reads the beginning of an error page, as far as it arrives.
pub(crate) async fn read_excerpt(server: &str, mut response: Response, silence: Duration) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(piece)) = next_piece(server, &mut response, silence).await {
        let room = (EXCERPT_LIMIT_BYTES as usize).saturating_sub(body.len());
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if room == 0 {
            break;
        }
    }
    body.freeze()
}
