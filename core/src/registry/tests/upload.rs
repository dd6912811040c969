use super::fake::{Fake, Reply, Seen, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::error::{ErrorKind, Result};
use crate::image::Descriptor;
use crate::registry::{BlobSource, Pushed};

const UPLOADS: &str = "/v2/a/b/blobs/uploads/";

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| n as u8).collect()
}

/// Sends so many bytes to a registry that has no blobs, opens uploads under `/up?s=x`, and answers the rest
/// as the test says.
async fn send(
    size: usize,
    mount_from: Option<&str>,
    answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> (Result<Pushed>, Fake) {
    let fake = Fake::start(move |seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.line == format!("POST {UPLOADS}") => reply(202).header("Location", "/up?s=x"),
        seen if seen.is("DELETE") => reply(204),
        seen => answer(seen),
    })
    .await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("blob");
    std::fs::write(&path, content(size)).expect("write");
    let blob = Descriptor::of("", &content(size));
    let (job, (client, _dir)) = (Job::silent(), client(Some(&fake.host)));
    let step = job.events.step("push");
    let source = BlobSource::File(path);
    let result = client.push_blob(&reference(&fake.host), &blob, &source, mount_from, &step, &job).await;
    (result, fake)
}

fn put(size: usize) -> String {
    format!(
        "PUT /up?s=x&digest={}",
        Descriptor::of("", &content(size)).digest.to_string().replace(':', "%3A")
    )
}

#[tokio::test]
async fn a_small_blob_goes_in_one_request() {
    let (result, fake) = send(900, None, |_| reply(201)).await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(fake.lines().len(), 3);
    let sent = fake.seen("PUT");
    assert_eq!((sent[0].line.as_str(), &sent[0].body), (put(900).as_str(), &content(900)));
    assert_eq!(sent[0].header("content-length"), Some("900"));
}

