use std::sync::{Arc, OnceLock};

use super::fake::{Fake, reply};
use super::{client, reference};
use crate::backend::Job;
use crate::error::ErrorKind;
use crate::image::Descriptor;
use crate::registry::BlobSource;

/// Stops a push while the registry opens the upload, or takes a blob over.
async fn stop_while_opening(mount_from: Option<&str>, status: u16) -> Vec<String> {
    let job = Job::silent();
    let stop: Arc<OnceLock<Job>> = Arc::new(OnceLock::new());
    stop.set(job.clone()).expect("once");
    let fake = Fake::start(move |seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.is("POST") => {
            stop.get().expect("set").cancel.cancel();
            reply(status).header("Location", "/up")
        }
        _ => reply(204),
    })
    .await;
    let (client, _dir) = client(None);
    let step = job.events.step("push");
    let (blob, source) = (Descriptor::of("", b"x"), BlobSource::Bytes("x".into()));
    let error = client.push_blob(&reference(&fake.host), &blob, &source, mount_from, &step, &job).await;
    assert_eq!(error.expect_err("stopped").kind(), ErrorKind::Cancelled);
    fake.lines().split_off(2)
}

#[tokio::test]
async fn an_upload_that_was_just_opened_is_given_up() {
    assert_eq!(stop_while_opening(None, 202).await, ["DELETE /up"]);
    assert_eq!(stop_while_opening(Some("base"), 202).await, ["DELETE /up"]);
    // That is a blob, and no upload.
    assert!(stop_while_opening(Some("base"), 201).await.is_empty());
}

#[tokio::test]
async fn an_upload_that_waits_for_its_turn_is_given_up() {
    let fake = Fake::start(|seen| match seen {
        seen if seen.is("HEAD") => reply(404),
        seen if seen.is("POST") => reply(202).header("Location", "/up"),
        _ => reply(204),
    })
    .await;
    let (job, (client, _dir)) = (Job::silent(), client(None));
    let _others = client.inner.sending.acquire_many(client.settings().concurrency as u32).await;
    let step = job.events.step("push");
    let (repository, blob, source) =
        (reference(&fake.host), Descriptor::of("", b"x"), BlobSource::Bytes("x".into()));
    let push = client.push_blob(&repository, &blob, &source, Some("base"), &step, &job);
    let stop = async {
        while fake.seen("POST").is_empty() {
            tokio::task::yield_now().await;
        }
        // Most likely it waits by now; else it is stopped while it opens the upload.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        job.cancel.cancel();
    };
    let (pushed, ()) = tokio::join!(push, stop);
    assert_eq!(pushed.expect_err("stopped").kind(), ErrorKind::Cancelled);
    assert_eq!(fake.lines().last().map(String::as_str), Some("DELETE /up"));
}
