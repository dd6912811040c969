//! What lies between us and registries: mirrors and proxies.

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::{Act, Answer, Fault, FaultProxy};

use crate::rig::{LARGE_BYTES, Rig, SMALL_BYTES, Test};

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("surroundings::a_mirror_is_asked_first", mirror_first),
        rig.trial("surroundings::a_mirror_that_lacks_it", |test| {
            mirror_fails(test, Answer::error(404, "MANIFEST_UNKNOWN", "not mirrored"))
        }),
        rig.trial("surroundings::a_mirror_that_is_broken", |test| mirror_fails(test, Answer::new(500))),
        rig.trial("surroundings::a_proxy_for_http", proxy_for_http),
        rig.trial("surroundings::no_proxy", no_proxy),
    ]
}

/// Sends an image to the open registry and forgets it here.
fn sent(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    test.push(test.world.open.address())?.good()?;
    Ok(std::fs::remove_dir_all(test.store())?)
}

fn pull_by_mirror(test: &Test, registry: &FaultProxy, mirror: &FaultProxy) -> Result<(), Failed> {
    let (registry, mirror) = (registry.address(), mirror.address());
    test.settings(&format!("[registries.\"{registry}\"]\nmirrors = [\"{mirror}\"]\n"))?;
    test.windlass(&["image", "pull", &test.tag(registry)])?.good()?;
    Ok(())
}

fn mirror_first(test: &Test) -> Result<(), Failed> {
    sent(test)?;
    let (mirror, registry) = (test.proxy(Vec::new())?, test.proxy(Vec::new())?);
    pull_by_mirror(test, &registry, &mirror)?;
    assert!(registry.seen("", "/v2/").is_empty() && !mirror.seen("GET", "/blobs/").is_empty());
    Ok(())
}

fn mirror_fails(test: &Test, answer: Answer) -> Result<(), Failed> {
    sent(test)?;
    let mirror = test.proxy(vec![Fault::on("", "/v2/").then(Act::Answer(answer))])?;
    let registry = test.proxy(Vec::new())?;
    pull_by_mirror(test, &registry, &mirror)?;
    assert!(!mirror.seen("", "/v2/").is_empty() && !registry.seen("GET", "/blobs/").is_empty());
    Ok(())
}

/// A name that only the proxy knows.
const BEHIND: &str = "registry.windlass.test:5000";

fn proxy_for_http(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let proxy = test.proxy(Vec::new())?;
    test.settings(&format!("[registries.\"{BEHIND}\"]\nplain-http = true\n"))?;
    let through = format!("http://{}", proxy.address());
    let push = ["image", "push", "layout", &test.tag(BEHIND)];
    test.windlass_with(&push, &[("HTTP_PROXY", &through)])?.good()?;
    assert!(!proxy.seen("PUT", "/manifests/").is_empty());
    test.leaves_nothing(&test.world.open)
}

fn no_proxy(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let proxy = test.proxy(Vec::new())?;
    let through = format!("http://{}", proxy.address());
    test.settings(&format!("[registries.\"{BEHIND}\"]\nplain-http = true\n"))?;
    let push = ["image", "push", "layout", &test.tag(BEHIND)];
    let variables = [("HTTP_PROXY", through.as_str()), ("NO_PROXY", ".windlass.test")];
    test.windlass_with(&push, &variables)?.refused(3, &["could not reach", "HTTP_PROXY"])?;
    // This machine is never reached through one.
    let here = ["image", "push", "layout", &test.tag(test.world.open.address())];
    test.windlass_with(&here, &[("HTTP_PROXY", &through)])?.good()?;
    assert!(proxy.seen("", "").is_empty());
    Ok(())
}
