use std::io::Write;

use super::fake::{Fake, Reply, Seen, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::error::{ErrorKind, Result};
use crate::image::Descriptor;
use crate::registry::{BlobSink, Pushed};

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n / 7) as u8).collect()
}

/// Writes as a compressor does: on another thread, in uneven parts.
async fn fill(mut sink: BlobSink, size: usize) {
    let write = move || content(size).chunks(333).try_for_each(|part| sink.write_all(part));
    tokio::task::spawn_blocking(write).await.expect("written").expect("a sink takes everything");
}

/// Streams so many bytes to a registry that has no blobs, opens uploads at `/up?s=x`, and answers the
/// rest as the test says.
async fn stream(
    size: usize,
    answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> (Result<Pushed>, Fake) {
    let fake = Fake::start(move |seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.is("POST") => reply(202).header("Location", "/up?s=x"),
        seen if seen.is("DELETE") => reply(204),
        seen => answer(seen),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(Some(&fake.host)));
    let step = job.events.step("push");
    let (stream, sink) = client.stream_blob(&reference(&fake.host), &step, &job).await.expect("stream");
    fill(sink, size).await;
    let result = stream.finish(&Descriptor::of("", &content(size))).await;
    (result, fake)
}

fn taken(seen: &Seen) -> Reply {
    reply(if seen.is("PATCH") { 202 } else { 201 })
}

fn ranges(fake: &Fake) -> Vec<String> {
    let range = |seen: Seen| seen.header("content-range").expect("range").to_owned();
    fake.seen("PATCH").into_iter().map(range).collect()
}

#[tokio::test]
async fn a_blob_is_sent_in_pieces_while_it_is_made() {
    for (size, expected) in [(1100, vec!["0-399", "400-799", "800-1099"]), (800, vec!["0-399", "400-799"])] {
        let (result, fake) = stream(size, taken).await;
        assert_eq!(result.expect("sent"), Pushed::Uploaded);
        assert_eq!(ranges(&fake), expected);
        let sent: Vec<u8> = fake.seen("PATCH").into_iter().flat_map(|piece| piece.body).collect();
        assert_eq!(sent, content(size));
        let digest = Descriptor::of("", &content(size)).digest.to_string().replace(':', "%3A");
        assert_eq!(fake.seen("PUT")[0].line, format!("PUT /up?s=x&digest={digest}"));
        assert_eq!((fake.seen("HEAD").len(), fake.seen("DELETE").len()), (0, 0));
    }
}

#[tokio::test]
async fn a_small_blob_is_asked_for_first_and_sent_whole() {
    for size in [0, 1, 400] {
        let (result, fake) = stream(size, taken).await;
        assert_eq!(result.expect("sent"), Pushed::Uploaded);
        assert_eq!(
            (fake.seen("HEAD").len(), fake.seen("PUT").len(), fake.lines().len()),
            (1, 1, 3),
            "{size}"
        );
        assert_eq!(fake.seen("PUT")[0].body, content(size));
    }
}

#[tokio::test]
async fn a_piece_that_breaks_off_goes_on_where_the_registry_says() {
    let (result, fake) = stream(1100, |seen| match (seen.header("content-range"), seen) {
        (Some("400-799"), _) => reply(0).hang_up_after(100),
        (None, seen) if seen.is("GET") => reply(204).header("Range", "0-499").header("Location", "/up?s=x"),
        _ => taken(seen),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(ranges(&fake), ["0-399", "400-799", "500-799", "800-1099"]);
    assert_eq!(fake.seen("PATCH")[2].body, content(1100)[500..800]);
}

#[tokio::test]
async fn a_range_that_stays_at_the_first_piece_is_not_believed() {
    // ECR: 201, and a `Range` that does not move.
    let (result, fake) = stream(1100, |_| reply(201).header("Range", "0-399")).await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(ranges(&fake).len(), 3);
}

#[tokio::test]
async fn a_refused_stream_says_so_at_its_end_and_takes_what_comes() {
    for (status, kind) in
        [(405, ErrorKind::UnexpectedAnswer), (404, ErrorKind::Unavailable), (403, ErrorKind::Denied)]
    {
        let (result, fake) = stream(100_000, move |_| reply(status)).await;
        assert_eq!(result.expect_err("refused").kind(), kind);
        assert_eq!((fake.seen("PATCH").len(), fake.seen("DELETE").len()), (1, 1), "{status}");
    }
}

#[tokio::test]
async fn a_stream_that_is_given_up_is_deleted() {
    for by_drop in [true, false] {
        let fake = Fake::start(|seen| match seen {
            seen if seen.is("POST") => reply(202).header("Location", "/up?s=x"),
            seen => taken(seen),
        })
        .await;
        let (job, (client, _dir)) = (Job::silent(), client(None));
        let step = job.events.step("push");
        let (stream, sink) = client.stream_blob(&reference(&fake.host), &step, &job).await.expect("stream");
        fill(sink, 1100).await;
        while fake.seen("PATCH").len() < 3 {
            tokio::task::yield_now().await;
        }
        if by_drop {
            drop(stream)
        } else {
            stream.abandon().await
        }
        while fake.seen("DELETE").is_empty() {
            assert!(by_drop, "it waits");
            tokio::task::yield_now().await;
        }
        assert!(fake.seen("PUT").is_empty());
    }
}

#[tokio::test]
async fn the_user_can_stop_a_stream() {
    let fake = Fake::start(|seen| match seen {
        seen if seen.is("POST") => reply(202).header("Location", "/up?s=x"),
        _ => reply(503).header("Retry-After", "60"),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(None));
    let step = job.events.step("push");
    let (stream, sink) = client.stream_blob(&reference(&fake.host), &step, &job).await.expect("stream");
    let filled = tokio::spawn(fill(sink, 100_000));
    while fake.seen("PATCH").is_empty() {
        tokio::task::yield_now().await;
    }
    job.cancel.cancel();
    let error = stream.finish(&Descriptor::of("", &content(100_000))).await.expect_err("stopped");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    filled.await.expect("the sink does not hang");
}

#[tokio::test]
async fn a_token_that_ends_during_a_stream_is_renewed_in_place() {
    let (result, fake) = stream(1100, |seen| {
        if seen.is("GET /token") {
            return reply(200).body(format!(r#"{{"token":"t{}"}}"#, seen.before));
        }
        let wanted = if seen.header("content-range") == Some("0-399") { "Bearer t0" } else { "Bearer t1" };
        match seen.header("authorization") {
            Some(token) if token == wanted => taken(seen),
            _ => {
                let host = seen.header("host").expect("host");
                reply(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token""#))
            }
        }
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(ranges(&fake), ["0-399", "0-399", "400-799", "400-799", "800-1099"]);
    assert_eq!(fake.seen("GET /token").len(), 2);
}
