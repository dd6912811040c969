//! What a plan costs: three questions at most, all at once, and not a byte of any layer.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::{Fault, FaultProxy};

use crate::project::{self, RECIPE};
use crate::report::Report;
use crate::rig::{Case, On, lines, same};
use crate::world::World;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("questions::a_plan_asks_three_at_most", three_at_most),
        world.trial("questions::a_plan_asks_all_at_once", all_at_once),
    ]
}

/// Builds, so that all tags are there.
fn build(on: &On<'_>) -> Result<(), Failed> {
    project::write(on.case, &on.case.base("busybox:1"))?;
    on.runtime("build", &["--recipe", RECIPE, "--push"])?.good()?;
    // Nothing is known of the registry any more.
    on.case.forget()
}

/// Plans the same through a proxy.
fn plan(on: &On<'_>, proxy: &FaultProxy) -> Result<Report, Failed> {
    let repository = format!("{}/{}", proxy.address(), on.repository);
    let line = ["--recipe", RECIPE, "--repository", &repository, "--push", "--format", "json"];
    Report::read(&on.run(&[&["runtime", "plan"], &line[..]].concat())?)
}

fn three_at_most(case: &Case) -> Result<(), Failed> {
    for backend in ["oci", "docker"] {
        let (on, proxy) = (case.on(backend)?, case.proxy(Vec::new())?);
        build(&on)?;
        same("mode", plan(&on, &proxy)?.mode(), "reuse")?;
        let seen = proxy.seen("", "");
        assert!((1..=3).contains(&seen.len()), "{backend}: {:#?}", lines(&seen));
        let about_tags = seen.iter().all(|seen| seen.path().contains("/runtime/manifests/acme_v1.2.3_"));
        assert!(about_tags, "{backend}: {:#?}", lines(&seen));
        // Nothing was packed, and nothing was stored.
        let stored = std::fs::read_dir(case.store().join("blobs/sha256")).map_or(0, Iterator::count);
        same("blobs in the store", stored, 0)?;
    }
    Ok(())
}

/// Answers come when all three have been asked.
fn all_at_once(case: &Case) -> Result<(), Failed> {
    let on = case.on("oci")?;
    build(&on)?;
    let asked = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let meeting = asked.clone();
    let wait = Fault::on("", "/manifests/").when(move |_| {
        let (count, all) = &*meeting;
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        all.notify_all();
        let waited = all.wait_timeout_while(count, Duration::from_secs(20), |count| *count < 3);
        drop(waited);
        false
    });
    let proxy = case.proxy(vec![wait])?;
    let report = plan(&on, &proxy)?;
    same("mode", report.mode(), "reuse")?;
    let asked = *asked.0.lock().unwrap_or_else(PoisonError::into_inner);
    same("questions", asked, 3)
}
