//! What a plan costs: three questions at most, all at once, and not a byte of any layer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    let meeting = Arc::new(Meeting::default());
    let asked = meeting.clone();
    let proxy = case.proxy(vec![Fault::on("", "/manifests/").when(move |_| asked.wait())])?;
    same("mode", plan(&on, &proxy)?.mode(), "reuse")?;
    let asked = meeting.lock();
    same("questions, and those that waited in vain", *asked, (3, 0))
}

/// Questions that wait for one another.
#[derive(Default)]
struct Meeting {
    /// How many came, and how many of them met no others.
    asked: Mutex<(usize, usize)>,
    came: Condvar,
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, (usize, usize)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never meets the fault: all that is wanted is the wait.
    fn wait(&self) -> bool {
        let mut asked = self.lock();
        asked.0 += 1;
        self.came.notify_all();
        let waited = self.came.wait_timeout_while(asked, Duration::from_secs(20), |asked| asked.0 < 3);
        let (mut asked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        asked.1 += usize::from(timeout.timed_out());
        false
    }
}
