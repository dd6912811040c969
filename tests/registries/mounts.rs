//! Layers that another repository has: taken over, or sent on from another registry.

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::{Act, Answer, Fault, FaultProxy};

use crate::rig::{Rig, Test, noise, sent_bytes};

const BASE: &str = "base/busybox:1";

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("mounts::within_a_registry", within_a_registry),
        rig.trial("mounts::forbidden", forbidden),
        rig.trial("mounts::an_upload_instead", an_upload_instead),
        rig.trial("mounts::to_another_registry", to_another_registry),
        rig.trial("mounts::sources_upon_a_base", sources_upon_a_base),
        rig.trial("mounts::sources_upon_a_base_where_forbidden", sources_upon_a_base_where_forbidden),
    ]
}

/// Builds on the base of a registry, and pushes there or elsewhere.
fn build(test: &Test, from: &str, to: &str) -> Result<(), Failed> {
    test.write("Dockerfile", format!("FROM {from}/{BASE}\nLABEL test={}\n", test.repository))?;
    test.windlass(&["build", ".", "--push", "-t", &test.tag(to)])?.good()?;
    Ok(())
}

/// The base's layer is larger than all else.
const BASE_BYTES: u64 = 500_000;

fn pushed_through(test: &Test, faults: Vec<Fault>) -> Result<FaultProxy, Failed> {
    let proxy = test.proxy(faults)?;
    build(test, proxy.address(), proxy.address())?;
    test.leaves_nothing(&test.world.open)?;
    Ok(proxy)
}

fn within_a_registry(test: &Test) -> Result<(), Failed> {
    let proxy = pushed_through(test, Vec::new())?;
    assert!(sent_bytes(&proxy) < 10_000, "the layer was taken over");
    assert!(proxy.seen("POST", "mount=").iter().any(|seen| seen.status == 201));
    assert_eq!(proxy.seen("GET", "/blobs/").len(), 1, "the config, and never the layer");
    Ok(())
}

fn forbidden(test: &Test) -> Result<(), Failed> {
    let no = Answer::error(403, "DENIED", "not yours");
    let proxy = pushed_through(test, vec![Fault::on("POST", "mount=").then(Act::Answer(no))])?;
    assert!(sent_bytes(&proxy) > BASE_BYTES, "the layer was sent");
    Ok(())
}

fn an_upload_instead(test: &Test) -> Result<(), Failed> {
    // A registry that does not know the question opens an upload.
    let forget = Act::Change(Box::new(|head| {
        head.start[1] = "202".to_owned();
    }));
    let proxy = test.proxy(vec![Fault::on("POST", "mount=").then(forget)])?;
    build(test, proxy.address(), proxy.address())
}

fn to_another_registry(test: &Test) -> Result<(), Failed> {
    let (from, to) = (test.proxy(Vec::new())?, &test.world.basic);
    test.log_in(to.address())?;
    build(test, from.address(), to.address())?;
    assert_eq!(from.seen("GET", "/blobs/").len(), 2, "the config and the layer, once");
    let stored = std::fs::read_dir(test.store().join("blobs/sha256"))?.flatten();
    let largest = stored.filter_map(|blob| Some(blob.metadata().ok()?.len())).max().unwrap_or(0);
    assert!(largest < BASE_BYTES, "sent on, not stored");
    test.leaves_nothing(to)
}

/// Larger than the base's layer and all else.
const SOURCES_BYTES: usize = 3_000_000;

/// Replaces the sources that an image has, and pushes the result to this repository.
fn replace_sources(test: &Test, from: &str, to: &str) -> Result<(), Failed> {
    test.write("code/large", noise(&test.repository, SOURCES_BYTES))?;
    let lines = "USER root\nRUN [\"rm\", \"-rf\", \"--\", \"/srv/code\"]\nCOPY --link --chown=1000:1000 code/ /srv/code/\n";
    test.write("Dockerfile", format!("FROM {from}\n{lines}"))?;
    test.windlass(&["build", ".", "--push", "-t", to])?.good()?;
    Ok(())
}

fn sources_upon_a_base(test: &Test) -> Result<(), Failed> {
    let proxy = test.proxy(Vec::new())?;
    let address = proxy.address();
    replace_sources(test, &format!("{address}/{BASE}"), &test.tag(address))?;
    assert_eq!(proxy.seen("GET", "/blobs/").len(), 1, "the config of the base, and never its layer");
    assert_eq!(proxy.seen("POST", "mount=").len(), 1, "the layer of the base");
    let sent = sent_bytes(&proxy);
    assert!(sent > SOURCES_BYTES as u64 && sent < SOURCES_BYTES as u64 + BASE_BYTES, "{sent} bytes");
    // The image that came out is a base as well, and another repository of the registry has the layer.
    replace_sources(test, &test.tag(address), &format!("{address}/{}/again:1", test.repository))?;
    let again = sent_bytes(&proxy) - sent;
    assert!(again < 30_000, "the sources were taken over: {again} bytes");
    assert_eq!(proxy.seen("GET", "/blobs/").len(), 1, "the config was made here");
    test.leaves_nothing(&test.world.open)
}

fn sources_upon_a_base_where_forbidden(test: &Test) -> Result<(), Failed> {
    let no = || Answer::error(403, "DENIED", "not yours");
    let proxy = test.proxy(vec![Fault::on("POST", "mount=").times(u32::MAX).then(Act::Answer(no()))])?;
    let address = proxy.address();
    for repository in ["one", "two"] {
        let to = format!("{address}/{}/{repository}:1", test.repository);
        replace_sources(test, &format!("{address}/{BASE}"), &to)?;
    }
    assert!(sent_bytes(&proxy) > 2 * (SOURCES_BYTES as u64 + BASE_BYTES), "all was sent, twice");
    test.leaves_nothing(&test.world.open)
}
