use super::fake::{Fake, Reply, Seen, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::error::{ErrorKind, Result};
use crate::image::Descriptor;
use crate::registry::{BlobSource, HostSettings, Pushed, RegistryClient};

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n / 3) as u8).collect()
}

/// Sends so many bytes from one registry, which answers GETs as the test says, to another, which
/// opens uploads and answers the rest as the test says.
async fn send(
    size: usize,
    from: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    to: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> (Result<Pushed>, Fake, Fake) {
    let origin = Fake::start(from).await;
    let fake = Fake::start(move |seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.is("POST") => reply(202).header("Location", "/up?s=x"),
        seen if seen.is("DELETE") => reply(204),
        seen => to(seen),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(None));
    let step = job.events.step("push");
    let blob = Descriptor::of("", &content(size));
    let source = BlobSource::Registries(vec![reference("127.0.0.1:1"), reference(&origin.host)]);
    let result = client.push_blob(&reference(&fake.host), &blob, &source, None, &step, &job).await;
    (result, origin, fake)
}

fn taken(seen: &Seen) -> Reply {
    reply(if seen.is("PATCH") { 202 } else { 201 })
}

fn joined(seen: Vec<Seen>) -> Vec<u8> {
    seen.into_iter().flat_map(|seen| seen.body).collect()
}

#[tokio::test]
async fn a_blob_goes_through_whole_or_in_pieces() {
    for (size, whole) in [(900, true), (1100, false)] {
        let (result, origin, fake) = send(size, move |_| reply(200).body(content(size)), taken).await;
        assert_eq!(result.expect("sent"), Pushed::Uploaded);
        assert_eq!(origin.seen("GET").len(), 1);
        let sent = joined(fake.seen(if whole { "PUT" } else { "PATCH" }));
        assert_eq!(sent, content(size));
        assert_eq!((fake.seen("PATCH").len(), fake.seen("PUT").len()), (if whole { 0 } else { 3 }, 1));
    }
}

#[tokio::test]
async fn a_source_that_breaks_off_is_gone_on_with() {
    for size in [900, 1100] {
        let from = move |seen: &Seen| match seen.header("range") {
            None => reply(200).body(content(size)).cut_after(500),
            Some("bytes=500-") => reply(206)
                .header("Content-Range", format!("bytes 500-{}/{size}", size - 1))
                .body(&content(size)[500..]),
            Some(other) => panic!("{other}"),
        };
        let (result, origin, fake) = send(size, from, taken).await;
        assert_eq!(result.expect("sent"), Pushed::Uploaded);
        assert_eq!(origin.seen("GET").len(), 2);
        assert_eq!(joined([fake.seen("PATCH"), fake.seen("PUT")].concat()), content(size));
    }
}

#[tokio::test]
async fn wrong_content_never_arrives_whole() {
    for size in [900, 1100] {
        let wrong = move |_: &Seen| reply(200).body(content(size + 3)[3..].to_vec());
        let (result, _origin, fake) = send(size, wrong, taken).await;
        let error = result.expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        assert!(joined([fake.seen("PATCH"), fake.seen("PUT")].concat()).len() < size);
        assert_eq!(fake.seen("DELETE").len(), 1);
    }
}

#[tokio::test]
async fn a_source_that_has_it_not_is_the_cause() {
    for size in [900, 1100] {
        let (result, origin, fake) = send(size, |_| reply(404), taken).await;
        assert_eq!(result.expect_err("absent").kind(), ErrorKind::NotFound);
        assert_eq!((origin.seen("GET").len(), fake.seen("DELETE").len()), (1, 1));
    }
}

#[tokio::test]
async fn a_cut_or_refused_upload_is_fetched_and_sent_again() {
    let fetched = |size| move |_: &Seen| reply(200).body(content(size));
    let (result, origin, fake) = send(900, fetched(900), |seen| match seen.before {
        0 => reply(0).hang_up_after(100),
        _ => taken(seen),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!((origin.seen("GET").len(), fake.seen("PUT").len()), (2, 2));
    // A piece is still in memory.
    let (result, origin, fake) = send(1100, fetched(1100), |seen| match seen {
        seen if seen.header("content-range") == Some("400-799") => reply(0).hang_up_after(100),
        seen if seen.is("GET") => reply(204).header("Range", "0-499"),
        seen => taken(seen),
    })
    .await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!((origin.seen("GET").len(), fake.seen("PATCH").len()), (1, 4));
    // Google Artifact Registry.
    let (result, origin, fake) =
        send(1100, fetched(1100), |seen| if seen.is("PATCH") { reply(400) } else { reply(201) }).await;
    assert_eq!(result.expect("sent"), Pushed::Uploaded);
    assert_eq!((origin.seen("GET").len(), fake.seen("PUT")[0].body.len()), (2, 1100));
}

#[tokio::test]
async fn a_mirror_with_wrong_content_is_passed_over() {
    for size in [900, 1100] {
        let wrong = move |_: &Seen| reply(200).body(content(size + 3)[3..].to_vec());
        let (mirror, origin) =
            (Fake::start(wrong).await, Fake::start(move |_| reply(200).body(content(size))).await);
        let fake = Fake::start(move |seen| match seen {
            seen if seen.is("HEAD") => reply(404),
            seen if seen.is("POST") => reply(202).header("Location", "/up?s=x"),
            seen if seen.is("DELETE") => reply(204),
            seen => taken(seen),
        })
        .await;
        let mut settings = client(None).0.settings().clone();
        let host = HostSettings { mirrors: vec![mirror.host.clone()], ..HostSettings::default() };
        settings.hosts.insert(origin.host.clone(), host);
        let client = RegistryClient::new(settings).expect("client");
        let job = Job::silent();
        let step = job.events.step("push");
        let blob = Descriptor::of("", &content(size));
        let source = BlobSource::Registries(vec![reference(&origin.host)]);
        let sent = client.push_blob(&reference(&fake.host), &blob, &source, None, &step, &job).await;
        assert_eq!(sent.expect("from the origin"), Pushed::Uploaded);
        assert_eq!((mirror.seen("GET").len(), origin.seen("GET").len()), (1, 1));
        let sent = joined([fake.seen("PATCH"), fake.seen("PUT")].concat());
        assert!(sent.ends_with(&content(size)), "{} bytes", sent.len());
    }
}
