//! Faults while something is sent: what is said, how the program ends, and that nothing is left or sent twice.

use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::{Act, Answer, Fault, FaultProxy};

use crate::rig::{LARGE_BYTES, PIECE_BYTES, Rig, SMALL_BYTES, Test, blob_bytes, sent_bytes};

const UPLOADS: &str = "/blobs/uploads/";

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("sending::without_a_fault", |test| heals(test, Vec::new(), 0)),
        rig.trial("sending::again", again),
        rig.trial("sending::slow_answers", |test| heals(test, vec![Fault::on("", "/v2/").then(late())], 0)),
        rig.trial("sending::busy_with_seconds", busy_with_seconds),
        rig.trial("sending::busy_with_a_date", busy_with_a_date),
        rig.trial("sending::busy_for_an_hour", busy_for_an_hour),
        rig.trial("sending::errors_that_heal", errors_that_heal),
        rig.trial("sending::errors_that_do_not_heal", errors_that_stay),
        rig.trial("sending::errors_of_the_last_request", errors_of_the_last_request),
        rig.trial("sending::a_piece_is_cut", a_piece_is_cut),
        rig.trial("sending::a_whole_blob_is_cut", a_whole_blob_is_cut),
        rig.trial("sending::a_piece_is_cut_every_time", cut_every_time),
        rig.trial("sending::the_answer_to_a_piece_is_lost", lost_answer_to_a_piece),
        rig.trial("sending::the_last_answer_is_lost", the_last_answer_is_lost),
        rig.trial("sending::a_bit_flips", a_bit_flips),
        rig.trial("sending::something_else_was_stored", something_else_was_stored),
        rig.trial("sending::another_manifest_was_stored", another_manifest_was_stored),
        rig.trial("sending::the_upload_is_deleted", the_upload_is_deleted),
        rig.trial("sending::the_upload_is_deleted_every_time", deleted_every_time),
        rig.trial("sending::silence_at_the_door", silence_at_the_door),
        rig.trial("sending::silence_after_a_piece", silence_after_a_piece),
        rig.trial("sending::denied", denied),
        rig.trial("sending::repository_unknown", repository_unknown),
        rig.trial("sending::manifest_refused", manifest_refused),
    ]
}

fn late() -> Act {
    Act::Delay(Duration::from_millis(50))
}

fn error(status: u16) -> Act {
    Act::Answer(Answer::error(status, "UNKNOWN", "something went wrong over there"))
}

/// The push succeeds in spite of the faults, with at most so many bytes more than the image has.
fn heals(test: &Test, faults: Vec<Fault>, more_bytes: u64) -> Result<(), Failed> {
    heals_with(test, faults, more_bytes).map(drop)
}

fn heals_with(test: &Test, faults: Vec<Fault>, more_bytes: u64) -> Result<(FaultProxy, String), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let proxy = test.proxy(faults)?;
    let outcome = test.push(proxy.address())?;
    outcome.good()?;
    test.arrived(&image)?;
    let (sent, needed) = (sent_bytes(&proxy), blob_bytes(&image));
    assert!(
        (needed..=needed + more_bytes).contains(&sent),
        "{sent} bytes were sent of {needed}: {outcome:#?}"
    );
    Ok((proxy, outcome.stderr))
}

/// The push fails so; nothing is left, and the registry has no manifest.
fn fails(test: &Test, faults: Vec<Fault>, code: i32, says: &[&str]) -> Result<FaultProxy, Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let proxy = test.proxy(faults)?;
    let outcome = test.push(proxy.address())?;
    outcome.refused(code, says)?;
    test.leaves_nothing(&test.world.open)?;
    let left = test.world.open.address();
    let asked = test.windlass(&["image", "inspect", "--remote", &test.tag(left)])?;
    assert_ne!(asked.code, Some(0), "a manifest without its blobs: {asked:#?}");
    Ok(proxy)
}

