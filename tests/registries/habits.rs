//! What registries do beyond the specification, each behind a proxy that behaves so.

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::{Act, Answer, Fault, FaultProxy, Head};

use crate::rig::{LARGE_BYTES, PIECE_BYTES, Rig, SMALL_BYTES, Test, account};

const UPLOADS: &str = "/blobs/uploads/";

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("habits::artifact_registry_takes_only_whole_blobs", only_whole),
        rig.trial("habits::front_ends_limit_requests", limited),
        rig.trial("habits::front_ends_cut_large_requests", cut),
        rig.trial("habits::ecr_answers_201_with_a_stuck_range", stuck_range),
        rig.trial("habits::jfrog_needs_patch", only_pieces),
        rig.trial("habits::neither_form_is_taken", neither),
        rig.trial("habits::no_head", |test| no_head(test, 405)),
        rig.trial("habits::no_head_for_who_may_push", |test| no_head(test, 403)),
        rig.trial("habits::a_relative_location_with_a_query", relative_location),
        rig.trial("habits::a_location_at_another_host", other_location),
        rig.trial("habits::pieces_have_a_least_size", least_piece),
        rig.trial("habits::a_range_of_the_other_form", other_range),
    ]
}

fn change(change: impl Fn(&mut Head) + Send + Sync + 'static) -> Act {
    Act::Change(Box::new(change))
}

fn refuse(status: u16) -> Act {
    Act::Answer(Answer::error(status, "UNSUPPORTED", "not in this form"))
}

fn is_large(head: &Head) -> bool {
    head.length().is_some_and(|length| length > PIECE_BYTES)
}

/// Sends an image through a proxy with this habit; it arrives, and nothing else is said.
fn arrives(test: &Test, faults: Vec<Fault>, more: &[&str]) -> Result<FaultProxy, Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let proxy = test.proxy(faults)?;
    let tag = test.tag(proxy.address());
    let outcome = test.windlass(&[&["image", "push", "layout", &tag], more].concat())?;
    outcome.good()?;
    test.arrived(&image)?;
    Ok(proxy)
}

fn pieces(proxy: &FaultProxy) -> Vec<u64> {
    proxy.seen("PATCH", UPLOADS).iter().map(|seen| seen.body_bytes).collect()
}

fn only_whole(test: &Test) -> Result<(), Failed> {
    let proxy = arrives(test, vec![Fault::on("PATCH", UPLOADS).then(refuse(400))], &[])?;
    assert_eq!(pieces(&proxy).len(), 1, "one attempt");
    assert!(proxy.seen("PUT", UPLOADS).iter().any(|seen| seen.body_bytes > LARGE_BYTES as u64));
    Ok(())
}

fn limited(test: &Test) -> Result<(), Failed> {
    let too_large = Fault::on("", UPLOADS).when(is_large).then(Act::Answer(Answer::new(413)));
    let proxy = arrives(test, vec![too_large], &["--set", "transfers.whole-limit=1MiB"])?;
    assert!(pieces(&proxy).iter().all(|bytes| *bytes <= PIECE_BYTES));
    assert_eq!(proxy.seen("PUT", UPLOADS).iter().filter(|seen| seen.status == 413).count(), 1, "one attempt");
    Ok(())
}

fn cut(test: &Test) -> Result<(), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let proxy = test.proxy(vec![Fault::on("", UPLOADS).when(is_large).then(Act::CutRequest(PIECE_BYTES))])?;
    let tag = test.tag(proxy.address());
    test.windlass(&["image", "push", "layout", &tag, "--set", "transfers.whole-limit=1MiB"])?.good()?;
    test.is_there(&image)?;
    assert!(pieces(&proxy).iter().all(|bytes| *bytes <= PIECE_BYTES));
    Ok(())
}

fn stuck_range(test: &Test) -> Result<(), Failed> {
    let habit = Fault::on("PATCH", UPLOADS).then(change(|head| {
        head.start[1] = "201".to_owned();
        head.set("Range", format!("0-{}", PIECE_BYTES - 1));
    }));
    let proxy = arrives(test, vec![habit], &[])?;
    assert!(pieces(&proxy).len() >= 5, "every piece once");
    Ok(())
}

