//! The log of a build, where the service keeps one: few do.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use windlass_core::backend::Job;
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::http::Failure;
use windlass_core::remote::BuildId;
use windlass_core::service::{Pieces, ServiceClient};

/// A longer line is cut into several.
const LINE_LIMIT_BYTES: usize = 64 * 1024;
/// So many last lines are shown of a build that failed.
const TAIL_LINES: usize = 20;

/// Passes on the lines of a build's log.
///
/// # Errors
/// `NotFound` where the service keeps no logs; what else it says.
pub(crate) async fn read(
    client: &ServiceClient,
    id: &BuildId,
    line: &mut (dyn for<'a> FnMut(&'a str) + Send),
    silence: Duration,
) -> Result<()> {
    let url = client.url(&["build_logs", id.as_str()], &[]);
    let response = client.get(url, HeaderMap::new()).await.map_err(Failure::into_error)?;
    match response.status() {
        StatusCode::OK => copy(client, response, line, silence).await,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            let message = format!("`{}` keeps no log of the build `{id}`", client.server());
            Err(Error::new(ErrorKind::NotFound, message)
                .with_hint(format!("`windlass builds status {id}` says how it is")))
        }
        _ => {
            let refusal = client.refusal(response).await;
            Err(refusal.into_error(&format!("could not read the log of the build `{id}`")))
        }
    }
}

async fn copy(
    client: &ServiceClient,
    response: Response,
    lines: &mut (dyn for<'a> FnMut(&'a str) + Send),
    silence: Duration,
) -> Result<()> {
    let mut pieces = Pieces::of(response.bytes_stream());
    let mut text: Vec<u8> = Vec::new();
    loop {
        let piece = match tokio::time::timeout(silence, pieces.next()).await {
            Ok(piece) => piece.transpose().map_err(|error| client.broke_off(error).into_error())?,
            Err(_) => return Err(client.silent(silence)),
        };
        let Some(piece) = piece else { break };
        match piece.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => {
                text.extend_from_slice(&piece[..end]);
                pass_on(client, &text, lines);
                piece[end + 1..].clone_into(&mut text);
            }
            None => text.extend_from_slice(&piece),
        }
        if text.len() >= LINE_LIMIT_BYTES {
            pass_on(client, &text, lines);
            text.clear();
        }
    }
    if !text.is_empty() {
        pass_on(client, &text, lines);
    }
    Ok(())
}

fn pass_on(client: &ServiceClient, text: &[u8], lines: &mut (dyn for<'a> FnMut(&'a str) + Send)) {
    let text = String::from_utf8_lossy(text);
    let text = client.key().hide(text.trim_end_matches('\r'));
    lines(&text.replace("\r\n", "\n"));
}

/// The last lines of a log; none where there is no log, which harms nobody.
pub(crate) async fn tail(client: &ServiceClient, id: &BuildId, limit: Duration, job: &Job) -> Vec<String> {
    let mut lines = VecDeque::new();
    let mut keep = |text: &str| {
        for line in text.split('\n') {
            if lines.len() == TAIL_LINES {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        }
    };
    let read = job.run(read(client, id, &mut keep, limit));
    let _ = tokio::time::timeout(limit, read).await;
    lines.into()
}