fn again(test: &Test) -> Result<(), Failed> {
    heals(test, Vec::new(), 0)?;
    let proxy = test.proxy(Vec::new())?;
    test.push(proxy.address())?.good()?;
    assert_eq!((sent_bytes(&proxy), proxy.seen("POST", UPLOADS).len()), (0, 0), "it was there");
    Ok(())
}

fn busy_with_seconds(test: &Test) -> Result<(), Failed> {
    let busy = Answer::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "1");
    let faults = vec![Fault::on("POST", UPLOADS).times(1).then(Act::Answer(busy))];
    let (_, said) = heals_with(test, faults, 0)?;
    assert!(said.contains("429") && said.contains("in 1.0 s"), "{said}");
    Ok(())
}

fn busy_with_a_date(test: &Test) -> Result<(), Failed> {
    // One that has passed by the time it is read: again at once.
    let busy = Answer::new(503).header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT");
    let faults = vec![Fault::on("PATCH", UPLOADS).times(1).then(Act::Answer(busy))];
    let (_, said) = heals_with(test, faults, PIECE_BYTES)?;
    assert!(said.contains("503") && said.contains("in 0.0 s"), "{said}");
    Ok(())
}

fn busy_for_an_hour(test: &Test) -> Result<(), Failed> {
    let busy = Answer::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "3600");
    let faults = vec![Fault::on("POST", UPLOADS).then(Act::Answer(busy))];
    let proxy = fails(test, faults, 3, &["429", "slow down", "3600 s"])?;
    assert!(proxy.seen("POST", UPLOADS).len() <= 3, "once a blob");
    Ok(())
}

fn errors_that_heal(test: &Test) -> Result<(), Failed> {
    let faults = vec![
        Fault::on("HEAD", "/blobs/").times(1).then(error(502)),
        Fault::on("POST", UPLOADS).times(2).then(error(500)),
        Fault::on("PATCH", UPLOADS).skip(2).times(1).then(error(503)),
        Fault::on("PUT", UPLOADS).times(1).then(error(504)),
        Fault::on("PUT", "/manifests/").times(2).then(error(500)),
    ];
    // The piece, and the blob that was sent whole or closed.
    heals(test, faults, PIECE_BYTES + LARGE_BYTES as u64 + 8192)
}

fn errors_that_stay(test: &Test) -> Result<(), Failed> {
    let proxy = fails(
        test,
        vec![Fault::on("POST", UPLOADS).then(error(500))],
        3,
        &["500", "something went wrong over there", "attempts"],
    )?;
    assert_eq!(sent_bytes(&proxy), 0);
    Ok(())
}

fn errors_of_the_last_request(test: &Test) -> Result<(), Failed> {
    let proxy = fails(test, vec![Fault::on("PUT", UPLOADS).then(error(500))], 3, &["500"])?;
    assert!(!proxy.seen("DELETE", UPLOADS).is_empty(), "uploads were given up");
    assert!(proxy.seen("PUT", "/manifests/").is_empty());
    Ok(())
}

fn a_piece_is_cut(test: &Test) -> Result<(), Failed> {
    let faults = vec![Fault::on("PATCH", UPLOADS).skip(1).times(1).then(Act::CutRequest(10_000))];
    // In place: the blob is not sent from its start.
    heals(test, faults, PIECE_BYTES)
}

fn a_whole_blob_is_cut(test: &Test) -> Result<(), Failed> {
    let faults = vec![
        Fault::on("PUT", UPLOADS)
            .when(|head| head.length().is_some_and(|length| length > 10_000))
            .times(1)
            .then(Act::CutRequest(9_000)),
    ];
    heals(test, faults, 10_000)
}

fn cut_every_time(test: &Test) -> Result<(), Failed> {
    fails(test, vec![Fault::on("PATCH", UPLOADS).then(Act::CutRequest(100))], 3, &["broke off"]).map(drop)
}