fn only_pieces(test: &Test) -> Result<(), Failed> {
    let whole = Fault::on("PUT", UPLOADS).when(|head| head.length().unwrap_or(0) > 0).then(refuse(405));
    let proxy = arrives(test, vec![whole], &[])?;
    let refused = proxy.seen("PUT", UPLOADS).iter().filter(|seen| seen.status == 405).count();
    assert!((1..=2).contains(&refused), "once a blob that was small enough: {refused}");
    Ok(())
}

fn neither(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let proxy = test.proxy(vec![
        Fault::on("PATCH", UPLOADS).then(refuse(400)),
        Fault::on("PUT", UPLOADS).then(refuse(400)),
    ])?;
    test.push(proxy.address())?.refused(1, &["could not push blob", "not in this form"])?;
    test.leaves_nothing(&test.world.open)
}

fn no_head(test: &Test, status: u16) -> Result<(), Failed> {
    let proxy = arrives(test, vec![Fault::on("HEAD", "/v2/").then(Act::Answer(Answer::new(status)))], &[])?;
    // To read is to ask for the document.
    if status == 405 {
        test.windlass(&["image", "pull", &test.tag(proxy.address())])?.good()?;
    }
    Ok(())
}

fn relative_location(test: &Test) -> Result<(), Failed> {
    let habit = Fault::on("", UPLOADS).then(change(|head| {
        let relative = head
            .header("location")
            .and_then(|to| to.split_once("/v2/"))
            .map(|(_, path)| format!("/v2/{path}"));
        if let Some(relative) = relative {
            head.set("Location", relative);
        }
    }));
    let proxy = arrives(test, vec![habit], &[])?;
    let closed = proxy.seen("PUT", UPLOADS);
    assert!(closed.iter().all(|seen| seen.path().contains("_state=") && seen.path().contains("&digest=")));
    Ok(())
}

/// The upload goes on at another host, which must not see the password.
fn other_location(test: &Test) -> Result<(), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let elsewhere = test.proxy(Vec::new())?;
    let other = elsewhere.address().replace("127.0.0.1", "localhost");
    let ask = Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let onward = change(move |head| {
        let path =
            head.header("location").and_then(|to| to.split_once("/v2/")).map(|(_, path)| path.to_owned());
        if let Some(path) = path {
            head.set("Location", format!("http://{other}/v2/{path}"));
        }
    });
    let proxy = test.proxy(vec![
        Fault::on("", "/v2/").when(|head| head.header("authorization").is_none()).then(Act::Answer(ask)),
        Fault::on("POST", UPLOADS).then(onward),
    ])?;
    test.credentials(&serde_json::json!({ "auths": { proxy.address(): account() } }))?;
    test.push(proxy.address())?.good()?;
    test.arrived(&image)?;
    assert!(proxy.seen("PATCH", UPLOADS).is_empty() && !elsewhere.seen("PATCH", UPLOADS).is_empty());
    let shown = |seen: &FaultProxy| {
        seen.seen("", "/v2/").iter().any(|seen| seen.head.header("authorization").is_some())
    };
    assert!(shown(&proxy) && !shown(&elsewhere));
    Ok(())
}

fn least_piece(test: &Test) -> Result<(), Failed> {
    let least = 2 * PIECE_BYTES;
    let habit = change(move |head| head.set("OCI-Chunk-Min-Length", least.to_string()));
    let proxy = arrives(test, vec![Fault::on("POST", UPLOADS).then(habit)], &[])?;
    let mut sizes = pieces(&proxy);
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(sizes[..2], [least, least]);
    Ok(())
}

fn other_range(test: &Test) -> Result<(), Failed> {
    let habit = Fault::on("PATCH", UPLOADS).then(change(|head| {
        let range = head.header("range").map(|range| format!("bytes={range}"));
        if let Some(range) = range {
            head.set("Range", range);
        }
    }));
    arrives(test, vec![habit], &[]).map(drop)
}
