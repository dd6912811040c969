//! Faults while something is fetched: what heals, what is said, and that nothing half-written stays.

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::{Act, Answer, Fault, FaultProxy};

use crate::rig::{LARGE_BYTES, Rig, SMALL_BYTES, Test, account};

const BLOBS: &str = "/blobs/sha256:";
const MANIFESTS: &str = "/manifests/";

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("fetching::without_a_fault", |test| heals(test, Vec::new()).map(drop)),
        rig.trial("fetching::a_blob_is_cut", a_blob_is_cut),
        rig.trial("fetching::a_blob_is_cut_every_time", |test| {
            fails(test, Fault::on("GET", BLOBS).then(Act::CutAnswer(0)), 3, &["broke off", "attempts"])
        }),
        rig.trial("fetching::a_blob_stands_still", |test| {
            heals(test, vec![Fault::on("GET", BLOBS).times(1).then(Act::StallAnswer(100))]).map(drop)
        }),
        rig.trial("fetching::a_document_is_cut", |test| {
            heals(test, vec![Fault::on("GET", MANIFESTS).times(1).then(Act::CutAnswer(9))]).map(drop)
        }),
        rig.trial("fetching::errors_that_heal", errors_that_heal),
        rig.trial("fetching::errors_that_do_not_heal", |test| {
            let error = Answer::error(500, "UNKNOWN", "out of order");
            fails(test, Fault::on("GET", BLOBS).then(Act::Answer(error)), 3, &["500", "out of order"])
        }),
        rig.trial("fetching::a_bit_of_a_blob_flips", |test| {
            fails(test, Fault::on("GET", BLOBS).then(Act::FlipAnswer(50)), 1, &["sha256:", "digest"])
        }),
        rig.trial("fetching::a_bit_of_a_manifest_flips", |test| {
            fails(test, Fault::on("GET", MANIFESTS).then(Act::FlipAnswer(50)), 1, &["digest"])
        }),
        rig.trial("fetching::absent", |test| {
            let absent = Answer::error(404, "BLOB_UNKNOWN", "no such blob");
            fails(test, Fault::on("GET", BLOBS).then(Act::Answer(absent)), 1, &["404", "no such blob"])
        }),
        rig.trial("fetching::another_host_gets_no_password", another_host),
    ]
}

/// Sends an image to the open registry, and puts a proxy with these faults in front of it.
fn prepare(test: &Test, faults: Vec<Fault>) -> Result<FaultProxy, Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    test.push(test.world.open.address())?.good()?;
    // What is fetched must not be there.
    std::fs::remove_dir_all(test.store())?;
    test.proxy(faults)
}

/// The image comes whole in spite of the faults.
fn heals(test: &Test, faults: Vec<Fault>) -> Result<FaultProxy, Failed> {
    let proxy = prepare(test, faults)?;
    let tag = test.tag(proxy.address());
    test.windlass(&["image", "pull", &tag])?.good()?;
    test.windlass(&["image", "save", &tag, "-o", "saved.tar"])?.good()?;
    test.leaves_nothing(&test.world.open)?;
    Ok(proxy)
}

fn fails(test: &Test, fault: Fault, code: i32, says: &[&str]) -> Result<(), Failed> {
    let proxy = prepare(test, vec![fault])?;
    let tag = test.tag(proxy.address());
    test.windlass(&["image", "pull", &tag])?.refused(code, says)?;
    assert_ne!(test.windlass(&["image", "inspect", &tag])?.code, Some(0), "a half of it has a name");
    test.leaves_nothing(&test.world.open)
}

fn a_blob_is_cut(test: &Test) -> Result<(), Failed> {
    let is_whole = |head: &windlass_tests::service::Head| head.header("range").is_none();
    let proxy = heals(test, vec![Fault::on("GET", BLOBS).when(is_whole).then(Act::CutAnswer(300))])?;
    let blobs = proxy.seen("GET", BLOBS);
    assert!(blobs.iter().any(|seen| seen.status == 206), "it goes on where it broke off");
    Ok(())
}

fn errors_that_heal(test: &Test) -> Result<(), Failed> {
    let busy = || Answer::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "0");
    let faults = vec![
        Fault::on("GET", MANIFESTS).times(2).then(Act::Answer(busy())),
        Fault::on("GET", BLOBS).times(2).then(Act::Answer(Answer::new(502))),
    ];
    heals(test, faults).map(drop)
}

/// Blobs are at another host, as with storage behind a registry.
fn another_host(test: &Test) -> Result<(), Failed> {
    let storage = test.proxy(Vec::new())?;
    let elsewhere = format!("http://{}", storage.address().replace("127.0.0.1", "localhost"));
    let ask = Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let proxy = prepare(
        test,
        vec![
            Fault::on("", "/v2/").when(|head| head.header("authorization").is_none()).then(Act::Answer(ask)),
            Fault::on("GET", BLOBS).then(Act::Change(Box::new(move |head| {
                head.start[1] = "307".to_owned();
                head.set("Location", format!("{elsewhere}/v2/"));
            }))),
        ],
    )?;
    test.credentials(&serde_json::json!({ "auths": { proxy.address(): account() } }))?;
    // What comes from there is no blob; the question is what was shown.
    let outcome = test.windlass(&["image", "pull", &test.tag(proxy.address())])?;
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let seen = storage.seen("GET", "/v2/");
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.head.header("authorization").is_none()));
    assert!(proxy.seen("GET", BLOBS).iter().any(|seen| seen.head.header("authorization").is_some()));
    Ok(())
}
