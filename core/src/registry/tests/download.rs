use super::fake::{Fake, Reply, Seen, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::error::{ErrorKind, Result};
use crate::image::{Descriptor, ImageStore};
use crate::registry::{HostSettings, RegistryClient};

fn content() -> Vec<u8> {
    (0..5000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Fetches [`content`] from a registry, and gives back what came of it and the requests.
async fn fetch(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Result<()>, Vec<Seen>) {
    let fake = Fake::start(answer).await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = ImageStore::open(dir.path()).expect("store");
    let blob = Descriptor::of("", &content());
    let (job, (client, _dir)) = (Job::silent(), client(Some(&fake.host)));
    let step = job.events.step("fetch");
    let result = client.blob_to(&reference(&fake.host), &blob, &store, &step, &job).await;
    assert_eq!(result.is_ok(), store.has(&blob.digest));
    let left = std::fs::read_dir(dir.path().join("incoming")).expect("incoming").count();
    assert_eq!(left, 0, "nothing half-written stays");
    (result, fake.seen("GET"))
}

fn from(start: usize) -> Reply {
    let content = content();
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    reply(206).header("Content-Range", range).body(&content[start..])
}

#[tokio::test]
async fn a_transfer_that_breaks_off_goes_on_there() {
    let (result, seen) = fetch(|seen| match seen.header("range") {
        None => reply(200).body(content()).cut_after(7000),
        Some("bytes=7000-") => from(7000).cut_after(1),
        Some("bytes=7001-") => from(7001),
        Some(other) => panic!("{other}"),
    })
    .await;
    result.expect("whole");
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_all_again() {
    let (result, seen) = fetch(|seen| match seen.before {
        0 => reply(200).body(content()).cut_after(7000),
        _ => reply(200).body(content()),
    })
    .await;
    result.expect("whole");
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn wrong_content_is_refused() {
    let wrong = || content().into_iter().rev().collect::<Vec<_>>();
    let (result, seen) = fetch(move |_| reply(200).body(wrong())).await;
    assert_eq!(result.expect_err("wrong").kind(), ErrorKind::Corrupt);
    assert_eq!(seen.len(), 1);
    let (result, _) = fetch(|_| reply(200).body([content(), content()].concat())).await;
    assert_eq!(result.expect_err("too long").kind(), ErrorKind::Corrupt);
    let (result, _) = fetch(|_| reply(404)).await;
    assert_eq!(result.expect_err("absent").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_transfer_that_never_gets_on_is_given_up() {
    let (result, seen) = fetch(|_| reply(200).body(content()).cut_after(0)).await;
    assert_eq!(result.expect_err("given up").kind(), ErrorKind::Unavailable);
    assert_eq!(seen.len(), 6);
}

#[tokio::test]
async fn another_host_gets_no_credential() {
    let storage = Fake::start(|_| reply(200).body(content())).await;
    let elsewhere = format!("http://{}/signed?x=y", storage.host.replace("127.0.0.1", "localhost"));
    let (result, seen) = fetch(move |seen| match seen.header("authorization") {
        Some(_) => reply(307).header("Location", elsewhere.clone()),
        None => reply(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    })
    .await;
    result.expect("whole");
    assert_eq!(seen.len(), 2);
    let asked = storage.seen("GET /signed?x=y");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn the_user_can_stop_a_transfer() {
    let fake = Fake::start(|_| reply(200).body(content()).cut_after(7000)).await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let store = ImageStore::open(dir.path()).expect("store");
    let (job, (client, _dir)) = (Job::silent(), client(None));
    job.cancel.cancel();
    let step = job.events.step("fetch");
    let blob = Descriptor::of("", &content());
    let error = client.blob_to(&reference(&fake.host), &blob, &store, &step, &job).await;
    assert_eq!(error.expect_err("stopped").kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(dir.path().join("incoming")).expect("incoming").count(), 0);
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_for_what_it_lacks() {
    for (status, asked_mirror) in [(200, 1), (404, 1), (500, 6)] {
        let mirror = Fake::start(move |_| reply(status).body(content())).await;
        let fake = Fake::start(|_| reply(200).body(content())).await;
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = ImageStore::open(dir.path()).expect("store");
        let mut settings = client(None).0.settings().clone();
        let host = HostSettings { mirrors: vec![mirror.host.clone()], ..HostSettings::default() };
        settings.hosts.insert(fake.host.clone(), host);
        let client = RegistryClient::new(settings).expect("client");
        let (job, blob) = (Job::silent(), Descriptor::of("", &content()));
        let step = job.events.step("fetch");
        client.blob_to(&reference(&fake.host), &blob, &store, &step, &job).await.expect("fetched");
        assert!(store.has(&blob.digest));
        assert_eq!((mirror.lines().len(), fake.lines().len()), (asked_mirror, usize::from(status != 200)));
    }
}

#[tokio::test]
async fn a_registry_without_tls_may_send_us_on_to_tls() {
    // A TLS alert, which only one who speaks TLS takes for what it is.
    let storage = Fake::start_raw(b"\x15\x03\x03\x00\x02\x02\x28").await;
    let elsewhere = format!("https://{}/signed", storage);
    let (result, seen) = fetch(move |_| reply(307).header("Location", elsewhere.clone())).await;
    let error = result.expect_err("no TLS after all");
    assert_eq!(seen.len(), 1);
    assert!(format!("{error:?}").contains("HandshakeFailure"), "{error:?}");
}