fn lost_answer_to_a_piece(test: &Test) -> Result<(), Failed> {
    let faults = vec![Fault::on("PATCH", UPLOADS).skip(1).times(1).then(Act::LoseAnswer)];
    // Nothing again: the registry says how far it is.
    heals(test, faults, 0)
}

fn the_last_answer_is_lost(test: &Test) -> Result<(), Failed> {
    let faults = vec![Fault::on("PUT", UPLOADS).times(2).then(Act::LoseAnswer)];
    heals(test, faults, 0)
}

fn a_bit_flips(test: &Test) -> Result<(), Failed> {
    let flip = Fault::on("PUT", UPLOADS)
        .when(|head| head.length().is_some_and(|length| length > 10_000))
        .then(Act::FlipRequest(5_000));
    fails(test, vec![flip], 1, &["could not push", "sha256:", "digest"]).map(drop)
}

fn something_else_was_stored(test: &Test) -> Result<(), Failed> {
    let other = format!("sha256:{}", "0".repeat(64));
    let lie = Act::Change(Box::new(move |head| head.set("Docker-Content-Digest", other.clone())));
    fails(test, vec![Fault::on("PUT", UPLOADS).then(lie)], 1, &["stored something other than", "000000"])
        .map(drop)
}

fn another_manifest_was_stored(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let other = format!("sha256:{}", "0".repeat(64));
    let lie = Act::Change(Box::new(move |head| head.set("Docker-Content-Digest", other.clone())));
    let proxy = test.proxy(vec![Fault::on("PUT", "/manifests/").then(lie)])?;
    test.push(proxy.address())?.refused(1, &["000000"]).map_err(Failed::from)
}

fn the_upload_is_deleted(test: &Test) -> Result<(), Failed> {
    let faults = vec![Fault::on("PATCH", UPLOADS).skip(3).times(1).then(Act::DeleteBefore)];
    let (proxy, _) = heals_with(test, faults, 4 * PIECE_BYTES)?;
    assert_eq!(proxy.seen("", UPLOADS).iter().filter(|seen| seen.status == 404).count(), 2, "and its DELETE");
    Ok(())
}

fn deleted_every_time(test: &Test) -> Result<(), Failed> {
    let faults = vec![Fault::on("PATCH", UPLOADS).then(Act::DeleteBefore)];
    fails(test, faults, 1, &["could not push", "404"]).map(drop)
}

fn silence_at_the_door(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let proxy = test.proxy(vec![Fault::on("POST", UPLOADS).then(Act::Silence)])?;
    test.push(proxy.address())?.refused(4, &["did not answer"])?;
    test.leaves_nothing(&test.world.open)
}

fn silence_after_a_piece(test: &Test) -> Result<(), Failed> {
    let faults = vec![Fault::on("PATCH", UPLOADS).skip(1).times(1).then(Act::Silence)];
    heals(test, faults, PIECE_BYTES)
}

fn denied(test: &Test) -> Result<(), Failed> {
    let no = Act::Answer(Answer::error(403, "DENIED", "your plan is too small"));
    let proxy = fails(
        test,
        vec![Fault::on("POST", UPLOADS).then(no)],
        3,
        &["403", "your plan is too small", "docker login"],
    )?;
    assert!(proxy.seen("POST", UPLOADS).len() <= 3, "no use in trying again");
    Ok(())
}

fn repository_unknown(test: &Test) -> Result<(), Failed> {
    let no = Act::Answer(Answer::error(404, "NAME_UNKNOWN", "no such repository"));
    fails(test, vec![Fault::on("POST", UPLOADS).then(no)], 1, &["404", "create the repository"]).map(drop)
}

fn manifest_refused(test: &Test) -> Result<(), Failed> {
    let no = Act::Answer(Answer::error(400, "MANIFEST_INVALID", "too new for us"));
    fails(test, vec![Fault::on("PUT", "/manifests/").then(no)], 1, &["MANIFEST_INVALID", "too new for us"])
        .map(drop)
}