#[tokio::test]
async fn a_large_blob_goes_in_chunks_to_where_each_answer_says() {
    let (result, fake) = send(1100, None, |seen| {
        if seen.is("PUT") {
            reply(201)
        } else {
            reply(202).header("Location", format!("{UPLOADS}{}", seen.before))
        }
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    let chunks = fake.seen("PATCH");
    let ranges: Vec<_> = chunks.iter().filter_map(|chunk| chunk.header("content-range")).collect();
    assert_eq!(ranges, ["0-399", "400-799", "800-1099"]);
    assert_eq!(chunks.iter().flat_map(|chunk| chunk.body.clone()).collect::<Vec<_>>(), content(1100));
    assert_eq!(chunks[1].line, format!("PATCH {UPLOADS}0"));
}

#[tokio::test]
async fn the_form_that_is_refused_is_followed_by_the_other() {
    // A front end that takes small requests only.
    let (result, fake) = send(900, None, |seen| match seen {
        seen if seen.header("content-length") == Some("900") => reply(413),
        seen if seen.is("PATCH") => reply(202),
        _ => reply(201),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!((fake.seen("PATCH").len(), fake.seen("DELETE").len()), (3, 1));
    // Google Artifact Registry.
    let (result, fake) =
        send(1100, None, |seen| if seen.is("PATCH") { reply(400) } else { reply(201) }).await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(fake.seen("PUT")[0].body.len(), 1100);
    // Neither form: no third attempt.
    let (result, fake) = send(1100, None, |_| reply(400)).await;
    assert_eq!(result.expect_err("refused").kind(), ErrorKind::UnexpectedAnswer);
    assert_eq!((fake.seen("PATCH").len(), fake.seen("PUT").len()), (1, 1));
}

#[tokio::test]
async fn a_chunk_that_breaks_off_goes_on_where_the_registry_says() {
    let (result, fake) = send(1100, None, |seen| match (seen.header("content-range"), seen) {
        (Some("400-799"), _) => reply(0).hang_up_after(100),
        (Some(_), _) => reply(202),
        (None, seen) if seen.is("GET") => reply(204).header("Range", "0-499").header("Location", "/up?s=x"),
        _ => reply(201),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    let chunks = fake.seen("PATCH");
    let ranges: Vec<_> = chunks.iter().filter_map(|chunk| chunk.header("content-range")).collect();
    assert_eq!(ranges, ["0-399", "400-799", "500-799", "800-1099"]);
}

#[tokio::test]
async fn an_upload_that_the_registry_lost_starts_over() {
    let (result, fake) = send(900, None, |seen| match seen.before {
        0 => reply(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"gone"}]}"#),
        1 => reply(0).hang_up_after(10),
        _ => reply(201),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(fake.seen("PUT").len(), 3);
}

#[tokio::test]
async fn a_refusal_is_final_and_the_upload_is_given_up() {
    let (result, fake) = send(900, None, |_| reply(403)).await;
    assert_eq!(result.expect_err("refused").kind(), ErrorKind::Denied);
    assert_eq!((fake.seen("PUT").len(), fake.seen("DELETE").len()), (1, 1));
    let digest_invalid = r#"{"errors":[{"code":"DIGEST_INVALID","message":"other"}]}"#;
    let (result, fake) = send(900, None, move |_| reply(400).body(digest_invalid)).await;
    assert_eq!(result.expect_err("refused").kind(), ErrorKind::UnexpectedAnswer);
    assert_eq!(fake.seen("PUT").len(), 1);
}

#[tokio::test]
async fn a_blob_is_mounted_where_that_is_allowed() {
    let mount = |seen: &Seen| seen.is(&format!("POST {UPLOADS}?mount=")) && seen.line.ends_with("&from=base");
    let (result, fake) = send(900, Some("base"), move |seen| {
        assert!(mount(seen), "{}", seen.line);
        reply(201)
    })
    .await;
    assert_eq!(result.expect("mounted"), Pushed::Mounted);
    assert_eq!(fake.lines().len(), 2);
    // The answer may be an upload instead, which is used.
    let (result, fake) = send(900, Some("base"), move |seen| {
        if mount(seen) { reply(202).header("Location", "/other") } else { reply(201) }
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert!(fake.lines()[2].starts_with("PUT /other?digest="), "{:?}", fake.lines());
    // Or a refusal, which only means that it must be sent.
    let (result, _) = send(900, Some("base"), move |seen| reply(if mount(seen) { 403 } else { 201 })).await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
}

#[tokio::test]
async fn a_token_that_ends_during_an_upload_is_renewed_in_place() {
    let (result, fake) = send(900, None, |seen| {
        if seen.is("GET /token") {
            return reply(200).body(format!(r#"{{"token":"t{}"}}"#, seen.before));
        }
        match seen.header("authorization") {
            Some("Bearer t0") => reply(201),
            _ => {
                let host = seen.header("host").expect("host");
                reply(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token""#))
            }
        }
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    let sent = fake.seen("PUT");
    assert_eq!((sent.len(), sent[1].body.len()), (2, 900));
    assert!(fake.seen("GET /token")[0].line.contains("a%2Fb%3Apull%2Cpush"), "{:?}", fake.lines());
}

#[tokio::test]
async fn an_upload_that_goes_on_elsewhere_takes_no_credential_along() {
    let storage = Fake::start(|_| reply(201)).await;
    let elsewhere = format!("http://{}/signed", storage.host);
    let fake = Fake::start(move |seen| match seen {
        seen if seen.header("authorization").is_none() => {
            reply(401).header("WWW-Authenticate", "Basic realm=\"x\"")
        }
        seen if seen.is("POST") => reply(202).header("Location", elsewhere.clone()),
        _ => reply(404),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(Some(&fake.host)));
    let (step, bytes) = (job.events.step("push"), content(10));
    let blob = Descriptor::of("", &bytes);
    let source = BlobSource::Bytes(bytes.into());
    let result = client.push_blob(&reference(&fake.host), &blob, &source, None, &step, &job).await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!(storage.seen("PUT")[0].header("authorization"), None);
}

#[tokio::test]
async fn an_upload_that_is_pointed_elsewhere_has_not_been_taken() {
    for size in [900, 1100] {
        let (result, _fake) = send(size, None, |_| reply(307).header("Location", "/elsewhere")).await;
        assert_eq!(result.expect_err("not sent").kind(), ErrorKind::UnexpectedAnswer, "{size} bytes");
    }
}

#[tokio::test]
async fn the_form_that_a_registry_takes_is_remembered() {
    let fake = Fake::start(|seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.is("POST") => reply(202).header("Location", "/up"),
        seen if seen.is("DELETE") => reply(204),
        seen if seen.is("PATCH") => reply(405),
        _ => reply(201),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(None));
    let step = job.events.step("push");
    for size in [1100, 1200] {
        let bytes = content(size);
        let (blob, source) = (Descriptor::of("", &bytes), BlobSource::Bytes(bytes.into()));
        client.push_blob(&reference(&fake.host), &blob, &source, None, &step, &job).await.expect("sent");
    }
    assert_eq!((fake.seen("PATCH").len(), fake.seen("PUT").len()), (1, 2));
}

#[tokio::test]
async fn what_was_wrongly_resumed_starts_over() {
    let wrong = r#"{"errors":[{"code":"DIGEST_INVALID","message":"other"}]}"#;
    let (result, fake) = send(1100, None, move |seen| match seen {
        seen if seen.is("GET") => reply(204).header("Range", "0-399"),
        seen if seen.is("PUT") && seen.before == 0 => reply(400).body(wrong),
        seen if seen.is("PUT") => reply(201),
        seen if seen.header("content-range") == Some("400-799") && seen.before == 1 => {
            reply(0).hang_up_after(400)
        }
        _ => reply(202),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!((fake.seen("DELETE").len(), fake.seen("PATCH").len()), (1, 7));
}

#[tokio::test]
async fn a_registry_may_want_larger_pieces() {
    let fake = Fake::start(|seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.is("POST") => {
            reply(202).header("Location", "/up").header("OCI-Chunk-Min-Length", "1000")
        }
        seen if seen.is("PATCH") => reply(202),
        _ => reply(201),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(None));
    let (step, bytes) = (job.events.step("push"), content(1100));
    let (blob, source) = (Descriptor::of("", &bytes), BlobSource::Bytes(bytes.into()));
    client.push_blob(&reference(&fake.host), &blob, &source, None, &step, &job).await.expect("sent");
    let sizes: Vec<_> = fake.seen("PATCH").iter().map(|piece| piece.body.len()).collect();
    assert_eq!(sizes, [1000, 100]);
}

#[tokio::test]
async fn who_may_send_need_not_be_allowed_to_look() {
    let fake = Fake::start(|seen| match seen {
        seen if seen.is("HEAD") => reply(403),
        seen if seen.is("POST") => reply(202).header("Location", "/up"),
        _ => reply(201),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(None));
    let (step, bytes) = (job.events.step("push"), content(9));
    let (blob, source) = (Descriptor::of("", &bytes), BlobSource::Bytes(bytes.into()));
    let pushed = client.push_blob(&reference(&fake.host), &blob, &source, None, &step, &job).await;
    assert_eq!(pushed.expect("sent"), Pushed::Uploaded);
    let by_digest = reference(&fake.host).with_digest(blob.digest);
    assert!(!client.has_manifest(&by_digest, &job).await.expect("asked"));
    // Who only looks is told.
    assert_eq!(
        client.has_blob(&by_digest, &blob, &job).await.expect_err("refused").kind(),
        ErrorKind::Denied
    );
}

#[tokio::test]
async fn a_registry_that_stored_something_else_is_found_out() {
    for size in [900, 1100] {
        let other = Descriptor::of("", b"other").digest;
        let (result, _fake) = send(size, None, move |seen| match seen {
            seen if seen.is("PATCH") => reply(202),
            _ => reply(201).header("Docker-Content-Digest", other.to_string()),
        })
        .await;
        let error = result.expect_err("other");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.details()[0].1, other.to_string());
    }
}

#[tokio::test]
async fn what_is_given_up_is_named_as_the_registry_last_did() {
    // distribution knows an upload only by the state in the last address.
    let (result, fake) = send(1100, None, |seen| match seen {
        seen if seen.header("content-range") == Some("0-399") => reply(202).header("Location", "/up?s=y"),
        _ => reply(403),
    })
    .await;
    assert_eq!(result.expect_err("refused").kind(), ErrorKind::Denied);
    assert_eq!(fake.lines().last().map(String::as_str), Some("DELETE /up?s=y"));
}
